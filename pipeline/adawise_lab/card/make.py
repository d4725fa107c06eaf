"""A card made from labelled images, and the files of a card: its own, and the text heads beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
import torch
from torch import Tensor

from adawise.app.model import ModelPair, load_model
from adawise.card.advice import OWN, advised_alpha, evaluate_conditions
from adawise.card.card import Card, Condition, make_card, read_card, with_few
from adawise.clip.heads import encoded, heads_path
from adawise.console import progress
from adawise.decode.codec import open_image
from adawise.errors import CardError, InvalidMessage, SettingsError
from adawise.labels.folders.read import is_recording
from adawise.labels.folders.samples import Samples
from adawise.settings import DecodeSettings, Settings
from adawise.store.files import read_bytes
from adawise.store.store import replace_file
from adawise_lab.evaluate.assessment import Judgement, assess_pair
from adawise_lab.labelled import logits_of, open_samples

_SEED = 0
_SHOWN = 5  # left-out images that are named in the log
_AT_ONCE = 256  # images whose pixels are in memory at once
_MAX_PIXELS = 200_000_000

_log = structlog.get_logger("card")


@dataclass(frozen=True, slots=True)
class CardRequest:
    """A request to make a card of the settings' pair.

    Args:
        settings: the pair, and how images are decoded.
        labelled: the labelled images.
        output: the file to write the card to.
        held_out: the record of a run of fine-tuning, of whose images only the held-out ones are used; None: all are.
        shifted: other labelled images, or a folder with one place a condition, to judge the objectives by.
        images: the most images of a condition; None for all.
    """

    settings: Settings
    labelled: Path
    output: Path
    held_out: Path | None = None
    shifted: Path | None = None
    images: int | None = None


@dataclass(frozen=True, slots=True)
class MadeCard:
    """A card that was written, and the fixed alpha that the pair's own card advises, where this one has no verdict."""

    card: Card
    fixed_alpha: float | None


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Labelled images, and the rows to use, in the order of use."""

    samples: Samples
    rows: list[int]


def make(request: CardRequest) -> MadeCard:
    """Make a card from labelled images, and write it with its heads beside it.

    Raises:
        SettingsError: the images cannot be used.
        CardError: the card beside the record cannot be read, or the new one not be written.
    """
    decode, limit = request.settings.decode, request.images
    model = load_model(request.settings.model, decode, with_card=False)
    alphas, like = model.classifier.alphas, _card_beside(request.held_out, model)
    if request.held_out is None:
        own = _drawn(open_samples(decode, request.labelled, "--labelled", model.classes), limit)
    else:
        own = _mixed(*_held_out(decode, request.labelled, request.held_out, model.classes), limit)
    conditions = {
        name: _drawn(open_samples(decode, place, "--labelled-shifted", model.classes), limit)
        for name, place in ({} if request.shifted is None else _conditions(request.shifted, model.classes)).items()
    }
    total = len(own.rows) + sum(len(drawn.rows) for drawn in conditions.values())
    with progress("evaluated", total=total * len(alphas)) as bar:
        home, *shifted = [
            Condition(name, logits.__getitem__, labels)
            for name, drawn in {OWN: own, **conditions}.items()
            for logits, labels in [logits_of(model.classifier, _labelled_pixels(model, drawn), bar)]
        ]
    card, _ = evaluated_card(model, home, shifted, like=like)
    card = write_card(request.output, card, model.classifier.embeddings())
    return MadeCard(card, advised_alpha(like.verdict) if like is not None and card.verdict is None else None)


def evaluated_card(
    model: ModelPair, home: Condition, shifted: Sequence[Condition], *, like: Card | None = None, group: str = OWN
) -> tuple[Card, Judgement | None]:
    """Return the card of these images, with their judgement on the objectives and, with shifted ones, the verdict.

    Args:
        model: the pair.
        home: images like those that theta_1 was fine-tuned on.
        shifted: images of other conditions.
        like: another card of the pair, whose knowledge of shifts is taken where there are no shifted images.
        group: the name of `home` in the verdict.

    Returns:
        The card, and what its verdict was found from; None without a verdict.
    """
    card = make_card(
        home.logits,
        home.labels,
        shifted,
        alphas=model.classifier.alphas,
        identity=model.classifier.identity,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        like=like,
    )
    card = replace(card, judged=evaluate_conditions(home, shifted, card), tail_share=model.checkpoints.tail_share)
    card = with_few(card, home.logits, home.labels)
    if not shifted:
        return card, None
    judgement = assess_pair(card, [replace(home, name=group), *shifted])
    return replace(card, verdict=judgement.verdict), judgement


def _conditions(place: Path, classes: tuple[str, ...]) -> dict[str, Path]:
    """Return the place of each condition, by name.

    `place` is one condition, or a folder with a condition in each subfolder, or else in each Parquet or Arrow file.
    """
    if not place.is_dir():
        return {place.stem: place}
    if is_recording(place):
        return {place.name: place}
    inside = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    subfolders = [path for path in inside if path.is_dir()]
    if any(path.name in classes for path in subfolders):
        return {place.name: place}
    files = {path.stem: path for path in inside if path.suffix in {".parquet", ".arrow"}}
    return {path.name: path for path in subfolders} or files or {place.name: place}


def _held_out(
    decode: DecodeSettings, labelled: Path, record: Path, classes: tuple[str, ...]
) -> tuple[Samples, list[int]]:
    """Return the images that a run of fine-tuning had, and the held-out rows among them that are of `classes`.

    On the images that it learned from, the pair is overconfident.

    Raises:
        SettingsError: the record is not of a run, or of other images, or no held-out image is of `classes`.
    """
    try:
        found = json.loads(read_bytes(record))
        names, own = set(found["held_out"]), tuple(row["name"] for row in found.get("classes", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"--held-out {record}: expected finetune.json of a run ({error!r}). Name it.") from error
    samples = open_samples(decode, labelled, "--labelled", own or None)
    missing = sorted(names - set(samples.names))
    if missing:
        raise SettingsError(
            f"--held-out {record}: {len(missing)} of {len(names)} images that the run held out are not in "
            f"{samples.where}, such as {missing[0]}. Name the place that --labelled or --validation named for that "
            "run."
        )
    known = frozenset(classes)
    rows = [i for i in samples.usable if samples.names[i] in names and samples.labels[i] in known]
    if not rows:
        raise SettingsError(
            f"--held-out {record}: none of {len(names)} images is of the {len(classes)} classes of model.classes. "
            "Give other images without --held-out, or other class names."
        )
    if len(rows) < len(names):
        _log.warning("images_left_out", images=samples.where, left_out=len(names) - len(rows), of_them="other classes")
    return samples, rows


def _card_beside(record: Path | None, model: ModelPair) -> Card | None:
    """Return the card beside the record of a run: what it says about shifts hardly depends on the class names.

    Returns:
        The card; None if there is none, or it is of another pair.

    Raises:
        CardError: it cannot be read.
    """
    beside = None if record is None else record.with_name("card.json")
    if beside is None or not beside.is_file():
        return None
    card, identity = read_card(beside), model.classifier.identity
    same = card.alphas == model.classifier.alphas
    same = same and all(card.identity.get(part) == identity[part] for part in ("theta_0", "theta_1"))
    return card if same else None


def _drawn(samples: Samples, limit: int | None) -> _Drawn:
    """Draw at most `limit` of the usable images with a fixed seed, and log the unusable ones."""
    if samples.left_out:
        shown = {samples.names[i]: why for i, why in list(samples.left_out.items())[:_SHOWN]}
        _log.warning("images_left_out", images=samples.where, left_out=len(samples.left_out), of_them=shown)
    return _mixed(samples, samples.usable, limit)


def _mixed(samples: Samples, rows: list[int], limit: int | None) -> _Drawn:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SEED)).tolist()
    return _Drawn(samples, [rows[i] for i in order][:limit])


def _labelled_pixels(model: ModelPair, drawn: _Drawn) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Yield the readable images as uint8 `[N, 3, S, S]` with their labels as class indices, some at a time.

    Raises:
        SettingsError: no image can be read.
    """
    samples, rows = drawn.samples, drawn.rows
    index, readable = {name: i for i, name in enumerate(model.classes)}, 0
    for pixels, kept in read_pixels(model, samples, rows):
        readable += len(kept)
        yield pixels, [index[samples.labels[i]] for i in kept]
    if not readable:
        first = f"{samples.where}/{samples.names[rows[0]]}"
        raise SettingsError(f"none of {len(rows)} images from {first} on can be read; see the warnings")


def read_pixels(model: ModelPair, samples: Samples, rows: Sequence[int]) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Yield the readable images of `rows` as uint8 `[N, 3, S, S]` with their rows, at most 256 at a time.

    An image that cannot be read is logged and left out.

    Raises:
        SourceError: the images are in a recording that is damaged.
    """
    for start in range(0, len(rows), _AT_ONCE):
        images, kept = [], []
        for i in rows[start : start + _AT_ONCE]:
            try:
                images.append(model.checkpoints.preprocess(open_image(samples.read(i), max_pixels=_MAX_PIXELS)))
                kept.append(i)
            except (InvalidMessage, OSError, ValueError, SyntaxError) as error:
                _log.warning("image_skipped", path=f"{samples.where}/{samples.names[i]}", error=str(error))
        if images:
            yield torch.stack(images), kept


def write_card(path: Path, card: Card, embeddings: Tensor) -> Card:
    """Write the card with these heads, the class embeddings float32 `[H, D, C]`; return the card, which names them.

    The old heads are removed first, and the new ones are written last. If the process is killed in between, the card is
    without heads, and the next start encodes them.

    Raises:
        CardError: it could not be written.
    """
    content, digest = encoded(embeddings)
    card, heads = replace(card, heads=digest), heads_path(path)
    try:
        heads.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(heads, error) from error
    replace_card(path, card)
    _replace(heads, content)
    return card


def write_beside(card: Path, other: Path, content: Card) -> None:
    """Write a card of the same pair as `card` to `other`, with the heads beside `card`, if there are any.

    The old heads are removed first, as `write_card` does.

    Raises:
        CardError: the files could not be written.
    """
    try:
        heads = heads_path(card).read_bytes()
    except OSError:  # without heads the next start encodes them
        heads = None
    try:
        heads_path(other).unlink(missing_ok=True)
    except OSError as error:
        raise _refused(heads_path(other), error) from error
    replace_card(other, content)
    if heads is not None:
        _replace(heads_path(other), heads)


def replace_card(path: Path, card: Card) -> None:
    """Write the card alone; its heads stay as they are.

    Raises:
        CardError: it could not be written.
    """
    _replace(path, card.to_json().encode())


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> CardError:
    return CardError(
        f"{path}: could not be written ({error.strerror or error}). Free space, or give this user the right to write."
    )
