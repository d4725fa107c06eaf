"""What users' programs depend on is as the golden files say."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest

from tests.golden import files
from tests.golden.pages import FOLDER, OF_CODE, OF_FILES, REMEDY

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def written(name: str) -> list[str]:
    return (FOLDER / name).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", OF_CODE)
def test_the_code_has_what_the_golden_file_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert OF_CODE[name]().splitlines() == written(name), REMEDY


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a worker, a replay and operators' commands wrote."""
    folder = tmp_path_factory.mktemp("golden")
    with chdir(folder):
        files.make()
    return folder


@pytest.mark.parametrize("name", OF_FILES)
def test_what_is_written_and_printed_is_as_the_golden_file_says(
    name: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    assert OF_FILES[name]().splitlines() == written(name), REMEDY


def test_each_golden_file_is_compared() -> None:
    assert {file.name for file in FOLDER.glob("*.txt")} == {*OF_CODE, *OF_FILES}
