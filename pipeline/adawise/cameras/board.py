"""What is known of all cameras, for the threads that read them and the one that shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec

from adawise.live.row import LiveView
from adawise.live.sources import LiveSources

P = ParamSpec("P")


class SourceBoard:
    """One thread at a time. Implements `live.row.Provider`.

    Args:
        sources: what is known.
        clock: seconds since the epoch.
    """

    def __init__(self, sources: LiveSources, clock: Callable[[], float]) -> None:
        self._sources, self._clock = sources, clock
        self._lock = threading.Lock()

    def tell(
        self, event: Callable[Concatenate[LiveSources, float, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """An event of `LiveSources`, that is of now."""
        with self.look() as sources:
            event(sources, sources.now_s, *args, **kwargs)

    @contextmanager
    def look(self) -> Iterator[LiveSources]:
        """What is known now, and nobody else's meanwhile."""
        with self._lock:
            self._sources.now_s = self._clock()
            yield self._sources

    def view(self) -> LiveView:
        """See `Provider`."""
        with self.look() as sources:
            return sources.view()

    def picture(self, key: str) -> bytes | None:
        """See `Provider`."""
        with self.look() as sources:
            return sources.picture(key)
