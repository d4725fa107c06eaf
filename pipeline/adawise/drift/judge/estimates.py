"""Accuracy without labels: estimates, each with how it was made and which way it is known to be wrong."""

from __future__ import annotations

import duckdb

from adawise.adapt.card import Card
from adawise.drift.judge import queries
from adawise.drift.judge.helped import Estimate


def estimates(connection: duckdb.DuckDBPyConnection, card: Card | None) -> tuple[tuple[Estimate, ...], int]:
    """The estimates by the table `predictions`, and how many accepted images it has."""
    by_alpha = connection.execute(queries.CONFIDENT).fetchall()
    accepted = sum(images for _, images, _ in by_alpha)
    if not accepted:
        return (), 0
    confidence = sum(images * mean for _, images, mean in by_alpha) / accepted
    found = [
        Estimate(
            "average confidence",
            confidence,
            "mean probability of the served class; too high where the model is over-confident, as under most shifts",
        )
    ]
    found += _agreement(connection)
    if card is not None:
        found += _thresholded(connection, card)
        found += _as_on_the_card(by_alpha, card)
    return tuple(found), accepted


def _agreement(connection: duckdb.DuckDBPyConnection) -> list[Estimate]:
    images, agree = connection.execute(queries.AGREE).fetchall()[0]
    if not images:
        return []
    how = (
        f"share of {images} images, those on which both were asked, on which zero-shot and fine-tuned agree (arXiv "
        "2106.13799); too high as far as they make the same mistakes, and of images that the search chose"
    )
    return [Estimate("agreement of zero-shot and fine-tuned", agree, how)]


def _thresholded(connection: duckdb.DuckDBPyConnection, card: Card) -> list[Estimate]:
    """Average thresholded confidence, of what was served at the card's temperature."""
    connection.execute("CREATE OR REPLACE TEMP TABLE thresholds (alpha DOUBLE, threshold DOUBLE)")
    rows = [list(pair) for pair in zip(card.alphas, card.threshold, strict=True)]
    connection.executemany("INSERT INTO thresholds VALUES (?, ?)", rows)
    below, images = connection.execute(queries.BELOW).fetchall()[0]
    if not images or below is None:
        return []
    how = (
        "share of images whose entropy is below the card's threshold (ATC, arXiv 2201.04234); right if the workers "
        "served with this card and the shift is a mild one, else rather too high"
    )
    return [Estimate("ATC", below, how)]


def _as_on_the_card(by_alpha: list[tuple[float, int, float]], card: Card) -> list[Estimate]:
    accuracy = dict(zip(card.alphas, card.accuracy, strict=True))
    served = [(accuracy[alpha], images) for alpha, images, _ in by_alpha if alpha in accuracy]
    images = sum(count for _, count in served)
    if not images:
        return []
    how = f"accuracy of the card's {card.images} labelled images at the alphas that served: as if nothing had shifted"
    return [Estimate("as on the card", sum(value * count for value, count in served) / images, how)]
