"""The settings of the recording of messages that a worker makes, and the parsing of durations."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from adawise.settings.group import Group, Location
from adawise.settings.moments import SECONDS

_DURATION = re.compile(r"([0-9]{1,9})([smhd])|0")
LONGEST_S = 100 * 365 * 86_400.0

DURATION_EXPECTED = "a duration such as 90s, 30m, 24h or 7d"
STREAMS_EXPECTED = "names of streams separated by commas, with * ? and [] as in a shell"


def seconds_of(value: object) -> float:
    """Return the seconds of a duration such as 90s, 30m, 24h, 7d or 0.

    Raises:
        ValueError: it is no duration.
    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("it is not such a duration")
    return float(match[1]) * SECONDS[match[2]] if match[2] else 0.0


def distinct_names(value: str) -> str:
    """Return names separated by commas, without spaces. Raise ValueError if one is empty or is there twice."""
    names = [name.strip() for name in value.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise ValueError("a name is empty or is there twice")
    return ",".join(names)


Duration = Annotated[float, BeforeValidator(seconds_of), Field(ge=0, le=LONGEST_S)]
"""A duration in seconds, written as `90s`, `30m`, `24h` or `7d`. Its Field needs json_schema_extra=DURATION_SCHEMA."""

DURATION_SCHEMA: dict[str, JsonValue] = {"expected": DURATION_EXPECTED, "metavar": "TIME"}

Days = Annotated[Duration, Field(ge=86_400)]
"""A duration of at least a day, in seconds. Its Field needs json_schema_extra=DAYS_SCHEMA."""

DAYS_SCHEMA: dict[str, JsonValue] = {"expected": "a day or more, such as 1d, 36h or 28d", "metavar": "TIME"}

StreamPatterns = Annotated[str, AfterValidator(distinct_names)]
"""Names or patterns of streams, separated by commas. Its Field needs json_schema_extra=STREAMS_SCHEMA."""

STREAMS_SCHEMA: dict[str, JsonValue] = {"expected": STREAMS_EXPECTED, "metavar": "A,B*"}

KEEP = "remove files whose newest message is older than this; none: as when the recording began, or never"
FORGET_IMAGES_AFTER = (
    "remove images this long after they were stored, and keep the rest of their messages; 0s: never store them; "
    "none: as when the recording began, or never"
)


class RecordSettings(Group):
    """The settings `[record]`: which messages the worker stores, so that they can be replayed."""

    enabled: bool = Field(
        default=False, description="store every message before its rows are written; all workers share one recording"
    )
    root: Location = Field(
        default="runs/recording",
        description="folder of the recording",
        json_schema_extra={"expected": "a folder or s3://BUCKET/PREFIX", "metavar": "FOLDER"},
    )
    streams: StreamPatterns | None = Field(
        default=None, description="store only these streams; none: all", json_schema_extra=STREAMS_SCHEMA
    )
    keep: Duration | None = Field(default=None, description=KEEP, json_schema_extra=DURATION_SCHEMA)
    forget_images_after: Duration | None = Field(
        default=None, description=FORGET_IMAGES_AFTER, json_schema_extra=DURATION_SCHEMA
    )
    inflight_mib: int = Field(
        default=256, ge=16, le=2**20, description="MiB of messages that may wait to be stored; above, polling pauses"
    )
