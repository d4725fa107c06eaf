"""When a stream was last heard and how often, read off its serialised state: what can be known without the method.

Reading a whole state (`adapt.state`) loads torch, which takes seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from adawise.errors import ChainError

Kind = TypeVar("Kind")

UNREADABLE = (ValueError, KeyError, TypeError, RecursionError)
"""What reading something that is no state raises."""


@dataclass(frozen=True, slots=True)
class Heard:
    """When a stream was last heard, in milliseconds; `adawise.worker.expiry` says what it is for.

    `last_ms`: Kafka timestamp of the last image of its last batch, -1 if that has none. `clock_ms`: the same on the
    partition's clock. `at_ms`: what the partition's clock showed then.
    """

    last_ms: int
    clock_ms: int
    at_ms: int

    def last_seen_s(self, until_s: float) -> float | None:
        """Unix time of the last image by its Kafka timestamp, at the latest `until_s`; None if it has none.

        The partition's clock does not say it: where half of the streams are gone, that clock stands.
        """
        return None if self.last_ms < 0 else min(until_s, self.last_ms / 1e3)


def heard_in(data: bytes) -> Heard | None:
    """When the stream was last heard, by its serialised state; None if that does not say. Raises ChainError."""
    try:
        return heard_of(json.loads(data))
    except UNREADABLE as error:
        raise damaged(error) from error


def condition_in(data: bytes) -> tuple[Heard | None, int | None, int]:
    """As `heard_in`, with the number of the condition that the stream is in, and how often it came back into it.

    None and 0 where the state knows none. Raises ChainError.
    """
    try:
        parts = of_kind(dict, json.loads(data))
        number, visits, *_ = parts.get("conditions") or (None, 1)
        return heard_of(parts), None if number is None else of_kind(int, number), of_kind(int, visits) - 1
    except UNREADABLE as error:
        raise damaged(error) from error


def batches_in(data: bytes) -> int:
    """How many batches led to a serialised state. Raises ChainError."""
    try:
        return of_kind(int, json.loads(data)["batches"])
    except UNREADABLE as error:
        raise damaged(error) from error


def damaged(error: Exception) -> ChainError:
    """The error for a state that cannot be read."""
    return ChainError(f"adaptation state: not readable ({error!r}). The segment is damaged: restore it from a copy.")


def heard_of(parts: Any) -> Heard | None:
    """Of a state that was parsed. Raises one of UNREADABLE."""
    if "heard" not in parts:
        return None
    last_ms, clock_ms, at_ms = parts["heard"]
    return Heard(of_kind(int, last_ms), of_kind(int, clock_ms), of_kind(int, at_ms))


def of_kind(kind: type[Kind], value: Any) -> Kind:
    """The value, if it is of exactly this type. Raises TypeError."""
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value
