"""Replays of cameras with shortlists: what the rows and traces show, and what a camera goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from adawise.__main__ import main
from adawise.adapt import shortlist
from adawise.adapt.shortlist import Shortlist
from adawise.labels.compare.compare import compare
from adawise.output.read.rows import read_predictions, read_traces
from adawise.output.verify.root import verify
from adawise.store.store import open_store
from tests.fixtures.making import settings
from tests.replay.cameras import run, taken, write_recording

pytestmark = pytest.mark.usefixtures("logs_of_this_process")

CLASSES = [line for line in Path(settings(Path("unused")).model.classes or "").read_text().splitlines() if line]
LISTED = CLASSES[1:3]
OF_NORTH = [{"streams": "n*", "classes": [*reversed(LISTED)]}]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def plain(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recording, tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="module")
def listed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recording, tmp_path_factory.mktemp("runs") / "listed", shortlists=OF_NORTH)


def test_a_camera_shows_the_classes_of_its_shortlist_and_its_neighbour_is_served_as_without(
    plain: Path, listed: Path
) -> None:
    rows = read_predictions(listed, streams=["north"]).table()
    shown = {name for names in rows["top_labels"].to_pylist() for name in names}
    ends = {*rows["zero_shot_label"].to_pylist(), *rows["fine_tuned_label"].to_pylist()} - {None}
    assert shown == {*LISTED}
    assert ends <= {*LISTED}
    assert [sum(values) for values in rows["top_probabilities"].to_pylist()] == pytest.approx([1.0] * len(rows))
    assert {*read_predictions(plain, streams=["north"]).table()["label"].to_pylist()} - {*LISTED}
    of_south = [read_predictions(root, streams=["south"]).table().drop(["predicted_at"]) for root in (plain, listed)]
    assert of_south[0].equals(of_south[1])
    traces = read_traces(listed, columns=["stream_id", "shortlist", "reset", "off_list"]).table().to_pylist()
    digest = Shortlist.of([1, 2], CLASSES).digest
    assert {(trace["stream_id"], trace["shortlist"]) for trace in traces} == {("north", digest), ("south", None)}
    assert "shortlist" not in {trace["reset"] for trace in traces}
    assert {(trace["stream_id"], trace["off_list"] is None) for trace in traces} == {("north", False), ("south", True)}


def test_a_replay_with_the_same_shortlists_is_equal(recording: Path, listed: Path, tmp_path: Path) -> None:
    assert not compare(listed, run(recording, tmp_path / "again", shortlists=OF_NORTH)).differs


@pytest.mark.check("replay")
def test_what_the_shortlist_lacks_is_the_same_in_a_replay_and_in_a_compacted_root(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlist, "SURE", 0.12)  # the pair is never sure of noise
    one, other = (run(recording, tmp_path / name, shortlists=OF_NORTH) for name in ("one", "other"))

    def lacking(root: Path) -> dict[int, list[tuple[str, int]]]:
        traces = read_traces(root, streams=["north"], columns=["first_offset", "off_list"]).table().to_pylist()
        return {trace["first_offset"]: trace["off_list"] for trace in traces}

    before = lacking(one)
    names = {name for batch in before.values() for name, _ in batch}
    assert names
    assert names <= {*CLASSES} - {*LISTED}
    assert lacking(other) == before
    assert main(["compact", str(other), "--before", "2100-01-01"]) == 0
    assert lacking(other) == before
    assert [*verify(open_store(str(other)))] == []
    assert not compare(one, other).differs


def test_a_state_of_before_the_shortlist_starts_anew_once(recording: Path, plain: Path, tmp_path: Path) -> None:
    on = run(recording, tmp_path / "on", state_of=f"{plain}@{taken(7).isoformat()}", shortlists=OF_NORTH)
    traces = read_traces(on, columns=["stream_id", "batch_number", "reset", "previous_alpha"]).table().to_pylist()
    reset, *others = [trace for trace in traces if trace["reset"] == "shortlist"]
    assert (reset["stream_id"], reset["batch_number"], reset["previous_alpha"]) == ("north", 0, None)
    assert others == []
    assert [*verify(open_store(str(on)))] == []
