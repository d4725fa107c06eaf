"""The preprocessing that a checkpoint expects, and its GELU, collected from all sources for both checkpoints of a pair.

A file of weights states neither. open_clip then uses OpenAI's preprocessing and plain GELU: SigLIP, PE-Core and CLIPA
would get other pixels than in training, and OpenAI's own weights would lose QuickGELU. Each of `KEYS` is taken from the
first of these sources that has it: the settings; a config, a tag or an OpenAI archive of either checkpoint, which must
not contradict each other; what all of open_clip's tags of the architecture agree on; open_clip's default, a guess that
is logged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from typing_extensions import override

from adawise.decode.preprocess import Interpolation, ResizeMode
from adawise.errors import CheckpointError
from adawise.store.files import read_bytes

CONFIG_NAME = "open_clip_config.json"
KEYS = ("mean", "std", "resize_mode", "interpolation", "quick_gelu")
GUESSED = "guessed"
QUICK = "true for models from OpenAI's weights and most of MetaCLIP's and DFN's, false for LAION-2B's and DataComp's"

_CHOICES = {"resize_mode": get_args(ResizeMode), "interpolation": get_args(Interpolation), "quick_gelu": (True, False)}
_CONFIG_BYTES = 1 << 20
_SHAPE = {
    "vision_cfg": ("image_size", "layers", "width", "patch_size", "timm_model_name"),
    "text_cfg": ("context_length", "vocab_size", "layers", "width", "hf_model_name"),
}


@dataclass(frozen=True)
class StatedValues:
    """The values that one source states, by key."""

    values: Mapping[str, Any]
    source: str


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing in use and the source of each value; `mean` and `std` are triples for pixels in [0, 1]."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    @property
    def guessed(self) -> dict[str, Any]:
        """The values that no source states."""
        return {key: value for key, value in self.values.items() if self.sources[key] == GUESSED}

    @property
    def advice(self) -> str:
        """The remedy for guessed values, for a warning."""
        names = " and ".join(f"model.{key}" for key in self.guessed)
        which = f" ({QUICK})" if "quick_gelu" in self.guessed else ""
        return f"if the weights were trained otherwise, accuracy drops silently: set {names}{which}"

    @override
    def __str__(self) -> str:
        keys: dict[str, list[str]] = {}
        for key, source in self.sources.items():
            keys.setdefault(source, []).append(f"{key} {in_words(self.values[key])}")
        return "; ".join(f"{', '.join(values)} ({source})" for source, values in keys.items())


def of_config(config: Mapping[str, Any], source: str) -> StatedValues:
    """Return what an `open_clip_config.json` states. A `model_cfg` without `quick_gelu` states that it is off."""
    model, preprocess = config.get("model_cfg"), config.get("preprocess_cfg") or {}
    quick = {"quick_gelu": model.get("quick_gelu") or False} if isinstance(model, Mapping) else {}
    return StatedValues({**_among_keys(preprocess), **quick}, source)


def of_tag(tag: Mapping[str, Any], model_config: Mapping[str, Any], source: str) -> StatedValues:
    """Return what open_clip knows of a pretrained tag."""
    quick = bool(tag.get("quick_gelu") or model_config.get("quick_gelu"))
    return StatedValues({**_among_keys(tag), "quick_gelu": quick}, source)


def of_architecture(tags: Sequence[StatedValues], model_config: Mapping[str, Any], name: str) -> StatedValues:
    """Return what all tags of an architecture agree on."""
    first = tags[0].values if tags else {}
    values = {key: value for key, value in first.items() if all(tag.values.get(key) == value for tag in tags)}
    if model_config.get("quick_gelu"):
        values["quick_gelu"] = True
    return StatedValues(values, f"all of open_clip's weights for {name}")


def beside(checkpoint: str, model_config: Mapping[str, Any]) -> StatedValues | None:
    """Return what the config beside a file states; None if there is none, or one of another architecture.

    Raises:
        CheckpointError: the file beside it is no config.
    """
    path = Path(checkpoint).parent / CONFIG_NAME
    if not path.is_file():
        return None
    config = read_config(path)
    model = config.get("model_cfg") or {}
    for part, names in _SHAPE.items():
        theirs, ours = model.get(part) or {}, model_config.get(part) or {}
        if any(theirs[name] != ours[name] for name in names if name in theirs and name in ours):
            return None
    return of_config(config, str(path))


def read_config(path: Path) -> dict[str, Any]:
    """Read a config of open_clip.

    Raises:
        CheckpointError: the file is no config.
    """
    try:
        config = json.loads(read_bytes(path, _CONFIG_BYTES))
        problem = None if _is_config(config) else "its model_cfg or preprocess_cfg is not a table"
    except (OSError, ValueError, RecursionError) as error:
        problem = getattr(error, "strerror", None) or str(error) or "it is nested too deeply"
    if problem is not None:
        raise CheckpointError(
            f"{path}: expected a config of open_clip, with model_cfg and preprocess_cfg; {problem}. Correct it; "
            "or, if it is beside a checkpoint file, remove it and set model.mean, std, resize_mode and "
            "interpolation."
        )
    return dict(config)


def _is_config(config: Any) -> bool:
    parts = ["model_cfg", "preprocess_cfg"]
    if not isinstance(config, dict) or not all(isinstance(config.get(part) or {}, dict) for part in parts):
        return False
    model = config.get("model_cfg") or {}
    return all(isinstance(model.get(part) or {}, dict) for part in _SHAPE)


def settle(
    wanted: Mapping[str, Any],
    by_role: Mapping[str, StatedValues | None],
    otherwise: StatedValues,
    defaults: Mapping[str, Any],
) -> Preprocessing:
    """Return the preprocessing to use; for each key the first source that has it counts.

    Args:
        wanted: values of the settings.
        by_role: what is known of each checkpoint, by its role.
        otherwise: what all weights of the architecture agree on.
        defaults: open_clip's defaults.

    Raises:
        CheckpointError: two checkpoints contradict each other, or a value is impossible.
    """
    values, sources = {}, {}
    for key in KEYS:
        if key in wanted:
            values[key], sources[key] = wanted[key], f"model.{key}"
            continue
        stated = {
            role: (_checked(key, known.values[key], known.source), known.source)
            for role, known in by_role.items()
            if known is not None and key in known.values
        }
        if len({value for value, _ in stated.values()}) > 1:
            (role, (value, source)), (other, (another, elsewhere)) = stated.items()
            raise CheckpointError(
                f"{role} and {other} need different preprocessing: '{key}' is {in_words(value)} and "
                f"{in_words(another)}, by {source} and {elsewhere}. Set model.{key} to the value with which "
                f"{other} was fine-tuned."
            )
        if stated:
            values[key], sources[key] = next(iter(stated.values()))
        elif key in otherwise.values:
            values[key], sources[key] = _checked(key, otherwise.values[key], otherwise.source), otherwise.source
        else:
            values[key], sources[key] = _checked(key, defaults[key], "open_clip"), GUESSED
    return Preprocessing(values, sources)


def _among_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in KEYS if config.get(key) is not None}


def _checked(key: str, value: Any, source: str) -> Any:
    """Return a value in the form that open_clip uses (one number becomes three); raise CheckpointError if wrong."""
    if key in _CHOICES:
        if isinstance(value, str | bool) and value in _CHOICES[key]:
            return value
        expected = " or ".join(map(in_words, _CHOICES[key]))
    else:
        numbers = [value] * 3 if isinstance(value, int | float) else value
        if isinstance(numbers, list | tuple) and len(numbers) == 3 and all(_is_number(n, key) for n in numbers):
            return tuple(map(float, numbers))
        expected = "three numbers of pixels in [0, 1]" + (" above 0" if key == "std" else "")
    raise CheckpointError(
        f"{source}: '{key}' is {str(value)[:80]!r}, expected {expected}. Correct it, or set model.{key}."
    )


def _is_number(value: Any, key: str) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and (value > 0 if key == "std" else value >= 0)


def is_same(ours: Any, theirs: Any) -> bool:
    """Return True if a config's value `theirs` means the same as one of `Preprocessing`."""
    if isinstance(ours, tuple):
        return ours == (tuple(theirs) if isinstance(theirs, list | tuple) else (theirs,) * 3)
    return bool(ours == bool(theirs))


def in_words(value: Any) -> str:
    """Return a value in the form that settings take."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(f"{number:.4g}" for number in value) if isinstance(value, tuple) else str(value)
