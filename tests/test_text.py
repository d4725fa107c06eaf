from __future__ import annotations

import math

import pytest

from adawise.text import (
    as_duration,
    as_long_duration,
    as_size,
    counted,
    listed,
    near_match,
    points,
    shared_layers,
    small,
    three,
    two,
)


@pytest.mark.parametrize(
    ("seconds", "short", "words"),
    [
        (0, "0 s", "0 seconds"),
        (0.4, "0 s", "0.4 seconds"),
        (1, "1 s", "1 second"),
        (36, "36 s", "36 seconds"),
        (60, "60 s", "1 minute"),
        (119, "119 s", "119 seconds"),
        (150, "2 min", "2 minutes"),
        (3_600, "60 min", "1 hour"),
        (5_400, "90 min", "90 minutes"),
        (9_000, "2 h", "2 hours"),
        (86_400, "24 h", "1 day"),
        (108_000, "30 h", "30 hours"),
        (2.6e5, "3 days", "3 days"),
        (1e8, "1157 days", "1,157 days"),
    ],
)
def test_a_duration_is_in_the_largest_unit_of_which_there_are_two(seconds: float, short: str, words: str) -> None:
    assert (as_duration(seconds), as_long_duration(seconds)) == (short, words)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 KiB"),
        (1_500, "1 KiB"),
        (2**20, "1.0 MiB"),
        (250_000_000, "238.4 MiB"),
        (1.5 * 2**30, "1.5 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (3 * 2**50, "3072.0 TiB"),
    ],
)
def test_bytes_are_in_the_largest_unit_of_which_there_is_one(count: float, text: str) -> None:
    assert as_size(count) == text


def test_a_count_has_its_noun_in_the_singular_or_the_plural() -> None:
    assert [counted(n, "copy", "copies") for n in (0, 1, 2_000)] == ["0 copies", "1 copy", "2,000 copies"]
    assert [counted(n, "broker") for n in (1, 2)] == ["1 broker", "2 brokers"]


def test_a_share_of_layers_is_said_in_one_way() -> None:
    assert shared_layers(1.0) == "nothing is shared"
    assert shared_layers(1.0, "every parameter differs") == "nothing is shared (every parameter differs)"
    assert shared_layers(0.3333) == "equal first layers: an image at a second alpha costs 0.33 of a forward"
    assert shared_layers(0.0001).endswith("costs 0.0001 of a forward")


def test_numbers_are_written_as_the_field_writes_them() -> None:
    assert [three(v) for v in (0.6524, 1.2, -0.05, math.nan, None)] == [".652", "1.200", "−.050", "–", "–"]
    assert [two(v) for v in (1.216, 0.5, 10.0)] == ["1.22", ".50", "10.00"]
    assert [small(v) for v in (1.0, 0.324, 0.01, 0.0053, 0.0001)] == ["1.00", "0.32", "0.01", "0.005", "0.0001"]
    assert [points(v) for v in (0.0194, -0.003, math.nan)] == ["+1.9", "−0.3", "–"]
    assert [listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("fraems", ["frames", "labels"], "frames"),
        ("yard", [], None),
        ("yard", ["kitchen"], None),
        ("camera-7", ["camera-1", "camera-17"], None),
        ("2026-11-29", ["2026-11-28", "2026-11-30"], None),
        ("theta_0.safetensors", ["theta_1.safetensors"], None),
        ("theta_0.safetensor", ["theta_0.safetensors", "theta_1.safetensors"], "theta_0.safetensors"),
    ],
)
def test_a_misspelt_name_has_one_that_is_near_and_the_next_number_is_none(
    name: str, known: list[str], meant: str | None
) -> None:
    assert near_match(name, known) == meant
