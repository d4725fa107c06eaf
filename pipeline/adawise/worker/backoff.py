"""When to try again after a failure: the first wait is short, each further one in a row is twice as long."""

from __future__ import annotations

from collections.abc import Callable

_FIRST_S, _LONGEST_S = 1.0, 30.0


class Backoff:
    """The waits of one thing that can fail; time is an argument.

    Args:
        spread: what a wait is multiplied by, in (0, 1]: many that failed together do not come back together.
    """

    def __init__(self, spread: Callable[[], float] = lambda: 1.0) -> None:
        self.again_s = 0.0
        self._wait_s, self._spread = _FIRST_S, spread

    def due(self, now_s: float) -> bool:
        """True if it may be tried at `now_s`, by the clock that `failed` was told."""
        return now_s >= self.again_s

    def failed(self, now_s: float) -> float:
        """It failed at `now_s`: seconds until it is due again."""
        wait_s = self._wait_s * self._spread()
        self.again_s, self._wait_s = now_s + wait_s, min(2.0 * self._wait_s, _LONGEST_S)
        return wait_s

    def succeeded(self) -> None:
        """The next failure is a first one."""
        self.again_s, self._wait_s = 0.0, _FIRST_S
