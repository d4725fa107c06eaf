"""A template of the settings file: every setting with its description and its default, which is commented out."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from adawise.errors import SettingsError
from adawise.settings.describe import GROUPS, IN_A_FILE, SETTINGS, environment_name, expected, is_secret, metavar, shown
from adawise.settings.requirements import NEEDED

NO_DEFAULT = "# none by default"
"""The end of the line of a setting without a default; the value in such a line only shows the kind of value."""

_WIDTH = 100
_HEAD = """\
Settings of adawise. A line such as `#name = value` shows a default: remove its # to change it.
Flags win over the environment (ADAWISE_*), which wins over this file.
`adawise config show` shows the values in use, `adawise doctor` checks whether a worker can start."""


def template() -> str:
    """Return the text of the file. Unchanged, it sets nothing: all its settings are commented out."""
    return "\n".join(_lines()) + "\n"


def write_template(path: Path) -> None:
    """Write the template to a file that does not exist yet.

    Raises:
        SettingsError: the file exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise SettingsError(
            f"{path} exists and was not changed; name another file (`adawise config init FILE`), or remove it"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name a file in a folder that can be written") from error


def _lines() -> Iterator[str]:
    yield from _comment(_HEAD)
    table = ""
    for name, field in SETTINGS.items():
        group, _, key = name.rpartition(".")
        if group != table:
            yield from ("", "", *_comment(str(GROUPS[group].description)), f"[{group}]")
            table = group
        yield ""
        yield from _comment(_description(name, field))
        yield f"#{key} = {_value(field)}"


def _description(name: str, field: FieldInfo) -> str:
    needed = "NEEDED by a worker: " if name in NEEDED else ""
    where = f"; better in a separate file, {environment_name(name + IN_A_FILE)}" if is_secret(field) else ""
    return f"{needed}{field.description} [{expected(field)}{where}]"


def _value(field: FieldInfo) -> str:
    """Return the default in TOML; for a setting without a default, a placeholder."""
    default = field.default
    if default is None:
        return f"{json.dumps(metavar(field))}  {NO_DEFAULT}"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, ByteSize):
        return json.dumps(shown(field, default))
    if isinstance(default, tuple):
        return shown(field, default)
    return repr(default) if isinstance(default, (int, float)) else json.dumps(str(default), ensure_ascii=False)


def _comment(text: str) -> list[str]:
    return [
        f"# {line}"
        for part in text.splitlines()
        for line in textwrap.wrap(part, _WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
