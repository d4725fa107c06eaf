"""open_clip's config of a model, checked by an allow-list: it may choose shapes and settings of known parts only.

A pair's folder is untrusted input. open_clip passes much of a config on to timm and transformers, which would fetch
from a model hub, or run Python that lies in the folder. So names must be those of open_clip's own dataclasses, and
values must be numbers within bounds and plain words. open_clip is given exactly what was checked here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from adawise.errors import CheckpointError
from adawise.store.files import read_bytes

_Check = Callable[[Any], bool]

_MOST = 10**7  # bound of any integer: the largest known one is a vocabulary of a million
_MOST_LAYERS = 512
_SPARE = 5 * 10**7  # weights a model may have beyond twice its file's bytes; a file has 1 to 4 bytes a weight
_BOUNDS = {  # of values to which open_clip would stretch a checkpoint, or which need no weights in the file
    "image_size": (1, 2_048),
    "patch_size": (1, 256),
    "context_length": (1, 4_096),
    "mlp_ratio": (0, 64),
    "heads": (1, 1_024),
    "head_width": (1, 8_192),
}
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,128}")
_HUB_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})?")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST


def _is_plain(value: Any) -> bool:
    """Return True for None, a bool, a number within bounds, a plain word, or up to four integers."""
    if isinstance(value, (list, tuple)):
        return 0 < len(value) <= 4 and all(map(_is_whole, value))
    is_number = isinstance(value, float) and math.isfinite(value) and abs(value) <= _MOST
    return value is None or isinstance(value, bool) or is_number or _is_whole(value) or _is_word(value)


def _are_layers(value: Any) -> bool:
    """Return True for a number of layers, or one for each stage, within bounds."""
    counts = value if isinstance(value, (list, tuple)) else [value]
    return _is_plain(value) and all(_is_whole(count) and 0 <= count <= _MOST_LAYERS for count in counts)


def _is_timm_name(value: Any) -> bool:
    return value is None or (_is_word(value) and value != "")


def _is_hub_name(value: Any) -> bool:
    return value in (None, "") or (isinstance(value, str) and _HUB_NAME.fullmatch(value) is not None)


def _of(**known: _Check) -> _Check:
    """Return a check that holds for None and for a table with these names only, each of which its own check accepts."""
    return lambda value: (
        value is None
        or (isinstance(value, Mapping) and all(name in known and known[name](each) for name, each in value.items()))
    )


def _is_norm(value: Any) -> bool:
    return _of(eps=_is_plain, elementwise_affine=_is_plain, bias=_is_plain)(value)


def _is_activation(value: Any) -> bool:
    return _of(approximate=_is_word)(value)


_MODEL = {
    *("embed_dim", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"),
    "output_dict",
}
_SPECIAL: Mapping[str, tuple[_Check, str]] = {
    "layers": (_are_layers, f"up to {_MOST_LAYERS}"),
    "timm_model_name": (_is_timm_name, "a name of timm's own, not one of a model hub"),
    "hf_model_name": (_is_hub_name, "a name of a model hub"),
    "hf_tokenizer_name": (_is_hub_name, "a name of a model hub"),
    "tokenizer_kwargs": (
        _of(clean=_is_word, strip_sep_token=_is_plain, language=_is_word),
        "clean, strip_sep_token and language only",
    ),
    "norm_kwargs": (_is_norm, "eps, elementwise_affine and bias only"),
    "act_kwargs": (_is_activation, "approximate only"),
}
_PLAIN = (_is_plain, f"a number up to {_MOST}, true, false, null or a plain word")


_OF_TRAINING = {
    *("patch_dropout", "timm_drop", "timm_drop_path", "timm_model_pretrained", "hf_model_pretrained"),
    *("init_logit_scale", "init_logit_bias", "ls_init_value", "output_dict", "custom_text"),
}
"""Names in a config that change nothing once the weights are loaded, or that names and shapes of weights show."""

_OF_A_TOKENIZER = {f"text_cfg.{name}" for name in ("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")}
_PLAIN_NORM = {"eps": 1e-5}  # what LayerNorm has anyway


def decisive(config: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the part of a config that decides the logits of given weights, by "table.name" or "name".

    Values that equal open_clip's defaults are left out, so a config may state them or not. `quick_gelu` is left out
    too, because one value is settled for both checkpoints (`clip.preprocessing`).

    Args:
        config: open_clip's `model_cfg`.
        defaults: for each table of a config, the default values of open_clip's dataclass.
    """
    found = dict[str, Any]()
    for name, value in config.items():
        if name in defaults:
            found |= {
                f"{name}.{key}": _plain(key, each)
                for key, each in (value or {}).items()
                if key not in _OF_TRAINING and _is_used(key, value) and _plain(key, each) != defaults[name].get(key)
            }
        elif name not in {*_OF_TRAINING, "quick_gelu"} and value not in (None, False):
            found[name] = value
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _is_used(key: str, table: Mapping[str, Any]) -> bool:
    """Return False for a name about a tower of timm or transformers, if the table describes another tower."""
    kinds = {"timm_": "timm_model_name", "hf_": "hf_model_name"}
    known = key == "hf_tokenizer_name" or any(key == name for name in kinds.values())
    return known or all(table.get(name) or not key.startswith(start) for start, name in kinds.items())


def _plain(key: str, value: Any) -> Any:
    """Return the shortest form of a value: the side of a square, None for an empty table."""
    if key.endswith("_kwargs") and value in ({}, _PLAIN_NORM):
        return None
    if key in {"image_size", "patch_size"} and isinstance(value, (list, tuple)) and len(set(value)) == 1:
        return value[0]
    return value


def check_alike(zero: Mapping[str, Any], one: Mapping[str, Any], *, defaults: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise CheckpointError if the configs of two checkpoints differ in something that weights do not show.

    Arguments are those of `decisive`.

    Raises:
        CheckpointError: names the first difference.
    """
    theta_0, theta_1 = (decisive(config, defaults) for config in (zero, one))
    for name in sorted(theta_0.keys() | theta_1.keys()):
        table, _, key = name.rpartition(".")
        default = defaults.get(table, {}).get(key)
        values = [config.get(name, default) for config in (theta_0, theta_1)]
        if values[0] != values[1] and name not in _OF_A_TOKENIZER:  # only theta_0's tokenizer is used
            raise CheckpointError(
                f"theta_0 and theta_1 are of different models: {name} is {values[0]} and {values[1]} by their "
                "configs. Their weights have the same shapes, but with the wrong config they compute something "
                "else. Give both the config that they were trained with, in open_clip_config.json or by "
                "model.architecture."
            )


def used_config(
    config: Mapping[str, Any], used: Mapping[str, Any], *, defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what decides the logits beside weights and pixels, as JSON values: `decisive`, mean, std and GELU.

    `used` has `mean` and `std`, by which pixels are normalised, three numbers each, and `quick_gelu`.
    """
    pixels = {key: [float(each) for each in used[key]] for key in ("mean", "std")}
    return {**decisive(config, defaults), **pixels, "quick_gelu": bool(used["quick_gelu"])}


def config_digest(config: Mapping[str, Any]) -> str:
    """Return 16 hex digits of the sha256 of a `used_config`."""
    return sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def check_config(
    model: Mapping[str, Any], where: str, *, tables: Mapping[str, Collection[str]], folder: Path | None = None
) -> None:
    """Raise CheckpointError for a config that could do more than choose a model's shape.

    Args:
        model: open_clip's `model_cfg`.
        where: what the message calls it.
        tables: the names that open_clip knows in each table of a config: the fields of its dataclasses.
        folder: the folder of a `local-dir:`, which must have every file that the config names; None for configs of
            open_clip's own or of a hub.

    Raises:
        CheckpointError: the config has a name that open_clip does not know or a value out of bounds, or a file of the
            folder asks to run code.
    """
    for name, value in model.items():
        if name in tables:
            _check_table(name, tables[name], value, where, folder)
        elif name not in _MODEL:
            raise _refused(where, name, value, f"one of {', '.join(sorted({*_MODEL, *tables}))}")
        elif not _is_plain(value):
            raise _refused(where, name, value, _PLAIN[1])


def check_size(model: Mapping[str, Any], where: str, file_bytes: int) -> None:
    """Raise CheckpointError for a config that makes a far larger model than its file of weights.

    Towers made by timm or transformers are not counted; their sizes follow from their names.

    Args:
        model: open_clip's `model_cfg`, checked.
        where: what the message calls it.
        file_bytes: size of the file of weights.

    Raises:
        CheckpointError: the model would take that much memory for nothing.
    """
    towers = (model.get(name) or {} for name in ("vision_cfg", "text_cfg", "multimodal_cfg"))
    weights = sum(_weights(tower, model.get("embed_dim") or 512) for tower in towers)
    if weights > 2 * file_bytes + _SPARE:
        raise CheckpointError(
            f"{where}: its config makes a model of {weights / 1e6:,.0f} million weights, but the file of weights "
            f"has {file_bytes / 1e6:,.0f} MB. Correct the config, or give the matching weights."
        )


def _weights(tower: Mapping[str, Any], embed_dim: int) -> float:
    """Return the approximate number of weights of one of open_clip's own towers; 0 for another one."""
    if not tower or tower.get("timm_model_name") or tower.get("hf_model_name"):
        return 0.0
    width = tower.get("width") or 0
    layers, ratio = sum(_numbers(tower.get("layers"))), float(tower.get("mlp_ratio") or 4.0)
    places = max(_numbers(tower.get("image_size")) or [0]) / (tower.get("patch_size") or 16)
    tokens = (tower.get("vocab_size") or 0) + (tower.get("context_length") or 0) + places**2
    more = (tower.get("attn_pooler_queries") or 0) + (tower.get("n_queries") or 0)
    patches = 3.0 * (tower.get("patch_size") or 0) ** 2
    return layers * width**2 * (4.0 + 2.0 * ratio) + width * (tokens + patches + more + embed_dim)


def _numbers(value: Any) -> list[float]:
    """Return the numbers of a value: none, itself, or those of a list."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [each for each in values if isinstance(each, (int, float)) and not isinstance(each, bool)]


def _check_table(table: str, known: Collection[str], values: Any, where: str, folder: Path | None) -> None:
    """Raise CheckpointError for a name or value of a table that is not allowed."""
    if not isinstance(values, Mapping):
        raise _refused(where, table, values, "a table")
    for name, value in values.items():
        if name not in known:
            raise _refused(where, f"{table}.{name}", value, f"one that open_clip knows: {', '.join(sorted(known))}")
        if name == "hf_model_name" and folder is not None and value:
            _check_no_code(Path(str(value)), where, f"{table}.{name}", value)
            continue
        if name == "hf_tokenizer_name" and folder is not None and value:
            _check_no_code(folder, where, f"{table}.{name}", value)  # open_clip takes the tokenizer from this folder
            continue
        check, expected = _SPECIAL.get(name, _PLAIN)
        if not check(value):
            raise _refused(where, f"{table}.{name}", value, expected)
        least, most = _BOUNDS.get(name, (-_MOST, _MOST))
        if not all(least <= each <= most for each in _numbers(value)):
            raise _refused(where, f"{table}.{name}", value, f"{least} to {most}")


def _check_no_code(folder: Path, where: str, name: str, value: object) -> None:
    """Raise CheckpointError for a folder of transformers that does not exist, or that asks for Python of its own."""
    if not folder.is_dir():
        raise _refused(where, name, value, "a folder on this machine; use one that has all files")
    for file in ("config.json", "tokenizer_config.json"):
        path = folder / file
        if not path.is_file():
            continue
        try:
            config = json.loads(read_bytes(path))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: expected JSON as transformers writes it, but it is damaged") from error
        if not isinstance(config, dict) or config.get("auto_map"):
            raise CheckpointError(
                f"{path}: it asks to run Python code that comes with the model (auto_map), which is not allowed. "
                "Use a model that the package transformers contains."
            )


def _refused(where: str, name: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(f"{where}: {name} is {repr(value)[:80]}, expected {expected}. Correct the config.")
