"""The advice says who drifted farthest, when, why perhaps, whether it helped, and where to look."""

from __future__ import annotations

from dataclasses import replace

from adawise.drift.judge.helped import Estimate, Helped
from adawise.drift.page.advice import advise
from adawise.drift.result import Cause
from tests.drift.page.building import a_camera, a_help, a_report, a_yard

LEVEL = Cause("objective", "the objective went from 0.92 to 1.21")


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_the_farthest_camera_is_named_with_the_moment_and_the_size() -> None:
    far = a_camera("far", [(0, 0.3), (100, 0.8)], causes=((LEVEL,),))
    told = advise(a_report([far, a_camera("near", [(0, 0.3), (50, 0.45)]), a_camera("flat", [(0, 0.3)])]))
    assert told.headline == "2 of 3 cameras drifted; far the farthest, by .50"
    assert told.sentences[0] == (
        "far drifted farthest: its level of alpha lay between .30 and .80, and moved most 2026-10-05 04:00 "
        "UTC (between "
        "03:00 and 05:00), from .30 to .80 (+.50); 2 of 3 cameras changed, 2 times in all."
    )
    assert told.look == ("far", "near")


def test_a_likely_cause_is_said_with_its_numbers_and_how_often_it_came() -> None:
    far = a_camera("far", [(0, 0.3), (100, 0.8)], causes=((LEVEL,),))
    near = a_camera("near", [(0, 0.3), (50, 0.45)])
    assert advise(a_report([far])).sentences[1] == "A likely cause: the objective went from 0.92 to 1.21."
    assert advise(a_report([far, near])).sentences[1] == (
        "For that largest change a likely cause is that the objective went from 0.92 to 1.21; over all, what "
        "most often "
        "changed with alpha is the level of the objective (1 of 2 changes)."
    )
    assert "no cause is likely" in advise(a_report([near])).sentences[1]


def test_causes_that_came_as_often_are_told_in_the_same_order_each_time() -> None:
    both = (LEVEL, Cause("confidence", "the mean confidence went from 0.8 to 0.7"))
    cameras = [a_camera(name, [(0, 0.3), (100, 0.8)], causes=(both,)) for name in "ab"]
    assert "is the level of the objective (2 of 2 changes)" in advise(a_report(cameras)).sentences[1]


def test_where_nothing_changed_this_is_said() -> None:
    told = advise(a_report([a_camera("flat", [(0, 0.3)])]))
    assert told.headline == "No camera's alpha changed by .10 or more and stayed"
    assert told.sentences[0].startswith("From 2026-10-01 00:00 to 2026-10-30 23:59 UTC, the alpha of none of 1 camera")
    assert told.sentences[-1] == "Nothing stands out that a person should look at."
    assert told.look == ()


def test_where_little_could_be_told_the_verdict_says_so() -> None:
    short = a_report([a_camera("flat", [(0, 0.3)])], notes=("1 of 1 cameras have fewer than 128 batches",))
    assert advise(short).sentences[-1].endswith("; the notes say what could not be seen.")


def test_with_labels_better_worse_and_not_shown_are_kept_apart() -> None:
    told = advise(a_yard(3))
    assert plain(told.sentences[2]) == (
        "By 52,000 labels, each time on the same images, what was served is better than zero-shot (+6.9 "
        "points, 95 % +6.3 "
        "to +7.5), fine-tuned (+4.3 points, 95 % +3.7 to +4.9) and alpha 0.5 (+1.0 points, 95 % +0.4 to "
        "+1.6); not shown "
        "to differ from the best fixed alpha in hindsight (+0.5 points, 95 % −0.1 to +1.1)."
    )


def test_an_estimate_is_called_one() -> None:
    guess = Helped(0, 100, "", (), {}, {}, (Estimate("average confidence", 0.79, "mean confidence"),))
    told = advise(a_report([a_camera("flat", [(0, 0.3)])], helped=guess))
    assert "Whether adapting helped is only estimated, without labels: average confidence .790." in told.sentences


def test_without_labels_or_other_answers_help_is_not_known() -> None:
    flat = [a_camera("flat", [(0, 0.3)])]
    assert "is not known: there are no labels" in advise(a_report(flat)).sentences[1]
    alone = a_help(["flat"])
    alone = replace(alone, arms=alone.arms[:1])
    assert "of 52,000 labels no other answer is known" in advise(a_report(flat, helped=alone)).sentences[1]


def test_what_needs_a_person_is_pointed_at() -> None:
    silent = a_camera("silent", [(0, 0.3)], silent=(100, 200))
    broken = replace(a_camera("broken", [(0, 0.3)]), rejected=10**6)
    lonely = a_camera("lonely", [(0, 0.3), (100, 0.5)])
    look = plain(advise(a_report([silent, broken, lonely])).sentences[-1])
    assert "at lonely, where alpha moved and nothing else did" in look
    assert "silent, which said nothing for a time" in look
    assert "broken, of which 4" in look
