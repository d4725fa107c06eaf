"""Number `n` of a seed: a value of the corpus with damage, with headers that may be damaged too; or a fetch of many.

A function of (seed, n): whatever is found can be made again alone.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.records import Message, stated_ms
from tests.hostile import Headers, arrow
from tools.fuzz import fetches, parts
from tools.fuzz.corpus import Corpus
from tools.fuzz.damage import damaged, edge, restructured, spliced
from tools.fuzz.extremes import extreme

TOPIC = "fuzz"
MAX_MESSAGE_BYTES, MAX_ROWS = 16_384, 8  # below the defaults, so that messages stay small
_A_FETCH_IN = 20  # numbers

_NAMES = (
    *("content-type", "Content-Type", "stream-id", "captured-at", "frame-id", "label", "meta-gain", "meta-"),
    *("ce_datacontenttype", "ce_subject", "ce_source", "ce_time", "ce_id", "\N{SNOWMAN}", "", "stream-id\0"),
)
_VALUES: tuple[bytes | None, ...] = (
    *(b"image/jpeg", b"image/png; q=1", b"image/webp", b"image/bmp", ARROW_STREAM.encode(), b"text/plain", b""),
    *(b"application/octet-stream", b"2026-05-01T12:00:00.25Z", b"2199-12-31T23:59:60+23:59", b"0001-01-01T00:00:00Z"),
    *(b"9999-12-31T23:59:59-23:59", b"cam-1", b"\xff\xfe", b"/site/cam-1/", b"x" * 2_000, None),
)
_CAMERA, _NOW_MS = b"cam-1", 1_700_000_000_000
_KEYS: tuple[bytes | None, ...] = (_CAMERA,) * 90 + (None, None, b"", b"\xff", b"cam\n1", b"c" * 250)


def sent(seed: int, number: int, corpus: Corpus) -> Iterator[Message]:
    """What a decoder gets of that number: one message, or as many as are in what the broker sent.

    Offsets begin at the number. Raises AssertionError if what was fetched does not come to an end.
    """
    if number % _A_FETCH_IN == _A_FETCH_IN - 1:
        rng = random.Random(f"{seed}/{number}")
        return fetches.messages(fetches.fetched(rng, number, partial(_parts, corpus=corpus)), number)
    return iter((message(seed, number, corpus),))


def message(seed: int, number: int, corpus: Corpus) -> Message:
    """The message; its offset is its number."""
    rng = random.Random(f"{seed}/{number}")
    key, value, headers = _parts(rng, corpus)
    if key == _CAMERA and rng.random() < 0.3:
        key = b"stranger-%d" % (number if rng.random() < 0.9 else rng.randrange(number + 1))
    at_ms = edge(rng, 63) if rng.random() < 0.2 else _NOW_MS + number
    return Message(TOPIC, 0, number, key, value, headers, stated_ms(at_ms if rng.random() < 0.9 else None))


def _parts(rng: random.Random, corpus: Corpus) -> tuple[bytes | None, bytes | None, Headers]:
    value = _value(rng, corpus)
    headers = _headers(rng) if rng.random() < 0.15 else ()
    return rng.choice(_KEYS), value, headers


def _value(rng: random.Random, corpus: Corpus) -> bytes | None:
    kind = rng.random()
    if kind < 0.45:
        form, values = rng.choice(corpus.formats)
        return _broken(rng, form, values, corpus.images)
    if kind < 0.80:
        return _broken(rng, parts.ARROW, corpus.batches, corpus.batches)
    if kind < 0.93:
        return _batch_of_broken(rng, corpus)
    if kind < 0.95:
        return rng.choice(corpus.images + corpus.batches) + bytes(MAX_MESSAGE_BYTES if rng.random() < 0.2 else 9)
    if kind < 0.97:
        return b"\0" + struct.pack(">I", edge(rng, 32)) + rng.choice(corpus.images)
    if kind < 0.975:
        value = extreme(rng)
        return value if rng.random() < 0.5 else damaged(value, rng)
    return rng.choice((None, b"", rng.randbytes(rng.randrange(300)), rng.choice(corpus.images + corpus.batches)))


def _broken(rng: random.Random, form: parts.Format, values: tuple[bytes, ...], others: tuple[bytes, ...]) -> bytes:
    value = rng.choice(values)
    match rng.randrange(10):
        case 0 | 1 | 2:
            return damaged(value, rng)
        case 3:
            return spliced(value, rng.choice(others), rng)
        case 4:
            return damaged(restructured(form, value, values, rng), rng)
        case _:
            return restructured(form, value, values, rng)


def _batch_of_broken(rng: random.Random, corpus: Corpus) -> bytes:
    """A sound batch in which some images are not."""
    images: list[bytes] = []
    for _ in range(rng.randint(1, 3)):
        form, values = rng.choice(corpus.formats)
        images.append(rng.choice(values) if rng.random() < 0.3 else _broken(rng, form, values, corpus.images))
    if rng.random() < 0.5:
        return encode_batch(images, stream_id=rng.choice(("cam-1", "cam-2", "", "c\n")))
    ticks = pa.array([edge(rng, 63) for _ in images], pa.int64())
    kind = pa.timestamp(rng.choice(("s", "ms", "us", "ns")), rng.choice((None, "UTC")))
    return arrow({"image": pa.array(images, pa.binary()), "captured_at": ticks.cast(kind)})


def _headers(rng: random.Random) -> Headers:
    headers = []
    for _ in range(rng.randint(1, 4)):
        value = rng.choice(_VALUES)
        if value and rng.random() < 0.5:
            value = damaged(value, rng)
        headers.append((rng.choice(_NAMES), value))
    return tuple(headers)
