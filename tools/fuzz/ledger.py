"""What a worker holds and writes of the messages that are fuzzed: names without end, clocks that show anything.

No model runs. The chain is a real one, so that what such messages leave in rows, states and footers can be read back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adawise.adapt.state import StreamState
from adawise.output.verify.root import verify
from adawise.ports import ServedBy, TopicIdentity
from adawise.records import DecodedMessage, Message, TopicPartition
from adawise.sink.chain import SegmentChain
from adawise.store.store import LocalStore
from adawise.worker.batching import BatchPolicy
from adawise.worker.partition import PartitionPolicy, PartitionWork
from tests.frames import adapted, turn_of
from tools.fuzz.messages import TOPIC

PLACES = 64
_TP, _IDENTITY = TopicPartition(TOPIC, 0), TopicIdentity("fuzz", "fuzz", 1)
_POLICY = PartitionPolicy(BatchPolicy(images=4, max_age_s=2.0), forget_after_s=3_600.0, max_streams=PLACES)


class Ledger:
    """One partition's work and chain, in an empty folder. `streams`: of which a message may have images."""

    def __init__(self, folder: Path, streams: Callable[[Message], frozenset[str]]) -> None:
        self._streams = streams
        self._store = LocalStore(folder)
        self._chain = SegmentChain(store=self._store, by=ServedBy(("yes", "no"), "m", "c"), writer="fuzz")
        self._chain.check()
        self._work = PartitionWork(
            _TP,
            self._chain.recover(_TP, _IDENTITY, 0),
            _POLICY,
            turn_of(lambda: StreamState("k", 10)),
        )

    def take(self, decoded: DecodedMessage) -> str | None:
        """What is wrong with the message's way, None if nothing."""
        if decoded.message.topic_partition != _TP:
            return None  # it was fetched
        streams = self._streams(decoded.message)
        self._work.read(decoded.message, streams)
        self._work.add(decoded, 0.0)
        self._work.dead_letters.clear()
        while self._work.ready:
            batch = self._work.ready.popleft()
            self._work.complete(batch, adapted(batch, self._work.state(batch)), 0.0)
        fields = {frame.stream_id for frame in decoded.frames if frame.image is not None}
        return None if fields <= streams else f"accepted images of {fields - streams}, which were not told before"

    def commit(self) -> str | None:
        """Write a segment, and what is wrong with it."""
        head = self._chain.commit(self._work.draft()).head
        self._work.committed(head)
        again = self._chain.recover(_TP, _IDENTITY, 0)
        if (again.next_offset, again.pending, dict(again.states)) != (
            head.next_offset,
            head.pending,
            dict(head.states),
        ):
            return f"the head at {head.next_offset} is read back as one at {again.next_offset}"
        return None if len(head.states) <= 2 * PLACES else f"{len(head.states)} states in {PLACES} places"

    def faults(self) -> list[str]:
        """What `adawise verify` finds in all that was written."""
        return [str(fault) for fault in verify(self._store, read_state=StreamState.from_bytes)]
