"""The documents of a root or a recording, each parsed by one strict model of bounded size.

A root may be copied, truncated, edited by hand or written by others. A document that differs from what this program
writes is damaged as a whole: none of its values is guessed, converted or used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from adawise.errors import ChainError
from adawise.store.store import Store

MOST_BYTES = 1 << 24  # of a document; a pair of 100,000 class names takes a few million

Text = Annotated[str, StringConstraints(max_length=1 << 16)]
Line = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


def _finite(value: JsonValue) -> JsonValue:
    json.dumps(value, allow_nan=False)
    return value


Plain = Annotated[JsonValue, AfterValidator(_finite)]
"""A JSON value of any type whose numbers are finite."""


class Document(BaseModel):
    """The base of all documents. Unknown names are of later versions, and are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Document)


def read_document(kind: type[Kind], data: bytes) -> Kind:
    """Parse a document. Raises ValueError that names the first fault."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes, expected {MOST_BYTES} at most")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def write_document(kind: type[Document], values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a document, which `read_document` reads.

    Raises:
        ValueError: it could not be read back: it is too large, a number is not finite, or a path is not UTF-8.
    """
    data = json.dumps(values).encode()
    read_document(kind, data)
    return data


def parse(kind: type[Kind], store: Store, key: str, data: bytes) -> Kind:
    """Parse the document that was found at `key` of a root. Raises ChainError if it is damaged."""
    try:
        return read_document(kind, data)
    except ValueError as error:
        raise unreadable(store, key) from error


def unreadable(store: Store, key: str) -> ChainError:
    """Return the error for a damaged document."""
    return ChainError(f"{store}: {key}: expected a claim written by this program, but it is damaged; restore it")
