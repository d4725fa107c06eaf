"""The file to begin with: it is read as it stands, it says what holds anyway, and it leaves nothing out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from adawise.__main__ import main
from adawise.settings import Settings, read
from adawise.settings.describe import NO_DEFAULT, SETTINGS, template
from adawise.settings.requirements import NEEDED

Captured = pytest.CaptureFixture[str]
DEFAULT = re.compile(r"#(\w+ = .*)")  # a comment proper has a blank behind its #


def uncommented(*, all_of_them: bool = False) -> str:
    """The template with its defaults, or with all that it names, set."""
    lines = template().splitlines()
    found = [DEFAULT.fullmatch(line) for line in lines]
    return "\n".join(
        match[1] if match and (all_of_them or not line.endswith(NO_DEFAULT)) else line
        for line, match in zip(lines, found, strict=True)
    )


def test_as_it_stands_it_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "adawise.toml").write_text(template())
    reading = read((), environ={}, folder=tmp_path)
    assert not reading.mistakes
    assert reading.settings == Settings()
    assert {origin.source for origin in reading.origins.values()} == {"default"}


def test_every_default_in_it_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "adawise.toml").write_text(uncommented())
    reading = read((), environ={}, folder=tmp_path)
    assert not reading.mistakes
    assert reading.settings == Settings()
    set_there = {name for name, origin in reading.origins.items() if origin.source == "file"}
    assert set_there == {name for name, field in SETTINGS.items() if field.default is not None}


def test_every_setting_is_in_it_once_under_its_table_with_what_it_is() -> None:
    names: list[str] = []

    def walk(table: dict[str, object], prefix: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                names.append(f"{prefix}{key}")

    walk(tomllib.loads(uncommented(all_of_them=True)), "")
    assert sorted(names) == sorted(SETTINGS)
    words = " ".join(template().replace("\n# ", " ").split())
    for name, field in SETTINGS.items():
        assert " ".join(str(field.description).split()) in words, name
    assert words.count("NEEDED by a worker: ") == len(NEEDED)
    assert max(map(len, template().splitlines())) <= 120


def test_it_is_written_once_and_never_over_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "init"]) == 0
    assert "wrote adawise.toml: set model.theta_0" in capsys.readouterr().out
    assert Path("adawise.toml").read_text() == template()
    Path("adawise.toml").write_text("# mine\n")
    assert main(["config", "init"]) == 2
    assert "adawise.toml exists and was not changed" in capsys.readouterr().err
    assert Path("adawise.toml").read_text() == "# mine\n"
    assert main(["config", "init", "nowhere/yard.toml"]) == 2
    assert "nowhere/yard.toml: No such file or directory; name a file" in capsys.readouterr().err
    assert main(["config", "init", "-"]) == 0
    assert capsys.readouterr().out == template()


def test_a_file_that_is_wrong_does_not_keep_anybody_from_beginning_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("adawise.toml").write_text("[kafka\n")
    assert main(["config", "init", "new.toml"]) == 0
    assert Path("new.toml").read_text() == template()
    assert not capsys.readouterr().err
