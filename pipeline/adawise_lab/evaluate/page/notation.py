"""Names of references for readers."""

from __future__ import annotations

from adawise_lab.evaluate.references import (
    BATCH_ORACLE,
    BEST_FIXED,
    DOMAIN_ORACLE,
    FINE_TUNED,
    MIDDLE,
    SPLIT_HALF_ORACLE,
    ZERO_SHOT,
)

_SPOKEN = {
    ZERO_SHOT: "zero-shot",
    FINE_TUNED: "fine-tuned",
    MIDDLE: "alpha .5",
    BEST_FIXED: "best fixed",
    DOMAIN_ORACLE: "domain oracle",
    SPLIT_HALF_ORACLE: "split-half oracle",
    BATCH_ORACLE: "batch oracle",
}


def spoken(name: str) -> str:
    """Return the name of a reference for readers; a strategy keeps its name."""
    return _SPOKEN.get(name, name)
