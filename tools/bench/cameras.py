"""Many cameras at 224 px whose batches are all half open: memory, batches that are closed early, equality of a replay.

The worker's own loop with its default settings, on a source in memory, with a classifier that answers at once, as in
`host`. Cameras send in lockstep, each round one JPEG of 224 px. Each pass is a process of its own, for its peak of
resident memory. The same frames are then read in another order and from half as many partitions: batches and alphas of
every camera have to be the same.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from structlog.testing import capture_logs

from adawise.bench.worker import Tally, jpegs
from adawise.records import Message
from adawise.settings import Settings
from tools.bench.host import CHUNK_ROWS, PREPROCESS, MemorySource, decoder, free_worker, one_thread
from tools.bench.host import FreeClassifier as Free

SIDE = 224  # px, of what is sent, and of what the model sees
BATCH = Settings().batch.images


@dataclass(frozen=True)
class Lockstep:
    """Cameras that send `rounds` pictures each, `fps` a second."""

    cameras: int
    fps: float
    rounds: int
    partitions: int = 4
    seed: int = 0

    def messages(self, values: Sequence[bytes]) -> list[Message]:
        """Of a round, the cameras in an order by the seed; a picture depends on the camera and the round alone."""
        rng, at, found = np.random.default_rng(self.seed), [0] * self.partitions, []
        for turn in range(self.rounds):
            for camera in map(int, rng.permutation(self.cameras)):
                partition, key = camera % self.partitions, b"camera-%d" % camera
                value = values[(7 * camera + turn) % len(values)]
                at_ms = int(1e3 * turn / self.fps)
                found.append(Message("frames", partition, at[partition], key, value, timestamp_ms=at_ms))
                at[partition] += 1
        return found


@dataclass(frozen=True)
class Held:
    """What one pass took: MiB of memory, and of what the worker accounts for; `batches` by camera and number."""

    began_mib: float  # resident, with the messages of the source and all libraries
    rss_mib: float
    accounted_mib: float
    closed_early: int
    decodes: int
    seconds: float
    main_us: float  # processor time of the main thread, an image
    batches: dict[tuple[str, int], tuple[int, int, float]]


def main(cameras: Sequence[int] = (1_000, 5_000), *, holds: bool = True) -> int:
    """Print what each number of cameras takes; 1 if a replay differs. Without `holds`, all is decoded as it comes."""
    differs = False
    for count in cameras:
        full = Lockstep(count, fps=8.0, rounds=BATCH + BATCH // 2)
        aged = Lockstep(count, fps=2.0, rounds=8)  # 5 of 16 images when the sixth is too late
        for case in (full, aged) if count <= 2_000 else (aged,):
            live, again = passed(case, holds), passed(Lockstep(count, case.fps, case.rounds, 2, seed=1), holds)
            is_equal = live.batches == again.batches
            differs |= not is_equal
            print(
                f"{count} cameras, {case.fps:g} images/s each: {live.rss_mib:.0f} MiB of memory at most "
                f"({live.began_mib:.0f} before the first), "
                f"{live.accounted_mib:.0f} accounted for of {Settings().limits.inflight_mib}; "
                f"{live.closed_early} and {again.closed_early} batches closed early, "
                f"replay {'equal' if is_equal else 'NOT equal'} ({len(live.batches)} batches)\n"
                f"  {live.decodes / (count * case.rounds):.3f} decodes an image, {live.seconds:.1f} s, main thread "
                f"{live.main_us:.0f} us an image"
            )
    return int(differs)


def passed(case: Lockstep, holds: bool) -> Held:
    """One pass, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_passed, (case, holds))


def _passed(case: Lockstep, holds: bool) -> Held:
    logging.getLogger().setLevel(logging.ERROR)
    values, decode, decodes = jpegs(SIDE, SIDE), decoder(PREPROCESS), 0
    messages = case.messages(values)
    tally, accounted = Tally(len(messages)), 0

    class Counted(type(decode)):  # type: ignore[misc]
        def __call__(self, message: Message) -> object:
            nonlocal decodes
            decodes += 1
            return super().__call__(message)

    counted = Counted(decode.preprocess, decode.max_message_bytes, decode.max_rows, decode.max_pixels)

    def watch() -> bool:
        nonlocal accounted
        pool, works = worker._prefetch, list(worker._owned.values())
        with pool._changed:
            held = sum(lanes.waiting_bytes + lanes.held_bytes for lanes in pool._partitions.values())
        accounted = max(accounted, held + sum(w.gathering.image_bytes + w.gathering.open.kept_bytes for w in works))
        return False

    of_prefetch = {"is_single": lambda message: True, "image_bytes": 3 * SIDE * SIDE} if holds else {}
    with tempfile.TemporaryDirectory() as root, one_thread(), capture_logs() as log:
        source = MemorySource(messages, partitions=case.partitions, finite=True)
        worker = free_worker(
            source,
            counted,
            Free(CHUNK_ROWS),
            tally,
            root,
            batch=BATCH,
            chunk_rows=CHUNK_ROWS,
            should_stop=watch,
            **of_prefetch,
        )
        began_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        started, main_s = time.perf_counter(), time.thread_time()
        worker.run()
        seconds, main_s = time.perf_counter() - started, time.thread_time() - main_s
    return Held(
        began_mib=began_mib,
        rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        accounted_mib=accounted / 2**20,
        closed_early=sum(line["batches"] for line in log if line["event"] == "batches_closed_early"),
        decodes=decodes,
        seconds=seconds,
        main_us=1e6 * main_s / len(messages),
        batches={(t.stream_id, t.batch_number): (t.images, t.kafka_timestamp_ms, t.alpha) for t in tally.traces},
    )
