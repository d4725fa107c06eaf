"""Dead letters as text and JSON. Text from strangers is escaped for the terminal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from adawise.publish.dead_letters.reading import DeadLetter

COLUMNS = ("letter", "time (UTC)", "reason", "from", "stream", "bytes", "replays")
_SHOWN_BYTES = 256
_LINE_BYTES = 16


def when(dead_letter: DeadLetter) -> str | None:
    """Return the original's time, to the second; None if the broker has none or it is beyond the calendar."""
    try:
        moment = datetime.fromtimestamp(dead_letter.timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if dead_letter.timestamp_ms >= 0 else None


def as_json(dead_letter: DeadLetter, *, replayed: bool) -> dict[str, object]:
    """Return what a program needs to know of a dead letter."""
    return {
        "letter": dead_letter.place,
        "time": when(dead_letter),
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "topic": dead_letter.topic,
        "partition": dead_letter.partition,
        "offset": dead_letter.offset,
        "stream": dead_letter.stream,
        "bytes": dead_letter.size_bytes,
        "is_whole": dead_letter.is_whole,
        "replays": dead_letter.replays,
        "replayed": replayed,
    }


def cells(dead_letter: DeadLetter, *, replayed: bool) -> list[str]:
    """Return the row of a dead letter in a table with `COLUMNS`."""
    size = str(dead_letter.size_bytes) if dead_letter.is_whole else "left out"
    past = f"{dead_letter.replays}{', sent back' if replayed else ''}"
    row = (
        dead_letter.place,
        when(dead_letter) or "",
        dead_letter.reason,
        dead_letter.source,
        dead_letter.stream or "",
        size,
        past,
    )
    return [shown(cell) for cell in row]


def summary(dead_letters: Sequence[DeadLetter], older: int) -> str:
    """Return how many dead letters are listed, by reason, and how many older ones are not."""
    if not dead_letters:
        return "no dead letters"
    more = f"; {older} older ones are not shown (--limit)" if older else ""
    return f"{len(dead_letters)} dead letters: {_counts(Counter(each.reason for each in dead_letters))}{more}"


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


def details(dead_letter: DeadLetter, *, replayed: bool) -> str:
    """Return all fields of a dead letter, and its first bytes."""
    facts = {
        "letter": f"{dead_letter.record.topic} {dead_letter.place}",
        "from": dead_letter.source,
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "time": when(dead_letter) or "unknown",
        "stream": dead_letter.stream or "unknown",
        "key": repr(dead_letter.record.key),
        "value": f"{dead_letter.size_bytes} bytes"
        if dead_letter.is_whole
        else "left out; the original topic may have it",
        "replays": f"{dead_letter.replays} before it was rejected; {'' if replayed else 'not '}sent back since",
    }
    lines = [f"{name:<8}{shown(text)}" for name, text in facts.items()]
    lines += [f"header  {shown(name)}: {value!r}" for name, value in dead_letter.headers]
    data = (dead_letter.record.value or b"")[:_SHOWN_BYTES]
    for start in range(0, len(data), _LINE_BYTES):
        line = data[start : start + _LINE_BYTES]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        lines.append(f"{start:08x}  {line.hex(' '):<{3 * _LINE_BYTES}} {text}")
    if dead_letter.size_bytes > _SHOWN_BYTES:
        lines.append(f"and {dead_letter.size_bytes - _SHOWN_BYTES} more bytes (--save FILE)")
    return "\n".join(lines)


def shown(text: str) -> str:
    """Return the text with those characters escaped that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
