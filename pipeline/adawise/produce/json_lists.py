"""The lists of a large JSON document, entry by entry. For producers.

`json.load` would hold the whole document in memory, at several times the size of the file. Here memory holds one entry.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterator
from typing import BinaryIO

import ijson

MOST_BYTES = 1 << 24
"""Most bytes of an entry, and of a value outside the lists."""

_DEEPEST = 64  # levels of objects and lists
_BEGINS, _ENDS = frozenset({"start_map", "start_array"}), frozenset({"end_map", "end_array"})


def read_lists(file: BinaryIO, names: Collection[str]) -> Iterator[tuple[str, int, object]]:
    """Yield the name of the list, the number and the value of each entry, in the order of the document.

    The lists are those that the outermost object has under `names`. Numbers count from 1. Half an escaped pair in a
    text (a lone surrogate) is read as a question mark. A text behind the end of the document that has no end of its own
    (`{} "abc`) is not noticed; anything else there is a mistake.

    Raises:
        ValueError: it is no JSON object in UTF-8, one of `names` is there twice or is no list, a value is too large or
            nested too deeply, or a whole number needs more than 64 bits.
        OSError: the file cannot be read.
    """
    bounded = _Bounded(file)
    name, number, level, seen, entry = "", 0, 0, set[str](), ijson.ObjectBuilder()
    try:
        for event, value in ijson.basic_parse(bounded, use_float=True):
            level -= event in _ENDS  # the level that holds the event: that of the outermost object is 0
            if level == 0 and event not in {"start_map", "end_map"}:
                raise ValueError(f"expected an object, got a {'list' if event in _BEGINS else event}")
            if level == 1 and event == "map_key":
                name, number = value, 0
                if name in seen:
                    raise ValueError(f"{name!r} is there twice")
                seen.update({name}.intersection(names))
            elif level == 1 and name in seen and event not in {"start_array", "end_array"}:
                found = "an object" if event in _BEGINS else f"{value!r:.60}"
                raise ValueError(f"expected a list under {name!r}, got {found}")
            elif level > 1 and name in seen:
                entry.event(event, value)
            if level <= 2 or name not in seen:
                bounded.begin()
            if level == 2 and name in seen and event not in _BEGINS:
                number += 1
                yield name, number, entry.value
                entry = ijson.ObjectBuilder()
            level += event in _BEGINS
            if level > _DEEPEST:
                raise ValueError(f"more than {_DEEPEST} levels are nested")
    except (ijson.JSONError, ValueError) as error:
        why = _reason(str(error)) if isinstance(error, ijson.JSONError) else str(error)
        if name and "invalid char in json" in why:
            why += " (such as NaN, which JSON does not have)"
        place = f", after entry {number:,} of {name}" if number else ""
        raise ValueError(f"{why}{place}") from None


def _reason(text: str) -> str:
    """Return yajl's words for a mistake, without its picture of the place."""
    found = re.search(r"error: (.+?)\.?(?:\n|\\n|$)", text)
    return found[1] if found else text


class _Bounded:
    """A file without a byte order mark that is read until a value in it has too many bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._count, self._began = file, 0, 0

    def begin(self) -> None:
        """Note that a value begins or ends in the piece that was read last."""
        self._began = self._count

    def read(self, size: int) -> bytes:
        """Return the next piece. Raises ValueError if a value is too large."""
        if size == 0:  # as ijson asks for the type of what it reads
            return b""
        if self._count - self._began > MOST_BYTES:
            raise ValueError(f"a value has more than {MOST_BYTES:,} bytes")
        piece = self._file.read(size)
        if not self._count:
            while piece and len(piece) <= len(codecs.BOM_UTF8) and (more := self._file.read(size)):
                piece += more
            piece = piece.removeprefix(codecs.BOM_UTF8)
        self._count += len(piece)
        return piece
