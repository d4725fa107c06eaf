"""The question to the rows of a root: which columns, of which streams and times."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

TIME = "time"
CAPTURED_AT, KAFKA_TIMESTAMP, STREAM_ID = "captured_at", "kafka_timestamp", "stream_id"
# In every dataset that is read, `time` is captured_at, or else kafka_timestamp if that is in [EARLIEST, LATEST):
# producers set the timestamp, and earlier versions stored any number.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

_DESCRIPTION = "when the camera took the image, else the broker's timestamp; null if neither is known"


@dataclass(frozen=True)
class Query:
    """Rows of these streams (None: of all, also rows of no known stream) whose time is in [since, until).

    `stored` has the columns that files may have, `schema` those that are asked for, with or without `time`.
    """

    stored: pa.Schema = field(repr=False)
    schema: pa.Schema = field(repr=False)
    streams: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None


def nullable(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a dataset as they are read: files of an older version may lack any."""
    return pa.schema([field.with_nullable(True) for field in schema])


def with_time(schema: pa.Schema) -> pa.Schema:
    """Return the columns with `time` after them."""
    return schema.append(pa.field(TIME, pa.timestamp("us", tz="UTC"), metadata={"description": _DESCRIPTION}))
