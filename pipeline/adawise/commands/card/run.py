"""Settings -> a card of the pair from labelled images."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
import torch

from adawise.adapt.advice import judge, judge_own
from adawise.adapt.card import Card, make_card, read_card
from adawise.build.model import ModelPair, load_model
from adawise.clip.heads import heads_path, write_heads
from adawise.commands.card.search_fit import Fit, fit_recorded
from adawise.commands.card.show import print_card
from adawise.console import Progress, progress
from adawise.decode.codec import open_image
from adawise.errors import InvalidMessage, SettingsError
from adawise.settings import Settings

_SEED = 0
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_AT_ONCE = 256  # images held as pixels
_MAX_PIXELS = 200_000_000

_log = structlog.get_logger("card")


def build_card(
    settings: Settings,
    *,
    labelled: Path,
    output: Path,
    images: int | None,
    shifted: Path | None = None,
    fit: Fit | None = None,
) -> int:
    """Make a card from a folder with a subfolder for each class, write it and the heads beside it, and show it.

    `shifted` is such a folder of other images, or one of such folders, a condition each; `images` is of each.
    """
    model = load_model(settings.model, with_card=False)
    alphas = model.classifier.alphas
    own = labelled_images(labelled, model.classes, images)
    conditions = {} if shifted is None else shifted_images(shifted, model.classes, images)
    total = len(own) + sum(len(samples) for samples in conditions.values())
    with progress("evaluated", total=total * len(alphas)) as bar:
        logits, labels = _evaluate(model, own, bar)
        card = make_card(
            logits.__getitem__,
            labels,
            alphas=alphas,
            identity=model.classifier.identity,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        judged = [*judge_own(logits.__getitem__, labels, card)]
        for name, samples in conditions.items():
            logits, labels = _evaluate(model, samples, bar)
            judged += judge(name, logits.__getitem__, labels, card)
    heads = write_heads(heads_path(output), model.classifier.embeddings())
    return _write(_fitted(settings, model, replace(card, judged=tuple(judged), heads=heads), fit), output)


def extend_card(settings: Settings, *, output: Path, fit: Fit) -> int:
    """Fit the search to a recorded stream, and write the result into the card that is there.

    Raises:
        CardError: there is no card, or it belongs to another pair.
    """
    card = read_card(output)
    model = load_model(settings.model, with_card=False)
    card.check(model.classifier.identity, model.classifier.alphas)
    return _write(_fitted(settings, model, card, fit), output)


def _fitted(settings: Settings, model: ModelPair, card: Card, fit: Fit | None) -> Card:
    return card if fit is None else replace(card, search=fit_recorded(settings, model, card, fit))


def _write(card: Card, output: Path) -> int:
    output.write_text(card.to_json(), encoding="utf-8")
    print_card(card, str(output))
    return 0


def _evaluate(
    model: ModelPair, samples: list[tuple[Path, int]], bar: Progress
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits `[N, C]` at each alpha, and labels `[N]`, of the readable ones."""
    alphas = model.classifier.alphas
    parts: list[list[torch.Tensor]] = [[] for _ in alphas]
    labels: list[int] = []
    for start in range(0, len(samples), _AT_ONCE):
        pixels, kept = _pixels(model, samples[start : start + _AT_ONCE])
        labels += kept
        for j in range(len(alphas)):
            parts[j].append(model.classifier.logits(j, pixels))
            bar.advance(len(kept))
    return [torch.cat(part) for part in parts], torch.tensor(labels)


def show_card(settings: Settings, *, path: Path, as_json: bool) -> int:
    """Print a card."""
    del settings
    card = read_card(path)
    if as_json:
        print(card.to_json(), end="")
    else:
        print_card(card, str(path))
    return 0


def shifted_images(folder: Path, classes: tuple[str, ...], limit: int | None) -> dict[str, list[tuple[Path, int]]]:
    """Condition -> (file, class index): `folder` is a condition, if its subfolders are classes, or has one in each.

    Raises:
        SettingsError: as `labelled_images`.
    """
    option = "--labelled-shifted"
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not subfolders or any(path.name in classes for path in subfolders):
        return {folder.name: labelled_images(folder, classes, limit, option=option)}
    return {path.name: labelled_images(path, classes, limit, option=option) for path in subfolders}


def labelled_images(
    folder: Path, classes: tuple[str, ...], limit: int | None, *, option: str = "--labelled"
) -> list[tuple[Path, int]]:
    """(file, class index) of the images in `folder/CLASS/`, mixed by a fixed seed, at most `limit`.

    Raises:
        SettingsError: no such folder, no image, or a subfolder that is no class.
    """
    remedy = f"expected {folder}/CLASS/IMAGE with the class names of model.classes"
    if not folder.is_dir():
        raise SettingsError(f"{option} {folder}: there is no such folder; {remedy}")
    index = {name: i for i, name in enumerate(classes)}
    samples: list[tuple[Path, int]] = []
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        if subfolder.name not in index:
            raise SettingsError(f"{option} {folder}: {subfolder.name!r} is not among the classes; {remedy}")
        files = sorted(path for path in subfolder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        samples += [(path, index[subfolder.name]) for path in files]
    if not samples:
        raise SettingsError(f"{option} {folder}: found no image ({', '.join(sorted(_SUFFIXES))}); {remedy}")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(_SEED)).tolist()
    return [samples[i] for i in order][:limit]


def _pixels(model: ModelPair, samples: list[tuple[Path, int]]) -> tuple[torch.Tensor, list[int]]:
    """The readable ones as uint8 `[N, 3, S, S]` and their labels; the others are named in a warning."""
    images, labels = [], []
    for path, label in samples:
        try:
            images.append(model.checkpoints.preprocess(open_image(path.read_bytes(), max_pixels=_MAX_PIXELS)))
            labels.append(label)
        except (InvalidMessage, OSError, ValueError, SyntaxError) as error:
            _log.warning("image_skipped", path=str(path), error=str(error))
    if not images:
        raise SettingsError(f"none of {len(samples)} images from {samples[0][0]} on can be read; see the warnings")
    return torch.stack(images), labels
