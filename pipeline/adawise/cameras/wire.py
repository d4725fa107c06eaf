"""What a reader's process tells, as bytes in a pipe: whoever takes over such a process can say no more than this."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from adawise.cameras.clock import Clock

_HEADER = struct.Struct(">cBBqI")  # kind, clock, whether it is the same, time, size of what follows
_CLOCKS = tuple(Clock)
_TEXT_BYTES = 4_096
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """A JPEG, when it was taken (microseconds since the epoch), by which clock, and if it is the one before again."""

    data: bytes
    taken_us: int
    clock: Clock
    is_same: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is open: its codec and size, for people."""

    what: str


@dataclass(frozen=True, slots=True)
class Beat:
    """Something came of which no frame was wanted."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A frame that is not sent."""

    reason: Drop


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is over. `refused`: asking again will not help, unless somebody mends what `why` says."""

    why: str
    end: End


class End(Enum):
    """How a stream ended."""

    REACHED = b"e"  # a video is over
    FAILED = b"f"  # it may work the next time
    REFUSED = b"r"  # it will not, unless somebody mends something


@dataclass(frozen=True, slots=True)
class ClockOff:
    """By how many microseconds the camera's wall clock is ahead of ours, so that it is not believed; 0: it is."""

    off_us: int


class Drop(Enum):
    """Why a frame was not sent."""

    DAMAGED = b"d"
    TOO_LARGE = b"l"


Told: TypeAlias = CameraFrame | Opened | Beat | ClockOff | Dropped | Ended


class NotAReader(Exception):
    """What came is not what a reader says."""


class Silence(Exception):
    """Nothing came in time."""


def written(told: Told) -> bytes:
    """For the pipe."""
    match told:
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
) -> Told | None:
    """The next of a pipe; None at its end, also in the midst of something.

    Args:
        pipe: a file descriptor.
        timeout_s: for all of it.
        max_frame_bytes: of a frame.
        clock: seconds.

    Raises:
        Silence: it took longer.
        NotAReader: it is none of what `written` writes.
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
    text = "".join(letter if letter.isprintable() else "?" for letter in body.decode("utf-8", "replace"))
    if kind == b"O":
        return Opened(text)
    if any(kind == reason.value for reason in Drop):
        return Dropped(Drop(kind))
    if any(kind == end.value for end in End):
        return Ended(text, End(kind))
    raise NotAReader


def _exactly(pipe: int, size: int, until_s: float, clock: Callable[[], float]) -> bytes | None:
    """So many bytes; None if the pipe ends before."""
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
