"""`adawise verify` as an operator calls it: what it prints, its exit code, and the topic beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka import TopicPartition as KafkaPartition

from pipeline.__main__ import main
from pipeline.adapt.state import StreamState
from pipeline.errors import Reason
from pipeline.ports import SegmentDraft
from pipeline.records import Frame, RowId, TopicPartition
from pipeline.sink.layout import SegmentName, segment_key
from pipeline.sink.store import LocalStore
from pipeline.source.kafka_log import KafkaLog
from tests.brokers import Broker, MakeTopic
from tests.sink.building import DictStore, open_chain
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
    assert (found["whole"], found["segments"], found["faults"]) == (True, 3, [])
    assert found["chains"] == [
        {"topic": "frames", "partition": 3, "segments": 3, "rows": 12, "next_offset": 12, "pending": 0}
    ]


def test_a_harmed_folder_ends_with_3_and_names_the_file_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_disk(tmp_path, an_honest_sink())
    (tmp_path / key(4)).unlink()
    assert main(["verify", str(tmp_path)]) == 3
    first = capsys.readouterr().out.splitlines()[1]
    assert first.strip().startswith(f"{key(9)}: expected the chain to go on with {key(4)}: there is a gap; restore")
    assert main(["verify", str(tmp_path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["faults"][0]["file"]) == (False, key(9))
    assert found["faults"][0]["remedy"] == "restore that file from a backup"


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
            delivered.append(sent.get(30).offset)
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
        frames = [Frame(RowId(topic, 0, offset, 0), 0, "north", reason=Reason.EMPTY, detail="") for offset in part]
        chain.commit(SegmentDraft(tp, part[-1] + 1, (), {}, (), frames))
    return store


@pytest.fixture
def output(broker: Broker, topic: MakeTopic, tmp_path: Path) -> tuple[str, list[int], LocalStore]:
    """A topic with aborted messages and markers in between, the offsets that it delivers, and a chain of 8 of 10."""
    name = topic(1)
    delivered = transact(broker, name, ["one", "abort", "two", "three", "abort", *"456789", "ten"])
    log = KafkaLog(
        bootstrap_servers=broker.bootstrap_servers, client_id="test", max_partition_fetch_bytes=1 << 20, security={}
    )
    try:
        return name, delivered, written(tmp_path / "output", log, name, delivered[:8])
    finally:
        log.close()


def verified(broker: Broker, store: LocalStore, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["verify", str(store), "--broker", "--kafka.bootstrap-servers", broker.bootstrap_servers])
    return code, capsys.readouterr().out


@pytest.mark.needs("aborted_transactions", "end_offsets")
def test_aborted_messages_and_markers_are_no_faults_and_what_lies_beyond_the_head_is_lag(
    broker: Broker, output: tuple[str, list[int], LocalStore], capsys: pytest.CaptureFixture[str]
) -> None:
    name, delivered, store = output
    code, out = verified(broker, store, capsys)
    assert code == 0
    assert "each of the 8 messages that the broker still has" in out
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
