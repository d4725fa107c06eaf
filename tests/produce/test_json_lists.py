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

from adawise.produce import json_lists
from adawise.produce.json_lists import read_lists

NAMES = ("images", "annotations")
_LITTLE = 1 << 16  # bytes
TEXT = st.text(st.characters(max_codepoint=0xD7FF), max_size=5)  # half an escaped pair is read as a question mark
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - (1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.builds(
    lambda lists, others: {**others, **lists},
    st.dictionaries(st.sampled_from(NAMES), st.lists(VALUES, max_size=4)),
    st.dictionaries(TEXT, VALUES, max_size=3),
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
    whole, _ = json.JSONDecoder().raw_decode(text.decode().lstrip())  # a text without an end may come behind the object
    assert [entry for name, _, entry in found if name == "images"] == whole.get("images", [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "premature EOF"),
        (b"[]", "expected an object, got a list"),
        (b"7", "expected an object, got a number"),
        (b'{"images": {}}', "expected a list under 'images', got an object"),
        (b'{"images": null}', "expected a list under 'images', got None"),
        (b'{"images": [1, 2', "premature EOF, after entry 2 of images"),
        (b'{"images": [1,]}', "unallowed token at this point in JSON text, after entry 1 of images"),
        (b'{"images": [{"a": 1,, }]}', "invalid object key (must be a string)"),
        (b'{"images": [] "b": 1}', "after key and value, inside map, I expect ',' or '}'"),
        (b'{"images": [], "images": []}', "'images' is there twice"),
        (b"{1: []}", "invalid object key (must be a string)"),
        (b'{"images": []} []', "trailing garbage"),
        (b'{"images": ["' + b"a" * 40, "premature EOF"),
        (b'{"images": ["\xff"]}', "invalid bytes in UTF8 string"),
        ('{"images": []}'.encode("utf-16"), "invalid char in json text"),
        (b'{"images": [' + b"[" * 1_000_000, "more than 64 levels are nested"),
        (b'{"other": ' + b'{"a":' * 1_000_000, "more than 64 levels are nested"),
        (b'{"images": [7, ' + b"1" * 5_000 + b"]}", "integer overflow, after entry 1 of images"),
        (b'{"images": [1e400]}', "numeric (floating point) overflow"),
        (b'{"images": [NaN]}', "invalid"),
    ],
)
def test_what_is_no_document_is_refused_with_the_place(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        read(text)


@pytest.mark.parametrize(
    ("opens", "repeated"),
    [(b'{"images": [{"a": "', b"a"), (b'{"images": [[', b"1,"), (b'{"other": "', b"a"), (b"{", b" "), (b'{"a', b"a")],
)
def test_a_value_without_an_end_is_not_read_into_memory(
    opens: bytes, repeated: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lists, "MOST_BYTES", _LITTLE)
    endless = Dripping(opens + repeated * (8 * _LITTLE), 1 << 10)
    with pytest.raises(ValueError, match="a value has more than 65,536 bytes"):
        list(read_lists(endless, NAMES))
    assert endless.tell() < 2 * _LITTLE


@pytest.mark.parametrize("opens", [b'{"images": [7', b'{"other": [7', b'{"other": {"a": [7'])
def test_many_values_may_be_long_together(opens: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lists, "MOST_BYTES", _LITTLE)
    text = opens + b", 8" * _LITTLE + b"]" + b"}" * opens.count(b"{")
    entries = sum(1 for _ in read_lists(Dripping(text, 1 << 10), NAMES))
    assert entries == (1 + _LITTLE) * (b"images" in opens)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_mark_at_the_begin_is_no_part_of_the_document(size: int) -> None:
    assert read(b'\xef\xbb\xbf{"images": [7]}', size) == [("images", 1, 7)]
