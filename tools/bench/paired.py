"""Ways of doing the same, in turns: what else the machine does falls on all of them. Ctrl-C leaves what is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from adawise.ports import Publication, Results, When
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.publish.results.sink import KafkaResults
from adawise.records import Message
from adawise.settings import Settings
from adawise.worker.events import Observer
from adawise.worker.loop import Worker

Figure = TypeVar("Figure")

_interrupted = threading.Event()


def is_interrupted() -> bool:
    """True once Ctrl-C was pressed within `until_interrupted`: what comes after it is left out."""
    return _interrupted.is_set()


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C ends what is within, and what was measured by then is told."""
    try:
        yield
    except KeyboardInterrupt:
        _interrupted.set()
        print("interrupted: what follows is of the rounds until then", flush=True)


def in_turns(ways: Mapping[str, Callable[[], Figure]], turns: int) -> dict[str, list[Figure]]:
    """A figure of each way for each turn that came to its end; every other turn goes backwards."""
    found: dict[str, list[Figure]] = {way: [] for way in ways}
    with until_interrupted():
        for turn in range(turns):
            order = list(ways)[:: 1 if turn % 2 else -1]
            figures = {way: ways[way]() for way in order}
            for way, figure in figures.items():
                found[way].append(figure)
    return found


def text(values: Sequence[float], form: str = ".2f") -> str:
    """Median, quartiles in brackets; for no value nothing."""
    if not len(values):
        return "not measured"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{form}} ({low:{form}} to {high:{form}}, {len(values)} rounds)"


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds an image: of the whole process, of a port's thread, of telling results.

    The last is what the worker's own thread does for them, and their producer's. Parts are told by the threads' own
    clocks, which a busy machine disturbs least. What they cost others, by turns at the interpreter, is in the whole.
    """

    whole: float
    port: float
    results: float


_PRODUCERS = "-network-thread"


class TimedResults:
    """Results that note how long the threads that tell them are busy with it. Implements `ports.Results`.

    A producer is opened beforehand: that is some .04 s of a worker's life, and not of an image.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self.seconds = 0.0
        if isinstance(results, KafkaResults):
            box, topic = results._outbox, results._topic
            box._producer = box._connect()
            assert box._prepare is not None
            box._prepare(topic)
            box._prepared.add(topic)
            box._producer.partitions_for(topic)  # type: ignore[attr-defined]  # its metadata come with the first record
        self._before = thread_s(_PRODUCERS)

    @property
    def when(self) -> When | None:
        return self._results.when

    @property
    def in_flight_bytes(self) -> int:
        return self._results.in_flight_bytes

    def send(self, text: Publication, *, wait: bool) -> bool:
        began = time.thread_time()
        try:
            return self._results.send(text, wait=wait)
        finally:
            self.seconds += time.thread_time() - began

    def settled(self, *, wait: bool) -> bool:
        began = time.thread_time()
        try:
            return self._results.settled(wait=wait)
        finally:
            self.seconds += time.thread_time() - began

    def hurry(self, within_s: float) -> None:
        self._results.hurry(within_s)

    def close(self) -> None:
        self.settled(wait=True)
        self.seconds += thread_s(_PRODUCERS) - self._before  # before it ends
        self._results.close()


def serve(
    make: Callable[..., Worker],
    settings: Settings,
    messages: Sequence[Message],
    *,
    root: Path,
    observer: Observer,
    partitions: int,
    **options: object,
) -> Spent:
    """What a worker spends on messages in memory, so that it never waits for them."""
    from tools.bench.host import MemorySource

    worker = make(
        settings,
        source=MemorySource(messages, partitions=partitions, finite=True),
        root=str(root),
        dead_letters=NoDeadLetters(),
        observer=observer,
        should_stop=lambda: False,
        partitions=partitions,
        **options,
    )
    timed = worker._committer._results = TimedResults(worker._committer._results)
    before, port_before = time.process_time(), thread_s("http")
    worker.run()
    whole, port = time.process_time() - before, thread_s("http") - port_before
    return Spent(whole / len(messages), port / len(messages), timed.seconds / len(messages))


def thread_s(ending: str) -> float:
    """Processor seconds so far of the threads whose names end so."""
    ids = [thread.native_id for thread in threading.enumerate() if thread.name.endswith(ending)]
    return sum(int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0]) / 1e9 for number in ids)
