"""A worker over fakes that is heard by what the live page and the metrics are made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adawise.ports import Source
from adawise.store.store import Store
from adawise.watch.counts import Counters, Distribution
from adawise.watch.details import HintPlaces
from adawise.watch.metrics import Scrape, worker_counters
from adawise.watch.observer import LiveObserver
from adawise.watch.row import CameraRow
from adawise.watch.worker import LiveBounds, LiveWorker
from adawise.worker.backpressure import Limits
from adawise.worker.events import ModelLoaded, Observers
from adawise.worker.fair_queue import BOOKKEEPING_BYTES
from tests.fakes import FakeSource
from tests.worker.loop import CLASSES, Bench, Journal, image

T = 1_790_812_800.0
BOUNDS = LiveBounds(max_cameras=100, silent_after_s=60.0, write_within_s=60.0, stuck_after_s=600.0)


class Watched:
    """The bench's worker, and what is known of it at the bench's time.

    Args:
        source, store, changes: of `Bench`.
        bounds: of what is known.
        places: that the commands on a camera's page name.
    """

    def __init__(
        self,
        source: Source,
        store: Store | None = None,
        *,
        bounds: LiveBounds = BOUNDS,
        places: HintPlaces | None = None,
        keeps_pictures: bool = False,
        kind: Callable[..., Bench] = Bench,
        **changes: Any,
    ) -> None:
        self.extra_s = 0.0
        self.observer = LiveObserver(
            LiveWorker("frames by test", T, bounds, places),
            worker_counters(),
            keeps_pictures=keeps_pictures,
            clock=self.now_s,
        )
        self.observer.partitions = lambda: 1
        facts = {"fingerprint": "f00d", "card": None, "device": "cpu", "threads": 3}
        self.observer.observe(ModelLoaded(CLASSES, facts))
        self.journal = Journal()
        self.bench = kind(source, store, observer=Observers(self.observer, self.journal), **changes)

    def now_s(self) -> float:
        bench = getattr(self, "bench", None)
        return T + self.extra_s + (bench.now_s if bench else 0.0)

    def run(self, until: Callable[[], bool] = lambda: False) -> Watched:
        """As `Bench.run`; what is known follows each turn."""

        def turn() -> bool:
            self.observer.catch_up()
            return until()

        self.bench.run(turn)
        return self

    @property
    def worker(self) -> LiveWorker:
        """What is known by now."""
        return self.observer.catch_up()

    @property
    def rows(self) -> dict[str, CameraRow]:
        """Of the page, by camera."""
        return {row.stream_id: row for row in self.observer.view().rows}

    def scrape(self, max_streams: int = 100) -> Scrape:
        """As /metrics reads it."""
        return Scrape(
            self.worker,
            self.observer.counters,
            "1.2.3",
            max_streams,
            viewers=0,
            dropped=self.observer.dropped,
            clock_s=self.now_s(),
        )

    @property
    def counters(self) -> Counters:
        """What the events so far have moved."""
        self.observer.catch_up()
        return self.observer.counters

    def count(self, name: str) -> float:
        """Of the counter `adawise_{name}_total`, over its series."""
        return self.counters.total(f"adawise_{name}_total")

    def values(self, name: str) -> int:
        """How many the histogram `adawise_{name}` has."""
        value = self.counters.of(f"adawise_{name}")[()]
        assert isinstance(value, Distribution)
        return value.count


def loaded(
    seconds: float,
    *,
    arriving_per_s: float,
    served_per_s: float,
    each: Callable[[Watched], object] = lambda _: None,
) -> Watched:
    """A worker whose model takes its time, in little memory; `each` is called at each turn of its loop."""
    source, sent = FakeSource(), 0
    watched = Watched(source, limits=Limits(64 * BOOKKEEPING_BYTES, 200, round_images=4))

    def at(point: str) -> None:
        if point == "worker.rows_complete":
            watched.bench.now_s += 4.0 / served_per_s  # a round is a batch of four

    def turn() -> bool:
        nonlocal sent
        due = int(arriving_per_s * watched.bench.now_s)
        stamped_ms = [int(1e3 * (T + (n + 1) / arriving_per_s)) for n in range(sent, due)]
        source.append(*(image(sent + n, "north", at_ms=at_ms) for n, at_ms in enumerate(stamped_ms)))
        sent = due
        each(watched)
        return watched.bench.now_s > seconds

    watched.bench.at = at
    return watched.run(turn)
