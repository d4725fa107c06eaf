"""The lists of a large JSON document, entry by entry. For producers.

`json.load` would hold the whole document in memory, at several times the size of the file. Here memory holds one entry.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from typing import BinaryIO

MOST_CHARACTERS = 1 << 24
"""Most characters of an entry, or of a value that is no list."""

_PIECE_BYTES = 1 << 20
_DECODER = json.JSONDecoder()
_UNENDED = "Unterminated string"
_LONGEST_WORD = 16  # characters, with which a value of JSON may go on that a piece cuts
_SPACES = re.compile(r"[ \t\n\r]*")


def read_lists(file: BinaryIO, names: Collection[str]) -> Iterator[tuple[str, int, object]]:
    """Yield the name of the list, the number and the value of each entry, in the order of the document.

    The lists are those that the outermost object has under `names`. Numbers count from 1.

    Raises:
        ValueError: it is no JSON object in UTF-8, one of `names` is there twice or is no list, or a value is too large.
        OSError: the file cannot be read.
    """
    text = _Pieces(file)
    seen = set[str]()
    for _ in text.members("{", "}"):
        name = text.value()
        text.take(":")
        if not isinstance(name, str):
            raise ValueError(f"expected a name in the outermost object, got {name!r:.60}")
        if name in seen:
            raise ValueError(f"{name!r} is there twice")
        if name in names:
            seen.add(name)
            yield from ((name, number, text.value()) for number, _ in enumerate(text.members("[", "]"), 1))
        elif text.peek() == "[":
            for _ in text.members("[", "]"):
                text.value()
        else:
            text.value()
    if text.peek():
        raise ValueError(f"expected the end after the outermost object, got {text.peek()!r}")


class _Pieces:
    """A document, of which the piece that is needed is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._piece, self._at = "", 0
        self._before = 0  # characters before the piece
        self._is_last = False

    def members(self, opens: str, closes: str) -> Iterator[None]:
        """Yield before each member of an object or a list; the caller reads the member."""
        self.take(opens)
        if self.peek() == closes:
            self.take(closes)
            return
        yield
        while self.take(f",{closes}") == ",":
            yield

    def take(self, allowed: str) -> str:
        """Return the next character that is no space, which has to be one of `allowed`."""
        found = self.peek()
        if not found or found not in allowed:
            expected = " or ".join(repr(character) for character in allowed)
            raise ValueError(
                f"expected {expected} at character {self._before + self._at:,}, got {found or 'the end'!r}"
            )
        self._at += 1
        return found

    def peek(self) -> str:
        """Return the next character that is no space, without moving past it; "" at the end."""
        while True:
            spaces = _SPACES.match(self._piece, self._at)
            assert spaces is not None
            self._at = spaces.end()
            if self._at < len(self._piece) or not self._read():
                return self._piece[self._at : self._at + 1]

    def value(self) -> object:
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._piece, self._at)
            except json.JSONDecodeError as error:
                at = self._before + error.pos
                is_cut = error.msg.startswith(_UNENDED) or len(self._piece) - error.pos < _LONGEST_WORD
                if not is_cut or not self._read():
                    raise ValueError(f"{error.msg[:1].lower()}{error.msg[1:]} at character {at:,}") from None
                if len(self._piece) - self._at > MOST_CHARACTERS + _PIECE_BYTES:
                    where = f"the value at character {self._before + self._at:,}"
                    raise ValueError(f"{where} has more than {MOST_CHARACTERS:,} characters") from None
            except RecursionError:
                raise ValueError(f"the value at character {self._before + self._at:,} is nested too deeply") from None
            except ValueError:  # Python's limit of digits, whose message names a function of Python
                where = f"the value at character {self._before + self._at:,}"
                raise ValueError(f"{where} has a number of too many digits") from None
            else:
                # Else a number may go on in the next piece: `1e+` is read as 1, before `e+`.
                if end + len("e+") < len(self._piece) or not self._read():
                    self._at = end
                    return value

    def _read(self) -> bool:
        """Read the next piece; return False at the end."""
        if self._is_last:
            return False
        data = self._file.read(_PIECE_BYTES)
        self._is_last = not data
        self._before += self._at
        self._piece, self._at = self._piece[self._at :] + self._decoder.decode(data, final=self._is_last), 0
        return True
