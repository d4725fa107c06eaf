"""The requirements of a command beyond valid values: settings that have no default, and files that must exist.

They are checked before anything heavy is loaded, so that all mistakes are reported at once.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from adawise.adapt.names import WithCard
from adawise.settings.tree import ModelSettings, Settings
from adawise.store.files import read_bytes
from adawise.text import near_match

LOCAL_FOLDER = "local-dir:"
_SHAPE = {  # keys by which architectures differ; compared if both configs of open_clip have them
    *("embed_dim", "vision_cfg.image_size", "vision_cfg.layers", "vision_cfg.width", "vision_cfg.patch_size"),
    *("vision_cfg.timm_model_name", "text_cfg.context_length", "text_cfg.vocab_size", "text_cfg.width"),
    *("text_cfg.heads", "text_cfg.layers"),
}
CHECKPOINT_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}

NEEDED = {
    "model.theta_0": "the zero-shot checkpoint is needed",
    "model.theta_1": "the fine-tuned checkpoint is needed",
    "model.classes": "the class names are needed",
}
"""The settings that a worker requires and that have no default, each with a message."""
OWN_CLASSES = "own classes"
"""A use of the group `model` where images bring their class names, and model.classes may be left out."""


def unmet(settings: Settings, uses: frozenset[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (setting, problem and its remedy) for each unmet requirement of a command that uses these groups.

    Args:
        settings: values that are valid alone and together.
        uses: names of groups, and perhaps OWN_CLASSES; requirements of other groups are not checked.
        folder: folder that relative paths refer to.
    """
    if "model" in uses:
        for name, problem in NEEDED.items():
            if name == "model.classes" and OWN_CLASSES in uses:
                continue
            if getattr(settings.model, name.removeprefix("model.")) is None:
                yield name, problem
    if "finetune" in uses and settings.model.theta_0 is None:  # `finetune` makes theta_1 and the class names itself
        yield "model.theta_0", NEEDED["model.theta_0"]
    objective = settings.search.objective
    if "search" in uses and objective in get_args(WithCard) and settings.model.card is None:
        remedy = "make one with `adawise card make` and set model.card, or use objective tsallis"
        yield "search.objective", f"{objective} needs the card of the pair; {remedy}"
    if uses & {"model", "finetune"}:
        yield from _of_configs(settings.model, ("theta_0", "theta_1") if "model" in uses else ("theta_0",), folder)
    for name, relative, is_folder in _files(settings, uses):
        kind, path = "folder" if is_folder else "file", folder / relative
        try:
            is_one = path.is_dir() if is_folder else path.is_file()
            if not path.exists():
                yield name, f"there is no {kind} {path}; correct the path{_did_you_mean(path)}"
                continue
        except OSError as error:
            yield name, f"{path} cannot be read: {error.strerror}; give this user the right to"
            continue
        if not is_one:  # such as a pipe, which may never end and can be read only once
            yield name, f"expected a {kind}, but {path} is not one; correct the path"
        elif name == "model.classes" and (wrong := _of_classes(path)) is not None:
            yield name, wrong


def _of_configs(model: ModelSettings, roles: tuple[str, ...], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield problems of configs in `local-dir:` folders.

    Such a config must not make open_clip download from a model hub, and must agree with `model.architecture`.
    """
    named = dict(_flat(_config(model.architecture, folder))) if "architecture" in model.model_fields_set else {}
    for role in ("architecture", *roles):
        name = getattr(model, role)
        if name is None or not name.startswith(LOCAL_FOLDER):
            continue
        config = dict(_flat(_config(name, folder)))
        for key, value in config.items():
            if (isinstance(value, str) and re.match(r"\s*hf[-_]hub:", value, re.IGNORECASE)) or (
                key == "text_cfg.hf_model_name" and not os.path.isdir(str(value))
            ):
                yield (
                    f"model.{role}",
                    f"its config sets {key} to {value!r}, which is on a model hub; use a folder that has all files",
                )
        for key in sorted(named.keys() & config.keys() & _SHAPE):
            if named[key] != config[key]:
                problem = f"its {key} is {named[key]}, but {config[key]} in {name} of model.{role}"
                yield "model.architecture", f"{problem}; leave it out, or correct one of them"
                break


def _config(name: str, folder: Path) -> Mapping[str, Any]:
    """Return the part about the model of open_clip's config of a folder or name; empty if it cannot be read."""
    if name.startswith(LOCAL_FOLDER):
        path = folder / name[len(LOCAL_FOLDER) :] / "open_clip_config.json"
    else:  # located without importing open_clip, which takes seconds
        found = find_spec("open_clip")
        places = found.submodule_search_locations if found is not None else None
        path = Path(next(iter(places or ["."])), "model_configs", f"{name.replace('/', '-')}.json")
    try:
        config = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}  # loading the model reports the error in more detail
    model = config.get("model_cfg", config) if isinstance(config, dict) else {}
    return model if isinstance(model, dict) else {}


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each entry, at any depth; lists are yielded whole, too."""
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{name}.{number}", inner) for number, inner in enumerate(value)]
            yield name, value
        else:
            yield name, value


def _files(settings: Settings, uses: frozenset[str]) -> Iterator[tuple[str, Path, bool]]:
    """Yield (setting, path, True if it must be a folder) for each file or folder that the command will read."""
    named: list[tuple[str, Path | None]] = []
    roles = ("theta_0", "theta_1") if "model" in uses else ("theta_0",)
    if "model" in uses or "finetune" in uses:
        named += [(f"model.{name}", getattr(settings.model, name)) for name in ("classes", "templates")]
        for name in ("architecture", *roles):
            value = getattr(settings.model, name)
            if value is not None and value.startswith(LOCAL_FOLDER):
                yield f"model.{name}", Path(value[len(LOCAL_FOLDER) :]), True
            elif name != "architecture" and value is not None and _is_path(value):
                yield f"model.{name}", Path(value), False
    if {"model", "search"} <= uses:  # not for `card`, which creates this file
        named.append(("model.card", settings.model.card))
    if "kafka" in uses:
        security = settings.kafka.security
        named += [
            (f"kafka.security.{name}", getattr(security, name)) for name in ("ssl_ca", "ssl_certificate", "ssl_key")
        ]
    yield from ((name, path, False) for name, path in named if path is not None)


def _of_classes(path: Path) -> str | None:
    """Return the problem of a file of class names and its remedy; None if its lines show no problem."""
    lines = _lines(path)
    if len(lines) == 1:
        return f"{path} has one class, {lines[0]!r}, which every image would get; add other classes"
    twice = next((line for line, times in Counter(lines).items() if times > 1), None)
    return None if twice is None else f"{path} has the class {twice!r} twice; name each once"


def _did_you_mean(path: Path) -> str:
    """Return a suggestion for the end of a message about a missing file: one of a similar name in its folder."""
    try:
        alike = [name for name in os.listdir(path.parent) if Path(name).suffix == path.suffix]
    except OSError:
        return ""
    near = near_match(path.name, alike)
    return f": did you mean {path.parent / near}?" if near else ""


def _lines(path: Path) -> list[str]:
    """Return the lines that are not empty; none if the file is not text, which is reported when it is loaded."""
    try:
        return [line.strip() for line in read_bytes(path).decode().splitlines() if line.strip()]
    except (OSError, ValueError):
        return []


def _is_path(checkpoint: str) -> bool:
    """Return True for a file, False for a tag such as `laion2b_s34b_b79k` or a scheme such as `hf-hub:...`."""
    if re.match(r"[A-Za-z0-9-]{2,}:", checkpoint):
        return False
    return Path(checkpoint).suffix in CHECKPOINT_SUFFIXES or "/" in checkpoint or checkpoint.startswith(".")
