"""What a decision costs beside the forwards: rounds of 8 cameras' batches with a classifier that costs nothing.

The pixels are real in size (224 x 224), the logits are drawn by seed. One thread, as beside the forwards. `pixels`: the
cameras pass through 17 conditions in turn, 12 batches each, which their pixels tell apart and which ask for one end of
the grid or the other, so that `warm` remembers most of them (it would not, if only looks changed).
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, median

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.objective import raw_entropy
from adawise.adapt.strategies import strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.records import FloatArray, Frame, ImageBatch, RowId
from adawise.worker.adaptation import Adaptation
from tests.adapt.curves import AlphaByAlpha

CAMERAS, ROWS, CLASSES, ROUNDS = 8, 32, 100, 200
CONDITIONS, BATCHES_EACH = 17, 12
ALPHAS = tuple(j / 20 for j in range(21))


class InstantClassifier(AlphaByAlpha):
    """Logits at once, whatever the images; surer towards the alpha at index `best`, where there is one."""

    alphas = ALPHAS

    def __init__(self) -> None:
        self.best: int | None = None
        self._generator = torch.Generator().manual_seed(0)

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        """See `ports.Classifier`."""
        sureness = 5.0 if self.best is None else 5.0 - 2.0 * abs(ALPHAS[alpha_index] - ALPHAS[self.best])
        return sureness * torch.randn(sum(map(len, images)), CLASSES, generator=self._generator)


def main() -> None:
    """Print milliseconds a batch: median and mean over all batches, per strategy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, pixels in (("fixed", False), ("warm", False), ("warm", True), ("grid", False)):
            took, forwards, known = decisions(name, pixels=pixels)
            print(
                f"{name}{', looks' if pixels else ''}: {median(took):.2f} ms a batch (median), {mean(took):.2f} mean, "
                f"{len(took)} batches, FE {forwards:.2f}, {known:.0f} conditions remembered"
            )
    finally:
        torch.set_num_threads(threads)


def decisions(name: str, *, pixels: bool) -> tuple[list[float], float, float]:
    """Milliseconds of each batch, without its forwards; FE; and conditions remembered, mean over cameras."""
    search = strategy(name, alphas=ALPHAS, objective=raw_entropy, context="", alpha=0.5, exploration=Exploration())
    classifier = InstantClassifier()
    adaptation = Adaptation(search, classifier, (1.0,) * len(ALPHAS), 5)
    batches, states = [batch(camera) for camera in range(CAMERAS)], [search.initial()] * CAMERAS
    took, forwards, rng = list[float](), list[float](), np.random.default_rng(0)
    lights = rng.normal(0.0, 1.0, size=(CONDITIONS, 5))
    first = 10 if not pixels else 2 * CONDITIONS * BATCHES_EACH
    for number in range(first + ROUNDS):
        if pixels:
            light = lights[number // BATCHES_EACH % CONDITIONS]
            classifier.best = (0, len(ALPHAS) - 1)[number // BATCHES_EACH % CONDITIONS % 2]
            batches = [seen(batch, rng.normal(light, 0.2, size=(ROWS, 5)).astype("f4")) for batch in batches]
        adapted = adaptation.run(batches, states)
        states = [one.state for one in adapted]
        took += [one.trace.milliseconds["search"] for one in adapted]
        forwards += [one.trace.forward_equivalents for one in adapted]
    known = mean(len(state.memory.known) for state in states)
    return took[CAMERAS * first :], mean(forwards[CAMERAS * first :]), known


def seen(batch: ImageBatch, statistics: FloatArray) -> ImageBatch:
    """The batch with these statistics of its pixels, `[n, 5]`."""
    frames = (replace(frame, statistics=row) for frame, row in zip(batch.frames, statistics, strict=True))
    return replace(batch, frames=tuple(frames))


def batch(camera: int) -> ImageBatch:
    """Pixels of one camera."""
    frames = tuple(
        Frame(
            row_id=RowId("frames", 0, ROWS * camera + n, 0),
            stream_id=f"camera-{camera}",
            frame_id=None,
            captured_at_us=None,
            kafka_timestamp_ms=0,
        )
        for n in range(ROWS)
    )
    images = torch.randint(0, 256, (ROWS, 3, 224, 224), dtype=torch.uint8)
    return ImageBatch(f"camera-{camera}", frames, images)
