"""A real worker on batches that nobody can read: bombs, and what a broker's disk has damaged."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from adawise.__main__ import main
from adawise.errors import Lost
from adawise.records import Gap
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.kafka.batches import bomb, empty_records, send
from tests.models import PairFolder
from tests.sink.footers import read_segment_footers
from tests.worker.cameras import IMAGES, Topic, settings_for, single
from tests.worker.output import Output
from tests.worker.process import Plan, WorkerProcess, wait_until
from tests.worker.recordings import recorded
from tests.worker.test_hostile import dead_letters
from tests.worker.test_recording_kills import recording, recording_of, replay

pytestmark = pytest.mark.needs("end_offsets", "message_limits")

LARGE = {"max.message.bytes": str(10 << 20)}
NEVER_BY_CLOCK = {"max_age_s": 3_000.0}


def good(topic: Topic, partition: int, batches: int = 2) -> None:
    rng = random.Random(partition)
    topic.produce(single(rng, partition, 2) for _ in range(batches * IMAGES))


def gaps(root: Path) -> list[tuple[int, Gap]]:
    """(partition, gap) of every segment."""
    footers = [footer for _, footer in read_segment_footers(Output(root).store)]
    return sorted((footer.partition, gap) for footer in footers for gap in footer.gaps)


def verified(root: Path, topic: Topic, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[dict[str, object]]]:
    """What `adawise verify` says to people, and of the gaps to programs; with the topic beside it, all is whole."""
    capsys.readouterr()
    beside = ["--broker", "--kafka.bootstrap-servers", topic.broker.bootstrap_servers]
    assert main(["verify", str(root), *beside]) == 0
    text = capsys.readouterr().out
    assert main(["verify", str(root), *beside, "--json"]) == 0
    chains = json.loads(capsys.readouterr().out)["chains"]
    return text, [gap for chain in chains for gap in chain["gaps"]]


@pytest.mark.check("kills")  # a bomb without a worker that is killed: tests/kafka/test_codecs.py
def test_bombs_between_good_frames_cost_none_of_them_and_little_memory(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = Topic(broker, topic(2, configs=LARGE))
    expected: list[tuple[int, Gap]] = []
    bombs = {
        "gzip": bomb("gzip", 200 << 20),
        "lz4": bomb("lz4", 200 << 20),
        "snappy": bomb("snappy", 100 << 20),
        "zstd": bomb("zstd", 1 << 30),
        "records": empty_records("gzip", 300_000),
    }
    for data in bombs.values():
        good(mixed, 0, 1)
        (offset,) = send(broker, mixed.name, 0, data)
        many = data is bombs["records"]
        reason = Lost.BATCH_TOO_MANY_RECORDS if many else Lost.BATCH_TOO_LARGE
        expected.append((0, Gap(offset, offset + (300_000 if many else 1), reason)))
    good(mixed, 0)
    good(mixed, 1)

    settings = settings_for(mixed, pair, root, fresh_name("bombs"), batch=NEVER_BY_CLOCK, record=recording(root))
    output, log = Output(root), root.with_suffix(".log")
    with WorkerProcess(Plan(settings, log, point="worker.segment_committed")) as worker:
        assert worker.exit_code() == -9
    with WorkerProcess(Plan(settings, log)) as worker:
        worker.wait_for("recovered")
        wait_until(lambda: output.rows >= mixed.rows and len(gaps(root)) == len(expected), worker)
        peak = worker.stop().peak_bytes
    assert output.faults(mixed) == []
    assert gaps(root) == expected
    assert peak < 1 << 30, f"{peak / 2**20:.0f} MiB"

    text, found = verified(root, mixed, capsys)
    assert found == [
        {"first": g.first, "last": g.until - 1, "offsets": g.until - g.first, "reason": g.reason} for _, g in expected
    ]
    assert f"every offset once except {sum(g.until - g.first for _, g in expected)} that were never served" in text
    flood = expected[-1][1]
    assert f"offsets {flood.first} to {flood.until - 1} have no rows, and that is recorded: {flood.reason}" in text
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if "are left out" in line["event"]]
    assert {line["level"] for line in lines} == {"warning"}

    sent = dead_letters(broker, f"{mixed.name}.dlq")
    assert {(place, fields["dlq.reason"]) for place, fields, _ in sent} == {
        ((p, g.first), g.reason) for p, g in expected
    }
    assert all("dlq.omitted" in fields and record.value == b"" for _, fields, record in sent)
    assert len(sent) < 2 * len(expected), "those before the kill once more at most"

    missing = [m for m in recorded(recording_of(root)) if m.missing is not None]
    assert [Gap(m.missing.first, m.next_offset, m.missing.reason) for m in missing if m.missing] == [
        gap for _, gap in expected
    ]
    again = replay(mixed, pair, root)
    assert again.faults(mixed, undisturbed=output) == []
    assert gaps(again.root) == expected


def test_damage_stops_its_partition_alone_and_nothing_is_missing_once_it_is_mended(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = Topic(broker, topic(2))
    for partition in (0, 1, 0, 1):
        good(spoilt, partition)
    at = 2 * IMAGES  # of the second half of partition 0
    settings = settings_for(spoilt, pair, root, fresh_name("damage"), batch=NEVER_BY_CLOCK)
    output, log = Output(root), root.with_suffix(".log")
    with WorkerProcess(Plan(settings, log, damaged=(0, at))) as worker:
        wait_until(lambda: output.rows >= 6 * IMAGES, worker)
        worker.stop()
    done = output.predictions.to_pylist()
    assert sorted(row["offset"] for row in done if row["partition"] == 1) == [*range(4 * IMAGES)]
    assert sorted(row["offset"] for row in done if row["partition"] == 0) == [*range(2 * IMAGES)]
    document = [
        json.loads(line) for line in log.read_text().splitlines() if "the partition is blocked at offset" in line
    ]
    assert [line["level"] for line in document] == ["error"]
    assert f"{spoilt.name}/0" in document[0]["event"]
    assert gaps(root) == []

    with WorkerProcess(Plan(settings, log)) as worker:
        wait_until(lambda: output.rows >= spoilt.rows, worker)
        worker.stop()
    assert output.faults(spoilt) == []
    assert verified(root, spoilt, capsys)[1] == []


def test_if_so_set_damage_becomes_a_gap_and_its_partition_goes_on(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = Topic(broker, topic(2))
    for partition in (0, 1, 0, 0):
        good(spoilt, partition)
    settings = settings_for(spoilt, pair, root, fresh_name("skip"), kafka={"on_unreadable": "skip"})
    output = Output(root)
    with WorkerProcess(Plan(settings, root.with_suffix(".log"), damaged=(0, 2 * IMAGES))) as worker:
        wait_until(lambda: bool(gaps(root)) and output.rows + lost(root) >= spoilt.rows, worker)
        worker.stop()
    ((partition, gap),) = gaps(root)
    assert (partition, gap.reason) == (0, Lost.BATCH_DAMAGED)
    assert gap.first <= 2 * IMAGES < gap.until
    for offset in range(gap.first, gap.until):
        del spoilt.sent[0, offset]
    assert output.faults(spoilt) == []
    text, found = verified(root, spoilt, capsys)
    offsets = {"first": gap.first, "last": gap.until - 1, "offsets": gap.until - gap.first}
    assert found == [offsets | {"reason": "batch_damaged"}]
    assert "batch_damaged" in text
    ((place, fields, _),) = dead_letters(broker, f"{spoilt.name}.dlq")
    assert (place, fields["dlq.reason"]) == ((0, gap.first), "batch_damaged")


def lost(root: Path) -> int:
    """Offsets in gaps."""
    return sum(gap.until - gap.first for _, gap in gaps(root))
