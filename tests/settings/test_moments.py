"""Moments: timestamps with their zone, and so long ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from adawise.settings.moments import Moment, milliseconds, parse_moment, parse_timestamp

EIGHT = datetime(2026, 11, 25, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T08:00:00Z",
        "2026-11-25T10:00:00+02:00",
        "2026-11-25 03:00-05:00",
        "20261125T080000Z",
        " 2026-11-25T08Z ",
    ],
)
def test_a_timestamp_is_the_same_moment_whatever_its_zone(text: str) -> None:
    assert parse_timestamp(text) == parse_moment(text) == EIGHT
    assert parse_moment(text).tzinfo is UTC
    assert milliseconds(parse_moment(text)) == 1_795_593_600_000


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
    ],
)
def test_so_long_ago_is_counted_back_from_now(text: str, ago: timedelta) -> None:
    before = datetime.now(UTC)
    moment = parse_moment(text)
    assert before - ago <= moment <= datetime.now(UTC) - ago
    with pytest.raises(ValueError, match="expected a timestamp such as"):
        parse_timestamp(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "yesterday",
            "expected a timestamp such as 2026-11-25T08:00:00Z, or 90s, .*, got 'yesterday': it cannot be read",
        ),
        ("", "got '': it cannot be read"),
        ("2026-11-25T08:00:00", "has no time zone; add Z"),
        ("2026-11-25", "has no time zone"),
        ("1969-12-31T23:59:59Z", "is before 1970"),
        ("0001-01-01T00:00:00+23:00", "is before 1970"),
        ("9999-12-31T23:59:59-23:00", "after 9999"),
        ("999999d", "that was before 1970"),
        ("90000d", "that was before 1970"),
        ("1.5h", "got '1.5h': it cannot be read"),
        ("-2h", "got '-2h': it cannot be read"),
        ("2 h", "got '2 h': it cannot be read"),
        ("٢h", "cannot be read"),
    ],
)
def test_what_is_no_moment_is_refused_with_what_was_expected(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_moment(text)


@given(st.text(max_size=30))
@example("2026-11-25T24:00Z")
def test_any_text_is_a_moment_of_kafkas_time_or_a_value_error(text: str) -> None:
    try:
        moment = parse_moment(text)
    except ValueError as error:
        moment = None
        output = str(error)
    assert "expected a timestamp" in output if moment is None else milliseconds(moment) >= 0


def test_a_field_of_this_type_takes_text_and_the_timestamps_of_toml() -> None:
    field = TypeAdapter[datetime](Moment)
    assert field.validate_python("2026-11-25T10:00:00+02:00") == EIGHT
    assert field.validate_python(EIGHT) == EIGHT
    for wrong in (EIGHT.replace(tzinfo=None), EIGHT.date(), "8 o'clock", 1_795_593_600, True, None):
        with pytest.raises(ValidationError, match=r"has no time zone|cannot be read|it is not text"):
            field.validate_python(wrong)
