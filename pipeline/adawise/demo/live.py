"""The demo's display while it runs: a live table on a terminal, a line every few seconds elsewhere.

`Board` is the worker's observer and keeps the state of each camera; `watching` shows it on the error output.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from adawise.console import paper
from adawise.demo.report import CameraPath
from adawise.demo.script import CameraScript
from adawise.worker.events import (
    BatchServed,
    Event,
    FrameRejected,
    PartitionLost,
    PartitionRecovered,
    ProducerMistaken,
    RetryScheduled,
    SegmentCommitted,
)

if TYPE_CHECKING:  # imports torch, for which the cameras would have to wait
    from adawise.records import BatchTrace

BAR = 12
"""Characters of a full bar."""

_REFRESH_S, _LINE_EVERY_S = 0.25, 5.0
_RATE_OVER_S = 5.0


@dataclass(slots=True)
class CameraProgress:
    """The images, forwards and alphas of one camera so far."""

    images: int = 0
    forwards: float = 0.0
    path: CameraPath = field(default_factory=CameraPath)

    @property
    def number(self) -> int:
        """The number of the last frame that was served; -1 before the first."""
        return self.path.numbers[-1] if self.path.numbers else -1


class Board:
    """The state of the run so far; an `Observer`.

    Args:
        cameras: by partition.
        acknowledged: returns how many images of each camera the topic has.
        on_served: called with the number of images that were classified.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        cameras: Sequence[CameraScript],
        acknowledged: Callable[[], Sequence[int]],
        on_served: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cameras = tuple(cameras)
        self.progress = [CameraProgress() for _ in cameras]
        self.committed, self.rejected = 0, 0
        self.notes: deque[str] = deque(maxlen=3)
        self.acknowledged, self._on_served, self._clock = acknowledged, on_served, clock
        self._recent: deque[tuple[float, int, int]] = deque()
        self.began_s: float | None = None
        self.ended_s = 0.0

    @property
    def images(self) -> int:
        """The images that were classified so far."""
        return sum(progress.images for progress in self.progress)

    @property
    def forward_equivalents(self) -> float:
        """Forwards through the image tower per image; nan before the first image."""
        return sum(progress.forwards for progress in self.progress) / self.images if self.images else float("nan")

    @property
    def done(self) -> bool:
        """True once the last frame of every camera was served."""
        return all(
            progress.number == camera.frames - 1 for progress, camera in zip(self.progress, self.cameras, strict=True)
        )

    @property
    def seconds(self) -> float:
        """Seconds from when the first partition was ready to the last served batch."""
        return 0.0 if self.began_s is None else max(0.0, self.ended_s - self.began_s)

    def rate(self, index: int | None = None) -> float:
        """Return images per second over the last few seconds, of one camera or of all."""
        now = self._clock()
        while self._recent and now - self._recent[0][0] > _RATE_OVER_S:
            self._recent.popleft()
        span_s = now - self._recent[0][0] if self._recent else 0.0
        images = sum(images for _, of, images in self._recent if index is None or of == index)
        return images / max(span_s, 1.0)

    def lag(self, index: int) -> int:
        """Return how many images of a camera are in the topic and not classified yet."""
        return max(0, self.acknowledged()[index] - self.progress[index].number - 1)

    # -- Observer

    def observe(self, event: Event) -> None:
        """See `Observer`. None of the demo's frames should be rejected or carry a mistake."""
        match event:
            case PartitionRecovered():  # the worker can begin
                self.began_s = self._clock() if self.began_s is None else self.began_s
            case PartitionLost():
                self.notes.append(f"partition {event.tp} moved; images that were not written are classified again")
            case FrameRejected(frame):
                self.rejected += 1
                self.notes.append(f"{frame.row_id} was rejected: {frame.reason}")
                self._on_served(1)
            case ProducerMistaken(frame):
                self.notes.append(f"{frame.row_id}: {frame.note}")
            case BatchServed():
                self._served(event.trace)
            case SegmentCommitted():
                self.committed += event.commit.rows if event.commit.won else 0
            case RetryScheduled():
                self.notes.append(f"again in {event.wait_s:.0f} s: {event.error}")
            case _:
                pass

    def _served(self, trace: BatchTrace) -> None:
        progress = self.progress[trace.partition]
        progress.images += trace.images
        progress.forwards += trace.forward_equivalents * trace.images
        # The offset is the frame's number, since each camera has one partition of a new topic to itself.
        tried = trace.trigger if len(trace.trials) > 1 else None
        progress.path.add(trace.last_offset, trace.alpha, tried, trace.condition)
        self.ended_s = self._clock()
        self._recent.append((self.ended_s, trace.partition, trace.images))
        self._on_served(trace.images)


@contextmanager
def watching(board: Board, title: str, stream: TextIO | None = None) -> Iterator[Callable[[], None]]:
    """Show the board inside the block; yield a function that must be called often and draws when it is time.

    Args:
        board: what to show.
        title: of the table.
        stream: output in place of the error output.
    """
    console = paper(stream if stream is not None else sys.stderr)
    shown_s = time.monotonic()
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(table(board, title), console=console, auto_refresh=False) as live:

            def draw() -> None:
                nonlocal shown_s
                if time.monotonic() - shown_s >= _REFRESH_S:
                    shown_s = time.monotonic()
                    live.update(table(board, title), refresh=True)

            yield draw
            live.update(table(board, title), refresh=True)
        return

    def write() -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s >= _LINE_EVERY_S:
            shown_s = time.monotonic()
            print(line(board), file=console.file, flush=True)

    yield write
    print(line(board), file=console.file, flush=True)


def table(board: Board, title: str) -> Table:
    """Build a table of at most 80 columns: a row for each camera, then the totals and recent problems."""
    view = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    view.add_column("camera", no_wrap=True)
    view.add_column("weather now", no_wrap=True, min_width=16)
    view.add_column("alpha", no_wrap=True, min_width=BAR + 5)
    for name in ("FE", "images/s", "lag"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("last search", no_wrap=True, min_width=12)
    for index, (camera, progress) in enumerate(zip(board.cameras, board.progress, strict=True)):
        view.add_row(
            camera.camera_id,
            _weather(camera, progress),
            bar(progress.path.alphas[-1]) if progress.images else "",
            f"{progress.forwards / progress.images:.2f}" if progress.images else "",
            f"{board.rate(index):.0f}",
            str(board.lag(index)),
            _last_search(progress.path),
        )
    view.caption_justify = "left"
    view.caption = Text("\n".join([f"{_state(board)}, {board.committed} rows written", *board.notes]))
    return view


def line(board: Board) -> str:
    """Return the state of the board as one line."""
    cameras = ", ".join(
        f"{camera.camera_id} {_weather(camera, progress)} alpha {progress.path.alphas[-1]:.2f}"
        for camera, progress in zip(board.cameras, board.progress, strict=True)
        if progress.images
    )
    return " | ".join([_state(board), *([cameras] if cameras else []), *list(board.notes)[-1:]])


def _state(board: Board) -> str:
    if board.began_s is None:
        return f"the worker starts; {sum(board.acknowledged())} images wait for it"
    total = sum(camera.frames for camera in board.cameras)
    lag = sum(board.lag(index) for index in range(len(board.cameras)))
    fe = f", FE {board.forward_equivalents:.2f}" if board.images else ""
    return f"{board.images} of {total} images, {board.rate():.0f}/s{fe}, lag {lag}"


def bar(alpha: float) -> str:
    """Return alpha in [0, 1] as a bar, such as `████░░░░ 0.50`."""
    full = round(alpha * BAR)
    return f"{'█' * full}{'░' * (BAR - full)} {alpha:.2f}"


def _weather(camera: CameraScript, progress: CameraProgress) -> str:
    if progress.number < 0:
        return ""
    moment = camera.moment(progress.number)
    return moment.after if moment.t == 1 else f"{moment.after} {moment.t:.0%}"


def _last_search(path: CameraPath) -> str:
    for ago, trigger in enumerate(reversed(path.triggers)):
        if trigger is not None:
            return f"{trigger}, {f'{ago} ago' if ago else 'now'}"
    return ""
