"""The layout of a recording: raw messages in Parquet, as the broker delivered them.

    _recording.json                     the topic that was recorded, and the retention (`Manifest`)
    topic-<t>/partition-<p>/_origin     the offset at which the partition's recording began
    .../<first offset>.parquet          messages of [first, next); the next file is named after `next`
    .../<first offset>.redacted.parquet the same without images; it replaces the file above
    .../<offset>.start                  the recording begins here now; earlier files were removed

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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adawise.errors import Lost, SourceError
from adawise.ports import TopicIdentity
from adawise.records import Gap, Message, Missing, TopicPartition, stated_ms
from adawise.store.documents import Count, Document, Text, read_document
from adawise.store.store import Store

MANIFEST = "_recording.json"
"""The file with the promises of a recording, written once; every recorder of the folder agrees to them.

A recorder may keep data for a shorter time than promised, never for longer.
"""

FORMAT = 1
ROW_GROUP_BYTES = 8 << 20  # of values, or one message: a reader holds as much of each partition

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
    "Remove nothing: start again, since a disk or a store may have failed only once. If this stays, restore this "
    "file from a copy, or record into a new folder; the files before it are whole and can be replayed (--until)."
)
"""The remedy for a file that cannot be read."""

_FOOTER = b"adawise.recording"
_NAME = re.compile(
    r"topic-(?P<topic>[^/]+)/partition-(?P<partition>[0-9]{5,10})/(?P<first>[0-9]{20})"
    r"\.(?P<form>parquet|redacted\.parquet|start)"
)
_FORMS: dict[str, Form] = {"parquet": "full", "redacted.parquet": "redacted", "start": "start"}

Form = Literal["full", "redacted", "start"]


class Named(NamedTuple):
    """The parts of a file's name."""

    tp: TopicPartition
    first: int
    form: Form


@dataclass(frozen=True, slots=True)
class Footer:
    """A file's metadata: it holds every message of `topic`/`partition` in [first, next) that was asked for.

    Attributes:
        images: False if the values were removed or never stored.
        attempt: distinguishes one writer's attempt from another's.
        newest_ms: the newest Kafka timestamp, ms since the epoch; -1 if not known, as in the next two.
        begun_ms: when the first message was read, by the recorder's clock.
        closed_ms: when the file was closed, by the recorder's clock.
        gaps: the ranges that could not be read.
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
        """The partition whose messages it holds."""
        return TopicPartition(self.topic, self.partition)


class Beside(Protocol):
    """Columns beside those of the messages, for tools that read the files as tables."""

    @property
    def fields(self) -> Sequence[pa.Field]:
        """The names and types of the columns."""

    def columns(self, messages: Sequence[Message]) -> Sequence[pa.Array]:
        """Return an array for each column, with an entry for each message."""


def folder(tp: TopicPartition) -> str:
    """Return the folder of one partition, with the slash."""
    return f"topic-{tp.topic}/partition-{tp.partition:05d}/"


def key_of(tp: TopicPartition, first: int, form: Form = "full") -> str:
    """Return the name of a file that begins at `first`."""
    suffix = next(suffix for suffix, known in _FORMS.items() if known == form)
    return f"{folder(tp)}{first:020d}.{suffix}"


def origin_key_of(tp: TopicPartition) -> str:
    """Return the name of the file that says where a partition's recording begins."""
    return f"{folder(tp)}_origin"


def named(key: str) -> Named | None:
    """Return the parts of a name; None if it is not a name of a recording's file."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    return Named(TopicPartition(match["topic"], int(match["partition"])), int(match["first"]), _FORMS[match["form"]])


def encode_file(messages: Sequence[Message], footer: Footer, beside: Beside | None = None) -> bytes:
    """Return one file's bytes.

    Args:
        messages: of one partition, in offset order, within [first, next).
        footer: the file's metadata; the values are stored only if `footer.images`.
        beside: further columns.
    """
    out = io.BytesIO()
    schema = SCHEMA if footer.images else WITHOUT_IMAGES
    further = [] if beside is None else beside.fields
    with pq.ParquetWriter(
        out,
        pa.schema([*schema, *further]),
        compression="NONE",  # the values are images, which are compressed already
        use_dictionary=["topic", "partition", "key"],
        write_statistics=["offset", "timestamp_ms"],  # those of values would put whole images into the footer
        write_page_checksum=True,
    ) as writer:
        for group in _row_groups(messages):
            table = _table(group, images=footer.images)
            for field, column in zip(further, beside.columns(group) if beside else (), strict=True):
                table = table.append_column(field, column)
            writer.write_table(table)
        text = json.dumps({**asdict(footer), "gaps": [gap.stored() for gap in footer.gaps]})
        writer.add_key_value_metadata({_FOOTER: text.encode()})
    return out.getvalue()


def decode_footer(file: pq.ParquetFile, where: str) -> Footer:
    """Return a file's footer; raise SourceError if it is not a recording's, or of a newer format."""
    try:
        footer = Footer(**json.loads((file.metadata.metadata or {})[_FOOTER]))
        expect_format(footer.format, where)
        footer = replace(footer, gaps=tuple(map(Gap.of, footer.gaps)))
    except (KeyError, ValueError, TypeError) as error:
        raise SourceError(
            f"{where}: expected a file of a recording, but its footer is not one: {error}. {DAMAGED}"
        ) from error
    schema = SCHEMA if footer.images else WITHOUT_IMAGES
    if not pa.schema(list(file.schema_arrow)[: len(schema)]).equals(schema):  # columns beside them do not matter
        raise SourceError(f"{where}: expected the columns\n{schema}\nbut found\n{file.schema_arrow}\n{DAMAGED}")
    return footer


def messages_from(file: pq.ParquetFile, offset: int) -> Iterator[Message]:
    """Yield the messages from `offset` on, with one row group in memory at a time; the file must have images."""
    has_begun = False  # offsets ascend, so that what comes after a group with such a message has such messages too
    for group in range(file.num_row_groups):
        has_begun = has_begun or _newest(file, group, "offset") >= offset
        if not has_begun:
            continue
        table = file.read_row_group(group)
        for row in range(table.num_rows):
            message = _message(table, row)
            if message.offset >= offset:
                yield message


def missing_from(footer: Footer, offset: int) -> Iterator[Message]:
    """Yield placeholders for what could not be read from `offset` on; not for what was deleted before recording."""
    for gap in footer.gaps:
        if gap.until > offset and gap.reason != Lost.DELETED:
            missing = Missing(max(gap.first, offset), gap.reason)
            yield Message(footer.topic, footer.partition, gap.until - 1, None, None, missing=missing)


def first_at(file: pq.ParquetFile, timestamp_ms: int) -> int | None:
    """Return the first offset that is not older than `timestamp_ms`, None if all are older. No image is read."""
    for group in range(file.num_row_groups):
        if _newest(file, group, "timestamp_ms") < timestamp_ms:
            continue
        table = file.read_row_group(group, columns=["offset", "timestamp_ms"])
        for offset, found_ms in zip(*(table[name].to_pylist() for name in ("offset", "timestamp_ms")), strict=True):
            if stated_ms(found_ms) >= timestamp_ms:
                return int(offset)
    return None


def expect_format(found: int, where: str) -> None:
    """Raise SourceError if it is not our format."""
    if found != FORMAT:
        raise SourceError(
            f"{where}: expected a recording of format {FORMAT}, found format {found!r}. Read it with a newer version."
        )


def _newest(file: pq.ParquetFile, group: int, name: str) -> int:
    """Return the largest value of a column of a row group; -1 if it is empty.

    The values are read, not their statistics in the footer: Arrow ends the process where a damaged footer disagrees
    with itself about a column.
    """
    found = pc.max(file.read_row_group(group, columns=[name])[name]).as_py()
    return -1 if found is None else int(found)


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


def _table(messages: Sequence[Message], *, images: bool) -> pa.Table:
    schema = SCHEMA if images else WITHOUT_IMAGES
    names = [name for name in schema.names if name in SCHEMA.names and name != "headers"]
    columns: dict[str, list[Any]] = {name: [getattr(m, name) for m in messages] for name in names}
    columns["headers"] = [list(m.headers) for m in messages]
    if not images:
        values = [m.value for m in messages]
        columns["value_bytes"] = [None if value is None else len(value) for value in values]
        columns["value_sha256"] = [None if value is None else hashlib.sha256(value).digest() for value in values]
    return pa.table(columns, schema=schema)


def _message(table: pa.Table, row: int) -> Message:
    cells = {name: table[name][row].as_py() for name in SCHEMA.names}
    headers = tuple((header["key"], header["value"]) for header in cells.pop("headers"))
    timestamp_ms = stated_ms(cells.pop("timestamp_ms"))  # earlier versions stored any number
    return Message(**cells, headers=headers, timestamp_ms=timestamp_ms)


@dataclass(frozen=True, slots=True)
class Retention:
    """The time for which a recording keeps data, in seconds; None for ever.

    Attributes:
        keep_s: counts from the newest Kafka timestamp of a file; then the whole file is removed.
        forget_images_after_s: counts from when the first message of a file was stored; then its values are removed. 0:
            they are never stored.
    """

    keep_s: float | None = None
    forget_images_after_s: float | None = None

    def within(self, promise: Retention, where: str) -> Retention:
        """Return this, with the promise where nothing is set; raise SourceError if it is longer than promised."""
        kept = {}
        for name, flag in (("keep_s", "keep"), ("forget_images_after_s", "forget-images-after")):
            requested, promised = getattr(self, name), getattr(promise, name)
            if requested is not None and promised is not None and requested > promised:
                raise SourceError(
                    f"{where}: this recording promises --{flag} {promised:g}s, but {requested:g}s was given. Give at "
                    "most that, or record into a new folder."
                )
            kept[name] = promised if requested is None else requested
        return Retention(**kept)


class Manifest(Document):
    """The identity of a recording and its promises. `streams` are the patterns of its streams, None for all."""

    topic: Text
    cluster_id: Text
    topic_id: Text
    partitions: Count
    format: Count = FORMAT
    streams: Text | None = None
    keep_s: float | None = None
    forget_images_after_s: float | None = None

    @property
    def identity(self) -> TopicIdentity:
        """The identity of the recorded topic, as it was when recording began."""
        return TopicIdentity(self.cluster_id, self.topic_id, self.partitions)

    @property
    def promise(self) -> Retention:
        """The longest time for which it keeps data."""
        return Retention(self.keep_s, self.forget_images_after_s)

    def encode(self) -> bytes:
        """Return it as JSON."""
        return (json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n").encode()

    def expect_same(self, mine: Manifest, where: str) -> None:
        """Raise SourceError unless `mine` is a recording of the same streams of the same topic.

        A topic can get more partitions, and remains the same.
        """
        names = ("topic", "cluster_id", "topic_id", "streams")
        theirs_, mine_ = ({name: getattr(each, name) for name in names} for each in (self, mine))
        if theirs_ != mine_ or mine.partitions < self.partitions:
            raise SourceError(
                f"{where}: expected a recording of {mine_} with {mine.partitions} partitions, but it is one of "
                f"{theirs_} with {self.partitions}. Record into a new folder."
            )


def read_manifest(store: Store, root: str, remedy: str) -> Manifest:
    """Return the manifest of the recording in `root`; raise SourceError with the remedy if there is none.

    Raises:
        SourceError: as `decode_manifest`, too.
        StoreUnavailable: the store does not answer.
    """
    data = store.get(MANIFEST)
    if data is None:
        raise SourceError(f"expected a recording in {root}, but it holds no {MANIFEST}. {remedy}")
    return decode_manifest(data, f"{root}/{MANIFEST}")


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Return a manifest; raise SourceError if the data is not one, or of a newer format."""
    try:
        manifest = read_document(Manifest, data)
        expect_format(manifest.format, where)
    except ValueError as error:
        raise SourceError(
            f"{where}: expected the description of a recording, but: {error}. Record again into a new folder."
        ) from error
    return manifest
