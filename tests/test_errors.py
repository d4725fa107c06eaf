"""The tree of errors that `adawise.errors` draws is the tree of its classes, and all of them are raised in one way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import adawise
from adawise import errors
from adawise.errors import AdawiseError

ROOT = Path(adawise.__file__).parents[1]
MODULES = sorted([*ROOT.rglob("*.py"), *(Path(__file__).parent.parent / "tools").rglob("*.py")])


@dataclass(frozen=True)
class Found:
    """Every class, and what is raised with the statement before it."""

    classes: list[tuple[Path, ast.ClassDef]]
    raised: list[tuple[Path, ast.stmt, ast.Raise]]


def drawn() -> Iterator[tuple[int, str]]:
    """(depth, name) of each line of the drawing, from the top."""
    for line in (errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    ((?:│   |    )*)([├└]── )?([A-Z]\w+)(?: {2,}\S.*)?", line):
            indent, branch, name = match.groups()
            yield len(indent) // 4 + (branch is not None), name


def defined(error: type[AdawiseError] = AdawiseError, depth: int = 0) -> Iterator[tuple[int, str]]:
    """The same of the classes, in the order of their definition."""
    yield depth, error.__name__
    for below in error.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from defined(below, depth + 1)


def test_the_tree_that_is_drawn_is_the_tree_of_the_classes() -> None:
    assert list(drawn()) == list(defined())


@pytest.fixture(scope="module")
def found() -> Found:
    """What the tests ask of the code, from one look at each file."""
    found = Found([], [])
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.classes.append((path, node))
            found.raised.extend(
                (path, before, following) for before, following in _neighbours(node) if isinstance(following, ast.Raise)
            )
    return found


def test_errors_of_the_tree_are_defined_in_it_alone(found: Found) -> None:
    names = {name for _, name in drawn()}
    for path, node in found.classes:
        if path.name != "errors.py":
            assert not names & {ast.unparse(base).rpartition(".")[2] for base in node.bases}, f"{path}: {node.name}"


def test_a_message_stands_where_it_is_raised(found: Found) -> None:
    """`raise X("...")`, and not `msg = "..."` and then `raise X(msg)`."""
    assert found.raised
    for path, before, following in found.raised:
        if isinstance(before, ast.Assign) and isinstance(before.value, ast.JoinedStr | ast.Constant):
            assert ast.unparse(before.targets[0]) != _begin(following), f"{path}:{following.lineno}"


def _neighbours(node: ast.AST) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield from pairwise(block)


def _begin(statement: ast.Raise) -> str | None:
    """The variable that what is raised is told by, or with which its text begins."""
    if not (isinstance(statement.exc, ast.Call) and statement.exc.args):
        return None
    text = statement.exc.args[-1]
    if isinstance(text, ast.JoinedStr) and isinstance(text.values[0], ast.FormattedValue):
        text = text.values[0].value
    return text.id if isinstance(text, ast.Name) else None
