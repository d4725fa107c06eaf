"""A staged pair on batches that another one serves: how it would classify them, in time that nothing else needs.

It has its own search and its own states, and no influence on what is served. If the worker is idle it takes a batch;
while images wait, it takes no more than its share of the time. A result that comes too late for the segment is not
written. A shadow that fails, or never gets its turn, is given up, and this is logged.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

import structlog

from adawise.adapt.state import StreamState
from adawise.adapt.state_key import is_of_another_pair
from adawise.records import ImageBatch, Shadow, TopicPartition
from adawise.worker.adaptation import Adapted
from adawise.worker.pairs import ServedBatch, Serving

_MOST_BYTES = 64 * 2**20  # of images that wait
_LEAST_OFFERED, _LEAST_SHARE = 200, 0.01  # after so many offered batches, a smaller share done is too slow

_log = structlog.get_logger("pairs")


class ShadowRun:
    """The shadow of one staged pair.

    Args:
        staged: the pair.
        keeps: whether its streams go on from what they have learned with the pair that serves.
        batches: the number of batches on which it is tried in each partition.
        share: the largest share of the time while images wait.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        staged: Serving,
        *,
        keeps: bool,
        batches: int,
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._staged, self._keeps, self._batches, self._share, self._clock = staged, keeps, batches, share, clock
        self._states: dict[tuple[TopicPartition, str], StreamState] = {}
        self._waiting: deque[ServedBatch] = deque()
        self._waiting_bytes = 0
        self._again_s = 0.0
        self._done: Counter[TopicPartition] = Counter()
        self._offered = 0
        self.failed = ""
        self.done = self.late = 0  # batches
        self.images, self.agreed = 0, 0.0
        self.seconds = 0.0

    @property
    def has_work(self) -> bool:
        """True if a batch waits."""
        return bool(self._waiting)

    def offer(self, served: ServedBatch) -> None:
        """Take a batch that was served; its images are kept until it is done, or there are too many of them."""
        tp = _place(served.batch)
        if self.failed or served.serving is self._staged or self._done[tp] >= self._batches:
            return
        self._offered += 1
        self._waiting.append(served)
        self._waiting_bytes += served.batch.images.nbytes
        while self._waiting_bytes > _MOST_BYTES and self._waiting:
            self._take()
            self.late += 1
        if self._offered >= _LEAST_OFFERED and self.done < _LEAST_SHARE * self._offered:
            self._give_up(f"too slow: it classified {self.done} of {self._offered} served batches")

    def turn(self) -> None:
        """Run a batch if its share of the time allows one; called once a step, also while images wait."""
        if self._waiting and self._clock() >= self._again_s:
            self.run()

    def run(self) -> None:
        """Run one batch; never raises."""
        if not self._waiting:
            return
        offer, began_s = self._take(), self._clock()
        tp = _place(offer.batch)
        if self._done[tp] >= self._batches:
            return
        try:
            shadow = self._tried(offer)
        except Exception as error:  # noqa: BLE001  # whatever it is, serving is not affected
            self._give_up(f"{type(error).__name__}: {error}")
            return
        took_s = self._clock() - began_s
        self._again_s = began_s + took_s / self._share
        self.seconds += took_s
        if offer.note(shadow):
            self.done += 1
            self.images += len(offer.batch)
            self.agreed += len(offer.batch) * shadow.agreement
            self._done[tp] += 1
        else:
            self.late += 1

    def lost(self, tp: TopicPartition) -> None:
        """Forget a partition that went to another worker."""
        self._waiting = deque(offer for offer in self._waiting if _place(offer.batch) != tp)
        self._waiting_bytes = sum(offer.batch.images.nbytes for offer in self._waiting)
        self._states = {key: state for key, state in self._states.items() if key[0] != tp}

    def _take(self) -> ServedBatch:
        offer = self._waiting.popleft()
        self._waiting_bytes -= offer.batch.images.nbytes
        return offer

    def _tried(self, offer: ServedBatch) -> Shadow:
        key = _place(offer.batch), offer.batch.stream_id
        state = self._states.get(key) or self._first(offer.before)
        [adapted] = self._staged.adaptation.run([offer.batch], [state])
        if adapted.error is not None:
            raise adapted.error
        self._states[key] = adapted.state
        served, theirs = _labels(offer.adapted, offer.serving), _labels(adapted, self._staged)
        agreed = sum(one == other for one, other in zip(served, theirs, strict=True))
        trace = adapted.trace
        return Shadow(self._staged.pair, agreed / len(theirs), trace.alpha, trace.objective, trace.forward_equivalents)

    def _first(self, before: StreamState) -> StreamState:
        initial = self._staged.adaptation.strategy.initial()
        if self._keeps and is_of_another_pair(before.key, initial.key):
            return replace(before, key=initial.key)
        return initial

    def _give_up(self, why: str) -> None:
        self.failed = why
        self._waiting.clear()
        self._states.clear()
        self._waiting_bytes = 0
        _log.warning("shadow_dropped", id=self._staged.pair, error=why, note="the serving pair is not affected")


def _place(batch: ImageBatch) -> TopicPartition:
    row = batch.frames[0].row_id
    return TopicPartition(row.topic, row.partition)


def _labels(adapted: Adapted, serving: Serving) -> list[str]:
    best: list[int] = adapted.predictions.top_index[:, 0].tolist()
    return [serving.by.classes[index] for index in best]
