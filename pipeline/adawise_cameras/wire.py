"""The reports of a reader as bytes in a pipe. They are the most that an attacker in its process can send."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from adawise_cameras.clock import Clock

_HEADER = struct.Struct(">cBBqI")  # kind, clock, whether the picture repeats, time, size of the body
_CLOCKS = tuple(Clock)
_TEXT_BYTES = 4_096
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """A JPEG, its time (microseconds since the epoch) and the clock of it, and whether it repeats the one before."""

    data: bytes
    taken_us: int
    clock: Clock
    is_same: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The report that the stream is open: its codec and size, for people."""

    what: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The report that something came from which no frame was wanted."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The report of a frame that is not sent."""

    reason: Drop


@dataclass(frozen=True, slots=True)
class Ended:
    """The report that the stream is over. `why` names the cause, and what to mend if `end` is REFUSED."""

    why: str
    end: End


class End(Enum):
    """The way in which a stream ended."""

    REACHED = b"e"  # the end of a video
    FAILED = b"f"  # the next attempt may succeed
    REFUSED = b"r"  # no attempt will succeed until the cause is mended


@dataclass(frozen=True, slots=True)
class ClockOff:
    """The microseconds by which the camera's wall clock is ahead of ours, so that it is not used; 0 if it is used."""

    off_us: int


class Drop(Enum):
    """The reason why a frame was not sent."""

    DAMAGED = b"d"
    TOO_LARGE = b"l"


WireMessage: TypeAlias = CameraFrame | Opened | Beat | ClockOff | Dropped | Ended


class NotAReader(Exception):
    """Raised when the bytes are not a reader's report."""


class Silence(Exception):
    """Raised when nothing came in time."""


def written(message: WireMessage) -> bytes:
    """Return a report as bytes for the pipe."""
    match message:
        case CameraFrame(data, taken_us, clock, is_same):
            return _HEADER.pack(b"F", _CLOCKS.index(clock), is_same, taken_us, len(data)) + data
        case Opened(what):
            return _texted(b"O", what)
        case Beat():
            return _texted(b"B", "")
        case ClockOff(off_us):
            return _HEADER.pack(b"C", 0, 0, off_us, 0)
        case Dropped(reason):
            return _texted(reason.value, "")
        case Ended(why, end):
            return _texted(end.value, why)


def _texted(kind: bytes, text: str) -> bytes:
    body = text.encode("utf-8", "replace")[:_TEXT_BYTES]
    return _HEADER.pack(kind, 0, 0, 0, len(body)) + body


def read(
    pipe: int, *, timeout_s: float, max_frame_bytes: int, clock: Callable[[], float] = time.monotonic
) -> WireMessage | None:
    """Return the next report of a pipe; None at its end, even in the midst of a report.

    Args:
        pipe: a file descriptor.
        timeout_s: for the whole report.
        max_frame_bytes: the most bytes of a frame.
        clock: monotonic seconds.

    Raises:
        Silence: it took longer.
        NotAReader: it is not what `written` writes.
    """
    until_s = clock() + timeout_s
    head = _exactly(pipe, _HEADER.size, until_s, clock)
    if head is None:
        return None
    kind, of_clock, is_same, taken_us, size = _HEADER.unpack(head)
    if size > (max_frame_bytes if kind == b"F" else _TEXT_BYTES) or of_clock >= len(_CLOCKS):
        raise NotAReader
    body = _exactly(pipe, size, until_s, clock)
    if body is None:
        return None
    if kind == b"F":
        return CameraFrame(body, taken_us, _CLOCKS[of_clock], bool(is_same))
    if kind == b"B":
        return Beat()
    if kind == b"C":
        return ClockOff(taken_us)
    text = "".join(character if character.isprintable() else "?" for character in body.decode("utf-8", "replace"))
    if kind == b"O":
        return Opened(text)
    if any(kind == reason.value for reason in Drop):
        return Dropped(Drop(kind))
    if any(kind == end.value for end in End):
        return Ended(text, End(kind))
    raise NotAReader


def _exactly(pipe: int, size: int, until_s: float, clock: Callable[[], float]) -> bytes | None:
    """Return exactly `size` bytes; None if the pipe ends before."""
    parts, missing = [], size
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while missing:
        if not poll.poll(max(0.0, until_s - clock()) * 1_000):
            raise Silence
        part = os.read(pipe, min(missing, _CHUNK_BYTES))
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
