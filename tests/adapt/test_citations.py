"""Every formula of the method names its source, and every source that the package names is in the bibliography."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipeline"
PAGE = ROOT / "docs" / "decisions" / "formulas.md"
FORMULA = frozenset(
    {
        *("cov", "cross_entropy", "entr", "erf", "exp", "expm1", "hermegauss", "inv", "lerp", "log", "log1p"),
        *("log_softmax", "logaddexp", "outer", "pow", "slogdet", "softmax", "solve", "svd"),
    }
)
"""Functions whose call makes a function of the method a formula; roots and means alone do not."""

_YEAR = r"\(?((?:17|18|19|20)\d\d)\b"
_CITATION = re.compile(rf"\b([A-Z][\w-]+)(?: et al\.|'s(?: \w+)?)?,? {_YEAR}")
_SOURCE = re.compile(rf"{_YEAR}|\bour own\b")
_CITING = (
    "adawise/adapt",
    "adawise/card",
    "adawise/labels",
    "adawise_drift/changes",
    "adawise_drift/events",
    "adawise_lab",
)
"""The rooms that have formulas."""


def functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Each function or method with its docstring and that of its class."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node, ast.get_docstring(node) or ""
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield inner, f"{ast.get_docstring(inner) or ''}\n{ast.get_docstring(node) or ''}"


def formulas(source: str) -> Iterator[tuple[str, str]]:
    """The name and the docstrings of each function that computes one of `FORMULA`."""
    for function, docstring in functions(ast.parse(source)):
        calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
        if any(isinstance(called, ast.Attribute) and called.attr in FORMULA for called in calls):
            yield function.name, docstring


def cited(source: str) -> set[tuple[str, str]]:
    """(surname, year) of each citation in docstrings and comments."""
    return set(_CITATION.findall(re.sub(r"\s*\n\s*(?:# )?", " ", source)))


def bibliography() -> set[str]:
    """The sources of the page."""
    _, _, sources = PAGE.read_text(encoding="utf-8").partition("## Sources\n")
    return {" ".join(entry.split()) for entry in sources.strip().removeprefix("- ").split("\n- ")}


METHOD = sorted((PACKAGE / "adawise" / "adapt").rglob("*.py"))


@pytest.mark.parametrize("path", METHOD, ids=lambda path: path.stem)
def test_a_formula_of_the_method_names_its_source_or_says_that_it_is_our_own(path: Path) -> None:
    without = [name for name, docstring in formulas(path.read_text(encoding="utf-8")) if not _SOURCE.search(docstring)]
    assert not without


def test_there_are_formulas_to_look_at() -> None:
    assert len([found for path in METHOD for found in formulas(path.read_text(encoding="utf-8"))]) > 20


def test_a_formula_without_a_source_is_found() -> None:
    (found,) = formulas('def gain(x):\n    """Return the gain."""\n    return math.exp(x)\n')
    assert not _SOURCE.search(found[1])


def test_each_source_that_is_cited_is_in_the_bibliography_and_the_other_way_round() -> None:
    entries, used = bibliography(), set[str]()
    for path in (path for room in _CITING for path in (PACKAGE / room).rglob("*.py")):
        for surname, year in cited(path.read_text(encoding="utf-8")):
            found = [entry for entry in entries if surname in entry.partition("(")[0] and f"({year})" in entry]
            assert found, f"{path.relative_to(ROOT)} cites {surname} {year}: add it to the sources of {PAGE.name}"
            used.update(found)
    assert not entries - used
