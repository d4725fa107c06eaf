"""Known events: maintenance windows, and what is dealt with already. They are reported, but raise no alarm."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from adawise.errors import SettingsError
from adawise.store.files import read_bytes
from adawise_drift.changes.times import UTC_CLOCKS, Clocks, time_zone, utc
from adawise_drift.events.measures import MEASURES
from adawise_drift.events.result import Cause, DriftEvent

_NAMES = (*MEASURES, "mix", "model")


def _measure(name: str) -> str:
    if name not in _NAMES:
        raise ValueError(f"expected one of {', '.join(_NAMES)}")
    return name


def _zone(name: str) -> str:
    time_zone(name)
    return name


class KnownSpan(BaseModel):
    """A `[[known]]` of the file: of these cameras (globs) and measures, none: all, what begins in this time is known.

    The time is from `since` to `until`, or every day from the first to the second time of `daily` by the clocks of
    `time_zone`, none: of those beside the camera, over midnight if the second is the earlier one, or both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    why: Annotated[str, Field(min_length=1)]
    streams: tuple[str, ...] = ("*",)
    measures: tuple[Annotated[str, AfterValidator(_measure)], ...] = _NAMES
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    daily: tuple[time, time] | None = None
    time_zone: Annotated[str, AfterValidator(_zone)] | None = None

    @model_validator(mode="after")
    def _is_some_time(self) -> Self:
        if self.since is None and self.daily is None:
            raise ValueError("expected since, or daily, or both")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("expected since before until")
        return self

    def has(self, event: DriftEvent, zone: tzinfo = UTC) -> bool:
        """Return whether an event is known: of such a camera and measure, and begun in the time."""
        if event.measure not in self.measures or not any(fnmatchcase(event.stream_id, glob) for glob in self.streams):
            return False
        first, last = (utc(us) for us in (event.earliest_us, max(event.latest_us, event.since_us)))
        if self.since is not None and last < self.since:
            return False
        if self.until is not None and first > self.until:
            return False
        return self.daily is None or self._is_daily(utc(event.since_us), zone)

    def _is_daily(self, at: datetime, zone: tzinfo) -> bool:
        assert self.daily is not None
        begin, end = self.daily
        clock = at.astimezone(zone if self.time_zone is None else time_zone(self.time_zone)).time()
        return begin <= clock <= end if begin <= end else clock >= begin or clock <= end


class _KnownFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    known: tuple[KnownSpan, ...] = ()


def read_known(path: Path) -> tuple[KnownSpan, ...]:
    """Return the spans of a file. Raises SettingsError if it cannot be read or understood."""
    try:
        return _KnownFile.model_validate(tomllib.loads(read_bytes(path).decode())).known
    except OSError as error:
        raise SettingsError(f"--known {path}: cannot be read ({error.strerror or error}); correct the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--known {path}: expected TOML with [[known]] tables: {error}; correct the file"
        ) from error
    except ValidationError as error:
        wrong = "; ".join(f"{_place(each['loc'])}: {each['msg']}" for each in error.errors(include_url=False))
        raise SettingsError(f"--known {path}: {wrong}; correct the file") from error


def _place(where: Sequence[str | int]) -> str:
    """Return a place in the file as known 2, since: entries are counted from 1."""
    return ", ".join(str(part + 1) if isinstance(part, int) else part for part in where).replace("known, ", "known ")


def with_known(
    events: Sequence[DriftEvent], known: Sequence[KnownSpan], clocks: Clocks = UTC_CLOCKS
) -> list[DriftEvent]:
    """Return the events; those that are known are only noted, and why is their first cause."""
    kept = []
    for event in events:
        why = next((span.why for span in known if span.has(event, clocks.at(event.stream_id))), None)
        if why is not None:
            event = replace(event, severity="noted", causes=(Cause("known", f"known: {why}"), *event.causes))
        kept.append(event)
    return kept
