"""Which partitions are ours for the time being, from notes that another thread takes. Knows no Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Literal

from adawise.records import TopicPartition


class Ownership:
    """Notes come from any thread and change nothing; the main thread applies them with `settle`.

    So between two polls nothing that the worker knows of its partitions can turn false under its hands.
    """

    def __init__(self) -> None:
        self._notes: SimpleQueue[tuple[Literal["assigned", "lost"], list[TopicPartition]]] = SimpleQueue()
        self._sought: dict[TopicPartition, bool] = {}  # of each owned partition: since it was assigned?
        self._revoking = self._expelled = False

    def __contains__(self, tp: object) -> bool:
        return tp in self._sought

    def __bool__(self) -> bool:
        return bool(self._sought)

    def note_assigned(self, tps: Iterable[TopicPartition]) -> None:
        """Assigned, or assigned anew: whoever has it now must recover it from the start. Thread-safe."""
        self._notes.put(("assigned", list(tps)))

    def note_lost(self, tps: Iterable[TopicPartition]) -> None:
        """This member was expelled: somebody else's by now, perhaps. Thread-safe."""
        self._expelled = True
        self._notes.put(("lost", list(tps)))

    def note_revoked(self, tps: Iterable[TopicPartition]) -> None:
        """Nobody's until this member joins again. Thread-safe."""
        self._revoking = True
        self._notes.put(("lost", list(tps)))

    @property
    def is_expelled(self) -> bool:
        """True from the note of a loss until it is settled."""
        return self._expelled

    @property
    def is_revoking(self) -> bool:
        """True from the note of a revocation until it is settled."""
        return self._revoking

    def note_all_lost(self) -> None:
        """The member was expelled. Main thread only."""
        self.note_lost(self._sought)

    def settle(self) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Apply the notes in their order. Returns (assigned, lost); one that was lost and came back is in both."""
        self._revoking = self._expelled = False  # first: what is noted from now on may wait for the next time
        assigned: dict[TopicPartition, None] = {}
        lost: dict[TopicPartition, None] = {}
        while True:
            try:
                kind, tps = self._notes.get_nowait()
            except Empty:
                break
            for tp in tps:
                assigned.pop(tp, None)
                if self._sought.pop(tp, None) is not None:
                    lost[tp] = None
                if kind == "assigned":
                    assigned[tp] = None
        self._sought.update(dict.fromkeys(assigned, False))
        return list(assigned), list(lost)

    def seek(self, tp: TopicPartition) -> None:
        """From now on there is a position to deliver from. Raises ValueError if the partition is not owned."""
        if tp not in self._sought:
            raise ValueError(
                f"cannot seek {tp}: the owned partitions are {', '.join(map(str, self._sought)) or 'none'}"
            )
        self._sought[tp] = True

    def expect_sought(self, tps: Iterable[TopicPartition]) -> None:
        """Raises ValueError if one of them is owned and has no position yet."""
        if unsought := [str(tp) for tp in tps if self._sought.get(tp) is False]:
            raise ValueError(f"cannot resume {', '.join(unsought)}: no offset was sought since the assignment")

    def is_sought(self, tp: TopicPartition) -> bool:
        """Owned, with a position to deliver from."""
        return self._sought.get(tp, False)

    def clear(self) -> None:
        """Own nothing."""
        self._sought.clear()
