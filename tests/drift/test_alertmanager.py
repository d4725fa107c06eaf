"""What `adawise drift` tells an Alertmanager: the distribution's own where it is there, and one that fails."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.errors import AlertsNotSent
from adawise_drift.alertmanager import alerts, send
from adawise_drift.report import Report
from tests.drift import yard
from tests.drift.page.building import HOSTILE, a_camera, a_report, every_shape
from tests.loopback import Answering, Server, serving
from tests.watch.web.client import request

NOW = datetime(2026, 11, 27, 3, tzinfo=UTC)
NIGHT = timedelta(days=1)


@pytest.fixture
def report() -> Report:
    cameras = [a_camera(name, [(0, 0.3)], hours=240) for name in (HOSTILE, "gate")]
    return a_report(cameras, events=every_shape([HOSTILE, "gate"]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yard.write(tmp_path_factory.mktemp("yard"))


class Failing(Server):
    """Answers with each of these in turn, with the last one again and again."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(LoggingObserver)
        self.statuses, self.came = list(statuses), list[Any]()


class LoggingObserver(Answering):
    def post(self) -> None:
        server = self.server
        assert isinstance(server, Failing)
        server.came.append(json.loads(self.body()))
        status = server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0]
        self.answer(status, b"" if status == 200 else b"no room", location="http://127.0.0.1:9/")


def test_each_incident_of_weight_is_one_alert_until_the_next_report_is_due(report: Report) -> None:
    found = alerts(report, NIGHT, NOW)
    heavy = {event.incident for event in report.events if event.severity != "noted"}
    assert len(found) == len(heavy) == 6
    first = found[0]
    assert (first["labels"]["stream_id"], first["labels"]["measure"]) == (HOSTILE, "accuracy")
    assert {alert["labels"]["state"] for alert in found} == {"failing", "changed", "silent"}
    assert first["endsAt"] == "2026-11-28T04:00:00.000+00:00"
    assert first["annotations"]["description"] == (
        "accuracy .80 to .45; confidence .85 to .60; contrast −50\u00a0%; sharpness −39\u00a0%. "
        "Accuracy -0.35 (-0.40 to -0.30, measured). likely: weather, dirt on the lens, or focus"
    )
    long = alerts(report, timedelta(days=60), NOW)
    assert long[0]["endsAt"] == "2026-12-04T04:00:00.000+00:00"


def test_alertmanager_takes_them_once_however_often_they_are_sent(alertmanager: str, report: Report) -> None:
    now = datetime.now(UTC)
    result = alerts(report, NIGHT, now)
    for _ in range(2):
        send(alertmanager, result)
    found = request(alertmanager, "/api/v2/alerts").json
    assert sorted(alert["labels"]["stream_id"] for alert in found) == sorted(a["labels"]["stream_id"] for a in result)
    assert {alert["status"]["state"] for alert in found} <= {"active", "unprocessed"}


def test_the_command_tells_what_happened_of_the_time_that_is_judged(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Failing(200)) as server:
        assert main(["drift", str(root), "--since", "2026-06-01T00:00Z", "--alertmanager", server.address]) == 0
    (found,) = server.came
    assert {alert["labels"]["stream_id"] for alert in found} == {"yard", "ramp", "tunnel", "dock"}
    assert all(alert["labels"]["root"] == str(root) for alert in found)
    assert "cameras: 1 ok" in capsys.readouterr().out


def test_where_nothing_happened_nothing_is_sent(report: Report) -> None:
    assert alerts(replace(report, events=()), NIGHT, NOW) == []
    with serving(Failing(500)) as server:
        send(server.address, [])
    assert server.came == []


def test_a_server_that_is_busy_is_asked_again(report: Report) -> None:
    with serving(Failing(503, 200)) as server:
        send(server.address, alerts(report, NIGHT, NOW))
    assert len(server.came) == 2
    assert server.came[0] == server.came[1]


@pytest.mark.parametrize(
    ("status", "expected"), [(400, "it answers 400 (no room)"), (302, "it answers 302"), (404, "it answers 404")]
)
def test_one_that_refuses_is_not_asked_again_and_says_why(status: int, expected: str, report: Report) -> None:
    with serving(Failing(status)) as server, pytest.raises(AlertsNotSent) as refused:
        send(server.address, alerts(report, NIGHT, NOW))
    assert len(server.came) == 1
    assert f"6 alerts could not be sent to {server.address}/api/v2/alerts: {expected}" in str(refused.value)


def test_what_could_not_be_sent_ends_the_command_with_its_code_after_the_report(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Failing(400)) as server:
        words = ["drift", str(root), "--since", "2026-06-01T00:00Z", "--fail-if", "events>0"]
        assert main([*words, "--alertmanager", server.address]) == 1
    out, output = capsys.readouterr()
    assert "events>0: 4 cameras exceed it" in out
    assert "alerts could not be sent" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--alertmanager", "http://127.0.0.1:9093"], "expected --since beside it"),
        (["--since", "1d", "--alertmanager", "127.0.0.1:9093"], "expected a URL such as http://127.0.0.1:9093"),
        (["--since", "1d", "--alertmanager", "http://me:pass@host:9093"], "it may not contain a password"),
        (["--since", "1d", "--alertmanager", "http://host:port"], "it is not a URL"),
    ],
)
def test_a_wrong_address_is_told_before_anything_is_read(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drift", "nowhere", *words]) == 2
    output = capsys.readouterr().err
    assert expected in output
    assert "pass@" not in output


def test_a_night_that_is_past_stands_as_long_as_it_was(root: Path) -> None:
    bounds = ["--since", "2026-06-01T00:00Z", "--until", "2026-06-02T00:00Z"]
    with serving(Failing(200)) as server:
        assert main(["drift", str(root), *bounds, "--alertmanager", server.address]) == 0
    lasts = datetime.fromisoformat(server.came[0][0]["endsAt"]) - datetime.now(UTC)
    assert timedelta(hours=24) < lasts <= timedelta(hours=25)
