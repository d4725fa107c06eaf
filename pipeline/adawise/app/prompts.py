"""Settings -> class names and prompts, from their files. Loads no torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from adawise.errors import SettingsError
from adawise.settings import ModelSettings
from adawise.store.files import read_bytes

TEMPLATES = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a dark photo of a {}.",
    "a bright photo of a {}.",
    "a low resolution photo of a {}.",
    "{}",
)


def prompt_templates(settings: ModelSettings) -> tuple[str, ...]:
    """Return the prompts, with `{}` for the class name.

    Raises:
        SettingsError: a prompt lacks `{}`, or as `read_lines`.
    """
    if settings.templates is None:
        return TEMPLATES
    templates = read_lines(settings.templates, "model.templates", "prompt")
    for line in templates:
        if "{}" not in line:
            raise SettingsError(f"{settings.templates}: expected {{}} for the class name in {line!r}; add it")
    return templates


def read_lines(path: Path, setting: str, what: str) -> tuple[str, ...]:
    """Return the lines of a text file, without empty ones.

    Raises:
        SettingsError: the file is not readable or not UTF-8, has no line, or has a line twice.
    """
    try:
        text = read_bytes(path).decode()
        lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: {path} cannot be read ({error}). Give a UTF-8 text file.") from error
    twice = sorted(line for line, times in Counter(lines).items() if times > 1)
    if not lines or twice:
        found = f"{twice[0]!r} twice" if twice else "none"
        raise SettingsError(f"{setting}: {path}: expected one {what} a line, each once; found {found}. Correct it.")
    return lines
