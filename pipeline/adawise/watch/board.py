"""The state of all cameras, shared by the threads that read them and the one that shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec

from adawise.watch.row import LiveView
from adawise.watch.sources import LiveSources

P = ParamSpec("P")


class SourceBoard:
    """A lock around the state: one thread at a time. Implements `watch.row.Provider`.

    Args:
        sources: the state.
        clock: seconds since the epoch.
    """

    def __init__(self, sources: LiveSources, clock: Callable[[], float]) -> None:
        self._sources, self._clock = sources, clock
        self._lock = threading.Lock()

    def apply(
        self, event: Callable[Concatenate[LiveSources, float, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Apply an event of `LiveSources`, dated now."""
        with self.locked() as sources:
            event(sources, sources.now_s, *args, **kwargs)

    @contextmanager
    def locked(self) -> Iterator[LiveSources]:
        """Yield the current state, locked against other threads."""
        with self._lock:
            self._sources.now_s = self._clock()
            yield self._sources

    def view(self) -> LiveView:
        """See `Provider`."""
        with self.locked() as sources:
            return sources.view()

    def picture(self, key: str) -> bytes | None:
        """See `Provider`."""
        with self.locked() as sources:
            return sources.picture(key)
