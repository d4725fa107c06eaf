"""Arrays of numbers, runs of equal values, and dataclasses whose fields are arrays of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_Columns = TypeVar("_Columns", bound="DataclassInstance")


def equal_runs(keys: Sequence[Any] | npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Return [start, end) of each run of equal neighbours."""
    starts = [place for place in range(len(keys)) if place == 0 or keys[place] != keys[place - 1]]
    return [*pairwise([*starts, len(keys)])]


def concatenated(parts: Sequence[_Columns]) -> _Columns:
    """Return one after the other, all of whose fields are arrays; of one or more."""
    names = [each.name for each in fields(parts[0])]
    return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def selected(of: _Columns, kept: Flags | Integers | slice) -> _Columns:
    """Return the same of fewer points, or in another order; what is no array stays as it is."""
    values = {each.name: getattr(of, each.name) for each in fields(of)}
    return replace(of, **{name: each[kept] for name, each in values.items() if isinstance(each, np.ndarray)})


def empty(kind: type[_Columns]) -> _Columns:
    """Return a dataclass without points, whose fields are all annotated as `Integers`, `Floats` or `Flags`."""
    kinds = {"Integers": np.int64, "Floats": np.float64, "Flags": np.bool_}
    return kind(**{each.name: np.empty(0, kinds[str(each.type)]) for each in fields(kind)})


def of_columns(kind: type[_Columns], columns: Mapping[str, Any]) -> _Columns:
    """Return a dataclass whose fields are columns of these names; other columns are left out."""
    return kind(**{each.name: columns[each.name] for each in fields(kind)})
