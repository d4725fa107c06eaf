"""CONTRIBUTING.md does what it says: its examples are put into a copy of the repository, and their tests run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deadlines import scaled

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


def changed(text: str, diff: str) -> str:
    """The text with the lines of one `-` stretch replaced by those of the `+` stretch after it."""
    old, new = ("".join(f"{line[1:]}\n" for line in diff.splitlines() if line.startswith(sign)) for sign in "-+")
    assert text.count(old) == 1, f"CONTRIBUTING.md changes a line that is not there, or more than once:\n{old}"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's package and tests, with all examples in their places."""
    folder = tmp_path_factory.mktemp("contributing")
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "pair", "fixtures")
    for part in ("pipeline", "tests", "tools"):
        shutil.copytree(ROOT / part, folder / part, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for block in blocks("python"):
        name = re.match(r"# file: (\S+)\n", block)
        assert name, f"a block of CONTRIBUTING.md does not say which file it is:\n{block[:200]}"
        assert not (folder / name[1]).exists()
        (folder / name[1]).write_text(block, encoding="utf-8")
    for block in blocks("diff"):
        head, _, diff = block.partition("\n")
        file = folder / head.removeprefix("--- ")
        file.write_text(changed(file.read_text(encoding="utf-8"), diff), encoding="utf-8")
    return folder


@pytest.mark.check("guide")
@pytest.mark.parametrize(
    ("what", "tests"),
    [
        (
            "a strategy",
            [
                *("tests/adapt/strategies/test_ends.py", "tests/adapt/strategies/test_registry.py"),
                *("tests/adapt/test_state_key.py", "tests/adapt/test_any_stream.py", "-m", "not soak"),
            ],
        ),
        ("an objective", ["tests/adapt/test_margin.py", "tests/adapt/test_objective.py"]),
        ("a source", ["tests/contracts/test_source.py", "tests/test_imports.py", "-k", "json or table"]),
    ],
)
def test_an_example_works(copy: Path, what: str, tests: list[str]) -> None:
    path = os.pathsep.join([str(copy / "pipeline"), str(copy)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=scaled(240.0),
    )
    assert done.returncode == 0, f"{what}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
    assert re.search(r"\b[1-9]\d* passed", done.stdout)


def test_the_examples_keep_to_the_style(copy: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    files = [str(copy / line.removeprefix("# file: ")) for line in GUIDE.splitlines() if line.startswith("# file: ")]
    for rule in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [str(ruff), *rule, *files], cwd=copy, capture_output=True, text=True, timeout=scaled(60.0)
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_quick_are_there() -> None:
    quick = re.search(r"^QUICK := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert quick
    for name in quick[1].split():
        assert (ROOT / name.removeprefix("--ignore=")).exists(), name
