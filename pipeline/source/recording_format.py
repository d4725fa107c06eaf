"""How a recording looks on disk: raw messages in Parquet, as the broker delivered them.

    _recording.json                                   which topic this is a recording of; created once
    topic-<t>/partition-<p>/<first offset>.parquet    messages of [first, next); the next file is called like `next`

Files are created only if absent and never change. `next` is in the footer, beside the topic's identity. A message that
no longer existed in the broker (compaction, aborted transactions) leaves a hole between two offsets, not between files.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.ports import TopicIdentity
from pipeline.records import Message, TopicPartition

MANIFEST = "_recording.json"
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

_FOOTER = b"adawise.recording"
_KEY = re.compile(r"topic-(?P<topic>[^/]+)/partition-(?P<partition>[0-9]{5,10})/(?P<first>[0-9]{20})\.parquet")


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself: it holds every message of `topic`/`partition` in [first, next)."""

    topic: str
    partition: int
    first: int
    next: int
    cluster_id: str
    topic_id: str
    partitions: int
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a recording is of."""

    topic: str
    cluster_id: str
    topic_id: str
    partitions: int
    format: int = FORMAT

    @property
    def identity(self) -> TopicIdentity:
        """Of the topic that was recorded."""
        return TopicIdentity(self.cluster_id, self.topic_id, self.partitions)

    def encode(self) -> bytes:
        """As JSON."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Raises SourceError if it is none, or of a newer format."""
    try:
        manifest = Manifest(**json.loads(data))
        _expect_format(manifest.format, where)
    except (ValueError, TypeError) as error:
        msg = f"{where}: expected the description of a recording, but: {error}. Record again into a new folder."
        raise SourceError(msg) from error
    return manifest


def folder(tp: TopicPartition) -> str:
    """The folder of one partition, with the slash."""
    return f"topic-{tp.topic}/partition-{tp.partition:05d}/"


def key_of(tp: TopicPartition, first: int) -> str:
    """The name of the file that begins at `first`."""
    return f"{folder(tp)}{first:020d}.parquet"


def first_of(key: str) -> int | None:
    """The offset that a file's name says; None if no file of a recording is called so."""
    match = _KEY.fullmatch(key)
    return None if match is None else int(match["first"])


def encode_file(messages: Sequence[Message], footer: Footer) -> bytes:
    """One file; `messages` are of one partition, in offset order, within the footer's [first, next)."""
    out = io.BytesIO()
    with pq.ParquetWriter(
        out,
        SCHEMA,
        compression="NONE",  # values are images, compressed already
        use_dictionary=["topic", "partition", "key"],
        write_statistics=["offset", "timestamp_ms"],  # of values, they would put whole images into the footer
        write_page_checksum=True,
    ) as writer:
        for group in _row_groups(messages):
            writer.write_table(_table(group))
        writer.add_key_value_metadata({_FOOTER: json.dumps(asdict(footer)).encode()})
    return out.getvalue()


def decode_footer(file: pq.ParquetFile, where: str) -> Footer:
    """Raises SourceError if this is no file of a recording, or of a newer format."""
    try:
        footer = Footer(**json.loads((file.metadata.metadata or {})[_FOOTER]))
        _expect_format(footer.format, where)
    except (KeyError, ValueError, TypeError) as error:
        msg = (
            f"{where}: expected a file of a recording, but its footer is not one: {error}. Remove it, or record again."
        )
        raise SourceError(msg) from error
    if not file.schema_arrow.equals(SCHEMA):
        msg = f"{where}: expected the columns\n{SCHEMA}\nbut found\n{file.schema_arrow}\nRemove it, or record again."
        raise SourceError(msg)
    return footer


def messages_from(file: pq.ParquetFile, offset: int) -> Iterator[Message]:
    """The messages at `offset` and after it, with one row group in memory at a time."""
    column = SCHEMA.get_field_index("offset")
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        if statistics is not None and statistics.has_min_max and statistics.max < offset:
            continue
        table = file.read_row_group(group)
        for row in range(table.num_rows):
            message = _message(table, row)
            if message.offset >= offset:
                yield message


def first_at(file: pq.ParquetFile, timestamp_ms: int) -> int | None:
    """The first offset that is not older than `timestamp_ms`; None if every message is. No value is read."""
    column = SCHEMA.get_field_index("timestamp_ms")
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        if statistics is not None and statistics.has_min_max and statistics.max < timestamp_ms:
            continue
        table = file.read_row_group(group, columns=["offset", "timestamp_ms"])
        found = table["offset"].filter(pc.greater_equal(table["timestamp_ms"], timestamp_ms))
        if len(found):
            return int(found[0].as_py())
    return None


def _expect_format(found: int, where: str) -> None:
    if found != FORMAT:
        msg = f"{where}: expected a recording of format {FORMAT}, found format {found!r}. Read it with a newer version."
        raise SourceError(msg)


def _row_groups(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    begin, size = 0, 0
    for index, message in enumerate(messages):
        value_bytes = len(message.value or b"")
        if index > begin and size + value_bytes > ROW_GROUP_BYTES:
            yield messages[begin:index]
            begin, size = index, 0
        size += value_bytes
    yield messages[begin:]


def _table(messages: Sequence[Message]) -> pa.Table:
    columns = {name: [getattr(m, name) for m in messages] for name in SCHEMA.names if name != "headers"}
    return pa.table({**columns, "headers": [list(m.headers) for m in messages]}, schema=SCHEMA)


def _message(table: pa.Table, row: int) -> Message:
    cells = {name: table[name][row].as_py() for name in SCHEMA.names}
    headers = tuple((header["key"], header["value"]) for header in cells.pop("headers"))
    return Message(**cells, headers=headers)
