"""The JSON Schema of messages on the topic of results, for the reference and for tests of messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from adawise.publish.results import alert
from adawise.publish.results.message import BATCH, FIELDS, IMAGE, EventField

_ALERT = f"One change of an alert. ce_type is {alert.RAISED} or {alert.CLEARED}"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema of the values of all messages; the header `ce_type` says which definition a message has."""
    image = _object(FIELDS, "One image. ce_type is " + IMAGE)
    batch = {
        "description": "The images of one batch, in order. ce_type is " + BATCH,
        "type": "object",
        "properties": {
            "stream_id": {"description": "the camera", "type": ["string", "null"]},
            "results": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/image"}},
        },
        "required": ["stream_id", "results"],
        "additionalProperties": False,
    }
    return {
        "$schema": DIALECT,
        "title": "Messages on the results topic",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in ("image", "batch", "alert")],
        "$defs": {"image": image, "batch": batch, "alert": _object(alert.FIELDS, _ALERT)},
    }


def _object(fields: Sequence[EventField[Any]], description: str) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields if not field.optional],
        "additionalProperties": False,
    }


def _property(field: EventField[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": field.description}
    kind = _type(field.kind)
    schema["type"] = [kind, "null"] if field.nullable else kind
    if pa.types.is_timestamp(field.kind):
        schema["format"] = "date-time"
    if pa.types.is_list(field.kind):
        of = _type(field.kind.value_type)
        schema["items"] = {"type": [of, "null"] if of == "number" else of}
    if field.values:
        schema["enum"] = list(field.values)
    return schema


def _type(kind: pa.DataType) -> str:
    for fits, name in (
        (pa.types.is_list, "array"),
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_integer, "integer"),
        (pa.types.is_floating, "number"),
    ):
        if fits(kind):
            return name
    return "string"
