"""The settings that differ between two runs, as their roots recorded them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adawise.labels.compare.result import SettingDifference
from adawise.sink.served_by import ServedSettings


def differing(a: Sequence[ServedSettings], b: Sequence[ServedSettings]) -> Iterator[SettingDifference]:
    """Yield the settings whose values differ between the runs; none if nothing is known of one run.

    The values of each run are in the order in which they came. A setting that is a hash differs if the hash does,
    wherever its file lies.
    """
    if not a or not b:
        return
    for name in dict.fromkeys(name for each in (*a, *b) for name in each.settings):
        of_a, of_b = ({_key(each, name): _value(each, name) for each in run} for run in (a, b))
        if of_a.keys() != of_b.keys():
            yield SettingDifference(name, tuple(of_a.values()), tuple(of_b.values()))


def _key(each: ServedSettings, name: str) -> str:
    return repr(each.settings.get(name))


def _value(each: ServedSettings, name: str) -> Any:
    value = each.settings.get(name)
    return f"{value} ({each.places[name]})" if value and name in each.places else value
