"""Dead letters as text: a table of many, or all of one. Text from strangers is escaped for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from adawise.console import paper
from adawise.publish.dead_letters.reading import DeadLetter

_SHOWN_BYTES = 256
_LINE_BYTES = 16
_COLUMNS = ("letter", "time (UTC)", "reason", "from", "stream", "bytes", "replays")


def when(letter: DeadLetter) -> str | None:
    """Return the original's time, to the second; None if the broker has none or it is beyond the calendar."""
    try:
        moment = datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if letter.timestamp_ms >= 0 else None


def as_json(letter: DeadLetter, *, replayed: bool) -> dict[str, object]:
    """Return what a program needs to know of a dead letter."""
    return {
        "letter": letter.place,
        "time": when(letter),
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "stream": letter.stream,
        "bytes": letter.size_bytes,
        "is_whole": letter.is_whole,
        "replays": letter.replays,
        "replayed": replayed,
    }


def print_table(letters: Sequence[tuple[DeadLetter, bool]], older: int) -> None:
    """Print a line for each (dead letter, True if it was replayed), and the count by reason."""
    table = Table(
        *(Column(name, overflow="fold") for name in _COLUMNS), box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for letter, replayed in letters:
        size = str(letter.size_bytes) if letter.is_whole else "left out"
        past = f"{letter.replays}{', sent back' if replayed else ''}"
        cells = (letter.place, when(letter) or "", letter.reason, letter.source, letter.stream or "", size, past)
        table.add_row(*(Text(shown(cell)) for cell in cells))
    if letters:
        paper().print(table)
    print(_summary((letter.reason for letter, _ in letters), older))


def _summary(reasons: Iterable[str], older: int) -> str:
    counted = Counter(reasons)
    if not counted:
        return "no dead letters"
    by_reason = ", ".join(f"{count} {shown(reason)}" for reason, count in counted.most_common())
    more = f"; {older} older ones are not shown (--limit)" if older else ""
    return f"{counted.total()} dead letters: {by_reason}{more}"


def print_letter(letter: DeadLetter, *, replayed: bool) -> None:
    """Print all fields of a dead letter, and its first bytes."""
    facts: Mapping[str, str] = {
        "letter": f"{letter.record.topic} {letter.place}",
        "from": letter.source,
        "reason": letter.reason,
        "detail": letter.detail,
        "time": when(letter) or "unknown",
        "stream": letter.stream or "unknown",
        "key": repr(letter.record.key),
        "value": f"{letter.size_bytes} bytes" if letter.is_whole else "left out; the original topic may have it",
        "replays": f"{letter.replays} before it was rejected; {'' if replayed else 'not '}sent back since",
    }
    lines = [f"{name:<8}{shown(text)}" for name, text in facts.items()]
    lines += [f"header  {shown(name)}: {value!r}" for name, value in letter.headers]
    lines += _dump((letter.record.value or b"")[:_SHOWN_BYTES])
    if letter.size_bytes > _SHOWN_BYTES:
        lines.append(f"and {letter.size_bytes - _SHOWN_BYTES} more bytes (--save FILE)")
    print("\n".join(lines))


def _dump(data: bytes) -> list[str]:
    lines = []
    for start in range(0, len(data), _LINE_BYTES):
        line = data[start : start + _LINE_BYTES]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        lines.append(f"{start:08x}  {line.hex(' '):<{3 * _LINE_BYTES}} {text}")
    return lines


def shown(text: str) -> str:
    """Return the text with those characters escaped that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
