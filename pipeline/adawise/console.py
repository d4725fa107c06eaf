"""Output for people: progress of a command, tables and text, and JSON.

Progress is a bar on a terminal, and a plain line every few seconds elsewhere. It goes to the standard error output; the
standard output is for results (`--json`).
"""

from __future__ import annotations

import json
import math
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:  # commands that print no table start without it
    from rich.console import Console
    from rich.text import Text

LINE_EVERY_S = 10.0
_WIDE = 400  # columns of an output that is not a terminal


class Progress(Protocol):
    """A display of how far a command is. Not for use by several threads at once."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more as done."""

    def note(self, text: str) -> None:
        """Show this beside the count from now on, such as a rate or a lag."""


class Lines:
    """Progress as plain lines: `produced 1200 of 5000 images, 240/s, 0:00:16 left, lag 3`.

    Args:
        title: what is being done, such as `produced`.
        total: how many there will be; None if that is not known.
        unit: what is counted.
        write: takes a line without its end.
        clock: seconds, monotonic.
        every_s: seconds between lines.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str,
        write: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        every_s: float = LINE_EVERY_S,
    ) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._write, self._clock, self._every_s = write, clock, every_s
        self._started_at = self._written_at = clock()
        self._done = 0
        self._note = ""

    def advance(self, count: int = 1) -> None:
        """Count, and write a line if the last one is old enough."""
        self._done += count
        if self._clock() - self._written_at >= self._every_s:
            self.write_line()

    def note(self, text: str) -> None:
        """Add this to the lines from now on."""
        self._note = text

    def write_line(self) -> None:
        """Write a line now."""
        self._written_at = self._clock()
        elapsed_s = self._written_at - self._started_at
        of = f" of {self._total}" if self._total is not None else ""
        rate = f", {self._done / elapsed_s:.4g}/s" if elapsed_s > 0 else ""
        note = f", {self._note}" if self._note else ""
        self._write(f"{self._title} {self._done}{of} {self._unit}{rate}{self._left(elapsed_s)}{note}")

    def _left(self, elapsed_s: float) -> str:
        """Return how long the rest takes at the rate so far, once there is a rate; else ""."""
        if self._total is None or not 0 < self._done < self._total or elapsed_s <= 0:
            return ""
        return f", {timedelta(seconds=round(elapsed_s * (self._total - self._done) / self._done))} left"


@contextmanager
def progress(
    title: str, total: int | None = None, unit: str = "images", stream: TextIO | None = None
) -> Iterator[Progress]:
    """Show progress for as long as the block lasts; a last line or the bar stays at its end.

    Args:
        title: what is being done, in the past tense: `produced`.
        total: how many there will be; None if that is not known.
        unit: what is counted.
        stream: the output, in place of the standard error output.
    """
    out = stream if stream is not None else sys.stderr
    if _is_terminal(out):
        with _bar(title, total, unit, out) as bar:
            yield bar
        return
    lines = Lines(title, total, unit, lambda line: print(line, file=out, flush=True))
    try:
        yield lines
    finally:
        lines.write_line()


def paper(stream: TextIO | None = None) -> Console:
    """Return the console for tables and text for people, on the standard output or on `stream`.

    It prints text literally, without markup or emoji codes: a camera may be called `hall[/2]` or `:door:`. A file or a
    pipe has room for every column. Characters that could move a terminal's cursor or reverse its text are replaced.
    """
    from rich.console import Console

    out = stream if stream is not None else sys.stdout
    console = Console(file=out, markup=False, emoji=False, highlight=False)
    rendered = console.render_str

    def render_str(text: str, **given: Any) -> Text:
        return rendered(plain(text), **given)

    console.render_str = render_str  # type: ignore[method-assign]  # all printed text and each cell pass here
    if not console.is_terminal:
        console.width = _WIDE
    return console


def plain(text: str) -> str:
    """Return the text with ? for each character that is not printable, a space or a line feed.

    Names come from producers and cannot be trusted on a terminal.
    """
    return "".join(c if c.isprintable() or c == "\n" or unicodedata.category(c) == "Zs" else "?" for c in text)


def print_text(text: str, stream: TextIO | None = None) -> None:
    """Print text for people that may hold untrusted names, on the standard output or on `stream`."""
    print(plain(text), file=stream if stream is not None else sys.stdout, flush=stream is not None)


def _is_terminal(out: TextIO) -> bool:
    return paper(out).is_terminal and not paper(out).is_dumb_terminal


@contextmanager
def _bar(title: str, total: int | None, unit: str, out: TextIO) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]} {task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=paper(out), transient=False) as rich_progress:
        task = rich_progress.add_task(title, total=total, note="", rate="")

        class _Bar:
            def advance(self, count: int = 1) -> None:
                rich_progress.advance(task, count)
                speed = rich_progress.tasks[0].speed
                rich_progress.update(task, rate=f"{speed:.4g}/s" if speed else "")

            def note(self, text: str) -> None:
                rich_progress.update(task, note=text)

        yield _Bar()


def print_json(value: object, stream: TextIO | None = None) -> None:
    """Print a value as JSON on the standard output; nan and infinity, which JSON does not have, become null."""
    text = json.dumps(finite(value), indent=2, allow_nan=False, default=str)
    print(text, file=stream if stream is not None else sys.stdout)


def finite(value: object) -> object:
    """Return the value with None in place of nan and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
