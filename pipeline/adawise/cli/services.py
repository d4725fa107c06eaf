"""The commands that are services: one rule, for signals at their start and for their logs.

It imports nothing, because the program reads it before it handles signals.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


def runs_until_stopped(name: str, options: Container[str]) -> bool:
    """Return True if the command is a service: it has no other end, so that it is done when it is stopped.

    Args:
        name: the name of the command.
        options: the names of the flags that are set.
    """
    if name in {"record", "labels"}:
        return "follow" in options
    return name == "run" or (name == "cameras" and "check" not in options)
