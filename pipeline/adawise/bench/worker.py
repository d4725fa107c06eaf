"""Passes of a worker: a broker in memory, drawn images in its topic, and durable Parquet in a temporary folder."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor

from adawise.app.kafka import kafka_source
from adawise.app.model import ModelPair
from adawise.app.parts import open_decoder
from adawise.app.worker import WorkerParts, make_worker
from adawise.clip.classifier import PairClassifier
from adawise.demo.brokers import broker
from adawise.errors import SettingsError
from adawise.ports import Poll, Round, Source
from adawise.produce.files import Shot
from adawise.produce.produce import Parcel
from adawise.produce.sender import KafkaSender, ensure_topic
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.records import BatchTrace, Message, Selection
from adawise.settings import KafkaSettings, Settings, SinkSettings
from adawise.settings.alerts import AlertsSettings
from adawise.worker.events import BatchServed, Event, FrameRejected, PartitionRecovered, SegmentCommitted

_TOPIC, _PARTITIONS = "bench", 4
_INFLIGHT_BYTES, _TIMEOUT_S = 8 * 2**20, 60.0
Clocks = tuple[float, float, float]


class Tally:
    """An observer that counts what a worker serves, and reads clocks at its first partition and at each commit.

    Clocks are seconds by the wall, of all threads, and of the worker's own thread.
    """

    def __init__(self, images: int) -> None:
        self.images, self.images_served, self.rows, self.traces = images, 0, 0, list[BatchTrace]()
        self.commit_s, self.rejected = 0.0, ""
        self.began: Clocks | None = None
        self.ended: Clocks = (0.0, 0.0, 0.0)

    def observe(self, event: Event) -> None:
        """See `worker.events.Observer`."""
        match event:
            case PartitionRecovered():
                self.began = self.began or _clocks()
            case BatchServed():
                self.traces.append(event.trace)
                self.images_served += event.trace.images
            case FrameRejected():
                self.rejected = event.frame.detail or str(event.frame.reason)
            case SegmentCommitted():
                self.rows += event.commit.rows
                self.commit_s += event.commit.seconds
                self.ended = _clocks()
            case _:
                pass

    @property
    def spent(self) -> Clocks:
        """Seconds from the first partition, or the time that `began` was set to, to the last durable row."""
        assert self.began is not None, "the worker has read no partition"
        wall, every, own = (end - begin for begin, end in zip(self.began, self.ended, strict=True))
        return wall, every, own

    def done(self) -> bool:
        """Return True once all images are served, or one is rejected."""
        return bool(self.rejected) or self.images_served >= self.images

    def mean(self, of: Callable[[BatchTrace], float]) -> float:
        """Return the mean over images of a figure of their batches."""
        return sum(of(trace) * trace.images for trace in self.traces) / self.images_served


class ClockedSource:
    """A source that reads clocks at its first messages: a long run joins its group and begins to fetch only once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.began: Clocks | None = None

    def __getattr__(self, name: str) -> Any:
        """Return everything else as the source has it."""
        return getattr(self._source, name)

    def poll(self, timeout_s: float) -> Poll:
        """See `ports.Source`."""
        poll = self._source.poll(timeout_s)
        if poll.messages and self.began is None:
            self.began = _clocks()
        return poll


class ClockedClassifier:
    """A pair's classifier that counts its own thread's processor seconds in forwards. Implements `ports.Round`, too."""

    def __init__(self, classifier: PairClassifier) -> None:
        self._classifier, self.thread_s = classifier, 0.0
        self._round: Round | None = None

    def __getattr__(self, name: str) -> Any:
        """Return everything else as the classifier has it."""
        return getattr(self._classifier, name)

    def prepare(self, likely: Sequence[int]) -> bool:
        """Return False: a long run has all its text heads, and its idle moments encode none. See `PairClassifier`."""
        del likely
        return False

    def open(self, batches: Sequence[Tensor]) -> Round:
        """See `ports.Classifier`; a worker has one round at a time."""
        self._round = self._classifier.open(batches)
        return self

    def evaluate(self, requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
        """See `ports.Round`."""
        assert self._round is not None, "open a round first"
        began_s = time.thread_time()
        logits = self._round.evaluate(requested)
        self.thread_s += time.thread_time() - began_s
        return logits


class WorkerBench:
    """A worker that serves one pass after the other, each of which goes on where the one before ended.

    Args:
        settings: those of `broker_settings`.
        model: the pair.
        values: encoded images.
        cameras: how many send them.
        check: raises BrokerUnavailable if the broker has ended by itself.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelPair,
        values: Sequence[bytes],
        cameras: int,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings, self._model, self._values, self._cameras = settings, model, values, cameras
        self._check = check
        self._sent = 0
        self._decode = open_decoder(settings.decode, model.checkpoints.preprocess)

    def serve(self, batches: int) -> dict[str, float]:
        """Send so many full batches of each camera, let a worker serve them, and return the figures.

        Raises:
            SettingsError: the settings reject the bench's images.
            BrokerUnavailable: the broker has ended.
        """
        images = self._cameras * batches * self._settings.batch.images
        send_images(self._settings.kafka, self._values, self._cameras, range(self._sent, self._sent + images))
        self._sent += images
        tally, clocked = Tally(images), ClockedClassifier(self._model.classifier)
        source = ClockedSource(kafka_source(self._settings.kafka))

        def should_stop() -> bool:
            self._check()
            return tally.done()

        parts = WorkerParts(
            source=cast(Source, source),
            root=self._settings.sink.root,
            dead_letters=NoDeadLetters(),
            observer=tally,
            should_stop=should_stop,
        )
        with closing(cast(Source, source)):  # a worker that could not be made closes nothing
            make_worker(self._settings, replace(self._model, classifier=cast(PairClassifier, clocked)), parts).run()
        if tally.rejected:
            raise SettingsError(
                f"a JPEG that the bench drew was rejected: {tally.rejected}. Raise the limit in [decode]"
            )
        tally.began = source.began
        wall_s, processor_s, thread_s = tally.spent
        spent_s = {
            "processor": processor_s,
            "host": thread_s - clocked.thread_s,
            "writing": tally.commit_s,
            "forwards": sum(trace.milliseconds["forward"] for trace in tally.traces) / 1e3,
            "search": sum(trace.milliseconds["search"] for trace in tally.traces) / 1e3,
        }
        return {
            "worker": tally.rows / wall_s,
            "forward_equivalents": tally.mean(lambda trace: trace.forward_equivalents),
            "forward_cost": tally.mean(lambda trace: trace.forward_cost or trace.forward_equivalents),
            **{f"{name}_ms": 1e3 * seconds / tally.rows for name, seconds in spent_s.items()},
        }

    def stages(self) -> dict[str, float]:
        """Return milliseconds an image of a decode thread, and the least that Pillow and Parquet alone need."""
        messages = [Message(_TOPIC, 0, n, b"camera", value, timestamp_ms=0) for n, value in enumerate(self._values)]
        decoded = pixels = 0.0
        for message, value in zip(messages, self._values, strict=True):
            decoded += _ms(time.thread_time, partial(self._decode, message))
            pixels += _ms(time.thread_time, Image.open(io.BytesIO(value)).load)
        root = Path(self._settings.sink.root)
        segments = sorted(root.glob("predictions/**/*.parquet"), key=lambda path: path.stat().st_mtime)
        tables = [pq.read_table(path) for path in segments[-_PARTITIONS:]]
        with TemporaryDirectory(dir=root.parent) as folder:
            written = _ms(time.perf_counter, lambda: _write(tables, Path(folder)))
        return {
            "decoding_ms": decoded / len(messages),
            "decoding_limit_ms": pixels / len(messages),
            "writing_limit_ms": written / sum(map(len, tables)),
        }


@contextmanager
def broker_settings(settings: Settings) -> Iterator[tuple[Settings, Callable[[], None]]]:
    """Run an embedded broker with a topic; yield the settings with it and a temporary root, and the broker's check.

    Raises:
        SettingsError: the broker is not installed.
        BrokerUnavailable: it does not start.
    """
    with TemporaryDirectory(prefix="adawise-bench-") as folder, broker("embedded") as running:
        kafka = KafkaSettings(
            bootstrap_servers=running.bootstrap_servers,
            topic=_TOPIC,
            group=_TOPIC,
            client_id=_TOPIC,
            session_timeout_ms=6000,
            dead_letters=False,
        )
        ensure_topic(
            bootstrap_servers=kafka.bootstrap_servers,
            security={},
            client_id=_TOPIC,
            topic=_TOPIC,
            create=True,
            partitions=_PARTITIONS,
            replication=1,
        )
        own = settings.sink
        sink = SinkSettings(root=str(Path(folder) / "output"), flush_rows=own.flush_rows, flush_age_s=own.flush_age_s)
        # Rules of alerts name classes, which those of the demo's pair may not be, and publish nothing here.
        update = {"kafka": kafka, "sink": sink, "alerts": AlertsSettings()}
        yield settings.model_copy(update=update), running.check


def send_images(kafka: KafkaSettings, values: Sequence[bytes], cameras: int, numbers: range) -> None:
    """Send the images of these numbers, dealt to the cameras in turn."""
    sender = KafkaSender(
        bootstrap_servers=kafka.bootstrap_servers,
        security={},
        client_id=kafka.client_id,
        topic=kafka.topic,
        max_message_bytes=2**20,
        max_inflight_bytes=_INFLIGHT_BYTES,
        timeout_s=_TIMEOUT_S,
    )
    with closing(sender):
        for number in numbers:
            shot = Shot(values[number % len(values)], "image/jpeg", str(number))
            sender.send(Parcel(f"camera-{number % cameras}", (shot,), (1_000_000 + number,), is_batch=False))
        sender.flush()


def _write(tables: Sequence[Any], folder: Path) -> None:
    for number, table in enumerate(tables):
        with (folder / f"{number}.parquet").open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())


def _ms(clock: Callable[[], float], work: Callable[[], object]) -> float:
    began_s = clock()
    work()
    return 1e3 * (clock() - began_s)


def _clocks() -> Clocks:
    return time.perf_counter(), time.process_time(), time.thread_time()


_CELL = 40  # px of a patch of one colour, before it is smoothed


def jpegs(width: int = 640, height: int = 480, count: int = 40) -> list[bytes]:
    """Return smooth random images with some noise, about 64 KB each at 640 x 480."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (height // _CELL, width // _CELL, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        values.append(buffer.getvalue())
    return values
