"""The cameras, and strangers among them: messages without end, what was acknowledged, and what the topic then holds.

Batches are cut by count and by the time that is written in the messages, never by the clock: a fault may last longer
than a camera is silent, and a replay must find the same batches. So the time jumps now and then, and the stream ends
with whole batches.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.errors import Lost
from tests.brokers import Broker
from tests.hostile import Limits, hostile, picture
from tests.worker.cameras import IMAGES, Shot, everything

MAX_AGE_S = 3_000.0  # of a batch: longer than any run, so that no clock closes one
_JUMP_MS, _SILENCE_MS = 4_000_000, 8 * 86_400_000  # the second: longer than `search.forget_after_s`
_PICTURES = 400  # different ones; what is in a picture decides about alpha, its offset about everything else
_IN_FLIGHT = 2_000  # messages: kafka-python's producer would take any number
LIMITS = Limits()  # of the decoder, which strangers break
MAX_BATCH_BYTES = 2**20  # of a batch of the broker, unpacked
_TIMES_MS = (0, 1, 7 * 10**12, 10**16, 2**62)  # that a stranger's clock shows
_NUMBER = "number"  # the header that says which shot a message is
_PATIENCE_S = 180.0  # for acknowledgements while brokers come and go


class Film:
    """The shots of all cameras, in takes; between two takes the time jumps, which ends every open batch."""

    def __init__(self, seed: int, *, cameras: int, partitions: int) -> None:
        self._rng = random.Random(seed)
        self._cameras, self._partitions = cameras, partitions
        self._now_ms = int(time.time() * 1000) - 5 * 365 * 86_400_000  # years ago; the topic keeps everything
        self._pictures = [picture(self._rng) for _ in range(_PICTURES)]
        self._hostile = hostile(seed, 10**9, LIMITS)
        self._strangers = 0

    def take(self) -> Iterator[Shot]:
        """Some images of each camera; now and then a batch with a bad row, a message that nobody can read, nothing."""
        rng = self._rng
        turns = [camera for camera in range(self._cameras) for _ in range(rng.randrange(1, 4 * IMAGES))]
        rng.shuffle(turns)
        for camera in turns:
            yield self._single(camera)
            if rng.random() < 0.02:
                yield self._other(rng.randrange(self._cameras))
            if rng.random() < 0.03:
                yield self._stranger()
        self._now_ms += _SILENCE_MS if rng.random() < 0.03 else _JUMP_MS

    def last_take(self) -> Iterator[Shot]:
        """Whole batches, so that nothing stays open."""
        for _ in range(IMAGES):
            for camera in range(self._cameras):
                yield self._single(camera)

    def _single(self, camera: int) -> Shot:
        self._now_ms += self._rng.randrange(1, 40)
        partition, key = self._place(camera)
        return Shot(partition, key, self._rng.choice(self._pictures), self._now_ms)

    def _other(self, camera: int) -> Shot:
        partition, key = self._place(camera)
        match self._rng.randrange(3):
            case 0:
                value = encode_batch([b"no image", *self._rng.choices(self._pictures, k=5)])
                headers = (("content-type", ARROW_STREAM.encode()),)
                return Shot(partition, key, value, self._now_ms, headers, 6, "unsupported_format")
            case 1:
                return Shot(partition, key, b"\xff\xd8\xff broken", self._now_ms, (), 1, "undecodable_image", True)
            case _:
                return Shot(partition, key, None, self._now_ms, (), 1, "tombstone")

    def _stranger(self) -> Shot:
        """What must be rejected, a name never heard before whose clock is anywhere, or what unpacks too far."""
        rng, partition = self._rng, self._rng.randrange(self._partitions)
        kind = rng.random()
        if kind < 0.5:
            harm = next(self._hostile)
            return Shot(partition, harm.key, harm.value, self._now_ms, harm.headers, 1, harm.reason, harm.dead, True)
        if kind < 0.97:
            self._strangers += 1
            name, at_ms = b"stranger-%d" % self._strangers, rng.choice((self._now_ms, *_TIMES_MS))
            return Shot(partition, name, encode_batch([rng.choice(self._pictures)]), at_ms, packed=True)
        value = bytes(2 * MAX_BATCH_BYTES)  # more than a producer puts into one batch with others
        return Shot(partition, b"stranger", value, self._now_ms, (), 0, Lost.BATCH_TOO_LARGE, True, True)

    def _place(self, camera: int) -> tuple[int, bytes]:
        return camera % self._partitions, b"camera-%d" % camera


class Feed:
    """Sends the film from a thread, at most `rate` messages a second and never beyond `allow`, until `finish`.

    Acknowledged by all replicas in sync (acks=all), or not counted. A message that was sent again may be in the topic
    twice: then it is two messages.
    """

    def __init__(self, broker: Broker, topic: str, film: Film, *, rate: float) -> None:
        self._broker, self._topic, self._film, self._rate = broker, topic, film, rate
        self.shots: list[Shot] = []
        self.acknowledged: dict[tuple[int, int], int] = {}  # (partition, offset) -> number of the shot
        self.refused = 0
        self._allowed = 0
        self._room = threading.BoundedSemaphore(_IN_FLIGHT)
        self._enough, self._broken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="feed", daemon=True)

    @property
    def sent(self) -> int:
        """Messages up to now."""
        return len(self.shots)

    def allow(self, messages: int) -> None:
        """It may have sent this many."""
        self._allowed = messages

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._thread.join(2 * _PATIENCE_S)

    def finish(self) -> None:
        """End with whole batches; returns when every message is acknowledged or refused."""
        self._enough.set()
        self._thread.join(2 * _PATIENCE_S)
        assert not self._thread.is_alive(), f"no end after {self.sent} messages"
        assert not self._broken.is_set(), "the producer failed; see the traceback above"

    def landed(self) -> dict[tuple[int, int], Shot]:
        """Everything in the topic, by place, as a consumer of its own reads it: also what was never acknowledged."""
        return {
            (record.partition, record.offset): self.shots[int(dict(record.headers)[_NUMBER])]
            for record in everything(self._broker, self._topic)
        }

    def _send_all(self) -> None:
        try:
            with self._producer(None) as plain, self._producer("zstd") as packing:
                while not self._enough.is_set():
                    for shot in self._film.take():
                        self._send(packing if shot.packed else plain, shot, paced=not self._enough.is_set())
                packing.flush(timeout=_PATIENCE_S)
                plain.flush(timeout=_PATIENCE_S)
                for shot in self._film.last_take():
                    self._send(plain, shot, paced=False)
                plain.flush(timeout=_PATIENCE_S)
        except BaseException:
            self._broken.set()
            raise

    @contextmanager
    def _producer(self, compression: str | None) -> Iterator[Any]:
        producer = KafkaProducer(
            bootstrap_servers=self._broker.bootstrap_servers.split(","),
            acks="all",
            enable_idempotence=False,  # kafka-python 3.0.12 sometimes never closes with it (tests/kafka)
            retries=1_000,
            request_timeout_ms=10_000,
            delivery_timeout_ms=int(1000 * _PATIENCE_S),
            linger_ms=5,
            compression_type=compression,
            max_request_size=4 * MAX_BATCH_BYTES,
        )
        yield producer
        producer.close(timeout=_PATIENCE_S)

    def _send(self, producer: Any, shot: Shot, *, paced: bool) -> None:
        while paced and len(self.shots) >= self._allowed and not self._enough.wait(0.02):
            pass
        if paced:
            self._enough.wait(1.0 / self._rate)
        self._room.acquire()
        number = len(self.shots)
        self.shots.append(shot)
        sent = producer.send(
            self._topic,
            shot.value,
            key=shot.key,
            headers=[*shot.headers, (_NUMBER, b"%d" % number)],
            partition=shot.partition,
            timestamp_ms=shot.timestamp_ms,
        )
        sent.add_callback(partial(self._acknowledge, number)).add_errback(self._refuse)

    def _acknowledge(self, number: int, metadata: Any) -> None:
        self.acknowledged[metadata.partition, metadata.offset] = number
        self._room.release()

    def _refuse(self, error: Exception) -> None:
        self.refused += 1
        self._room.release()
