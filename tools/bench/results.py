"""From a frame sent to its result read by a consumer, and what results cost: off, early, committed, by batches.

Latency: a real worker and a real Kafka, the demo's pair and ViT-B/32 with random weights, at half of the images that it
managed in a second of a backlog just before. A consumer notes when each result came; the producer's timestamp says
when the frame was sent. A frame waits for its batch: until the frame that fills it, or the next one of the camera that
comes too late for it. What is beyond that is the program's own.

Cost: processor seconds of the whole process an image, by the demo's pair on frames in memory, so that nothing is idle;
the ways in turns, ten times.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer
from kafka.structs import TopicPartition as KafkaPartition

from adawise import demo
from adawise.build.model import load_model
from adawise.build.worker import make_worker
from adawise.dead_letters.sink import NoDeadLetters
from adawise.records import Message
from adawise.settings import KafkaSettings, ModelSettings, ResultsSettings, Settings, SinkSettings
from tests.brokers import Broker, create_topic, fresh_name, running
from tests.worker.cameras import Shot, Topic
from tests.worker.process import Plan, WorkerProcess, start_server
from tools.bench.host import MemorySource, jpegs
from tools.bench.worker import Tally, write_pair

CAMERAS, PARTITIONS, SECONDS = 4, 2, 45.0
BATCH = Settings().batch
COST_IMAGES, PAIRS = 1_536, 10
WAYS = {
    "off": ResultsSettings(),
    "early": ResultsSettings(enabled=True),
    "committed": ResultsSettings(enabled=True, when="committed"),
    "early, a batch": ResultsSettings(enabled=True, per="batch"),
}
DEMO_PAIR = Path(demo.__file__).parent / "pair"


@dataclass
class Reader:
    """Reads a topic of results all the time, from a thread: when each row's first result came."""

    broker: Broker
    topic: str
    came_s: dict[str, float] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    _enough: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Until it is enough."""
        servers = self.broker.bootstrap_servers.split(",")
        with closing(KafkaConsumer(bootstrap_servers=servers, fetch_max_wait_ms=20)) as consumer:
            places = [KafkaPartition(self.topic, number) for number in range(PARTITIONS)]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            while not self._enough.is_set():
                for records in consumer.poll(timeout_ms=100).values():
                    now_s = time.time()
                    for record in records:
                        result = json.loads(record.value)
                        self.came_s.setdefault(result["row_id"], now_s)
                        self.results.setdefault(result["row_id"], result)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While this lasts."""
        thread = threading.Thread(target=self.read)
        thread.start()
        try:
            yield
        finally:
            self._enough.set()
            thread.join()


def main() -> int:
    """Print latencies and costs; 1 if a 95th percentile is a second or more beyond the filling, or costs above 2 %."""
    missed = False
    with tempfile.TemporaryDirectory() as name, running() as broker:
        print(f"broker: {broker.name}")
        start_server()
        folder = Path(name)
        for what, pair in (("demo's pair", demo_pair()), ("ViT-B/32", vit(folder))):
            missed |= latency(broker, folder, what, pair) >= 1.0
        missed |= cost(broker, folder) > 0.02
    return int(missed)


def demo_pair() -> ModelSettings:
    """The demo's."""
    place = f"local-dir:{DEMO_PAIR}"
    return ModelSettings(
        architecture=f"{place}/theta_0",
        theta_0=f"{place}/theta_0",
        theta_1=f"{place}/theta_1",
        classes=DEMO_PAIR / "classes.txt",
        templates=DEMO_PAIR / "templates.txt",
    )


def vit(folder: Path) -> ModelSettings:
    """ViT-B/32, weights by seed."""
    write_pair(folder)
    theta_0, theta_1 = (str(folder / f"theta_{number}.safetensors") for number in (0, 1))
    return ModelSettings(theta_0=theta_0, theta_1=theta_1, classes=folder / "classes.txt")


def settings_of(broker: Broker, topic: Topic, root: Path, pair: ModelSettings, results: ResultsSettings) -> Settings:
    """Defaults beside these."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topic=topic.name, group=topic.name)
    return Settings(kafka=kafka, model=pair, sink=SinkSettings(root=str(root)), results=results)


def latency(broker: Broker, folder: Path, what: str, pair: ModelSettings) -> float:
    """The 95th percentile beyond the filling, in seconds, of early results at half load."""
    topic, values = Topic(broker, fresh_name("latency")), jpegs(640, 480)
    for name in (topic.name, f"{topic.name}.dlq", f"{topic.name}.results"):
        create_topic(broker, name, PARTITIONS)
    settings = settings_of(broker, topic, folder / topic.name, pair, ResultsSettings(enabled=True))
    reader = Reader(broker, f"{topic.name}.results")
    with reader.reading(), WorkerProcess(Plan(settings, folder / f"{topic.name}.log")) as worker:
        worker.wait_for("recovered")
        backlog = 64 * CAMERAS
        topic.produce(shots(values, backlog))
        while len(reader.came_s) < backlog // 4:  # the text heads of the first batches are behind it
            worker.listen(0.5)
        began, before = time.monotonic(), len(reader.came_s)
        while len(reader.came_s) < backlog * 7 // 8:
            worker.listen(0.2)
        rate = (len(reader.came_s) - before) / (time.monotonic() - began)
        first = len(topic.sent)
        half = threading.Thread(
            target=lambda: topic.produce(shots(values, int(SECONDS * rate / 2)), every_s=2.0 / rate)
        )
        half.start()
        while half.is_alive():
            worker.listen(0.5)
        worker.listen(2.0 * BATCH.max_age_s)
        worker.stop()
    places = list(topic.sent)[first:]
    whole, filling = waits(reader, topic.name, places)
    print(f"{what}: {rate:.0f} images/s of a backlog; {len(whole)} images at {rate / 2:.1f} a second; seconds:")
    for name, seconds in (
        ("frame to result", whole),
        ("filling of the batch", filling),
        ("beyond it", whole - filling),
    ):
        p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
        print(f"  {name:20s} p50 {p50:5.2f}  p95 {p95:5.2f}  p99 {p99:5.2f}")
    return float(np.percentile(whole - filling, 95))


def shots(values: list[bytes], count: int) -> Iterator[Shot]:
    """Cameras in turn."""
    for number in range(count):
        camera = number % CAMERAS
        yield Shot(camera % PARTITIONS, b"camera-%d" % camera, values[number % len(values)])


def waits(reader: Reader, topic: str, places: list[tuple[int, int]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Of each frame: seconds until its result came, and until its batch was complete."""
    rows = [reader.results[f"{topic}/{partition}/{offset}/0"] for partition, offset in places]
    batches: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        batches.setdefault((row["stream_id"], row["batch_number"]), []).append(row)
    whole, filling = [], []
    for (stream, number), frames in batches.items():
        following = batches.get((stream, number + 1))
        if len(frames) < BATCH.images and following is None:
            continue  # the last of its camera: closed by the clock
        ends = frames if len(frames) >= BATCH.images or following is None else following[:1]
        complete_s = sent_s(ends[-1])
        whole += [reader.came_s[row["row_id"]] - sent_s(row) for row in frames]
        filling += [complete_s - sent_s(row) for row in frames]
    return np.asarray(whole), np.asarray(filling)


def sent_s(row: dict[str, Any]) -> float:
    """Kafka's timestamp, since the epoch."""
    return float(np.datetime64(row["kafka_timestamp"].removesuffix("Z"), "us").astype(np.int64) / 1e6)


def cost(broker: Broker, folder: Path) -> float:
    """The largest share of processor time that results add, by the median of the pairs."""
    model_settings, values = demo_pair(), jpegs(640, 480)
    model = load_model(model_settings, Settings().decode)
    messages = [
        Message(
            "frames", n % PARTITIONS, n // PARTITIONS, b"camera-%d" % (n % 8), values[n % len(values)], timestamp_ms=n
        )
        for n in range(COST_IMAGES)
    ]

    def seconds(results: ResultsSettings) -> float:
        """Of the processor, an image."""
        root = folder / fresh_name("cost")
        topic = Topic(broker, "frames")
        worker = make_worker(
            settings_of(broker, topic, root, model_settings, results),
            model,
            source=MemorySource(messages, partitions=PARTITIONS, finite=True),
            root=str(root),
            dead_letters=NoDeadLetters(),
            observer=Tally(COST_IMAGES),
            should_stop=lambda: False,
            results_to=f"{root.name}.results" if results.enabled else None,
            partitions=PARTITIONS,
        )
        before = time.process_time()
        worker.run()
        return (time.process_time() - before) / COST_IMAGES

    seconds(WAYS["off"])  # heads are encoded, weights merged
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(PAIRS):
        for way, results in WAYS.items():
            found[way].append(seconds(results))
    off = median(found["off"])
    shares = {}
    print(f"processor time an image, {PAIRS} in turns: off {1e3 * off:.3f} ms")
    for way in list(WAYS)[1:]:
        more = [with_ - without for with_, without in zip(found[way], found["off"], strict=True)]
        shares[way] = median(more) / off
        low, high = np.percentile(more, [25, 75])
        print(f"  {way:18s} {1e6 * median(more):+.0f} us ({1e6 * low:+.0f} to {1e6 * high:+.0f}), {shares[way]:+.1%}")
    return max(shares.values())
