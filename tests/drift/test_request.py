"""Limits for automation."""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adawise.errors import SettingsError
from adawise.labels.benefit.helped import Arm, Helped, Interval
from adawise.sink import layout
from adawise_drift.events.result import Camera, Series, Stretch
from adawise_drift.report import Report
from adawise_drift.request import NUMBERS, DriftRequest, expect_packages, parse_limit, parse_request, problems

_NO: Any = np.empty(0)
_SERIES = Series(**dict.fromkeys(Series.__slots__, _NO))


def camera(name: str, **changes: Any) -> Camera:
    numbers: dict[str, Any] = {
        "batches": 10,
        "images": 100,
        "rejected": 0,
        "first_us": 0,
        "last_us": 1,
        "alpha": 0.5,
        "alpha_low": 0.0,
        "alpha_high": 1.0,
        "alpha_last": 0.5,
        "forward_equivalents": 1.0,
        "confidence": 0.9,
        "endpoints_agree": 0.8,
        "drift": 0.0,
        "travelled": 0.0,
    }
    return Camera(
        stream_id=name,
        levels=(Stretch(0, 1, 0.5),),
        changes=(),
        class_mix=(),
        reasons={},
        resets={},
        silences=((0, 1),),
        series=_SERIES,
        **{**numbers, **changes},
    )


def report(*cameras: Camera, helped: Helped | None = None) -> Report:
    return Report(
        root="runs/yard", command="", made_at="", since_us=0, judged_us=0, until_us=1, bin_us=1, smallest=0.1,
        cameras=cameras, overall=_SERIES, groups=(), events=(), models=(),
        objective="", reference="", recording="", helped=helped,
    )  # fmt: skip


def exceeded(limit: str, seen: Report) -> tuple[tuple[str, float], ...]:
    return tuple(parse_limit(limit).exceeded(seen.cameras, seen.events, seen.helped).items())


def test_cameras_beyond_a_limit_are_named_with_their_number_the_farthest_first() -> None:
    seen = report(camera("a", drift=0.3), camera("b", drift=0.2), camera("c", drift=0.7))
    assert exceeded("drift>0.2", seen) == (("c", 0.7), ("a", 0.3))
    assert exceeded("drift >= .2", seen) == (("c", 0.7), ("a", 0.3), ("b", 0.2))
    assert exceeded("drift<0.25", seen) == (("b", 0.2),)
    assert exceeded("drift<=0.3", seen) == (("b", 0.2), ("a", 0.3))
    assert exceeded("drift>1", seen) == ()


@pytest.mark.parametrize(
    ("limit", "changes"),
    [
        ("rejects>0.4", {"rejected": 100}),
        ("fe>1.5", {"forward_equivalents": 1.6}),
        ("agreement<0.5", {"endpoints_agree": 0.4}),
        ("confidence<0.5", {"confidence": 0.4}),
        ("alpha>0.9", {"alpha": 0.95}),
        ("travelled>1", {"travelled": 1.5}),
    ],
)
def test_each_number_has_its_limit(limit: str, changes: dict[str, float]) -> None:
    assert [name for name, _ in exceeded(limit, report(camera("calm"), camera("bad", **changes)))] == ["bad"]


def test_every_number_can_be_asked_of_every_camera() -> None:
    assert {name: number(camera("a")) for name, number in NUMBERS.items()}["silences"] == 1.0
    assert NUMBERS["changes"](camera("a")) == 0.0


def test_what_is_not_known_is_beyond_no_limit() -> None:
    seen = report(camera("a", confidence=math.nan))
    assert exceeded("confidence<2", seen) == ()
    assert exceeded("accuracy<1", seen) == ()
    assert exceeded("gain<1", seen) == ()


def test_accuracy_is_that_of_what_was_served_and_gain_that_over_the_better_endpoint() -> None:
    def arm(name: str, accuracy: float, gain: float | None) -> Arm:
        over = None if gain is None else Interval(gain, gain, gain)
        return Arm(name, math.nan, 50, Interval(accuracy, accuracy, accuracy), 0.1, over, "rows")

    arms = (
        arm("served", 0.7, None),
        arm("zero-shot", 0.6, 0.1),
        arm("fine-tuned", 0.75, -0.05),
        arm("alpha 0.5", 0, 0.7),
    )
    helped = Helped(50, 100, "rows", arms, {"a": arms}, {}, ())
    seen = report(camera("a"), camera("b"), helped=helped)
    assert exceeded("accuracy<0.8", seen) == (("a", 0.7),)
    assert exceeded("gain<0", seen) == (("a", -0.05),)


@pytest.mark.parametrize(
    "text", ["", "drift", "drift>", "drift=0.2", "drift>x", "hope>1", "drift>0.2 or so", "0.2<drift"]
)
def test_what_is_no_limit_is_refused_with_the_names_that_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="the name one of events, failing, noted, drift, travelled"):
        parse_limit(text)


def test_an_address_is_checked_without_the_extra_that_sending_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stamina", None)
    monkeypatch.delitem(sys.modules, "adawise_drift.alertmanager", raising=False)
    given = {"alertmanager": "http://127.0.0.1:9093", "since": "1d"}
    assert list(problems(given)) == []
    monkeypatch.setattr("adawise_drift.request.find_spec", lambda name: None if name == "stamina" else name)
    with pytest.raises(SettingsError, match=r"drift needs stamina; install them with: pip install 'adawise\[report\]'"):
        expect_packages(is_drawn=False)


def test_options_become_a_request_once_every_root_has_an_output(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        **dict.fromkeys(
            ("streams", "since", "until", "baseline", "known", "labels", "least_accuracy", "output", "plots"), None
        ),
        **{"root": (str(tmp_path / "yard"),), "against": str(tmp_path / "half"), "reference": 864_000.0},
        **{"time_zone": "Europe/Berlin", "fail_if": "drift>0.2, events>0", "label_within": 2.0, "smallest": 0.2},
        "streams": "north, south",
        "since": "2026-06-01T06:00:00Z",
    }

    def parse() -> DriftRequest:
        return parse_request(options, card=None, objective="auto", classes=("cat", "dog"), command="adawise drift")

    with pytest.raises(SettingsError, match=r"there is no output of a worker in .*yard"):
        parse()
    for name in ("yard", "half"):
        (tmp_path / name).mkdir()
        (tmp_path / name / layout.SINK).touch()
    request = parse()
    assert (request.roots, request.against) == ((str(tmp_path / "yard"),), (str(tmp_path / "half"),))
    assert (request.streams, request.smallest, request.classes) == (("north", "south"), 0.2, ("cat", "dog"))
    assert (request.reference, request.label_within) == (timedelta(days=10), timedelta(seconds=2))
    assert [str(limit) for limit in request.limits] == ["drift>0.2", "events>0"]
