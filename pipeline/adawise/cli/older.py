"""Command lines of earlier versions in the form of today. They are accepted for one release.

Until 0.3 `adawise card make` was one command, and its flags chose what it did.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator, Sequence

from adawise.cli import PROGRAM, begins_at, command_of
from adawise.cli.parser import own_fields
from adawise.console import print_text

_CHOOSES = {"--show": "show", "--from-labels": "correct", "--labelled": "make", "--fit-search": "fit"}
_ARGUMENTS = {"show": ("--show",), "correct": ("--from-labels",), "make": (), "fit": ("--output", "-o")}
_OF_FIT = {"--fit-search": "--recording", "--fit-objective": "--objective", "--fit-batches": "--batches"}
_OF_MAKE = ("--labelled", "--labelled-shifted", "--held-out", "--images")
_FOR_SOME = ("search.", "batch.", "predict.", "limits.", "model.card")  # settings that not every verb reads

Flag = tuple[str, list[str]]


def translated(arguments: Sequence[str]) -> list[list[str]]:
    """Return the command lines of today, with a warning that names them if they are others."""
    start = begins_at(arguments)
    flags = _flags(arguments[start + 1 :]) if [*arguments[start : start + 1]] == ["card"] else []
    verbs = [verb for flag, verb in _CHOOSES.items() if flag in dict(flags)]
    if not verbs:
        return [[*arguments]]
    if verbs == ["make", "fit"]:
        lines = [[*_words("make", flags, _OF_FIT)], [*_words("fit", flags, _OF_MAKE)]]
    else:
        lines = [[*_words(verbs[0], flags, ())]]
    # What may be a password, by a flag that there is not, is not repeated.
    shown = (shlex.join([PROGRAM, *(word for words, is_known in line if is_known for word in words)]) for line in lines)
    print_text(
        f"{PROGRAM}: this form of `card` is accepted until the next release; now it is: {' && '.join(shown)}",
        sys.stderr,
    )
    return [[*arguments[:start], *(word for words, _ in line for word in words)] for line in lines]


def _flags(words: Sequence[str]) -> list[Flag]:
    """Return each flag with the words that follow it; nothing if a word comes first, as a verb does."""
    found: list[Flag] = []
    for word in words:
        if not word.startswith("-"):
            if not found:
                return []
            found[-1][1].append(word)
            continue
        if word.startswith("-o") and word[2:3] not in {"", "="}:  # the value is attached
            word = f"-o={word[2:]}"
        name, equals, value = word.partition("=")
        found.append((name.replace("_", "-"), [value] if equals else []))
    return found


def _words(verb: str, flags: Sequence[Flag], left_out: Collection[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield the verb and its flags, each with its values, and whether the verb has such a flag."""
    command = command_of(f"card {verb}")
    yield ["card", verb, *(value for name, values in flags if name in _ARGUMENTS[verb] for value in values)], True
    for name, values in flags:
        setting = name.removeprefix("--").removeprefix("no-").replace("-", "_")
        takes = command.takes(setting)
        if name in left_out or name in _ARGUMENTS[verb] or (setting.startswith(_FOR_SOME) and not takes):
            continue
        now = _OF_FIT.get(name, name) if verb == "fit" else name
        yield [now, *values], takes or now == "-o" or now[2:].replace("-", "_") in own_fields(command)
