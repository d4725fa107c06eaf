"""The names of a setting (dotted, flag, environment, file), and a description of its allowed values.

The help, messages about mistakes and the template of the settings file are all written from here, so that they agree.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo

from adawise.errors import SettingsError
from adawise.settings.group import PLACE, VERBATIM
from adawise.settings.requirements import NEEDED
from adawise.settings.tree import Settings

ENVIRONMENT_PREFIX = "ADAWISE_"
ENVIRONMENT_SEPARATOR = "__"
IN_A_FILE = "_file"
"""The suffix of a name that gives the file with a secret setting's value, instead of the value."""
SECRET = "**********"
NONE = "none"
"""The value by which a flag or an environment variable unsets a value of the file; as a password it is taken literally.
"""


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if is_group(field):
            yield from _walk(group_of(field), f"{prefix}{name}.")


def is_group(field: FieldInfo) -> bool:
    """Return True if the field is a table of settings, not a setting."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def group_of(field: FieldInfo) -> type[BaseModel]:
    """Return the model of a field that `is_group`."""
    assert isinstance(field.annotation, type)
    assert issubclass(field.annotation, BaseModel)
    return field.annotation


FIELDS: dict[str, FieldInfo] = dict(_walk(Settings))
"""All groups and settings by dotted name, in the order of the help."""
SETTINGS: dict[str, FieldInfo] = {name: field for name, field in FIELDS.items() if not is_group(field)}
GROUPS: dict[str, FieldInfo] = {name: field for name, field in FIELDS.items() if is_group(field)}


def flag_name(name: str) -> str:
    """Return the flag: `kafka.max_poll_records` -> `--kafka.max-poll-records`."""
    return "--" + name.replace("_", "-")


def environment_name(name: str) -> str:
    """Return the environment variable: `kafka.max_poll_records` -> `ADAWISE_KAFKA__MAX_POLL_RECORDS`."""
    return ENVIRONMENT_PREFIX + name.replace(".", ENVIRONMENT_SEPARATOR).upper()


def file_name(name: str) -> str:
    """Return in words the place in the file: `kafka.topic` -> `topic under [kafka]`."""
    table, _, key = name.rpartition(".")
    return f"{key} under [{table}]" if table else f"[{key}]"


def members(annotation: Any) -> tuple[list[Any], list[Any]]:
    """Return the alternatives of a type except None, and the metadata (such as bounds) found on them."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        types, deeper = members(inner)
        return types, [*deeper, *(found for item in metadata for found in _bounds_of(item))]
    if get_origin(annotation) in {Union, UnionType}:
        parts = [members(arg) for arg in get_args(annotation) if arg is not type(None)]
        return [t for types, _ in parts for t in types], [m for _, metadata in parts for m in metadata]
    return [annotation], []


def _bounds_of(item: Any) -> list[Any]:
    return list(item.metadata) if isinstance(item, FieldInfo) else [item]


def is_optional(field: FieldInfo) -> bool:
    """Return True if None is a value of the field."""
    return type(None) in get_args(field.annotation)


def is_secret(field: FieldInfo) -> bool:
    """Return True if the value must never be shown."""
    return SecretStr in members(field.annotation)[0]


def is_verbatim(field: FieldInfo) -> bool:
    """Return True if any text is a value, even `none`, which unsets other settings."""
    return VERBATIM in members(field.annotation)[1]


def is_path(field: FieldInfo) -> bool:
    """Return True if a value may be a path."""
    types, metadata = members(field.annotation)
    return Path in types or PLACE in [*field.metadata, *metadata]


def takes_bool(field: FieldInfo) -> bool:
    """Return True if true and false are values of the field."""
    return bool in members(field.annotation)[0]


def takes_tables(field: FieldInfo) -> bool:
    """Return True if the value is a list of tables, which flags and the environment give as JSON."""
    return get_origin(field.annotation) is tuple


def expected(field: FieldInfo) -> str:
    """Return in words the allowed values, such as `a whole number from 1 to 256`."""
    if isinstance(field.json_schema_extra, dict) and "expected" in field.json_schema_extra:
        return str(field.json_schema_extra["expected"])
    types, metadata = members(field.annotation)
    return " or ".join(_in_words(kind, _range([*field.metadata, *metadata])) for kind in types)


def _in_words(kind: Any, bounds: str) -> str:
    if get_origin(kind) is Literal:
        *others, last = [str(value) for value in get_args(kind)]
        return f"{', '.join(others)} or {last}" if others else last
    words = {
        bool: "true or false",
        ByteSize: f"bytes{bounds} (or KiB, MiB, GiB: 8MiB)",
        int: f"a whole number{bounds}",
        float: f"a number{bounds}",
        SecretStr: "text, kept secret",
        Path: "a path",
    }
    return words.get(kind, "text that is not empty")


def _bytes(count: int) -> str:
    """Format bytes with a unit: 8388608 -> `8MiB`. A number that is no multiple of 1 KiB stays a number."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def _range(metadata: list[Any]) -> str:
    low = next((item.ge for item in metadata if hasattr(item, "ge")), None)
    above = next((item.gt for item in metadata if hasattr(item, "gt")), None)
    high = next((item.le for item in metadata if hasattr(item, "le")), None)
    lower = f" from {low}" if low is not None else f" above {above}" if above is not None else ""
    return lower + (f" to {high}" if high is not None and low is not None else f" up to {high}" if high else "")


def metavar(field: FieldInfo) -> str:
    """Return the placeholder of the value in the help."""
    if isinstance(field.json_schema_extra, dict) and "metavar" in field.json_schema_extra:
        return str(field.json_schema_extra["metavar"])
    kinds = members(field.annotation)[0]
    names = {int: "N", float: "X", ByteSize: "BYTES", Path: "FILE", SecretStr: "SECRET"}
    return names.get(kinds[0], "WORD" if get_origin(kinds[0]) is Literal else "TEXT")


def shown(field: FieldInfo, value: object) -> str:
    """Format the value for display: secrets are hidden, and None is `none`."""
    if value is None:
        return NONE
    if is_secret(field):
        return SECRET
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return _bytes(value)
    if isinstance(value, tuple):  # a list of tables
        return json.dumps([table.model_dump(mode="json", exclude_defaults=True, exclude_none=True) for table in value])
    return repr(value) if isinstance(value, str) and (not value or value != value.strip()) else str(value)


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
