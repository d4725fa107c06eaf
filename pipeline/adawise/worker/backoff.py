"""Exponential backoff: the first wait after a failure is short, and each further one in a row is twice as long."""

from __future__ import annotations

from collections.abc import Callable

_FIRST_S, _LONGEST_S = 1.0, 30.0


class Backoff:
    """The waits of one operation that can fail. Time is an argument.

    Args:
        spread: returns the factor of a wait, in (0, 1], so that processes that failed together do not retry together.
    """

    def __init__(self, spread: Callable[[], float] = lambda: 1.0) -> None:
        self.again_s = 0.0
        self._wait_s, self._spread = _FIRST_S, spread

    def due(self, now_s: float) -> bool:
        """Return True if the operation may be tried at `now_s`, by the same clock as for `failed`."""
        return now_s >= self.again_s

    def failed(self, now_s: float) -> float:
        """Note a failure at `now_s`, and return the seconds until the operation is due again."""
        wait_s = self._wait_s * self._spread()
        self.again_s, self._wait_s = now_s + wait_s, min(2.0 * self._wait_s, _LONGEST_S)
        return wait_s

    def succeeded(self) -> None:
        """Note a success, so that the next failure counts as the first."""
        self.again_s, self._wait_s = 0.0, _FIRST_S
