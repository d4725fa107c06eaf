"""The nightly job over weeks: is it quiet, and after how many nights does it tell what happened?

Cameras of `tests/drift/worlds.py`. Each night judges a day by a baseline of what was before it, of eight days at first
and of 28 at most, as `adawise drift --since 1d --baseline FILE` does. `BENCH_STILL` (400) cameras to which nothing
happens have 30 nights each (seed `BENCH_STILL_SEED`, 104), and each kind of happening befalls `BENCH_EACH` (4) cameras
with labels, on a day of its own (seed `BENCH_SEED`, 105). Sensitivities and rules were chosen on seeds below 100.

Mostly it is the search that is simulated: 4 s of a core for a camera, half an hour of two cores for all.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import duckdb
import numpy as np
import pyarrow.compute as pc
import torch
from scipy.stats import chi2

from adawise.app.machine import usable_cores
from adawise_drift.baseline import DAYS, Baseline, after, learned
from adawise_drift.cameras import analyse_cameras
from adawise_drift.changes.times import HOUR_US, UTC_CLOCKS, Clocks
from adawise_drift.collect import Collected, collect
from adawise_drift.events.result import DriftEvent
from tests.drift.worlds import DAY_US, KINDS, CameraWorld, Happening, as_tables, camera

STILL = int(os.environ.get("BENCH_STILL", "400"))
EACH = int(os.environ.get("BENCH_EACH", "4"))
STILL_SEED = int(os.environ.get("BENCH_STILL_SEED", "104"))
SEED = int(os.environ.get("BENCH_SEED", "105"))
_LEARNED = 8  # days before the first night
_NIGHTS = 30
_PART = 10  # cameras that a process looks at together
_NEAR_US = DAY_US


@dataclass(frozen=True)
class Night:
    """A report: when it was made, and what it told."""

    end_us: int
    news: Sequence[DriftEvent]


@dataclass(frozen=True)
class Befallen:
    """A camera's happening, and after how many nights it was told first; None: never."""

    kind: str
    nights: int | None


def main() -> int:
    """Print both tables; 1 if the bound of false events is above 2 in 1,000 camera-days."""
    with ProcessPoolExecutor(usable_cores(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        numbers = [(kind, range(at * EACH, (at + 1) * EACH)) for at, kind in enumerate(KINDS)] if EACH else []
        print(*_delays([each for part in pool.map(_befallen, *zip(*numbers, strict=True)) for each in part]), sep="\n")
        still = [range(first, min(first + _PART, STILL)) for first in range(0, STILL, _PART)]
        lines, bound = _false([event for part in pool.map(_still, still) for event in part])
    print(*lines, sep="\n")
    return int(bound > 2.0)


def learn(worlds: Sequence[CameraWorld]) -> Collected:
    """All that a baseline would know of them, by the hour."""
    with duckdb.connect() as connection:
        is_labelled = as_tables(connection, worlds)
        return collect(connection, is_labelled=is_labelled, width_us=HOUR_US)


def nights(found: Collected, first: int, last: int, clocks: Clocks = UTC_CLOCKS) -> Iterator[Night]:
    """What the job tells at noon of each of these days, [first, last)."""
    hours = learned(found, found.until_us + HOUR_US).hours
    nothing = replace(found, facts={}, series={}, paths={}, binned={}, mixed={}, models={})
    begin_us = found.since_us // DAY_US * DAY_US
    for day in range(first, last):
        end_us = begin_us + day * DAY_US + DAY_US // 2
        judged_us = end_us - DAY_US
        kept = pc.greater_equal(hours["time_us"], judged_us - DAYS * DAY_US)
        seen = after(Baseline(hours.filter(kept)), nothing, end_us)
        until_us = max(int(of.last_us[-1]) for of in seen.binned.values())
        seen = replace(seen, judged_us=judged_us, until_us=until_us)
        _, events = analyse_cameras(seen, ["yard"], smallest=0.1, clocks=clocks)
        yield Night(end_us, events)


def _still(numbers: Sequence[int]) -> list[DriftEvent]:
    days = _LEARNED + _NIGHTS + 1
    worlds = [camera(STILL_SEED, n, days=days, labels=n % 3 == 0) for n in numbers]
    news = [event for night in nights(learn(worlds), _LEARNED + 1, days) for event in night.news]
    return [event for event in news if event.severity != "noted"]


def _befallen(kind: str, numbers: Sequence[int]) -> list[Befallen]:
    worlds = [camera(SEED, n, kinds=(kind,), labels=True) for n in numbers]
    still = camera(SEED, EACH * len(KINDS))  # so that it is seen that others ended
    watched = list(nights(learn([*worlds, still]), _LEARNED + 1, 30))
    return [Befallen(of.kind, _first(world.name, of, watched)) for world in worlds for of in world.happenings]


def _first(stream_id: str, of: Happening, watched: Sequence[Night]) -> int | None:
    since = [night for night in watched if night.end_us > of.since_us]
    for count, night in enumerate(since, 1):
        if any(_is_it(event, stream_id, of) for event in night.news):
            return count
    return None


def _is_it(event: DriftEvent, stream_id: str, of: Happening) -> bool:
    is_near = event.since_us <= of.until_us + _NEAR_US and max(event.since_us, event.until_us) >= of.since_us - _NEAR_US
    return event.stream_id == stream_id and event.measure in (*of.moves, *of.touches) and is_near


def _delays(found: Sequence[Befallen]) -> Iterator[str]:
    yield f"nights until it is told, of {EACH} cameras each (seed {SEED}); the first night is the one after it began"
    yield ""
    yield "| what happens | told | after one night | median | longest |"
    yield "|---|---|---|---|---|"
    for kind in sorted({each.kind for each in found}):
        counts = [each.nights for each in found if each.kind == kind]
        news = [count for count in counts if count is not None]
        late = f"{np.median(news):.0f} | {max(news)}" if news else " | "
        yield f"| {kind} | {len(news)} of {len(counts)} | {news.count(1)} | {late} |"
    yield ""


def _false(news: Sequence[DriftEvent]) -> tuple[list[str], float]:
    """Events in 1,000 camera-days, with the upper end of 95 % (Poisson); one that is told twice counts twice."""
    days = max(1, STILL * _NIGHTS)
    bound = 1e3 * float(chi2.ppf(0.95, 2 * (len(news) + 1)) / 2.0) / days
    kinds: dict[str, int] = defaultdict(int)
    for event in news:
        kinds[f"{event.measure} {event.shape}"] += 1
    each = f"{1e3 * len(news) / days:.2f} in 1,000 camera-nights, at most {bound:.2f}"
    return [
        f"{days} nights of {STILL} cameras to which nothing happens (seed {STILL_SEED}): {len(news)} events, {each} "
        f"{dict(kinds) or ''}"
    ], bound


if __name__ == "__main__":
    sys.exit(main())
