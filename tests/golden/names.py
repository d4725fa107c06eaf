"""Help, and what the program calls things: options, settings, events, metrics, words, exit codes, the library."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import adawise
from adawise import errors
from adawise.__main__ import main
from adawise.cli import COMMANDS, command_of
from adawise.cli.parser import own_fields
from adawise.errors import AdawiseError, Lost, Reason
from adawise.settings.cameras import CameraTable
from adawise.settings.describe import SETTINGS, expected, is_secret, shown
from adawise.watch.metrics import CAMERA_METRICS, METRICS
from adawise.watch.status import facts, troubles
from tools.events import logged

_WIDTH = {"COLUMNS": "100", "NO_COLOR": "1"}
_ENTRY = re.compile(r"^  (-\S+)(?: .*)?\n(?: {7,}.*\n)*", re.MULTILINE)
_REPEATED = re.compile(r"(-\w) ([A-Z][^\s,]*), (--\S+) \2")  # as Python before 3.13 shows two names of an option


def help_texts() -> str:
    """Return what `--help` prints: of options that an earlier command has in the same words, the names alone."""
    known = set[str]()
    families = dict.fromkeys(name.split()[0] for name in COMMANDS if " " in name)
    parts = []
    for words in ([], *([family] for family in families), *(name.split() for name in COMMANDS)):
        text = _REPEATED.sub(r"\1, \3 \2", _printed(*words, "--help"))
        blocks = [_shorter(block, known) for block in f"{text}\n".split("\n\n")]
        parts.append("\n\n".join([" ".join(["$ adawise", *words, "--help"]), *blocks]))
    return "\n".join(parts)


def _shorter(block: str, known: set[str]) -> str:
    """Return a group of options without what is known; add what it says to `known`."""
    title, *_ = block.partition("\n")
    entries = {entry[0].rstrip(): entry[1] for entry in _ENTRY.finditer(f"{block}\n")}
    if "\n".join([title, *entries]) != block.rstrip():
        return block
    if block in known:
        return f"{title}\n  ... ({len(entries)} as before)"
    shown = [entry if entry not in known else f"  {name} ..." for entry, name in entries.items()]
    known.update({block, *entries})
    return "\n".join([title, *shown])


def _printed(*words: str) -> str:
    with (
        patch.dict(os.environ, _WIDTH),
        contextlib.redirect_stdout(io.StringIO()) as text,
        contextlib.suppress(SystemExit),
    ):
        main([*words])
    return text.getvalue()


def names() -> str:
    """Return the names of everything that settings, scripts, dashboards and log queries refer to."""
    sections: Mapping[str, Iterable[str]] = {
        "options": (line for name in COMMANDS for line in _options(name)),
        "settings": (f"{name}: {_field(field)}" for name, field in SETTINGS.items()),
        "keys of a file of cameras": (f"{name}: {_field(field)}" for name, field in CameraTable.model_fields.items()),
        "events": _events(),
        "metrics": (f"{m.name}: {m.kind}{_labels(m.series.labels)}" for m in METRICS),
        "metrics of cameras": (f"{m.name}: {m.kind}{_labels(m.series.labels)}" for m in CAMERA_METRICS),
        "reasons of rejected images": map(str, Reason),
        "reasons of gaps": map(str, Lost),
        "states of a camera": map(str, facts.STATES),
        "kinds of trouble": troubles.KINDS,
        "exit codes": _exit_codes(),
    }
    return "\n".join(f"[{title}]\n" + "".join(f"{line}\n" for line in lines) for title, lines in sections.items())


def _options(command: str) -> Iterator[str]:
    for name, field in own_fields(command_of(command)).items():
        alias = getattr(field.validation_alias, "choices", [name])
        is_argument = any(getattr(mark, "__name__", "") == "_CliPositionalArg" for mark in field.metadata)
        called = name.upper() if is_argument else ", ".join(f"{'-' * min(len(a), 2)}{a}" for a in alias)
        yield f"{command} {called.replace('_', '-')}: {_field(field)}"


def _field(field: FieldInfo) -> str:
    if is_secret(field):
        return f"{expected(field)} = none"
    default = "required" if field.is_required() else f"= {shown(field, field.default)}"
    return f"{expected(field)}; {default}" if default == "required" else f"{expected(field)} {default}"


def _labels(labels: Iterable[str]) -> str:
    return "".join(f" {{{label}}}" for label in labels)


def _events() -> Iterator[str]:
    for name, call in sorted(logged().items()):
        keys = [*sorted(call.keys), *(["..."] if call.more else [])]
        yield f"{name} ({', '.join(sorted(call.levels))}): {', '.join(keys)}".rstrip(": ")


def _exit_codes() -> Iterator[str]:
    """By raising each error in a command."""
    every = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, AdawiseError)]
    raised: list[BaseException] = [AdawiseError.__new__(each) for each in every]  # some take more than a message
    raised += [FileNotFoundError(2, "No such file or directory", "here"), KeyboardInterrupt()]
    for error in raised:
        with (
            patch("adawise.cli.program.run_command", side_effect=error),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            code = main(["verify"])
        bases = [base.__name__ for base in type(error).__bases__]
        yield f"{type(error).__name__}({', '.join(bases)}): {code}"


def library() -> str:
    """Return the public names of `import adawise` with their signatures and members."""
    parts: list[str] = []
    for name in sorted(adawise.__all__):
        value = getattr(adawise, name)
        parts += _class(name, value) if inspect.isclass(value) else [f"{name}{_signature(value)}"]
    return "".join(f"{line}\n" for line in parts)


def _class(name: str, kind: type) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__mro__[1:] if _is_ours(base) or issubclass(base, Exception)]
    yield f"class {name}({', '.join(bases)})"
    if issubclass(kind, BaseModel):
        yield from (f"    {field}: {_field(info)}" for field, info in kind.model_fields.items())
        return
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            has_default = {field.default, field.default_factory} != {dataclasses.MISSING}
            yield f"    {field.name}: {field.type}{' = ...' * has_default}"
    own = {key: value for base in reversed(kind.__mro__) if _is_ours(base) for key, value in vars(base).items()}
    for key, value in own.items():
        plain = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if key.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"    {key} -> {inspect.signature(value.fget or len).return_annotation}"
        elif inspect.isfunction(plain):
            yield f"    {key}{_signature(plain)}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in {"adawise", "adawise_cameras", "adawise_drift", "adawise_lab"}


def _signature(value: Any) -> str:
    """Without the module of a type, for modules move."""
    return re.sub(r"\badawise(?:\.\w+)*\.(?=[A-Z])", "", str(inspect.signature(value)))
