"""A street of cameras as raw messages, by seed: what the live run, the recording and the replays share.

The stamps are the cameras' own, so that where batches end does not depend on how fast this machine is. By kind: a burst
fills batches by count, pairs are parted by their stamps, the last frames of the first half wait for the clock (the
second half is stamped a minute later and sent when all of the first is written), and some cameras send Arrow batches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kafka import KafkaProducer

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from tests.deadlines import DEADLINE_S
from tests.hostile import Headers, Limits, hostile, picture

PARTITIONS = 3
CAMERAS = 24
BATCH_IMAGES = 8
MAX_AGE_S = 0.3
LIMITS = Limits()
FIRST_MS = 1_767_225_600_000  # 2026-01-01
HALVES_GAP_MS = 60_000
HOSTILE = 52  # at least one of every kind

_REQUEST_BYTES = 1_000_000  # what a topic takes at once by default


@dataclass(frozen=True)
class Shot:
    """A message before it is sent; `rows` is how many rows of output it must give."""

    at_ms: int
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    rows: int = 1


def halves(seed: int = 0) -> tuple[list[Shot], list[Shot]]:
    """The two halves, each in the order of its stamps."""
    rng = random.Random(seed)
    shots = [shot for half in range(2) for camera in range(CAMERAS) for shot in _camera(rng, camera, half)]
    shots += _rubbish(rng)
    shots.sort(key=lambda shot: shot.at_ms)
    middle_ms = FIRST_MS + HALVES_GAP_MS
    return [s for s in shots if s.at_ms < middle_ms], [s for s in shots if s.at_ms >= middle_ms]


def send(bootstrap_servers: str, topic: str, shots: Sequence[Shot]) -> None:
    """Send them and wait for the acknowledgements. A partition's messages arrive together or not at all.

    If they trickled in on a busy machine, the live worker's clock would be right to close a batch in their midst.
    """
    producer = KafkaProducer(
        bootstrap_servers=bootstrap_servers,
        linger_ms=60_000,
        batch_size=_REQUEST_BYTES,
        max_request_size=_REQUEST_BYTES,
    )
    try:
        sent = [
            producer.send(
                topic,
                key=shot.key,
                value=shot.value,
                headers=list(shot.headers),
                partition=shot.partition,
                timestamp_ms=shot.at_ms,
            )
            for shot in shots
        ]
        producer.flush(timeout=DEADLINE_S)
        for future in sent:
            future.get(timeout=DEADLINE_S)
    finally:
        producer.close()


def _camera(rng: random.Random, camera: int, half: int) -> Iterator[Shot]:
    """One camera's half: what kind it is depends on its number alone, when it begins on chance."""
    name = f"camera-{camera:02d}"
    began_ms = FIRST_MS + half * HALVES_GAP_MS + rng.randrange(2_000)
    kind = camera % 4

    def single(at_ms: int) -> Shot:
        return _shot(name, camera, at_ms, picture(rng))

    def batch(at_ms: int, count: int, bad: Sequence[int] = ()) -> Shot:
        images = [b"no image" if i in bad else picture(rng) for i in range(count)]
        value = encode_batch(images, stream_id=name, frame_ids=[f"{at_ms}-{i}" for i in range(count)])
        return _shot(name, camera, at_ms, value, {"content-type": ARROW_STREAM}, rows=count)

    if kind == 0:  # a burst: two batches by count, and three frames for the clock
        yield from (single(began_ms + 10 * n) for n in range(2 * BATCH_IMAGES + 3))
    elif kind == 1:  # pairs that their stamps part; the last pair waits for the clock
        yield from (single(began_ms + 1_000 * (n // 2) + 50 * (n % 2)) for n in range(8))
    elif kind == 2:  # seven frames, silence, nine frames: by stamp, by count, by clock
        yield from (single(began_ms + 20 * n + 10_000 * (n >= 7)) for n in range(16))
    else:  # Arrow batches, one row of them bad, and singles between them
        yield batch(began_ms, 5)
        yield from (single(began_ms + 100 + 10 * n) for n in range(3))
        yield batch(began_ms + 200, 6, bad=[2])
        yield single(began_ms + 300)


def _shot(
    name: str, camera: int, at_ms: int, value: bytes, headers: Mapping[str, str] | None = None, rows: int = 1
) -> Shot:
    fields = {"content-type": "image/jpeg", "captured-at": "2026-01-01T00:00:00.25Z"} | dict(headers or {})
    return Shot(
        at_ms, camera % PARTITIONS, name.encode(), value, tuple((k, v.encode()) for k, v in fields.items()), rows
    )


def _rubbish(rng: random.Random) -> Iterator[Shot]:
    for number, message in enumerate(hostile(rng.randrange(1_000), HOSTILE, LIMITS)):
        at_ms = FIRST_MS + rng.randrange(12_000) + HALVES_GAP_MS * (number % 2)
        yield Shot(at_ms, number % PARTITIONS, message.key, message.value, message.headers)
