"""Sending to a real broker: what arrives is what decode reads; memory is bounded; failures name the remedy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, errors
from kafka import TopicPartition as KafkaPartition

from adawise.decode.message import Decoder
from adawise.decode.preprocess import Preprocess
from adawise.errors import BrokerUnavailable, SettingsError, SourceError
from adawise.kafka.client import Reach
from adawise.produce.files import Shot
from adawise.produce.produce import Gathering, Parcel, open_shots, produce
from adawise.produce.sender import KafkaSender, ensure_topic, message_of
from adawise.records import DecodedMessage, Message
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.hostile import picture

RNG = random.Random(0)
MAX_MESSAGE_BYTES = 900_000
DECODE = Decoder(Preprocess(32), 10**6, 256, 10**6)


@contextmanager
def sender_to(broker: Broker, topic: str, **options: Any) -> Iterator[KafkaSender]:
    options = {"max_inflight_bytes": 10**6, "timeout_s": 20.0, "max_message_bytes": MAX_MESSAGE_BYTES, **options}
    reach: Reach = {"bootstrap_servers": broker.bootstrap_servers, "security": {}, "client_id": "test-produce"}
    with closing(KafkaSender(**reach, topic=topic, **options)) as sender:
        yield sender


def arrived(broker: Broker, topic: str, partitions: int, messages: int) -> list[DecodedMessage]:
    """The first `messages` of the topic, decoded, in order of partition and offset."""
    tps = [KafkaPartition(topic, p) for p in range(partitions)]
    records: list[Any] = []
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")) as consumer:
        consumer.assign(tps)
        for _ in range(200):
            for polled in consumer.poll(timeout_ms=500).values():
                records.extend(polled)
            if len(records) >= messages:
                break
    records.sort(key=lambda record: (record.partition, record.offset))
    return [DECODE(Message(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers))) for r in records]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_folder_arrives_image_by_image_with_labels_and_streams(
    broker: Broker, topic: MakeTopic, tmp_path: Path, batch: int
) -> None:
    sent = {}
    for i in range(10):
        path = tmp_path / ("car", "van")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(RNG))
        sent[f"{path.parent.name}/{path.name}"] = path.parent.name
    name = topic(2)
    gathering = Gathering(batch=batch, max_message_bytes=MAX_MESSAGE_BYTES, max_held_bytes=10**6)
    progress: list[int] = []
    with sender_to(broker, name, on_progress=progress.append) as sender:
        shots = open_shots(str(tmp_path), max_message_bytes=MAX_MESSAGE_BYTES)
        produced = produce(
            shots, sender, streams=["cam-1", "cam-2"], gathering=gathering, clock=lambda: 1_700_000_000.25
        )
    assert (produced.images, dict(produced.by_stream)) == (10, {"cam-1": 5, "cam-2": 5})
    decoded = arrived(broker, name, 2, produced.messages)
    frames = [frame for each in decoded for frame in each.frames]
    assert {frame.reason for frame in frames} == {None}
    assert {frame.frame_id: frame.true_label for frame in frames} == sent
    assert {frame.captured_at_us for frame in frames} == {1_700_000_000_250_000}
    assert {each.is_batch for each in decoded} == {batch > 1}
    for stream in ("cam-1", "cam-2"):
        of_stream = [frame for frame in frames if frame.stream_id == stream]
        assert len({frame.row_id.partition for frame in of_stream}) == 1, (
            "a stream keeps its partition, hence its order"
        )
        assert [f.frame_id for f in of_stream] == sorted(f.frame_id or "" for f in of_stream)
    assert sum(progress) == 10
    assert len(progress) == produced.messages


def test_a_topic_is_created_only_when_asked_for(broker: Broker) -> None:
    name = fresh_name("created")
    where: dict[str, Any] = {"bootstrap_servers": broker.bootstrap_servers, "security": {}, "client_id": "test-produce"}
    with pytest.raises(SourceError, match=rf"{name}.*--create-topic"):
        ensure_topic(**where, topic=name, create=False)
    assert ensure_topic(**where, topic=name, create=True, partitions=3, max_message_bytes=2_000_000) is True
    assert ensure_topic(**where, topic=name, create=True, partitions=3) is False
    assert ensure_topic(**where, topic=name, create=False) is False
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap_servers)) as consumer:
        assert consumer.partitions_for_topic(name) == {0, 1, 2}


def test_a_message_that_no_request_can_hold_names_the_remedy(broker: Broker, topic: MakeTopic) -> None:
    parcel = Parcel("cam-1", (Shot(bytes(2 * MAX_MESSAGE_BYTES), "image/jpeg", "huge"),), (0,), is_batch=False)
    with (
        sender_to(broker, topic()) as sender,
        pytest.raises(SettingsError, match=r"1800000 bytes.*max\.message\.bytes"),
    ):
        sender.send(parcel)


@pytest.mark.needs("message_limits")
def test_a_topic_that_takes_less_names_the_remedy(broker: Broker, topic: MakeTopic) -> None:
    parcel = Parcel("cam-1", (Shot(RNG.randbytes(50_000), "image/jpeg", "large"),), (0,), is_batch=False)
    with sender_to(broker, topic(configs={"max.message.bytes": "10000"})) as sender:
        sender.send(parcel)
        with pytest.raises(SettingsError, match=r"50000 bytes.*max\.message\.bytes"):
            sender.flush()


class Outstanding:
    """A future that is acknowledged when it is waited for, or fails."""

    is_done = False

    def __init__(self, producer: Unacknowledged, size: int) -> None:
        self._producer = producer
        self._size = size

    def get(self, timeout: float) -> None:
        if self._producer.error is not None:
            raise self._producer.error
        self._producer.inflight -= self._size


class Unacknowledged:
    """A kafka-python producer whose broker answers no sooner than it must."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.inflight = self.peak = 0

    def send(self, topic: str, *, value: bytes, **_: object) -> Outstanding:
        self.inflight += len(value)
        self.peak = max(self.peak, self.inflight)
        return Outstanding(self, len(value))

    def close(self, timeout: float) -> None:
        pass


def sender_over(producer: Unacknowledged, monkeypatch: pytest.MonkeyPatch, max_inflight_bytes: int) -> KafkaSender:
    monkeypatch.setattr("adawise.produce.sender.open_client", lambda *_, **__: producer)
    reach: Reach = {"bootstrap_servers": "here:9092", "security": {}, "client_id": "test"}
    limit = max_inflight_bytes
    return KafkaSender(
        **reach, topic="frames", max_message_bytes=MAX_MESSAGE_BYTES, max_inflight_bytes=limit, timeout_s=1.0
    )


def test_bytes_in_flight_are_bounded_and_one_message_always_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = Unacknowledged()
    sender = sender_over(producer, monkeypatch, 1_000)
    for size in [300] * 20 + [5_000] + [300] * 5:
        sender.send(Parcel("cam", (Shot(bytes(size), "image/jpeg", "f"),), (0,), is_batch=False))
    assert producer.peak == 5_000
    sender.flush()
    assert producer.inflight == 0


def test_a_broker_that_does_not_acknowledge_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = sender_over(Unacknowledged(errors.KafkaTimeoutError("nothing for 1 s")), monkeypatch, 10)
    sender.send(Parcel("cam", (Shot(b"image", "image/jpeg", "f"),), (0,), is_batch=False))
    with pytest.raises(
        BrokerUnavailable, match=r"send to topic 'frames' at here:9092.*nothing for 1 s.*adawise broker"
    ):
        sender.flush()
    sender.close()


def test_a_single_image_carries_its_facts_in_headers() -> None:
    shot = Shot(b"image", "image/png", "Straße/1.png", "Auto")
    value, headers = message_of(Parcel("cam", (shot,), (1_500_000,), is_batch=False))
    assert value == b"image"
    assert dict(headers) == {
        "content-type": b"image/png",
        "captured-at": b"1970-01-01T00:00:01.500000+00:00",
        "frame-id": "Straße/1.png".encode(),
        "label": b"Auto",
    }
