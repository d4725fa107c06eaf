"""Reports made by hand: a yard of cameras under scripted weather, so that a test says what the page has to show."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from adawise.labels.arrays import Floats
from adawise.labels.benefit.helped import Arm, Confusion, Estimate, Helped, Interval
from adawise_drift.events.calendar import calendar
from adawise_drift.events.result import (
    NOTHING_KNOWN,
    PIXELS,
    AccuracyCost,
    AccuracyOverTime,
    AccuracyPoint,
    Calendar,
    Camera,
    CameraChange,
    CameraGroup,
    Cause,
    DriftEvent,
    Example,
    GalleryFrame,
    Model,
    Series,
    Stays,
    Stretch,
)
from adawise_drift.queries import written_out
from adawise_drift.report import Report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>${alert(3)}{{7*7}}"
HOUR_US = 3_600_000_000
BEGIN_US = 1_790_812_800_000_000  # 2026-10-01 00:00 UTC
CLASSES = ("car", "person", "truck", "bicycle", "bus", "dog", "motorcycle", "van")


def a_series(
    alpha: Floats, *, rng: np.random.Generator, present: Any = None, rejected: Any = None, **fields: Any
) -> Series:
    """An hour a point around a path of alpha; what else is measured follows it with noise of its own."""
    n = len(alpha)
    spread = 0.04 + 0.05 * rng.random(n)
    mean = np.clip(alpha + rng.normal(0, 0.025, n), 0, 1)
    wide = spread + 0.12 * rng.random(n)
    known: dict[str, Any] = {
        "time_us": BEGIN_US + HOUR_US * np.arange(n),
        "batches": rng.integers(40, 60, n),
        "images": rng.integers(1300, 1900, n),
        "alpha": mean,
        "alpha_low": np.clip(mean - spread, 0, 1),
        "alpha_high": np.clip(mean + spread, 0, 1),
        "tried_low": np.clip(mean - wide, 0, 1),
        "tried_high": np.clip(mean + wide, 0, 1),
        "objective": 0.9 + 0.7 * np.abs(alpha - 0.4) + rng.normal(0, 0.03, n),
        "posterior_sd": 0.03 + 0.03 * rng.random(n),
        "reference": 0.88 + 0.2 * np.abs(mean - 0.5),
        "forward_equivalents": 1.1 + 0.4 * rng.random(n) ** 3,
        "confidence": np.clip(0.86 - 0.25 * np.abs(alpha - 0.4) + rng.normal(0, 0.015, n), 0, 1),
        "endpoints_agree": np.clip(0.74 + rng.normal(0, 0.02, n), 0, 1),
        "rejected": np.zeros(n, np.int64) if rejected is None else rejected,
        **{name: np.sin(np.arange(n) / 24) / 8 + rng.normal(-1.0, 0.05, n) for name in PIXELS},
    }
    known |= fields
    kept = np.ones(n, bool) if present is None else present
    return Series(**{name: values[kept] for name, values in known.items()})


def a_calendar(days: int = 10, rare: int = 20) -> Calendar:
    """Nights (condition 1) and days (0), and as many conditions that came once for half an hour."""
    rows = [(24.0 * day + hour, is_night) for day in range(days) for hour, is_night in ((0, 1), (6, 0), (18, 1))]
    rows += [(24.0 * (n % days) + 9 + n // days, 2 + n) for n in range(rare)]
    rows += [(24 * (n % days) + 9.5 + n // days, 0) for n in range(rare)]
    hour, condition = (np.array(column) for column in zip(*sorted(rows), strict=True))
    since_us = (BEGIN_US + HOUR_US * hour).astype(np.int64)
    until_us, n = np.append(since_us[1:], BEGIN_US + 24 * days * HOUR_US) - 1, len(hour)
    began = np.diff(condition, prepend=-1) != 0
    returned = began & (condition < 2) & (np.arange(n) > 1)
    batches, numbers = (until_us - since_us) // (HOUR_US // 30), np.arange(n, dtype=np.float64)
    none, alarms = np.zeros(n, np.int64), np.where(condition == 1, batches // 3, 0)
    return calendar(Stays(since_us, until_us, none, condition, batches, numbers / n, numbers, began, returned, alarms))


def a_camera(
    name: str,
    levels: Sequence[tuple[int, float]],
    *,
    hours: int = 720,
    seed: int = 0,
    silent: tuple[int, int] | None = None,
    rejecting: bool = False,
    **fields: Any,
) -> Camera:
    """A camera whose alpha has these levels, each from its hour on."""
    rng = np.random.default_rng((seed, *name.encode()))
    at = np.arange(hours)
    path = np.full(hours, levels[0][1])
    for hour, level in levels[1:]:
        path[hour:] = level
    path = np.clip(path + 0.03 * np.sin(2 * np.pi * at / 24), 0, 1)
    present = np.ones(hours, bool)
    if silent is not None:
        present[silent[0] : silent[1]] = False
    rejected = rng.poisson(40, hours) * (rng.random(hours) < 0.1) if rejecting else None
    series = a_series(path, rng=rng, present=present, rejected=rejected)
    ends = [*(hour for hour, _ in levels[1:]), hours]
    found = tuple(
        Stretch(BEGIN_US + HOUR_US * a, BEGIN_US + HOUR_US * b, level)
        for (a, level), b in zip(levels, ends, strict=True)
    )
    changes = tuple(_change(i, levels[i - 1][1], *levels[i]) for i in range(1, len(levels)))
    heights = [level for _, level in levels]
    images = int(series.images.sum())
    known: dict[str, Any] = {
        "stream_id": name,
        "batches": int(series.batches.sum()),
        "images": images,
        "rejected": int(series.rejected.sum()),
        "first_us": BEGIN_US,
        "last_us": BEGIN_US + HOUR_US * hours - 60_000_000,
        "alpha": float(np.average(series.alpha, weights=series.images)),
        "alpha_low": float(series.alpha_low.min()),
        "alpha_high": float(series.alpha_high.max()),
        "alpha_last": float(series.alpha[-1]),
        "forward_equivalents": float(series.forward_equivalents.mean()),
        "confidence": float(series.confidence.mean()),
        "endpoints_agree": float(series.endpoints_agree.mean()),
        "drift": max(heights) - min(heights),
        "travelled": sum(abs(change.size) for change in changes),
        "levels": found,
        "changes": changes,
        "class_mix": _mix(rng),
        "reasons": {"image_undecodable": int(series.rejected.sum())} if rejecting else {},
        "resets": {"silent": 1} if silent else {},
        "silences": ((BEGIN_US + HOUR_US * silent[0], BEGIN_US + HOUR_US * silent[1]),) if silent else (),
        "series": series,
        "accuracy": an_accuracy(hours),
    }
    return Camera(**{**known, **fields})


def a_report(cameras: Sequence[Camera], *, hours: int = 720, helped: Helped | None = None, **fields: Any) -> Report:
    """Of these cameras, the farthest first."""
    rng = np.random.default_rng(1)
    mean = np.mean([np.interp(np.arange(hours), *_path(camera)) for camera in cameras], axis=0)
    known: dict[str, Any] = {
        "root": "runs/yard",
        "command": "adawise drift runs/yard -o yard.html --recording recordings/yard",
        "made_at": "2026-11-25T22:00:00+00:00",
        "since_us": BEGIN_US,
        "until_us": BEGIN_US + HOUR_US * hours - 60_000_000,
        "bin_us": HOUR_US,
        "smallest": 0.1,
        "cameras": tuple(sorted(cameras, key=lambda camera: -camera.drift)),
        "overall": a_series(mean, rng=rng),
        "groups": (),
        "events": (),
        "judged_us": 0,
        "models": (Model("a" * 16, BEGIN_US, BEGIN_US + HOUR_US * hours, 35_000),),
        "objective": "entropy_ref",
        "reference": "yard.card.json: mean entropy_ref on 4000 labelled images",
        "recording": "recordings/yard",
        "helped": helped,
        "accuracy": an_accuracy(hours),
        "calibration": "confidence is at the temperature of the workers' card",
        "queries": written_out(HOUR_US, 135_000_000, 900_000_000, HOUR_US, 0),
        "notes": (),
        "versions": {"python": "3.11.9", "adawise": "0.1.0", "duckdb": "1.4.0"},
    }
    return Report(**{**known, **fields})


def an_accuracy(hours: int, *, off: float = 0.04) -> AccuracyOverTime:
    """Ten points of each kind; labels are of the first eight. By confidence it is so much too high."""
    points = []
    for how, height, half, images, count in (
        ("measured", 0.8, 0.05, 120, 8),
        ("confidence", 0.8 + off, 0.18, 4000, 10),
        ("agreement", 0.78, 0.13, 900, 10),
    ):
        for place in range(count):
            since_us, until_us = (round(BEGIN_US + HOUR_US * hours * at / 10) for at in (place, place + 0.9))
            value = height - 0.03 * place
            points.append(AccuracyPoint(since_us, until_us, how, value, value - half, min(1.0, value + half), images))  # type: ignore[arg-type]
    return AccuracyOverTime(tuple(points), Interval(off, off - 0.02, off + 0.02), abs(off) > 0.09)


def an_event(name: str, measure: str, shape: str, hour: float, until: float = 0.0, **fields: Any) -> DriftEvent:
    """At an hour, or from one until another; incident 1, unless it is said."""
    since_us, until_us = (round(BEGIN_US + HOUR_US * at) for at in (hour, max(hour, until)))
    known: dict[str, Any] = {
        "earliest_us": since_us - HOUR_US,
        "latest_us": since_us + HOUR_US,
        "before": 0.85,
        "after": 0.6,
        "unit": "share",
        "score": 9.0,
        "incident": 1,
        "next": f"adawise drift runs/yard --streams '{name}' -o event.html",
    }
    return DriftEvent(name, measure, shape, since_us, until_us, **{**known, **fields})  # type: ignore[arg-type]


def every_shape(names: Sequence[str], *, hours: int = 240) -> tuple[DriftEvent, ...]:
    """Ten incidents, of every shape and severity, over these cameras; the first has four measures."""
    day = hours / 10
    lost = AccuracyCost(-0.35, -0.4, -0.3, "measured")
    guess = AccuracyCost(-0.02, -0.17, 0.13, "estimated", is_doubted=True)
    likely = (Cause("likely", "likely: weather, dirt on the lens, or focus"),)
    values: list[tuple[str, str, float, float, dict[str, Any]]] = [
        (
            "accuracy",
            "step",
            4,
            0,
            {"severity": "failing", "cost": lost, "causes": likely, "before": 0.8, "after": 0.45},
        ),
        ("rate", "ended", 8, 0, {"severity": "failing", "unit": "", "before": np.nan, "after": np.nan}),
        ("confidence", "ramp", 2, 5, {"cost": guess}),
        ("alpha", "unrest", 3, 7, {"unit": "alpha", "after": 0.4}),
        ("alpha", "cycle begun", 6, 0, {"unit": "alpha", "after": 0.3}),
        ("mix", "step", 5, 0, {"detail": f"{HOSTILE} 4% to 38%", "before": 0.0, "after": 0.4}),
        ("model", "model", 7, 0, {"severity": "noted", "unit": "", "before": np.nan, "after": np.nan}),
        ("rejects", "spike", 1, 1.5, {"severity": "noted", "before": 0.0, "after": 0.3}),
        ("rate", "silence", 3, 4, {"severity": "noted", "unit": "", "before": np.nan, "after": np.nan}),
        ("brightness", "step", 0.5, 0, {"severity": "noted", "unit": "log", "before": -1.0, "after": -0.5}),
    ]
    found = [
        an_event(names[number % len(names)], measure, shape, at * day, until * day, incident=number + 1, **fields)
        for number, (measure, shape, at, until, fields) in enumerate(values)
    ]
    beside = [
        replace(found[0], measure=measure, unit=unit, before=before, after=after)
        for measure, unit, before, after in (
            ("confidence", "share", 0.85, 0.6),
            ("contrast", "log", -1.0, -1.7),
            ("sharpness", "log", -1.0, -1.5),
        )
    ]
    seen = replace(found[0], examples=_examples(found[0].since_us, 0.1, 0.95))
    return (seen, *beside, *found[1:])


def a_gallery(names: Sequence[str]) -> tuple[GalleryFrame, ...]:
    """Two frames of a kind; the classes are hostile too."""
    kinds = (("least confident", 0.21), ("endpoints disagree", 0.84), ("class", 0.99))
    return tuple(
        GalleryFrame(kind, name, BEGIN_US, f"frames/0/{place}/0", HOSTILE, "car", None, confidence, a_frame(place, 0.2))
        for kind, confidence in kinds
        for place, name in enumerate(names[:2])
    )


def a_yard(count: int = 12, *, hours: int = 720, labels: bool = True) -> Report:
    """Fog comes over a third of the cameras and goes again; one falls silent and comes back to another scene."""
    fog, clear, scene = (int(share * hours) for share in (0.31, 0.55, 0.69))
    cameras = []
    for i in range(count):
        base = 0.3 + 0.02 * (i % 5)
        levels: list[tuple[int, float]] = [(0, base)]
        if i % 3 == 0:
            levels += [(fog + i % 4, base + 0.34 - 0.02 * (i % 12)), (clear + i % 5, base + 0.05)]
        elif i == 1:
            levels += [(scene, 0.82)]
        elif i % 7 == 4:
            levels += [(fog + i % 50, base + 0.18)]
        cameras.append(
            a_camera(
                f"yard/cam-{i:02d}",
                levels,
                hours=hours,
                seed=i,
                silent=(scene - hours // 24, scene) if i == 1 else None,
                rejecting=i % 5 == 2,
            )
        )
    members = tuple(camera.stream_id for camera in cameras[::3])
    sentence = f"{len(members)} cameras moved the same way at 3 moments."
    names = [camera.stream_id for camera in cameras]
    groups = (CameraGroup(members, 3, 0.002, sentence),) if len(members) > 1 else ()
    notes = ("3 frames beside events are not in the recording, or their image was removed",)
    return a_report(cameras, hours=hours, helped=a_help(names) if labels else None, groups=groups, notes=notes)


def a_help(cameras: Sequence[str], *, classes: Sequence[str] = CLASSES) -> Helped:
    """Served above every fixed arm but not shown to be above the best one."""
    values = {"zero-shot": 0.742, "fine-tuned": 0.768, "alpha 0.5": 0.801, "best fixed alpha": 0.806}
    arms = _arms(0.811, values, 52_000, 0.004)
    rng = np.random.default_rng(5)
    each = {
        name: _arms(0.81 + rng.normal(0, 0.02), {k: v + rng.normal(0, 0.02) for k, v in values.items()}, 4000, 0.012)
        for name in cameras
    }
    confusion = {arm.name: _confusion(arm.accuracy.value, classes, rng) for arm in (arms[0], arms[1], arms[2])}
    estimates = (Estimate("served", 0.79, "mean confidence, calibrated by the card"),)
    return Helped(52_000, 1_100_000, "labels.csv", arms, each, confusion, estimates)


def without_rows(camera: Camera) -> Camera:
    """As it is known where there are traces and no predictions."""
    nothing = np.full(len(camera.series.alpha), np.nan)
    of_rows = ("confidence", "endpoints_agree", "reference", "posterior_sd")
    names = (*of_rows, *PIXELS)
    series = replace(camera.series, **dict.fromkeys(names, nothing), objective=nothing)
    return replace(
        camera, series=series, accuracy=NOTHING_KNOWN, class_mix=(), confidence=np.nan, endpoints_agree=np.nan
    )


def _arms(served: float, others: Mapping[str, float], images: int, half: float) -> tuple[Arm, ...]:
    alphas = {"zero-shot": 0.0, "fine-tuned": 1.0, "alpha 0.5": 0.5, "best fixed alpha": 0.45}
    first = Arm("served", np.nan, images, _around(served, half), 0.031, None, "the rows")
    return (
        first,
        *(
            Arm(name, alphas[name], images, _around(value, half), 0.05, _around(served - value, half * 1.5), "a replay")
            for name, value in others.items()
        ),
    )


def _around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def _confusion(right: float, classes: Sequence[str], rng: np.random.Generator) -> Confusion:
    n = len(classes)
    totals = (6000 / (1 + np.arange(n))).astype(int)
    wrong = rng.dirichlet(np.full(n, 0.5), n)
    rows = [tuple(int(totals[i] * (right * (i == j) + (1 - right) * wrong[i, j])) for j in range(n)) for i in range(n)]
    return Confusion(tuple(classes), tuple(rows))


def _change(number: int, before: float, hour: int, after: float) -> CameraChange:
    at = BEGIN_US + HOUR_US * hour
    ramp = number == 2
    return CameraChange(
        time_us=at,
        earliest_us=at - HOUR_US,
        latest_us=at + (9 if ramp else 1) * HOUR_US,
        before=before,
        after=after,
        kind="ramp" if ramp else "step",
    )


def _examples(at: int, before: float, after: float) -> tuple[Example, ...]:
    found = []
    for k in range(3):
        for side, alpha, fog in (("before", before, 0.0), ("after", after, 0.6)):
            time = at + (k + 1) * (600_000_000 if side == "after" else -600_000_000)
            label = CLASSES[k]
            row = f"frames/3/{1000 + k}/0"
            found.append(Example(side, time, row, label, 0.8 - 0.1 * k, alpha, a_frame(k, fog)))  # type: ignore[arg-type]
    return tuple(sorted(found, key=lambda example: example.time_us))


def a_frame(seed: int, fog: float) -> str:
    """A small JPEG of some shapes, in fog or not."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((120, 160, 3)) + np.linspace(120, 200, 120)[:, None, None]
    for _ in range(5):
        y, x = rng.integers(20, 90), rng.integers(10, 130)
        pixels[y : y + 26, x : x + 34] = rng.integers(0, 255, 3)
    grey = (1 - fog) * pixels + fog * 215
    out = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(out, "JPEG", quality=60)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _mix(rng: np.random.Generator) -> tuple[tuple[str, float, float, float], ...]:
    columns = [np.sort(rng.dirichlet(np.ones(len(CLASSES))))[::-1] for _ in range(3)]
    return tuple((label, *(float(column[i]) for column in columns)) for i, label in enumerate(CLASSES))  # type: ignore[misc]


def _path(camera: Camera) -> tuple[Floats, Floats]:
    hours = (camera.series.time_us - BEGIN_US) / HOUR_US
    return hours, camera.series.alpha


def unfolded(page: str) -> dict[str, tuple[dict[str, Any], bytes]]:
    """What is inert on a page by its name, as the script reads it: the head, and values."""
    found = {}
    for name, text in re.findall(r'<script type="text/plain" id="inert-([\w-]+)">(.*?)</script>', page, re.DOTALL):
        head, _, values = zlib.decompress(base64.b64decode(text)).partition(b"\0")
        found[name] = (json.loads(head), values)
    return found
