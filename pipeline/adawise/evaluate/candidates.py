"""What is compared: a strategy, its options and an objective, by a short name such as `warm:budget=3,every=16@atc`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from adawise.adapt.advice import AUTO, advised_alpha, chosen
from adawise.adapt.card import Card
from adawise.adapt.objective import DEFAULT, NO_CARD, Objective
from adawise.adapt.objective import NAMES as OBJECTIVES
from adawise.adapt.search import Strategy
from adawise.adapt.strategies import NAMES as STRATEGIES
from adawise.adapt.strategies import strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.errors import SettingsError

_FROM_0 = ("conditions", "min_images")  # whole numbers, of which others are from 1
_SHARES = ("alpha", "hazard", "drifting", "disagreement")
PRICES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)  # nats: the one dial of `warm` between forwards and regret
SLOW = ("botorch",)  # a model is fitted each batch, hundreds of milliseconds each: run when it is named


@dataclass(frozen=True)
class Candidate:
    """A strategy by name, the first (or fixed) `alpha` of a stream, how it explores, and an objective by name.

    `label` is what was written, without the objective. `strategy` and `objective` may be `auto` until `resolved`.
    `curve` names the candidate that this one is at another price, or itself; "" where prices are not compared.
    """

    label: str
    strategy: str
    objective: str
    alpha: float
    exploration: Exploration
    curve: str = ""

    @property
    def name(self) -> str:
        """What it is called in results; the objective is left out where it is the default."""
        return self.label if self.objective == DEFAULT else f"{self.label}@{self.objective}"

    def build(self, alphas: tuple[float, ...], objective: Objective, card: Card | None) -> Strategy:
        """The strategy on that grid with that objective, and with what the pair's card knows."""
        return strategy(
            self.strategy,
            alphas=alphas,
            objective=objective,
            context=f"{self.objective}@evaluate",
            alpha=self.alpha,
            exploration=self.exploration,
            fitted=None if card is None else card.surrogate(self.objective),
            trusted=card is not None and card.trusts(self.objective),
        )


def objective_named(name: str, card: Card | None) -> Objective:
    """The objective of that name.

    Raises:
        SettingsError: it needs a card, and there is none.
    """
    if card is not None:
        return card.objective(name)
    if name not in NO_CARD:
        raise SettingsError(f"objective {name} needs a card: name a labelled table with --calibrate, or set model.card")
    return NO_CARD[name]


def parse(text: str, *, objective: str, alpha: float, exploration: Exploration) -> tuple[Candidate, ...]:
    """The candidates of a list `NAME[:OPTION=VALUE,...][@OBJECTIVE],...`; what an entry leaves out is as given here.

    Raises:
        SettingsError: a strategy, option or objective that does not exist, a value of another kind, or one name twice.
    """
    default = Candidate("", "", objective, alpha, exploration)
    candidates = tuple(_candidate(entry, default) for entry in _entries(text))
    _each_once(candidates, text)
    return candidates


def resolved(candidates: Sequence[Candidate], card: Card | None) -> tuple[Candidate, ...]:
    """The candidates with `auto` replaced by the strategy and the objective that it stands for with this card.

    Raises:
        SettingsError: one was named twice, by that word and by the objective's name.
    """
    named = tuple(_meant(candidate, card) for candidate in candidates)
    _each_once(named, ",".join(candidate.name for candidate in candidates))
    return named


def at_every_price(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates, and the first that is `warm` at each of `PRICES` as well; others that differ by it alone count.

    Raises:
        SettingsError: none is.
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
    """Each strategy that is not slow, with that objective and the default parameters; `warm`, the default, first."""
    names = sorted((name for name in STRATEGIES if name not in SLOW), key=lambda name: (name != "warm", name))
    return parse(",".join(names), objective=objective, alpha=alpha, exploration=exploration)


def _entries(text: str) -> Iterator[str]:
    """The list cut at its commas, where `every=16` alone goes on with the options of the entry before it."""
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
        **{f.name: _kind(getattr(exploration, f.name)) for f in fields(exploration)},
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
    """Of an option: what is not set by default is a number."""
    return float if value is None else type(value)


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text not in {"true", "false"}:
            raise ValueError(text)
        return text == "true"
    return kind(text)
