"""What a message about a place without an output says of those near it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adawise.errors import SettingsError
from adawise.output.near import did_you_mean, expect_begun, expect_outputs, no_output
from adawise.sink import layout


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with the outputs `yard` and `hall`, and something else."""
    for name in ("yard", "hall"):
        (tmp_path / name).mkdir()
        (tmp_path / name / layout.SINK).write_text("{}")
    (tmp_path / "yards.txt").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_an_output_of_a_similar_name_is_meant(runs: Path) -> None:
    assert str(no_output(str(runs / "yrad"))) == (
        f"there is no output of a worker in {runs}/yrad; name the folder of sink.root or -o: did you mean {runs}/yard?"
    )
    assert did_you_mean(str(runs / "empty")) == ""
    assert did_you_mean(str(runs / "yard2")) == "", "the second of two is another one, and no misspelling"
    assert did_you_mean(str(runs / "nowhere" / "yard")) == ""


def test_the_only_output_in_a_folder_is_meant_and_of_several_none(runs: Path) -> None:
    assert did_you_mean(str(runs)) == ""
    (runs / "hall" / layout.SINK).unlink()
    assert did_you_mean(str(runs)) == f": did you mean {runs}/yard?"


def test_the_folder_of_a_plan_is_named_with_its_first_shard(runs: Path) -> None:
    (runs / "empty" / layout.PLAN).write_text("{}")
    text = (
        f"{runs}/empty holds the plan of a replay; name the root of one of its shards, such as {runs}/empty/shard-00000"
    )
    assert str(no_output(str(runs / "empty"))) == text
    assert [*(runs / "empty").iterdir()] == [runs / "empty" / layout.PLAN]


def test_object_stores_are_not_searched() -> None:
    assert did_you_mean("s3://bucket/yrad") == ""
    expect_outputs(["s3://bucket/yrad"])


def test_a_local_folder_is_looked_at_before_anything_is_loaded(runs: Path) -> None:
    expect_outputs([str(runs / "yard"), str(runs / "hall")])
    with pytest.raises(SettingsError, match=r"no output of a worker in .*/yrad; .* did you mean .*/yard"):
        expect_outputs([str(runs / "hall"), str(runs / "yrad")])


def test_only_a_root_without_the_document_of_every_output_has_not_begun(runs: Path) -> None:
    for root in (runs / "absent", runs / "empty", runs / "yards.txt"):
        with pytest.raises(SettingsError, match="there is no output of a worker"):
            expect_begun(str(root), "name one")
    (runs / "empty" / layout.SINK).mkdir()  # damaged: the reader names it
    (runs / "owned").mkdir()
    (runs / "owned" / layout.OWNER).touch()
    for begun in (str(runs / "yard"), str(runs / "owned"), str(runs / "empty"), "s3://bucket/yard", "\0", "x" * 5_000):
        expect_begun(begun, "name one")
