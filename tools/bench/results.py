"""From a frame sent to its result read by a consumer, and what results cost: off, early, committed, by batches.

Latency: a real worker and a real Kafka, the demo's pair and ViT-B/32 with random weights, at half of the images that
it manages in a second while a producer keeps it full, so that producer, broker and consumer have their share of this
machine at both paces. A consumer notes when each result came; the producer's timestamp says when the frame was sent.
A frame waits for its batch: until the frame that fills it, or the next one of the camera that comes too late for it.
What is beyond that is the program's own. A forward has as many rows whether a batch fills them or not. So cameras are
as few, and a batch waits as long, as it takes to fill batches at that pace: else it is no half load.

Cost: processor seconds of the whole process an image, by the demo's pair on frames in memory, so that nothing is idle;
the ways in turns. Beside it, by their own clocks, the threads that tell results. Last the floor: kafka-python's
producer alone, one record an image of a result's size, none of ours around it. `BENCH_TURNS` is how many turns (6).
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition as KafkaPartition

from adawise import demo
from adawise.app.model import load_model
from adawise.app.worker import WorkerParts, make_worker
from adawise.bench.worker import Tally, jpegs
from adawise.publish.outbox import producer_of
from adawise.records import Message
from adawise.settings import BatchSettings, KafkaSettings, ModelSettings, ResultsSettings, Settings, SinkSettings
from tests.brokers import Broker, create_topic, fresh_name, running
from tests.processes import start_server
from tests.worker.cameras import Shot, Topic
from tests.worker.process import Plan, WorkerProcess
from tools.bench.paired import Spent, in_turns, is_interrupted, serve, text, until_interrupted
from tools.bench.worker import write_pair

PARTITIONS, SECONDS, WARM_BATCHES = 2, 40.0, 48
AHEAD_BATCHES = 4  # of each camera, that wait where a worker is kept full
COST_IMAGES, TURNS = 768, int(os.environ.get("BENCH_TURNS", "6"))
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


@dataclass(frozen=True)
class HalfLoad:
    """A pair, and cameras and batches by which half of its pace can be had."""

    name: str
    pair: ModelSettings
    cameras: int
    batch: BatchSettings


def main() -> int:
    """Print latencies and costs; 1 if a 95th percentile is a second or more beyond the filling, or costs above 2 %."""
    logging.getLogger().setLevel(logging.ERROR)
    missed = False
    with tempfile.TemporaryDirectory() as name, running() as broker:
        print(f"broker: {broker.name}; load {os.getloadavg()[0]:.1f}", flush=True)
        folder = Path(name)
        missed |= cost(broker, folder) > 0.02
        floor(broker)
        start_server()
        loads: tuple[Callable[[], HalfLoad], ...] = (
            lambda: HalfLoad("demo's pair", demo_pair(), 4, BatchSettings()),
            lambda: HalfLoad("ViT-B/32", vit(folder), 1, BatchSettings(images=8, max_age_s=60.0)),
        )
        for load in loads:
            with until_interrupted():
                if not is_interrupted():
                    missed |= latency(broker, folder, load()) >= 1.0
        print(f"load {os.getloadavg()[0]:.1f} at the end")
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


def settings_of(
    broker: Broker,
    topic: Topic,
    root: Path,
    pair: ModelSettings,
    results: ResultsSettings,
    batch: BatchSettings | None = None,
) -> Settings:
    """Defaults beside these."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topic=topic.name, group=topic.name)
    sink = SinkSettings(root=str(root))
    return Settings(kafka=kafka, model=pair, sink=sink, results=results, batch=batch or BatchSettings())


def latency(broker: Broker, folder: Path, load: HalfLoad) -> float:
    """The 95th percentile beyond the filling, in seconds, of early results at half load."""
    topic, values = Topic(broker, fresh_name("latency")), jpegs(640, 480)
    for name in (topic.name, f"{topic.name}.dlq", f"{topic.name}.results"):
        create_topic(broker, name, PARTITIONS)
    settings = settings_of(broker, topic, folder / topic.name, load.pair, ResultsSettings(enabled=True), load.batch)
    reader = Reader(broker, f"{topic.name}.results")
    with reader.reading(), WorkerProcess(Plan(settings, folder / f"{topic.name}.log")) as worker:
        worker.wait_for("recovered")
        turn = load.cameras * load.batch.images
        full, half = Rate(reader, worker), Rate(reader, worker)
        with sending(topic, kept_full(shots(values, WARM_BATCHES * turn, load.cameras), reader, AHEAD_BATCHES * turn)):
            while len(reader.came_s) < WARM_BATCHES // 4 * turn:  # the text heads of the first batches are behind it
                worker.listen(0.2)
            full.begin()
            while len(reader.came_s) < WARM_BATCHES * turn:
                worker.listen(0.1)
            full.end()
        first = len(topic.sent)
        half.begin()
        count = int(SECONDS * full.rate / 2)
        with sending(topic, shots(values, count, load.cameras), every_s=2.0 / full.rate) as thread:
            while thread.is_alive():
                worker.listen(0.2)
            half.end()
        whole = len(topic.sent) - len(topic.sent) % (load.cameras * load.batch.images)
        for _ in range(100):  # batches that no frame will fill are left out
            if len(reader.came_s) < whole:
                worker.listen(0.2)
        worker.stop()
    places = list(topic.sent)[first:]
    seconds, filling, sizes = waits(reader, topic.name, places, load.batch.images)
    print(
        f"{load.name}, kept full: {full}\n{len(seconds)} images at half of it: {half}; {load.cameras} cameras, "
        f"{np.mean(sizes):.1f} of {load.batch.images} images a batch; load {os.getloadavg()[0]:.1f}; seconds:"
    )
    for name, values_s in (
        ("frame to result", seconds),
        ("filling of the batch", filling),
        ("beyond it", seconds - filling),
    ):
        p50, p95, p99 = np.percentile(values_s, [50, 95, 99])
        print(f"  {name:20s} p50 {p50:5.2f}  p95 {p95:5.2f}  p99 {p99:5.2f}", flush=True)
    return float(np.percentile(seconds - filling, 95))


class Rate:
    """Results a second, and what an image costs the worker's process, between `begin` and `end`."""

    def __init__(self, reader: Reader, worker: WorkerProcess) -> None:
        self._reader, self._process = reader, psutil.Process(worker.pid)
        self.begin()

    def begin(self) -> None:
        """From now on."""
        self._began = self._now()

    def end(self) -> None:
        """Until now."""
        seconds, images, busy_s = (now - then for now, then in zip(self._now(), self._began, strict=True))
        self.rate, self._busy, self._each_ms = images / seconds, busy_s / seconds, 1e3 * busy_s / images

    def _now(self) -> tuple[float, int, float]:
        times = self._process.cpu_times()
        return time.monotonic(), len(self._reader.came_s), times.user + times.system

    def __str__(self) -> str:
        return f"{self.rate:.1f} images/s, {self._busy:.2f} cores, {self._each_ms:.2f} ms of them an image"


@contextmanager
def sending(topic: Topic, shots: Iterator[Shot], every_s: float = 0.0) -> Iterator[threading.Thread]:
    """While a thread sends them; left when it has."""
    thread = threading.Thread(target=partial(topic.produce, shots, every_s=every_s))
    thread.start()
    try:
        yield thread
    finally:
        thread.join()


def kept_full(shots: Iterator[Shot], reader: Reader, ahead: int) -> Iterator[Shot]:
    """So many images ahead of their results, and no more: as a broker that is always ahead, but not idle."""
    pause = threading.Event()
    for number, shot in enumerate(shots):
        while number - len(reader.came_s) >= ahead:
            pause.wait(0.005)
        yield shot


def shots(values: list[bytes], count: int, cameras: int) -> Iterator[Shot]:
    """Cameras in turn."""
    for number in range(count):
        camera = number % cameras
        yield Shot(camera % PARTITIONS, b"camera-%d" % camera, values[number % len(values)])


def waits(
    reader: Reader, topic: str, places: list[tuple[int, int]], full: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[int]]:
    """Of each frame: seconds until its result came, and until its batch was complete; and the sizes of batches."""
    found = (reader.results.get(f"{topic}/{partition}/{offset}/0") for partition, offset in places)
    batches: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in filter(None, found):
        batches.setdefault((row["stream_id"], row["batch_number"]), []).append(row)
    whole, filling, sizes = [], [], []
    for (stream, number), frames in batches.items():
        following = batches.get((stream, number + 1))
        if len(frames) < full and following is None:
            continue  # the last of its camera: closed by the clock
        ends = frames if len(frames) >= full or following is None else following[:1]
        complete_s = sent_s(ends[-1])
        whole += [reader.came_s[row["row_id"]] - sent_s(row) for row in frames]
        filling += [complete_s - sent_s(row) for row in frames]
        sizes.append(len(frames))
    return np.asarray(whole), np.asarray(filling), sizes


def sent_s(row: dict[str, Any]) -> float:
    """Kafka's timestamp, since the epoch."""
    return float(np.datetime64(row["kafka_timestamp"].removesuffix("Z"), "us").astype(np.int64) / 1e6)


def cost(broker: Broker, folder: Path) -> float:
    """The share of processor time that early results of images add, by the median of the turns."""
    model_settings, values = demo_pair(), jpegs(640, 480)
    model = load_model(model_settings, Settings().decode)
    messages = [
        Message(
            "frames", n % PARTITIONS, n // PARTITIONS, b"camera-%d" % (n % 8), values[n % len(values)], timestamp_ms=n
        )
        for n in range(COST_IMAGES)
    ]

    def spent(results: ResultsSettings) -> Spent:
        """On all messages, by a worker of its own."""
        root = folder / fresh_name("cost")
        settings = settings_of(broker, Topic(broker, "frames"), root, model_settings, results)
        results_to = f"{root.name}.results" if results.enabled else None
        return serve(
            lambda settings, **parts: make_worker(settings, model, WorkerParts(**parts)),
            settings,
            messages,
            root=root,
            observer=Tally(COST_IMAGES),
            partitions=PARTITIONS,
            results_to=results_to,
        )

    spent(WAYS["off"])  # heads are encoded, weights merged
    found = in_turns({way: partial(spent, results) for way, results in WAYS.items()}, TURNS)
    if not found["off"]:
        return 0.0
    off = median(each.whole for each in found["off"])
    print(f"processor time an image without results: {text([1e3 * each.whole for each in found['off']], '.3f')} ms")
    for way in list(WAYS)[1:]:
        more = [1e6 * (each.whole - without.whole) for each, without in zip(found[way], found["off"], strict=True)]
        own = [1e6 * each.results for each in found[way]]
        print(
            f"  {way:16s} {text(more, '+.0f')} us more, {median(more) / off / 1e4:+.1f} %; "
            f"threads that tell {text(own, '.0f')} us, {median(own) / off / 1e4:.1f} %",
            flush=True,
        )
    return (median(each.whole for each in found["early"]) - off) / off


def floor(broker: Broker) -> None:
    """Microseconds a record of kafka-python's producer alone, as it comes and as we set it up."""
    topic = fresh_name("floor")
    create_topic(broker, topic, PARTITIONS)
    servers = broker.bootstrap_servers.split(",")
    common = {"bootstrap_servers": servers, "enable_idempotence": False, "acks": "all", "linger_ms": 5}
    producers = {
        "as it comes": KafkaProducer(max_in_flight_requests_per_connection=1, **common),
        "as we set it up": producer_of(
            broker.bootstrap_servers,
            {},
            client_id="floor",
            max_request_bytes=2**20,
            timeout_s=30.0,
            linger_ms=5,
            max_in_flight_requests_per_connection=1,
        )(),
    }
    headers = [
        (name, b"x" * 24) for name in ("content-type", "ce_specversion", "ce_type", "ce_source", "ce_id", "ce_subject")
    ]

    def send(producer: Any) -> float:
        before, futures = time.process_time(), []
        for batch in range(64):
            key = b"camera-%d" % (batch % 8)
            futures += [producer.send(topic, key=key, value=b"x" * 650, headers=list(headers)) for _ in range(16)]
            if batch % 8 == 7:
                time.sleep(0.02)  # as rounds come
        for future in futures:
            future.get(30)
        return 1e6 * (time.process_time() - before) / len(futures)

    try:
        for name, values in in_turns(
            {name: partial(send, each) for name, each in producers.items()}, 3 * TURNS
        ).items():
            print(f"kafka-python's producer {name}: {text(values[1:], '.0f')} us a record", flush=True)
    finally:
        for each in producers.values():
            each.close()
