"""Settings -> a card of the pair from labelled images."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import structlog
import torch
from rich.console import Console
from rich.table import Table

from pipeline.adapt.card import Card, make_card, read_card
from pipeline.codec import open_image
from pipeline.console import progress
from pipeline.errors import InvalidMessage, SettingsError
from pipeline.settings import Settings
from pipeline.wiring.model import Model, load_model

_SEED = 0
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_AT_ONCE = 256  # images held as pixels
_MAX_PIXELS = 200_000_000

_log = structlog.get_logger("card")


def build_card(settings: Settings, *, labelled: Path, output: Path, images: int | None) -> int:
    """Make a card from a folder with a subfolder for each class, write it, and show it."""
    model = load_model(settings.model, with_card=False)
    samples = labelled_images(labelled, model.classes, images)
    alphas = model.classifier.alphas
    parts: list[list[torch.Tensor]] = [[] for _ in alphas]
    labels: list[int] = []
    with progress("evaluated", total=len(samples) * len(alphas)) as bar:
        for start in range(0, len(samples), _AT_ONCE):
            pixels, kept = _pixels(model, samples[start : start + _AT_ONCE])
            labels += kept
            for j in range(len(alphas)):
                parts[j].append(model.classifier.logits(j, pixels))
                bar.advance(len(kept))
    logits = [torch.cat(part) for part in parts]
    card = make_card(
        lambda j: logits[j],
        torch.tensor(labels),
        alphas=alphas,
        identity=model.classifier.identity,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    output.write_text(card.to_json(), encoding="utf-8")
    _print(card, str(output))
    return 0


def show_card(settings: Settings, *, path: Path, as_json: bool) -> int:
    """Print a card."""
    del settings
    card = read_card(path)
    if as_json:
        print(card.to_json(), end="")
    else:
        _print(card, str(path))
    return 0


def labelled_images(folder: Path, classes: tuple[str, ...], limit: int | None) -> list[tuple[Path, int]]:
    """(file, class index) of the images in `folder/CLASS/`, mixed by a fixed seed, at most `limit`.

    Raises:
        SettingsError: no such folder, no image, or a subfolder that is no class.
    """
    remedy = f"expected {folder}/CLASS/IMAGE with the class names of model.classes"
    if not folder.is_dir():
        raise SettingsError(f"--labelled {folder}: there is no such folder; {remedy}")
    index = {name: i for i, name in enumerate(classes)}
    samples: list[tuple[Path, int]] = []
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        if subfolder.name not in index:
            raise SettingsError(f"--labelled {folder}: {subfolder.name!r} is not among the classes; {remedy}")
        files = sorted(path for path in subfolder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        samples += [(path, index[subfolder.name]) for path in files]
    if not samples:
        raise SettingsError(f"--labelled {folder}: found no image ({', '.join(sorted(_SUFFIXES))}); {remedy}")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(_SEED)).tolist()
    return [samples[i] for i in order][:limit]


def _pixels(model: Model, samples: list[tuple[Path, int]]) -> tuple[torch.Tensor, list[int]]:
    """The readable ones as uint8 `[N, 3, S, S]` and their labels; the others are named in a warning."""
    images, labels = [], []
    for path, label in samples:
        try:
            images.append(model.pair.preprocess(open_image(path.read_bytes(), max_pixels=_MAX_PIXELS)))
            labels.append(label)
        except (InvalidMessage, OSError, ValueError, SyntaxError) as error:
            _log.warning("image_skipped", path=str(path), error=str(error))
    if not images:
        raise SettingsError(f"none of {len(samples)} images from {samples[0][0]} on can be read; see the warnings")
    return torch.stack(images), labels


def _print(card: Card, name: str) -> None:
    table = Table(
        "alpha", "accuracy", "temperature", "NLL", "ECE", "ECE, T=1", "entropy", title=name, caption_justify="left"
    )
    best = card.accuracy.index(max(card.accuracy))
    for j, alpha in enumerate(card.alphas):
        values = (card.temperature, card.nll, card.ece, card.ece_raw, card.reference_entropy)
        cells = [f"{alpha:.2f}", f"{card.accuracy[j]:.3f}", *(f"{value[j]:.3f}" for value in values)]
        table.add_row(*cells, style="bold" if j == best else "")
    table.caption = (
        f"{card.images} images; best alpha on them {card.best_alpha:.2f}. "
        + ("There is an accuracy barrier on the path: do not interpolate this pair. " if card.has_barrier else "")
        + "In-distribution: what is best under shift is for the stream to say."
    )
    Console().print(table)
