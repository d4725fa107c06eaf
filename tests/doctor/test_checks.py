"""Parts one after another: none hides, hinders or outlives the next, whatever it does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from adawise.__main__ import main
from adawise.cli.doctor import DoctorCommand
from adawise.doctor import checks
from adawise.doctor.checks import PARTS, Examination, check, not_known
from adawise.doctor.known import CheckResult, Known, ok, report, report_json
from adawise.errors import BrokerUnavailable
from adawise.kafka.client import open_client
from adawise.settings import Settings
from adawise.settings.describe import FIELDS
from adawise.settings.mistakes import NOT_SET, Mistake
from adawise.settings.reading import Reading
from tests.deadlines import DEADLINE_S

Captured = pytest.CaptureFixture[str]


def passes(_: Known) -> CheckResult:
    return ok("fine")


def fails(_: Known) -> CheckResult:
    raise BrokerUnavailable("nobody answers. Start one")


def part(
    name: str, inspect: object = passes, *reads: str, after: tuple[str, ...] = (), limit_s: float = 20.0
) -> Examination:
    return Examination(name, inspect, frozenset(reads), after, limit_s, "See to it.")  # type: ignore[arg-type]


def outcomes(*parts: Examination, wrong: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    return [(each.name, each.status, each.detail) for each in check(Settings(), wrong, parts)]


def test_what_fails_hides_only_what_cannot_be_looked_at_without_it() -> None:
    assert outcomes(
        part("broker", fails), part("topic", after=("broker",)), part("group", after=("topic",)), part("store")
    ) == [
        ("broker", "fail", "nobody answers. Start one"),
        ("topic", "skip", "needs broker"),
        ("group", "skip", "needs topic"),
        ("store", "ok", "fine"),
    ]


def test_what_wrong_settings_are_about_is_passed_over_and_the_rest_is_looked_at() -> None:
    parts = part("broker", passes, "kafka"), part("topic", after=("broker",)), part("store", passes, "sink")
    assert outcomes(*parts, wrong=("kafka",)) == [
        ("broker", "skip", "correct these settings first: those under [kafka]"),
        ("topic", "skip", "needs broker"),
        ("store", "ok", "fine"),
    ]


def test_a_fault_that_nobody_thought_of_is_told_and_the_next_part_is_looked_at() -> None:
    def breaks(_: Known) -> CheckResult:
        raise ZeroDivisionError("by zero")

    def is_slow(_: Known) -> CheckResult:
        raise TimeoutError("the disk took too long")

    def is_refused(_: Known) -> CheckResult:
        raise PermissionError(13, "Permission denied", "/data")

    assert outcomes(part("one", breaks), part("two", is_slow), part("four", is_refused), part("three")) == [
        ("one", "fail", "ZeroDivisionError: by zero. This is a bug: please report it."),
        ("two", "fail", "the disk took too long. See to it."),
        ("four", "fail", "[Errno 13] Permission denied: '/data'. See to it."),
        ("three", "ok", "fine"),
    ]


def test_a_part_that_never_answers_fails_in_its_time_and_keeps_nobody() -> None:
    forever = threading.Event()

    def hangs(_: Known) -> CheckResult:
        forever.wait()
        return ok()

    try:
        assert outcomes(part("store", hangs, limit_s=0.05), part("cores")) == [
            ("store", "fail", "expected an answer within 0.05 s, but got none. See to it."),
            ("cores", "ok", "fine"),
        ]
    finally:
        forever.set()


def test_whom_a_lane_asks_is_asked_no_more_once_silent_and_holds_no_other_lane_up() -> None:
    forever, others = threading.Event(), threading.Event()

    def hangs(_: Known) -> CheckResult:
        others.wait()  # it fails after the other lanes are done, wherever it stands
        forever.wait()
        return ok()

    def is_last(_: Known) -> CheckResult:
        others.set()
        return ok()

    try:
        assert outcomes(
            replace(part("broker", hangs, limit_s=0.05), lane="broker"),
            replace(part("group"), lane="broker"),
            replace(part("store"), lane="store", behind="broker"),
            replace(part("chains", after=("group",)), lane="store"),
            replace(part("pair", is_last), lane="model"),
        ) == [
            ("broker", "fail", "expected an answer within 0.05 s, but got none. See to it."),
            ("group", "skip", "broker did not answer"),
            ("store", "ok", "fine"),
            ("chains", "skip", "needs group"),
            ("pair", "ok", ""),
        ]
        assert others.is_set()
    finally:
        forever.set()


def test_what_was_closed_by_whoever_opened_it_is_no_fault_at_the_end() -> None:
    def opens(known: Known) -> CheckResult:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            servers = f"127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(BrokerUnavailable):
                open_client(KafkaAdminClient, servers, {}, bootstrap_timeout_ms=200)
        (client,) = known.clients
        client.close()
        return ok("closed")

    assert outcomes(part("broker", opens)) == [("broker", "ok", "closed")]


def test_a_library_that_hangs_in_threads_of_its_own_keeps_no_process() -> None:
    """They would be waited for, for ever, when Python ends."""
    program = (
        "import sys; from concurrent.futures import ThreadPoolExecutor; from threading import Event\n"
        "from functools import partial; from adawise import __main__; from adawise.doctor import checks\n"
        "hangs = lambda known: ThreadPoolExecutor(1).submit(Event().wait).result()\n"
        "parts = (checks.Examination('pair', hangs, frozenset(), limit_s=0.1, remedy='See to it.'),)\n"
        "checks.check = partial(checks.check, parts=parts)\n"
        "sys.argv[1:] = ['doctor']; __main__.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2, done.stderr
    assert "FAIL  pair: expected an answer within 0.1 s" in done.stdout
    assert done.stdout.endswith("2 failed\n")


def test_a_broker_behind_a_firewall_is_given_up_and_asked_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        servers = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = Settings.model_validate({"kafka": {"bootstrap_servers": servers}})
        of_kafka = [replace(each, limit_s=0.5) for each in PARTS if "kafka" in each.reads and "sink" not in each.reads]
        found = {each.name: (each.status, each.detail) for each in check(settings, ["record"], of_kafka)}
    looking = [thread for thread in threading.enumerate() if thread.name == "doctor-broker"]
    for thread in looking:  # ends, since its client was closed
        thread.join(DEADLINE_S)
    assert not [thread.name for thread in looking if thread.is_alive()]
    status, detail = found.pop("broker")
    assert status == "fail"
    assert "within 0.5 s" in detail
    assert "Check whether a firewall drops packets to kafka.bootstrap_servers" in detail
    assert {status for status, _ in found.values()} == {"skip"}


def test_every_part_waits_for_parts_before_it_and_reads_groups_that_there_are() -> None:
    names = [each.name for each in PARTS]
    assert len(set(names)) == len(names)
    for number, each in enumerate(PARTS):
        assert set(each.after) <= set(names[:number]), each.name
        assert each.reads <= set(FIELDS), each.name
        assert each.remedy.endswith("."), each.name


def test_checks_are_a_line_each_and_are_counted(capsys: Captured) -> None:
    checks = [
        CheckResult("fail", "not writable\nchmod it", "store"),
        CheckResult("skip", name="card"),
        CheckResult("warn", "full", "disk"),
    ]
    assert report(checks) == checks
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == ["FAIL  store: not writable", "      chmod it", "SKIP  card", "WARN  disk: full"]
    assert last == "1 failed, 1 skipped, 1 warning"


def test_checks_are_an_object_for_other_programs(capsys: Captured) -> None:
    report_json([CheckResult("warn", "full", "disk")])
    assert json.loads(capsys.readouterr().out) == {"checks": [{"name": "disk", "status": "warn", "detail": "full"}]}


@pytest.mark.parametrize(
    ("statuses", "strict", "code"),
    [("ok skip", False, 0), ("ok warn", False, 0), ("ok warn", True, 3), ("warn fail", True, 1), ("fail", False, 1)],
)
def test_the_exit_code_says_whether_a_worker_can_start(
    statuses: str, strict: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    results = [CheckResult(status, name="a part") for status in statuses.split()]  # type: ignore[arg-type]
    monkeypatch.setattr(checks, "check", lambda settings, wrong: results)
    options = {"strict": True} if strict else {}
    assert DoctorCommand.call_with_mistakes(Reading(Settings(), {}, ()), options) == code
    assert capsys.readouterr().out.startswith("OK    settings\n")


EVERYTHING = set(Settings.model_fields)


@pytest.mark.parametrize(
    ("mistakes", "unknown"),
    [
        ({"model.theta_0": NOT_SET, "kafka.security.ssl_ca": "flag --x"}, {"model.theta_0", "kafka"}),
        ({"config": "adawise.toml"}, EVERYTHING),
        ({"kafka.topic": "adawise.toml line 1", "kafak.topic": "adawise.toml line 2"}, EVERYTHING),
        ({}, set()),
    ],
)
def test_a_name_that_nobody_knows_may_hide_any_setting_and_one_that_is_missing_hides_none(
    mistakes: dict[str, str], unknown: set[str]
) -> None:
    assert not_known([Mistake(name, origin, "wrong") for name, origin in mistakes.items()]) == unknown


def test_the_doctor_looks_at_the_rest_where_settings_are_wrong_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adawise.toml").write_text("[search]\nalpha = 7\n[kafka]\ntopic = 'a b'\n")
    assert main(["doctor", "--json"]) == 2
    checks = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["settings"]["status"] == "fail"
    assert "search.alpha = 7  (adawise.toml line 2)" in checks["settings"]["detail"]
    assert "the zero-shot checkpoint is needed; set it by" in checks["settings"]["detail"]
    assert checks["model pair and card"]["detail"] == (
        "correct these settings first: model.classes, model.theta_0, model.theta_1, those under [search]"
    )
    assert checks["broker"]["detail"] == "correct these settings first: those under [kafka]"
    assert {checks[name]["status"] for name in ("codecs of batches", "cores")} == {"ok"}
    assert main(["doctor", "--jsn"]) == 2
    assert "did you mean --json?" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["adawise.toml"]
