"""Settings and labelled images -> tables of logits for `evaluate`: what a place holds, and who classifies it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import structlog

from adawise.build.model import ModelPair, load_model
from adawise.build.prompts import prompt_templates, read_lines
from adawise.clip.classifier import PairClassifier
from adawise.commands.evaluate.run import TableSources
from adawise.commands.labelled import open_samples
from adawise.decode.codec import open_image, undecodable
from adawise.errors import InvalidMessage, SettingsError
from adawise.evaluate.corrupt import parse
from adawise.evaluate.images import ImageSet, Sample, domain_name, make_tables
from adawise.evaluate.tables import LogitTable
from adawise.labelled.samples import Samples, contents_digest
from adawise.settings import DecodeSettings, ModelSettings, Settings

_SEED = 0  # of corruptions, and of what is taken with --limit
_SHOWN = 5  # images that were left out, by name

_log = structlog.get_logger("evaluate")


def domain_names(wanted: TableSources) -> tuple[str, ...]:
    """The domains that `tables_of_images` makes, without looking into the places.

    Raises:
        SettingsError: a place that is not there, two of one name, or a corruption that there is not.
    """
    for place in wanted.places:
        if not place.exists():
            raise SettingsError(f"--images {place}: there is no such file or folder. Correct its name.")
    groups = [set_name(place) for place in wanted.places]
    for group in groups:
        if groups.count(group) > 1:
            raise SettingsError(f"--images: two places are called {group!r}, and so would be their domains: rename one")
    kinds = parse(wanted.corruptions) if wanted.corruptions is not None else ()
    return tuple(domain_name(group, kind) for group in groups for kind in (None, *kinds))


def tables_of_images(settings: Settings, wanted: TableSources) -> tuple[LogitTable, ...]:
    """The tables of each place's images, clean and under each corruption.

    Raises:
        SettingsError, SourceError: see `domain_names`, or a place without labelled images.
    """
    kinds = parse(wanted.corruptions) if wanted.corruptions is not None else ()
    assert settings.model.classes is not None  # the command line has seen to it
    classes = read_lines(settings.model.classes, "model.classes", "class name")
    each = {place: listed(settings, place, classes) for place in wanted.places}  # all, before anything is computed
    model = load_model(settings.model, settings.decode)
    tables: list[LogitTable] = []
    for place, samples in each.items():
        images = image_set(settings, model, samples, set_name(place), wanted.limit)
        classifier = _classifier(settings.model, model, images.classes)
        made = make_tables(
            images, kinds, classifier, fingerprint=classifier.fingerprint, cache=wanted.cache, seed=_SEED
        )
        left_out = made[0].left_out
        if left_out:
            shown = dict(left_out[:_SHOWN])
            _log.warning("images_left_out", images=str(place), left_out=len(left_out), of_them=shown)
        tables += [one.table for one in made]
    return tuple(tables)


def set_name(place: Path) -> str:
    """The group of the domains of a place: `test_base.parquet` -> `test-base`; an underscore would end the group."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", place.resolve().name.removesuffix(".parquet").removesuffix(".arrow"))


def listed(settings: Settings, place: Path, classes: tuple[str, ...]) -> Samples:
    """The labelled images of a place, or those of the class names that it brings.

    Raises:
        SettingsError, SourceError: there are none, or some with labels that are no class.
    """
    return open_samples(settings.decode, place, "--images", classes, own_classes=True)


def image_set(settings: Settings, model: ModelPair, samples: Samples, name: str, limit: int | None) -> ImageSet:
    """What is classified of a place: at most `limit` of its images."""
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

    digest = f"{samples.digest} {limit}" if samples.is_exact else contents_digest(samples, chosen)
    return ImageSet(name, classes, digest + _limits(settings.decode, samples), len(chosen), decoded)


def _limits(settings: DecodeSettings, samples: Samples) -> str:
    """Return the limits by which images are left out of a table; nothing of those that have their default."""
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
    """All, or `limit` of them at random, in their order."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(_SEED).sample(range(count), limit))


def _classifier(settings: ModelSettings, model: ModelPair, classes: tuple[str, ...]) -> PairClassifier:
    """The model's, or one of its towers for other class names, with the same merged copies."""
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
