"""`python -m tools.drift.sampled_bars`: what few sampled labels show, and how soon, by the code that `drift` runs.

A camera serves batches of 4 images a day, which are alike: one confidence, and with a chance of one half all are right
or wrong together. 20 of its images a day are drawn and labelled. From a day on accuracy is .75 in place of .85:
"silent" leaves confidence as it was, "seen" lowers it as much. Still fleets never change. Seeds of the worlds that are
reported were not used to choose a constant.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Literal, get_args

import numpy as np
from scipy.stats import beta

from adawise.labels.arrays import Flags, Floats
from adawise.labels.sample.design import By, Design, draw
from adawise_drift.events.sampled import (
    LEARNED_DAYS,
    LEVEL,
    TOLERATED,
    YEAR_DAYS,
    SampledDay,
    discoveries,
    evidence,
    evidence_of_drop,
    interval,
)

BEFORE, AFTER, CLUSTER, FLEET = 0.85, 0.75, 4, 200
Drop = Literal["silent", "seen"]


@dataclass(frozen=True)
class World:
    """A camera's days: `images` a day, confidence as Beta of this `certainty`, drawn by this design."""

    images: int = 480
    certainty: float = 3.0
    by: By = "uniform"
    per_day: int = 20
    tolerated: float = 0.0
    bias: float = 0.0  # how much less than their confidence images of .5 are right, and surer ones in proportion
    swing: float = 0.0  # of the accuracy that is expected of a day, up and down with a period of a week

    def day(self, rng: np.random.Generator, number: int, *, drop: Drop | None = None) -> tuple[SampledDay, float]:
        """A day with all its labels, and the realised accuracy of its images."""
        confidence, right = self.served(rng, number, drop)
        design = Design(self.per_day, self.by, int(rng.integers(2**31)))
        drawn = draw(confidence, np.arange(self.images) // CLUSTER, design, "camera", number)
        of = SampledDay(
            day=number,
            weight=drawn.images * len(drawn.place) / self.images,
            expected=drawn.mean,
            ratio=drawn.probability * drawn.images,
            confidence=confidence[drawn.place],
            right=right[drawn.place],
            mean=float(confidence.mean()),
            floor=design.floor,
        )
        return of, float(right.mean())

    def served(self, rng: np.random.Generator, number: int, drop: Drop | None) -> tuple[Floats, Floats]:
        """Confidence of the images, and whether they are right."""
        level = BEFORE + self.swing * np.sin(2 * np.pi * number / 7)
        level -= (BEFORE - AFTER) if drop == "seen" else 0.0
        batches = self.images // CLUSTER
        confidence = np.repeat(rng.beta(level * self.certainty, (1 - level) * self.certainty, batches), CLUSTER)
        gap = self.bias * 4 * confidence * (1 - confidence)
        chance = np.clip(confidence - gap, 0.0, 1.0) * (AFTER / BEFORE if drop == "silent" else 1.0)
        together: Flags = np.repeat(rng.random(batches) < 0.5, CLUSTER)
        luck = np.where(together, np.repeat(rng.random(batches), CLUSTER), rng.random(len(chance)))
        return confidence, (luck < chance).astype(np.float64)


def covered(world: World, days: int, seeds: range) -> tuple[int, float]:
    """Count the seeds of which every night's interval holds the realised accuracy, and the mean last width."""
    held, widths = 0, []
    for seed in seeds:
        rng, known, truth = np.random.default_rng([seed, 1]), list[SampledDay](), list[float]()
        is_held = True
        for number in range(days):
            day, accuracy = world.day(rng, number)
            known.append(day)
            truth.append(accuracy)
            found = interval(known)
            is_held &= found.low - 1e-9 <= float(np.mean(truth)) <= found.high + 1e-9
        held += is_held
        widths.append(found.high - found.low)
    return held, float(np.mean(widths))


def camera(world: World, seed: int, days: int, *, at: int, drop: Drop | None, bound: float | None) -> Floats:
    """Return the evidence of each judged day; accuracy drops on day `at`. Without a bound it is learned before."""
    rng = np.random.default_rng([seed, 2])
    learned = [] if bound is not None else [world.day(rng, number)[0] for number in range(LEARNED_DAYS)]
    numbers = range(LEARNED_DAYS, LEARNED_DAYS + days)
    judged = [world.day(rng, n, drop=drop if n >= LEARNED_DAYS + at else None)[0] for n in numbers]
    if bound is None:
        return evidence_of_drop(learned, judged, world.tolerated)
    return evidence(judged, np.array([bound]))[:, 0]


def delay(paths: Sequence[Floats], at: int, cameras: int) -> str:
    """Return the median days from the drop to the report where the other cameras are still, and how many came early."""
    found = np.array(
        [np.argmax(path >= cameras / LEVEL) if (path >= cameras / LEVEL).any() else np.inf for path in paths]
    )
    late = found[found >= at] - at + 1
    middle = float(np.median(late)) if len(late) else np.inf
    return f"{middle:.0f} ({np.mean(np.isfinite(late)):.0%} found; {int((found < at).sum())} before it)"


def upper(count: int, of: int) -> float:
    """Return the upper confidence limit (95 %, one-sided) of a share (Clopper and Pearson, 1934)."""
    return 1.0 if count == of else float(beta.ppf(0.95, count + 1, of - count))


def is_reported(paths: Floats) -> bool:
    """Return whether e-BH reports a camera on any day: evidence `[cameras, days]`."""
    ordered = -np.sort(-paths, axis=0) * np.arange(1, len(paths) + 1)[:, None]
    days = np.flatnonzero((ordered * LEVEL >= len(paths)).any(axis=0))
    if len(days):
        assert discoveries({str(n): float(value) for n, value in enumerate(paths[:, days[0]])}, LEVEL)
    return len(days) > 0


def still_year(bound: float | None, seed: int) -> Floats:
    """Return the evidence of a year of a camera to which nothing happens, of 120 images a day."""
    return camera(World(images=120), seed, YEAR_DAYS, at=YEAR_DAYS, drop=None, bound=bound)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="cameras of each kind")
    parser.add_argument(
        "--fleets", type=int, default=60, help="still fleets of 200 cameras for a year; 0: only the rest"
    )
    parser.add_argument("--learned", type=int, default=1_000, help="still cameras whose accuracy is learned")
    parser.add_argument("--first", type=int, default=10_000, help="first seed")
    given = parser.parse_args()
    seeds, begun = range(given.first, given.first + given.seeds), time.process_time()
    if given.seeds:
        levels(seeds)
        drops(seeds)
    with get_context("spawn").Pool(2) as pool:
        for bound, cameras in ((BEFORE, given.fleets * FLEET), (None, given.learned)):
            if not cameras:
                continue
            seen = range(given.first, given.first + cameras)
            paths = np.stack(pool.map(partial(still_year, bound), seen, chunksize=20))
            for size in (1, 20, FLEET):
                fleets = cameras // size
                count = sum(is_reported(paths[n * size : (n + 1) * size]) for n in range(fleets))
                most = f"{upper(count, fleets):.1%}" if fleets else "unknown"
                of = f"{count} of {fleets} fleets of {size} were ever reported within a year (at most {most})"
                print(f"still, bound {bound or 'learned'}: {of}", flush=True)
    print(f"{time.process_time() - begun:.0f} s of processor, without the still fleets")


def levels(seeds: range) -> None:
    """Print how often intervals hold, and how wide they are."""
    print("seeds in which all nights' intervals over 60 days hold the realised accuracy; mean width of the last")
    for world in (World(), World(by="confidence"), World(certainty=1.5, by="confidence"), World(swing=0.1)):
        held, width = covered(world, 60, seeds)
        print(f"  {world}: {held} of {len(seeds)}, width {width:.3f}", flush=True)


def drops(seeds: range) -> None:
    """Print after how many days a drop is reported."""
    at = 60
    print(f"days from a drop of .85 to .75 on day {at} to the report, median")
    for drop in get_args(Drop):
        for by in get_args(By):
            for bound, tolerated in ((BEFORE, 0.0), (BEFORE - TOLERATED, 0.0), (None, 0.0), (None, TOLERATED)):
                world = World(by=by, tolerated=tolerated)
                paths = [camera(world, seed, 180, at=at, drop=drop, bound=bound) for seed in seeds]
                held = f"{bound:.2f}" if bound is not None else f"learned less {tolerated:g}"
                text = "; ".join(f"{cameras} cameras: {delay(paths, at, cameras)}" for cameras in (1, FLEET))
                print(f"  {drop}, {by}, bound {held}: {text}", flush=True)


if __name__ == "__main__":
    main()
