"""Lists of a document entry by entry: what is read is what the standard library reads, whatever the pieces."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from adawise.produce.json_lists import MOST_CHARACTERS, read_lists

NAMES = ("images", "annotations")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.builds(
    lambda lists, others: {**others, **lists},
    st.dictionaries(st.sampled_from(NAMES), st.lists(VALUES, max_size=4)),
    st.dictionaries(st.text(max_size=4), VALUES, max_size=3),
)


class Dripping(io.BytesIO):
    """A file that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._size)


def read(data: bytes, size: int = 1 << 20) -> list[tuple[str, int, Any]]:
    return list(read_lists(Dripping(data, size), NAMES))


@given(DOCUMENTS, st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_every_entry_is_read_whatever_the_pieces(
    document: dict[str, Any], size: int, indent: int | None, escaped: bool
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=escaped)
    expected = [
        (name, number, entry)
        for name, entries in document.items()
        if name in NAMES
        for number, entry in enumerate(entries, 1)
    ]
    assert read(text.encode("utf-8", "surrogatepass"), size) == expected


@given(DOCUMENTS, st.data())
def test_damage_is_a_value_error_or_is_read_as_the_standard_library_reads_it(
    document: dict[str, Any], data: st.DataObject
) -> None:
    text = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b"[", b"}", b",", b'"', b"\xff"])
        )
    try:
        found = read(bytes(text), 3)
    except ValueError:
        return
    whole = json.loads(text)
    assert [entry for name, _, entry in found if name == "images"] == whole.get("images", [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "expected '{' at character 0, got 'the end'"),
        (b"[]", "expected '{' at character 0, got '['"),
        (b'{"images": {}}', "expected '[' at character 11, got '{'"),
        (b'{"images": null}', "expected '[' at character 11, got 'n'"),
        (b'{"images": [1, 2', "expected ',' or ']' at character 16, got 'the end'"),
        (b'{"images": [1,]}', "expecting value at character 14"),
        (b'{"images": [{"a": 1,, }]}', "expecting property name enclosed in double quotes at character 20"),
        (b'{"images": [] "b": 1}', "expected ',' or '}' at character 14, got '\"'"),
        (b'{"images": [], "images": []}', "'images' is there twice"),
        (b"{1: []}", "expected a name in the outermost object, got 1"),
        (b'{"images": []} []', "expected the end after the outermost object, got '['"),
        (b'{"images": ["' + b"a" * 40, "unterminated string starting at at character 12"),
        (b'{"images": ["\xff"]}', "invalid start byte"),
        ('{"images": []}'.encode("utf-16"), "invalid start byte"),
        (b'{"images": [' + b"[" * 100_000, "nested too deeply"),
        (b'{"other": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"images": [' + b"1" * 5_000 + b"]}", "a number of too many digits"),
    ],
)
def test_what_is_no_document_is_refused_with_the_place(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        read(text)


def test_a_value_without_an_end_is_not_read_into_memory() -> None:
    endless = Dripping(b'{"images": [{"a": "' + b"a" * (2 * MOST_CHARACTERS), 1 << 20)
    with pytest.raises(ValueError, match="the value at character 12 has more than"):
        list(read_lists(endless, NAMES))
    assert endless.tell() < MOST_CHARACTERS + (1 << 22)


def test_a_mark_at_the_begin_is_no_part_of_the_document() -> None:
    assert read(b'\xef\xbb\xbf{"images": [7]}') == [("images", 1, 7)]
