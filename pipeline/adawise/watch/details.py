"""The facts on one camera's own page, as names and values for people. Pure functions, for every page of cameras.

The names are those of the live page; `web/page/parts.js` has an explanation for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adawise.text import as_duration, counted
from adawise.watch.backlog import PartitionLag, backlog_facts
from adawise.watch.camera import LiveCamera
from adawise.watch.row import CameraRow

Facts = Sequence[tuple[str, str]]
Groups = list[tuple[str, Facts]]


def worker_facts(
    camera: LiveCamera, row: CameraRow, now_s: float, lag: PartitionLag | None, model: Mapping[str, str]
) -> Groups:
    """Return what a worker knows of a camera.

    Args:
        camera: the camera.
        row: its row of the page.
        now_s: Unix time.
        lag: the lag of its partition; None if not known.
        model: facts about the pair that serves its partition, by the names under which the page shows them.
    """
    last = f"{counted(camera.last_images, 'image')}, " if camera.served_s is not None else "none yet"
    last += ago(now_s, camera.served_s) if camera.served_s is not None else ""
    return [
        (
            "Last minutes",
            [
                ("images/s", f"{row.images_per_s:.1f}"),
                *number("forwards per image (FE)", row.forward_equivalents, "{:.2f}"),
                *number("entropy", camera.entropy, "{:.2f} nats"),
                *number("confidence", row.confidence, "{:.0%}"),
                *number("agreement", row.agreement, "{:.0%}"),
            ],
        ),
        (
            "Images, by this worker",
            [
                ("last batch", last),
                ("last seen", ago(now_s, camera.last_seen_s)),
                ("served", f"{row.images:,}"),
                ("rejected", rejected_words(row.rejected, camera.reasons)),
                ("dead letters", f"{camera.dead_letters:,}"),
                *([("last reset", f"{camera.reset}, {ago(now_s, camera.reset_s)}")] if camera.reset else []),
            ],
        ),
        (f"Partition {row.partition}", [*(backlog_facts([lag]) if lag is not None else [("lag", "not known")])]),
        ("Model", [*model.items()]),
    ]


def number(name: str, value: float | None, form: str) -> list[tuple[str, str]]:
    """Return one fact, or none if its value is not known."""
    return [] if value is None else [(name, form.format(value))]


def rejected_words(count: int, reasons: Mapping[str, int]) -> str:
    """Return how many images were rejected and why, the most frequent reason first."""
    each = ", ".join(f"{reason} {images:,}" for reason, images in sorted(reasons.items(), key=lambda item: -item[1]))
    return f"{count:,}" + (f": {each}" if each else "")


def ago(now_s: float, at_s: float) -> str:
    """Return how long ago a time was, such as 5 min ago."""
    return f"{as_duration(max(0.0, now_s - at_s))} ago"
