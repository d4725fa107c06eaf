"""Rows on their way into the chain: the segment that is being filled, and the one that is sealed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from adawise.ports import SegmentDraft, Served, Told, When
from adawise.records import Alert, BatchTrace, Frame, Shadow


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """What a commit writes. It stays the same until its fate is known, whatever is done meanwhile.

    A store that does not answer may have kept it, and only the same again can be distinguished from another worker's.

    `rows` counts what becomes durable with it: rows, gaps and changes of alerts.
    """

    draft: SegmentDraft
    alerts: Sequence[Alert]
    rows: int

    def published(self, when: When | None) -> Iterator[Told]:
        """Return what is published once it is durable: its rows, unless they were early, and changes of alerts."""
        draft = self.draft
        if when == "committed":
            rows: list[Served | Frame] = [*draft.accepted, *draft.rejected]
            yield from (Told(draft.attempt, each, draft.by) for each in rows)
        if when is not None:
            yield from (Told(draft.attempt, alert) for alert in self.alerts)


@dataclass(slots=True, eq=False)
class OpenSegment:
    """The rows that are done and in no sealed segment, in the order in which they were done; `attempt` is its name.

    `rows` counts what becomes durable with them: rows, gaps and changes of alerts. `since_s` is when the first of these
    was done.
    """

    attempt: str
    accepted: list[Served] = field(default_factory=list)
    rejected: list[Frame] = field(default_factory=list)
    rows: int = 0
    since_s: float = 0.0

    def count(self, rows: int, now_s: float) -> None:
        """Note that so much more is to become durable."""
        if rows and not self.rows:
            self.since_s = now_s
        self.rows += rows

    def shadow(self, trace: BatchTrace, shadow: Shadow) -> bool:
        """Keep what a staged pair would have served for a batch; False if the batch is not in this segment."""
        for place, (batch, predictions, kept) in reversed([*enumerate(self.accepted)]):
            if kept is trace:
                self.accepted[place] = batch, predictions, replace(trace, shadow=shadow)
                return True
        return False
