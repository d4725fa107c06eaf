"""`adawise verify` as an operator calls it: what it prints, its exit code, and the topic beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from adawise.__main__ import main
from adawise.adapt.state import StreamState
from adawise.errors import Reason
from adawise.kafka.batches import BatchLimits
from adawise.kafka.log import KafkaLog
from adawise.output.compaction.compact import FileLimits, compact
from adawise.output.compaction.delete import deletable, delete
from adawise.ports import SegmentDraft, ServedBy
from adawise.records import Frame, RowId, TopicPartition
from adawise.sink import layout
from adawise.sink.chain import SegmentChain
from adawise.sink.layout import SegmentName, segment_key
from adawise.sink.owner import Owner, claim_owner
from adawise.store.store import LocalStore
from tests.brokers import Broker, MakeTopic
from tests.deadlines import DEADLINE_S
from tests.sink.building import IDENTITY, DictStore, open_chain
from tests.sink.forging import an_honest_sink, forge, key


def on_disk(folder: Path, store: DictStore) -> LocalStore:
    for name, data in store.objects.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return LocalStore(folder)


def test_a_whole_folder_ends_with_0_and_says_what_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on_disk(tmp_path, an_honest_sink())
    assert main(["verify", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert f"{tmp_path} is whole: 3 segments of 1 partitions, 12 rows" in out
    assert "verified 3 of 3 segments" in err
    assert main(["verify", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["segments"], found["unproved"], found["faults"]) == (True, 3, [], [])
    assert found["chains"] == [
        {
            "topic": "frames",
            "partition": 3,
            "segments": 3,
            "compacted_files": 0,
            "rows": 12,
            "next_offset": 12,
            "pending": 0,
            "gaps": [],
        }
    ]


def test_an_output_that_was_only_begun_is_not_called_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_chain(LocalStore(tmp_path)).check()
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"nothing was written to {tmp_path} yet\n"


def test_a_root_with_a_partition_without_a_segment_is_not_called_whole_and_the_partition_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, whole = an_honest_sink(), tmp_path / "whole"
    on_disk(whole, store)
    other = TopicPartition("frames", 5)
    open_chain(store).recover(other, IDENTITY, 7)  # also what is left of it if every segment and all traces are lost
    root = tmp_path / "begun"
    on_disk(root, store)
    assert main(["verify", str(root)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"what {root} holds is whole: 3 segments of 1 partitions, 12 rows, every offset of these once; footers, rows, "
        "states and traces agree; 1 more began, and whether they lost rows is not known"
    )
    assert second == (
        "frames/5: it begins at offset 7, and there is no segment: nothing was served there yet, or every segment is "
        "lost; --broker compares with the group's committed offset"
    )
    assert main(["verify", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(chain["partition"], chain["segments"], chain["next_offset"]) for chain in found["chains"]] == [
        (3, 3, 12),
        (5, 0, 7),
    ]
    assert found["unproved"] == [{"topic": "frames", "partition": 5}]
    assert main(["verify", str(root), str(whole)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"2 of 2 outputs have no fault, with 24 rows; whether all is there is not known of {root}"
    assert main(["repair", str(root)]) == 0
    named, nothing = capsys.readouterr().out.splitlines()
    assert named.startswith(
        "frames/5: it begins at offset 7, and there is no segment: nothing was served there yet, or its rows are lost;"
    )
    assert nothing.startswith(f"{root}: nothing else to repair")


def test_a_harmed_folder_ends_with_3_and_names_the_file_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_disk(tmp_path, an_honest_sink())
    (tmp_path / key(4)).unlink()
    assert main(["verify", str(tmp_path)]) == 3
    first = capsys.readouterr().out.splitlines()[1]
    assert first.strip().startswith(f"{key(9)}: expected the chain to go on with {key(4)}: there is a gap; restore it")
    assert main(["verify", str(tmp_path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["faults"][0]["file"]) == (False, key(9))
    assert (
        found["faults"][0]["remedy"] == "restore it from a backup, or see what `adawise repair` of this root would do"
    )


def test_a_folder_that_no_worker_wrote_is_an_error_and_not_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "there is no output of a worker in" in capsys.readouterr().err


def test_a_state_that_the_batches_do_not_lead_to_is_found_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = an_honest_sink()
    forge(store, key(9), states={"north": StreamState("k", 7, batches=9).to_bytes()})
    on_disk(tmp_path, store)
    assert main(["verify", str(tmp_path)]) == 3
    assert "expected the state of 'north' after 4 batches, not 9" in capsys.readouterr().out


# -- a topic with transactions, of which some were aborted


def transact(broker: Broker, topic: str, values: list[str]) -> list[int]:
    """Send each of `values` in a transaction of its own; "abort" is aborted. The offsets of the others."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers.split(","), transactional_id=topic)
    producer.init_transactions()
    delivered = []
    for value in values:
        producer.begin_transaction()
        sent = producer.send(topic, value.encode(), partition=0)
        if value == "abort":
            producer.flush()
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            delivered.append(sent.get(DEADLINE_S).offset)
    producer.close()
    return delivered


def written(root: Path, log: KafkaLog, topic: str, offsets: list[int]) -> LocalStore:
    """A chain in two segments, with a rejected row for each of these offsets."""
    store, tp = LocalStore(root), TopicPartition(topic, 0)
    chain = open_chain(store)
    chain.check()
    chain.recover(tp, log.identity(topic), 0)
    half = len(offsets) // 2
    for part in (offsets[:half], offsets[half:]):
        frames = [Frame(RowId(topic, 0, offset, 0), -1, "north", reason=Reason.EMPTY, detail="") for offset in part]
        chain.commit(SegmentDraft(tp, part[-1] + 1, (), {}, (), frames))
    return store


@pytest.fixture
def output(broker: Broker, topic: MakeTopic, tmp_path: Path) -> tuple[str, list[int], LocalStore]:
    """A topic with aborted messages and markers in between, the offsets that it delivers, and a chain of 8 of 10."""
    name = topic(1)
    delivered = transact(broker, name, ["one", "abort", "two", "three", "abort", *"456789", "ten"])
    with log_of(broker) as log:
        return name, delivered, written(tmp_path / "output", log, name, delivered[:8])


def compacted_by_day(store: LocalStore, log: KafkaLog, topic: str, offsets: list[int]) -> list[str]:
    """A chain with a row for each of these offsets, two segments a day; all but the last day's compacted and deleted.

    Returns the keys of the compacted predictions.
    """
    tp, day = TopicPartition(topic, 0), datetime(2026, 11, 20, tzinfo=UTC)
    times = [day]
    chain = SegmentChain(
        store=store,
        by=ServedBy(("car",), "m", "c"),
        writer="w",
        now=lambda: times[-1],
    )
    chain.check()
    chain.recover(tp, log.identity(topic), 0)
    for offset in offsets:
        row = Frame(RowId(topic, 0, offset, 0), -1, "north", reason=Reason.EMPTY, detail="")
        chain.commit(SegmentDraft(tp, offset + 1, (), {}, (), [row]))
        times.append(times[-1] + timedelta(hours=12))
    limits = FileLimits(max_rows=2, max_bytes=1 << 30, before=times[-2].date())
    assert list(compact(store, tp, limits, now=lambda: day))
    for each in deletable(store, tp, made_before=datetime.max.replace(tzinfo=UTC)):
        assert list(delete(store, each))
    return [key for key in store.list("compacted/predictions") if key.endswith(".parquet")]


@contextmanager
def log_of(broker: Broker) -> Iterator[KafkaLog]:
    log = KafkaLog(
        bootstrap_servers=broker.bootstrap_servers,
        client_id="test",
        max_partition_fetch_bytes=1 << 20,
        batch_limits=BatchLimits(1 << 20, 1_000),
        security={},
    )
    try:
        yield log
    finally:
        log.close()


def verified(broker: Broker, store: LocalStore, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["verify", str(store), "--broker", "--kafka.bootstrap-servers", broker.bootstrap_servers])
    return code, capsys.readouterr().out


@pytest.mark.needs("end_offsets")
def test_what_the_group_had_committed_and_is_gone_is_a_fault_and_no_lag(
    broker: Broker, topic: MakeTopic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic(1)
    offsets = transact(broker, name, list("123456"))
    with log_of(broker) as log:
        store = written(tmp_path / "output", log, name, offsets)
    claim_owner(store, Owner("", name, "workers", "run"))
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, group_id="workers", enable_auto_commit=False)
    consumer.commit({KafkaPartition(name, 0): OffsetAndMetadata(offsets[-1] + 1, "", -1)})
    consumer.close()
    assert verified(broker, store, capsys)[0] == 0
    *_, newest = store.list(layout.PREDICTIONS)
    for lost in (newest, layout.traces_key(newest)):
        store.delete(lost)
    code, out = verified(broker, store, capsys)
    assert code == 3
    assert f"expected the chain to reach offset {offsets[-1] + 1}, which its group has committed" in out
    for lost in (*store.list(layout.PREDICTIONS), *store.list(layout.TRACES)):
        store.delete(lost)
    code, out = verified(broker, store, capsys)
    assert code == 3
    assert "but it ends at 0; restore the missing segments" in out


@pytest.mark.needs("end_offsets")
def test_a_partition_without_a_message_is_whole_where_the_broker_is_asked(
    broker: Broker, topic: MakeTopic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic(2)
    offsets = transact(broker, name, list("123456"))
    with log_of(broker) as log:
        store = written(tmp_path / "output", log, name, offsets)
        open_chain(store).recover(TopicPartition(name, 1), log.identity(name), 0)
    code, out = verified(broker, store, capsys)
    assert (code, out.splitlines()[0].startswith(f"{store} is whole: 2 segments of 1 partitions")) == (0, True)
    assert f"{name}/1: it begins at offset 0, and there is no segment: the log of the broker ends there too" in out
    assert main(["verify", str(store)]) == 0
    assert "1 more began, and whether they lost rows is not known" in capsys.readouterr().out


@pytest.mark.needs("aborted_transactions", "end_offsets")
def test_aborted_messages_and_markers_are_no_faults_and_what_lies_beyond_the_head_is_lag(
    broker: Broker, output: tuple[str, list[int], LocalStore], capsys: pytest.CaptureFixture[str]
) -> None:
    name, delivered, store = output
    code, out = verified(broker, store, capsys)
    assert code == 0
    assert "each of the 8 messages that the broker still has" in out
    assert "; 2 are not written yet" in out  # the markers behind them are no messages
    assert len(delivered) == 10
    del name


@pytest.mark.needs("aborted_transactions", "end_offsets", "delete_records")
def test_a_message_that_no_row_stands_for_is_a_fault_unless_the_broker_deleted_it(
    broker: Broker, output: tuple[str, list[int], LocalStore], capsys: pytest.CaptureFixture[str]
) -> None:
    name, delivered, store = output
    lost = delivered[2]
    where = segment_key(TopicPartition(name, 0), SegmentName(0))
    forge(store, where, lambda rows: rows.filter(pa.array([o != lost for o in rows["offset"].to_pylist()])))
    assert main(["verify", str(store)]) == 0  # without the topic it looks like a hole of the log
    code, out = verified(broker, store, capsys)
    assert (code, f"there is none for the offsets {lost}" in out) == (3, True)
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(",")) as admin:
        admin.delete_records({KafkaPartition(name, 0): lost + 1})
    code, out = verified(broker, store, capsys)
    assert (code, "each of the 5 messages" in out) == (0, True)


@pytest.mark.needs("aborted_transactions", "end_offsets")
@pytest.mark.parametrize("lost", [None, 2])
def test_what_was_compacted_and_deleted_is_compared_with_a_topic_that_has_markers(
    lost: int | None, broker: Broker, topic: MakeTopic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic(1)
    delivered = transact(broker, name, ["one", "abort", "two", "three", "abort", *"456789", "abort"])
    kept = [offset for place, offset in enumerate(delivered) if place != lost]
    store = LocalStore(tmp_path / "output")
    with log_of(broker) as log:
        files = compacted_by_day(store, log, name, kept)
    assert (main(["verify", str(store)]), len(files) > 2) == (0, True)
    assert f"compacted files of 1 partitions, {len(kept)} rows" in capsys.readouterr().out
    code, out = verified(broker, store, capsys)
    if lost is None:
        assert (code, "each of the 9 messages that the broker still has" in out) == (0, True)
    else:
        assert (code, out.count("expected a row for each message")) == (3, 1)
        assert f"{files[1]}: expected a row for each message" in out or f"{files[0]}: expected" in out
        assert f"there is none for the offsets {delivered[lost]}" in out


def a_topic_with_holes(broker: Broker, topic: MakeTopic) -> tuple[str, list[int]]:
    """A topic that the broker has compacted, and the offsets that are left: every camera's last, and the newest."""
    servers = broker.bootstrap_servers.split(",")
    with KafkaAdminClient(bootstrap_servers=servers) as admin:
        for node in admin.describe_cluster()["brokers"]:
            soon = {"log.cleaner.backoff.ms": "50"}
            admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, str(node["broker_id"]), soon)])
    configs = {"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.01"}
    name = topic(1, configs=configs)
    with closing(KafkaProducer(bootstrap_servers=servers)) as producer:
        for n, camera in enumerate(["a", "b", "a", "a", "c", "b", "b", "d"]):  # each begins a segment by its time
            producer.send(name, b"x", key=camera.encode(), partition=0, timestamp_ms=10_000 * (n + 1)).get(DEADLINE_S)
    give_up_s, left = time.monotonic() + DEADLINE_S, list[int]()
    while left != [3, 4, 6, 7]:
        assert time.monotonic() < give_up_s, f"the broker does not compact: {left} are left"
        with log_of(broker) as log:
            left = log.messages(TopicPartition(name, 0), 0, 8)[0].tolist()
    return name, left


@pytest.mark.needs("end_offsets", "compaction")
def test_holes_of_a_compacted_topic_are_no_faults_and_a_row_that_is_missing_between_them_is_one(
    broker: Broker, topic: MakeTopic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _ = a_topic_with_holes(broker, topic)
    with log_of(broker) as log:
        read_before = written(tmp_path / "before", log, name, list(range(8)))
        read_after = written(tmp_path / "after", log, name, [3, 4, 6, 7])
        ends_in_a_hole = written(tmp_path / "hole", log, name, [1, 3, 4, 5])
        lacks_one = written(tmp_path / "lacking", log, name, [0, 1, 2, 3, 5, 6, 7])
    for store in (read_before, read_after):
        code, out = verified(broker, store, capsys)
        assert (code, "each of the 4 messages" in out, "0 are not written yet" in out) == (0, True, True)
    code, out = verified(broker, ends_in_a_hole, capsys)
    assert (code, "each of the 2 messages" in out) == (0, True)
    code, out = verified(broker, lacks_one, capsys)
    assert code == 3
    assert "there is none for the offsets 4" in out
