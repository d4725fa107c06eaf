"""Dead letters as text and JSON. Text from strangers is escaped for the terminal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from adawise.publish.dead_letters.reading import DeadLetter

COLUMNS = ("letter", "time (UTC)", "reason", "from", "stream", "bytes", "replays")
_SHOWN_BYTES = 256
_LINE_BYTES = 16


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


def cells(letter: DeadLetter, *, replayed: bool) -> list[str]:
    """Return the row of a dead letter in a table with `COLUMNS`."""
    size = str(letter.size_bytes) if letter.is_whole else "left out"
    past = f"{letter.replays}{', sent back' if replayed else ''}"
    row = (letter.place, when(letter) or "", letter.reason, letter.source, letter.stream or "", size, past)
    return [shown(cell) for cell in row]


def summary(letters: Sequence[DeadLetter], older: int) -> str:
    """Return how many dead letters are listed, by reason, and how many older ones are not."""
    if not letters:
        return "no dead letters"
    more = f"; {older} older ones are not shown (--limit)" if older else ""
    return f"{len(letters)} dead letters: {_counts(Counter(letter.reason for letter in letters))}{more}"


def sent(counted: Counter[tuple[str | None, str]], topic: str, *, dry_run: bool) -> list[str]:
    """Return how many messages were sent back, by reason, and why others were left out, from what `resend` returned."""
    done = Counter({reason: count for (why_not, reason), count in counted.items() if why_not is None})
    what = f"{done.total()} messages {'would be sent' if dry_run else 'sent'} back to {topic}"
    lines = [f"{what}: {_counts(done)}" if done else what]
    for why_not in sorted({why_not for why_not, _ in counted if why_not is not None}):
        left_out = sum(count for (why, _), count in counted.items() if why == why_not)
        lines.append(f"{left_out} dead letters left out: {why_not}")
    return lines


def _counts(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {shown(reason)}" for reason, count in reasons.most_common())


def details(letter: DeadLetter, *, replayed: bool) -> str:
    """Return all fields of a dead letter, and its first bytes."""
    facts = {
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
    data = (letter.record.value or b"")[:_SHOWN_BYTES]
    for start in range(0, len(data), _LINE_BYTES):
        line = data[start : start + _LINE_BYTES]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        lines.append(f"{start:08x}  {line.hex(' '):<{3 * _LINE_BYTES}} {text}")
    if letter.size_bytes > _SHOWN_BYTES:
        lines.append(f"and {letter.size_bytes - _SHOWN_BYTES} more bytes (--save FILE)")
    return "\n".join(lines)


def shown(text: str) -> str:
    """Return the text with those characters escaped that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
