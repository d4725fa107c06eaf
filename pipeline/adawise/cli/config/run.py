"""The work of `adawise config`: show every setting with its value and origin, and write a file to begin with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adawise.errors import SettingsError
from adawise.settings.describe import SECRET, SETTINGS, is_secret, shown
from adawise.settings.mistakes import Mistake
from adawise.settings.reading import Reading
from adawise.settings.template import template


def value_of(reading: Reading, name: str) -> Any:
    """Return the value of a setting by its dotted name."""
    value: Any = reading.settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def as_table(reading: Reading) -> str:
    """Return a block for each group, with a line for each setting: name, value, origin."""
    rows = [
        (name, shown(field, value_of(reading, name)), str(reading.origins[name])) for name, field in SETTINGS.items()
    ]
    name_width = max(len(name.rpartition(".")[2]) for name, _, _ in rows)
    value_width = min(44, max(len(value) for _, value, _ in rows))
    lines: list[str] = []
    table = ""
    for name, value, origin in rows:
        group, _, key = name.rpartition(".")
        if group != table:
            lines += ["", f"[{group}]"] if lines else [f"[{group}]"]
            table = group
        lines.append(f"{key:<{name_width}}  {value:<{value_width}}  {origin}")
    return "\n".join(lines)


def as_json_text(reading: Reading, mistakes: Sequence[Mistake]) -> str:
    """Return a JSON object with `settings` (name, value, source, place) and `mistakes`."""
    settings = [
        {
            "name": name,
            "value": _plain(value_of(reading, name), is_secret(field)),
            "source": reading.origins[name].source,
            "place": reading.origins[name].place,
        }
        for name, field in SETTINGS.items()
    ]
    return json.dumps({"settings": settings, "mistakes": [mistake.as_json() for mistake in mistakes]}, indent=2)


def _plain(value: Any, secret: bool) -> Any:
    if secret and value is not None:
        return SECRET
    if isinstance(value, tuple):
        return [table.model_dump(mode="json") for table in value]
    return str(value) if isinstance(value, Path) else value


def write_template(path: Path) -> int:
    """Write the template to a file that does not exist yet, or to standard output for `-`.

    Raises:
        SettingsError: the file exists, or cannot be written.
    """
    if str(path) == "-":
        print(template(), end="")
        return 0
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise SettingsError(
            f"{path} exists and was not changed; name another file (`adawise config init FILE`), or remove it"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name a file in a folder that can be written") from error
    print(
        f"wrote {path}: set model.theta_0, model.theta_1 and model.classes there, and what else differs from its "
        "default"
    )
    return 0
