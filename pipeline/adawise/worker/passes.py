"""Periodic work beside a loop, in a thread of its own: one pass at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from adawise.errors import AdawiseError, place_of

What = TypeVar("What")
Done = TypeVar("Done")


class Passes(Generic[What, Done]):
    """Passes over a list that may change from one pass to the next, such as the partitions that a worker has.

    Args:
        do: makes one pass over a list. Its second argument returns True once the pass should end soon.
        finished: called with the result of each pass.
        failed: called with the error of each pass that failed; the next pass tries again.
        every_s: seconds between two passes.
        first_s: seconds before the first pass.
        name: the name of the thread.
        pool: an executor that makes the passes, in place of a thread.
    """

    def __init__(
        self,
        do: Callable[[list[What], Callable[[], bool]], Done],
        *,
        finished: Callable[[Done], None],
        failed: Callable[[str], None],
        every_s: float,
        first_s: float = 0.0,
        name: str,
        pool: Executor | None = None,
    ) -> None:
        self._do, self._finished, self._failed, self._every_s, self._first_s = do, finished, failed, every_s, first_s
        self._own, self._name = pool is None, name
        self._pool = pool or ThreadPoolExecutor(1, thread_name_prefix=name)
        self._running: Future[Done] | None = None
        self._again_s: float | None = None
        self._ends = threading.Event()

    def turn(self, over: Iterable[What], now_s: float) -> None:
        """Begin a pass over these items if one is due, and report the result of the last; to be called often."""
        if self._again_s is None:
            self._again_s = now_s + self._first_s
        if self._running is not None and self._running.done():
            self._report(self._running)
            self._running, self._again_s = None, now_s + self._every_s
        if self._running is None and now_s >= self._again_s:
            try:
                self._running = self._pool.submit(self._do, list(over), self._ends.is_set)
            except RuntimeError as error:  # no thread can be started; a later turn tries again
                self._again_s = now_s + self._every_s
                if self._own:  # the old pool has queued the pass, and would make it later with an outdated list
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
                self._failed(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Ask the pass that is under way to end, wait for it, and report its result."""
        self._ends.set()
        self._pool.shutdown(wait=True)
        if self._running is not None:
            self._report(self._running)

    def _report(self, over: Future[Done]) -> None:
        try:
            done = over.result()
        except AdawiseError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001  # work beside the loop must not end it
            self._failed(f"{type(error).__name__}: {error} ({place_of(error)})")
        else:
            self._finished(done)
