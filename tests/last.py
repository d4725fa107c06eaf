"""Imported first by the server that processes are forked from: what a program registers first of all is called last.

A started program registers an exit function before it imports anything, so it is called after those of all libraries.
In a fork the libraries are there already.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable


class Last:
    """An exit function whose place is taken before any library is imported."""

    def __init__(self) -> None:
        self.function: Callable[[], object] = lambda: None

    def __call__(self) -> None:
        self.function()


LAST = Last()
atexit.register(LAST)
