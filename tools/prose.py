"""Measure the prose of the package: how docstrings begin, and words that are to go.

    python -m tools.prose           a table by room
    python -m tools.prose ROOM      each place of a room

A fragment is a docstring that begins as the rest of a sentence ("Of ...", "What ...", "Whether ..."). Words are counted
in docstrings, comments and messages, and in the documents that are written by hand. Names that are public (columns,
settings, metrics, events, options) are names, and not counted.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "pipeline"

FRAGMENT = re.compile(
    r"(of|what|whether|as|who|when|where|how|which|why|that|by|with|in|on|if|for|from|to|since|beside|likewise|those|"
    r"without|so|also|not|one that)\b",
    re.IGNORECASE,
)
WORDS = {  # a word of the house -> the field's
    r"told": "published, logged, reported",
    r"tell(s|ing)?": "publish, log, report",
    r"(?<!dead[ -])letters?(?! of a certificate)": "dead letter",
    r"apart": "isolated",
    r"stands": "blocked",
    r"hear(s|d)?": "received, last seen",
    r"ripe(n|ns|ned|ning)?": "ready",
    r"spoken": "formatted",
    r"whoever": "a user, a process",
    r"nobody": "no one is meant: say who or what",
    r"somebody": "say who",
}
WORDS_IN_NAMES = re.compile(
    r"(apart|ask(ed|ing|s)?|heard|judge[ds]?|letters?|looks|ripe|said|says?|spoken|stands|tell(ing|s)?|(un)?told)"
)
_WORD = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
_CODE = re.compile(r"`[^`]*`")  # names


class _Text(ast.Constant):
    """A constant that is text, for the type checker alone."""

    value: str


@dataclass(slots=True)
class RoomProse:
    """What was found in a room: places of fragments and of words, each a file with a line and its text."""

    docstrings: int = 0
    fragments: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def measured(sources: Path = SOURCES) -> dict[str, RoomProse]:
    """Return the prose of each room of the engine, modules at its top as room ".", and of each companion."""
    found: dict[str, RoomProse] = {}
    for path in sorted(sources.rglob("*.py")):
        inside = path.relative_to(sources)
        package, *rooms = inside.parts[:-1]
        name = (rooms[0] if rooms else ".") if package == "adawise" else package
        room = found.setdefault(name, RoomProse())
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        docstrings = {id(node): node for node in _docstrings(tree)}
        for node in docstrings.values():
            room.docstrings += 1
            if FRAGMENT.match(node.value.strip()):
                room.fragments.append(f"{inside}:{node.lineno}: {node.value.strip().splitlines()[0]}")
        for line, text in (*_strings(tree, docstrings), *_comments(source)):
            room.words += [f"{inside}:{line}: {text.strip()}" for _ in _WORD.findall(_CODE.sub("", text))]
    return found


def documents() -> RoomProse:
    """Return the prose of the documents that are written by hand."""
    found = RoomProse()
    skipped = ROOT / "docs" / "reference"
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))):
        if path.is_relative_to(skipped):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            hits = _WORD.findall(_CODE.sub("", line))
            found.words += [f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for _ in hits]
    return found


def names(sources: Path = SOURCES) -> dict[str, list[str]]:
    """Return each name in the code that has a word of `WORDS_IN_NAMES`, and its places; dead letters have none."""
    found: dict[str, list[str]] = {}
    for path in sorted(sources.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _named(node):
                words = re.sub(r"dead_letters?", "", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).split("_")
                if any(map(WORDS_IN_NAMES.fullmatch, words)):
                    found.setdefault(name, []).append(f"{path.relative_to(sources)}:{getattr(node, 'lineno', 0)}")
    return found


def _named(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node of the syntax tree has of its own."""
    for field_ in ("id", "attr", "arg", "name", "asname"):
        if isinstance(name := getattr(node, field_, None), str):
            yield name


def _is_text(node: ast.AST) -> TypeGuard[_Text]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _docstrings(tree: ast.Module) -> Iterator[_Text]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and _is_text(first.value):
                yield first.value


def _strings(tree: ast.Module, docstrings: dict[int, _Text]) -> Iterator[tuple[int, str]]:
    """Docstrings, and strings with more than one word."""
    for node in ast.walk(tree):
        if _is_text(node) and (id(node) in docstrings or " " in node.value.strip()):
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def main(arguments: list[str]) -> None:
    """Print the table, or the places of the rooms that are named."""
    rooms = {**measured(), "docs": documents()}
    if unknown := sorted(set(arguments) - rooms.keys()):
        sys.exit(f"no room {', '.join(unknown)}; there are {', '.join(sorted(rooms))}")
    if arguments:
        for name in arguments:
            print("\n".join([*rooms[name].fragments, *rooms[name].words]))
        return
    total: Counter[str] = Counter()
    print(f"{'room':14} {'docstrings':>10} {'fragments':>10} {'words':>6}")
    for name, room in (*sorted(rooms.items()), ("all", None)):
        if room is not None:
            total.update(docstrings=room.docstrings, fragments=len(room.fragments), words=len(room.words))
            row = room.docstrings, len(room.fragments), len(room.words)
        else:
            row = total["docstrings"], total["fragments"], total["words"]
        print(f"{name:14} {row[0]:10} {row[1]:10} {row[2]:6}")


if __name__ == "__main__":
    main(sys.argv[1:])
