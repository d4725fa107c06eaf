"""The work of `adawise card`: make a card from labelled images, extend it, or show it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import torch

from adawise.app.labelled import logits_of, open_samples
from adawise.app.model import ModelPair, check_card, load_model
from adawise.card.advice import OWN, advised_alpha, judge
from adawise.card.card import Card, Condition, make_card, read_card
from adawise.console import Progress, progress
from adawise.errors import SettingsError
from adawise.labels.folders.read import is_recording
from adawise.labels.folders.samples import Samples
from adawise.settings import DecodeSettings
from adawise.store.files import read_bytes
from adawise_lab.card.pixels import read_pixels
from adawise_lab.card.search_fit import Fit, fit_recorded
from adawise_lab.card.show import print_card
from adawise_lab.card.write import replace_card, write_card
from adawise_lab.evaluate.verdict import verdict_of

if TYPE_CHECKING:
    from adawise_lab.cli.card.options import CardCommand

_SEED = 0
_SHOWN = 5  # left-out images that are named in the log

_log = structlog.get_logger("card")


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Labelled images, and the rows to use, in the order of use."""

    samples: Samples
    rows: list[int]


def card(asked: CardCommand) -> int:
    """Show, correct, extend or make a card."""
    if asked.show is not None:
        return _show(asked.show, as_json=asked.as_json)
    if asked.from_labels is not None:
        return _correct(asked, asked.from_labels)
    return _extend(asked) if asked.labelled is None else _build(asked)


def _correct(asked: CardCommand, root: str) -> int:
    from adawise_lab.card.late_labels import Correction, correct  # imports all that a replay needs

    assert asked.output is not None  # `CardCommand.problems` has checked both
    assert asked.recording is not None
    return correct(
        Correction(
            settings=asked.settings,
            output=asked.output,
            root=root,
            recording=asked.recording,
            labels=asked.labels,
            label_within=asked.label_within,
            images=asked.images,
            without_replay=asked.without_replay,
        )
    )


def _build(asked: CardCommand) -> int:
    """Make a card from labelled images, write it with its heads beside it, and print it.

    --labelled-shifted names other images, or a folder with one place a condition. --images limits each condition.
    """
    settings, labelled, output, places = asked.settings, asked.labelled, asked.output, asked.labelled_shifted
    assert labelled is not None  # `CardCommand.problems` has checked both
    assert output is not None
    model = load_model(settings.model, settings.decode, with_card=False)
    alphas, like = model.classifier.alphas, _card_beside(asked.held_out, model)
    if asked.held_out is None:
        samples = open_samples(settings.decode, labelled, "--labelled", model.classes)
        own = _drawn(samples, asked.images)
    else:
        samples, rows = _held_out(settings.decode, labelled, asked.held_out, model.classes)
        own = _mixed(samples, rows, asked.images)
    conditions = {
        name: _drawn(open_samples(settings.decode, place, "--labelled-shifted", model.classes), asked.images)
        for name, place in ({} if places is None else _conditions(places, model.classes)).items()
    }
    total = len(own.rows) + sum(len(drawn.rows) for drawn in conditions.values())
    with progress("evaluated", total=total * len(alphas)) as bar:
        home = _evaluate(model, OWN, own, bar)
        shifted = [_evaluate(model, name, drawn, bar) for name, drawn in conditions.items()]
        card = make_card(
            home.logits,
            home.labels,
            shifted,
            alphas=alphas,
            identity=model.classifier.identity,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            like=like,
        )
    card = replace(card, judged=judge(home, shifted, card))
    if shifted:
        card = replace(card, verdict=verdict_of(card, [home, *shifted]))
    fitted = card if asked.fit_search is None else _fitted(asked, model, card)
    print_card(write_card(output, fitted, model.classifier.embeddings()), str(output))
    if like is not None and card.verdict is None and (fixed := advised_alpha(like.verdict)) is not None:
        print(
            f"The pair's own card advises a fixed alpha of {fixed:g}. This one advises nothing, so auto adapts. "
            f'For a fixed alpha, set search.strategy = "fixed" and search.alpha = {fixed:g}.'
        )
    return 0


def _extend(asked: CardCommand) -> int:
    """Fit the search to a recorded stream, and write the result into the existing card.

    Raises:
        CardError: there is no card, or it belongs to another pair.
    """
    assert asked.output is not None  # `CardCommand.problems` has checked it
    card = read_card(asked.output)
    model = load_model(asked.settings.model, asked.settings.decode, with_card=False)
    check_card(card, model.checkpoints, model.classifier)
    fitted = _fitted(asked, model, card)
    replace_card(asked.output, fitted)
    print_card(fitted, str(asked.output))
    return 0


def _fitted(asked: CardCommand, model: ModelPair, card: Card) -> Card:
    assert asked.fit_search is not None  # `CardCommand.problems` has checked it
    fit = Fit(asked.fit_search, asked.fit_objective, asked.fit_batches)
    return replace(card, search=fit_recorded(asked.settings, model, card, fit))


def _evaluate(model: ModelPair, name: str, drawn: _Drawn, bar: Progress) -> Condition:
    """Return the logits at each alpha and the labels of the drawn images that can be read."""
    logits, labels = logits_of(model.classifier, _labelled_pixels(model, drawn), bar)
    return Condition(name, logits.__getitem__, labels)


def _show(path: Path, *, as_json: bool) -> int:
    """Print a card, as JSON or as tables."""
    card = read_card(path)
    if as_json:
        print(card.to_json(), end="")
    else:
        print_card(card, str(path))
    return 0


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
