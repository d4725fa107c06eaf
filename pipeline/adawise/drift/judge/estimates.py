"""Accuracy without labels, by what the card knows: each with how it was made and which way it is known to be wrong."""

from __future__ import annotations

import duckdb

from adawise.adapt.card import Card
from adawise.drift.judge import queries
from adawise.drift.judge.helped import Estimate


def estimates(connection: duckdb.DuckDBPyConnection, card: Card | None) -> tuple[tuple[Estimate, ...], int]:
    """The estimates by the table `predictions`, and how many accepted images it has."""
    by_alpha = connection.execute(queries.SERVED_AT).fetchall()
    accepted = sum(images for _, images in by_alpha)
    if card is None or not accepted:
        return (), accepted
    return (*_thresholded(connection, card), *_as_on_the_card(by_alpha, card)), accepted


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


def _as_on_the_card(by_alpha: list[tuple[float, int]], card: Card) -> list[Estimate]:
    accuracy = dict(zip(card.alphas, card.accuracy, strict=True))
    served = [(accuracy[alpha], images) for alpha, images in by_alpha if alpha in accuracy]
    images = sum(count for _, count in served)
    if not images:
        return []
    how = f"accuracy of the card's {card.images} labelled images at the alphas that served: as if nothing had shifted"
    return [Estimate("as on the card", sum(value * count for value, count in served) / images, how)]
