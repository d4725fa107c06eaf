"""How a recording looks on disk: raw messages in Parquet, as the broker delivered them.

    _recording.json                     what this is a recording of, and what it promises (`recording_manifest`)
    topic-<t>/partition-<p>/_origin     where the partition's recording began
    .../<first offset>.parquet          messages of [first, next); the next file is called like `next`
    .../<first offset>.redacted.parquet the same without images, which counts wherever it exists
    .../<offset>.start                 the recording begins here now; what lies before it was removed

All are created only if absent and never change. `next` is in the footer, beside the topic's identity. A message that no
longer existed in the broker (compaction, aborted transactions), or is of a stream that was not asked for, leaves a hole
between two offsets, not between files. A file without images has no column `value`; in its place are `value_bytes` and
`value_sha256`, null where the value was null.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from adawise.errors import Lost, SourceError
from adawise.records import Gap, Message, Missing, TopicPartition, stated_ms

FORMAT = 1
ROW_GROUP_BYTES = 8 << 20  # of values, or one message: what a reader holds of each partition

SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field(
            "headers",
            pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())])),
            nullable=False,
        ),
        pa.field("timestamp_ms", pa.int64(), nullable=False),  # -1 if the broker gave none
    ]
)
WITHOUT_IMAGES = (
    SCHEMA.remove(SCHEMA.get_field_index("value"))
    .append(pa.field("value_bytes", pa.int64()))
    .append(pa.field("value_sha256", pa.binary()))
)

DAMAGED = (
    "Remove nothing: start again, since a disk or a store may have failed only this once. If it stays so, restore this "
    "file from a copy, or record into a new folder; the files before it are whole and can be replayed (--until)."
)
"""What is to be done about a file that cannot be read."""

_FOOTER = b"adawise.recording"
_NAME = re.compile(
    r"topic-(?P<topic>[^/]+)/partition-(?P<partition>[0-9]{5,10})/(?P<first>[0-9]{20})"
    r"\.(?P<form>parquet|redacted\.parquet|start)"
)
_FORMS: dict[str, Form] = {"parquet": "full", "redacted.parquet": "redacted", "start": "start"}

Form = Literal["full", "redacted", "start"]


class Named(NamedTuple):
    """What a name says."""

    tp: TopicPartition
    first: int
    form: Form


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself: it holds every message of `topic`/`partition` in [first, next) that was asked for.

    `attempt` tells one writer's try from another's. Times are in ms since the epoch, -1 if not known: the newest Kafka
    timestamp, and by the recorder's clock when the first message was read and when the file was closed. `gaps` are
    ranges that nobody could read.
    """

    topic: str
    partition: int
    first: int
    next: int
    cluster_id: str
    topic_id: str
    partitions: int
    format: int = FORMAT
    images: bool = True
    attempt: str = ""
    newest_ms: int = -1
    begun_ms: int = -1
    closed_ms: int = -1
    gaps: Sequence[Gap] = ()

    @property
    def tp(self) -> TopicPartition:
        """Whose messages it holds."""
        return TopicPartition(self.topic, self.partition)


class Beside(Protocol):
    """Columns beside those of the messages, for whoever reads the files as tables."""

    @property
    def fields(self) -> Sequence[pa.Field]:
        """What they are called and are."""

    def columns(self, messages: Sequence[Message]) -> Sequence[pa.Array]:
        """An entry for each message."""


def folder(tp: TopicPartition) -> str:
    """The folder of one partition, with the slash."""
    return f"topic-{tp.topic}/partition-{tp.partition:05d}/"


def key_of(tp: TopicPartition, first: int, form: Form = "full") -> str:
    """The name of what begins at `first`."""
    suffix = next(suffix for suffix, known in _FORMS.items() if known == form)
    return f"{folder(tp)}{first:020d}.{suffix}"


def origin_key_of(tp: TopicPartition) -> str:
    """The name of the claim where a partition's recording begins."""
    return f"{folder(tp)}_origin"


def named(key: str) -> Named | None:
    """What a name says; None if nothing of a recording is called so."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    return Named(TopicPartition(match["topic"], int(match["partition"])), int(match["first"]), _FORMS[match["form"]])


def encode_file(messages: Sequence[Message], footer: Footer, beside: Beside | None = None) -> bytes:
    """One file; `messages` are of one partition, in offset order, within [first, next); values only if `images`."""
    out = io.BytesIO()
    schema = SCHEMA if footer.images else WITHOUT_IMAGES
    further = [] if beside is None else beside.fields
    with pq.ParquetWriter(
        out,
        pa.schema([*schema, *further]),
        compression="NONE",  # values are images, compressed already
        use_dictionary=["topic", "partition", "key"],
        write_statistics=["offset", "timestamp_ms"],  # of values, they would put whole images into the footer
        write_page_checksum=True,
    ) as writer:
        for group in _row_groups(messages):
            table = _table(group) if footer.images else _table_without_images(group)
            for field, column in zip(further, beside.columns(group) if beside else (), strict=True):
                table = table.append_column(field, column)
            writer.write_table(table)
        text = json.dumps({**asdict(footer), "gaps": [gap.stored() for gap in footer.gaps]})
        writer.add_key_value_metadata({_FOOTER: text.encode()})
    return out.getvalue()


def decode_footer(file: pq.ParquetFile, where: str) -> Footer:
    """Raises SourceError if this is no file of a recording, or of a newer format."""
    try:
        footer = Footer(**json.loads((file.metadata.metadata or {})[_FOOTER]))
        expect_format(footer.format, where)
        footer = replace(footer, gaps=tuple(map(Gap.of, footer.gaps)))
    except (KeyError, ValueError, TypeError) as error:
        raise SourceError(
            f"{where}: expected a file of a recording, but its footer is not one: {error}. {DAMAGED}"
        ) from error
    schema = SCHEMA if footer.images else WITHOUT_IMAGES
    if not pa.schema(list(file.schema_arrow)[: len(schema)]).equals(schema):  # what lies beside is not ours
        raise SourceError(f"{where}: expected the columns\n{schema}\nbut found\n{file.schema_arrow}\n{DAMAGED}")
    return footer


def messages_from(file: pq.ParquetFile, offset: int) -> Iterator[Message]:
    """The messages at `offset` and after it, with one row group in memory at a time. Of a file with images."""
    for group in range(file.num_row_groups):
        statistics = _statistics(file, group, "offset")
        if statistics is not None and statistics.max < offset:
            continue
        table = file.read_row_group(group)
        for row in range(table.num_rows):
            message = _message(table, row)
            if message.offset >= offset:
                yield message


def missing_from(footer: Footer, offset: int) -> Iterator[Message]:
    """What nobody could read at `offset` and after it; not what was deleted before it was recorded."""
    for gap in footer.gaps:
        if gap.until > offset and gap.reason != Lost.DELETED:
            missing = Missing(max(gap.first, offset), gap.reason)
            yield Message(footer.topic, footer.partition, gap.until - 1, None, None, missing=missing)


def first_at(file: pq.ParquetFile, timestamp_ms: int) -> int | None:
    """The first offset that is not older than `timestamp_ms`; None if every message is. No value is read."""
    for group in range(file.num_row_groups):
        statistics = _statistics(file, group, "timestamp_ms")
        if statistics is not None and statistics.max < timestamp_ms:
            continue
        table = file.read_row_group(group, columns=["offset", "timestamp_ms"])
        for offset, found_ms in zip(*(table[name].to_pylist() for name in ("offset", "timestamp_ms")), strict=True):
            if stated_ms(found_ms) >= timestamp_ms:
                return int(offset)
    return None


def expect_format(found: int, where: str) -> None:
    """Raise SourceError if it is not ours."""
    if found != FORMAT:
        raise SourceError(
            f"{where}: expected a recording of format {FORMAT}, found format {found!r}. Read it with a newer version."
        )


def _statistics(file: pq.ParquetFile, group: int, name: str) -> Any:
    """Of a column of a row group; None if it has none."""
    columns = [file.metadata.row_group(group).column(index) for index in range(file.metadata.num_columns)]
    found = next(column.statistics for column in columns if column.path_in_schema == name)
    return found if found is not None and found.has_min_max else None


def _row_groups(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    begin, size = 0, 0
    for index, message in enumerate(messages):
        value_bytes = len(message.value or b"")
        if index > begin and size + value_bytes > ROW_GROUP_BYTES:
            yield messages[begin:index]
            begin, size = index, 0
        size += value_bytes
    if messages:
        yield messages[begin:]


def _table(messages: Sequence[Message]) -> pa.Table:
    columns = {name: [getattr(m, name) for m in messages] for name in SCHEMA.names if name != "headers"}
    return pa.table({**columns, "headers": [list(m.headers) for m in messages]}, schema=SCHEMA)


def _table_without_images(messages: Sequence[Message]) -> pa.Table:
    names = [name for name in WITHOUT_IMAGES.names if name in SCHEMA.names and name != "headers"]
    columns: dict[str, list[Any]] = {name: [getattr(m, name) for m in messages] for name in names}
    columns["headers"] = [list(m.headers) for m in messages]
    values = [m.value for m in messages]
    columns["value_bytes"] = [None if value is None else len(value) for value in values]
    columns["value_sha256"] = [None if value is None else hashlib.sha256(value).digest() for value in values]
    return pa.table(columns, schema=WITHOUT_IMAGES)


def _message(table: pa.Table, row: int) -> Message:
    cells = {name: table[name][row].as_py() for name in SCHEMA.names}
    headers = tuple((header["key"], header["value"]) for header in cells.pop("headers"))
    timestamp_ms = stated_ms(cells.pop("timestamp_ms"))  # earlier versions stored any number
    return Message(**cells, headers=headers, timestamp_ms=timestamp_ms)
