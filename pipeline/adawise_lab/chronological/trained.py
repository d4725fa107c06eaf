"""The models of a protocol: each is trained by `finetune` in a folder of its own, and loaded as a worker loads it.

The folder's name has a digest of all that decides the training, so that it is reused as long as nothing changes, and
resumed if it was stopped. One model is in memory at a time.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from torch import Tensor

from adawise.app.model import ModelPair, load_model
from adawise.app.prompts import prompt_templates, read_lines
from adawise.card.card import Card
from adawise.clip.classifier import digest
from adawise.errors import CardError, CheckpointError, DivergedError, ImagesUnusable, SettingsError, TrainingError
from adawise.labels.folders.samples import Samples
from adawise.ports import Classifier, Round
from adawise.records import Selection
from adawise.settings import Settings
from adawise_lab.chronological.intervals import trainable
from adawise_lab.evaluate.images import make_tables
from adawise_lab.evaluate.places import image_set
from adawise_lab.evaluate.tables import LogitTable
from adawise_lab.finetune.finetune import FinetuneRequest, finetune
from adawise_lab.finetune.folder import Folder
from adawise_lab.finetune.training import starting_model

_log = structlog.get_logger("evaluate")


class TrainingStopped(Exception):
    """A training was stopped before its end; the same command goes on with it."""


@dataclass(frozen=True)
class Trained:
    """A pair that was trained.

    Attributes:
        name: of its folder, which no other training has.
        images: to learn from and held out.
        settings: those that load the pair with its card; None if there is no pair, and `why` says why.
        why: "" if there is a pair.
    """

    name: str
    images: int
    settings: Settings | None
    why: str = ""


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains pairs from one theta_0, all with the same class names.

    Attributes:
        settings: theta_0, the recipe without rehearsal, and how images are decoded; without theta_1 and card.
        samples: the images of the recording.
        cache: the folder below which each training has its own, and tables of logits are.
        decides: text that changes with all that decides a training, but its images.
        classes: the class names of all pairs.
    """

    settings: Settings
    samples: Samples
    cache: Path
    decides: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings, samples: Samples, cache: Path) -> Trainer:
        """Return the trainer; the class names are those of model.classes, else the labels of all images.

        Raises:
            CheckpointError: theta_0 cannot be loaded.
            SettingsError: as of `finetune`.
        """
        model = settings.model
        if model.classes is None:
            # One list for all pairs: a worker's streams begin anew where the names change.
            file = cache / f"classes@{digest(chr(10).join(samples.classes))}.txt"
            if not file.exists():
                file.write_text("".join(f"{name}\n" for name in samples.classes), encoding="utf-8")
            model = model.model_copy(update={"classes": file})
        recipe = settings.finetune.model_copy(update={"rehearsal": False, "tensorboard": False, "mlflow": False})
        model = model.model_copy(update={"theta_1": None, "card": None})
        settings = settings.model_copy(update={"model": model, "finetune": recipe})
        start = starting_model(settings)
        assert model.classes is not None
        classes = tuple(read_lines(model.classes, "model.classes", "class name"))
        names = (*classes, "", *prompt_templates(model))
        chosen = recipe.model_dump(mode="json", exclude={"checkpoint_every_s"})
        decides = [start.hash, start.preprocess.id, names, chosen, model.device, model.precision, samples.digest]
        return cls(settings, samples, cache, json.dumps(decides), classes)

    def train(self, rows: Sequence[int], name: str) -> Trained:
        """Train on some images, go on with that, or return what an earlier call has made.

        Args:
            rows: the images up to an interval; those that cannot be trained on are left out.
            name: the beginning of the folder's name.

        Raises:
            TrainingStopped: it was stopped before its end.
            TrainingError: the folder cannot be written, or is damaged.
        """
        kept = trainable(rows, self.samples.labels)
        place = self.cache / f"{_plain(name)}@{digest(f'{self.decides} {kept}')}"
        made = Trained(place.name, len(kept), None)
        if not kept:
            return replace(made, why="fewer than two classes with two images each")
        folder = Folder(place)
        has_ended = folder.record.exists() and not folder.checkpoint.exists()
        if not has_ended and not folder.rejected.record.exists():
            # A run of which a kill left no checkpoint is started anew.
            resume = folder.checkpoint.exists()
            request = FinetuneRequest(
                self.settings, self.samples.part(kept), place, resume=resume, overwrite=not resume
            )
            try:
                with _remedied(place):
                    if finetune(request) is None:
                        raise TrainingStopped
            except (DivergedError, ImagesUnusable) as error:
                _log.warning("training_failed", folder=str(place), error=str(error))
                diverged = isinstance(error, DivergedError)
                return replace(
                    made, why="the training diverged" if diverged else "a batch of images that cannot be read"
                )
        if folder.rejected.record.exists():
            return replace(made, why="the pair must not serve")
        return replace(made, settings=_serving(self.settings, folder))

    def table(self, trained: Trained, rows: Sequence[int]) -> tuple[LogitTable, list[int], Card]:
        """Return the logits of images by a pair at every alpha, the images that it has, and the pair's card.

        An image that cannot be decoded is left out.

        Raises:
            ImagesUnusable: no image can be decoded.
        """
        model = self._load(trained)
        table, kept = self._table(model, model.classifier, rows, model.classifier.fingerprint)
        assert model.card is not None  # `_serving` names it
        return table, kept, model.card

    def zero_shot(self, trained: Trained, rows: Sequence[int]) -> tuple[LogitTable, list[int]]:
        """Return the logits of images by theta_0, which is that of any pair, as a table of alphas 0 and 1."""
        model = self._load(trained)
        return self._table(model, ZeroShotAlone(model.classifier), rows, f"theta_0 of {model.classifier.fingerprint}")

    def _load(self, trained: Trained) -> ModelPair:
        assert trained.settings is not None
        with _remedied(self.cache / trained.name):
            return load_model(trained.settings.model, trained.settings.decode)

    def _table(
        self, model: ModelPair, classifier: Classifier, rows: Sequence[int], fingerprint: str
    ) -> tuple[LogitTable, list[int]]:
        samples = self.samples.part(rows)
        images = image_set(self.settings, model, samples, "chronological", None)
        (made,) = make_tables(
            images,
            (),
            classifier,
            fingerprint=fingerprint,
            cache=self.cache / "tables",
            seed=0,
            block_images=model.classifier.kept_images or None,
        )
        left_out = {where for where, _ in made.left_out}
        if left_out:
            _log.warning("images_left_out", left_out=len(left_out), of_them=dict(made.left_out[:5]))
        return made.table, [i for i in rows if f"{samples.where}: {self.samples.names[i]}" not in left_out]


@dataclass(frozen=True)
class ZeroShotAlone:
    """A pair's theta_0 as a classifier of the alphas 0 and 1, both of which are theta_0."""

    pair: Classifier
    alphas: tuple[float, ...] = (0.0, 1.0)
    tail_share: float = 1.0

    def open(self, batches: Sequence[Tensor]) -> Round:
        """See `Classifier.open`."""
        return _ZeroShotRound(self.pair.open(batches))


@dataclass(frozen=True)
class _ZeroShotRound:
    opened: Round

    def evaluate(self, requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
        return {index: self.opened.evaluate({0: rows})[0] for index, rows in requested.items()}


def _serving(settings: Settings, folder: Folder) -> Settings:
    """Return the settings that serve the pair of a folder, with its card."""
    made = {
        "theta_1": f"local-dir:{folder.theta_1}",
        "classes": folder.classes,
        "templates": folder.templates,
        "card": folder.card,
    }
    return settings.model_copy(update={"model": settings.model.model_copy(update=made)})


@contextmanager
def _remedied(place: Path) -> Iterator[None]:
    """Raise TrainingError, with what to do about a folder of a training, for one that cannot be used."""
    try:
        yield
    except DivergedError:
        raise
    except TrainingError as error:
        remedy = "The same command goes on with this training; if what is stored of it is damaged, remove the folder"
        raise TrainingError(f"{place}: {str(error).rstrip('.')}. {remedy}.") from error
    except (CardError, CheckpointError) as error:
        remedy = "Remove the folder, and the same command trains it anew"
        raise TrainingError(f"{place}: {str(error).rstrip('.')}. {remedy}.") from error


@contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Create a folder of trainings, and hold it: two runs would replace each other's files.

    Raises:
        SettingsError: another run has it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((cache / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"--cache {cache.parent}: another run of a protocol uses it. Wait for its end, or name another folder."
            ) from error
        except OSError as error:
            raise SettingsError(
                f"--cache {cache.parent}: trainings cannot be kept there ({error.strerror or error}). Name a folder "
                "that can be written."
            ) from error
        yield


def _plain(name: str) -> str:
    """Return a name for a folder; the digest behind it distinguishes names that become equal."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:60]
