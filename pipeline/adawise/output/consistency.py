"""The rules by which the parts of a segment agree, broken ones as clauses with what was expected and what was found.

Rows and traces are two views of the same batches, and the states in a footer are the result of the batches up to there.
`invariant` is the third part of the proof: which offsets a segment must account for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from adawise.sink import invariant, schemas
from adawise.sink.segment import SegmentFooter

LEAST_EXPIRY_MS = 60_000
"""The shortest silence, in milliseconds, after which a stream can be set to start anew (search.forget_after_s)."""

_ANEW = {"settings_changed", "silent", "crowded", "shortlist"}  # resets after which batches are counted from 0 again
_Batch = tuple[int, int, int, float, float]  # images, first and last offset, least and greatest alpha


class LastSeenTimes(Protocol):
    """The times, in milliseconds, at which a stream was last seen; see `adawise.worker.stream_states`."""

    @property
    def last_ms(self) -> int:
        """The time by the stream's own timestamps, -1 if it has none."""

    @property
    def clock_ms(self) -> int:
        """The time by the stream's own clock, as time of the partition."""

    @property
    def at_ms(self) -> int:
        """The time by the partition's clock."""


class State(Protocol):
    """The part of an adaptation state that can be checked."""

    @property
    def key(self) -> str:
        """The key of the pair and settings that the state belongs to."""

    @property
    def alpha_index(self) -> int:
        """The index of the alpha that the next batch goes on from."""

    @property
    def served_index(self) -> int | None:
        """The index of the alpha that served the last batch; None if the state does not record it."""

    @property
    def batches(self) -> int:
        """The number of batches that led to the state."""

    @property
    def last_seen(self) -> LastSeenTimes | None:
        """The times at which the stream was last seen; None if the state does not record them."""


ReadState = Callable[[bytes], State]
"""Reads a serialised state; raises ChainError if the bytes are no state."""


def inconsistencies(
    rows: pa.Table,
    footer: SegmentFooter,
    before: Sequence[int],
    *,
    contiguous: bool = False,
    divided: bool = False,
) -> Iterator[str]:
    """Yield what is wrong with a segment's rows: their columns, offsets, partition, and batches by the trace.

    Args:
        rows: the rows of the segment.
        footer: its footer.
        before: the offsets that were pending before it.
        contiguous: as in `invariant.breaches`.
        divided: likewise.
    """
    if not rows.schema.equals(schemas.PREDICTIONS):
        yield f"expected the columns {schemas.PREDICTIONS.names}, but they are {rows.schema.names}"
        return
    yield from invariant.breaches(
        first=footer.first,
        next_offset=footer.next,
        before=before,
        pending=footer.pending,
        gaps=footer.gaps,
        offsets=rows["offset"].to_numpy(),
        indices=rows["index"].to_numpy(),
        contiguous=contiguous,
        divided=divided,
    )
    where = f"{footer.topic}/{footer.partition}"
    names = pc.binary_join_element_wise(where, rows["offset"].cast(pa.string()), rows["index"].cast(pa.string()), "/")
    if strange := rows["row_id"].filter(pc.not_equal(rows["row_id"], names)).to_pylist():
        yield f"expected row ids to be {where}/OFFSET/INDEX of their rows, but {len(strange)} are not: {strange[0]}"
    for name, expected in (("topic", footer.topic), ("partition", footer.partition)):
        if found := set(pc.unique(rows[name]).to_pylist()) - {expected}:
            yield f"expected rows of {name} {expected}, but some are of {sorted(found)[0]}"
    accepted = rows.filter(pc.equal(rows["status"], "accepted"))
    counted = accepted.append_column("images", pa.repeat(1, accepted.num_rows))
    served = _batches(counted.append_column("first_offset", accepted["offset"]), last="offset")
    traced = _batches(footer.trace, last="last_offset")
    differ = [batch for batch in served.keys() | traced.keys() if served.get(batch) != traced.get(batch)]
    if differ:
        stream, number = min(differ, key=str)
        yield (
            f"expected the accepted rows to be the images of the traced batches, but {len(differ)} batches differ: "
            f"batch {number} of {stream!r} has {_described(served.get((stream, number)))} in the rows and "
            f"{_described(traced.get((stream, number)))} in the traces"
        )


def _batches(table: pa.Table, last: str) -> dict[tuple[str, int], _Batch]:
    keys = ["stream_id", "batch_number"]
    sums = [("images", "sum"), ("first_offset", "min"), (last, "max"), ("alpha", "min"), ("alpha", "max")]
    found = table.group_by(keys).aggregate(sums)
    columns = [found[name].to_pylist() for name in (*keys, *(f"{name}_{how}" for name, how in sums))]
    return {(stream, number): tuple(facts) for stream, number, *facts in zip(*columns, strict=True)}


def _described(batch: _Batch | None) -> str:
    if batch is None:
        return "nothing"
    images, first, last, least, greatest = batch
    alpha = f"alpha {least:g}" if least == greatest else f"alphas {least:g} to {greatest:g}"
    return f"{images} images of the offsets {first} to {last} at {alpha}"


class StateAccounts:
    """The states of a partition's streams from segment to segment, each compared with the batches in between.

    Args:
        read: reads a serialised state.
    """

    def __init__(self, read: ReadState) -> None:
        self._read = read
        self._bytes: Mapping[str, bytes] = {}
        self._states: dict[str, State] = {}
        self._alphas: dict[tuple[str, int], float] = {}  # (key of a state, alpha index) -> alpha, as traces have it

    def inconsistencies(self, footer: SegmentFooter, rows: pa.Table, *, knows_before: bool = True) -> Iterator[str]:
        """Yield what is wrong with the states of the next segment, which the one after it is then compared with.

        Args:
            footer: the segment's footer.
            rows: the segment's rows.
            knows_before: False if a segment is missing before this one, so that its states have nothing to be compared
                with.

        Raises:
            ChainError: a state cannot be read.
        """
        before = self._states
        states = {
            name: before[name] if data == self._bytes.get(name) else self._read(data)
            for name, data in footer.states.items()
        }
        self._bytes, self._states = footer.states, states
        if knows_before:
            yield from self._state_inconsistencies(before, states, footer, rows)

    def _state_inconsistencies(
        self, before: Mapping[str, State], states: Mapping[str, State], footer: SegmentFooter, rows: pa.Table
    ) -> Iterator[str]:
        traces, table = _traces(footer.trace), json.loads(footer.stream_table or "{}")
        batches = {name: state.batches for name, state in before.items()}
        traced: set[str] = set()
        for trace in traces:
            stream = trace["stream_id"]
            known = None if stream in traced else before.get(stream)
            yield from self._trace_inconsistencies(trace, batches.get(stream, 0), known, rows)
            batches[stream] = trace["batch_number"] + 1
            traced.add(stream)
        for stream, state in states.items():
            if state.batches != batches.get(stream, 0):
                yield f"expected the state of {stream!r} after {batches.get(stream, 0)} batches, not {state.batches}"
            elif stream not in traced and state is not before.get(stream):
                yield f"expected the state of {stream!r}, which had no batch here, to be unchanged, but it differs"
        gone = batches.keys() - states.keys()
        if table:
            last_seen = table["heard"].keys()
            if not footer.pending and (strange := states.keys() - last_seen):
                yield f"expected only states of streams in the stream table, but {sorted(strange)[0]!r} is not there"
            if len(last_seen) >= table["limit"]:
                gone &= last_seen
        yield from _lost(before, states, gone, traced)

    def _trace_inconsistencies(
        self, trace: Mapping[str, Any], expected: int, before: State | None, rows: pa.Table
    ) -> Iterator[str]:
        """Yield what is wrong with a trace.

        Args:
            trace: the batch.
            expected: the number that the batch should have in its stream.
            before: the state after the stream's batch before it, if that was in an earlier segment.
            rows: the segment's rows.
        """
        stream, number, alpha = trace["stream_id"], trace["batch_number"], trace["previous_alpha"]
        anew = number == 0 and (not expected or trace["reset"] in _ANEW or _was_silent(trace, before, rows))
        if not anew and number != expected:
            yield f"expected batch {expected} of {stream!r} next, but it is batch {number}"
        if (alpha is None) != (number == 0):
            yield f"expected batch {number} of {stream!r} to name the alpha before it unless it is the first"
        elif alpha is not None and before is not None and number == before.batches:
            index = before.alpha_index if before.served_index is None else before.served_index
            known = self._alphas.setdefault((before.key, index), alpha)
            if known != alpha:
                yield f"expected batch {number} of {stream!r} to follow one at alpha {known:g}, not {alpha:g}"


def _traces(table: pa.Table) -> list[dict[str, Any]]:
    names = ["stream_id", "batch_number", "previous_alpha", "reset", "first_offset", "last_offset"]
    rows: list[dict[str, Any]] = table.select(names).to_pylist()
    return rows


def _was_silent(trace: Mapping[str, Any], before: State | None, rows: pa.Table) -> bool:
    """Return True if the stream may have been forgotten before this batch; within a segment this cannot be known."""
    if before is None or before.last_seen is None:
        return before is None
    of_batch = (pc.field("stream_id") == trace["stream_id"]) & (pc.field("offset") >= trace["first_offset"])
    images = rows.filter(of_batch & (pc.field("offset") <= trace["last_offset"])).sort_by("offset")
    first_ms = images["kafka_timestamp"].cast(pa.int64())[0].as_py() if len(images) else None
    return first_ms is not None and first_ms - before.last_seen.last_ms > 2 * LEAST_EXPIRY_MS


def _lost(before: Mapping[str, State], now: Mapping[str, State], gone: set[str], traced: set[str]) -> Iterator[str]:
    """Yield the streams whose states are gone although they were not silent for long.

    States are dropped by the time at which they were last seen, so none is kept that was seen before one that is gone.
    """
    kept = [state.last_seen for state in now.values() if state.last_seen is not None and state.last_seen.last_ms >= 0]
    clock_ms = max((last_seen.clock_ms for last_seen in kept), default=0)
    was_ms = max((state.last_seen.clock_ms for state in before.values() if state.last_seen is not None), default=0)
    oldest_ms = min((last_seen.at_ms for last_seen in kept), default=clock_ms)
    for stream in sorted(gone):
        state = before.get(stream)
        last_seen_ms = state.last_seen.at_ms if state is not None and state.last_seen is not None else was_ms
        if stream in traced:
            last_seen_ms = max(last_seen_ms, was_ms)
        if clock_ms - last_seen_ms <= 2 * LEAST_EXPIRY_MS or (stream not in traced and last_seen_ms >= oldest_ms):
            yield f"expected a state of {stream!r}, which was not silent for long, but there is none"
