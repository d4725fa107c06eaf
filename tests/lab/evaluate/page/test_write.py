"""The file: whole, closed to the outside, the same for the same result; and what happens where it cannot be made."""

from __future__ import annotations

import html
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.errors import SettingsError
from adawise.page import render, theme
from adawise.page.render import drawing_library
from adawise_lab.evaluate.page import PAGE, Provenance, page, write_page
from adawise_lab.evaluate.result import RESULT, Result
from tests.lab.evaluate.building import a_table, write_tables
from tests.lab.evaluate.page.conftest import HOSTILE

STYLE = (Path(render.__file__).parent / "colours.css").read_text(encoding="utf-8")


def test_nothing_outside_is_named_beside_the_drawing_library(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8").replace(drawing_library(), "")
    assert len(text) < page_file.stat().st_size - 500_000  # the library was in it, word for word
    assert re.findall(r"https?:|\burl\(|@import", text) == []
    assert {target[0] for target in re.findall(r'\b(?:src|href)="([^"]*)"', text)} <= {"#", "d"}
    assert 'href="data:,"' in text


def test_the_browser_is_told_to_fetch_nothing(page_file: Path) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page_file.read_text(encoding="utf-8"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy


def test_it_is_smaller_than_six_megabytes(page_file: Path) -> None:
    assert page_file.stat().st_size < 6 * 2**20


def test_a_hostile_name_does_not_stand_in_the_file_as_it_is(page_file: Path) -> None:
    assert HOSTILE not in page_file.read_text(encoding="utf-8")


@pytest.mark.check("lab")
def test_the_same_result_gives_the_same_page(result: Result, made: Provenance, page_file: Path) -> None:
    assert page(result, made) == page_file.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_named(result: Result, made: Provenance, tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(SettingsError, match=r"page\.html cannot be written .* Name a folder"):
        write_page(tmp_path, result, made)


def test_without_the_extra_the_table_is_printed_and_one_line_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name in {"altair", "vl_convert"} else find(name, package)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", without)
    tables = write_tables(tmp_path / "tables", a_table("known_a", 0.7))
    flags = ["--streams", "short", "--orders", "iid", "--seeds", "1", "--processes", "1", "--strategies", "fixed"]
    assert main(["evaluate", "--logits", str(tables), *flags, "-o", "kept"]) == 0
    out, err = capsys.readouterr()
    assert "fixed" in out
    assert "kept: no page.html, it needs altair, vl-convert-python (pip install 'adawise[report]')" in err
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["paths.parquet", "result.json"]


def test_the_command_on_the_page_would_do_the_same_without_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAWISE_SEARCH__ALPHA", "0.25")
    write_tables(tmp_path / "my tables", a_table("known_a", 0.7))
    flags = ["--streams", "short", "--orders", "iid", "--seeds", "1", "--processes", "1", "--strategies", "fixed"]
    assert main(["evaluate", "--logits", "my tables", *flags, "-o", "kept"]) == 0
    (output,) = re.findall('<pre tabindex="0"><code>(.*?)</code>', (tmp_path / "kept" / PAGE).read_text(), re.S)
    program, *command = shlex.split(html.unescape(output))
    assert program == "adawise"
    assert command[-2:] == ["--search.alpha", "0.25"]
    monkeypatch.delenv("ADAWISE_SEARCH__ALPHA")
    first = (tmp_path / "kept" / RESULT).read_bytes()
    (tmp_path / "kept" / RESULT).unlink()
    assert main(command) == 0
    assert (tmp_path / "kept" / RESULT).read_bytes() == first


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


SCHEMES = [
    dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
def test_words_and_series_stand_out_from_the_paper(scheme: dict[str, str]) -> None:
    for name in ("ink", "muted", "link"):
        assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
        assert contrast(scheme[name], scheme["band"]) >= 4.5, name
    for name in ("served", "zero-shot", "fine-tuned", "best-fixed", "oracle", "level"):
        assert contrast(scheme[name], scheme["paper"]) >= 3.0, name


def test_every_colour_of_the_figures_is_in_both_schemes() -> None:
    used = {value[6:-1] for value in vars(theme).values() if isinstance(value, str) and value.startswith("var(--")}
    assert len(used) == 13
    assert len(SCHEMES) == 2
    assert all(used <= set(scheme) for scheme in SCHEMES)
