"""The pair of models that serves a partition, and the switch to another one. Pure.

The pair changes between two segments, so that each segment has one pair, and the chain says which (`records.Switch`).
The worker that recovers a partition goes on with the pair at the chain's end. A worker switches the pair once the
operator asks for it; a replay switches it where a chain says that it was switched.
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
    """A loaded pair as the loop uses it: the method over it, and what its rows say of it.

    `prepare` does work that the pair will need later, for a fraction of a second, and returns whether there is more.
    """

    adaptation: Adaptation
    by: ServedBy
    prepare: Callable[[], bool] = lambda: False

    @property
    def pair(self) -> str:
        """The pair's id; "" where the pair was not given one."""
        return self.by.pair

    @property
    def key(self) -> PairKey:
        """The pair's id and the hash of its model's config."""
        return self.by.key


@dataclass(frozen=True, slots=True)
class PairTurn:
    """A pair's turn in a partition.

    Attributes:
        serving: the pair.
        keeps: streams go on from the states that they learned with another pair.
        until: where the turn ends, if that is known.
    """

    serving: Serving
    keeps: bool
    until: Switch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ServedBatch:
    """A batch that `serving` has served, from the state `before`.

    `note` takes what a staged pair would have served. It returns False if that comes too late to be written.
    """

    batch: ImageBatch
    before: StreamState
    serving: Serving
    adapted: Adapted
    note: Callable[[Shadow], bool]


class Pairs:
    """The loop's interface to pairs, implemented for a single pair that serves for ever.

    The loop calls it from its own thread. No method of a subclass may block.

    Args:
        serving: the pair.
        keeps: see `PairTurn`.
    """

    def __init__(self, serving: Serving, *, keeps: bool) -> None:
        self._turn = PairTurn(serving, keeps)

    def at(self, tp: TopicPartition, head: Head) -> PairTurn:
        """Return the turn of the pair that serves after the end of a partition's chain.

        Raises:
            PairMissing: the pair that the chain names cannot be loaded here.
        """
        del tp, head
        return self._turn

    def wanted(self, tp: TopicPartition, serving: Serving) -> PairTurn | None:
        """Return the turn that is to follow that of `serving` as soon as possible; None if `serving` is to go on."""
        del tp, serving
        return None

    def switched(self, tp: TopicPartition, turn: PairTurn, switch: Switch) -> None:
        """Note that another pair serves the partition from a switch on, which is in no segment yet."""

    def served(self, served: ServedBatch) -> None:
        """Take a batch that was served."""

    def lost(self, tp: TopicPartition) -> None:
        """Note that this worker no longer owns the partition."""

    def turn(self) -> None:
        """Do what is due, without blocking; called once a step."""

    def progress(self) -> PairsProgress:
        """Return the worker's progress with its pairs."""
        return PairsProgress()

    @property
    def has_work(self) -> bool:
        """True if there is new work for `idle`."""
        return False

    def idle(self) -> bool:
        """Do work that will be needed later, for a fraction of a second; return False if there is no more of it.

        Called while there is nothing else to do. It changes no result.
        """
        return self._turn.serving.prepare()

    def close(self) -> None:
        """Free everything, because the worker ends."""
