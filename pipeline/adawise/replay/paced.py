"""A source that delivers messages at their first pace, or so many times as fast, by the broker's timestamps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from adawise.ports import Poll, Source
from adawise.records import Message, TopicPartition

_LONGEST_WAIT_S = 3_600.0
_HELD_MESSAGES, _HELD_BYTES = 64, 16 << 20  # of a partition, after which it is paused
_SLICE_S = 0.1  # a signal is noticed this much later, at most


class PacedSource:
    """A source that delivers each message at its time, by `adawise.ports.Source`.

    There is one clock for all partitions. A message is due when as much time has passed since the first one as passed
    between their timestamps, over `speed`; one that is late, because the worker is, is due at once. If none of the next
    messages is due within an hour, or all have been due for longer than that, the clock is set to the earliest of them.
    So nights without a message are skipped, and a camera whose clock is years ahead delays its partition, but not for
    ever.

    Args:
        source: delivers messages before they are due; it is closed with this.
        speed: 1 for the first pace, 10 for ten times as fast.
        clock: returns monotonic seconds.
        sleep: waits so many seconds by `clock`.
    """

    def __init__(
        self,
        source: Source,
        *,
        speed: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source, self._speed, self._clock, self._sleep = source, speed, clock, sleep
        self.log = source.log
        self._held: dict[TopicPartition, deque[Message]] = {}
        self._held_bytes: dict[TopicPartition, int] = {}
        self._owned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()  # by the worker
        self._full: set[TopicPartition] = set()  # paused by this class, because enough is held
        self._zero: tuple[float, int] | None = None  # a time by `clock`, and the timestamp, ms, that is due then

    @property
    def exhausted(self) -> bool:
        """True once everything was delivered."""
        return self._source.exhausted and not any(self._held.values())

    def poll(self, timeout_s: float) -> Poll:
        """See `Source.poll`."""
        fetched = self._source.poll(0.0 if any(self._held.values()) else timeout_s)
        for tp in (*fetched.lost, *fetched.assigned):
            self._forget(tp)
        self._owned = (self._owned - set(fetched.lost)) | set(fetched.assigned)
        self._paused = (self._paused & self._owned) | set(fetched.assigned)
        for message in fetched.messages:
            self._hold(message)
        due = list(self._due())
        if not (due or fetched.messages or fetched.assigned or fetched.lost):
            self._sleep(min(timeout_s, _SLICE_S, self._next_s()))
            due = list(self._due())
        return Poll(due, fetched.assigned, fetched.lost)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """See `Source.seek`; the messages that are held of the partition are dropped."""
        self._source.seek(tp, offset)
        was_full = tp in self._full
        self._forget(tp)
        if was_full and tp not in self._paused:
            self._source.resume([tp])

    def pause(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.pause`."""
        self._paused.update(tps)
        self._source.pause(tps)

    def resume(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.resume`."""
        self._source.resume([tp for tp in tps if tp not in self._full])
        self._paused.difference_update(tps)

    def drained(self, tp: TopicPartition) -> bool:
        """See `Source.drained`."""
        return not self._held.get(tp) and self._source.drained(tp)

    def blocked(self, tp: TopicPartition) -> bool:
        """See `Source.blocked`."""
        return self._source.blocked(tp)

    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        """See `Source.lag`."""
        lag = self._source.lag(tp, since)
        return None if lag is None else lag + sum(message.offset >= since for message in self._held.get(tp, ()))

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """See `Source.commit`."""
        self._source.commit(offsets, note)

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()

    def _hold(self, message: Message) -> None:
        tp = message.topic_partition
        held = self._held.setdefault(tp, deque())
        held.append(message)
        self._held_bytes[tp] = self._held_bytes.get(tp, 0) + len(message.value or b"")
        if tp not in self._full and (len(held) >= _HELD_MESSAGES or self._held_bytes[tp] >= _HELD_BYTES):
            self._full.add(tp)
            self._source.pause([tp])

    def _forget(self, tp: TopicPartition) -> None:
        self._held.pop(tp, None)
        self._held_bytes.pop(tp, None)
        self._full.discard(tp)

    def _heads(self) -> dict[TopicPartition, Message]:
        return {tp: held[0] for tp, held in self._held.items() if held and tp not in self._paused}

    def _due(self) -> list[Message]:
        """Take the messages that are due now, in the order of their times."""
        taken: list[Message] = []
        while heads := self._heads():
            far = all(abs(self._wait_s(head)) > _LONGEST_WAIT_S for head in heads.values())
            if self._zero is None or far:
                if not self._knows_what_comes(heads):
                    break
                stated = [head.timestamp_ms for head in heads.values() if head.timestamp_ms >= 0]
                self._zero = (self._clock(), min(stated)) if stated else None
            tp = min(heads, key=lambda tp: (self._wait_s(heads[tp]), tp))
            if self._wait_s(heads[tp]) > 0.0:
                break
            taken.append(self._held[tp].popleft())
            self._held_bytes[tp] -= len(taken[-1].value or b"")
            if tp in self._full and len(self._held[tp]) <= _HELD_MESSAGES // 2:
                self._full.discard(tp)
                self._source.resume([tp])
        return taken

    def _knows_what_comes(self, heads: Mapping[TopicPartition, Message]) -> bool:
        """Return False while a partition's next message is still to come: it may be the one that is due."""
        # `drained` would be False for ever at the end of a part whose log goes on. `lag` never raises, but a fault of
        # the client ends nothing silently: `BoundedSource.poll` asks the client whether it is drained.
        return all(tp in heads or self._source.lag(tp) == 0 for tp in self._owned - self._paused)

    def _wait_s(self, message: Message) -> float:
        """Return the seconds until a message is due; at most 0 if it is. One without a timestamp is due at once."""
        if self._zero is None or message.timestamp_ms < 0:
            return 0.0
        moment_s, timestamp_ms = self._zero
        return moment_s + (message.timestamp_ms - timestamp_ms) / (1000.0 * self._speed) - self._clock()

    def _next_s(self) -> float:
        """Return the seconds until the next message is due; an hour if none is held."""
        return max(0.0, min((self._wait_s(head) for head in self._heads().values()), default=_LONGEST_WAIT_S))
