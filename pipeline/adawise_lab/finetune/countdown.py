"""The time that is left of a run: a countdown over all stages, and a forecast from the first updates.

The countdown counts passes of an image through the model: all stages consist of them, on one machine.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

import structlog
import torch

from adawise.adapt.search import forward_cost
from adawise.console import Progress
from adawise_lab.finetune.train import FinetuneRun

TRAINING, REHEARSAL, NEW, CARD, VERDICT = "training", "rehearsal", "new classes", "card", "verdict"
"""The stages, in their order."""
_TIMED = 3  # updates that are timed, after one that warms up
_MIB = 2**20
_log = structlog.get_logger("finetune")


class Countdown:
    """The progress of a run, stage by stage. Implements `console.Progress` for the current stage.

    Args:
        bar: shows the sum of all stages.
        stages: the passes that each stage is expected to take, in their order.
    """

    def __init__(self, bar: Progress, stages: Mapping[str, float]) -> None:
        self._bar, self._left = bar, dict(stages)
        self._stage = next(iter(stages))
        self._done = 0.0

    def enter(self, stage: str) -> None:
        """Begin a stage. What is left of those before it, such as epochs that were not needed, counts as done."""
        for before in list(self._left):
            if before == stage:
                break
            self._pass(self._left.pop(before))
        self._stage = stage
        self._bar.note(stage)

    def advance(self, count: float = 1) -> None:
        """Count passes, but no more than the stage was expected to take, or the whole would run ahead."""
        counted = min(count, self._left[self._stage])
        self._left[self._stage] -= counted
        self._pass(counted)

    def note(self, text: str) -> None:
        """Show this text beside the stage."""
        self._bar.note(f"{self._stage}: {text}")

    def at_many_alphas(self, alphas: int, tail_share: float) -> Progress:
        """Return a progress that counts evaluations of images at so many alphas each, of a pair with that share."""
        return _Evaluations(self, forward_cost(alphas, tail_share) / alphas)

    def _pass(self, count: float) -> None:
        whole = round(self._done)
        self._done += count
        if passed := round(self._done) - whole:
            self._bar.advance(passed)


class _Evaluations:
    """Implements `console.Progress` for evaluations, each worth so many passes: the mean over all alphas of an image.

    Layers that both models share are part of the first evaluation alone.
    """

    def __init__(self, countdown: Countdown, passes: float) -> None:
        self._countdown, self._passes = countdown, passes

    def advance(self, count: int = 1) -> None:
        self._countdown.advance(count * self._passes)

    def note(self, text: str) -> None:
        self._countdown.note(text)


class Forecast:
    """The forecast of a run. It logs the memory before the run starts, and the duration after a few updates.

    Args:
        run: a run before its start or resumption.
        after: the passes of images through the model that each stage after the training takes.
    """

    def __init__(self, run: FinetuneRun, after: Mapping[str, float]) -> None:
        self._run, self._after = run, dict(after)
        self._updates: list[float] = []
        learner = run.learner
        _log.info(
            "memory_estimated",
            weights_gradients_moments_mib=learner.memory_bytes // _MIB,
            checkpoint_mib=learner.checkpoint_bytes // _MIB,
            note="activations come on top and are measured; a checkpoint takes twice its size while it is written",
        )

    def updated(self) -> None:
        """Count an update that is done. After a few of them, log the forecast."""
        self._updates.append(time.monotonic())
        if len(self._updates) == _TIMED + 1:
            self._log()

    def _log(self) -> None:
        run, done = self._run, self._run.progress
        per_epoch = run.recipe.updates(len(run.train_rows))
        update_s = (self._updates[-1] - self._updates[0]) / _TIMED
        image_s = update_s / (run.recipe.batch_images * run.recipe.accumulate) / run.update_passes
        left = (run.last_epoch - done.epoch + 1) * per_epoch - done.update
        training = left * update_s
        evaluation = (run.last_epoch - done.epoch + 1) * 2 * run.judging_passes * len(run.held_out.rows) * image_s
        rehearsal = self._after.get(REHEARSAL, 0) * image_s
        card = sum(passes for stage, passes in self._after.items() if stage != REHEARSAL) * image_s
        _log.info(
            "duration_estimated",
            left=str(timedelta(seconds=round(training + evaluation + rehearsal + card))),
            training_s=round(training),
            judging_s=round(evaluation),
            rehearsal_s=round(rehearsal),
            card_s=round(card),
            timed_updates=_TIMED,
            memory_mib=self._peak_bytes() // _MIB,
        )

    def _peak_bytes(self) -> int:
        """Return the peak of the GPU's memory in bytes, or of the process where the CPU trains."""
        if torch.cuda.is_available() and next(self._run.learner.model.parameters()).is_cuda:
            return torch.cuda.max_memory_allocated()
        # In bytes on macOS, in KiB elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
