"""The duration and memory of a run, forecast from its first updates on this machine with these images."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

import structlog
import torch

from adawise_lab.finetune.countdown import REHEARSAL, UPDATE
from adawise_lab.finetune.train import FinetuneRun

_TIMED = 3  # updates that are timed, after one that warms up
_MIB = 2**20

_log = structlog.get_logger("finetune")


class Forecast:
    """The forecast of a run. It logs the memory before the run starts, and the duration after a few updates.

    Args:
        run: a run before its start or resumption.
        after: the passes of images through the model that each stage after the training takes.
    """

    def __init__(self, run: FinetuneRun, after: Mapping[str, int]) -> None:
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
            self._tell()

    def _tell(self) -> None:
        run, done = self._run, self._run.progress
        per_epoch = run.recipe.updates(len(run.train_rows))
        update_s = (self._updates[-1] - self._updates[0]) / _TIMED
        image_s = update_s / (run.recipe.batch_images * run.recipe.accumulate) / UPDATE
        left = (run.last_epoch - done.epoch + 1) * per_epoch - done.update
        training = left * update_s
        judging = (run.last_epoch - done.epoch + 1) * 2 * len(run.held_out.rows) * image_s
        rehearsal = self._after.get(REHEARSAL, 0) * image_s
        card = sum(passes for stage, passes in self._after.items() if stage != REHEARSAL) * image_s
        _log.info(
            "duration_estimated",
            left=str(timedelta(seconds=round(training + judging + rehearsal + card))),
            training_s=round(training),
            judging_s=round(judging),
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
