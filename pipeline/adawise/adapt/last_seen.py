"""Readers of a few parts of a serialised state: when its stream was last seen, its conditions, its batches.

Reading a whole state (`adapt.state`) decodes and checks all of its arrays, which takes longer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from adawise.adapt.names import GRID
from adawise.errors import ChainError

Kind = TypeVar("Kind")

UNREADABLE = (ValueError, KeyError, TypeError, RecursionError)
"""The exceptions that reading bytes which are not a state may raise."""


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The time at which a stream was last seen, in milliseconds; `adawise.worker.stream_states` uses it.

    Attributes:
        last_ms: Kafka timestamp of the last image of the last batch; -1 if that has none.
        clock_ms: the same moment on the partition's clock.
        at_ms: the partition's clock when the batch was served.
    """

    last_ms: int
    clock_ms: int
    at_ms: int

    def last_seen_s(self, until_s: float) -> float | None:
        """Unix time of the last image by its Kafka timestamp, at the latest `until_s`; None if it has none.

        The partition's clock does not say it: where half of the streams are gone, that clock does not move.
        """
        return None if self.last_ms < 0 else min(until_s, self.last_ms / 1e3)


def last_seen_in(data: bytes) -> LastSeen | None:
    """Return when the stream was last seen, from its serialised state; None if that does not say.

    Raises:
        ChainError: the state cannot be read.
    """
    try:
        return last_seen_of(json.loads(data))
    except UNREADABLE as error:
        raise damaged(error) from error


@dataclass(frozen=True, slots=True)
class KeptCondition:
    """A condition as a state has it: its number, the visits to it, and the alpha of its last batch.

    `alpha` is None if its index is not one of the grid.
    """

    number: int
    visits: int
    alpha: float | None


@dataclass(frozen=True, slots=True)
class StateOutline:
    """The parts of a state that are read without its arrays.

    Attributes:
        last_seen: as `last_seen_in` returns it.
        condition: the condition that the stream is in; None if the state knows no conditions.
        conditions: the number of all conditions so far.
        left: the other conditions that it remembers, in the order in which they ended.
    """

    last_seen: LastSeen | None
    condition: KeptCondition | None = None
    conditions: int = 0
    left: tuple[KeptCondition, ...] = ()


def outline_in(data: bytes) -> StateOutline:
    """Return the outline of a serialised state.

    Raises:
        ChainError: the state cannot be read.
    """
    try:
        parts = of_kind(dict, json.loads(data))
        last_seen = last_seen_of(parts)
        if parts.get("conditions") is None:
            return StateOutline(last_seen)
        number, visits, conditions, known = parts["conditions"]
        current = _condition(number, visits, parts["alpha_index"])
        left = tuple(_condition(number, visits, index) for number, visits, _, _, index, _ in known)
        return StateOutline(last_seen, current, of_kind(int, conditions), left)
    except UNREADABLE as error:
        raise damaged(error) from error


def _condition(number: Any, visits: Any, alpha_index: Any) -> KeptCondition:
    index = of_kind(int, alpha_index)
    return KeptCondition(of_kind(int, number), of_kind(int, visits), GRID[index] if 0 <= index < len(GRID) else None)


def batches_in(data: bytes) -> int:
    """Return how many batches led to a serialised state.

    Raises:
        ChainError: the state cannot be read.
    """
    try:
        return of_kind(int, json.loads(data)["batches"])
    except UNREADABLE as error:
        raise damaged(error) from error


def damaged(error: Exception) -> ChainError:
    """Return the error for a state that cannot be read."""
    return ChainError(f"adaptation state: not readable ({error!r}). The segment is damaged: restore it from a copy.")


def last_seen_of(parts: Any) -> LastSeen | None:
    """Return when the stream was last seen, from a parsed state; None if that does not say.

    Raises:
        Exception: one of `UNREADABLE`, if the parts are not those of a state.
    """
    if "heard" not in parts:
        return None
    last_ms, clock_ms, at_ms = parts["heard"]
    return LastSeen(of_kind(int, last_ms), of_kind(int, clock_ms), of_kind(int, at_ms))


def of_kind(kind: type[Kind], value: Any) -> Kind:
    """Return the value if it is of exactly this type, so that a bool is no int; raise TypeError otherwise."""
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value
