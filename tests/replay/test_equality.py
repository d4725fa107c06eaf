"""A replay gives what the live run gave, bit by bit, however the partitions' messages interleave."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from adawise.ports import SegmentDraft
from adawise.records import TopicPartition
from adawise.replay.batches import read_batch_ends
from adawise.replay.replay import ReplayRequest, replay
from adawise.settings import read
from adawise.settings.tree import REPLAY_GROUPS
from adawise.sink import layout
from adawise.sink.files import segment_keys
from adawise.store.store import LocalStore
from adawise.worker.partition import PartitionWork
from tests.output.compaction.building import LIMITS, compacted
from tests.replay.runs import Recorded, adawise, assert_same, end, events, predictions, process, traces
from tests.replay.street import BATCH_IMAGES, CAMERAS
from tests.replay.test_parts import MIDDLE
from tests.sink.building import IDENTITY, TP, draft, frame, open_chain, served

OTHER = TopicPartition(TP.topic, TP.partition + 1)


def shuffled(recorded: Recorded, output: Path, seed: int) -> Path:
    """Replay with an interleaving that only chance knows; polls are of chance sizes too."""
    reading = read((), environ={}, folder=recorded.folder, config=None, uses=frozenset(REPLAY_GROUPS))
    assert not reading.mistakes
    before = Path.cwd()
    os.chdir(recorded.folder)
    try:
        request = ReplayRequest(
            reading.settings, str(output), recording=str(recorded.recording), order="shuffled", seed=seed
        )
        assert not replay(request).stopped
    finally:
        os.chdir(before)
    return output


def test_the_live_run_served_every_image_and_ended_batches_in_every_way(recorded: Recorded) -> None:
    rows = predictions(recorded.live)
    assert rows.num_rows == recorded.rows >= 300
    assert set(rows["status"].to_pylist()) == {"accepted", "rejected", "skipped"}
    sizes: dict[str, list[int]] = {}
    for trace in traces(recorded.live):
        sizes.setdefault(trace["stream_id"], []).append(trace["images"])
    assert len(sizes) == CAMERAS
    assert sizes["camera-00"] == 2 * [BATCH_IMAGES, BATCH_IMAGES, 3]  # by count, then by the clock, both times
    assert sizes["camera-01"] == 8 * [2]  # by stamps; the fourth and the last by the clock
    assert sizes["camera-02"] == 2 * [7, 8, 1]
    assert sizes["camera-03"] == 2 * [5, 3, 5, 1]  # Arrow batches as they were sent, one without its bad row
    assert len(set(rows["alpha"].drop_null().to_pylist())) > 2, "the search never moved: equality would say little"
    assert Counter(rows["zero_shot_label"].to_pylist())[None] < rows.num_rows, "no endpoint was evaluated"


def test_a_replay_in_the_broker_s_order_equals_the_live_run(recorded: Recorded, tmp_path: Path) -> None:
    assert adawise(recorded.folder, "replay", "recording", "-o", str(tmp_path / "again")) == 0
    assert_same(tmp_path / "again", recorded.live)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.check("replay"))])
def test_a_replay_equals_the_live_run_however_partitions_interleave(
    recorded: Recorded, tmp_path: Path, seed: int
) -> None:
    assert_same(shuffled(recorded, tmp_path / "shuffled", seed), recorded.live)


def test_a_replay_stopped_in_the_middle_goes_on_by_the_same_command(recorded: Recorded, tmp_path: Path) -> None:
    command = ("replay", "recording", "-o", str(tmp_path / "parts"), "--log.level", "debug", "--sink.flush-rows", "16")
    with process(recorded.folder, *command, pipe_bytes=4096) as running:
        log = events(running.stderr)
        assert any(event["event"] == "segment_committed" for event in log)  # and then nobody reads the log: it waits
        code, output = end(running)
    assert (code, "the same command goes on" in output) == (130, True)
    assert 0 < predictions(tmp_path / "parts").num_rows < recorded.rows
    assert adawise(recorded.folder, *command) == 0
    assert_same(tmp_path / "parts", recorded.live)


@pytest.mark.check("replay")
def test_these_tests_would_see_batches_that_depend_on_what_a_poll_brings(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def polled(self: PartitionWork, now_s: float, *, drained: bool) -> None:
        self.gathering.close_all()

    monkeypatch.setattr(PartitionWork, "is_due", lambda self, now_s: True)
    monkeypatch.setattr(PartitionWork, "polled", polled)
    with pytest.raises(AssertionError):
        assert_same(shuffled(recorded, tmp_path / "mutant", 1), recorded.live)


def test_a_replay_by_the_batches_of_another_run_ends_them_alike_whatever_its_own_settings_say(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, again = str(tmp_path / "other"), str(tmp_path / "again")
    assert (
        adawise(
            recorded.folder, "replay", "recording", "-o", other, "--batch.images", "3", "--search.strategy", "fixed"
        )
        == 0
    )
    command = ("replay", "recording", "-o", again, "--batches-of")
    assert adawise(recorded.folder, *command, other, "--search.strategy", "fixed") == 0
    ends = [
        [(row["stream_id"], row["first_offset"], row["last_offset"]) for row in traces(Path(each))]
        for each in (other, again)
    ]
    assert ends[0] == ends[1]
    assert len(ends[0]) > len(traces(recorded.live))
    assert adawise(recorded.folder, *command, other, "--search.strategy", "fixed") == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert adawise(recorded.folder, *command, str(recorded.live), "--search.strategy", "fixed") == 2, (
        "it is another replay"
    )


def test_a_replay_by_batches_goes_on_after_topic_and_root_have_grown(recorded: Recorded, tmp_path: Path) -> None:
    """A run until `MIDDLE` claims less than there is now, as one before they grew did."""
    command = ("replay", "recording", "-o", str(tmp_path / "again"), "--batches-of", str(recorded.live))
    assert adawise(recorded.folder, *command, "--search.strategy", "fixed", "--until", MIDDLE) == 0
    assert adawise(recorded.folder, *command, "--search.strategy", "fixed") == 0


def test_a_chain_that_begins_with_a_message_of_no_batch_has_the_first_batches(tmp_path: Path) -> None:
    chain = open_chain(LocalStore(tmp_path))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    chain.commit(SegmentDraft(TP, 6, (), {}, [served([frame(offset) for offset in range(2, 6)])], ()))
    ends, lacking = read_batch_ends(str(tmp_path), {TP: (0, 6)}, IDENTITY)
    assert list(ends[TP]) == ["north"]
    assert lacking == ()
    assert read_batch_ends(str(tmp_path), {TP: (0, 6), OTHER: (0, 6)}, IDENTITY)[1] == (OTHER,)


def test_a_compacted_root_whose_segments_were_deleted_has_the_first_batches(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    chain = open_chain(store)
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    for first in range(0, 40, 4):
        chain.commit(draft(first, first + 4))
    before = read_batch_ends(str(tmp_path), {TP: (0, 40)}, IDENTITY)
    compacted(store, replace(LIMITS, before=date.max))  # the segments are of today
    for key in segment_keys(store)[:4]:
        for each in (key[1], layout.traces_key(key[1])):
            (tmp_path / each).unlink()
    assert read_batch_ends(str(tmp_path), {TP: (0, 40)}, IDENTITY) == before


def test_a_root_without_batches_of_what_is_replayed_is_named(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("replay", "recording", "-o", str(tmp_path / "again"), "--batches-of")
    assert adawise(recorded.folder, *command, str(tmp_path / "none")) == 2
    assert "expected the output of a worker" in capsys.readouterr().err
    chain = open_chain(LocalStore(tmp_path / "other"))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 4))
    assert adawise(recorded.folder, *command, str(tmp_path / "other")) == 2
    assert f"expected batches of {recorded.topic}" in capsys.readouterr().err
