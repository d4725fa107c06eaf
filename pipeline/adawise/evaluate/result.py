"""The result of an evaluation: one row for each strategy or reference, kind and order of streams, and what is known of
the domains by themselves. `as_json` is the object that `adawise evaluate --json` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Accuracy of a row less that of another on the same images, with its 95 % interval."""

    difference: float
    ci: Interval


@dataclass(frozen=True)
class GroupRow:
    """Accuracy over the domains of one group, equally weighted, and less each reference on the same images."""

    accuracy: float
    fe: float
    versus: Mapping[str, float]


@dataclass(frozen=True)
class ToldShare:
    """What a strategy gains over `base` (`warm` without pixels) as a `share` of `worth`, which being told gains.

    In mean accuracy by the domains' curves (see `told`). No `share` where `worth` is not shown to be above 0.
    """

    base: str
    worth: Difference
    share: float | None
    ci: Interval | None


@dataclass(frozen=True)
class Row:
    """One strategy (or reference) on one kind and order of streams, all seeds together.

    Accuracies, `ece` and `nll` are means over domains, equally weighted; `fe` is forwards per image. `ece_pooled` is
    over all images as one. `worst_domain_gap` is accuracy less that of the better of zero-shot and fine-tuned, on the
    domain where that is least. `versus` holds the references by name. `pinned` is the share of batches at an endpoint.
    `lag_batches` and `path_error` (mean distance in alpha) are against the best alpha of each mixture, on `smooth`
    streams only. `domains` is accuracy by domain, `triggers` and `resets` count batches.

    Where prices are compared (`--curve`), `price` is that of a row of `warm`, and `over_set` the accuracy less that of
    the row whose price is set, which has none. `way` is by the reference that is told the condition, on streams of
    conditions that come back.
    """

    strategy: str
    reference: bool
    stream: str
    order: str
    accuracy: float
    accuracy_ci: Interval
    fe: float
    ece: float
    ece_pooled: float
    nll: float
    worst_domain_gap: float
    worst_domain: str
    versus: Mapping[str, Difference]
    groups: Mapping[str, GroupRow]
    domains: Mapping[str, float]
    batches: int
    images: int
    seeds: int
    alpha: float | None = None  # mean over batches
    pinned: float | None = None
    lag_batches: float | None = None
    path_error: float | None = None
    triggers: Mapping[str, int] = field(default_factory=dict)
    resets: Mapping[str, int] = field(default_factory=dict)
    price: float | None = None
    over_set: Difference | None = None
    way: Mapping[str, ToldShare] = field(default_factory=dict)

    @property
    def is_other_price(self) -> bool:
        """A point of the curve that is no strategy of its own."""
        return self.price is not None and self.over_set is not None


@dataclass(frozen=True)
class DomainFacts:
    """A domain by itself: accuracy at every fixed alpha, the best of them, and what each objective would choose.

    `split_half` is the accuracy at the alpha that is best on the other half of the images; `choices` maps an objective
    to (alpha, accuracy) at its lowest mean over all images.
    """

    group: str
    images: int
    classes: int
    accuracy: tuple[float, ...]
    best_alpha: float
    best_accuracy: float
    split_half: float
    choices: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class PathRow:
    """One batch of one run: what was served and why. `domain` is "" where a batch mixes several.

    `best_alpha` is that of the mixture on a `smooth` stream.
    """

    strategy: str
    stream: str
    order: str
    seed: int
    number: int  # of the stream, where a kind has several
    batch: int
    domain: str
    alpha: float
    forward_equivalents: float
    trigger: str
    reset: str | None
    best_alpha: float | None = None


@dataclass(frozen=True)
class Result:
    """All of it. `best_fixed` is (alpha, accuracy), in hindsight, over the domains as they are, not over streams."""

    alphas: tuple[float, ...]
    rows: tuple[Row, ...]
    domains: Mapping[str, DomainFacts]
    best_fixed: tuple[float, float]
    oracle: float
    split_half_oracle: float
    calibration: str  # what the temperatures come from
    seeds: int
    batch: int
    paths: tuple[PathRow, ...]

    def as_json(self) -> dict[str, Any]:
        """Without the paths, which are as long as the streams."""
        return {
            "format": FORMAT,
            "rows": [asdict(row) for row in self.rows],
            "best_fixed": {"alpha": self.best_fixed[0], "accuracy": self.best_fixed[1]},
            "oracle": self.oracle,
            "split_half_oracle": self.split_half_oracle,
            "domains": {name: asdict(facts) for name, facts in self.domains.items()},
            "alphas": self.alphas,
            "calibration": self.calibration,
            "seeds": self.seeds,
            "batch": self.batch,
        }
