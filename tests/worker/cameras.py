"""Images of several cameras in a topic, what the broker acknowledged of them, and what must have become of them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.records import RowId
from adawise.settings import Settings
from tests.brokers import Broker
from tests.hostile import picture
from tests.models import PairFolder
from tests.worker.output import Output
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess, wait_until

__all__ = ["Output"]  # for those who have it from here

IMAGES = 8  # of a batch
FLUSH_ROWS = 24
Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Shot:
    """A message before it has an offset; `rows` it must leave in the output, and the reason of its rejected ones.

    `dead`: nothing of it can be read, so that it must be among the dead letters. `packed`: sent compressed.
    """

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers = ()
    rows: int = 1
    reason: str | None = None
    dead: bool = False
    packed: bool = False


def single(rng: random.Random, camera: int, partitions: int, at_ms: int | None = None) -> Shot:
    """One JPEG of a camera, in the partition that is its own."""
    return Shot(camera % partitions, b"camera-%d" % camera, picture(rng), at_ms)


def recorded(seed: int, *, cameras: int, each: int, partitions: int) -> Iterator[Shot]:
    """Every kind of message, at times that are written in them: `each` singles of each camera 50 ms apart, with pauses;
    now and then an Arrow batch with a bad row, and one that nobody can read.
    """
    rng = random.Random(seed)
    now_ms = int(time.time() * 1000) - 3_600_000  # not so long ago that the broker's retention would take it
    for n in range(each):
        now_ms += 10_000 if n % 13 == 12 else 50
        for camera in range(cameras):
            yield single(rng, camera, partitions, now_ms)
        if n % 11 == 5:
            camera = n % cameras
            value = encode_batch([picture(rng), b"no image", *(picture(rng) for _ in range(4))])
            headers = (("content-type", ARROW_STREAM.encode()),)
            yield Shot(camera % partitions, b"camera-%d" % camera, value, now_ms, headers, 6, "unsupported_format")
        if n % 9 == 4:
            yield Shot(n % partitions, b"camera-0", b"\xff\xd8\xff broken", now_ms, (), 1, "undecodable_image")


@dataclass
class Topic:
    """A topic and everything in it.

    A broker that stands still or a producer that starves loses acknowledgements, not messages: those of which none came
    are looked for in the topic, and `lost` are the ones that are not there.
    """

    broker: Broker
    name: str
    sent: dict[tuple[int, int], Shot] = field(default_factory=dict)  # (partition, offset)
    lost: list[Shot] = field(default_factory=list)

    def produce(self, shots: Iterable[Shot], *, every_s: float = 0.0) -> None:
        """Send, `every_s` seconds apart; returns when it is known of each whether it is in the topic."""
        with _producer(self.broker) as producer:
            for shot in shots:
                sent = producer.send(
                    self.name,
                    shot.value,
                    key=shot.key,
                    headers=list(shot.headers),
                    partition=shot.partition,
                    timestamp_ms=shot.timestamp_ms,
                )
                sent.add_callback(partial(self._acknowledged, shot)).add_errback(partial(self._failed, shot))
                time.sleep(every_s)
            producer.flush(timeout=DEADLINE_S)
        if self.lost:
            self.find_lost()

    def find_lost(self) -> None:
        """What was never acknowledged and is in the topic all the same counts as sent."""
        for record in everything(self.broker, self.name):
            place, found = (record.partition, record.offset), (record.partition, record.key, record.value)
            same = [shot for shot in self.lost if (shot.partition, shot.key, shot.value) == found]
            if same and place not in self.sent:
                self.lost.remove(same[0])
                self.sent[place] = same[0]

    def _acknowledged(self, shot: Shot, metadata: Any) -> None:
        self.sent[metadata.partition, metadata.offset] = shot

    def _failed(self, shot: Shot, error: Exception) -> None:
        self.lost.append(shot)

    @property
    def rows(self) -> int:
        """That the output must have."""
        return sum(shot.rows for shot in self.sent.values())

    @property
    def row_ids(self) -> list[str]:
        """The same, each by its id, in the order of partition, offset and index."""
        return [
            str(RowId(self.name, partition, offset, index))
            for (partition, offset), shot in sorted(self.sent.items())
            for index in range(shot.rows)
        ]


@contextmanager
def _producer(broker: Broker) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","),
        linger_ms=5,
        max_request_size=2**21,
        enable_idempotence=False,
        retries=0,  # so that nothing is in the topic twice
    )
    try:
        yield producer
    finally:
        producer.close()


def everything(broker: Broker, topic: str) -> Iterator[Any]:
    """All records of a topic, as a consumer without a group reads them."""
    servers = broker.bootstrap_servers.split(",")
    reader = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, isolation_level="read_committed")
    try:
        places = [TopicPartition(topic, number) for number in reader.partitions_for_topic(topic) or ()]
        reader.assign(places)
        reader.seek_to_beginning(*places)
        ends = reader.end_offsets(places)
        while any(reader.position(place) < ends[place] for place in places):
            for records in reader.poll(timeout_ms=500).values():
                yield from records
    finally:
        reader.close()


class Live:
    """Cameras that send all the time, from a thread: whole batches of each, so that no clock has to close one."""

    def __init__(self, topic: Topic, *, cameras: int, partitions: int, every_s: float) -> None:
        self._topic, self._cameras, self._partitions, self._every_s = topic, cameras, partitions, every_s
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._produce)

    def _produce(self) -> None:
        self._topic.produce(self._shots(), every_s=self._every_s)

    def _shots(self) -> Iterator[Shot]:
        rng = random.Random(self._cameras)
        while not self._enough.is_set():
            for _ in range(IMAGES):
                for camera in range(self._cameras):
                    yield single(rng, camera, self._partitions)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


def settings_for(topic: Topic, pair: PairFolder, root: Path | str, group: str, **changes: dict[str, Any]) -> Settings:
    """A worker on the topic with the tiny pair: quick to find out that another is dead, quick to flush."""
    groups: dict[str, dict[str, Any]] = {
        "kafka": {
            "bootstrap_servers": topic.broker.bootstrap_servers,
            "topic": topic.name,
            "group": group,
            "session_timeout_ms": 2_000,
            "max_poll_interval_ms": 60_000,
            "max_poll_records": 40,
        },
        "model": {
            "architecture": pair.theta_0,
            "theta_0": pair.theta_0,
            "theta_1": pair.theta_1,
            "classes": pair.classes,
            "templates": pair.templates,
            "precision": "fp32",
            "device": "cpu",
            "chunk_rows": 8,
            "bank_mib": 64,
            "threads": 1,
        },
        "search": {"budget": 5, "explore_images": 4, "explore_every": 3, "min_images": 4},
        "batch": {"images": IMAGES, "max_age_s": 0.5},
        "decode": {"threads": 1},
        "sink": {"root": str(root), "flush_rows": FLUSH_ROWS, "flush_age_s": 1.0},
    }
    for group_name, values in changes.items():
        groups[group_name] = groups.get(group_name, {}) | values
    return Settings.model_validate(groups)


def run_to_the_end(topic: Topic, pair: PairFolder, root: Path, group: str, **changes: dict[str, Any]) -> Output:
    """One worker from wherever the output ends until everything is in it."""
    output = Output(root)
    with WorkerProcess(Plan(settings_for(topic, pair, root, group, **changes), root.with_suffix(".log"))) as worker:
        wait_until(lambda: output.rows >= topic.rows, worker)
        worker.stop()
    return output
