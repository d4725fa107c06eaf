"""The name that is likely meant."""

from __future__ import annotations

import pytest

from adawise.text import near_match


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
