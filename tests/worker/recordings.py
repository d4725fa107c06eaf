"""What the tests of recordings share: what is in one, by its own reader, and a pool without threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import closing
from pathlib import Path
from typing import Any

from adawise.errors import AdawiseError
from adawise.recording.files import Forgotten
from adawise.recording.source import RecordingSource
from adawise.records import Message


class AtOnce(Executor):
    """Does what it is given at once; what that raises is in the future."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except AdawiseError as error:
            future.set_exception(error)
        return future


def recorded(root: Path | str, *, forgotten: Forgotten = "fail") -> list[Message]:
    """Every message of a recording, in the order of partition and offset; it is read to its last page."""
    source = RecordingSource(str(root), order="offset", seed=0, max_poll_records=1000, forgotten=forgotten)
    return sorted(read_all(source), key=lambda message: (message.partition, message.offset))


def read_all(source: RecordingSource) -> list[Message]:
    """Everything from the origins on, as it comes; the source is closed."""
    with closing(source):
        tps = source.poll(0.0).assigned
        for tp in tps:
            source.seek(tp, source.log.origin(tp))
        source.resume(tps)
        found: list[Message] = []
        while not source.exhausted:
            found += source.poll(0.0).messages
        return found
