"""Estimates of accuracy without labels are what they say, and wrong the way they say."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pytest
import torch

from adawise.adapt.objective import entropy
from adawise.card.calibration import fit_threshold
from adawise.card.card import Card, FewThreshold, make_card
from adawise.labels.benefit.estimate import Among, estimate_benefit, estimates
from adawise.labels.join import Labels
from tests.drift.answers import World, connected, named

WORLD = World(batches=250)
ALPHAS = (0.0, 0.5, 1.0)


def logits(alpha: int, *, shift: float = 1.0) -> torch.Tensor:
    """Of as many images as the world has rows: `shift` scales how far the true class stands out, not how sure it is."""
    rng = np.random.default_rng(alpha)
    z = rng.normal(0.0, 2.0, (WORLD.rows, 3))
    z[np.arange(WORLD.rows), WORLD.truth()] += 3.0 * shift
    return torch.tensor(z)


@pytest.fixture(scope="module")
def card() -> Card:
    return make_card(
        logits, torch.tensor(WORLD.truth()), alphas=ALPHAS, identity={}, created_at="2026-06-01T00:00:00+00:00"
    )


def served(z: torch.Tensor, temperature: float) -> dict[str, Any]:
    """What a worker writes of images with these logits."""
    p = (z / temperature).softmax(dim=-1)
    return {
        "label": named(p.argmax(dim=-1).numpy()),
        "confidence": p.max(dim=-1).values.numpy(),
        "entropy": entropy(z, temperature),
    }


def found(card: Card | None, alpha: int = 1, shift: float = 1.0, **more: Any) -> tuple[dict[str, float], float]:
    """The estimates by name, and the true accuracy."""
    z = logits(alpha, shift=shift)
    temperature = card.temperature[alpha] if card else 1.0
    rows = WORLD.table(**served(z, temperature), alpha=np.full(WORLD.rows, ALPHAS[alpha]), **more)
    with closing(connected(rows)) as connection:
        values, accepted = estimates(connection, card)
    assert accepted == WORLD.rows
    return {each.name: each.value for each in values}, float((z.argmax(dim=-1).numpy() == WORLD.truth()).mean())


def test_on_the_cards_own_images_every_estimate_of_the_card_is_the_truth(card: Card) -> None:
    values, accuracy = found(card)
    assert values["ATC"] == pytest.approx(accuracy, abs=0.002)
    assert values["as on the card"] == pytest.approx(accuracy)


def test_under_a_shift_the_estimates_are_too_high_as_they_say(card: Card) -> None:
    values, accuracy = found(card, shift=0.3)
    assert accuracy < values["as on the card"] - 0.2
    assert values["ATC"] > accuracy + 0.05
    assert values["ATC"] < values["as on the card"]


def test_thresholds_are_of_the_alpha_that_served(card: Card) -> None:
    assert len({fit_threshold(entropy(logits(j), card.temperature[j]), card.accuracy[j]) for j in range(3)}) == 3
    for alpha in range(3):
        values, accuracy = found(card, alpha=alpha)
        assert values["ATC"] == pytest.approx(accuracy, abs=0.002)


def test_rejected_images_count_for_nothing_and_without_a_card_there_is_no_estimate(card: Card) -> None:
    status = ["rejected"] * WORLD.rows
    with closing(connected(WORLD.table(status=status))) as connection:
        assert estimates(connection, card) == ((), 0)
    with closing(connected(WORLD.table())) as connection:
        assert estimates(connection, None) == ((), WORLD.rows)


LISTED = """
SELECT topic, partition, stream_id, batch_number, min("offset") AS first_offset, max("offset") AS last_offset,
       CASE WHEN batch_number % 4 = 0 THEN 'two' ELSE 'other' END AS shortlist
FROM predictions WHERE batch_number % 2 = 0 GROUP BY ALL
"""


def test_images_that_were_served_among_a_shortlist_count_by_thresholds_for_as_few_classes_or_not_at_all(
    card: Card,
) -> None:
    rows = WORLD.table(**served(logits(1), card.temperature[1]), alpha=np.full(WORLD.rows, ALPHAS[1]))
    known = replace(card, among_few=(FewThreshold(2, (0.1, 0.2, 0.3)),))

    def share(connection: duckdb.DuckDBPyConnection, threshold: float, batches: str) -> tuple[float, int]:
        below, images = connection.execute(
            f"SELECT sum((entropy <= {threshold})::INTEGER), count(*) FROM predictions WHERE {batches}"
        ).fetchall()[0]
        return below, images

    with closing(connected(rows)) as connection:
        plain, right = share(connection, card.threshold[1], "batch_number % 2 = 1")
        of_two, two = share(connection, 0.2, "batch_number % 4 = 0")
        among = Among(LISTED, {"two": 2, "many": 3}, 3)
        for one, below, images in ((card, plain, right), (known, plain + of_two, right + two)):
            values, accepted = estimates(connection, one, among)
            assert accepted == WORLD.rows
            assert {each.name: each.value for each in values}["ATC"] == pytest.approx(below / images)
            assert ("threshold for as many classes" in values[0].how) == (one is known)
            found = estimate_benefit(connection, Labels("", 0, ()), (), one, among)
            assert found.notes[0].startswith(f"{WORLD.rows - images} of {WORLD.rows} images were served among a short")
        assert estimate_benefit(connection, Labels("", 0, ()), (), None, among).notes == ()
