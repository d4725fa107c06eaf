"""A replay goes on from what a replay knew at a time of the cameras: all of its segments were written long after."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from adawise.errors import SettingsError
from adawise.labels.compare.compare import compare
from adawise.output.read.rows import read_traces
from adawise.store.store import open_store
from tests.replay.cameras import BATCHES, run, taken, write_recording
from tests.sink.footers import read_segment_footers

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def first(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recording, tmp_path_factory.mktemp("runs") / "first")


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(seconds=4)])
def test_states_know_of_no_image_after_the_moment_and_the_replay_goes_on_as_the_first_one_did(
    recording: Path, first: Path, tmp_path: Path, ahead: timedelta
) -> None:
    moment = taken(7) + ahead
    on = run(recording, tmp_path / "on", state_of=f"{first}@{moment.isoformat()}")
    assert not compare(first, on).differs
    known = dict(read_segment_footers(open_store(str(first))))
    begun = [footer for _, footer in read_segment_footers(open_store(str(on))) if footer.states_of]
    assert sorted(footer.partition for footer in begun) == [0, 1]
    for footer in begun:
        key = str(footer.states_of).removeprefix(f"{first}/")
        after = min(each for each in known if each > key)  # it is the newest that may be taken
        assert max(known[key].trace["captured_at"].to_pylist()) <= moment
        assert max(known[after].trace["captured_at"].to_pylist()) > moment
    times = read_traces(on, columns=["time"]).table()["time"].to_pylist()
    assert {taken(n) for n in range(8, BATCHES)} <= set(times) < {taken(n) for n in range(1, BATCHES)}


def test_a_moment_before_the_first_image_is_refused_and_says_when_it_was(
    recording: Path, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as refused:
        run(recording, tmp_path / "none", state_of=f"{first}@2026-03-01T07:59:00Z")
    output = str(refused.value)
    assert "by the cameras' time" in output
    assert "it begins at 2026-03-01T08:00:00+00:00, of camera 'north'. Name a later moment" in output


def test_a_replay_of_a_version_without_owners_is_known_by_its_claim(
    recording: Path, first: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(first, tmp_path / "old"))
    (old / "_owner.json").unlink()
    on = run(recording, tmp_path / "on", state_of=f"{old}@{taken(7).isoformat()}")
    assert not compare(first, on).differs
