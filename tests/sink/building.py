"""Drafts and stores for the tests of the sink: small, with every kind of row."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from adawise.errors import Reason, StoreUnavailable
from adawise.ports import SegmentDraft, ServedBy, TopicIdentity
from adawise.records import BatchTrace, Frame, ImageBatch, Predictions, RowId, TopicPartition, TrialRecord
from adawise.sink import schemas
from adawise.sink.chain import SegmentChain
from adawise.sink.owner import Owner
from adawise.store.answers import AlreadyExists
from adawise.store.store import Failpoint, Store

CLASSES = ("car", "bus", "empty street")
TP = TopicPartition("frames", 3)
IDENTITY = TopicIdentity("cluster", "topic-id", 4)
IMAGE = torch.zeros((3, 1, 1), dtype=torch.uint8)

Served = tuple[ImageBatch, Predictions, BatchTrace]


def frame(offset: int, index: int = 0, *, stream: str | None = "north", reason: Reason | None = None) -> Frame:
    return Frame(
        RowId(TP.topic, TP.partition, offset, index),
        kafka_timestamp_ms=1_700_000_000_000 + offset,
        stream_id=stream,
        image=IMAGE if reason is None else None,
        reason=reason,
        detail=None if reason is None else f"expected an image, {reason} came",
    )


def served(frames: Sequence[Frame], *, number: int = 0, alpha: float = 0.35) -> Served:
    """A batch of these frames; image i is of class i mod 3, endpoints evaluated on the even ones."""
    n, stream = len(frames), frames[0].stream_id or ""
    classes = np.arange(n, dtype=np.int32)[:, None] + np.arange(2, dtype=np.int32)
    evaluated = np.arange(n) % 2 == 0
    predictions = Predictions(
        top_index=(classes % len(CLASSES)).astype(np.int32),
        top_probability=np.tile(np.array([0.75, 0.25], np.float32), (n, 1)),
        entropy=np.full(n, 0.5, np.float32),
        endpoint_index=np.where(evaluated, [[1], [2]], -1).astype(np.int32),
        endpoint_confidence=np.where(evaluated, [[0.5], [0.25]], np.nan).astype(np.float32),
    )
    offsets = [f.row_id.offset for f in frames]
    trace = BatchTrace(
        topic=TP.topic,
        partition=TP.partition,
        first_offset=min(offsets),
        last_offset=max(offsets),
        stream_id=stream,
        batch_number=number,
        captured_at_us=frames[-1].captured_at_us,
        kafka_timestamp_ms=frames[-1].kafka_timestamp_ms,
        images=n,
        alpha=alpha,
        previous_alpha=None if number == 0 else alpha,
        trials=(TrialRecord(alpha, n, 1.25), TrialRecord(1.0, n, float("nan"))),
        objective=1.25,
        posterior_mean=1.2,
        posterior_sd=0.1,
        trigger="clock",
        reset=None,
        forward_equivalents=2.0,
        milliseconds={"decode": 1.5, "forward": 20.0},
        statistics={column.name: -number / 8 for number, column in enumerate(schemas.PIXELS)},
        rejected=number % 3,
    )
    images = torch.stack([f.image if f.image is not None else IMAGE for f in frames])
    return ImageBatch(stream, tuple(frames), images), predictions, trace


def draft(first: int, until: int, *, number: int = 0, states: dict[str, bytes] | None = None) -> SegmentDraft:
    """One batch of the offsets [first, until), none pending."""
    accepted = [served([frame(offset) for offset in range(first, until)], number=number)] if until > first else []
    return SegmentDraft(TP, until, (), states or {"north": b"state at %d" % until}, accepted, ())


def open_chain(
    store: Store,
    writer: str = "worker-0",
    at: Failpoint = lambda _: None,
    owner: Owner | None = None,
    model: str = "model",
    by: ServedBy | None = None,
    divided: bool = False,
) -> SegmentChain:
    return SegmentChain(
        store=store,
        by=by or ServedBy(CLASSES, model, "config"),
        writer=writer,
        owner=owner,
        divided=divided,
        failpoint=at,
    )


class DictStore:
    """A store in a dictionary. `refuse` makes the next requests fail: before they take effect, or after."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.now = datetime(2026, 12, 1, tzinfo=UTC)
        self._written: dict[str, datetime] = {}
        self.refuse: list[str] = []
        self.page_keys = 1_000

    def create(self, key: str, data: bytes) -> None:
        self._fail("before")
        if key in self.objects:
            raise AlreadyExists(key)
        self.objects[key], self._written[key] = data, self.now
        self._fail("after")

    def put(self, key: str, data: bytes) -> None:
        self._fail("before put")
        self.objects[key], self._written[key] = data, self.now

    def get(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def open(self, key: str) -> BinaryIO | None:
        data = self.get(key)
        return None if data is None else io.BytesIO(data)

    def list(self, prefix: str) -> list[str]:
        folder = prefix.removesuffix("/") + "/" if prefix else ""
        return sorted(key for key in self.objects if key.startswith(folder))

    def sizes(self, prefix: str) -> Mapping[str, int]:
        return {key: len(self.objects[key]) for key in self.list(prefix)}

    def page(self, folder: str, after: str = "") -> tuple[Sequence[str], bool]:
        before = folder.removesuffix("/")
        keys = [key for key in self.list(folder) if key > f"{before}/{after}"]
        return keys[: self.page_keys], len(keys) <= self.page_keys

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def modified(self, key: str) -> datetime | None:
        return self._written.get(key, self.now) if key in self.objects else None

    def sweep(self, prefix: str) -> None:
        pass

    def _fail(self, when: str) -> None:
        if when in self.refuse:
            self.refuse.remove(when)
            raise StoreUnavailable(f"the store did not answer ({when})")


class ForgetfulStore(DictStore):
    """What a store is whose answers are lost: its client asks again, and hears that the key is there."""

    def create(self, key: str, data: bytes) -> None:
        super().create(key, data)
        raise AlreadyExists(key)


class OverwritingStore(DictStore):
    """What a plain object upload does: create never refuses."""

    def create(self, key: str, data: bytes) -> None:
        self.objects.pop(key, None)
        super().create(key, data)


def next_state(state: bytes, rows: Sequence[str]) -> bytes:
    """A state that remembers everything: a hash chain over the rows of every batch, and the number of batches."""
    number = int(state.partition(b":")[0]) if state else 0
    digest = hashlib.sha256(state + "|".join(rows).encode()).hexdigest()[:16]
    return b"%d:%s" % (number + 1, digest.encode())


def damaged_page(data: bytes) -> bytes:
    """A Parquet file with one bit of its first column flipped that only the page's checksum can find."""
    column = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(0)
    start = int(column.dictionary_page_offset or column.data_page_offset)
    for at in range(start + column.total_compressed_size - 1, start, -1):
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with suppress(pa.ArrowException, OSError):  # the codec noticed: try another place
            pq.ParquetFile(pa.BufferReader(damaged)).read()
            return damaged
    raise AssertionError("the codec notices every flipped bit of this file")
