"""The README's recipes work on what a worker writes, and its configuration is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adawise.settings import read
from adawise.store.store import LocalStore
from tests.sink.building import IDENTITY, TP, draft, frame, open_chain, served

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `runs/yard` is the output of a worker."""
    folder = tmp_path_factory.mktemp("readme")
    chain = open_chain(LocalStore(folder / "runs" / "yard"))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    labelled = [replace(frame(offset, stream="camera-0"), true_label="car") for offset in range(16)]
    chain.commit(replace(draft(0, 16), accepted=[served(labelled)]))
    return folder


@pytest.mark.parametrize("number", range(4))
def test_a_recipe_prints_something(folder: Path, number: int) -> None:
    recipe = blocks("python")[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", recipe], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "camera-0" in done.stdout


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    (tmp_path / "adawise.toml").write_text(blocks("toml")[0])
    reading = read((), environ={}, folder=tmp_path, config=None, uses=frozenset())
    assert not reading.mistakes
    assert reading.settings is not None
    assert reading.settings.sink.root == "runs/yard"


def test_the_columns_of_the_tables_are_those_of_the_files() -> None:
    from adawise.sink.schemas import PREDICTIONS, TRACES

    shown = set(re.findall(r"`([a-z_]+)`", README[README.index("| predictions |") : README.index("DuckDB:")]))
    assert set(PREDICTIONS.names) <= shown
    assert set(TRACES.names) - {"topic", "partition", "model_fingerprint", "segment"} <= shown


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"adawise ([a-z]+)", README))
    done = subprocess.run(
        [sys.executable, "-m", "adawise", "--help"], capture_output=True, text=True, env={**os.environ}, timeout=60
    )
    for command in named:
        assert re.search(rf"^\s+{command}\b", done.stdout, re.MULTILINE), command
