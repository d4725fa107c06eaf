"""JSON documents and Arrow schemas as lines of text, without what another run has otherwise."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

_MOST = 6  # distinct values of a place that are shown; of more, the type alone
_LONGEST = 120  # characters of a value that is shown
_CHANGING = (  # what another run, or another machine, has otherwise
    (re.compile(r"\b20[2-9]\d-\d\d-\d\d(?=_\d{20}|$)"), "<day>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{32,64}\b"), "<hash>"),
    (re.compile(r"(?<=fixture):\d+"), ":<pid>"),
)
_MEASURED = re.compile(r"(bytes|_s|_ms|_us|age|pid|seconds|model\.torch|model\.decoder)$")
_MOMENT = 10**11  # from here on, a whole number is a time in milliseconds or microseconds


def masked(text: str) -> str:
    """Return a text without times, hashes, random ids and process ids."""
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return text


def shape(document: Any, *, values: bool = True) -> Iterator[str]:
    """Return a line for each place of a JSON document: the types that it has there, and few values that do not change.

    Args:
        document: as `json.loads` returned it. The elements of a list are one place.
        values: False to leave all values out.
    """
    types: defaultdict[str, set[str]] = defaultdict(set)
    known: defaultdict[str, set[str]] = defaultdict(set)
    for place, value in _leaves(document, ""):
        types[place].add("null" if value is None else type(value).__name__)
        if isinstance(value, float) or _MEASURED.search(place) or (isinstance(value, int) and value >= _MOMENT):
            known[place].add("")
        elif value is not None and not isinstance(value, (dict, list)):
            known[place].add(json.dumps(masked(value) if isinstance(value, str) else value, ensure_ascii=False))
    for place, kinds in types.items():
        found = sorted(known[place] if values else ())
        shown = found if len(found) <= _MOST and all(0 < len(text) <= _LONGEST for text in found) else []
        yield f"{place or '.'}: {' | '.join(sorted(kinds))}{' = ' * bool(shown)}{', '.join(shown)}"


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if not value:
            yield place, value
        for key, each in value.items():
            yield from _leaves(each, f"{place}.{masked(str(key))}" if place else masked(str(key)))
    elif isinstance(value, list):
        if not value:
            yield f"{place}[]", value
        for each in value:
            yield from _leaves(each, f"{place}[]")
    else:
        yield place, value


def columns(fields: Iterable[pa.Field]) -> Iterator[str]:
    """Return a line for each column: name, type, and the keys of its metadata."""
    for field in fields:
        keys = ", ".join(sorted(key.decode() for key in field.metadata or {} if not key.startswith(b"PARQUET:")))
        kind = f"{field.type}{'' if field.nullable else ' not null'}"
        yield f"{field.name}: {kind}{f'  ({keys})' * bool(keys)}"


def key_values(metadata: Mapping[bytes, bytes]) -> Iterator[str]:
    """Return the keys of a Parquet file's footer, each with the shape of what it has."""
    for key, value in sorted(metadata.items()):
        if not key.startswith(b"ARROW:"):
            yield key.decode()
            yield from (f"  {line}" for line in _value(value))


def _value(value: bytes) -> Iterator[str]:
    text = value[64:] if value[64:65] in (b"{", b"[") else value  # behind a SHA-256
    if text[:1] in (b"{", b"["):
        yield from shape(json.loads(text))
        return
    guarded = value[64:] if re.fullmatch(rb"[0-9a-f]{64}", value[:64]) else value
    try:
        with pa.CompressedInputStream(pa.BufferReader(base64.b64decode(guarded, validate=True)), "zstd") as stream:
            table = pa.ipc.open_stream(stream).read_all()
    except (pa.ArrowException, OSError, binascii.Error):
        yield f"= {masked(value.decode())}"
        return
    yield from columns(table.schema)
    for column in (each for each in table.column_names if each == "state"):
        yield f"{column}, as JSON:"
        yield from (f"  {line}" for line in shape([json.loads(state) for state in table[column].to_pylist()]))
