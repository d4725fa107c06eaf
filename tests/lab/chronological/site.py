"""A recording of a small site: a camera shows coloured shapes in three intervals of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adawise.decode.headers import written_headers
from adawise.records import Message
from tests.lab.finetune.shapes import CLASSES, png
from tests.labels.folders.places import write_messages

DAY_US = 86_400_000_000
BEGINS_US = 1_767_225_600_000_000  # 2026-01-01
EACH = 9  # images of a camera in an interval
QUICK = ("--finetune.epochs", "2", "--finetune.batch-images", "8", "--finetune.learning-rate", "1e-3")


@dataclass(frozen=True)
class Seen:
    """One image: which camera took it, on which day (None: nothing says so), and what it shows."""

    camera: str
    day: float | None
    label: str


def three_cameras() -> list[Seen]:
    """Three cameras on three days. The third shows one class until the last day; the first one begins the recording."""
    seen = []
    for day in range(3):
        for n in range(EACH):
            at = day + n / EACH
            seen += [Seen("gate", at, CLASSES[n % 3]), Seen("yard", at, CLASSES[n % 2])]
            seen.append(Seen("wall", at, CLASSES[n % 3] if day == 2 else CLASSES[0]))
    return seen


def write_site(path: Path, seen: Sequence[Seen], *, broken: Sequence[float] = ()) -> Path:
    """A recording of these images, without times of the broker; those of the days `broken` are cut off."""
    messages = []
    for offset, one in enumerate(seen):
        headers: list[tuple[str, bytes | None]] = []
        if one.day is not None:
            at_us = BEGINS_US + round(one.day * DAY_US)
            headers += written_headers("image/png", at_us, str(offset), label=one.label)
        else:
            headers += [("content-type", b"image/png"), ("label", one.label.encode())]
        is_broken = one.day is not None and int(one.day) in broken
        image = png(one.label, seed=offset)[: 200 if is_broken else None]
        messages.append(Message("frames", 0, offset, one.camera.encode(), image, tuple(headers)))
    write_messages(path, messages)
    return path
