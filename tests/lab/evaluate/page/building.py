"""Rows and views made by hand, so that a test says what the numbers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adawise_lab.evaluate.references import BEST_FIXED, DOMAIN_ORACLE, FINE_TUNED, MIDDLE, SPLIT_HALF_ORACLE, ZERO_SHOT
from adawise_lab.evaluate.result import Difference, GroupRow, Row
from adawise_lab.evaluate.views import View

ACCURACIES = {
    ZERO_SHOT: 0.60,
    FINE_TUNED: 0.50,
    MIDDLE: 0.62,
    BEST_FIXED: 0.63,
    DOMAIN_ORACLE: 0.68,
    SPLIT_HALF_ORACLE: 0.67,
}


def a_row(name: str, accuracy: float, **fields: Any) -> Row:
    known: dict[str, Any] = {
        "strategy": name,
        "reference": False,
        "stream": "long",
        "order": "iid",
        "accuracy": accuracy,
        "accuracy_ci": (accuracy - 0.02, accuracy + 0.02),
        "fe": 1.0,
        "forward_cost": fields.get("fe", 1.0),
        "ece": 0.05,
        "ece_pooled": 0.04,
        "nll": 1.0,
        "worst_domain_gap": -0.01,
        "worst_domain": "new_a",
        "versus": {},
        "groups": {"all": GroupRow(accuracy, 1.0, 1.0, {BEST_FIXED: accuracy - ACCURACIES[BEST_FIXED]})},
        "domains": {"known_a": accuracy, "new_a": accuracy},
        "batches": 100,
        "images": 3200,
        "seeds": 1,
    }
    return Row(**{**known, **fields})


def over(difference: float, half: float = 0.01) -> Difference:
    return Difference(difference, (difference - half, difference + half))


def a_view(
    difference: float = 0.02, *, stream: str = "long", order: str = "iid", others: tuple[Row, ...] = (), **served: Any
) -> View:
    """`warm` on one kind of stream, so much above the best fixed alpha (of .63), ± one point."""
    accuracy = ACCURACIES[BEST_FIXED] + difference
    versus: Mapping[str, Difference] = {name: over(accuracy - other) for name, other in ACCURACIES.items()}
    references = [a_row(name, value, reference=True, alpha=0.4) for name, value in ACCURACIES.items()]
    warm = a_row("warm", accuracy, **{"fe": 1.2, "versus": versus, **served})
    return View(stream, order, (warm, *others, *references), "warm")
