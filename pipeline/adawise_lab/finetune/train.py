"""The training run: epochs of updates, each judged on held-out images; the best is kept, and the run can be resumed.

The order of images, their crops and their prompts are functions of (seed, epoch, image). So a resumed run on the same
machine computes bit for bit what an uninterrupted one would have. At the end theta_1 is compared with theta_0.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adawise.errors import DivergedError, TrainingError
from adawise_lab.finetune.folder import CONTENTS, read_checkpoint, write_checkpoint, write_weights
from adawise_lab.finetune.images import HeldOut, HeldOutActivations, Images, Pixels, RandomCrop
from adawise_lab.finetune.learner import Learner
from adawise_lab.finetune.recipe import Recipe

BARRIER = 0.01  # accuracy: alpha .5 this far below the worse end is a barrier, as in a card
_WORSE = 0.01  # accuracy: a smaller loss is not called one, however certain it is
_SURE = 2.33  # standard deviations: one in a hundred by chance
_CONFUSIONS = 20
SHOWN = 24
"""The number of mistakes that are shown."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of the learning curve; epoch 0 is theta_0. Scores are on the held-out images.

    `barrier` is how far accuracy at alpha .5 lies below the worse of the two ends; 0 if it does not.
    """

    epoch: int
    loss: float  # mean over the epoch's images, nats; nan for epoch 0
    accuracy: float
    nll: float
    ece: float
    accuracy_half: float  # at alpha .5
    barrier: float

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Epoch:
        """Build an epoch from `as_row`'s result. Raises TypeError, KeyError."""
        return cls(**{**row, "loss": float("nan") if row["loss"] is None else row["loss"]})

    @property
    def has_barrier(self) -> bool:
        """True if the two models should not be interpolated."""
        return self.barrier > BARRIER

    def as_row(self) -> dict[str, Any]:
        """Return the row for files and logs; a nan loss becomes None, since JSON has no nan."""
        row = asdict(self)
        return row if self.epoch else row | {"loss": None}


@dataclass(slots=True)
class TrainingPosition:
    """The position of a run: epochs count from 1, updates within the epoch from 0."""

    epoch: int = 1
    update: int = 0
    loss_sum: float = 0.0
    images: int = 0
    curve: list[Epoch] = field(default_factory=list)
    extended_after: list[int] = field(default_factory=list)
    """The number of completed epochs at each extension of a finished run."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Training images that could not be read before the run was stopped: name to reason."""
    contents_unknown: bool = False
    """True if the version that began the run stored no hashes of the images' contents."""

    @property
    def best(self) -> Epoch | None:
        """The epoch with the highest held-out accuracy, and among equals the lowest NLL; never theta_0."""
        return max(self.curve[1:], key=lambda row: (row.accuracy, -row.nll), default=None)


@dataclass(eq=False)
class FinetuneRun:
    """A run of fine-tuning.

    Args:
        learner: the model.
        images: decodes the training images.
        train_rows: the numbers of the training images.
        prompts: number of prompts of a class.
        held_out: the images that judge an epoch (`Learner.behind`).
        checkpoint: file for the state.
        weights: file for the best theta_1.
        settings: what decides the run, by name; a checkpoint with other settings is refused.
        checkpoint_every_s: seconds between checkpoints within an epoch.
        progress: the position of the run.
        ends_with: the epoch after which the run ends and whose weights are taken, whatever the held-out images say;
            None:
            the recipe decides the end, and the best epoch's weights are taken.
        on_evaluated: called with the passes that judging each held-out batch took.
        trained_share: the share of a forward pass from the first trained layer on (`Learner.trunk`).
    """

    learner: Learner
    images: Images
    train_rows: Sequence[int]
    prompts: int
    held_out: HeldOut | HeldOutActivations
    checkpoint: Path
    weights: Path
    settings: Mapping[str, str]
    checkpoint_every_s: float
    progress: TrainingPosition = field(default_factory=TrainingPosition)
    ends_with: int | None = None
    on_evaluated: Callable[[float], object] = lambda _passes: None
    trained_share: float = 1.0

    @property
    def recipe(self) -> Recipe:
        """The learner's recipe."""
        return self.learner.recipe

    @property
    def update_passes(self) -> float:
        """Passes that an update takes for an image.

        The backward pass takes twice as long as the forward pass through the same layers, and it ends at the first
        trained layer.
        """
        return 1.0 + 2.0 * self.trained_share

    @property
    def judging_passes(self) -> float:
        """Passes that judging takes for an image and alpha, once the activations behind frozen layers are known."""
        return self.trained_share if isinstance(self.held_out, HeldOutActivations) else 1.0

    @property
    def finished(self) -> bool:
        """True after the last epoch, or when patience has run out."""
        best = self.progress.best if self.ends_with is None else None
        begun = self._before
        waited = best is not None and self.progress.epoch - 1 - max(best.epoch, begun) >= self.recipe.patience
        return self.progress.epoch > self.last_epoch or waited

    @property
    def last_epoch(self) -> int:
        """The last epoch that may run."""
        return self.recipe.epochs if self.ends_with is None else self.ends_with

    @property
    def _before(self) -> int:
        """Epochs that were completed before the current schedule began."""
        return self.progress.extended_after[-1] if self.progress.extended_after else 0

    def start(self) -> None:
        """Judge theta_0, and write the first checkpoint, so that a folder that cannot be written is found at once."""
        torch.manual_seed(self.recipe.seed)
        self.progress.curve.append(self._evaluate(0, float("nan")))
        self.save()

    def resume(self) -> None:
        """Resume from the checkpoint. Raises TrainingError; see `read_checkpoint`."""
        state = read_checkpoint(self.checkpoint, settings=self.settings)
        try:
            self.learner.restore(state["learner"])
            curve = [Epoch(**row) for row in state["progress"]["curve"]]
            self.progress = TrainingPosition(**{**state["progress"], "curve": curve})
            self.progress.contents_unknown |= CONTENTS not in state["settings"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"{self.checkpoint}: damaged ({error!r}). Start anew with --overwrite.") from error
        if self.progress.best is not None and not self.weights.is_file():
            raise TrainingError(f"{self.weights}: the best weights so far are gone. Start anew with --overwrite.")

    def extend(self, curve: Sequence[Epoch], extended_after: Sequence[int], *, contents_unknown: bool = False) -> None:
        """Continue from the best weights of a run that ended, for the epochs that are left of the recipe's.

        The optimizer's moments of that run are gone, and its rate had come down to 0. So this is a schedule of its own:
        warm-up, a cosine over the epochs that are left, and new patience. It is a function of the weights and the
        recipe.
        """
        torch.manual_seed(self.recipe.seed)
        done = curve[-1].epoch
        self.progress = TrainingPosition(
            epoch=done + 1,
            curve=[*curve],
            extended_after=[*extended_after, done],
            contents_unknown=contents_unknown,
        )
        self._load_best()
        self.save()

    def compare(self) -> Comparison:
        """Classify each held-out image with theta_0, alpha .5 and the best weights.

        Afterwards the learner has the best weights.
        """
        self._load_best()
        predicted = [self.learner.classify(self.held_out, alpha) for alpha in (0.0, 0.5, 1.0)]
        return Comparison(predicted[0][1].tolist(), *(logits.argmax(dim=-1).tolist() for logits, _ in predicted))

    def _load_best(self) -> None:
        try:
            self.learner.load(load_file(self.weights))
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise TrainingError(
                f"{self.weights}: the best weights cannot be read ({error}). Start anew with --overwrite."
            ) from error

    @property
    def skipped(self) -> Mapping[str, str]:
        """Training images that could not be read, by name with the reason."""
        return {**self.progress.skipped, **self.images.skipped}

    def save(self) -> None:
        """Write the checkpoint."""
        self.progress.skipped = dict(self.skipped)
        state = {"progress": asdict(self.progress), "learner": self.learner.state()}
        write_checkpoint(self.checkpoint, settings=self.settings, state=state)

    def go(
        self,
        *,
        stopping: Callable[[], bool] = lambda: False,
        on_update: Callable[[int, float], object] = lambda _images, _loss: None,
        on_epoch: Callable[[Epoch], object] = lambda _row: None,
    ) -> bool:
        """Train until finished (return True), or until `stopping` returns True (return False, after a checkpoint).

        Args:
            stopping: asked before each update.
            on_update: called with the number of images and the loss of each update.
            on_epoch: called with each row of the curve.

        Raises:
            DivergedError: the loss is not finite.
            TrainingError: a file cannot be written.
            SettingsError: images cannot be read.
        """
        while not self.finished:
            if not self._epoch(stopping, on_update):
                self.save()
                return False
            done = self.progress
            row = self._evaluate(done.epoch, done.loss_sum / done.images)
            done.curve.append(row)
            if self.ends_with is not None or done.best is row:
                write_weights(self.weights, self.learner.model.state_dict())
            done.epoch, done.update, done.loss_sum, done.images = done.epoch + 1, 0, 0.0, 0
            self.save()
            on_epoch(row)
        return True

    def _epoch(self, stopping: Callable[[], bool], on_update: Callable[[int, float], object]) -> bool:
        """Run the rest of the epoch; return False if it was stopped."""
        done, saved_at = self.progress, time.monotonic()
        per_epoch = self.recipe.updates(len(self.train_rows))
        order = list(self.recipe.order(done.epoch, [self.images.labels[i] for i in self.train_rows]))
        left = order[done.update :]
        decoded = self._decoded(done.epoch, order, done.update)
        for batches in left:
            if stopping():
                return False
            number = (done.epoch - 1 - self._before) * per_epoch + done.update
            rate = self.recipe.rate(number, per_epoch * (self.recipe.epochs - self._before))
            loss, images = self._update(decoded, len(batches), number, rate)
            done.update += 1
            done.loss_sum += loss * images
            done.images += images
            on_update(images, loss)
            if time.monotonic() - saved_at >= self.checkpoint_every_s:
                self.save()
                saved_at = time.monotonic()
        return True

    def _update(self, decoded: Iterator[Pixels], batches: int, number: int, rate: float) -> tuple[float, int]:
        random = self.recipe.random(self.progress.epoch, self.progress.update, 0)

        def with_prompts() -> Iterator[tuple[Pixels, Tensor]]:
            for _ in range(batches):
                pixels, labels = next(decoded)
                yield (pixels, labels), torch.from_numpy(random.integers(self.prompts, size=len(labels)))

        try:
            return self.learner.update(with_prompts(), rate)
        except DivergedError as error:
            best = self.progress.best
            kept = f"the best epoch, {best.epoch}, is in {self.weights}" if best else "no epoch was finished"
            raise DivergedError(
                f"training diverged in epoch {self.progress.epoch} at update {number + 1}: {error}; {kept}. "
                f"Lower finetune.learning_rate (it was {self.recipe.learning_rate:g}) or lengthen finetune.warmup, and "
                "start with --overwrite."
            ) from error

    def _decoded(self, epoch: int, order: Sequence[Sequence[Sequence[int]]], begin: int) -> Iterator[Pixels]:
        """Yield pixels of the batches of an epoch's updates from `begin` on.

        An image that comes again gets another crop.
        """
        recipe = self.recipe
        rows = [[[self.train_rows[i] for i in batch] for batch in batches] for batches in order]
        drawn = Counter(i for batches in rows[:begin] for batch in batches for i in batch)

        def crop(i: int) -> RandomCrop:
            random = recipe.random(epoch, i, drawn[i]) if drawn[i] else recipe.random(epoch, i)
            drawn[i] += 1
            return RandomCrop(random, least=recipe.crop_min, flip=recipe.flip, jitter=recipe.jitter)

        return self.images.batches((batch for batches in rows[begin:] for batch in batches), crop)

    def _evaluate(self, epoch: int, loss: float) -> Epoch:
        each = self.judging_passes if epoch else 1.0

        def on_batch(images: int) -> None:
            self.on_evaluated(each * images)

        one = self.learner.evaluate(self.held_out, 1.0, on_batch)
        half = self.learner.evaluate(self.held_out, 0.5, on_batch) if epoch else one
        worse = min(one.accuracy, self.progress.curve[0].accuracy) if epoch else one.accuracy
        barrier = max(0.0, worse - half.accuracy)
        return Epoch(epoch, loss, one.accuracy, one.nll, one.ece, half.accuracy, barrier)


@dataclass(frozen=True)
class WrongImage:
    """A held-out image that theta_1 misclassifies; `picture` is a small JPEG."""

    name: str
    own: str
    taken_for: str
    picture: bytes


@dataclass(frozen=True)
class Comparison:
    """Class indices of each held-out image that could be read: its label, and the prediction at alpha 0, .5 and 1."""

    labels: Sequence[int]
    zero_shot: Sequence[int]
    half: Sequence[int]
    fine_tuned: Sequence[int]

    def per_class(self, names: Sequence[str], trained: Sequence[int]) -> list[dict[str, Any]]:
        """Return the images and accuracies of each class; None for accuracies without held-out images.

        `trained` has the labels of the training images.
        """
        learned, held_out = Counter(trained), Counter(self.labels)
        before, after = self._right(self.zero_shot), self._right(self.fine_tuned)

        def share(right: Counter[int], k: int) -> float | None:
            return right[k] / held_out[k] if held_out[k] else None

        return [
            {
                "name": name,
                "train": learned[k],
                "held_out": held_out[k],
                "zero_shot": share(before, k),
                "fine_tuned": share(after, k),
            }
            for k, name in enumerate(names)
        ]

    def confusions(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the most frequent confusions of theta_1, most frequent first, with theta_0's count of each."""
        after, before, held_out = self._wrong(self.fine_tuned), self._wrong(self.zero_shot), Counter(self.labels)
        return [
            {
                "class": names[own],
                "taken_for": names[other],
                "images": count,
                "of": held_out[own],
                "zero_shot": before[own, other],
            }
            for (own, other), count in sorted(after.items(), key=lambda item: (-item[1], item[0]))[:_CONFUSIONS]
        ]

    @property
    def ruin(self) -> str | None:
        """The reason why this pair must not serve: theta_1, or the path to it, is significantly worse than theta_0."""
        before, half, after = (
            sum(self._right(predicted).values()) for predicted in (self.zero_shot, self.half, self.fine_tuned)
        )
        n = len(self.labels)
        if self._lost(self.zero_shot, self.fine_tuned):
            return f"theta_1 is right on {after} of {n} held-out images, theta_0 was on {before}"
        worse = self.zero_shot if before <= after else self.fine_tuned
        if self._lost(worse, self.half):
            return (
                f"there is an accuracy barrier: at alpha .5, {half} of {n} held-out images are right, at the worse end "
                f"{min(before, after)}"
            )
        return None

    def _right(self, predicted: Sequence[int]) -> Counter[int]:
        return Counter(own for own, k in zip(self.labels, predicted, strict=True) if own == k)

    def _wrong(self, predicted: Sequence[int]) -> Counter[tuple[int, int]]:
        return Counter((own, k) for own, k in zip(self.labels, predicted, strict=True) if own != k)

    def _lost(self, before: Sequence[int], after: Sequence[int]) -> bool:
        """Test whether predictions got worse: McNemar's test on the images that one of both gets right.

        It is one-sided, with continuity correction; a loss of at most 1 % of the images never counts.
        """
        moved = [(b == own) - (a == own) for own, b, a in zip(self.labels, before, after, strict=True)]
        net, changed = sum(moved), sum(map(abs, moved))
        return net > _WORSE * len(moved) and (net - 1) / math.sqrt(changed) > _SURE
