"""Tables of logits for `adawise evaluate`, made from labelled images: the images of a place, and their classifier."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import structlog

from adawise.app.model import ModelPair, load_model
from adawise.app.prompts import prompt_templates, read_lines
from adawise.card.card import read_card
from adawise.clip.classifier import PairClassifier, digest
from adawise.decode.codec import open_image, undecodable
from adawise.errors import InvalidMessage, SettingsError
from adawise.labels.folders.samples import Samples, contents_digest, is_class_name
from adawise.settings import DecodeSettings, ModelSettings, Settings
from adawise_lab.evaluate.corrupt import parse
from adawise_lab.evaluate.images import ImageSet, Sample, domain_name, make_tables
from adawise_lab.evaluate.tables import LogitTable, TableSources
from adawise_lab.labelled import open_samples

_SEED = 0  # seed of corruptions, and of the images that --limit draws
_SHOWN = 5  # left-out images that are named in the log

_log = structlog.get_logger("evaluate")


def domain_names(wanted: TableSources) -> tuple[str, ...]:
    """Return the domains that `tables_of_images` makes, without looking into the places.

    Raises:
        SettingsError: a place does not exist, two have the same name, or a corruption is unknown.
    """
    for place in wanted.places:
        if not place.exists():
            raise SettingsError(f"--images {place}: there is no such file or folder. Correct its name.")
    groups = [set_name(place) for place in wanted.places]
    for group in groups:
        if groups.count(group) > 1:
            raise SettingsError(f"--images: two places, and so their domains, have the name {group!r}: rename one")
    kinds = parse(wanted.corruptions) if wanted.corruptions is not None else ()
    return tuple(domain_name(group, kind) for group in groups for kind in (None, *kinds))


def tables_of_images(settings: Settings, wanted: TableSources) -> tuple[tuple[LogitTable, ...], float]:
    """Return the tables of each place's images, clean and under each corruption, and the pair's `tail_share`.

    Without model.classes the class names are those that the files declare, or else the labels, of all places together.

    Raises:
        SettingsError, SourceError: as `domain_names` and `listed`; or the class names of the places cannot be used.
    """
    kinds = parse(wanted.corruptions) if wanted.corruptions is not None else ()
    file = settings.model.classes
    classes = None if file is None else read_lines(file, "model.classes", "class name")
    # All, so that mistakes are found before anything is computed.
    each = {place: listed(settings, place, classes) for place in wanted.places}
    if classes is None:
        classes = _classes_of(each.values(), settings.model.card)
    model = load_model(settings.model, settings.decode, classes=classes)
    tables: list[LogitTable] = []
    for place, samples in each.items():
        images = image_set(settings, model, samples, set_name(place), wanted.limit)
        classifier = _classifier(settings.model, model, images.classes)
        made = make_tables(
            images,
            kinds,
            classifier,
            fingerprint=classifier.fingerprint,
            cache=wanted.cache,
            seed=_SEED,
            block_images=classifier.kept_images or None,
        )
        left_out = made[0].left_out
        if left_out:
            shown = dict(left_out[:_SHOWN])
            _log.warning("images_left_out", images=str(place), left_out=len(left_out), of_them=shown)
        tables += [one.table for one in made]
    return tuple(tables), model.checkpoints.tail_share


def _classes_of(places: Collection[Samples], card: Path | None) -> tuple[str, ...]:
    """Return the class names of all places together, in their order, and log them.

    Raises:
        SettingsError: there is one only, a name that a file declares is none, or the card was made with others.
    """
    classes = tuple(dict.fromkeys(name for samples in places for name in samples.declared or samples.classes))
    if len(classes) == 1:
        raise SettingsError(
            f"--images: all images have the label {classes[0]!r}, and any model would be right. List all served "
            "names in a file for --model.classes."
        )
    for samples in places:
        for name in samples.declared or ():
            if not is_class_name(name):
                raise SettingsError(
                    f"--images {samples.where}: expected class names of one line without spaces around them, and the "
                    f"file declares {name!r}. Correct it there, or list the names in a file for --model.classes."
                )
    if card is not None and read_card(card).identity.get("classes") != digest("\n".join(classes)):
        raise SettingsError(
            f"--images: the {len(classes)} class names of these images, or their order, are not those that the card "
            f"{card} was made with. List the card's names in a file for --model.classes, or leave model.card out."
        )
    _log.info("classes_taken_from_images", classes=len(classes), first=classes[:_SHOWN])
    return classes


def set_name(place: Path) -> str:
    """Return the group of a place's domains: `test_base.parquet` -> `test-base`. An underscore would end the group."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", place.resolve().name.removesuffix(".parquet").removesuffix(".arrow"))


def listed(settings: Settings, place: Path, classes: tuple[str, ...] | None) -> Samples:
    """Return the labelled images of a place, with labels of `classes` or of the class names that the place brings.

    Without `classes` any label is allowed.

    Raises:
        SettingsError, SourceError: there are none, or some have a label that is no class.
    """
    return open_samples(settings.decode, place, "--images", classes, own_classes=True)


def image_set(settings: Settings, model: ModelPair, samples: Samples, name: str, limit: int | None) -> ImageSet:
    """Return the images of a place to classify, at most `limit` of them."""
    theirs = None if set(samples.labels) <= set(model.classes) else samples.declared
    classes = theirs or model.classes
    chosen = _chosen(len(samples), limit)
    index = {label: i for i, label in enumerate(classes)}

    def decoded() -> Iterator[Sample]:
        for i in chosen:
            where = f"{samples.where}: {samples.names[i]}"
            try:
                if i in samples.left_out:
                    yield Sample(where, None, trouble=samples.left_out[i])
                else:
                    yield _decoded(samples.read(i), settings.decode.max_pixels, model, where, index[samples.labels[i]])
            except (OSError, InvalidMessage) as error:
                yield Sample(where, None, trouble=str(error))

    contents = f"{samples.digest} {limit}" if samples.is_exact else contents_digest(samples, chosen)
    return ImageSet(name, classes, contents + _limits(settings.decode, samples), len(chosen), decoded)


def _limits(settings: DecodeSettings, samples: Samples) -> str:
    """Return the limits that leave images out of a table, as text for its digest, without those at their default."""
    names = ("max_message_bytes", "max_rows", "max_pixels") if samples.is_exact else ("max_pixels",)
    changed = {name: getattr(settings, name) for name in names}
    defaults = DecodeSettings()
    return "".join(f" {name} {value}" for name, value in changed.items() if value != getattr(defaults, name))


def _decoded(data: bytes, max_pixels: int, model: ModelPair, where: str, label: int) -> Sample:
    image = open_image(data, max_pixels=max_pixels)
    try:
        return Sample(where, model.checkpoints.preprocess(image), label)
    except MemoryError:
        raise
    except Exception as error:  # see codec.undecodable
        raise undecodable(image.format or "image", error) from error


def _chosen(count: int, limit: int | None) -> list[int]:
    """Return all indices, or `limit` of them drawn at random, in ascending order."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(_SEED).sample(range(count), limit))


def _classifier(settings: ModelSettings, model: ModelPair, classes: tuple[str, ...]) -> PairClassifier:
    """Return the model's classifier, or one of its towers for other class names, with the same merged copies."""
    own = model.classifier
    if classes == model.classes:
        return own
    return PairClassifier(
        model.checkpoints,
        classes=classes,
        templates=prompt_templates(settings),
        chunk_rows=own.chunk_rows,
        dtype=own.dtype,
        device=own.device,
        bank_bytes=settings.bank_mib * 2**20,
        head=settings.head,
        bank=own.bank,
    )
