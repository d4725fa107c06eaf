"""The partitions that this worker owns at the moment, from notes of another thread. This module knows no Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Literal

from adawise.records import TopicPartition


class Ownership:
    """The owned partitions. Any thread may leave notes, which take effect when the main thread calls `settle`.

    So the worker's knowledge of its partitions cannot become false between two polls.
    """

    def __init__(self) -> None:
        self._notes: SimpleQueue[tuple[Literal["assigned", "lost"], list[TopicPartition]]] = SimpleQueue()
        self._sought: dict[TopicPartition, bool] = {}  # of each owned partition: True once it was sought
        self._revoking = self._expelled = False

    def __contains__(self, tp: object) -> bool:
        return tp in self._sought

    def __bool__(self) -> bool:
        return bool(self._sought)

    def note_assigned(self, tps: Iterable[TopicPartition]) -> None:
        """Note that partitions were assigned, maybe anew: the worker must recover them from the start. Thread-safe."""
        self._notes.put(("assigned", list(tps)))

    def note_lost(self, tps: Iterable[TopicPartition]) -> None:
        """Note that this member was expelled: another member may own the partitions by now. Thread-safe."""
        self._expelled = True
        self._notes.put(("lost", list(tps)))

    def note_revoked(self, tps: Iterable[TopicPartition]) -> None:
        """Note that partitions were revoked: no member owns them until this one joins again. Thread-safe."""
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
        """Note that the member was expelled and lost all partitions. Main thread only."""
        self.note_lost(self._sought)

    def settle(self) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Apply the notes in order; return (assigned, lost). A partition that was lost and came back is in both."""
        self._revoking = self._expelled = False  # first, so that a note that comes from now on counts
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
        """Note that the partition has a position to deliver from; raise ValueError if it is not owned."""
        if tp not in self._sought:
            raise ValueError(
                f"cannot seek {tp}: the owned partitions are {', '.join(map(str, self._sought)) or 'none'}"
            )
        self._sought[tp] = True

    def expect_sought(self, tps: Iterable[TopicPartition]) -> None:
        """Raise ValueError if one of the partitions is owned and has no position yet."""
        if unsought := [str(tp) for tp in tps if self._sought.get(tp) is False]:
            raise ValueError(f"cannot resume {', '.join(unsought)}: no offset was sought since the assignment")

    def is_sought(self, tp: TopicPartition) -> bool:
        """Return True if the partition is owned and has a position to deliver from."""
        return self._sought.get(tp, False)

    def clear(self) -> None:
        """Give up all partitions."""
        self._sought.clear()
