"""What a command needs beyond values that are right: settings without a default, and files that exist.

Found before anything heavy is loaded, so that all of it is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.settings.tree import Settings

LOCAL_FOLDER = "local-dir:"
CHECKPOINT_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}

_NEEDED = {
    "theta_0": "the zero-shot checkpoint is needed",
    "theta_1": "the fine-tuned checkpoint is needed",
    "classes": "the class names are needed",
}


def unmet(settings: Settings, uses: frozenset[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Pairs of (setting, what is missing and the remedy) for a command that uses these groups.

    Args:
        settings: Values that are right by themselves and together.
        uses: Names of groups; the needs of other groups do not matter.
        folder: What relative paths are relative to.
    """
    if "model" in uses:
        for name, problem in _NEEDED.items():
            if getattr(settings.model, name) is None:
                yield f"model.{name}", problem
    if "finetune" in uses and settings.model.theta_0 is None:  # theta_1 and the class names it makes
        yield "model.theta_0", _NEEDED["theta_0"]
    objective = settings.search.objective
    if "search" in uses and objective not in {"auto", "tsallis", "entropy"} and settings.model.card is None:
        remedy = "make one with `adawise card` and set model.card, or use objective tsallis"
        yield "search.objective", f"{objective} needs the card of the pair; {remedy}"
    for name, relative, is_folder in _files(settings, uses):
        kind, path = "folder" if is_folder else "file", folder / relative
        if not path.exists():
            yield name, f"there is no {kind} {path}; correct the path"
        elif path.is_dir() != is_folder:
            yield name, f"expected a {kind}, and {path} is not one; correct the path"


def _files(settings: Settings, uses: frozenset[str]) -> Iterator[tuple[str, Path, bool]]:
    """(setting, path, whether it must be a folder) of each file that the command will read."""
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
    if {"model", "search"} <= uses:  # `card` makes the file that is named here
        named.append(("model.card", settings.model.card))
    if "kafka" in uses:
        security = settings.kafka.security
        named += [
            (f"kafka.security.{name}", getattr(security, name)) for name in ("ssl_ca", "ssl_certificate", "ssl_key")
        ]
    yield from ((name, path, False) for name, path in named if path is not None)


def _is_path(checkpoint: str) -> bool:
    """Whether it is a file rather than a tag such as `laion2b_s34b_b79k` or a scheme such as `hf-hub:...`."""
    if re.match(r"[A-Za-z0-9-]{2,}:", checkpoint):
        return False
    return Path(checkpoint).suffix in CHECKPOINT_SUFFIXES or "/" in checkpoint or checkpoint.startswith(".")
