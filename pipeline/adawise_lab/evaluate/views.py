"""Views: a view has all rows of one kind and order of streams. Everything on the page is about a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from adawise.card.advice import AUTO
from adawise.text import two
from adawise_lab.evaluate.references import (
    BATCH_ORACLE,
    BEST_FIXED,
    DOMAIN_ORACLE,
    FINE_TUNED,
    MIDDLE,
    SPLIT_HALF_ORACLE,
    ZERO_SHOT,
)
from adawise_lab.evaluate.result import Difference, ListFigures, Result, Row, SceneFigures

DEFAULT = "warm"
_HEADLINE = ("long", "iid")
_DISPLAY_NAMES = {
    ZERO_SHOT: "zero-shot",
    FINE_TUNED: "fine-tuned",
    MIDDLE: "alpha .5",
    BEST_FIXED: "best fixed",
    DOMAIN_ORACLE: "domain oracle",
    SPLIT_HALF_ORACLE: "split-half oracle",
    BATCH_ORACLE: "batch oracle",
}


@dataclass(frozen=True)
class View:
    """All rows of one kind and order of streams.

    Attributes:
        stream: the kind of stream.
        order: the order of a domain's images.
        rows: the rows.
        served_name: the strategy that the page is about.
        tail_share: what an image costs at a second alpha, as a share of a forward.
    """

    stream: str
    order: str
    rows: tuple[Row, ...]
    served_name: str
    tail_share: float = 1.0

    @property
    def shares_layers(self) -> bool:
        """True if the two models share layers, so that forward cost and FE differ."""
        return self.tail_share < 1.0

    def cost(self, row: Row) -> str:
        """Return what a row costs: its FE, and the whole forwards that these take if they are fewer."""
        return f"{two(row.fe)} FE" + (f" ({two(row.forward_cost)} forwards)" if self.shares_layers else "")

    @property
    def name(self) -> str:
        """The name, such as long/iid."""
        return f"{self.stream}/{self.order}"

    @property
    def anchor(self) -> str:
        """The anchor, such as long-iid; it needs no escaping, as both parts come from fixed lists."""
        return f"{self.stream}-{self.order}"

    @cached_property
    def strategies(self) -> tuple[Row, ...]:
        """The strategies, which see no labels; of one that ran at several prices, only the row at the set price."""
        return tuple(row for row in self.rows if not row.reference and not row.is_other_price)

    @cached_property
    def scenes(self) -> tuple[tuple[Row, SceneFigures], ...]:
        """The strategies beside which a class prior ran, with its figures."""
        return tuple((row, row.scene) for row in self.strategies if row.scene is not None)

    @cached_property
    def listed(self) -> tuple[tuple[Row, ListFigures], ...]:
        """The strategies that cameras with shortlists have, with what these bring."""
        return tuple((row, row.listed) for row in self.strategies if row.listed is not None)

    @cached_property
    def prices(self) -> tuple[Row, ...]:
        """The rows of `warm` at each price, highest first; empty if prices were not compared."""
        return tuple(sorted((row for row in self.rows if row.price is not None), key=lambda row: -(row.price or 0.0)))

    @cached_property
    def references(self) -> tuple[Row, ...]:
        """The fixed alphas and oracles."""
        return tuple(row for row in self.rows if row.reference)

    @property
    def served(self) -> Row:
        """The row of the strategy that the page is about."""
        return next(row for row in self.strategies if row.strategy == self.served_name)

    def reference(self, name: str) -> Row:
        """Return a reference by name."""
        return next(row for row in self.references if row.strategy == name)

    @property
    def better_endpoint(self) -> Row:
        """The row of zero-shot or fine-tuned, whichever is more accurate here."""
        return max((self.reference(ZERO_SHOT), self.reference(FINE_TUNED)), key=lambda row: row.accuracy)

    @property
    def over_best_fixed(self) -> Difference:
        """The served accuracy minus that of the best fixed alpha in hindsight."""
        return self.served.versus[BEST_FIXED]

    @property
    def over_better_endpoint(self) -> Difference:
        """The served accuracy minus that of the better endpoint."""
        return self.served.versus[self.better_endpoint.strategy]


def views(result: Result) -> tuple[View, ...]:
    """Return the views in the order of the result's rows."""
    served = _served_name([row.strategy for row in result.rows if not row.reference])
    keys = dict.fromkeys((row.stream, row.order) for row in result.rows)
    return tuple(
        View(*key, tuple(r for r in result.rows if (r.stream, r.order) == key), served, result.tail_share)
        for key in keys
    )


def headline(among: Sequence[View]) -> View:
    """Return the view to mention where there is room for one: long/iid, else the first."""
    return next((view for view in among if (view.stream, view.order) == _HEADLINE), among[0])


def is_better(difference: Difference) -> bool:
    """Return True if the whole interval lies above 0."""
    return difference.ci[0] > 0.0


def is_worse(difference: Difference) -> bool:
    """Return True if the whole interval lies below 0."""
    return difference.ci[1] < 0.0


def _served_name(strategies: Sequence[str]) -> str:
    """Return the strategy that the page is about.

    It is the one that a worker would run (`auto`), else `warm` as it is, else a variant of `warm`, else the first.
    """
    auto = [name for name in strategies if name.partition("@")[0] == AUTO]
    plain = [name for name in strategies if name.partition("@")[0] == DEFAULT]
    variants = [name for name in strategies if name.partition("@")[0].partition(":")[0] == DEFAULT]
    return [*auto, *plain, *variants, *strategies][0]


def display_name(name: str) -> str:
    """Return the name of a reference for readers; a strategy keeps its name."""
    return _DISPLAY_NAMES.get(name, name)
