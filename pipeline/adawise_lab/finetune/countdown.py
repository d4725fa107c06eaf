"""A countdown over all stages of a run, so that the time that is left is that of the whole run and not of a stage.

It counts passes of an image through the model: all stages consist of them, on one machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from adawise.console import Progress

UPDATE = 3
"""Passes that an update takes for an image: the backward pass takes twice as long as the forward pass."""

TRAINING, REHEARSAL, NEW, CARD, VERDICT = "training", "rehearsal", "new classes", "card", "verdict"
"""The stages, in their order."""


class Countdown:
    """The progress of a run, stage by stage. Implements `console.Progress` for the current stage.

    Args:
        bar: shows the sum of all stages.
        stages: the passes that each stage is expected to take, in their order.
    """

    def __init__(self, bar: Progress, stages: Mapping[str, int]) -> None:
        self._bar, self._left = bar, dict(stages)
        self._stage = next(iter(stages))

    def enter(self, stage: str) -> None:
        """Begin a stage. What is left of those before it, such as epochs that were not needed, counts as done."""
        for before in list(self._left):
            if before == stage:
                break
            self._pass(self._left.pop(before))
        self._stage = stage
        self._bar.note(stage)

    def advance(self, count: int = 1) -> None:
        """Count passes, but no more than the stage was expected to take, or the whole would run ahead."""
        counted = min(count, self._left[self._stage])
        self._left[self._stage] -= counted
        self._pass(counted)

    def note(self, text: str) -> None:
        """Show this text beside the stage."""
        self._bar.note(f"{self._stage}: {text}")

    def _pass(self, count: int) -> None:
        if count:
            self._bar.advance(count)
