"""The grid of a sweep, as text."""

from __future__ import annotations

import pytest

from adawise.settings.describe import SETTINGS
from adawise_lab.sweep.grid import SWEPT, in_words, parse_grid


def test_variants_are_all_combinations_and_the_last_setting_varies_fastest() -> None:
    variants = parse_grid("search.strategy=warm,grid batch.max-age-s=1,2.5")
    assert [in_words(variant) for variant in variants] == [
        "search.strategy=warm batch.max_age_s=1",
        "search.strategy=warm batch.max_age_s=2.5",
        "search.strategy=grid batch.max_age_s=1",
        "search.strategy=grid batch.max_age_s=2.5",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("search.pricey=1", r"no setting 'search.pricey'; did you mean 'search.price'\?"),
        ("search.price", "search.price has an empty value"),
        ("search.price=.1,", "empty value"),
        ("search.price=.1,.1", "one twice"),
        ("search.price=.1 search.price=.2", "search.price is there twice"),
        ("log.level=info,error", "log.level has no influence"),
        ("sink.root=a,b", "sink.root has no influence"),
        ("search.price=" + ",".join(map(str, range(1001))), "1001 combinations; expected at most 1000"),
    ],
)
def test_a_grid_that_is_none_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_grid(text)


def test_the_groups_that_can_be_swept_exist() -> None:
    assert set(SWEPT) <= {name.partition(".")[0] for name in SETTINGS}
