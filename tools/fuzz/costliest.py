"""What the costliest accepted images cost: of each family the largest that a message of some bytes may ask for.

A message is filled up behind the image, as somebody who wants to do harm would, since more bytes may ask for more.
"""

from __future__ import annotations

import math
import multiprocessing
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from adawise.decode import cost
from adawise.decode.arrow_batch import encode_batch
from adawise.decode.codec import open_image
from adawise.decode.message import Decoder
from adawise.decode.preprocess import Preprocess, ResizeMode
from adawise.records import Message
from tools.fuzz.contract import MAX_PIXELS
from tools.fuzz.extremes import FAMILIES

SIZE = 224  # px
BYTES = (1_024, 16_000, 65_536)
SHAPES = ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0))  # a square; a line that is 1 px wide, or high
_FITS: tuple[ResizeMode, ...] = ("shortest", "squash", "longest")
_RUNS = 2


@dataclass(frozen=True)
class Cost:
    """Of one message: processor time, the best of a few, and memory beyond what the process had before, at most."""

    what: str
    message_bytes: int
    outcome: str
    seconds: float
    peak_bytes: int

    @property
    def seconds_a_kib(self) -> float:
        """Of the message."""
        return self.seconds / (self.message_bytes / 1024)


def _largest(family: str, message_bytes: int, shape: tuple[float, float]) -> tuple[str, bytes] | None:
    """The largest image of the family that may be sent in so many bytes; None if none of it fits."""
    make = FAMILIES[family]
    probe = make(1_024, 1_024)
    each_ns = cost.estimated_ns(open_image(probe, max_pixels=MAX_PIXELS)) / 2**20
    pixels = min(cost.allowed_ns(message_bytes) / each_ns, MAX_PIXELS, 1.3 * message_bytes / len(probe) * 2**20)
    most = 16_383 if "WebP" in family else 65_500
    for _ in range(60):
        if 0.0 in shape:
            sides = [1 if part == 0.0 else min(most, int(pixels / cost.MIN_SIDE)) for part in shape]
        else:
            sides = [min(most, int(math.sqrt(pixels)))] * 2
        value = make(max(1, sides[0]), max(1, sides[1]))
        if len(value) <= message_bytes:
            return f"{family} {sides[0]} x {sides[1]}", value + bytes(message_bytes - len(value))
        pixels *= 0.9
    return None


def _crowd(family: str, message_bytes: int, side: int) -> tuple[str, bytes] | None:
    """As many small images in a batch as there is room for."""
    image = FAMILIES[family](side, side)
    count = min(256, message_bytes // (len(image) + 8))
    value = encode_batch([image] * count) if count else b""
    while count and len(value) > message_bytes:
        count -= max(1, count // 20)
        value = encode_batch([image] * count)
    return (f"{count} of {family} {side} x {side}", value) if count else None


def _memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def measured(what: str, value: bytes, fit: ResizeMode) -> Cost:
    """Decode the message a few times."""
    decode = Decoder(Preprocess(SIZE, fit), max(BYTES), 256, MAX_PIXELS)
    seconds, peak_bytes, outcome = math.inf, 0, ""
    for _ in range(_RUNS):
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark of memory begins anew
        before_bytes, began_s = _memory("VmRSS"), time.process_time()
        frames = decode(Message("fuzz", 0, 0, b"cam-1", value)).frames
        seconds = min(seconds, time.process_time() - began_s)
        peak_bytes = max(peak_bytes, _memory("VmHWM") - before_bytes)
        accepted = sum(frame.image is not None for frame in frames)
        reasons = sorted({str(frame.reason) for frame in frames if frame.reason})
        outcome = " ".join([f"{accepted}/{len(frames)}", *reasons])
    return Cost(f"{what}, {fit}", len(value), outcome, seconds, peak_bytes)


def _cost_of(family: str) -> list[Cost]:
    torch.set_num_threads(1)
    found = []
    for message_bytes in BYTES:
        for shape in SHAPES:
            if (largest := _largest(family, message_bytes, shape)) is not None:
                fits = _FITS if 0.0 in shape else _FITS[:1]  # a square is fitted in one way
                found += [measured(*largest, fit) for fit in fits]
        for side in (8, 480):
            if (crowd := _crowd(family, message_bytes, side)) is not None:
                found.append(measured(*crowd, "shortest"))
    return found


def costs(processes: int) -> Iterator[list[Cost]]:
    """Of every family, in processes of their own."""
    with multiprocessing.get_context("forkserver").Pool(processes) as pool:
        yield from pool.imap_unordered(_cost_of, FAMILIES)


def table(found: list[Cost], rows: int = 12) -> str:
    """For each size of messages the costliest."""
    lines = []
    for message_bytes in BYTES:
        here = [each for each in found if each.message_bytes <= message_bytes]
        here = [each for each in here if each.message_bytes > max([b for b in BYTES if b < message_bytes], default=0)]
        lines.append(f"costliest of {len(here)} messages of at most {message_bytes} bytes:")
        lines.append("        ms  ms/KiB  MiB at most   bytes  message")
        for each in sorted(here, key=lambda cost: -cost.seconds)[:rows]:
            lines.append(
                f"  {1000 * each.seconds:8.1f} {1000 * each.seconds_a_kib:7.2f}  {each.peak_bytes / 2**20:11.0f} "
                f"{each.message_bytes:7}  {each.what}: {each.outcome}"
            )
    return "\n".join(lines)
