"""The worker's loop without a broker, a model or a wall clock: what its tests are driven with.

Images are four pixels of one value, so that a message is `Message(key=b"north", value=b"\x07")`; the classifier is a
pure function of it and alpha. The clock moves by `STEP_S` a turn of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from adawise.adapt.objective import raw_entropy
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.errors import AdawiseError, Reason
from adawise.output.verify.root import verify
from adawise.ports import Commit, Head, Publication, ServedBy, Source, When
from adawise.records import Alert, BatchTrace, DecodedMessage, Frame, Message, RowId, RowResult, TopicPartition
from adawise.sink.chain import SegmentChain
from adawise.sink.files import segment_keys
from adawise.sink.schemas import PREDICTED_AT
from adawise.store.store import Store
from adawise.worker.adaptation import Adaptation
from adawise.worker.backpressure import Limits
from adawise.worker.batching import BatchPolicy
from adawise.worker.commit import Outputs
from adawise.worker.decode_pool import Prefetch
from adawise.worker.events import (
    BatchServed,
    Event,
    FrameRejected,
    PartitionLost,
    PartitionRecovered,
    ProducerMistaken,
    RetriesEnded,
    RetryScheduled,
    SegmentCommitted,
    Stopped,
)
from adawise.worker.loop import LogPolicy, LoopClock, Worker
from adawise.worker.pairs import Pairs, Serving
from adawise.worker.partition import FlushPolicy, PartitionPolicy
from tests.adapt.curves import AlphaByAlpha
from tests.sink.building import DictStore
from tests.sink.footers import read_segment_footers
from tests.sink.stored import read_predictions

TP = TopicPartition("frames", 0)
CLASSES = ("car", "bus", "empty street")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STEP_S = 0.05
STEPS = 20_000  # of the loop: a run that has not come to its end by then never will
BAD = b"bad"


def image(offset: int, stream: str, value: int | None = None, *, at_ms: int = 0, partition: int = 0) -> Message:
    """A message with one image."""
    pixel = bytes([offset % 251 if value is None else value])
    return Message(TP.topic, partition, offset, stream.encode(), pixel, timestamp_ms=at_ms)


def images(count: int, *streams: str, first: int = 0, partition: int = 0) -> list[Message]:
    """`count` messages, the streams in turn, 10 ms apart."""
    return [image(n, streams[n % len(streams)], at_ms=10 * n, partition=partition) for n in range(first, first + count)]


def batch(offset: int, stream: str, values: bytes) -> Message:
    """A message with an image for each byte; a zero is a bad row."""
    return Message(TP.topic, 0, offset, stream.encode(), b"batch:" + values)


def bad(offset: int, partition: int = 0) -> Message:
    """A message that cannot be read at all."""
    return Message(TP.topic, partition, offset, b"south", BAD)


def decode(message: Message) -> DecodedMessage:
    """What `adawise.decode.message` does, for these messages."""
    value = message.value or b""
    if value == BAD:
        return DecodedMessage(message, (_frame(message, 0, None),), dead=True)
    if value.startswith(b"batch:"):
        rows = value.removeprefix(b"batch:")
        return DecodedMessage(message, tuple(_frame(message, i, row or None) for i, row in enumerate(rows)), True)
    return DecodedMessage(message, (_frame(message, 0, value[0]),))


def _frame(message: Message, index: int, pixel: int | None) -> Frame:
    return Frame(
        RowId(message.topic, message.partition, message.offset, index),
        message.timestamp_ms,
        (message.key or b"").decode(),
        image=None if pixel is None else torch.full((3, 2, 2), pixel, dtype=torch.uint8),
        reason=Reason.UNDECODABLE_IMAGE if pixel is None else None,
        detail="expected an image" if pixel is None else None,
    )


class FakeClassifier(AlphaByAlpha):
    """Logits that depend on the pixel and on alpha, a row at a time."""

    alphas = ALPHAS

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        pixel = torch.cat([part[:, 0, 0, 0] for part in images])
        x = pixel.double() / 255.0  # [N]
        best = (pixel.long() + alpha_index) % len(CLASSES)
        sharpness = 1.0 + 4.0 * (1.0 - (ALPHAS[alpha_index] - x).abs())
        return (torch.nn.functional.one_hot(best, len(CLASSES)) * sharpness[:, None]).float()


class FakeDeadLetters:
    """Keeps what is sent; each of `errors` is raised by one of the next calls, and `at_close` by the last."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.errors: list[AdawiseError] = []
        self.at_close: AdawiseError | None = None
        self.flushes = 0

    def send(self, message: Message, frame: Frame) -> None:
        self._fail()
        self.sent.append(message)

    def flush(self) -> None:
        self._fail()
        self.flushes += 1

    def hurry(self, within_s: float) -> None:
        pass

    def close(self) -> None:
        if self.at_close is not None:
            raise self.at_close

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


class FakeResults:
    """Keeps what it is told; each of `errors` is raised by one of the next calls. `room`: taken until settled."""

    def __init__(self, when: When) -> None:
        self._when = when
        self.published: list[Publication] = []
        self.acknowledged = 0  # of `told`
        self.errors: list[AdawiseError] = []
        self.room, self.answers, self.closed = 1_000, True, 0
        self.hurries_s: list[float] = []

    @property
    def when(self) -> When:
        return self._when

    @property
    def in_flight_bytes(self) -> int:
        return 1_000 * (len(self.published) - self.acknowledged)

    @property
    def row_ids(self) -> dict[str | None, list[str]]:
        """Of what it was told, by camera."""
        found: dict[str | None, list[str]] = {}
        for expected in self.published:
            for row in rows_of(expected):
                found.setdefault(row.stream_id, []).append(str(row.row_id))
        return found

    def send(self, output: Publication, *, wait: bool) -> bool:
        self._fail()
        if not wait and len(self.published) - self.acknowledged >= self.room:
            return False
        self.published.append(output)
        return True

    def settled(self, *, wait: bool) -> bool:
        self._fail()
        if wait or self.answers:
            self.acknowledged = len(self.published)
        return self.acknowledged == len(self.published)

    def hurry(self, within_s: float) -> None:
        self.hurries_s.append(within_s)

    def close(self) -> None:
        self.closed += 1

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def rows_of(found: Publication) -> Sequence[Frame | RowResult]:
    """What it is about."""
    if isinstance(found.what, Alert):
        return []
    if isinstance(found.what, Frame):
        return [found.what]
    return found.what if isinstance(found.what, list) else found.what[0].frames


@dataclass
class Journal:
    """An `Observer` that keeps the events."""

    recovered: list[tuple[TopicPartition, Head]] = field(default_factory=list)
    lost: list[TopicPartition] = field(default_factory=list)
    rejected: list[Frame] = field(default_factory=list)
    noted: list[Frame] = field(default_factory=list)
    served: list[BatchTrace] = field(default_factory=list)
    failed: list[tuple[BatchTrace, Exception]] = field(default_factory=list)
    commits: list[tuple[TopicPartition, Commit]] = field(default_factory=list)
    lags: list[int | None] = field(default_factory=list)  # after each of them
    waits_s: list[float] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # what failed, and succeeded
    ends: int = 0

    def observe(self, event: Event) -> None:
        match event:
            case PartitionRecovered():
                self.recovered.append((event.tp, event.head))
            case PartitionLost():
                self.lost.append(event.tp)
            case FrameRejected():
                self.rejected.append(event.frame)
            case ProducerMistaken():
                self.noted.append(event.frame)
            case BatchServed():
                self.served.append(event.trace)
                if event.error is not None:
                    self.failed.append((event.trace, event.error))
            case SegmentCommitted():
                self.commits.append((event.tp, event.commit))
                self.lags.append(event.lag)
            case RetryScheduled():
                self.waits_s.append(event.wait_s)
            case RetriesEnded():
                self.ended.append(event.what)
            case Stopped():
                self.ends += 1
            case _:
                pass


class Inline(Prefetch):
    """Decodes what it is given at once, so that turns of the loop can be counted."""

    def submit(
        self,
        message: Message,
        known: Container[str],
        *,
        isolated: bool = False,
        now_s: float = 0.0,
        streams: frozenset[str] | None = None,
    ) -> tuple[frozenset[str], bool]:
        submitted = super().submit(message, known, isolated=isolated, now_s=now_s, streams=streams)
        self._do_all()
        return submitted

    def wait(self, timeout_s: float, messages: int = 1) -> None:
        self._do_all()

    def _do_all(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)


def held_bytes(pool: Prefetch) -> int:
    """Of what is not decoded, and of what waits to be taken."""
    return sum(lanes.waiting_bytes + lanes.held_bytes for lanes in pool._partitions.values())


def prefetch(*, threads: int = 0) -> Prefetch:
    """The decode pool; without threads, what is submitted is decoded when it is."""
    kind = Prefetch if threads else Inline
    return kind(decode, lambda message: frozenset([(message.key or b"").decode()]), threads=threads)


def adaptation(kind: type[WarmSearch]) -> Adaptation:
    """The method with this search, over a fake classifier."""
    exploration = Exploration(budget=3, images=2, every=3, min_images=2)
    return Adaptation(
        kind(ALPHAS, raw_entropy, "fake", 2, exploration), FakeClassifier(), (1.0,) * len(ALPHAS), top_k=2
    )


def worker(arguments: dict[str, Any]) -> Worker:
    """Return a worker of arguments without their groups: the policies' and outputs' fields are arguments too."""

    def group(kind: Any) -> Any:
        given = {each.name: arguments.pop(each.name) for each in fields(kind) if each.name in arguments}
        return kind(**{name: value for name, value in given.items() if value is not None})

    return Worker(
        outputs=group(Outputs),
        policy=group(PartitionPolicy),
        log=group(LogPolicy),
        clock=LoopClock(arguments.pop("clock"), arguments.pop("sleep")),
        **arguments,
    )


class Bench:
    """A worker over fakes. `run` turns its loop until a condition holds; then the worker ends in order.

    Args:
        source: of the messages.
        store: of the segments; several benches may share one.
        changes: of the arguments of the worker; in place of `pairs`, of its pair: `adaptation`, `classes`,
            `keeps_states` and `prepare`.
    """

    def __init__(self, source: Source, store: Store | None = None, **changes: Any) -> None:
        self.store = store if store is not None else DictStore()
        self.now_s = 0.0
        self.steps = 0
        self.seen = Journal()
        self.dead_letters = FakeDeadLetters()
        self.points: list[str] = []
        self.at: Callable[[str], None] = lambda _: None
        self._counted: dict[str, int] = {}
        self._read: tuple[tuple[tuple[TopicPartition, str], ...], tuple[pa.Table, list[dict[str, Any]]]] | None = None
        self._until: Callable[[], bool] = lambda: False
        method = changes.pop("adaptation", None) or adaptation(WarmSearch)
        by = ServedBy(tuple(changes.pop("classes", ())), "", "")
        serving = Serving(method, by, changes.pop("prepare", lambda: False))
        arguments: dict[str, Any] = {
            "pairs": Pairs(serving, keeps=changes.pop("keeps_states", False)),
            "source": source,
            "prefetch": prefetch(),
            "sink": SegmentChain(
                store=self.store,
                by=ServedBy(CLASSES, "model", "config"),
                writer="bench",
                failpoint=self._hook,
            ),
            "dead_letters": self.dead_letters,
            "observer": self.seen,
            "batches": BatchPolicy(images=4, max_age_s=2.0),
            "flush": FlushPolicy(max_rows=16, max_age_s=5.0),
            "limits": Limits(inflight_bytes=1 << 20, uncommitted_rows=1_000, round_images=8),
            "forget_after_s": 604_800.0,
            "max_streams": 100,
            "skip_gaps": False,
            "should_stop": self._should_stop,
            "failpoint": self._hook,
            "clock": lambda: self.now_s,
            "sleep": self._sleep,
        }
        self._worker = worker(arguments | changes)

    def run(self, until: Callable[[], bool] = lambda: False) -> Bench:
        """Turn the loop until `until()`, or until the source has no more."""
        self._until = until
        self._worker.run()
        return self

    @property
    def rows(self) -> int:
        """In segments, by anybody."""
        for _, key in segment_keys(self.store):
            if key not in self._counted:  # a segment never changes
                self._counted[key] = pq.read_metadata(pa.BufferReader(self.store.get(key))).num_rows
        return sum(self._counted.values())

    @property
    def table(self) -> pa.Table:
        """The predictions, in the order of row ids, without their times."""
        return self._written()[0]

    @property
    def traces(self) -> list[dict[str, Any]]:
        """The traces without their times, in the order of partition, stream and batch."""
        return self._written()[1]

    def _written(self) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Both, read once for the segments that there are: the reference of many tests is one bench."""
        keys = tuple(segment_keys(self.store))
        if self._read is None or self._read[0] != keys:
            order = [(name, "ascending") for name in ("partition", "offset", "index")]
            table = read_predictions(self.store).drop_columns([PREDICTED_AT]).sort_by(order)
            found = [row for _, footer in read_segment_footers(self.store) for row in footer.trace.to_pylist()]
            for row in found:
                del row["milliseconds"]
            found.sort(key=lambda row: (row["partition"], row["stream_id"], row["batch_number"]))
            self._read = keys, (table, found)
        return self._read[1]

    def check_against(self, messages: Iterable[Message], undisturbed: Bench | None = None) -> None:
        """Every image of every message exactly once, chains whole; alphas, labels and trials as `undisturbed`."""
        ids = [str(frame.row_id) for m in sorted(messages, key=_place) for frame in decode(m).frames]
        assert self.table["row_id"].to_pylist() == ids
        assert verify(self.store, read_state=StreamState.from_bytes) == []
        if undisturbed is not None:
            assert self.table.equals(undisturbed.table)
            assert repr(self.traces) == repr(undisturbed.traces)  # nan equals nan

    def _hook(self, point: str) -> None:
        self.points.append(point)
        self.at(point)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def _should_stop(self) -> bool:
        self.now_s += STEP_S
        self.steps += 1
        assert self.steps < STEPS, f"{self.rows} rows after {STEPS} turns"
        return self._until()


def _place(message: Message) -> tuple[int, int]:
    return message.partition, message.offset
