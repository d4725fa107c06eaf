"""The advice says better or worse only where an interval does."""

from __future__ import annotations

import pytest

from adawise_lab.evaluate.advice import advise
from adawise_lab.evaluate.references import BEST_FIXED
from adawise_lab.evaluate.result import GroupRow
from tests.lab.evaluate.page.building import a_view


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_three_sentences() -> None:
    results = advise([a_view(), a_view(stream="short")])
    for sentence in results.sentences:
        assert sentence.endswith(".")
        assert sentence[0].isupper()


@pytest.mark.parametrize(
    ("differences", "headline"),
    [
        ((0.02, 0.03), "Adapting alpha helps here"),
        ((-0.02, -0.03), "The best fixed alpha is better here"),
        ((0.002, -0.002), "A fixed alpha is as good here: no difference is shown"),
        ((0.02, 0.0), "Adapting alpha helps on some streams here; on the others no difference is shown"),
        ((-0.02, 0.0), "Adapting alpha loses on some streams here; on the others no difference is shown"),
        ((0.02, -0.02), "Adapting alpha helps on some streams here, and loses on others"),
    ],
)
def test_the_headline_follows_the_intervals(differences: tuple[float, float], headline: str) -> None:
    views = [a_view(d, stream=stream) for d, stream in zip(differences, ("long", "short"), strict=True)]
    assert advise(views).headline == headline


def test_a_best_fixed_alpha_that_wins_is_said_to() -> None:
    results = advise([a_view(-0.03)])
    assert results.headline == "The best fixed alpha is better here"
    assert plain(results.sentences[0]) == (
        "Against the best fixed alpha in hindsight, warm is worse on long/iid (−3.0 points, 95 % −4.0 to −2.0)."
    )


def test_an_interval_that_contains_0_shows_no_difference() -> None:
    assert plain(advise([a_view(0.009)]).sentences[0]) == (
        "Against the best fixed alpha in hindsight, no difference is shown on long/iid (+0.9 points, 95 % −0.1 to "
        "+1.9)."
    )


def test_many_streams_are_named_with_the_range_of_their_differences() -> None:
    views = [a_view(d, stream=s) for d, s in ((0.02, "long"), (0.03, "short"), (0.04, "jumps"), (0.0, "stationary"))]
    assert plain(advise(views).sentences[0]) == (
        "Against the best fixed alpha in hindsight, warm is better on long/iid, short/iid and jumps/iid (+2.0 to +4.0 "
        "points); no difference is shown on stationary/iid (+0.0 points, 95 % −1.0 to +1.0)."
    )
    assert "on all 3 kinds of stream (+2.0 to +4.0 points)" in advise(views[:3]).sentences[0]


def test_the_endpoint_compared_with_is_the_better_of_the_two() -> None:
    results = advise([a_view(-0.05)])  # .58: below zero-shot's .60, above fine-tuned's .50
    assert "warm is worse on long/iid (−2.0 points" in results.sentences[1]
    assert [cell.text for cell in results.table.lines[0].cells][5] == "zero-shot"


def test_the_worst_domain_is_that_of_the_worst_stream() -> None:
    views = [a_view(), a_view(stream="short", worst_domain_gap=-0.035, worst_domain="fog")]
    assert "the worst single domain is fog on short/iid, −3.5 points from its better endpoint" in plain(
        advise(views).sentences[1]
    )
    assert "on no single domain" in advise([a_view(worst_domain_gap=0.0)]).sentences[1]


def test_where_the_gain_lies_is_said_by_group() -> None:
    groups = {
        "known": GroupRow(0.6, 1.2, 1.2, {BEST_FIXED: -0.001}),
        "new": GroupRow(0.7, 1.2, 1.2, {BEST_FIXED: 0.041}),
    }
    results = advise([a_view(groups=groups), a_view(stream="short", groups=groups, fe=1.9)])
    assert results.sentences[2] == (
        "By group on long/iid it differs from the best fixed alpha by new +4.1 and known −0.1 points; it costs 1.20 to "
        "1.90 forwards an image."
    )
    assert advise([a_view()]).sentences[2] == (
        "It costs 1.20 forwards an image; the best fixed alpha (.40 on long/iid) costs 1, and labels to find it."
    )


def test_the_table_beside_it_marks_each_interval() -> None:
    views = [a_view(d, stream=s) for d, s in ((0.02, "long"), (-0.02, "short"), (0.0, "jumps"))]
    assert [line.cells[2].mark for line in advise(views).table.lines] == ["better", "worse", "same"]
