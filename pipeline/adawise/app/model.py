"""Settings -> the model pair, its card, and the method over them."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import torch
from typing_extensions import override

from adawise.adapt.objective import NO_CARD
from adawise.adapt.search import Strategy
from adawise.adapt.shortlist import Shortlists, digest_of
from adawise.adapt.state import largest_bytes
from adawise.adapt.strategies import strategy
from adawise.app.machine import usable_cores
from adawise.app.parts import exploration, rendition, scene_digest, shortlists
from adawise.app.prompts import prompt_templates, read_lines
from adawise.card import advice
from adawise.card.card import Card, read_card
from adawise.clip.classifier import PairClassifier, digest
from adawise.clip.cuda import Cuda, chunk_rows_for
from adawise.clip.device import Device, Plain, processor
from adawise.clip.heads import heads_path, read_heads
from adawise.clip.load import CheckpointPair, load_checkpoints
from adawise.decode.headers import MAX_STREAM_ID_BYTES
from adawise.errors import AdawiseError, CardError, SettingsError
from adawise.ports import ServedBy
from adawise.settings import DecodeSettings, ModelSettings, SearchSettings, Settings
from adawise.settings.requirements import LOCAL_FOLDER
from adawise.settings.scene import SceneSettings
from adawise.worker.adaptation import Adaptation

_EARLIER_PIXELS = (
    "about three pixels in a thousand differ by one level of 255, one in a million by two: the card is valid, and "
    "streams keep their states; `adawise card make` makes one for the current pixels, with which streams start anew"
)
_READ_OTHERWISE = (
    "the card was made with other decode.orientation, decode.grey16_range or decode.reduced: it is valid as far as the "
    "images are the same; `adawise card make` with the current settings makes one for these images"
)
_log = structlog.get_logger("model")
_STATES_BYTES = 100_000_000  # of all states of a partition
_CHUNK_ROWS = 8  # a processor is at its full rate with 8 images


@dataclass(frozen=True)
class ModelPair:
    """Two checkpoints, ready to classify; `card` is None if there is none.

    `classes` are the C class names, in the order of logits and probabilities; `classifier.alphas` is the grid.

    Example:
        A `pair` that `adawise.load_pair` returned, without a card:

        >>> len(pair.classes), pair.card
        (3, None)
        >>> pair.classifier.alphas[:3], pair.classifier.alphas[-1]
        ((0.0, 0.05, 0.1), 1.0)
    """

    checkpoints: CheckpointPair
    classifier: PairClassifier
    classes: tuple[str, ...]
    card: Card | None

    @override
    def __repr__(self) -> str:
        """Return one line without the weights, which are millions of numbers."""
        card = "a card" if self.card else "no card"
        where = self.classifier.identity
        return (
            f"<ModelPair of {len(self.classes)} classes, {len(self.classifier.alphas)} alphas, {card}: "
            f"theta_0 {where['theta_0']}, theta_1 {where['theta_1']}>"
        )

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperature of each alpha for what is served: the card's, or 1."""
        return self.card.temperature if self.card else (1.0,) * len(self.classifier.alphas)


def load_model(
    settings: ModelSettings, decode: DecodeSettings, *, classes: tuple[str, ...] | None = None, with_card: bool = True
) -> ModelPair:
    """Load the pair of the settings, with the prompts and, unless given, the class names of their files.

    See `open_pair`.
    """
    use_cores(settings.threads)
    if classes is None:
        assert settings.classes is not None  # the command line has checked it
        classes = read_lines(settings.classes, "model.classes", "class name")
    return open_pair(settings, decode, classes, prompt_templates(settings), with_card=with_card)


def use_cores(threads: int | None) -> None:
    """Limit the threads of torch's forwards; with None, to torch's choice or the usable cores, whichever is less.

    Torch counts the cores of the machine, and ignores a container's quota.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))


def open_pair(
    settings: ModelSettings,
    decode: DecodeSettings,
    classes: tuple[str, ...],
    templates: tuple[str, ...],
    *,
    with_card: bool = True,
    offline: bool = False,
) -> ModelPair:
    """Load the pair and its card, and choose device, number format, forward shape and how pictures are read.

    With `offline`, nothing is fetched from a model hub, because the pair may not be named by this machine's settings.
    Raises CheckpointError, CardError, DeviceError and SettingsError, as the functions called here.
    """
    assert settings.theta_0 is not None  # the command line has checked these
    assert settings.theta_1 is not None
    device = open_device(settings)
    dtype = number_format(settings, device)
    checkpoints = load_checkpoints(
        settings.architecture, settings.theta_0, settings.theta_1, wanted=settings.preprocessing, offline=offline
    )
    checkpoints = replace(checkpoints, preprocess=replace(checkpoints.preprocess, rendition=rendition(decode)))
    chunk_rows = chunk_rows_of(settings, device.where, checkpoints, dtype)
    classifier = PairClassifier(
        checkpoints,
        classes=classes,
        templates=templates,
        chunk_rows=chunk_rows,
        dtype=dtype,
        device=device,
        bank_bytes=settings.bank_mib * 2**20,
        head=settings.head,
    )
    card = read_card(settings.card) if with_card and settings.card is not None else None
    if card is not None:
        try:
            check_card(card, checkpoints, classifier)
        except CardError as error:
            raise CardError(f"model.card {settings.card}: {error}") from error
        _use_heads(classifier, card, settings.card)
    _use_cache(classifier, settings)
    return ModelPair(checkpoints, classifier, classes, card)


CARD_LEFT_OUT = (
    "model.card is not set, but a card is beside theta_1. Without it, theta_1 is trusted where it is over-confident, "
    "which may serve less than theta_0: set model.card"
)


@dataclass(frozen=True, slots=True)
class CardNote:
    """A note on a card that holds; `event` is its name in the log."""

    event: str
    made_with: str
    text: str


def _use_cache(classifier: PairClassifier, settings: ModelSettings) -> None:
    """Use the heads that an earlier start has cached, if a cache is enabled."""
    folder = heads_folder(settings)
    if settings.cache_mib and folder is not None:
        classifier.use_cache(folder, settings.cache_mib * 2**20)


def heads_folder(settings: ModelSettings) -> Path | None:
    """Return the folder of cached heads: model.cache, or the user's cache folder; None for a user without a home."""
    if settings.cache is not None:
        return settings.cache
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "adawise" / "heads"
    except RuntimeError:
        return None


def check_card(card: Card, pair: CheckpointPair, classifier: PairClassifier, *, logs: bool = True) -> None:
    """Refuse a card of another pair; log a warning for one of an earlier preprocessing or another rendition.

    Raises:
        CardError: the card is of another pair.
    """
    ours, note = pair.preprocess, card_note(card, pair)
    otherwise = note is not None and note.text is _READ_OTHERWISE
    card.check(
        classifier.identity,
        classifier.alphas,
        continues=(note.made_with,) if note is not None and otherwise else ours.continues,
    )
    if note is not None and logs:
        _log.warning(note.event, made_with=note.made_with, now=ours.id, note=note.text)


def card_note(card: Card, pair: CheckpointPair) -> CardNote | None:
    """Return a note on a card of an earlier preprocessing, or of pictures that were read otherwise; else None."""
    ours, made_with = pair.preprocess, card.identity.get("preprocess", "")
    if ours.reads_otherwise(made_with):
        return CardNote("card_made_otherwise", made_with, _READ_OTHERWISE)
    return None if made_with == ours.id else CardNote("card_made_of_earlier_pixels", made_with, _EARLIER_PIXELS)


def prior_note(settings: Settings, model: ModelPair) -> str | None:
    """Return a note on a class prior that no card supports, or None."""
    return advice.PRIOR_WITHOUT_CARD if settings.scene.has_prior and model.card is None else None


def shortlist_note(settings: Settings, model: ModelPair) -> str | None:
    """Return a note on a fixed alpha that the card advises by all classes, where cameras have shortlists; or None."""
    if not settings.scene.shortlists or settings.search.strategy != advice.AUTO or model.card is None:
        return None
    if advice.advised_alpha(model.card.verdict) is None:
        return None
    return advice.ADVICE_OF_ALL.format(classes=len(model.classes))


def warn_of_scene(settings: Settings, model: ModelPair) -> None:
    """Log what the card does not support of the scene; for each pair that is to serve or is staged."""
    if (note := prior_note(settings, model)) is not None:
        _log.warning("prior_uncalibrated", note=note)
    if (note := shortlist_note(settings, model)) is not None:
        _log.warning("advice_made_for_all_classes", note=note)


def card_left_out(settings: Settings, model: ModelPair) -> Path | None:
    """Return the card of this pair and these classes that lies beside theta_1, if alpha is searched without a card."""
    theta_1 = settings.model.theta_1 or ""
    if model.card is not None or settings.search.strategy == "fixed" or not theta_1.startswith(LOCAL_FOLDER):
        return None
    folder = Path(theta_1.removeprefix(LOCAL_FOLDER))
    for place in (folder.parent, folder.resolve().parent):  # beside the link, and beside its target
        with suppress(OSError, AdawiseError):  # it may not be read, is damaged, or belongs to another pair
            check_card(read_card(place / "card.json"), model.checkpoints, model.classifier, logs=False)
            return place / "card.json"
    return None


def _use_heads(classifier: PairClassifier, card: Card, path: Path | None) -> None:
    """Use the text heads beside the card, if there are any."""
    if card.heads is not None and path is not None:
        shape = len(classifier.encoded_alphas), classifier.class_count
        embeddings = read_heads(heads_path(path), card.heads, shape)
        if embeddings is not None:
            classifier.use_embeddings(embeddings, card.heads)


def adaptation(settings: Settings, model: ModelPair) -> Adaptation:
    """Return the method of the settings over the pair.

    Raises:
        SettingsError: no room for states, a scene that labels do not prove is to be served, or as `method`.
    """
    made = method(settings.search, model, top_k=settings.predict.top_k)
    if settings.scene.is_served:
        expect_proof(settings, model.card)
    if settings.scene.has_prior:
        made = replace(made, prior_of=digest_of(model.classes), smooths=settings.scene.smooths)
    _expect_room(settings, made.strategy.key, len(model.classifier.alphas))
    return among(made, shortlists(settings.scene, model.classes), settings.search, model)


def expect_proof(settings: Settings, card: Card | None) -> None:
    """Raise SettingsError unless the card has labels that prove the scene of the settings.

    A worker that serves `scene_label` without a proof might serve worse than without a scene, which no metric shows.
    """
    scene, place = settings.scene, settings.model.card
    proof = None if card is None else card.scene
    if card is None:
        lacking = "there is no card (model.card)"
    elif proof is None:
        lacking = f"{place} has no comparison of scene_label with label on late labels"
    elif proof.settings != scene_digest(scene):
        lacking = f"that of {place} was made under another scene.smoothing, scene.shortlists or version"
    elif not proof.proves:
        lacking = f"that of {place} does not: {advice.scene_in_words(proof)}"
    else:
        return
    named = "scene.prior and scene.smoothing" if scene.smooths else "scene.prior"
    raise SettingsError(
        f"{named} = served needs labels that prove scene_label better than label, but {lacking}. Set {named} to "
        "beside, label images that workers serve so, and compare: adawise card correct ROOT -o NEW.card.json "
        "(docs/guide/scene.md)"
    )


def among(made: Adaptation, listed: Shortlists, search: SearchSettings, model: ModelPair) -> Adaptation:
    """Return the method with these shortlists.

    Raises:
        SettingsError: the objective compares with what the card knows of all classes together.
    """
    chosen = meant(search, model)
    if not any(shortlist for _, shortlist in listed.rules) or chosen.strategy == "fixed":
        return replace(made, shortlists=listed)
    if why := advice.of_all_classes(chosen.objective, model.card, "scene.shortlists"):
        raise SettingsError(why)
    return replace(made, shortlists=listed)


def method(search: SearchSettings, model: ModelPair, *, top_k: int) -> Adaptation:
    """Return the method, with `top_k` classes an image. Raises SettingsError: the objective needs a card."""
    return Adaptation(
        strategy=_strategy(search, model),
        classifier=model.classifier,
        temperatures=model.temperatures,
        top_k=top_k,
    )


def _expect_room(settings: Settings, key: str, points: int) -> None:
    """Raise SettingsError if the largest states of all streams do not fit into a segment's footer."""
    observations = 0
    if settings.search.strategy == "botorch":
        from adawise.adapt.strategies.botorch import MEMORY_BATCHES

        points, observations = 0, MEMORY_BATCHES * settings.search.budget  # it keeps observations in place of a belief
    conditions = settings.search.conditions if settings.search.strategy in {"auto", "warm"} else 0
    scene = settings.scene
    more = {
        "shortlists": bool(scene.shortlists),
        "prior": scene.has_prior,
        "smoothing": scene.smooths,
    }
    size = largest_bytes(key, points, observations, conditions, **more) + MAX_STREAM_ID_BYTES
    streams = settings.limits.streams
    if streams * size > _STATES_BYTES:
        forgetful = _STATES_BYTES // (largest_bytes(key, points, observations, **more) + MAX_STREAM_ID_BYTES)
        lower = (
            f"; or lower search.conditions, {conditions}: with 0 there is room for {forgetful}" if conditions else ""
        )
        if more["prior"]:
            plain = largest_bytes(key, points, observations, conditions, shortlists=more["shortlists"])
            room = _STATES_BYTES // (plain + MAX_STREAM_ID_BYTES)
            named = "scene.prior and scene.smoothing" if more["smoothing"] else "scene.prior"
            lower += f"; or set {named} to off: then there is room for {room}"
        raise SettingsError(
            f"limits.streams is {streams}, and the state of a stream takes up to {size} bytes in each segment: "
            f"{streams * size / 1e6:.0f} MB, of {_STATES_BYTES / 1e6:.0f} at most. Set limits.streams to "
            f"{_STATES_BYTES // size} or less, and spread more streams over more partitions{lower}."
        )


def _strategy(search: SearchSettings, model: ModelPair) -> Strategy:
    chosen = meant(search, model)
    name = chosen.objective
    if model.card is None and name not in NO_CARD:
        raise SettingsError(f"search.objective {name} needs a card: make one with `adawise card make`")
    objective = model.card.objective(name) if model.card else NO_CARD[name]
    lineage = model.classifier.lineage
    del lineage["config"]  # new in 0.3: keys of earlier states stay the same (`sink.served_by`)
    belongs_to = f"{sorted(lineage.items())} {model.card.digest if model.card else ''}"
    return strategy(
        chosen.strategy,
        alphas=model.classifier.alphas,
        objective=objective,
        context=f"{name}@{digest(belongs_to)}",
        alpha=chosen.alpha,
        exploration=replace(exploration(chosen), tail_share=model.card.tail_share if model.card else 1.0),
        fitted=model.card.surrogate(name) if model.card else None,
        trusted=model.card is not None and model.card.trusts(name),
    )


def meant(search: SearchSettings, model: ModelPair) -> SearchSettings:
    """Return the same settings, with each `auto` replaced by its meaning for this pair's card."""
    update: dict[str, Any] = {"objective": advice.chosen(search.objective, model.card)}
    if search.strategy == advice.AUTO:
        fixed = advice.advised_alpha(model.card.verdict if model.card else None)
        update |= {"strategy": "warm"} if fixed is None else {"strategy": "fixed", "alpha": fixed}
    return search.model_copy(update=update)


def method_in_words(search: SearchSettings, model: ModelPair) -> str:
    """Return how alpha is chosen with this pair, and whether late labels have corrected its objective.

    See `advice.in_words`.
    """
    chosen = meant(search, model)
    alpha = min(model.classifier.alphas, key=lambda a: abs(a - chosen.alpha))
    text = advice.in_words(chosen.strategy, chosen.objective, alpha, is_advised=search.strategy == advice.AUTO)
    bias = None if model.card is None else model.card.bias
    is_corrected = bias is not None and bias.objective == chosen.objective and chosen.strategy != "fixed"
    return f"{text}, corrected by late labels" if is_corrected else text


_FORMATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def number_format(settings: ModelSettings, device: Device) -> torch.dtype:
    """Return the number format of forwards. Raises SettingsError for one that a processor does not have."""
    if device.where.type == "cpu" and settings.precision in {"tf32", "fp16"}:
        raise SettingsError(
            f"model.precision is {settings.precision}, which needs a GPU, but the model runs on {device}. Set "
            "model.precision to auto, bf16 or fp32, or model.device to cuda."
        )
    return device.auto_format if settings.precision == "auto" else _FORMATS[settings.precision]


def open_device(settings: ModelSettings) -> Device:
    """Return the chosen device, ready to run. Raises SettingsError, and DeviceError if it does not answer."""
    where = choose_device(settings.device)
    if where.type == "cuda":
        return Cuda(where, tf32=settings.precision == "tf32", graphs=settings.cuda_graphs)
    return Plain(where)


def chunk_rows_of(settings: ModelSettings, where: torch.device, pair: CheckpointPair, dtype: torch.dtype) -> int:
    """Return the images of a forward: the setting's number, or one that suits the device and the image tower."""
    if settings.chunk_rows != "auto":
        return settings.chunk_rows
    if where.type == "cuda":
        return chunk_rows_for(torch.cuda.get_device_properties(where), pair.tower, dtype)
    return _CHUNK_ROWS


def choose_device(name: str) -> torch.device:
    """Return the device by its setting; `auto` is CUDA if it is available.

    Raises:
        SettingsError: the CUDA device does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.cuda.device_count():  # the driver's own count, which needs no CUDA
            _log.warning("card_not_used", remedy="there is a GPU, but CUDA does not start on it: see nvidia-smi")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise SettingsError(
            f"model.device is {name}, but torch sees {torch.cuda.device_count()} CUDA devices. Set model.device to "
            "cpu or auto, or fix the driver."
        )
    return device


def identity_of(model: ModelPair) -> dict[str, str]:
    """Return the identity of the pair and its card, by their contents; a library's version does not change it."""
    return {**model.classifier.lineage, "card": model.card.digest if model.card else ""}


def config_fingerprint(settings: Settings, model: ModelPair) -> str:
    """Return a hash of what results depend on beside the model: search, batches, decoding, the card."""
    parts = _meant(settings, model).model_dump_json(include=_decisive(settings))
    return digest(f"{parts} {model.card.digest if model.card else ''}")


def _decisive(settings: Settings) -> Any:
    """Return the settings that results depend on, for pydantic. Fingerprints of the default scene are those of 0.2."""
    always = {"search": True, "batch": True, "decode": True, "predict": True, "limits": {"streams"}}
    usual = SceneSettings()
    scene = {name for name in SceneSettings.model_fields if getattr(settings.scene, name) != getattr(usual, name)}
    return always | {"scene": scene} if scene else always


def _meant(settings: Settings, model: ModelPair) -> Settings:
    """Return the same settings, whether `auto` or its meaning was set."""
    return settings.model_copy(update={"search": meant(settings.search, model)})


def hardware(model: ModelPair) -> dict[str, str]:
    """Return the facts of the processor and the device that decide how numbers are rounded, by name."""
    of_device = {"device": model.classifier.device.numerics}
    if model.classifier.device.where.type != "cpu":
        return of_device
    name, _ = processor()
    kernels, threads = torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())
    return of_device | {"processor": f"{platform.machine()} {name}", "kernels": kernels, "threads": threads}


def served_by(settings: Settings, model: ModelPair, pair: str = "") -> ServedBy:
    """Return what rows record of the pair and the settings that serve them; `pair` is its id."""
    groups = _meant(settings, model).model_dump(mode="json", include=_decisive(settings))
    named = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    if listed := named.get("scene.shortlists"):  # there may be thousands, with all names
        named["scene.shortlists"] = f"{len(listed)}, digest {digest(json.dumps(listed))}"
    of_pair = {
        **model.classifier.identity,
        "card": model.card.digest if model.card else "",
        **model.classifier.numerics,
    }
    places = {name: getattr(settings.model, name) for name in ("theta_0", "theta_1", "classes", "templates", "card")}
    return ServedBy(
        model.classes,
        model.classifier.fingerprint,
        config_fingerprint(settings, model),
        pair,
        {**named, **{f"model.{name}": value for name, value in of_pair.items()}},
        {f"model.{name}": str(place) for name, place in places.items() if place is not None},
        method_in_words(settings.search, model),
        model.checkpoints.config,
        model.checkpoints.tail_share,
    )
