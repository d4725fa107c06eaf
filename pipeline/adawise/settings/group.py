"""The base class of all groups of settings: immutable, without unknown fields, and consistent in itself.

Pydantic checks each field alone. A group yields mistakes between its fields in `problems`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

INCONSISTENT = "inconsistent"
"""The type of the pydantic error that carries the `problems` of a group in its context."""


class Group(BaseModel):
    """A table of settings, such as `[kafka]` in the file. Its values cannot be changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        str_strip_whitespace=True,
        hide_input_in_errors=True,  # an input may be a password
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem and its remedy) for values that are valid alone but not together."""
        yield from ()

    @model_validator(mode="after")
    def _must_be_consistent(self) -> Self:
        problems = list(self.problems())
        if problems:
            text = "; ".join(f"{name}: {problem}" for name, problem in problems)
            raise PydanticCustomError(INCONSISTENT, "{text}", {"text": text, "problems": problems})
        return self


_T = TypeVar("_T", bound=Group)


def tables(value: object, kind: type[_T], noun: str, most: int) -> tuple[_T, ...]:
    """Parse a list of tables: `[[GROUP.SETTING]]` in the file, or JSON in other sources.

    Args:
        value: the tables, or their JSON.
        kind: the model of a table; a mistake is named by the first of its fields.
        noun: the word for a table.
        most: how many there may be.

    Raises:
        ValueError: with all mistakes in one sentence.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not valid JSON ({error})") from error
    if not isinstance(value, list | tuple) or not all(isinstance(table, dict | kind) for table in value):
        raise ValueError("it is not a list of tables")
    if len(value) > most:
        raise ValueError(f"expected at most {most} {noun}s, got {len(value)}")
    first = next(iter(kind.model_fields))
    found, mistakes = [], list[str]()
    for number, table in enumerate(value, 1):
        named = f"{noun} {number}" + (f" ({table[first]})" if isinstance(table, dict) and first in table else "")
        try:
            found.append(kind.model_validate(table))
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            mistakes += [f"{named}: {_message(item, kind)}" for item in errors]
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return tuple(found)


def _message(item: ErrorDetails, kind: type[Group]) -> str:
    """Format one error of pydantic."""
    if "problems" in item.get("ctx", {}):
        return "; ".join(f"{name}: {problem}" for name, problem in item["ctx"]["problems"])
    where = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"{where}: there is no such field; there are {', '.join(kind.model_fields)}"
    extra = kind.model_fields[where].json_schema_extra if where in kind.model_fields else None
    if isinstance(extra, dict) and "expected" in extra:
        return f"{where}: expected {extra['expected']}"
    reason = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
    return f"{where}: {reason[:1].lower()}{reason[1:]}"


def _not_empty(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise ValueError("it is empty")
    return value


def _verbatim(value: object, checked: ValidatorFunctionWrapHandler) -> SecretStr:
    secret: SecretStr = checked(value)
    return SecretStr(value.rstrip("\r\n")) if isinstance(value, str) else secret


def _without_tilde(value: str) -> str:
    for prefix in ("", "local-dir:"):
        if value.startswith(f"{prefix}~"):
            return prefix + str(_expanded(Path(value[len(prefix) :])))
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no home folder {path.parts[0]}; write the full path") from error


def _kafka_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", value) or value in {".", ".."}:
        raise ValueError("Kafka does not allow this name")
    return value


FilePath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_expanded)]
"""The path of a file, relative to the current folder; `~` is the home folder."""

PLACE = "place"
"""The mark of text that is either a path or another kind of name, such as a URL."""

Location = Annotated[str, BeforeValidator(_not_empty), AfterValidator(_without_tilde), PLACE]
"""A path or another kind of name, marked `PLACE`. Only a leading `~` is expanded."""

Text = Annotated[str, BeforeValidator(_not_empty)]

VERBATIM = "verbatim"
"""The mark of text that is taken literally, except for line ends at its end."""

Password = Annotated[SecretStr, WrapValidator(_verbatim), VERBATIM]
"""A password chosen outside this program: leading and trailing spaces are kept, and `none` may be a password."""

KafkaName = Annotated[str, AfterValidator(_kafka_name)]
"""A name that Kafka accepts for a topic or a static member."""

KAFKA_NAME_EXPECTED = "1 to 249 of the characters A-Z a-z 0-9 . _ -"
