"""How full chunks are: rows that pass the image tower over images of the batches, by chunk size and cameras a round.

Trials at different alphas share no forward, so each alpha of each step fills up a chunk of its own. Cameras show images
of two simulated conditions each and search by `warm`; no model runs, and nothing depends on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.adapt import search
from pipeline.adapt.strategies.warm import Exploration, WarmSearch
from tests.adapt.curves import GRID, Weather, as_images, draw_values, logits, objective

SIZES = (8, 16, 32, 64, 128)
BATCH = 16  # images
_ROUNDS, _WARM_UP = 60, 20


def main() -> None:
    """Print rows an image for each number of cameras that share a round."""
    print("cameras a round, FE, rows an image at chunks of " + ", ".join(map(str, SIZES)))
    for cameras in (4, 8, 32, 128):
        calls, images = asked_for(cameras)
        passed = sum(sum(call) for call in calls) / images
        print(cameras, f"{passed:.2f}", *(f"{rows(calls, size) / images:.2f}" for size in SIZES))


def rows(calls: Sequence[Sequence[int]], size: int) -> int:
    """Of the chunks that hold what each call brings for one alpha."""
    return sum(-(-sum(call) // size) * size for call in calls)


def asked_for(cameras: int) -> tuple[list[list[int]], int]:
    """Images of each trial, a list for each alpha of each step; and the images of all batches."""
    rng = np.random.default_rng(cameras)
    warm = WarmSearch(GRID, objective, "chunks", 10, Exploration())
    states = [warm.initial()] * cameras
    weathers = [[Weather(float(best)) for best in rng.uniform(0.0, 1.0, 2)] for _ in range(cameras)]
    calls: list[list[int]] = []

    def evaluate(asked: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        if number >= _WARM_UP:
            calls.extend([len(part) for part in parts] for parts in asked.values())
        return {index: logits(index, *parts) for index, parts in asked.items()}

    for number in range(_ROUNDS):
        batches = [as_images(draw_values(pair[number // 40 % 2], BATCH, rng)) for pair in weathers]
        outcomes = search.run([warm.search(state, BATCH) for state in states], batches, evaluate)
        states = [outcome.state for outcome in outcomes]
    return calls, (_ROUNDS - _WARM_UP) * cameras * BATCH


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
