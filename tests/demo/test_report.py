"""The summary as text: sparkline, weather under it, the command for DuckDB, and bad news said plainly."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.demo.report import (
    CameraPath,
    ConditionScore,
    RunSummary,
    duckdb_line,
    letters,
    passages,
    print_summary,
    sparkline,
)
from adawise.demo.script import scripts


def path(numbers: list[int], alphas: list[float]) -> CameraPath:
    return CameraPath(numbers, alphas, [None] * len(numbers))


def test_a_sparkline_shows_each_batch_over_its_share_of_the_frames() -> None:
    assert sparkline(path([1, 3, 7], [0.0, 1.0, 0.5]), 8) == "▁▁██▅▅▅▅"
    assert sparkline(path([1, 3, 7], [0.0, 1.0, 0.5]), 4) == "▁█▅▅"
    assert sparkline(path([1], [0.0]), 3) == "▁▁▁"


def test_a_block_that_covers_two_batches_is_their_mean() -> None:
    assert sparkline(path([0, 3], [0.0, 1.0]), 2) == "▅█"


def test_a_camera_without_a_batch_has_an_empty_sparkline() -> None:
    assert sparkline(path([], []), 8) == ""


def test_a_condition_that_a_camera_knew_again_has_its_letter_again() -> None:
    printed = CameraPath([1, 3, 5, 7], [0.0] * 4, [None] * 4, [7, 2, None, 7])
    assert letters(printed, 8) == "aabbccaa"
    assert letters(printed, 4) == "abca"
    assert letters(CameraPath(), 8) == ""
    many = CameraPath(list(range(30)), [0.0] * 30, [None] * 30, list(range(30)))
    assert letters(many, 30) == "abcdefghijklmnopqrstuvwxyz····"


def test_conditions_stand_under_the_sparkline_where_they_begin_and_never_run_into_each_other() -> None:
    market, _, tunnel, _ = scripts(4000)
    assert passages(tunnel, 40) == "clear       night          glare"
    assert passages(market, 12) == "cl du ni  cl"  # dusk again has one place, and needs it to keep apart


@pytest.mark.parametrize("name", ["plain", "with space", "it's", 'a "quoted" one', "site[1]*"])
def test_the_duckdb_line_reads_an_output_of_any_name(name: str, tmp_path: Path) -> None:
    import duckdb

    root = tmp_path / name
    file = root / "predictions" / "topic-frames" / "partition-00000" / "0.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(
        pa.table({"stream_id": ["a", "a"], "label": ["x", "y"], "true_label": ["x", "x"], "alpha": [0.0, 1.0]}), file
    )
    _, option, program = shlex.split(duckdb_line(root))
    assert option == "-c"
    received: list[object] = []
    exec(program.replace("print", "said.append"), {"said": received})
    assert isinstance(received[0], duckdb.DuckDBPyRelation)
    assert received[0].fetchall() == [("a", 2, 0.5, 0.0, 0.5, 1.0)]


def outcome(*problems: str) -> RunSummary:
    score = ConditionScore("all", 8, 0.5, 0.625, 0.25, 0.375, 0.4)
    return RunSummary(8, 8 - len(problems), problems, 2.0, 1.5, "entropy", (score,))


def printed(result: RunSummary, picture: Path | None = None) -> str:
    out = io.StringIO()
    cameras = scripts(8)
    print_summary(result, cameras, [path([1], [0.5])] * len(cameras), Path("runs/demo"), picture, stream=out)
    return out.getvalue()


def test_a_whole_run_says_images_in_are_rows_out_and_where_everything_is() -> None:
    text = printed(outcome(), Path("runs/demo/alpha.png"))
    assert "images in = rows out = 8" in text
    assert "4 images/s over 2.0 s" in text
    assert "1.50 forward equivalents" in text
    assert "verify runs/demo" in text
    assert "picture: runs/demo/alpha.png" in text


def test_served_worse_than_a_fixed_alpha_is_said_as_it_is() -> None:
    assert "served 0.500; the best of the three fixed alphas on these images, zero-shot, 0.625 (-0.125)" in printed(
        outcome()
    )


def test_a_run_that_lost_an_image_says_so_first() -> None:
    text = printed(outcome("1 images are not in the output, the first is depot-000001"))
    assert text.strip().startswith("NOT every image is in the output once: 8 in, 7 rows out")
    assert "depot-000001" in text
    assert "images in = rows out" not in text


def test_without_the_plotting_library_the_remedy_is_named() -> None:
    assert "pip install 'adawise[report]'" in printed(outcome())
