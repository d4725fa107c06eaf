"""How full chunks are: rows that pass the image tower over images of the batches, by chunk size and number of cameras.

Trials at different alphas share no forward, so each alpha of each step fills up a chunk of its own. Cameras show images
of two simulated conditions each and search by `warm`, each alone. What their batches ask for is then put together as
the worker does under full load. No model runs, and nothing depends on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from torch import Tensor

from adawise.adapt import search
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from tests.adapt.curves import GRID, Weather, as_images, draw_values, logits, objective
from tools.bench.host import ROUND_CHUNKS, one_thread

SIZES, CAMERAS = (8, 16, 32, 64, 128), (1, 8, 32, 128)
BATCH, BATCHES = 16, 40  # images, batches of each camera
_WARM_UP = 20  # batches of each camera that are not counted

Step = Mapping[int, Sequence[int]]
"""What is asked for at once: index of alpha -> images of each part."""

Batches = Sequence[Sequence[Sequence[Step]]]
"""`[batch][camera][step]`: what each batch of each camera asks for."""


@dataclass(frozen=True)
class Round:
    """Images that are served, and what is asked for, step by step."""

    images: int
    steps: list[Step]


@dataclass(frozen=True)
class Fill:
    """Images passed through the tower over images served, and the same with the rows that fill chunks up."""

    forward_equivalents: float
    rows: float

    @property
    def padding(self) -> float:
        """Rows over images that pass."""
        return self.rows / self.forward_equivalents


def main() -> None:
    """Print rows an image for each number of cameras; rows over images that pass in brackets."""
    with one_thread():
        batches = simulate(max(CAMERAS), BATCHES)
    print("cameras, FE, rows an image at chunks of " + ", ".join(map(str, SIZES)))
    for cameras in CAMERAS:
        fills = [fill(batches, cameras, size) for size in SIZES]
        print(cameras, f"{fills[0].forward_equivalents:.2f}", *(f"{one.rows:.2f} ({one.padding:.2f})" for one in fills))


def simulate(cameras: int, batches: int) -> Batches:
    """The first cameras are the same, however many follow."""
    warm = WarmSearch(GRID, objective, "chunks", 10, Exploration())
    requests: list[list[list[Step]]] = [[] for _ in range(batches)]
    for camera in range(cameras):
        rng, state = np.random.default_rng([camera, 4]), warm.initial()
        weathers = [Weather(float(best)) for best in rng.uniform(0.0, 1.0, 2)]
        for number in range(-_WARM_UP, batches):
            steps: list[Step] = []

            def evaluate(wanted: Mapping[int, Sequence[Tensor]], steps: list[Step] = steps) -> dict[int, Tensor]:
                steps.append({index: [len(part) for part in parts] for index, parts in wanted.items()})
                return {index: logits(index, *parts) for index, parts in wanted.items()}

            images = as_images(draw_values(weathers[(number + _WARM_UP) // 40 % 2], BATCH, rng))
            (outcome,) = search.run([warm.search(state, BATCH)], [images], evaluate)
            state = outcome.state
            if number >= 0:
                requests[number].append(steps)
    return requests


def rounds(batches: Batches, cameras: int, chunk_rows: int) -> Iterator[Round]:
    """Of the first `cameras` cameras: a batch of each, and at most so many images as the worker gathers."""
    at_once = max(1, min(cameras, ROUND_CHUNKS * chunk_rows // BATCH))
    for one_of_each in batches:
        for first in range(0, cameras, at_once):
            streams = one_of_each[first : min(first + at_once, cameras)]
            yield Round(BATCH * len(streams), [_together(steps) for steps in zip_longest(*streams, fillvalue={})])


def _together(steps: Sequence[Step]) -> Step:
    parts: dict[int, list[int]] = {}
    for step in steps:
        for index, sizes in step.items():
            parts.setdefault(index, []).extend(sizes)
    return dict(sorted(parts.items()))


def fill(batches: Batches, cameras: int, chunk_rows: int) -> Fill:
    """Of the first `cameras` cameras."""
    served = passed = rows = 0
    for one in rounds(batches, cameras, chunk_rows):
        served += one.images
        requested = [sum(sizes) for step in one.steps for sizes in step.values()]
        passed += sum(requested)
        rows += sum(-(-images // chunk_rows) * chunk_rows for images in requested)
    return Fill(passed / served, rows / served)
