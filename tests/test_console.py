"""Progress and results: plain lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import ast
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.table import Table

import adawise
from adawise.console import Lines, paper, print_json, print_text, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_comes_when_the_last_one_is_old_enough() -> None:
    now, lines = [0.0], list[str]()
    plain = Lines("produced", 100, "images", lines.append, clock=lambda: now[0], every_s=10)
    for now[0], count in ((1.0, 5), (9.9, 5), (10.0, 10), (19.0, 10), (20.0, 10)):
        plain.advance(count)
        plain.note("lag 3")
    assert lines == [
        "produced 20 of 100 images, 2/s, 0:00:40 left, lag 3",
        "produced 40 of 100 images, 2/s, 0:00:30 left, lag 3",
    ]


@pytest.mark.parametrize(("total", "done"), [(None, 4), (4, 0), (4, 4), (4, 5)])
def test_no_line_says_how_long_the_rest_takes_where_nobody_knows_or_there_is_none(total: int | None, done: int) -> None:
    now, lines = [0.0], list[str]()
    plain = Lines("produced", total, "images", lines.append, clock=lambda: now[0])
    now[0] = 1.0
    plain.advance(done)
    plain.write_line()
    assert "left" not in lines[0]


def test_without_a_terminal_the_end_is_one_plain_line() -> None:
    out = io.StringIO()
    with progress("recorded", unit="messages", stream=out) as meter:
        meter.advance(3)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("recorded 3 messages, ")


def test_the_last_line_comes_even_if_the_work_fails() -> None:
    def work() -> None:
        with progress("recorded", 9, stream=out) as meter:
            meter.advance(4)
            raise ValueError("half way")

    out = io.StringIO()
    with pytest.raises(ValueError, match="half way"):
        work()
    assert out.getvalue().startswith("recorded 4 of 9 images")


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with progress("produced", 4, stream=out) as meter:
        meter.advance(4)
        meter.note("lag 3")
    assert "4/4" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_json_has_no_nan() -> None:
    out = io.StringIO()
    print_json({"a": [1.5, float("nan"), float("inf")], 2: {"b": (True, None)}}, out)
    assert json.loads(out.getvalue()) == {"a": [1.5, None, None], "2": {"b": [True, None]}}


@pytest.mark.parametrize("name", ["hall[/2]", "[bold]gate[/bold]", ":door:", "[link=x]y"])
def test_what_is_printed_for_people_is_what_it_says_and_no_pipe_cuts_it_off(name: str) -> None:
    table, out = Table("camera", *(f"column {n}" for n in range(20)), box=None), io.StringIO()
    table.add_row(name, *("12345.678" for _ in range(20)))
    paper(out).print(table)
    paper(out).print(f"group of {name}")
    heads, row, group = out.getvalue().splitlines()
    assert len(heads.split("column")) == 21
    assert row.split() == [name, *["12345.678"] * 20]
    assert group == f"group of {name}"


def around_paper(tree: ast.AST) -> Iterator[str]:
    """Ways to print by rich that are not `paper`: another console, or what makes one, or reads markup, by itself."""
    names: dict[str, str] = {}  # of rich, under which they are known here
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rich":
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == "rich" for alias in node.names):
            yield f"{node.lineno}: import rich"  # whatever it has could be called by it
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        called = names.get(node.func.id, "") if isinstance(node.func, ast.Name) else ""
        if called in {"Console", "print", "print_json", "inspect", "pprint", "get_console", "render", "RichHandler"}:
            yield f"{node.lineno}: {called}"
        if called in {"Live", "Progress", "Status", "track", "Prompt", "Confirm"} and "console" not in given:
            yield f"{node.lineno}: {called} on a console of its own"
        if isinstance(node.func, ast.Attribute) and node.func.attr == "from_markup":
            yield f"{node.lineno}: from_markup"
        for name in {"markup", "emoji"} & given.keys():
            if ast.unparse(given[name]) != "False":
                yield f"{node.lineno}: {name}"


def test_nobody_prints_by_rich_but_on_paper() -> None:
    """Whose markup would be on, and a camera's name an error in it."""
    root = Path(adawise.__file__).parents[1]
    found = {
        str(path.relative_to(root)): found
        for path in root.rglob("*.py")
        if (found := [*around_paper(ast.parse(path.read_text("utf-8")))])
    }
    assert found.keys() == {"adawise/console.py"}
    assert [way.partition(": ")[2] for way in found["adawise/console.py"]] == ["Console"]


@pytest.mark.parametrize(
    "source",
    [
        "from rich.console import Console as C\nC()",
        "from rich import print\nprint(1)",
        "import rich.console",
        "from rich.live import Live\nLive(table)",
        "console.print(name, markup=True)",
        "from rich.text import Text\nText.from_markup(name)",
    ],
)
def test_each_way_around_it_is_found(source: str) -> None:
    assert list(around_paper(ast.parse(source)))


def test_what_is_said_moves_no_cursor_and_has_all_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("hall\x1b[2J\x9b1A\u202e of \u00e9t\u00e9\nand a line", sys.stderr)
    print_text("hall")
    out, err = capsys.readouterr()
    assert (out, err) == ("hall\n", "hall?[2J?1A? of \u00e9t\u00e9\nand a line\n")
