"""Which pair of models serves a partition, and from where on another one does. Pure.

A pair changes between two segments, so that each segment has one, and the chain says which (`records.Switch`). Whoever
recovers a partition goes on with what its end says. In a worker the pair is switched once somebody asks for it; in a
replay where a chain says that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adawise.adapt.state import StreamState
from adawise.ports import Head, ServedBy
from adawise.records import ImageBatch, PairKey, Shadow, Switch, TopicPartition
from adawise.worker.adaptation import Adaptation, Adapted
from adawise.worker.events import PairsProgress


@dataclass(frozen=True, eq=False)
class Serving:
    """A pair that is loaded, as the loop uses it: the method over it, and what its rows say of it.

    `prepare` does a fraction of a second of what it will need later, and says whether there is more.
    """

    adaptation: Adaptation
    by: ServedBy
    prepare: Callable[[], bool] = lambda: False

    @property
    def pair(self) -> str:
        """Its id; "" where nobody asked for one."""
        return self.by.pair

    @property
    def key(self) -> PairKey:
        """Its id and its config."""
        return self.by.key


@dataclass(frozen=True, slots=True)
class PairTurn:
    """A pair's turn in a partition.

    `keeps`: streams go on from what they learned with another pair. `until` is where the turn ends, if that is known.
    """

    serving: Serving
    keeps: bool
    until: Switch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ServedBatch:
    """A batch that `serving` has served, from the state `before`.

    `note` is told what a staged pair would have served; it is false if that comes too late to be written.
    """

    batch: ImageBatch
    before: StreamState
    serving: Serving
    adapted: Adapted
    note: Callable[[Shadow], bool]


class Pairs:
    """What the loop asks about pairs, in its own thread, and the answers of one pair that serves for ever.

    Nothing of a subclass may block.

    Args:
        serving: the pair.
        keeps: see `PairTurn`.
    """

    def __init__(self, serving: Serving, *, keeps: bool) -> None:
        self._turn = PairTurn(serving, keeps)

    def at(self, tp: TopicPartition, head: Head) -> PairTurn:
        """Whose turn it is after the end of a partition's chain.

        Raises PairMissing: the chain says which, and it cannot be had here.
        """
        del tp, head
        return self._turn

    def wanted(self, tp: TopicPartition, serving: Serving) -> PairTurn | None:
        """The turn that is to follow that of `serving`, as soon as it may; None if all is as it should be."""
        del tp, serving
        return None

    def switched(self, tp: TopicPartition, turn: PairTurn, switch: Switch) -> None:
        """The partition is served by another pair from there on; it is in no segment yet."""

    def served(self, served: ServedBatch) -> None:
        """A batch was served."""

    def lost(self, tp: TopicPartition) -> None:
        """The partition is not this worker's any more."""

    def turn(self) -> None:
        """Called once a step."""

    def progress(self) -> PairsProgress:
        """How this worker stands with its pairs."""
        return PairsProgress()

    @property
    def has_work(self) -> bool:
        """True if something has come that `idle` would do."""
        return False

    def idle(self) -> bool:
        """Nothing else is to do: a fraction of a second of what will be needed; False if there is no more.

        Changes no result.
        """
        return self._turn.serving.prepare()

    def close(self) -> None:
        """The worker ends."""
