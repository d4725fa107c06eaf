"""What one worker process carries where the model costs nothing: decoding by size of frame, and its main thread.

The worker's own loop with its default settings, on a source in memory, with a classifier that answers at once. It
writes segments to a folder. Two things are left out: the broker's client and the forwards. Rounds are gathered and
chunks filled as for a GPU, since that is the host's work. Answers follow smooth curves, so that `warm` behaves as on a
settled stream.

Times of decoding and of the main thread are processor time of the thread, which a busy machine disturbs least. Images/s
are by the clock.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import cycle
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from adawise.adapt.names import GRID
from adawise.adapt.objective import NO_CARD
from adawise.adapt.rows import of_images
from adawise.adapt.search import Strategy
from adawise.adapt.strategies import strategy
from adawise.app.parts import exploration
from adawise.app.worker import decode_threads
from adawise.bench.worker import Tally, jpegs
from adawise.clip.device import chunks, fill
from adawise.decode.message import Decoder
from adawise.decode.preprocess import Preprocess
from adawise.decode.statistics import statistics
from adawise.ports import Classifier, Round, ServedBy, Source
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.records import Message
from adawise.settings import Settings
from adawise.sink.chain import SegmentChain
from adawise.store.store import open_store
from adawise.worker.adaptation import Adaptation
from adawise.worker.backpressure import Limits
from adawise.worker.batching import BatchPolicy
from adawise.worker.commit import Outputs
from adawise.worker.decode_pool import Prefetch
from adawise.worker.events import Observer
from adawise.worker.loop import LogPolicy, Worker
from adawise.worker.pairs import Pairs, Serving
from adawise.worker.partition import FlushPolicy, PartitionPolicy
from tests.adapt.curves import ImagesRound
from tests.fakes import FakeSource

SIZES = ((640, 480), (1280, 720), (1920, 1080))
PARTITIONS, CLASSES, PICTURES = 4, 100, 24
FREE, DECODED = (6_144, 64), (1_536, 24)  # images, cameras
SIDE, CHUNK_ROWS, ROUND_CHUNKS = 224, 32, 32  # as the worker has them for a ViT-B-32 on a large GPU
REPEATS = 3

PREPROCESS = Preprocess(SIDE)
Resize = Callable[[Image.Image], Tensor]


def main() -> None:
    """Print the cost of decoding, then the ceilings of one process; about a minute and a half."""
    logging.getLogger().setLevel(logging.ERROR)
    with one_thread():
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
        for width, height in SIZES:
            report_decoding(width, height)
        report_statistics()
        report_ceilings()
        print(f"load {os.getloadavg()[0]:.1f} at the end")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes in the calling thread: its others would spin beside it, for operations this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# -- decoding


def report_decoding(width: int, height: int) -> None:
    """One thread, milliseconds an image: today, and what is left without pixels."""
    values = jpegs(width, height, PICTURES)
    ways = {"today": decoder(PREPROCESS), "none": decoder(without_pixels(PREPROCESS))}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(3 * len(values)):
        message = Message("frames", 0, turn, b"camera", values[turn % len(values)], timestamp_ms=0)
        for name, decode in ways.items():
            started = time.thread_time()
            assert not decode(message).dead
            took[name].append(1e3 * (time.thread_time() - started))
    today, none = (median(times) for times in took.values())
    size = sum(map(len, values)) / len(values) / 1e3
    print(
        f"{width}x{height} ({size:.0f} KB): {today:.2f} ms to decode an image, {none:.2f} "
        f"without the pixels; one thread, medians of {len(took['today'])}"
    )


def report_statistics() -> None:
    """One thread, milliseconds an image: the statistics of its pixels, and what they take in plain floats."""
    images = [PREPROCESS.pixels(Image.open(io.BytesIO(value))) for value in jpegs(*SIZES[0], PICTURES)]
    took: dict[str, list[float]] = {"exact": [], "floats": []}
    for _ in range(10):
        for image in images:
            for name, compute in (("exact", statistics), ("floats", float_statistics)):
                started = time.thread_time()
                compute(image)
                took[name].append(1e3 * (time.thread_time() - started))
    exact, floats = (median(times) for times in took.values())
    gaps = max(float(np.abs(statistics(image) - float_statistics(image)).max()) for image in images)
    print(
        f"statistics of {SIDE} px: {exact:.3f} ms an image, {floats:.2f} in plain floats, {gaps:.1g} apart at most; "
        f"one thread, medians of {len(took['exact'])}"
    )


def float_statistics(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The same by means of floats, as they are written on paper; the order of their sums is the library's."""
    red, green, blue = colours = pixels.astype(np.float64) / 255
    Y = 0.299 * red + 0.587 * green + 0.114 * blue
    edges = np.abs(np.diff(Y, axis=1)).mean() + np.abs(np.diff(Y, axis=0)).mean()
    laplacian = Y[:-2, 1:-1] + Y[2:, 1:-1] + Y[1:-1, :-2] + Y[1:-1, 2:] - 4 * Y[1:-1, 1:-1]
    colour = (colours.max(axis=0) - colours.min(axis=0)).mean()
    found = (Y.mean() + 0.02, Y.std() + 0.02, edges / (Y.std() + 0.02) + 0.01)
    return np.log([*found, np.abs(laplacian).mean() / edges + 0.001, colour + 0.02]).astype(np.float32)


def decoder(resize: Resize) -> Decoder:
    """The worker's, with another way to the model's pixels."""
    limits = Settings().decode
    return Decoder(resize, limits.max_message_bytes, limits.max_rows, limits.max_pixels)


def without_pixels(preprocess: Preprocess) -> Resize:
    """All that a decode does but libjpeg and the resize, which run beside other threads: what is left holds Python."""
    rng, shape = np.random.default_rng(1), (preprocess.size, preprocess.size, 3)
    ready = cycle([Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(PICTURES)])
    return lambda image: preprocess(next(ready))


# -- one process


@dataclass(frozen=True)
class Case:
    """Images of a batch, rows of a chunk, and whether pixels are decoded, or ready."""

    batch: int
    chunk_rows: int
    decodes: bool = False

    def __str__(self) -> str:
        return f"batches of {self.batch}, chunks of {self.chunk_rows}, pixels {'decoded' if self.decodes else 'ready'}"


CASES = (Case(16, CHUNK_ROWS), Case(32, CHUNK_ROWS), Case(16, 8), Case(16, CHUNK_ROWS, decodes=True))


@dataclass(frozen=True)
class WorkerPass:
    """One run of the worker.

    Images/s by the clock; processor time of all threads an image, of the main thread a batch, and of the part of that
    which fills chunks (a forward's time, as the worker counts it); FE; and what the card's time goes by, the rows of
    all chunks over images, since a chunk takes as long where it is not full.
    """

    rate: float
    all_ms: float
    main_ms: float
    chunks_ms: float
    forward_equivalents: float
    rows: float


def report_ceilings() -> None:
    """The cases in turns."""
    values = jpegs(*SIZES[0], PICTURES)
    runs: dict[Case, list[WorkerPass]] = {case: [] for case in CASES}
    for _ in range(REPEATS):
        for case, passed in runs.items():
            passed.append(run(values, case))
    for case, passed in runs.items():
        rates, all_ms, main_ms, chunks_ms, spent, rows = (
            sorted(getattr(one, field.name) for one in passed) for field in fields(WorkerPass)
        )
        print(
            f"{case}: {median(rates):.0f} images/s ({rates[0]:.0f} to {rates[-1]:.0f}), "
            f"{median(all_ms):.2f} ms of processor an image\n"
            f"  main thread {median(main_ms):.2f} ms a batch ({main_ms[0]:.2f} to {main_ms[-1]:.2f}), of it "
            f"{median(chunks_ms):.2f} for chunks: at most {1e3 * case.batch / median(main_ms):.0f} images/s\n"
            f"  FE {median(spent):.2f}, {median(rows):.2f} ({rows[0]:.2f} to {rows[-1]:.2f}) with the rows that fill "
            "chunks up"
        )


class Counting(Protocol):
    """A classifier that counts the rows of its chunks, and seconds of the main thread's processor time for them."""

    alphas: tuple[float, ...]
    tail_share: float

    @property
    def rows(self) -> int:
        """Of all chunks so far."""

    @property
    def seconds(self) -> float:
        """For chunks so far."""

    def open(self, batches: Sequence[Tensor]) -> Round:
        """See `ports.Classifier`."""


def default_search() -> Strategy:
    """The worker's, without a card."""
    settings = Settings().search
    return strategy(
        "warm",  # which is what auto stands for
        alphas=GRID,
        objective=NO_CARD["tsallis"],
        context="host",
        alpha=settings.alpha,
        exploration=exploration(settings),
    )


def run(
    values: Sequence[bytes],
    case: Case,
    classifier: Counting | None = None,
    *,
    preprocess: Preprocess = PREPROCESS,
    load: tuple[int, int] | None = None,
) -> WorkerPass:
    """Pass the images of some cameras through a worker of its own.

    `classifier`: its chunks are the case's; none: one that is free. `load`: images, cameras.
    """
    images, cameras = load or (DECODED if case.decodes else FREE)
    decode = decoder(preprocess if case.decodes else without_pixels(preprocess))
    tally, classifier = Tally(images), classifier or FreeClassifier(case.chunk_rows)
    rows, seconds = classifier.rows, classifier.seconds
    with tempfile.TemporaryDirectory() as root:
        source = MemorySource(messages(values, images, cameras), partitions=PARTITIONS, finite=True)
        worker = free_worker(source, decode, classifier, tally, root, batch=case.batch, chunk_rows=case.chunk_rows)
        clocks = time.perf_counter, time.process_time, time.thread_time
        started = [clock() for clock in clocks]
        worker.run()
        wall_s, all_s, main_s = (clock() - start for clock, start in zip(clocks, started, strict=True))
    assert tally.rows == sum(trace.images for trace in tally.traces) == images  # none was rejected
    batches = images / case.batch
    return WorkerPass(
        rate=images / wall_s,
        all_ms=1e3 * all_s / images,
        main_ms=1e3 * main_s / batches,
        chunks_ms=1e3 * (classifier.seconds - seconds) / batches,
        forward_equivalents=sum(trace.forward_equivalents * trace.images for trace in tally.traces) / images,
        rows=(classifier.rows - rows) / images,
    )


def free_worker(
    source: Source,
    decode: Decoder,
    classifier: Classifier,
    observer: Observer,
    root: str,
    *,
    batch: int,
    chunk_rows: int,
    should_stop: Callable[[], bool] = lambda: False,
    **of_prefetch: Any,
) -> Worker:
    """The worker by its default settings, on a given classifier; `of_prefetch`: arguments of the decode pool."""
    settings = Settings()
    method = Adaptation(default_search(), classifier, (1.0,) * len(GRID), settings.predict.top_k)
    by = ServedBy(tuple([f"thing {number}" for number in range(CLASSES)]), "model", "config")
    return Worker(
        source=source,
        prefetch=Prefetch(decode, decode.streams, threads=decode_threads(settings), **of_prefetch),
        pairs=Pairs(Serving(method, ServedBy((), "", "")), keeps=False),
        outputs=Outputs(SegmentChain(store=open_store(root), by=by, writer="bench"), NoDeadLetters()),
        observer=observer,
        policy=PartitionPolicy(
            batches=BatchPolicy(batch, settings.batch.max_age_s),
            forget_after_s=settings.search.forget_after_s,
            max_streams=settings.limits.streams,
        ),
        log=LogPolicy(skip_gaps=False),
        flush=FlushPolicy(settings.sink.flush_rows, settings.sink.flush_age_s),
        limits=Limits(
            inflight_bytes=settings.limits.inflight_mib * 2**20,
            uncommitted_rows=4 * settings.sink.flush_rows,
            round_images=ROUND_CHUNKS * chunk_rows,
        ),
        should_stop=should_stop,
    )


def messages(values: Sequence[bytes], images: int, cameras: int) -> list[Message]:
    """The cameras in turns, each always in the same partition, with pictures by chance."""
    pictures = np.random.default_rng(2).integers(0, len(values), images)
    return [
        Message(
            "frames",
            n % PARTITIONS,
            n // PARTITIONS,
            f"camera-{n % cameras}".encode(),
            values[pictures[n]],
            timestamp_ms=n // cameras,
        )
        for n in range(images)
    ]


class MemorySource(FakeSource):
    """A topic in memory whose poll takes the time of what it delivers, not of what is left."""

    def _next_messages(self) -> list[Message]:
        ready = [tp for tp in self._logs if self._owned.is_sought(tp) and tp not in self._paused]
        delivered: deque[Message] = deque()
        for tp in ready:
            first = self._positions[tp]  # offsets count from 0
            delivered.extend(self._logs[tp][first : first + self._max_poll_records // len(ready)])
            self._positions[tp] = min(first + self._max_poll_records // len(ready), len(self._logs[tp]))
        return list(delivered)


class FreeClassifier:
    """Logits at once, of smooth curves over alpha: a pixel says which image it is, and alpha how sure the model is."""

    alphas = GRID
    tail_share = 1.0
    best = 0.6

    def __init__(self, chunk_rows: int) -> None:
        self.chunk_rows, self.seconds, self.rows = chunk_rows, 0.0, 0
        rng = np.random.default_rng(3)
        alphas = np.array(self.alphas)[:, None]
        sure = 7.0 - 0.6 * (alphas - self.best) ** 2 + 0.5 * rng.normal(size=256)
        sure = sure + 0.15 * (alphas - 0.5) * rng.normal(size=256) + 0.03 * rng.normal(size=(len(alphas), 256))
        table = np.zeros((len(alphas), 256, CLASSES), dtype=np.float32)
        table[:, np.arange(256), rng.integers(0, CLASSES, 256)] = sure
        self._logits = torch.from_numpy(table)
        self._chunk = torch.empty(0)

    def open(self, batches: Sequence[Tensor]) -> Round:
        """See `ports.Classifier`."""
        return ImagesRound(of_images(batches, self.evaluate))

    def evaluate(self, requested: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        """Fill the chunks that a GPU would be given, and return the logits."""
        started = time.thread_time()
        for images in requested.values():
            for _, views in chunks(images, self.chunk_rows):
                fill(self._place_for(images[0]), views)
                self.rows += self.chunk_rows
        self.seconds += time.thread_time() - started
        return self.answers(requested)

    def answers(self, requested: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        """The logits alone."""
        return {index: self._look_up(index, images) for index, images in requested.items()}

    def _place_for(self, images: Tensor) -> Tensor:
        """Where chunks are filled, again and again, as the pinned buffers of a card."""
        if self._chunk.shape[1:] != images.shape[1:]:
            self._chunk = torch.empty(self.chunk_rows, *images.shape[1:], dtype=torch.uint8)
        return self._chunk

    def _look_up(self, alpha_index: int, images: Sequence[Tensor]) -> Tensor:
        middle = images[0].shape[-1] // 2
        which = torch.cat([part[:, 1, middle, middle] for part in images])
        return self._logits[alpha_index].index_select(0, which.int())
