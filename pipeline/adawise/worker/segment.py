"""The rows on their way into the chain: the segment that is being filled, and the one that is sealed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from adawise.ports import Publication, SegmentDraft, Served, When
from adawise.records import Alert, BatchTrace, Frame, Shadow


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A segment that is to be written. It stays the same until it is known whether it was committed.

    A store that did not answer may have written it. Only if the next try writes the same again can it be distinguished
    from another worker's segment.

    Attributes:
        draft: the segment's content.
        alerts: the changes of alerts that are published once it is durable.
        rows: the number of rows, gaps and changes of alerts that become durable with it.
    """

    draft: SegmentDraft
    alerts: Sequence[Alert]
    rows: int

    def published(self, when: When | None) -> Iterator[Publication]:
        """Yield what is published once the segment is durable: its rows, unless they were early, and its alerts."""
        draft = self.draft
        if when == "committed":
            rows: list[Served | Frame] = [*draft.accepted, *draft.rejected]
            yield from (Publication(draft.attempt, each, draft.by) for each in rows)
        if when is not None:
            yield from (Publication(draft.attempt, alert) for alert in self.alerts)


@dataclass(slots=True, eq=False)
class OpenSegment:
    """The rows that are done and in no sealed segment, in the order in which they were done.

    Attributes:
        attempt: the name of the draft that they will be.
        accepted: the served batches.
        rejected: the images that were not accepted.
        rows: the number of rows, gaps and changes of alerts that become durable with them.
        since_s: when the first of these was done.
    """

    attempt: str
    accepted: list[Served] = field(default_factory=list)
    rejected: list[Frame] = field(default_factory=list)
    rows: int = 0
    since_s: float = 0.0

    def count(self, rows: int, now_s: float) -> None:
        """Add `rows` rows, gaps or changes of alerts to those that are to become durable."""
        if rows and not self.rows:
            self.since_s = now_s
        self.rows += rows

    def shadow(self, trace: BatchTrace, shadow: Shadow) -> bool:
        """Keep what a staged pair would have served for a batch; return False if the batch is not in this segment."""
        for place, (batch, predictions, kept) in reversed([*enumerate(self.accepted)]):
            if kept is trace:
                self.accepted[place] = batch, predictions, replace(trace, shadow=shadow)
                return True
        return False
