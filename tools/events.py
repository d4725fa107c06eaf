"""The events that the code logs, read off its calls: name, levels, keys. `tools.docs` adds what they mean."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import adawise
from adawise.worker.observer import outage_event

_LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
_LOGGERS = {"log", "_log"}
_RENDERED = {"exc_info": "exception"}
"""Keys that have another name in the line."""
_ROOT = Path(adawise.__file__).parents[1]


@dataclass(slots=True)
class LoggedCall:
    """An event over all calls that log it. `more` is true where keys are only known when it is logged."""

    levels: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    more: bool = False


def logged() -> dict[str, LoggedCall]:
    """Every event by its name."""
    found: dict[str, LoggedCall] = {}
    for path in sorted(_ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "structlog" in text:  # the others log sentences, as libraries do
            for name, level, keywords in _of_module(ast.parse(text)):
                call = found.setdefault(name, LoggedCall())
                call.levels.add(level)
                keys = [_RENDERED.get(each.arg, each.arg) for each in keywords if each.arg is not None]
                call.keys += [key for key in keys if key not in call.keys]
                call.more = call.more or any(each.arg is None for each in keywords)
    return found


def _of_module(tree: ast.Module) -> Iterator[tuple[str, str, list[ast.keyword]]]:
    passed = [*_passed_on(tree)]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS):
            continue
        if node.args and _is_logger(node.func.value):
            for name in [*_constants(node.args[0])] or passed:
                yield name, _LEVELS[node.func.attr], node.keywords


def _is_logger(node: ast.expr) -> bool:
    """`log`, `_log`, `self._log`, `structlog.get_logger(...)`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "get_logger"
    return (isinstance(node, ast.Name) and node.id in _LOGGERS) or (
        isinstance(node, ast.Attribute) and node.attr in _LOGGERS
    )


def _constants(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _constants(node.body)
        yield from _constants(node.orelse)
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == outage_event.__name__:
        yield "store_filled"
        yield from _constants(node.args[1])
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _passed_on(tree: ast.Module) -> Iterator[str]:
    """Names that are given to a function or a class of the module whose first argument is called `event`."""
    takers = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "event" in [each.arg for each in node.args.args[:2]]:
            takers.add(node.name)
        if isinstance(node, ast.ClassDef):
            first = next((each for each in node.body if isinstance(each, ast.AnnAssign)), None)
            if first is not None and isinstance(first.target, ast.Name) and first.target.id == "event":
                takers.add(node.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in takers:
                yield from _constants(node.args[0])
