"""The commands that are services: one rule, for signals at their start and for their logs.

It imports nothing, because the program reads it before it handles signals.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECORDING_ENDS = ("until", "max_messages", "max_seconds", "max_bytes")
"""The options that end a recording."""


def runs_until_stopped(name: str, options: Mapping[str, object]) -> bool:
    """Return True if the command is a service: it has no other end, so that it is done when it is stopped.

    Args:
        name: the name of the command.
        options: the values of its options by the names of the flags, with `_` for `-`; those without effect are false.
    """
    if name == "record" and options.get("from") == "latest":
        return not any(options.get(end) for end in RECORDING_ENDS)
    if name in {"record", "labels"}:
        return bool(options.get("follow"))
    return name == "run" or (name == "cameras" and not options.get("check"))


def flags_of(words: Sequence[str]) -> dict[str, object]:
    """Return the flags among the words of a command line, as for `runs_until_stopped`, before the parser is loaded.

    The value of a flag without `=` is the next word, whether the flag takes one or not.
    """
    found: dict[str, object] = {}
    for word, after in zip(words, [*words[1:], "the end"], strict=False):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name.replace("-", "_")] = value if equals else after
    return found
