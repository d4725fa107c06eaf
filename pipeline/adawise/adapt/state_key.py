"""The key of a state: text that ties it to how it was made. A state made under another key starts anew.

A key holds what decides which state the same images would have led to: the strategy, its context (objective, pair,
card), the grid, the alpha at which a stream starts, and the settings by which the strategy probes and learns. It holds
neither the names and the order of classes and fields in the code, nor settings that change the cost only (threads,
chunks, the device).

A new setting gets an entry in `AT_INTRODUCTION`, with the value at which everything behaves as before. At that value it
is not written, so earlier keys stay the same. That value never changes, whatever the default becomes. A constant of the
code that changes the meaning of states gets an entry too. So does a new constant under which earlier states keep their
meaning, with its own value: no camera starts anew now, and all do if it changes. `VERSION` is for changes that no entry
can express; `current_key` then learns to read the keys of the version before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

VERSION = 1
AT_INTRODUCTION: Mapping[str, float] = {
    "budget": 5,
    "images": 8,
    "every": 8,
    "min_images": 8,
    "price": 0.03,
    "first_budget": 1.5,
    "hazard": 0.02,
    "gain_nats": 0.005,
    "gain_sd": 0.5,
    "at_once_nats": 0.03,
    "audit_every": 200,
    "audit_images": 16,
    "disagreement": 0.5,
    "capped": 100,
    "conditions": 16,
    "pixels": 1,
    "drifting": 0.3,
    "alarm": 1,
    "least_share": 0.1,  # earlier states are continued with it
    "lengthscale": 0.7,
    "signal_sd": 0.25,
    "offset_sd": 0.22,
    "persistence": 0.997,
    "tail_share": 1,
}


def state_key(strategy: str, context: str, start: int, alphas: Sequence[float], **settings: float) -> str:
    """Return the key: one line of JSON with sorted names, and `settings` only where they differ from `AT_INTRODUCTION`.

    Args:
        strategy: its name.
        context: the objective, the pair and its card, as text.
        start: index of the alpha that a stream starts at.
        alphas: the grid; written as its length if it is even from 0 to 1.
        settings: by the names of `AT_INTRODUCTION`, which are not those of attributes.

    Raises:
        KeyError: a setting is not in `AT_INTRODUCTION`.
    """
    last = len(alphas) - 1
    is_even = all(alpha == j / last for j, alpha in enumerate(alphas)) if last else False
    return _written(strategy, context, start, len(alphas) if is_even else list(alphas), settings)


def is_of_another_pair(key: str, ours: str) -> bool:
    """Return True if two keys differ in the pair and its card only."""
    try:
        theirs, mine = json.loads(key), json.loads(ours)
        contexts = [str(parts.pop("context")).rpartition("@") for parts in (theirs, mine)]
    except (ValueError, AttributeError, KeyError):
        return False
    return theirs == mine and contexts[0][0] == contexts[1][0] and contexts[0][2] != contexts[1][2]


@lru_cache(maxsize=256)  # the states of a partition have few different keys
def current_key(key: str) -> str:
    """Return the key as this version writes it; a key that no version wrote stays as it is and fits no strategy."""
    for strategy, pattern in _OF_0_1_0.items():
        if match := pattern.fullmatch(key):
            parts = match.groupdict()
            context, start, points = parts.pop("context"), int(parts.pop("start")), int(parts.pop("points", _POINTS))
            try:
                return _written(strategy, context, start, points, {name: float(text) for name, text in parts.items()})
            except ValueError:
                return key
    return key


def _written(strategy: str, context: str, start: int, grid: int | list[float], settings: Mapping[str, float]) -> str:
    named = {name: float(value) for name, value in settings.items() if value != AT_INTRODUCTION[name]}
    fixed = {"version": VERSION, "strategy": strategy, "context": context, "start": start, "alphas": grid}
    return json.dumps({**named, **fixed}, sort_keys=True, separators=(",", ":"))


# Version 0.1.0 wrote STRATEGY/CONTEXT/START/POINTS and values, `warm` the `repr` of two dataclasses. A context may
# have slashes, so the rest is read from the right.
_POINTS = 21  # points of every grid in 0.1.0; keys of `fixed` leave them out
_START, _GRID = r"(?P<context>.*)/(?P<start>[0-9]{1,4})", r"/(?P<points>[0-9]{1,4})"
_POLICY = (
    *("budget", "images", "every", "min_images", "price", "first_budget", "hazard", "gain_nats", "gain_sd"),
    *("at_once_nats", "audit_every", "audit_images", "disagreement", "capped"),
)
_PRIOR = ("lengthscale", "signal_sd", "offset_sd", "persistence")


def _value(name: str) -> str:
    return rf"(?P<{name}>[0-9a-z.+-]{{1,32}})"


def _repr(names: Sequence[str]) -> str:
    return ", ".join(f"{name}={_value(name)}" for name in names)


_OF_0_1_0 = {
    strategy: re.compile(f"{strategy}/{_START}{rest}", re.DOTALL)
    for strategy, rest in {
        "warm": rf"{_GRID}/Exploration\({_repr(_POLICY)}\)/Surrogate\(alphas=\(\), {_repr(_PRIOR)}\)",
        "botorch": f"{_GRID}/{_value('budget')}",
        "scratch": f"{_GRID}/{_value('budget')}/{_value('min_images')}",
        "grid": f"{_GRID}/{_value('min_images')}",
        "fixed": "",
    }.items()
}
