"""The sink: one chain of create-if-absent segments for each partition. Implements `ports.Sink`.

A segment's name follows from the segment before it (`layout`), and each name is created once. So a segment has at most
one successor, and rows, offsets and states agree, whichever worker wrote them. No lock, fencing or determinism is
needed. A worker that lost its partition without knowing (a zombie) either loses the race for the next name and adopts
the winner's state, or wins it with a valid segment, which the new owner adopts. No name is created twice, even where
compaction has deleted its segment.

A commit writes the segment, then its traces. Only then may a worker extend the segment. A worker that adopts another
worker's segment (at recovery or after a lost race) writes its traces first, because the other worker may have died in
between.

A worker that was suspended for hours must not build on a name that compaction or retention has set free.
`compact --delete-after` deletes segments that a compacted file replaces, and a worker that takes an old segment for the
head could create a deleted name again. It would win a race that was over long ago. Three facts prevent that:

- A deleted segment is covered, before and ever after, by a compacted file, whose name shows it. So a worker that has
  created a segment can check whether its name is covered; if it is, the worker has lost the race.
- `retain` removes nothing that is not a day old, and leaves a name that shows before which segment it removed.
- A segment is compacted after it was created, and deleted an hour after that at the earliest. So a name that did not
  exist less than `FRESH_S` ago was never deleted, and the check, which costs a request, can be left out.

The last one relies on clocks: at least one of the two goes on while the process or its machine is suspended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from adawise.errors import ChainError, StoreUnavailable
from adawise.ports import Commit, Head, Publication, SegmentDraft, ServedBy, TopicIdentity
from adawise.records import LabelColumn, TopicPartition, label_column
from adawise.sink import claims, columns, holes, invariant, layout, schemas, segment, served_by
from adawise.sink.claims import beginning_name
from adawise.sink.columns import results_of
from adawise.sink.files import compacted_names, is_covered, read_bytes, segment_names
from adawise.sink.layout import Lineage, SegmentName
from adawise.sink.owner import Owner, check_commits, claim_owner
from adawise.sink.segment import SegmentFooter, StateBlocks
from adawise.sink.walk import ChainPlace, read_link, refuse, walk
from adawise.store.answers import AlreadyExists
from adawise.store.store import Failpoint, Store

FRESH_S = 900.0
"""Seconds; far below the hour of `compact --delete-after`, because the clocks of hosts differ."""

Instant = tuple[float, ...]
"""One moment by several clocks, in seconds."""


def instant() -> Instant:
    """Return the present moment by two clocks.

    The wall clock is corrected after the machine was suspended; the other counts the time of the suspension.
    """
    awake = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
    return time.time(), awake


def is_fresh(since: Instant, now: Instant) -> bool:
    """Return True if less than `FRESH_S` have passed by every clock; a clock that was set back counts as not fresh."""
    return all(0.0 <= after - before < FRESH_S for before, after in zip(since, now, strict=True))


def was_deleted(store: Store, tp: TopicPartition, name: SegmentName) -> bool:
    """Return True if a segment of this name does not count: a compacted file replaces it, or retention removed it."""
    return name < beginning_name(store, tp) or is_covered(name, compacted_names(store, layout.PREDICTIONS, tp))


Commits = Mapping[TopicPartition, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class _Tip:
    """The head of a partition's chain as this worker knows it, and the name that extends it."""

    identity: TopicIdentity
    head: Head
    successor: SegmentName
    lineage: Lineage  # of the segments before `successor`
    since: Instant  # when no segment of the name `successor` existed, or ever had


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One try at a segment, kept until its outcome is known, so that a retry sends the same bytes."""

    draft: SegmentDraft
    key: str
    footer: SegmentFooter
    rows: int
    data: bytes
    since: Instant


class SegmentChain:
    """The chains of all partitions under one root.

    Args:
        store: where the chains are.
        by: what served the drafts that do not name it: the class list that predictions index, and two fingerprints, of
            checkpoints, classes, preprocessing and precision (a column of both tables), and of the settings that
            results depend on (in the footer).
        writer: the name of this worker, recorded in the footer.
        owner: the owner that claims the root; None to leave it unclaimed.
        commits: returns what the owner has committed at the broker, with the id of the root that each commit was for.
        begin_anew: use this root from now on, whatever was committed.
        divided: the root is one of a shard (`adawise.sink.invariant`).
        now: returns the time; it is recorded in footers, and nothing else depends on it.
        instant: returns the present moment by several clocks (see `is_fresh`).
        failpoint: called at each of `store.FAILPOINTS` that is the chain's own.
    """

    def __init__(
        self,
        *,
        store: Store,
        by: ServedBy,
        writer: str,
        owner: Owner | None = None,
        commits: Callable[[], Commits] = dict,
        begin_anew: bool = False,
        divided: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        instant: Callable[[], Instant] = instant,
        failpoint: Failpoint = lambda _: None,
    ) -> None:
        self._store = store
        self._by = by
        self._noted: set[tuple[str, str]] = set()
        self._writer = writer
        self._owner, self._commits, self._begin_anew = owner, commits, begin_anew
        self._divided = divided
        self._now = now
        self._instant = instant
        self._failpoint = failpoint
        self._sink = ""
        self._tips: dict[TopicPartition, _Tip] = {}
        self._attempts: dict[TopicPartition, _Attempt] = {}
        self._blocks: dict[TopicPartition, StateBlocks] = {}

    def check(self) -> None:
        """See `ports.Sink`.

        Raises:
            ChainError: the root is of another layout, or damaged.
            SettingsError: the root belongs to another owner, or the owner's commits are for another root.
        """
        commits = self._commits()  # before the root is read: another worker may be making it
        self._check_commits(commits, claims.known_sink_id(self._store))
        self._sink = claims.sink_id(self._store, created_at=self._now().isoformat())
        claims.prove_create_if_absent(self._store)
        if self._owner is not None:
            claim_owner(self._store, self._owner)

    def _check_commits(self, commits: Commits, root_id: str | None) -> None:
        if self._owner is not None and not self._begin_anew:
            check_commits(self._store, self._owner, root_id, commits)

    @property
    def root_id(self) -> str:
        """See `ports.Sink`."""
        return self._sink

    def began(self, topic: str, identity: TopicIdentity) -> TopicIdentity:
        """See `ports.Sink`."""
        return claims.topic(self._store, topic, identity)

    def recover(self, tp: TopicPartition, identity: TopicIdentity, origin: int) -> Head:
        """See `ports.Sink`. Reads the newest segment, whatever the length of the chain."""
        self._sink = self._sink or claims.sink_id(self._store, created_at=self._now().isoformat())
        self._check_commits({place: offsets for place, offsets in self._commits().items() if place == tp}, self._sink)
        self._attempts.pop(tp, None)
        self._blocks[tp] = StateBlocks()
        self._store.sweep(layout.folder(layout.PREDICTIONS, tp))
        self._store.sweep(layout.folder(layout.TRACES, tp))
        since = self._instant()
        if names := segment_names(self._store, tp):
            tip = self._adopt(tp, identity, names[-1], since, passed=names)
            counted = tip.lineage.count > 1
            found = holes.holes(self._store, tp, names, tip.lineage) if counted else ()
            head = replace(tip.head, holes=found, is_counted=counted or len(names) == 1)
            self._tips[tp] = replace(tip, head=head)
            return head
        proposal = claims.ChainOrigin(origin, identity.cluster_id, identity.topic_id, identity.partitions)
        claim = claims.origin(self._store, tp, proposal)
        claims.check_identity(
            f"{self._store}: {tp}", topic_id=claim.topic_id, partitions=claim.partitions, identity=identity
        )
        first = SegmentName(claim.offset)
        tip = _Tip(identity, Head(claim.offset), first, Lineage(first), since)
        # Another worker may have begun the chain since the folder was listed.
        begun = self._store.get(layout.segment_key(tp, tip.successor)) is not None
        self._tips[tp] = self._adopt(tp, identity, tip.successor, since) if begun else tip
        return self._tips[tp].head

    def commit(self, draft: SegmentDraft) -> Commit:
        """See `ports.Sink`.

        Raises:
            ValueError: the partition was not recovered, or the draft breaks the invariant of `ports.SegmentDraft` (a
                fault of the caller); nothing was written.
        """
        tip = self._tips.get(draft.tp)
        if tip is None:
            raise ValueError(f"{draft.tp}: expected `recover` before `commit`")
        self._note(draft.by or self._by)
        attempt = self._attempts.get(draft.tp)
        if attempt is None or attempt.draft is not draft:
            attempt = self._attempts[draft.tp] = self._encoded(draft, tip)
        self._failpoint("segment.encoded")
        # The check before makes it rare that a deleted name is created again; only the check after proves that it was
        # not.
        if not (self._is_free(draft.tp, tip) and self._create(attempt) and self._is_free(draft.tp, tip)):
            tip = self._adopt_winner(draft.tp, tip)
            del self._attempts[draft.tp]
            return Commit(tip.head, won=False, rows=0, size_bytes=0)
        self._failpoint("segment.created")
        columns.write_traces(self._store, attempt.footer, attempt.key)
        self._failpoint("traces.written")
        del self._attempts[draft.tp]
        self._tips[draft.tp] = tip = _extended(tip.identity, attempt.footer, attempt.key, attempt.since)
        return Commit(tip.head, won=True, rows=attempt.rows, size_bytes=len(attempt.data))

    def forget(self, tp: TopicPartition) -> None:
        """See `ports.Sink`."""
        for held in (self._tips, self._attempts, self._blocks):
            held.pop(tp, None)

    def _note(self, by: ServedBy) -> None:
        """Write the settings of `by` before the first rows that it served, so that no rows lack their settings."""
        if (prints := (by.model_fingerprint, by.config_fingerprint)) not in self._noted:
            served_by.note_settings(self._store, by, now=self._now())
            self._noted.add(prints)

    def newest(self, tp: TopicPartition) -> Sequence[Publication]:
        """See `ports.Sink`."""
        key = self._tips[tp].head.segment
        if key is None:
            return ()
        data = read_bytes(self._store, key)
        footer, rows = segment.read_footer(data, key), segment.read_rows(data, key)
        # What was published of these rows, and is sent again, had the label of the settings that served them.
        has_choice = rows["scene_label"].null_count < rows.num_rows
        column = self._label_column(footer) if has_choice else None
        return [Publication(footer.attempt, results) for results in results_of(rows, column)]

    def _label_column(self, footer: SegmentFooter) -> LabelColumn | None:
        """Return which column of a segment is the label of its results; None if its settings cannot be read."""
        with suppress(ChainError):
            noted = served_by.read_noted(self._store, footer.model_fingerprint, footer.config_fingerprint)
            return None if noted is None else label_column(noted.settings)
        return None

    def _adopt_winner(self, tp: TopicPartition, tip: _Tip) -> _Tip:
        """Go on from the head that other workers have reached.

        If what follows the tip may be a deleted segment, the walk begins at the newest segment instead.
        """
        if is_fresh(tip.since, since := self._instant()):
            return self._adopt(tp, tip.identity, tip.successor, tip.since)
        return self._adopt(tp, tip.identity, max([*segment_names(self._store, tp), tip.successor]), since)

    def _is_free(self, tp: TopicPartition, tip: _Tip) -> bool:
        """Return True unless the name after the tip is that of a deleted segment."""
        return is_fresh(tip.since, self._instant()) or not was_deleted(self._store, tp, tip.successor)

    def _encoded(self, draft: SegmentDraft, tip: _Tip) -> _Attempt:
        since, by = self._instant(), draft.by or self._by
        rows = columns.prediction_table(draft, classes=by.classes, model_fingerprint=by.model_fingerprint)
        invariant.check(draft, tip.head, rows, divided=self._divided)
        footer = SegmentFooter(
            sink=self._sink,
            cluster_id=tip.identity.cluster_id,
            topic_id=tip.identity.topic_id,
            topic=draft.tp.topic,
            partition=draft.tp.partition,
            partitions=tip.identity.partitions,
            first=tip.successor.first,
            sequence=tip.successor.sequence,
            next=draft.next_offset,
            previous=tip.head.segment,
            attempt=draft.attempt or uuid4().hex,
            writer=self._writer,
            created_at=self._now().isoformat(),
            model_fingerprint=by.model_fingerprint,
            config_fingerprint=by.config_fingerprint,
            pending=tuple(sorted(draft.pending)),
            gaps=tuple(draft.gaps),
            states=dict(draft.states),
            stream_table=draft.stream_table,
            alerts=draft.alerts,
            switches=draft.switches,
            trace=columns.trace_table(draft.accepted, classes=by.classes),
            lineage=tip.lineage,
            publish_when=draft.publish_when,
        )
        stored = schemas.as_stored(rows, has_prior="scene.prior" in by.settings)
        data = segment.encode(stored, footer, self._blocks[draft.tp])
        return _Attempt(draft, layout.segment_key(draft.tp, tip.successor), footer, rows.num_rows, data, since)

    def _create(self, attempt: _Attempt) -> bool:
        """Return True if the segment is this worker's: created now, or by an earlier try whose answer was lost."""
        try:
            self._store.create(attempt.key, attempt.data)
        except AlreadyExists:
            data = self._store.get(attempt.key)
            if data is None:
                raise StoreUnavailable(
                    f"{self._store}: {attempt.key} exists but cannot be read back; {StoreUnavailable.REMEDY}"
                ) from None
            return segment.read_footer(data, attempt.key).attempt == attempt.footer.attempt
        return True

    def _adopt(
        self,
        tp: TopicPartition,
        identity: TopicIdentity,
        name: SegmentName,
        since: Instant,
        *,
        passed: list[SegmentName] | None = None,
    ) -> _Tip:
        """Walk from the existing segment `name` to the head of the chain, and make that the tip.

        The head is read to its last page, so that the chain is never extended from a segment that the disk has
        corrupted.

        Args:
            tp: the partition.
            identity: the topic that every segment must be of.
            name: the segment to begin with.
            since: an instant at which the segments after `name` did not exist yet.
            passed: the names of the segments found after `name` are appended to it.
        """
        head = None

        def read(key: str) -> tuple[bytes, SegmentFooter] | None:
            data = self._store.get(key)
            return None if data is None else (data, read_link(data, key, identity))

        for link in walk(read, tp, ChainPlace(name), on_break=partial(refuse, str(self._store))):
            if passed is not None and link.footer.name > name:
                passed.append(link.footer.name)
            head = link
        if head is None:
            key = layout.segment_key(tp, name)
            raise ChainError(f"{self._store}: {key}: expected the segment that was there a moment ago; restore it")
        key, data, footer = head.key, head.data, head.footer
        segment.check_pages(data, key)
        columns.write_traces(self._store, footer, key)
        tip = _extended(identity, footer, key, since)
        newest = segment.newest(data, key)
        # A segment that has only rows that were pending before it says too little of the newest messages.
        if footer.previous is not None and max(newest, default=-1) < footer.first:
            newest |= segment.newest(read_bytes(self._store, footer.previous), footer.previous)
        self._tips[tp] = replace(tip, head=replace(tip.head, newest=newest))
        return self._tips[tp]


def _extended(identity: TopicIdentity, footer: SegmentFooter, key: str, since: Instant) -> _Tip:
    head = Head(
        footer.next,
        footer.pending,
        footer.states,
        key,
        footer.stream_table,
        footer.alerts,
        footer.publish_when,
        footer.switches,
    )
    return _Tip(identity, head, footer.successor, holes.after(footer), since)
