"""Events of fleets whose happenings are known: what is found, of which shape, how late, and what is told of nothing.

Fleets of `tests/drift/worlds.py`: 40 cameras for 30 days, each kind of happening, a third of the cameras with labels.
Sensitivities and rules were chosen on seeds below 100; `BENCH_SEEDS` (101,102,103) are fleets that nothing was chosen
on, and `BENCH_STILL` (400) is how many cameras to which nothing happens are looked at besides, of seed
`BENCH_STILL_SEED` (100). Beside what `drift` tells stand alpha alone, which is what 0.2 looked at, and, with
`BENCH_EVIDENTLY` an interpreter that has the package evidently, what its preset tells of each day against the first
week, column by column.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import chi2

from adawise.app.machine import usable_cores
from adawise_drift.cameras import analyse_cameras
from adawise_drift.collect import collect
from tests.drift.worlds import DAY_US, HOUR_US, CameraWorld, Happening, as_tables, camera, script, traces

SEEDS = tuple(int(seed) for seed in os.environ.get("BENCH_SEEDS", "101,102,103").split(","))
STILL = int(os.environ.get("BENCH_STILL", "400"))
EVIDENTLY = os.environ.get("BENCH_EVIDENTLY", "")
STILL_SEED = int(os.environ.get("BENCH_STILL_SEED", "100"))
_PART = 20  # cameras that a process looks at together
_NEAR_US = DAY_US  # by which an event may miss its happening


@dataclass(frozen=True)
class FoundEvent:
    """An event, whoever told it."""

    stream_id: str
    measure: str
    shape: str
    since_us: int
    until_us: int


@dataclass(frozen=True)
class FoundFleet:
    """Cameras, what happened to them, and what each of several told of it."""

    happenings: Mapping[str, Sequence[Happening]]
    labelled: frozenset[str]
    days: float
    news: Mapping[str, Sequence[FoundEvent]]


def main() -> int:
    """Print the tables; 1 if the bound of false events is above 2 in 1,000 camera-days."""
    context = get_context("spawn")
    with ProcessPoolExecutor(usable_cores(), context, torch.set_num_threads, (1,)) as pool:
        parts = [(seed, range(first, first + _PART)) for seed in SEEDS for first in range(0, 40, _PART)]
        fleets = list(pool.map(partial(_found_in, kinds=True), *zip(*parts, strict=True)))
        print(*_found(fleets), sep="\n", flush=True)
        if not STILL:
            return 0
        still = [range(first, min(first + _PART, STILL)) for first in range(0, STILL, _PART)]
        nothing = list(pool.map(_found_in, [STILL_SEED] * len(still), still))
    lines, bound = _false(nothing)
    print(*lines, sep="\n")
    return int(bound > 2.0)


def _found_in(seed: int, numbers: Iterable[int], *, kinds: bool = False) -> FoundFleet:
    scripts = script(seed) if kinds else []
    worlds = [camera(seed, n, **(scripts[n] if kinds else {"labels": n % 3 == 0})) for n in numbers]
    return FoundFleet(
        {world.name: world.happenings for world in worlds},
        frozenset(world.name for world in worlds if world.labelled.any()),
        sum(world.days for world in worlds),
        {"events": _events(worlds), **({"Evidently": _evidently(worlds)} if EVIDENTLY else {})},
    )


def _events(worlds: Sequence[CameraWorld]) -> list[FoundEvent]:
    with duckdb.connect() as connection:
        is_labelled = as_tables(connection, worlds)
        found = collect(connection, is_labelled=is_labelled)
        _, events = analyse_cameras(found, ["yard"], smallest=0.1)
    return [FoundEvent(e.stream_id, e.measure, e.shape, e.since_us, max(e.since_us, e.until_us)) for e in events]


def _evidently(worlds: Sequence[CameraWorld]) -> list[FoundEvent]:
    """Runs of days of which it says that a column drifted."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "traces.parquet")
        pq.write_table(traces(worlds), path)
        script_path = Path(__file__).with_name("evidently_days.py")
        alone = [EVIDENTLY, "-P", "-E", str(script_path), str(path)]  # beside the script lies an http.py
        done = subprocess.run(alone, stdout=subprocess.PIPE, check=True)
    return [FoundEvent(name, measure, "day", since, until) for name, measure, since, until in json.loads(done.stdout)]


def _is_near(news: FoundEvent, happening: Happening) -> bool:
    return news.since_us <= happening.until_us + _NEAR_US and news.until_us >= happening.since_us - _NEAR_US


def _found(fleets: Sequence[FoundFleet]) -> Iterable[str]:
    """Of each kind what was found by whom; of each measure what was told, and how much of it was true."""
    names = ["events", "alpha alone", *(["Evidently"] if EVIDENTLY else [])]
    days = sum(each.days for each in fleets)
    yield f"{days:.0f} camera-days, seeds {', '.join(map(str, SEEDS))}"
    yield ""
    yield f"| what happens | {' | '.join(names)} | with its shape | begin told late by (median) |"
    yield "|---" * (len(names) + 3) + "|"
    wanted: dict[str, int] = defaultdict(int)
    hits: dict[tuple[str, str], int] = defaultdict(int)
    shaped: dict[str, int] = defaultdict(int)
    late: dict[str, list[float]] = defaultdict(list)
    for fleet in fleets:
        for stream_id, happenings in fleet.happenings.items():
            for happening in happenings:
                if happening.moves == ("accuracy",) and stream_id not in fleet.labelled:
                    continue
                wanted[happening.kind] += 1
                for name in names:
                    those = [e for e in _of(fleet, name) if e.stream_id == stream_id and e.measure in happening.moves]
                    near = [e for e in those if _is_near(e, happening)]
                    hits[happening.kind, name] += bool(near)
                    if name == "events" and near:
                        shaped[happening.kind] += any(e.shape.startswith(happening.shape) for e in near)
                        first = min(near, key=lambda e: abs(e.since_us - happening.since_us))
                        late[happening.kind].append((first.since_us - happening.since_us) / HOUR_US)
    for kind, count in sorted(wanted.items()):
        cells = [f"{hits[kind, name]} of {count}" for name in names]
        delay = f"{np.median(late[kind]):.1f} h" if late[kind] else ""
        yield f"| {kind} | {' | '.join(cells)} | {shaped[kind]} | {delay} |"
    total = sum(wanted.values())
    cells = [f"{sum(hits[kind, name] for kind in wanted) / total:.1%}" for name in names]
    yield f"| recall of {total} | {' | '.join(cells)} | {sum(shaped.values()) / total:.1%} | |"
    precise = [_precision(fleets, name) for name in names]
    yield f"| precision | {' | '.join(f'{true} of {news} ({true / max(1, news):.1%})' for true, news in precise)} | | |"
    yield ""
    yield "| measure | events | true |"
    yield "|---|---|---|"
    by_measure: dict[str, list[bool]] = defaultdict(list)
    for fleet in fleets:
        for event in _of(fleet, "events"):
            by_measure[event.measure].append(_is_true(event, fleet))
    for measure, verdicts in sorted(by_measure.items()):
        yield f"| {measure} | {len(verdicts)} | {sum(verdicts)} |"
    yield ""


def _of(fleet: FoundFleet, name: str) -> Sequence[FoundEvent]:
    if name == "alpha alone":
        return [event for event in fleet.news["events"] if event.measure == "alpha" and event.shape in {"step", "ramp"}]
    return fleet.news[name]


def _is_true(event: FoundEvent, fleet: FoundFleet) -> bool:
    """Whether something happened then that moves its measure, surely or not."""
    return any(
        event.measure in (*happening.moves, *happening.touches) and _is_near(event, happening)
        for happening in fleet.happenings[event.stream_id]
    )


def _precision(fleets: Sequence[FoundFleet], name: str) -> tuple[int, int]:
    verdicts = [_is_true(event, fleet) for fleet in fleets for event in _of(fleet, name)]
    return sum(verdicts), len(verdicts)


def _false(still: Sequence[FoundFleet]) -> tuple[list[str], float]:
    """Events of cameras to which nothing happens, in 1,000 camera-days, with the upper end of 95 % (Poisson)."""
    days = sum(each.days for each in still)
    lines, bounds = [f"{days:.0f} camera-days of {STILL} cameras to which nothing happens (seed {STILL_SEED}):"], []
    names = ["events", "alpha alone", *(["Evidently"] if EVIDENTLY else [])]
    for name in names:
        news = [event for each in still for event in _of(each, name)]
        bounds.append(1e3 * float(chi2.ppf(0.95, 2 * (len(news) + 1)) / 2.0) / days)
        kinds: dict[str, int] = defaultdict(int)
        for event in news:
            kinds[f"{event.measure} {event.shape}"] += 1
        which = "" if name == "Evidently" else f" {dict(kinds) or ''}"
        each = f"{1e3 * len(news) / days:.2f} in 1,000 camera-days, at most {bounds[-1]:.2f}"
        lines.append(f"{name}: {len(news)} events, {each}{which}")
    return lines, bounds[0]


if __name__ == "__main__":
    sys.exit(main())
