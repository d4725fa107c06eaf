"""Work that is done now and then beside a loop, in a thread of its own: one pass at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from adawise.errors import AdawiseError, place_of

What = TypeVar("What")
Done = TypeVar("Done")


class Passes(Generic[What, Done]):
    """Passes over what changes from one to the next, such as the partitions that a worker has.

    Args:
        do: one pass; is given a list, and what says that it should end soon. `failed` is called with any error of it.
        tell: is told what came of each.
        failed: is told of each that could not be done; the next one tries again.
        every_s: between two passes.
        first_s: before the first.
        name: of the thread.
        pool: what does them, in place of a thread.
    """

    def __init__(
        self,
        do: Callable[[list[What], Callable[[], bool]], Done],
        *,
        tell: Callable[[Done], None],
        failed: Callable[[str], None],
        every_s: float,
        first_s: float = 0.0,
        name: str,
        pool: Executor | None = None,
    ) -> None:
        self._do, self._tell, self._failed, self._every_s, self._first_s = do, tell, failed, every_s, first_s
        self._own, self._name = pool is None, name
        self._pool = pool or ThreadPoolExecutor(1, thread_name_prefix=name)
        self._running: Future[Done] | None = None
        self._again_s: float | None = None
        self._ends = threading.Event()

    def turn(self, over: Iterable[What], now_s: float) -> None:
        """Begin a pass over these if one is due, and tell what came of the last; to be called often."""
        if self._again_s is None:
            self._again_s = now_s + self._first_s
        if self._running is not None and self._running.done():
            self._told(self._running)
            self._running, self._again_s = None, now_s + self._every_s
        if self._running is None and now_s >= self._again_s:
            try:
                self._running = self._pool.submit(self._do, list(over), self._ends.is_set)
            except RuntimeError as error:  # no thread can be started; the next turn but some tries again
                self._again_s = now_s + self._every_s
                if self._own:  # the old one has queued it, and would do it later, over what is then of long ago
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
                self._failed(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Have the pass that is under way end, and wait for it."""
        self._ends.set()
        self._pool.shutdown(wait=True)
        if self._running is not None:
            self._told(self._running)

    def _told(self, over: Future[Done]) -> None:
        try:
            done = over.result()
        except AdawiseError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001  # what runs beside the loop does not end it
            self._failed(f"{type(error).__name__}: {error} ({place_of(error)})")
        else:
            self._tell(done)
