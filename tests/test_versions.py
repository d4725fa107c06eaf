"""Roots, cards, states and settings of 0.2.0 and of a1a19e03 (after 0.2.1) are read, continued and replayed.

A replay of the latter gives the same bits (`tests/fixtures`).
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from adawise.__main__ import main
from adawise.adapt.names import GRID
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import WarmSearch
from adawise.adapt.surrogate import Surrogate
from adawise.app.model import adaptation, load_model
from adawise.card.card import read_card
from adawise.output.read.rows import read_predictions, read_traces
from adawise.recording.source import RecordingSource
from adawise.settings import read
from adawise.store.store import open_store
from tests.fixtures import making, versions
from tests.sink.footers import read_segment_footers

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
OF_RELEASE, OF_TODAY = FIXTURES / "version_0_2_0", FIXTURES / "version_0_2_1"
LATER = {OF_RELEASE: 1, OF_TODAY: 3}  # batches of each camera that the recording fills beside the open ones
OF_THE_CLOCK = ["milliseconds", "predicted_at", "segment"]
SINCE_THEN = ["forward_cost"]  # columns that the fixtures are older than

pytestmark = pytest.mark.usefixtures("logs_of_this_process")
every_version = pytest.mark.parametrize("folder", [OF_RELEASE, OF_TODAY], ids=lambda folder: folder.name)


@pytest.fixture(autouse=True)
def _beside_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@every_version
def test_commands_read_a_root_before_and_after_it_is_compacted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(folder / "root", tmp_path / "root")
    found = []
    for compacted in ([], ["--before", "2100-01-01"]):
        if compacted:
            assert main(["compact", str(root), *compacted]) == 0
        assert main(["verify", str(root)]) == 0
        assert main(["diff", str(folder / "root"), str(root)]) == 0
        assert main(["files", str(root)]) == 0
        assert main(["status", "--root", str(root), "--no-broker"]) in {0, 3}
        capsys.readouterr()
        assert main(["drift", str(root), "--json"]) == 0
        assert {each["stream_id"] for each in json.loads(capsys.readouterr().out)["cameras"]} == {"north", "east"}
        tables = read_predictions(root).table().sort_by("row_id"), read_traces(root).table().sort_by("first_offset")
        found.append(repr([table.to_pylist() for table in tables]))  # nan equals nan
    assert found[0] == found[1]


@every_version
def test_a_worker_continues_a_root(folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(folder / "root", tmp_path / "root"))
    before = read_traces(root).table().num_rows
    following = RecordingSource(str(folder / "following"), order="timestamp", seed=0, max_poll_records=512)
    making.serve(versions.settings(root), following)
    assert main(["verify", str(root)]) == 0
    traces = read_traces(root).table().sort_by("first_offset").to_pylist()
    assert len(traces) == before + 2 * (LATER[folder] + 1)
    for camera in ("north", "east"):
        batches = [trace for trace in traces if trace["stream_id"] == camera]
        assert [trace["batch_number"] for trace in batches] == list(range(len(batches)))
        assert {trace["reset"] for trace in batches[versions.BATCHES :]} <= {None, "jump"}, "no stream began anew"


def test_a_replay_goes_on_from_the_states_of_the_release(tmp_path: Path) -> None:
    """A later version may choose other alphas, so it is not compared bit by bit."""
    versions.replay(OF_RELEASE, tmp_path / "again")
    before = [footer for _, footer in read_segment_footers(open_store(str(OF_RELEASE / "root")))][-1]
    traces = read_traces(tmp_path / "again").table().sort_by("first_offset").to_pylist()
    for camera in ("north", "east"):
        state = StreamState.from_bytes(before.states[camera])
        first = next(trace for trace in traces if trace["stream_id"] == camera)
        assert (first["batch_number"], first["previous_alpha"]) == (state.batches, GRID[state.alpha_index])
    assert {trace["reset"] for trace in traces} == {None}


def outcome(root: Path) -> tuple[pa.Table, pa.Table, dict[str, bytes]]:
    """Return the rows, the traces and the last states of a replay."""
    footers = [footer for _, footer in read_segment_footers(open_store(str(root)))]
    traces = pa.concat_tables([footer.trace for footer in footers])
    in_order = traces.sort_by([("stream_id", "ascending"), ("batch_number", "ascending")])
    return read_predictions(root).table().sort_by("row_id"), in_order, dict(footers[-1].states)


def learned(states: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return states without `heard`: the partition's clock in it depends on which of two cameras was served first."""
    return {name: {**json.loads(data), "heard": None} for name, data in states.items()}


def test_a_replay_gives_the_bits_that_it_gave_when_the_fixture_was_made(tmp_path: Path) -> None:
    versions.replay(OF_TODAY, tmp_path / "again")
    (rows, traces, states), (rows_then, traces_then, states_then) = map(
        outcome, (tmp_path / "again", OF_TODAY / "replayed")
    )
    assert traces_then.num_rows == 2 * (LATER[OF_TODAY] + 1)
    of_north = traces_then.filter(pc.field("stream_id") == "north")["alpha"]
    assert len(set(of_north.to_pylist())) > 1, "fog comes over it"
    for name in ("stream_id", "first_offset", "last_offset", "batch_number", "images", "alpha", "trigger", "reset"):
        assert traces[name].to_pylist() == traces_then[name].to_pylist(), name
    for name in ("row_id", "label", "alpha", "status", "reason"):
        assert rows[name].to_pylist() == rows_then[name].to_pylist(), name
    if versions.numerics() != (OF_TODAY / "numerics.txt").read_text().strip():
        # float32 sums in another order: some 1e-6 of a logit, which the temperature multiplies
        confidences = [table["confidence"].to_pylist() for table in (rows, rows_then)]
        assert confidences[0] == pytest.approx(confidences[1], abs=1e-4)
        return
    for now, then in ((rows, rows_then), (traces, traces_then)):
        others = [name for name in (*OF_THE_CLOCK, *SINCE_THEN) if name in then.column_names]
        pairs = [table.drop_columns(others).to_pylist() for table in (now, then)]
        assert repr(pairs[0]) == repr(pairs[1])  # nan equals nan, and Python writes a float's every bit
    assert learned(states) == learned(states_then)


@every_version
def test_a_card_keeps_its_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """States of streams know a card by them."""
    card = folder / "pair.card.json"
    assert read_card(card).heads is not None
    assert read_card(card).to_json() == card.read_text()
    assert main(["card", "show", str(card)]) == 0
    assert "entropy" in capsys.readouterr().out
    chosen = versions.settings(Path("unused"))
    assert load_model(chosen.model.model_copy(update={"card": card}), chosen.decode).card == read_card(card)


@every_version
def test_states_of_every_strategy_keep_their_keys_and_what_they_learned(folder: Path) -> None:
    chosen = versions.settings(Path("unused"))
    model = load_model(chosen.model, chosen.decode)
    for entry in json.loads((folder / "states.json").read_text()):
        made = adaptation(versions.settings(Path("unused"), **entry["search"]), model).strategy
        if entry["fitted"]:
            assert isinstance(made, WarmSearch)
            made = replace(made, fitted=Surrogate(GRID, **entry["fitted"]))
        for text in entry["states"]:
            state = StreamState.from_bytes(text.encode())
            assert state.key == made.key
            then, now = json.loads(text), json.loads(state.to_bytes())
            assert then.items() <= now.items()
            assert folder != OF_TODAY or text.encode() == state.to_bytes()


@every_version
def test_a_file_with_all_settings_is_read(folder: Path, tmp_path: Path) -> None:
    file = folder / "settings.toml"
    reading = read(environ={}, folder=tmp_path, config=str(file))
    assert not reading.mistakes
    assert_has(reading.settings.model_dump(mode="json"), tomllib.loads(file.read_text()))


def assert_has(now: dict[str, Any], then: dict[str, Any]) -> None:
    for name, value in then.items():
        if isinstance(value, dict):
            assert_has(now[name], value)
        else:
            assert now[name] == value, name
