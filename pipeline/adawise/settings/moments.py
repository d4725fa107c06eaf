"""Parsing of points in time, for settings and flags: a timestamp with its time zone, or a duration before now."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, JsonValue

TIMESTAMP_EXPECTED = "a timestamp such as 2026-11-25T08:00:00Z"
MOMENT_EXPECTED = f"{TIMESTAMP_EXPECTED}, or 90s, 30m, 12h or 7d for that long ago"

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoMoment(ValueError):
    """Text that is not a valid point in time; `reason` says what is wrong with it."""

    def __init__(self, expected: str, text: str, reason: str) -> None:
        super().__init__(f"expected {expected}, got {text!r}: {reason}")
        self.reason = reason


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp with a time zone; the result is in UTC.

    Raises:
        NoMoment: it is no timestamp, has no time zone, or lies before 1970, where Kafka's time begins.
    """
    return _timestamp(text, TIMESTAMP_EXPECTED)


def parse_moment(text: str) -> datetime:
    """Parse a timestamp with a time zone, or a duration before now (90s, 30m, 12h, 7d); the result is in UTC.

    Raises:
        NoMoment: as by `parse_timestamp`.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is None:
        return _timestamp(text, MOMENT_EXPECTED)
    try:
        return _from_1970(datetime.now(UTC) - timedelta(seconds=int(ago[1]) * SECONDS[ago[2]]))
    except (ValueError, OverflowError) as error:
        raise NoMoment(MOMENT_EXPECTED, text, "that was before 1970") from error


def _timestamp(text: str, expected: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise NoMoment(expected, text, "it cannot be read") from error
    if moment.tzinfo is None:
        raise NoMoment(expected, text, "it has no time zone; add Z or an offset such as +02:00")
    try:
        return _from_1970(moment.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise NoMoment(expected, text, "it is before 1970 or after 9999") from error


def _from_1970(moment: datetime) -> datetime:
    if moment < _EPOCH:
        raise ValueError(moment)
    return moment


def milliseconds(moment: datetime) -> int:
    """Return the milliseconds since the epoch, as Kafka counts time."""
    return round(moment.timestamp() * 1000)


def _moment(value: object) -> datetime:
    text = value.isoformat() if isinstance(value, date) else value  # TOML parses timestamps into `datetime` objects
    if not isinstance(text, str):
        raise ValueError("it is not text")
    try:
        return parse_moment(text)
    except NoMoment as error:  # only the reason: a `Mistake` adds what was expected
        raise ValueError(error.reason) from error


Moment = Annotated[datetime, BeforeValidator(_moment)]
"""The type of a field that is parsed by `parse_moment`; its values are timezone-aware, in UTC.

Its Field needs json_schema_extra=MOMENT_SCHEMA, for the help and for messages about mistakes.
"""

MOMENT_SCHEMA: dict[str, JsonValue] = {"metavar": "TIME", "expected": MOMENT_EXPECTED}
