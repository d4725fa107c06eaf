"""A tiny zero-shot model and coloured shapes, written once; and a run over them, small enough to repeat."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adawise.clip.load import StartingModel, load_starting_model
from adawise.labels.folders.samples import split
from adawise_lab.finetune.images import HeldOut, Images
from adawise_lab.finetune.learner import Learner
from adawise_lab.finetune.recipe import Recipe
from adawise_lab.finetune.train import FinetuneRun
from tests.lab.finetune.shapes import CLASSES, write_shapes
from tests.labels.folders.reading import read
from tests.models import TEMPLATES, PairFolder, write_pair

RECIPE = Recipe(loss="flyp", epochs=3, batch_images=8, learning_rate=1e-3, patience=10)
MakeRun = Callable[..., FinetuneRun]


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return write_pair(tmp_path_factory.mktemp("pair"), classes=CLASSES)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of each class. Not to be changed by a test."""
    return write_shapes(tmp_path_factory.mktemp("shapes") / "images", 12)


@pytest.fixture(scope="session")
def start(pair_folder: PairFolder) -> StartingModel:
    """theta_0 by the program's own loader. Not to be changed by a test."""
    return load_starting_model(pair_folder.theta_0, pair_folder.theta_0)


@pytest.fixture(scope="session")
def prompts(start: StartingModel) -> Tensor:
    tokens: Tensor = start.tokenizer([template.replace("{}", name) for name in CLASSES for template in TEMPLATES])
    return tokens


@pytest.fixture
def make_learner(start: StartingModel, prompts: Tensor) -> Callable[..., Learner]:
    """A learner at theta_0, by the images of each class and the fields of the recipe that differ from RECIPE."""

    def make(counts: Sequence[int] = (9, 9, 9), **changes: object) -> Learner:
        return Learner(
            copy.deepcopy(start.model),
            prompts,
            classes=len(CLASSES),
            counts=counts,
            mean=start.mean,
            std=start.std,
            recipe=replace(RECIPE, **changes),  # type: ignore[arg-type]
            device=torch.device("cpu"),
            dtype=torch.float32,
        )

    return make


@pytest.fixture
def make_images(start: StartingModel) -> Iterator[Callable[[Path], Images]]:
    """Decodes the samples of a path; closed after the test."""
    with ExitStack() as stack:

        def make(path: Path) -> Images:
            samples = read(path, CLASSES)
            index = {name: number for number, name in enumerate(CLASSES)}
            images = Images(samples, index, preprocess=start.preprocess, max_pixels=10_000, threads=2)
            return stack.enter_context(closing(images))

        yield make


@pytest.fixture
def make_run(
    make_learner: Callable[..., Learner], make_images: Callable[[Path], Images], shapes: Path, tmp_path: Path
) -> MakeRun:
    """A run on the shapes that writes to `tmp_path/NAME`, by the fields of the recipe that differ from RECIPE."""

    def make(
        name: str = "run", *, checkpoint_every_s: float = 1e6, path: Path = shapes, **changes: object
    ) -> FinetuneRun:
        learner = make_learner(**changes)
        (tmp_path / name).mkdir(exist_ok=True)
        train, held_out = split(read(path, CLASSES), 0.25, 0)
        images = make_images(path)
        return FinetuneRun(
            learner=learner,
            images=images,
            train_rows=train,
            prompts=len(TEMPLATES),
            held_out=HeldOut(images, held_out, 8),
            checkpoint=tmp_path / name / "checkpoint.pt",
            weights=tmp_path / name / "theta_1.safetensors",
            settings=learner.recipe.as_settings(),
            checkpoint_every_s=checkpoint_every_s,
        )

    return make
