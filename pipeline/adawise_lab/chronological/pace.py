"""Batches of a camera's images in the order of time: full ones, or those that a live worker makes of them. Pure.

A worker that serves a backlog of messages that came together fills its batches, whatever time is between the images.
Live, a batch ends `batch.max_age_s` after its first image, and a camera that was silent for longer than
`search.forget_after_s` starts anew. Then most batches of a camera trap have one to three images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from adawise.worker.batching import BatchPolicy

Name = Literal["backlog", "live"]
"""The names of both, as options and results have them."""

IMAGES = 16
"""Images of a batch of a backlog, as batch.images is by default."""


@dataclass(frozen=True)
class BatchPace:
    """The rule by which batches end and cameras start anew.

    Attributes:
        name: of the rule.
        policy: when a batch is complete.
        forget_after_s: seconds of silence after which a camera starts anew.
    """

    name: Name = "backlog"
    policy: BatchPolicy = field(default_factory=lambda: BatchPolicy(IMAGES, math.inf))
    forget_after_s: float = math.inf

    def batches(self, at_us: Sequence[int]) -> Iterator[slice]:
        """Yield the batches of one camera's images, as slices of them, at least one image each.

        Args:
            at_us: when each image was taken, ascending, microseconds since the epoch. As the broker does, batches know
                milliseconds.
        """
        first = 0
        for i in range(1, len(at_us) + 1):
            is_end = i == len(at_us) or self.policy.separates(at_us[first] // 1000, at_us[i] // 1000)
            if is_end or i - first == self.policy.images:
                yield slice(first, i)
                first = i

    def starts_anew(self, last_us: int, first_us: int) -> bool:
        """Return True if a camera whose last batch ended at one time starts anew with a batch at another one."""
        return first_us // 1000 - last_us // 1000 > 1000.0 * self.forget_after_s
