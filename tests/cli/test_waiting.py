"""Commands that follow a topic wait for broker and store: a real Kafka that is killed, a real disk that is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition

from adawise.records import Message
from tests.brokers import CAPABILITIES, ApacheKafka, Broker, MakeTopic, Unavailable, create_topic, fresh_name
from tests.cli.test_labels import arguments
from tests.drift import yard
from tests.kafka.cluster import free_ports
from tests.kafka.sources import DEADLINE_S, produce
from tests.process_log import ProcessLog, fill, mounted
from tests.replay.runs import process
from tests.worker.test_start_stop import impatient

COMMANDS = ("record", "labels")
_MANY = 400


@pytest.fixture(scope="module")
def kafka() -> Iterator[ApacheKafka]:
    """A broker of one's own, to be killed."""
    try:
        with ApacheKafka() as started:
            yield started
    except Unavailable as reason:
        pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")


def call(command: str, servers: str, topic: str, folder: Path, *more: str) -> list[str]:
    """The command line, into `folder`; labels go beside an output that a worker wrote there."""
    kafka = ["--kafka.bootstrap-servers", servers, "--log.format", "json", *more]
    if command == "labels":
        group = ["--kafka.group", f"{topic}-group", "--kafka.session-timeout-ms", "6000"]
        root = folder if folder.exists() else yard.write(folder)
        return ["labels", str(root), "--topic", topic, *kafka, *group]
    return ["record", "-o", str(folder), "--kafka.topic", topic, *kafka]


def messages(topic: str, count: int, first: int = 0) -> list[Message]:
    return [
        Message(topic, 0, n, b"gate", b'{"row_id": "frames/0/%d/0", "label": "car"}' % n) for n in range(first, count)
    ]


def stored(command: str, folder: Path) -> list[int]:
    """Offsets in files, each as often as it is there."""
    root = folder / "labels" if command == "labels" else folder
    files = sorted(root.glob("topic-*/partition-*/*.parquet"))
    return [offset for path in files for offset in pq.read_table(path, columns=["offset"])["offset"].to_pylist()]


@contextmanager
def following(command: str, servers: str, topic: str, folder: Path) -> Iterator[ProcessLog]:
    with process(folder.parent, *call(command, servers, topic, folder, "--follow"), before=impatient) as started:
        yield ProcessLog(started)


@pytest.mark.parametrize("command", COMMANDS)
def test_who_follows_waits_for_a_broker_that_is_down_until_it_is_told_to_stop(command: str, tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_ports(1)}"
    retried = {"record": "recording_retried", "labels": "labels_retried"}[command]
    with following(command, nobody, "frames", tmp_path / "out") as log:
        log.until(lambda: len(log.events(retried)) == 2)
        first, second = log.events(retried)
        assert (first["wait_s"], second["wait_s"]) == (1.0, 2.0)
        assert nobody in first["error"]
        assert "Traceback" not in log.stop()


@pytest.mark.parametrize("command", COMMANDS)
def test_who_does_not_follow_ends_where_nobody_answers(command: str, tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_ports(1)}"
    with process(tmp_path, *call(command, nobody, "frames", tmp_path / "out"), before=impatient) as ended:
        out, err = ended.communicate(timeout=DEADLINE_S)
        assert ended.returncode == 1, err
        assert nobody in err
        assert "Traceback" not in out + err


@pytest.mark.check("brokers")
@pytest.mark.parametrize("command", COMMANDS)
def test_who_follows_outlives_a_broker_that_is_killed_and_stores_each_message_once(
    command: str, kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic, folder = fresh_name(command), tmp_path / "out"
    broker = Broker(kafka.bootstrap_servers, "Apache Kafka", "its own", CAPABILITIES)
    create_topic(broker, topic)
    produce(broker, messages(topic, _MANY))
    retried = {"record": "recording_retried", "labels": "labels_retried"}[command]
    with following(command, kafka.bootstrap_servers, topic, folder) as log:
        log.until(lambda: any("stored" in line or "recorded" in line for line in log.lines))
        kafka.kill(1)
        log.until(lambda: bool(log.events(retried)))
        back = kafka.revive()
        log.until(back)
        produce(broker, messages(topic, 2 * _MANY, first=_MANY))
        log.until(lambda: len(log.events(retried)) >= 1)
        assert "Traceback" not in log.stop()
    with process(tmp_path, *call(command, kafka.bootstrap_servers, topic, folder)) as rest:
        _, err = rest.communicate(timeout=DEADLINE_S)
        assert rest.returncode == 0, err
    assert stored(command, folder) == list(range(2 * _MANY))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_waited_for_and_each_message_is_stored_once(
    command: str, broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    name = topic()
    retried = "store_filled"
    with mounted(tmp_path / "disk", "size=3m") as disk:
        folder = disk / "out"
        line = call(command, broker.bootstrap_servers, name, folder, "--follow")  # writes what labels go beside
        fill(disk / "ballast")
        produce(broker, messages(name, 10_000))  # a file's worth
        with process(tmp_path, *line) as started:
            log = ProcessLog(started)
            log.until(lambda: len(log.events(retried)) >= 2)
            assert "free space or raise the quota" in log.events(retried)[0]["error"]
            assert "`adawise retain ROOT" in log.events(retried)[0]["error"]
            (disk / "ballast").unlink()
            log.until(lambda: len(stored(command, folder)) == 10_000)
            assert "Traceback" not in log.stop()
        assert stored(command, folder) == list(range(10_000))
        assert not list(folder.rglob(".tmp-*"))


def test_the_offset_of_labels_is_committed_once_their_file_is_durable(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    name, root = topic(2), yard.write(tmp_path / "yard")
    values = [Message(name, n % 2, 0, b"gate", b'{"row_id": "frames/0/%d/0", "label": "car"}' % n) for n in range(11)]
    produce(broker, values)
    group = fresh_name("labels")
    with process(tmp_path, *arguments(broker, root, name, group)) as done:
        _, err = done.communicate(timeout=DEADLINE_S)
        assert done.returncode == 0, err
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin:
        found = admin.list_group_offsets({f"{group}.labels": [KafkaPartition(name, 0), KafkaPartition(name, 1)]})
    offsets = found[f"{group}.labels"]
    assert [offsets[KafkaPartition(name, number)].offset for number in (0, 1)] == [6, 5]
