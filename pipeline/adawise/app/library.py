"""The library's functions over a pair: load it by plain keywords, and choose alpha for batches of images.

They run the worker's own code, without Kafka, settings files or the environment. For the same batches of a stream, in
the same order, they return the same alphas and probabilities as the worker, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from adawise.adapt.search import Strategy
from adawise.adapt.shortlist import Shortlist, Shortlists
from adawise.adapt.state import StreamState
from adawise.adapt.state_key import is_of_another_pair
from adawise.app.model import ModelPair, among, method, open_pair
from adawise.app.prompts import TEMPLATES
from adawise.decode.codec import open_image, undecodable
from adawise.decode.preprocess import Interpolation, Preprocess, ResizeMode
from adawise.decode.rendition import Orientation
from adawise.decode.statistics import statistics
from adawise.errors import InvalidMessage, SettingsError
from adawise.records import FloatArray, Frame, ImageBatch, RowId, TrialRecord
from adawise.settings import DecodeSettings, ModelSettings, SearchSettings
from adawise.settings.reading import check_arguments
from adawise.settings.tree import CHECKPOINT_EXPECTED
from adawise.text import unknown_classes

Pixels: TypeAlias = npt.NDArray[np.uint8] | Tensor
Picture: TypeAlias = Image.Image | Pixels | str | os.PathLike[str] | bytes
Images: TypeAlias = Pixels | Sequence[Picture]

_MAX_PIXELS = DecodeSettings().max_pixels


def load_pair(
    *,
    theta_0: str,
    theta_1: str,
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    card: str | Path | None = None,
    architecture: str = "ViT-B-32",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize_mode: ResizeMode | None = None,
    interpolation: Interpolation | None = None,
    quick_gelu: bool | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    head: Literal["text", "interpolate"] = "text",
    chunk_rows: int | Literal["auto"] = "auto",
    bank_mib: int = 4096,
    orientation: Orientation = "ignore",
    grey16_range: str = "own",
    reduced: bool = False,
) -> ModelPair:
    """Load two checkpoints, check that they make a pair, and try them on the device.

    Args:
        theta_0: the zero-shot checkpoint (alpha 0): a file, `local-dir:FOLDER` or the name of a pretrained tag.
        theta_1: the fine-tuned checkpoint (alpha 1), in the same forms.
        classes: C class names, each once.
        templates: prompts, each once, with `{}` for the class name.
        card: a file that `adawise card make` made for this pair; None: no card.
        architecture: a name that open_clip knows; ignored if both checkpoints are `local-dir:` folders.
        mean: mean of the pixels that both were trained on, in [0, 1], one per channel (RGB). None, here and for the
            four arguments below: what a config beside a checkpoint or open_clip's own weights of the architecture
            state; otherwise OpenAI's values, with a log line `preprocessing_guessed`.
        std: standard deviation of these pixels, one per channel.
        resize_mode: `shortest`, `squash` or `longest`.
        interpolation: `bicubic` or `bilinear`.
        quick_gelu: whether both use QuickGELU, as OpenAI's weights do.
        device: `auto` (CUDA if available), `cpu`, `cuda` or `cuda:NUMBER`.
        precision: number format of the forwards.
        head: how the classifier at an alpha is made: `text` encodes the prompts there, `interpolate` interpolates the
            two heads.
        chunk_rows: images of every forward, 1 to 4096; `auto`: by the device.
        bank_mib: MiB of memory for merged copies of the weights.
        orientation: whether pictures given as paths or bytes are turned by their EXIF orientation: `ignore` or `apply`.
        grey16_range: levels of 16-bit grey that become black and white: `own` (of each picture) or `LOW-HIGH`.
        reduced: whether a large JPEG is decoded at a half, a quarter or an eighth of its size.

    Returns:
        The loaded pair, ready for `adapt_batch`.

    Example:
        >>> pair = adawise.load_pair(
        ...     theta_0="local-dir:pair/theta_0",
        ...     theta_1="local-dir:pair/theta_1",
        ...     classes=["car", "truck", "bus"],
        ...     device="cpu",
        ... )
        >>> pair.classes
        ('car', 'truck', 'bus')

    Raises:
        SettingsError: an argument is wrong, or the CUDA device is missing or does not suit the other arguments.
        CheckpointError: a checkpoint cannot be loaded, or the two do not make a pair.
        CardError: the file is not a card, or is not a card of this pair.
        DeviceError: the device fails, or has too little memory.
    """
    named: dict[str, Any] = {
        "theta_0": theta_0,
        "theta_1": theta_1,
        "card": card,
        "architecture": architecture,
        "mean": mean,
        "std": std,
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "quick_gelu": quick_gelu,
        "device": device,
        "precision": precision,
        "head": head,
        "chunk_rows": chunk_rows,
        "bank_mib": bank_mib,
    }
    read: dict[str, Any] = {"orientation": orientation, "grey16_range": grey16_range, "reduced": reduced}
    check_arguments("model", named, "load_pair")
    check_arguments("decode", read, "load_pair")
    if not (theta_0 and theta_1):
        raise SettingsError(f"theta_0 is {theta_0} and theta_1 is {theta_1}: expected {CHECKPOINT_EXPECTED} for each")
    prompts = _texts("templates", templates)
    if without := [prompt for prompt in prompts if "{}" not in prompt]:
        raise SettingsError(f"templates: expected {{}} for the class name in {without[0]!r}; add it")
    pair = open_pair(ModelSettings(**named), DecodeSettings(**read), _texts("classes", classes), prompts)
    pair.classifier.warm_up()
    return pair


def _texts(name: str, given: Sequence[str]) -> tuple[str, ...]:
    texts = () if isinstance(given, str) else tuple(text.strip() for text in given if isinstance(text, str))
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if not texts or len(texts) < len(given) or twice or not all(texts) or any("\n" in text for text in texts):
        found = f"{twice[0]!r} twice" if twice else repr(given)[:80]
        raise SettingsError(f"{name}: expected a sequence of texts of one line, each once; found {found}. Correct it.")
    return texts


@dataclass(frozen=True, eq=False)
class Step:
    """The results of a batch of n images, and the state that its stream goes on from.

    Attributes:
        alpha: weight of the fine-tuned checkpoint, in [0, 1], the same for all n images.
        labels: the most probable class name of each of the n images.
        probabilities: float32 `[n, C]`, in the order of `pair.classes`; calibrated if the pair has a card.
        trials: the alphas that were evaluated, each with its number of images and its objective (nats).
        trigger: why other alphas than the last one were tried, or `none`.
        forward_equivalents: images passed through the image tower, divided by n; 1 for plain CLIP.
        state: the state that the stream's next batch begins with. `state.to_bytes` and `StreamState.from_bytes` store
            and restore it.

    Example:
        >>> search = adawise.SearchSettings(strategy="fixed", alpha=0.25)
        >>> step = adawise.adapt_batch(pair, images[:8], search=search)
        >>> step.alpha, step.forward_equivalents
        (0.25, 1.0)
        >>> step.labels[0] == pair.classes[step.probabilities[0].argmax()]
        True
    """

    alpha: float
    labels: tuple[str, ...]
    probabilities: FloatArray = field(repr=False)
    trials: tuple[TrialRecord, ...] = field(repr=False)
    trigger: str
    forward_equivalents: float
    state: StreamState = field(repr=False)


def adapt_batch(
    pair: ModelPair,
    images: Images,
    state: StreamState | None = None,
    *,
    search: SearchSettings | None = None,
    classes: Sequence[str] | None = None,
) -> Step:
    """Choose the alpha of a batch of one stream without labels, and classify the images with it.

    This is a pure function of its arguments. A pair can serve one call at a time. A stream is a sequence of images that
    share a condition, such as those of a camera; its batches have to come in order.

    Args:
        pair: a pair from `load_pair`.
        images: n >= 1 of them, as uint8 `[n, H, W, 3]` (RGB), or as a sequence of Pillow images, uint8 `[H, W, 3]`,
            paths, or bytes of JPEG, PNG, WebP or BMP. They are resized and cropped as the pair requires.
        state: the state of the step before; None: the stream begins.
        search: how alpha is chosen, the same for all batches of a stream; None: the defaults.
        classes: the classes that the stream can show, two or more; None: all of the pair. The others have probability
            0. A stream that goes on with other classes keeps its alpha, and starts anew in all else.

    Returns:
        The predictions, and the state for the stream's next batch.

    Example:
        >>> from pathlib import Path
        >>> images = sorted(Path("frames").glob("*.jpg"))
        >>> step = adawise.adapt_batch(pair, images[:16])
        >>> step = adawise.adapt_batch(pair, images[16:], step.state)
        >>> step.probabilities.shape, len(step.labels), step.state.batches
        ((8, 3), 8, 2)
        >>> step.alpha in pair.classifier.alphas
        True

    Raises:
        TypeError, ValueError: images of another type, dtype or shape, or none; a state of another pair or search; a
            name that is no class of the pair, or only one.
        InvalidMessage: a picture cannot be decoded, or has more than 34 million pixels.
        SettingsError: the objective of `search` needs a card, and the pair has none, or compares with all classes.
        DeviceError: the device fails, or has too little memory.
    """
    search = search or SearchSettings()
    listed = Shortlists() if classes is None else _listed(classes, pair.classes)
    adaptation = among(method(search, pair, top_k=len(pair.classes)), listed, search, pair)
    before = _begun(state, adaptation.strategy)
    pixels = _pixels(images, pair.checkpoints.preprocess)
    frames = tuple(
        Frame(RowId("", 0, n, 0), -1, "", statistics=statistics(image.numpy())) for n, image in enumerate(pixels)
    )
    (adapted,) = adaptation.run([ImageBatch("", frames, pixels)], [before])
    if adapted.error is not None:
        raise adapted.error
    top = adapted.predictions.top_index
    probabilities = np.zeros((len(top), len(pair.classes)), dtype=np.float32)
    np.put_along_axis(probabilities, top.astype(np.int64), adapted.predictions.top_probability, axis=1)
    return Step(
        alpha=adapted.trace.alpha,
        labels=tuple(pair.classes[best] for best in top[:, 0]),
        probabilities=probabilities,
        trials=adapted.trace.trials,
        trigger=adapted.trace.trigger,
        forward_equivalents=adapted.trace.forward_equivalents,
        state=adapted.state,
    )


def _listed(classes: Sequence[str], known: Sequence[str]) -> Shortlists:
    """Return the shortlist of these classes for any stream."""
    if isinstance(classes, str) or len({*classes}) < 2:
        raise ValueError(f"classes: expected two or more names, got {classes!r}")
    if unknown := unknown_classes(classes, known):
        raise ValueError(f"classes: {'; '.join(unknown)}")
    kept = [known.index(name) for name in classes]
    return Shortlists((("*", None if len({*kept}) == len(known) else Shortlist.of(kept, known)),))


def _begun(state: StreamState | None, strategy: Strategy) -> StreamState:
    if state is None:
        return strategy.initial()
    if type(state) is not StreamState:
        raise TypeError(f"state: expected the `state` of a step or None, got {type(state).__name__}")
    if state.key != strategy.key:
        other = "pair, class list or card" if is_of_another_pair(state.key, strategy.key) else "search or objective"
        raise ValueError(f"state: it was made with another {other}; use that one, or state=None for a new stream")
    return state


def _pixels(images: Images, preprocess: Preprocess) -> Tensor:
    """Return the images, resized and cropped, as uint8 `[n, 3, S, S]`."""
    if isinstance(images, np.ndarray | Tensor):
        _expect_rgb(images, "images", "[n, H, W, 3]")
    elif isinstance(images, str | bytes | os.PathLike | Image.Image):
        raise TypeError(f"images: expected a sequence of images, got one {type(images).__name__}; give [image]")
    prepared = [_prepared(image, f"images[{n}]", preprocess) for n, image in enumerate(images)]
    if not prepared:
        raise ValueError("images: expected one or more, got none")
    return torch.stack(prepared)


def _expect_rgb(pixels: Pixels, where: str, shape: str) -> None:
    kind = str(pixels.dtype).removeprefix("torch.")
    if kind != "uint8":
        raise TypeError(f"{where}: expected uint8 of 0 to 255, got {kind}; scale and convert it")
    got = tuple(pixels.shape)
    if len(got) != shape.count(",") + 1 or got[-1] != 3 or 0 in got[-3:]:
        remedy = "; move the channels to the end" if got[-3:-2] == (3,) else ""
        raise ValueError(f"{where}: expected {shape}, got {list(got)}{remedy}")


def _prepared(image: Picture, where: str, preprocess: Preprocess) -> Tensor:
    """Return one image, resized and cropped, as uint8 `[3, S, S]`."""
    if isinstance(image, np.ndarray | Tensor):
        _expect_rgb(image, where, "[H, W, 3]")
        return preprocess(Image.fromarray(np.ascontiguousarray(image)))
    try:
        if isinstance(image, Image.Image):
            return preprocess(image.copy())  # it removes the image's note of transparency
        if isinstance(image, str | os.PathLike):
            where, image = f"{where}, {os.fspath(image)}", Path(image).read_bytes()
        if not isinstance(image, bytes):
            raise TypeError(f"{where}: expected an image, a path or bytes, got {type(image).__name__}")
        opened = open_image(image, max_pixels=_MAX_PIXELS)
    except InvalidMessage as error:
        raise InvalidMessage(error.reason, f"{where}: {error.detail}") from error
    try:
        return preprocess(opened)
    except Exception as error:  # see `undecodable`
        raise undecodable(f"{where}: {opened.format}", error) from error
