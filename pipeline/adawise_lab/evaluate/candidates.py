"""The candidates of a comparison: a strategy, its options and an objective, written as `warm:budget=3,every=16@atc`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from adawise.adapt.objective import DEFAULT, NO_CARD, Objective
from adawise.adapt.objective import NAMES as OBJECTIVES
from adawise.adapt.search import Strategy
from adawise.adapt.strategies import NAMES as STRATEGIES
from adawise.adapt.strategies import strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.card.advice import AUTO, advised_alpha, chosen
from adawise.card.card import Card
from adawise.errors import SettingsError

_FROM_0 = ("conditions", "min_images")  # whole numbers from 0 on; the others start at 1
_SHARES = ("alpha", "hazard", "drifting", "disagreement")
_OF_THE_PAIR = ("tail_share",)  # follows from the weights; the card has it
PRICES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)  # nats: the one setting of `warm` that trades forwards for regret
SLOW = ("botorch",)  # fits a model for each batch, hundreds of milliseconds; runs only if named


@dataclass(frozen=True)
class Candidate:
    """A strategy by name, its first (or fixed) alpha, how it explores, and an objective by name.

    Attributes:
        label: the text of the entry, without the objective.
        strategy: a strategy's name; may be `auto` until `resolved`.
        objective: an objective's name; may be `auto` until `resolved`.
        alpha: the first alpha of a stream, or the only one.
        exploration: how the strategy explores.
        curve: the name of the candidate whose price this one varies (its own for that candidate); "" outside `--curve`.
    """

    label: str
    strategy: str
    objective: str
    alpha: float
    exploration: Exploration
    curve: str = ""

    @property
    def name(self) -> str:
        """The name in results; the objective is left out if it is the default."""
        return self.label if self.objective == DEFAULT else f"{self.label}@{self.objective}"

    def build(self, alphas: tuple[float, ...], objective: Objective, card: Card | None) -> Strategy:
        """Return the strategy on this grid with this objective, and with what the pair's card knows."""
        return strategy(
            self.strategy,
            alphas=alphas,
            objective=objective,
            context=f"{self.objective}@evaluate",
            alpha=self.alpha,
            exploration=replace(self.exploration, tail_share=1.0 if card is None else card.tail_share),
            fitted=None if card is None else card.surrogate(self.objective),
            trusted=card is not None and card.trusts(self.objective),
        )


def objective_named(name: str, card: Card | None) -> Objective:
    """Return the objective of that name.

    Raises:
        SettingsError: the objective needs a card, and there is none.
    """
    if card is not None:
        return card.objective(name)
    if name not in NO_CARD:
        raise SettingsError(f"objective {name} needs a card: name a labelled table with --calibrate, or set model.card")
    return NO_CARD[name]


def parse(text: str, *, objective: str, alpha: float, exploration: Exploration) -> tuple[Candidate, ...]:
    """Parse a list `NAME[:OPTION=VALUE,...][@OBJECTIVE],...`; the keyword arguments are the defaults of each entry.

    Raises:
        SettingsError: an unknown strategy, option or objective, a value of the wrong type or range, or a name given
            twice.
    """
    default = Candidate("", "", objective, alpha, exploration)
    candidates = tuple(_candidate(entry, default) for entry in _entries(text))
    _each_once(candidates, text)
    return candidates


def resolved(candidates: Sequence[Candidate], card: Card | None) -> tuple[Candidate, ...]:
    """Return the candidates with `auto` replaced by the strategy and the objective that the card advises.

    Raises:
        SettingsError: a candidate is named twice, once as `auto` and once by its own name.
    """
    named = tuple(_meant(candidate, card) for candidate in candidates)
    _each_once(named, ",".join(candidate.name for candidate in candidates))
    return named


def at_every_price(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates, and the first one that is `warm` also at each of `PRICES`.

    Candidates that differ from it by the price alone belong to the same curve.

    Raises:
        SettingsError: no candidate is `warm`.
    """
    one = next((candidate for candidate in candidates if candidate.strategy in ("warm", AUTO)), None)
    if one is None:
        raise SettingsError("--curve: expected warm, whose price it varies, among --strategies. Add it.")

    def priced(price: float, like: Candidate = one) -> Candidate:
        return replace(like, exploration=replace(like.exploration, price=price))

    alike = [c for c in candidates if replace(priced(0.0, c), label=one.label) == priced(0.0)]
    others = sorted(set(PRICES) - {candidate.exploration.price for candidate in alike}, reverse=True)
    name, _, options = one.label.partition(":")
    kept = [part for part in options.split(",") if part and not part.startswith("price=")]
    added = [replace(priced(p), label=f"{name}:{','.join([*kept, f'price={p:g}'])}") for p in others]
    return tuple(replace(c, curve=one.name) if c in alike or c in added else c for c in (*candidates, *added))


def _meant(candidate: Candidate, card: Card | None) -> Candidate:
    named = replace(candidate, objective=chosen(candidate.objective, card))
    if candidate.strategy != AUTO:
        return named
    fixed = advised_alpha(None if card is None else card.verdict)
    return replace(named, strategy="warm") if fixed is None else replace(named, strategy="fixed", alpha=fixed)


def _each_once(candidates: Sequence[Candidate], text: str) -> None:
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise SettingsError(
            f"--strategies {text}: expected each once, got {twice[0] if twice else 'none'}. Correct it."
        )


def every_strategy(*, objective: str, alpha: float, exploration: Exploration) -> tuple[Candidate, ...]:
    """Return each strategy that is not slow, with that objective and default parameters; `warm`, the default, first."""
    names = sorted((name for name in STRATEGIES if name not in SLOW), key=lambda name: (name != "warm", name))
    return parse(",".join(names), objective=objective, alpha=alpha, exploration=exploration)


def _entries(text: str) -> Iterator[str]:
    """Yield the entries of the list. A part such as `every=16` continues the options of the entry before it."""
    entry = ""
    for part in text.split(","):
        if entry and "=" in part and ":" not in part:
            entry += f",{part}"
            continue
        if entry.strip():
            yield entry.strip()
        entry = part
    if entry.strip():
        yield entry.strip()


def _candidate(entry: str, default: Candidate) -> Candidate:
    label, _, objective = entry.partition("@")
    name, _, options = label.partition(":")
    where = f"--strategies {entry}"
    if name not in (strategies := (AUTO, *STRATEGIES)):
        raise SettingsError(f"{where}: there is no strategy {name!r}; expected one of {', '.join(strategies)}.")
    known = (AUTO, *OBJECTIVES)
    if objective and objective not in known:
        raise SettingsError(f"{where}: there is no objective {objective!r}; expected one of {', '.join(known)}.")
    values = _options([part for part in options.split(",") if part], default.exploration, where)
    alpha = float(values.pop("alpha", default.alpha))
    return Candidate(label, name, objective or default.objective, alpha, replace(default.exploration, **values))


def _options(parts: Sequence[str], exploration: Exploration, where: str) -> dict[str, Any]:
    kinds: Mapping[str, type] = {
        "alpha": float,
        **{f.name: _kind(getattr(exploration, f.name)) for f in fields(exploration) if f.name not in _OF_THE_PAIR},
    }
    values: dict[str, Any] = {}
    for part in parts:
        name, _, text = part.partition("=")
        if name not in kinds:
            raise SettingsError(f"{where}: there is no option {name!r}; expected one of {', '.join(kinds)}.")
        try:
            values[name] = _value(kinds[name], text)
        except ValueError as error:
            kind = kinds[name].__name__
            raise SettingsError(
                f"{where}: {name}: expected a value of type {kind}, got {text!r}. Correct it."
            ) from error
        least, most = (0 if kinds[name] is float or name in _FROM_0 else 1), (1 if name in _SHARES else math.inf)
        if not (least <= values[name] <= most and math.isfinite(values[name])) and kinds[name] is not bool:
            expected = f"from {least} to 1" if name in _SHARES else f"from {least} on"
            raise SettingsError(f"{where}: {name}: expected a number {expected}, got {text}. Correct it.")
    return values


def _kind(value: Any) -> type:
    """Return the type of an option's value: an option that is None by default is a number."""
    return float if value is None else type(value)


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text not in {"true", "false"}:
            raise ValueError(text)
        return text == "true"
    return kind(text)
