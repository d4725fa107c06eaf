"""How full chunks are: rows that pass through the tower over images served, by rows of a chunk and by cameras.

Cameras with smooth curves over alpha (`host.FreeClassifier`) are searched one by one, and what each batch asks for,
step by step, is kept. Rounds are then made of the batches as the worker makes them under full load: one batch of each
camera, and at most so many images as a round gathers. No clock is read, so the figures are the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from pipeline.adapt import search
from tests.bench.host import ROUND_CHUNKS, FreeClassifier, default_search, one_thread

ROWS, CAMERAS, BATCHES, IMAGES = (8, 16, 32, 64), (1, 8, 32, 128), 24, 16

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
    """Print a line for each number of cameras."""
    with one_thread():
        batches = simulate(max(CAMERAS), BATCHES)
    print(
        f"rows over images served, and over images passed; batches of {IMAGES}, rounds of {ROUND_CHUNKS} chunks at most"
    )
    for cameras in CAMERAS:
        fills = {rows: fill(batches, cameras, rows) for rows in ROWS}
        cells = ", ".join(f"{one.rows:.2f} and {one.padding:.2f} in chunks of {rows}" for rows, one in fills.items())
        print(f"{cameras} cameras: FE {fills[ROWS[0]].forward_equivalents:.2f}; {cells}")


def simulate(cameras: int, batches: int) -> Batches:
    """As the worker searches by default, from the streams' first batches on."""
    classifier, method = FreeClassifier(1), default_search()
    pictures = [np.random.default_rng([4, camera]) for camera in range(cameras)]
    states = [method.initial() for _ in range(cameras)]
    asked: list[list[list[Step]]] = []
    for _ in range(batches):
        asked.append([])
        for camera in range(cameras):
            steps: list[Step] = []

            def evaluate(wanted: Mapping[int, Sequence[Tensor]], steps: list[Step] = steps) -> Mapping[int, Tensor]:
                steps.append({index: [len(part) for part in parts] for index, parts in wanted.items()})
                return classifier.evaluate(wanted)

            images = torch.from_numpy(pictures[camera].integers(0, 256, (IMAGES, 3, 1, 1), dtype=np.uint8))
            (outcome,) = search.run([method.search(states[camera], IMAGES)], [images], evaluate)
            states[camera] = outcome.state
            asked[-1].append(steps)
    return asked


def rounds(batches: Batches, cameras: int, chunk_rows: int) -> Iterator[Round]:
    """Of the first `cameras` cameras, with the parts of all its batches together."""
    at_once = max(1, min(cameras, ROUND_CHUNKS * chunk_rows // IMAGES))
    for one_of_each in batches:
        for first in range(0, cameras, at_once):
            streams = one_of_each[first : min(first + at_once, cameras)]
            yield Round(IMAGES * len(streams), [_together(steps) for steps in zip_longest(*streams, fillvalue={})])


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
        asked = [sum(sizes) for step in one.steps for sizes in step.values()]
        passed += sum(asked)
        rows += sum(chunk_rows * math.ceil(images / chunk_rows) for images in asked)
    return Fill(passed / served, rows / served)
