"""One segment: a Parquet file whose rows are results and whose footer is the state after them.

The footer's key-values, beside what Parquet needs:

    adawise.segment    JSON, the small fields of `SegmentFooter`; pending and gaps as [from, until) ranges,
                       each gap with its reason unless the messages were deleted
    adawise.states     base64(zstd(Arrow IPC of `schemas.STATES`)): the full state of the partition's streams
    adawise.trace      base64(zstd(Arrow IPC of `schemas.BATCH_TRACE`)) without later columns: one row per batch
    adawise.checksum   SHA-256 over the three: Parquet guards its pages by a checksum, but not its footer
    adawise.lineage    the segments before this one, with a checksum of its own (`Lineage`); not in earlier versions
    adawise.streams    SHA-256 and JSON of `adawise.worker.stream_table`; likewise
    adawise.alerts     SHA-256 and JSON of `adawise.publish.alerts`; likewise, and only if there are rules
    adawise.tells      when the results are published; likewise, and only if they are
    adawise.pairs      SHA-256 and JSON: which pairs of models served from where on (`records.Switch`); likewise
    adawise.later      SHA-256 and, as the trace, its columns that were added later, which earlier versions ignore

A value longer than `SPLIT` is continued under `KEY.1`, `KEY.2` and so on: Arrow refuses to read one beyond 100 MB.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adawise.errors import ChainError, Lost
from adawise.records import Gap, Switch, TopicPartition, stated_ms
from adawise.sink import layout, schemas
from adawise.sink.layout import Lineage, SegmentName
from adawise.store.parquet import open_parquet, read_whole

BLOCK = 32
"""Streams of a block, which are encoded anew if one of them changed; a block by itself costs some .3 KB."""

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # the end of an IPC stream
_SKIPPED = b"\x50\x2a\x4d\x18"  # the beginning of a zstd frame that decoders skip; its length follows
_CODEC = pa.Codec("zstd")

_Names = tuple[str, ...]
_States = tuple[bytes, ...]


class StateBlocks:
    """An encoder of states that keeps the blocks that it encoded last: few of 10,000 streams change in between.

    Decoders read the blocks as one: a batch of the IPC stream is a zstd frame of its own, followed by a skippable frame
    that makes the length a multiple of three, so that the joined base64 of blocks is the base64 of them all. A block
    whose streams and states are the same is reused.
    """

    def __init__(self) -> None:
        self._blocks: dict[_Names, tuple[_States, bytes]] = {}

    def encode(self, states: Mapping[str, bytes]) -> bytes:
        """Return the encoded states; a function of `states` alone, whatever was encoded before."""
        streams = sorted(states)  # so that equal states are equal bytes
        blocks: dict[_Names, tuple[_States, bytes]] = {}
        for start in range(0, len(streams), BLOCK):
            names = tuple(streams[start : start + BLOCK])
            values = tuple(states[name] for name in names)
            known = self._blocks.get(names)
            # States that did not change are the same objects, so this compares none of their bytes.
            blocks[names] = known if known is not None and known[0] == values else (values, _block(names, values))
        self._blocks = blocks
        parts = (encoded for _, encoded in blocks.values())
        return b"".join((_framed(schemas.STATES.serialize().to_pybytes()), *parts, _framed(_END)))


def _block(names: _Names, values: _States) -> bytes:
    columns = [pa.array(names, pa.string()), pa.array(values, pa.large_binary())]
    return _framed(pa.RecordBatch.from_arrays(columns, schema=schemas.STATES).serialize().to_pybytes())


def _framed(data: bytes) -> bytes:
    """Return the base64 of a zstd frame, with one that fills it up to a multiple of three bytes."""
    frame: bytes = _CODEC.compress(data, asbytes=True)
    missing = -(len(frame) + len(_SKIPPED) + 4) % 3
    return base64.b64encode(frame + _SKIPPED + struct.pack("<I", missing) + bytes(missing))


FORMAT = 3
"""The format once another pair has taken its turn, which an earlier version would not follow; else see `format_of`."""

_COMPARED = 32  # messages of a head that are compared with the broker's; a fetch returns as many at once

_PARTS = (b"adawise.segment", b"adawise.states", b"adawise.trace")
_CHECKSUM, _LINEAGE, _STREAMS = b"adawise.checksum", b"adawise.lineage", b"adawise.streams"
_LATER, _ALERTS, _PUBLISH_WHEN = b"adawise.later", b"adawise.alerts", b"adawise.tells"
_PAIRS = b"adawise.pairs"
_SWITCHES = 64  # the newest are kept: two months at one a day
_DIGEST = 64  # hex digits before the JSON
SPLIT = 64 * 2**20
_LONGEST = 2**31 - 1  # bytes of a value; earlier versions did not split them
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)  # the last if a name in the file's schema is damaged


@dataclass(frozen=True, slots=True, eq=False)
class SegmentFooter:
    """The footer of a segment. Offsets `[first, next)` and those pending before are its rows or still pending.

    Attributes:
        states_of: the segment of another root whose states these are: a chain that goes on from there begins with a
            segment that has nothing else.
        attempt: unique to one worker's try at this segment; it distinguishes a lost answer from a lost race.
        trace: the batches, with the columns of `schemas.BATCH_TRACE`.
        switches: the pairs that served, the newest ones, up to the pair of these rows; an earlier version has none.
        lineage: of the segments before this one.
        publish_when: when its results are published, "" for never.
    """

    sink: str
    cluster_id: str
    topic_id: str
    topic: str
    partition: int
    partitions: int
    first: int
    sequence: int
    next: int
    previous: str | None
    attempt: str
    writer: str
    created_at: str
    model_fingerprint: str
    config_fingerprint: str
    states_of: str | None = None
    pending: tuple[int, ...] = ()
    gaps: tuple[Gap, ...] = ()
    states: Mapping[str, bytes] = field(default_factory=dict)
    stream_table: bytes = b""
    alerts: bytes = b""
    switches: tuple[Switch, ...] = ()
    trace: pa.Table = field(default_factory=schemas.BATCH_TRACE.empty_table)
    lineage: Lineage | None = None
    publish_when: str = ""

    @property
    def tp(self) -> TopicPartition:
        """The partition of its chain."""
        return TopicPartition(self.topic, self.partition)

    @property
    def key(self) -> str:
        """The key under which it is stored."""
        return layout.segment_key(self.tp, self.name)

    @property
    def name(self) -> SegmentName:
        """The segment's place in the chain."""
        return SegmentName(self.first, self.sequence)

    @property
    def successor(self) -> SegmentName:
        """The name of the segment after it."""
        return self.name.successor(self.next)


def encode(rows: pa.Table, footer: SegmentFooter, blocks: StateBlocks | None = None) -> bytes:
    """Return the file of a segment; `rows` have the schema `schemas.PREDICTIONS`, `as_stored`.

    `blocks` are those of the segment before it, which make this quick if few of many states have changed.
    """
    states = (blocks or StateBlocks()).encode(footer.states)
    later = [name for name in footer.trace.column_names if name in schemas.LATER]
    trace = _packed(footer.trace.drop_columns(later))
    parts = dict(zip(_PARTS, (_scalars(footer), states, trace), strict=True))
    values = {**parts, _CHECKSUM: _checksum(parts)}
    if footer.lineage is not None:
        values[_LINEAGE] = footer.lineage.stored()
    if footer.stream_table:
        values[_STREAMS] = _guarded(footer.stream_table)
    if footer.alerts:
        values[_ALERTS] = _guarded(footer.alerts)
    if footer.publish_when:
        values[_PUBLISH_WHEN] = footer.publish_when.encode()
    if footer.switches:
        values[_PAIRS] = _guarded(_stored(footer.switches))
    if footer.trace.num_rows:
        values[_LATER] = _guarded(_packed(footer.trace.select(later)))
    return parquet(rows, schemas.PREDICTIONS_DICTIONARY, values)


def parquet(table: pa.Table, dictionary: Sequence[str], key_values: Mapping[bytes, bytes]) -> bytes:
    """Return a table as one checksummed Parquet file with these key-values in its footer.

    Nested columns get no statistics: no reader skips a row group by the least element of a list.

    Raises:
        ChainError: Arrow could not read the file back.
    """
    sink = io.BytesIO()  # gives its bytes away without a copy, unlike a buffer of Arrow's
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=list(dictionary),
        write_page_checksum=True,
        write_statistics=[column.name for column in table.schema if not pa.types.is_nested(column.type)],
    ) as writer:
        writer.write_table(table)
        # Here and not in the schema's metadata, which Arrow's Parquet writer stores twice.
        writer.add_key_value_metadata(dict(_split(key_values)))
    data = sink.getvalue()
    try:
        opened(data)
    except _UNREADABLE as error:
        size = sum(map(len, key_values.values()))
        raise ChainError(
            f"a file with {size} bytes in its footer could not be read again ({str(error).strip()}), "
            "so it is not written: lower limits.streams"
        ) from error
    return data


def _split(key_values: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in key_values.items():
        yield key, value[:SPLIT]
        for part, start in enumerate(range(SPLIT, len(value), SPLIT), 1):
            yield b"%s.%d" % (key, part), value[start : start + SPLIT]


def _joined(found: Mapping[bytes, bytes], key: bytes) -> bytes:
    """Return a value that may be split; empty if it is absent."""
    value, part = found.get(key, b""), 1
    while (more := found.get(b"%s.%d" % (key, part))) is not None:
        value, part = value + more, part + 1
    return value


def opened(data: bytes, *, check_pages: bool = False) -> pq.ParquetFile:
    """Return a Parquet file with a footer of any size. Raises as `open_parquet` does."""
    return open_parquet(
        pa.BufferReader(data), page_checksum_verification=check_pages, thrift_string_size_limit=_LONGEST
    )


def read_footer(data: bytes, key: str) -> SegmentFooter:
    """Return the footer of the segment file `data`, which was found at `key`.

    Raises:
        ChainError: the file is damaged, is no segment, or is of a newer format.
    """
    return _footer(_opened(data, key).metadata.metadata or {}, key, is_whole=True)


def read_outline(
    data: bytes, key: str, columns: Sequence[str], *, keeps_states: bool
) -> tuple[SegmentFooter, pa.Table]:
    """Return `read_footer` and `read_rows` of some columns from one opened file, for readers of very many segments.

    The trace lacks columns that its writer did not know, and states are left out unless `keeps_states`.

    Raises:
        ChainError: as they do.
    """
    file = _opened(data, key, check_pages=True)
    footer = _footer(file.metadata.metadata or {}, key, is_whole=False, keeps_states=keeps_states)
    try:
        return footer, _typed(file.read(columns=list(columns), use_threads=False), key, columns)
    except _UNREADABLE as error:
        raise _damaged(key, f"readable rows, but {error}") from error


def _opened(data: bytes, key: str, *, check_pages: bool = False) -> pq.ParquetFile:
    try:
        return opened(data, check_pages=check_pages)
    except _UNREADABLE as error:
        raise _damaged(key, f"a readable Parquet file, but {error}") from error


def _footer(found: Mapping[bytes, bytes], key: str, *, is_whole: bool, keeps_states: bool = True) -> SegmentFooter:
    parts = {name: _joined(found, name) for name in _PARTS}
    if not all(parts.values()):
        raise _damaged(key, "a segment written by this program, but its footer has no adawise key-values")
    if found.get(_CHECKSUM) != _checksum(parts):
        raise _damaged(key, "a footer that agrees with its checksum, but it differs")
    scalars = json.loads(parts[_PARTS[0]])
    if (version := scalars.pop("format")) > FORMAT:
        raise ChainError(f"segment {key}: expected format {FORMAT} or older, but it is {version}; upgrade this program")
    stream_table, later, alerts, pairs = (_joined(found, key) for key in (_STREAMS, _LATER, _ALERTS, _PAIRS))
    named = ("a table of streams", "a second part of the trace", "a state of alerts", "a list of pairs")
    for what, value in zip(named, (stream_table, later, alerts, pairs), strict=True):
        if value and value != _guarded(value[_DIGEST:]):
            raise _damaged(key, f"{what} that agrees with its checksum, but it differs")
    trace = _unpacked(parts[_PARTS[2]])
    if later:
        more = _unpacked(later[_DIGEST:])
        trace = pa.Table.from_arrays([*trace.columns, *more.columns], schema=pa.schema([*trace.schema, *more.schema]))
    states = _states(parts[_PARTS[1]]) if keeps_states else {}
    try:
        lineage = Lineage.of(found[_LINEAGE]) if _LINEAGE in found else None
    except ValueError as error:
        raise _damaged(key, f"a count of the segments before it, but {error}") from error
    return SegmentFooter(
        **{**scalars, "pending": tuple(_offsets(scalars["pending"])), "gaps": tuple(map(Gap.of, scalars["gaps"]))},
        states=states,
        stream_table=stream_table[_DIGEST:],
        alerts=alerts[_DIGEST:],
        switches=_switches(pairs[_DIGEST:]),
        trace=schemas.with_later(trace, schemas.BATCH_TRACE) if is_whole else trace,
        lineage=lineage,
        publish_when=found.get(_PUBLISH_WHEN, b"").decode("ascii", "replace"),
    )


def _states(part: bytes) -> dict[str, bytes]:
    states = _unpacked(part)
    return dict(zip(states["stream_id"].to_pylist(), states["state"].to_pylist(), strict=True))


def read_rows(data: bytes, key: str, columns: Sequence[str] | None = None, *, strictly: bool = False) -> pa.Table:
    """Return the rows of the segment file `data`, found at `key`, with each page checked against its checksum.

    With `strictly`, a file that this program can read and others may not is damaged as well (`read_whole`).

    Raises:
        ChainError: a page is damaged, or a column has another type.
    """
    try:
        # Not `read_table`: it would take the key's folders for columns.
        file = opened(data, check_pages=True)
        if columns is not None:
            return _typed(file.read(columns=list(columns)), key, columns)
        is_ours = key.startswith(f"{layout.PREDICTIONS}/")  # and not the traces beside a segment
        rows = _typed(read_whole(file) if strictly else file.read(), key, schemas.PREDICTIONS.names if is_ours else ())
        return schemas.with_later(rows, schemas.PREDICTIONS)
    except _UNREADABLE as error:
        raise _damaged(key, f"readable rows, but {error}") from error


def _typed(rows: pa.Table, key: str, columns: Sequence[str]) -> pa.Table:
    """Return the rows.

    Raises:
        ChainError: one of `columns` that every version writes is missing, or a column of ours is of another type.
        pyarrow.ArrowException: a value is none of its type, such as text that is not UTF-8.
    """
    if missing := {*columns} & {*schemas.PREDICTIONS.names} - {*schemas.LATER} - {*rows.column_names}:
        raise _damaged(key, f"the columns {', '.join(sorted(missing))}, but there are none")
    rows.validate(full=True)
    for column in rows.schema:
        place = schemas.PREDICTIONS.get_field_index(column.name)
        if place >= 0 and not column.type.equals(expected := schemas.PREDICTIONS.field(place).type):
            raise _damaged(key, f"{expected} in column {column.name}, but it has {column.type}")
    return rows


def check_pages(data: bytes, key: str) -> None:
    """Read all of the segment file `data`, found at `key`, a column at a time, so that little of it is decoded at once.

    Raises:
        ChainError: a page differs from its checksum, or a column has fewer or more rows than the footer records.
    """
    try:
        file = opened(data, check_pages=True)
        for group in range(file.num_row_groups):
            stated = file.metadata.row_group(group).num_rows
            for name in file.schema_arrow.names:
                found = file.read_row_group(group, columns=[name]).num_rows
                if found != stated:  # no checksum guards a page's own header
                    raise _damaged(key, f"{stated} rows in column {name}, but it has {found}")
    except _UNREADABLE as error:
        raise _damaged(key, f"pages that agree with their checksums, but {error}") from error


def newest(data: bytes, key: str) -> dict[int, int]:
    """Return the last messages in the rows of the segment file `data`, found at `key`: offset to timestamp in ms.

    Raises:
        ChainError: the file is damaged.
    """
    names = ["offset", "kafka_timestamp"]
    rows = read_rows(data, key, names)
    if rows.column_names != names:
        raise _damaged(key, f"the columns {names}, but found {rows.column_names}")
    rows = rows.drop_null()
    times = dict(zip(rows["offset"].to_pylist(), rows["kafka_timestamp"].cast(pa.int64()).to_pylist(), strict=True))
    last = max(times, default=0)
    return {offset: stated_ms(times[offset]) for offset in sorted(times)[-_COMPARED:] if offset > last - _COMPARED}


def _damaged(key: str, what: str) -> ChainError:
    return ChainError(
        f"segment {key}: expected {what}; restore the file from a backup, or, if it is the newest of its partition, "
        f"stop every worker and move it away: its rows are then computed again"
    )


def _scalars(footer: SegmentFooter) -> bytes:
    # The big fields go into parts of their own. They are emptied first, so that `asdict` need not copy them.
    scalars = asdict(replace(footer, states={}, trace=None, pending=(), lineage=None, switches=()))
    for name in ("states", "trace", "lineage", "stream_table", "alerts", "publish_when", "switches"):
        del scalars[name]
    stored = {"pending": _ranges(footer.pending), "gaps": [gap.stored() for gap in footer.gaps]}
    return json.dumps({"format": format_of(footer.gaps, footer.switches), **scalars, **stored}).encode()


def format_of(gaps: Iterable[Gap], switches: Sequence[Switch] = ()) -> int:
    """Return the oldest format that can hold these: 2 for gaps that have a reason, 3 for a pair that changed."""
    if len(switches) > 1:
        return FORMAT
    return 2 if any(gap.reason != Lost.DELETED for gap in gaps) else 1


def _checksum(parts: Mapping[bytes, bytes]) -> bytes:
    digest = hashlib.sha256()
    for name in _PARTS:
        digest.update(b"%s %d\n" % (name, len(parts[name])))
        digest.update(parts[name])
    return digest.hexdigest().encode()


def _guarded(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode() + data


def _packed(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(buffer.getvalue())


def _unpacked(data: bytes) -> pa.Table:
    with pa.CompressedInputStream(pa.BufferReader(base64.b64decode(data)), "zstd") as stream:
        return pa.ipc.open_stream(stream).read_all()


def _stored(switches: Sequence[Switch]) -> bytes:
    newest = switches[-_SWITCHES:]
    return json.dumps([[s.first, _ranges(s.pending), s.pair, "keep" if s.keeps else "reset"] for s in newest]).encode()


def _switches(data: bytes) -> tuple[Switch, ...]:
    return tuple(
        Switch(first, tuple(_offsets(pending)), pair, state == "keep")
        for first, pending, pair, state in (json.loads(data) if data else ())
    )


def _ranges(offsets: Iterable[int]) -> list[list[int]]:
    """Return sorted offsets as [from, until) ranges: a thousand pending frames in a row are two numbers."""
    ordered = np.asarray(sorted(offsets), np.int64)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs if len(run)]


def _offsets(ranges: Iterable[Sequence[int]]) -> Iterable[int]:
    for start, until in ranges:
        yield from range(start, until)
