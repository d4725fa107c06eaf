"""What cameras show: how many classes, how often, in which order, and nothing else of a stream changes."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.errors import SettingsError
from adawise_lab.evaluate.camera import check_shows, in_words, rare_images, shown
from adawise_lab.evaluate.streams import KINDS, ORDERS, Domain, Stream, make_streams
from tests.lab.evaluate.test_streams import SMOOTH, domain_of, domains

CLASSES = 20
SHOWS = ("few1", "few5", "few50", "zipf", "changing", "rare")


def streams_of(
    shows: str, there: list[Domain], *, kind: str = "stationary", order: str = "iid", seed: int = 0
) -> tuple[Stream, ...]:
    made = make_streams(kind, order, there, seed=seed, smooth=SMOOTH)
    return shown(made, shows, kind, order, there, seed=seed)


def classes_of(stream: Stream, there: list[Domain]) -> np.ndarray:
    labels = np.concatenate([domain.labels for domain in there])
    return labels[np.concatenate(stream)]


def same(first: tuple[Stream, ...], second: tuple[Stream, ...]) -> bool:
    pairs = [(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_all_classes_are_the_stream_as_it_was(kind: str, order: str) -> None:
    there = domains([40, 50, 60])
    assert same(
        streams_of("all", there, kind=kind, order=order), make_streams(kind, order, there, seed=0, smooth=SMOOTH)
    )


@pytest.mark.parametrize("shows", SHOWS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.cases("lab", every=5)
def test_each_place_keeps_its_domain_and_images_are_a_function_of_the_seed(shows: str, kind: str, order: str) -> None:
    there = domains([60, 70, 80], classes=CLASSES)
    before = make_streams(kind, order, there, seed=3, smooth=SMOOTH)
    first, again = (streams_of(shows, there, kind=kind, order=order, seed=3) for _ in range(2))
    assert same(first, again)
    assert not same(first, streams_of(shows, there, kind=kind, order=order, seed=4))
    for old, new in zip(before, first, strict=True):
        assert [domain_of(batch, there) for batch in old] == [domain_of(batch, there) for batch in new]


def test_few_classes_are_so_many_and_equally_frequent_and_those_of_a_seed_in_every_stream() -> None:
    there = domains([400, 400], classes=CLASSES)
    seen = set()
    for kind in ("short", "stationary", "mixed"):
        for order in ORDERS:
            for stream in streams_of("few5", there, kind=kind, order=order, seed=7):
                counts = Counter(classes_of(stream, there).tolist())
                seen.add(frozenset(counts))
                # A run is of eight images, so that fewer are drawn.
                assert max(counts.values()) < (1.4 if order == "iid" else 4) * min(counts.values())
    (chosen,) = seen
    assert len(chosen) == 5
    other = {frozenset(classes_of(streams_of("few5", there, seed=s)[0], there).tolist()) for s in range(8)}
    assert len(other) == 8


def test_a_domain_with_fewer_classes_shows_all_that_it_has_and_no_others() -> None:
    many, few = domains([400, 90], classes=CLASSES)
    few = Domain(few.name, few.ids, few.labels % 3 + 4)
    for stream, classes in zip(streams_of("few50", [many, few]), (set(range(CLASSES)), {4, 5, 6}), strict=True):
        assert set(classes_of(stream, [many, few]).tolist()) == classes


@given(st.integers(0, 99), st.integers(1, 30))
def test_a_class_has_the_same_rank_in_every_domain_that_has_it(seed: int, count: int) -> None:
    there = domains([80, 80], classes=CLASSES)
    half = Domain(there[1].name, there[1].ids, there[1].labels // 2 * 2)  # even classes
    first, second = (set(classes_of(s, [there[0], half]).tolist()) for s in streams_of(f"few{count}", [there[0], half]))
    assert len(first) == min(count, CLASSES)
    assert len(second) == min(count, CLASSES // 2)
    assert {c for c in first if c % 2 == 0} <= second


def test_zipf_shows_every_class_and_the_first_twice_as_often_as_the_second() -> None:
    there = domains([600], classes=6)
    counts = np.zeros(6)
    for seed in range(20):
        found = np.bincount(classes_of(streams_of("zipf", there, seed=seed)[0], there), minlength=6)
        counts += np.sort(found)[::-1]
    shares = 1.0 / np.arange(1, 7)
    assert counts / counts.sum() == pytest.approx(shares / shares.sum(), abs=0.01)
    commonest = {int(np.bincount(classes_of(streams_of("zipf", there, seed=s)[0], there)).argmax()) for s in range(20)}
    assert len(commonest) > 3, "the order is drawn"


@pytest.mark.parametrize("batch", [8, 20, 32])
@pytest.mark.parametrize("kind", ["short", "stationary", "mixed"])
def test_changing_shows_five_others_after_192_images_of_the_stream(kind: str, batch: int) -> None:
    """By the clock of the camera, whichever domains come."""
    there = domains([400, 400], classes=CLASSES)
    made = make_streams(kind, "iid", there, seed=1, batch=batch)
    for stream in shown(made, "changing", kind, "iid", there, seed=1):
        classes = classes_of(stream, there)
        periods = [set(classes[at : at + 192].tolist()) for at in range(0, len(classes) - 191, 192)]
        assert all(len(period) == 5 for period in periods)
        assert not any(a & b for a, b in pairwise(periods))
        assert all(a == b for a, b in zip(periods, periods[4:], strict=False)), "all 20 have come"


def test_a_run_ends_where_its_class_is_no_longer_shown() -> None:
    there = domains([400], classes=CLASSES)
    made = make_streams("stationary", "runs", there, seed=0)
    (stream,) = shown(made, "changing", "stationary", "runs", there, seed=0, run=(50, 70))
    classes = classes_of(stream, there)
    periods = [set(classes[at : at + 192].tolist()) for at in range(0, len(classes) - 191, 192)]
    assert all(len(period) <= 5 for period in periods)
    assert not any(a & b for a, b in pairwise(periods))


def test_rare_shows_four_common_classes_and_two_of_4_percent() -> None:
    there = domains([400], classes=CLASSES)
    for seed in range(5):
        classes = classes_of(streams_of("rare", there, seed=seed)[0], there)
        counts = [count for _, count in Counter(classes.tolist()).most_common()]
        assert len(counts) == 6
        assert np.array(counts) / len(classes) == pytest.approx([0.23] * 4 + [0.04] * 2, abs=0.04)
        rare = rare_images("rare", there, seed=seed)
        assert np.isin(np.concatenate(streams_of("rare", there, seed=seed)[0]), rare).mean() == pytest.approx(
            0.08, abs=0.03
        )
        assert len(set((rare % CLASSES).tolist())) == 2
        assert len(rare) == 40, "all images of both"
    assert len(rare_images("zipf", there, seed=0)) == 0


def test_runs_are_about_eight_images_of_one_class() -> None:
    there = domains([480], classes=CLASSES)
    lengths = {}
    for order in ORDERS:
        (stream,) = streams_of("few10", there, order=order)
        lengths[order] = [len(list(run)) for _, run in groupby(classes_of(stream, there).tolist())]
    assert 7.0 < np.mean(lengths["runs"]) < 11.0
    assert min(lengths["runs"][:-1]) == 4
    assert np.mean(lengths["iid"]) < 1.3
    made = make_streams("stationary", "runs", there, seed=0)
    (stream,) = shown(made, "few10", "stationary", "runs", there, seed=0, run=(64, 200))
    assert min([len(list(run)) for _, run in groupby(classes_of(stream, there).tolist())][:-1]) >= 64


@pytest.mark.parametrize("shows", SHOWS)
@pytest.mark.parametrize("order", ORDERS)
def test_an_image_comes_again_only_when_all_of_its_class_have_come(shows: str, order: str) -> None:
    there = domains([90, 110], classes=CLASSES)
    for stream in streams_of(shows, there, kind="mixed", order=order):
        came = Counter(np.concatenate(stream).tolist())
        for domain in there:
            for c in set(domain.labels.tolist()):
                times = [came[i] for i in domain.ids[domain.labels == c].tolist()]
                assert max(times) - min(times) <= 1


@pytest.mark.parametrize(("shows", "classes"), [("few1", 1), ("few2", 2), ("few6", 6), ("few999", CLASSES)])
def test_views_of_a_camera_that_pans_share_out_what_it_shows(shows: str, classes: int) -> None:
    there = domains([400], classes=CLASSES)
    (stream,) = streams_of(shows, there, kind="pan")
    views = [set(classes_of(stream[at : at + 8], there).tolist()) for at in range(0, 48, 8)]
    assert sum(map(len, views[: min(3, classes)])) == len(set().union(*views)) == classes
    assert views[3:] == views[:3]


def test_rare_classes_are_rare_in_each_view_of_a_camera_that_pans() -> None:
    there = domains([400], classes=CLASSES)
    for seed in range(8):
        (stream,) = streams_of("rare", there, kind="pan", seed=seed)
        rare = np.isin(np.stack(stream[:48]), rare_images("rare", there, seed=seed)).reshape(6, -1).mean(axis=1)
        assert 0.0 < rare.min() <= rare.max() < 0.2


def test_all_views_of_a_camera_that_pans_show_the_most_frequent_classes() -> None:
    there = domains([400], classes=CLASSES)
    (stream,) = streams_of("zipf", there, kind="pan")
    views = [classes_of(stream[at : at + 8], there).tolist() for at in range(0, 48, 8)]
    assert len({Counter(view).most_common(1)[0][0] for view in views}) == 1


@pytest.mark.parametrize("shows", ["", "few", "few0", "few-1", "few5 ", "some", "ALL", "all,zipf", "few٥", "few5٥"])
def test_what_no_camera_shows_is_refused(shows: str) -> None:
    with pytest.raises(
        SettingsError, match="expected all, zipf, changing, rare, or a number of classes up to 999999 such"
    ):
        check_shows(shows)


def test_rare_classes_need_others_beside_them() -> None:
    check_shows("rare", domains([40], classes=3))
    with pytest.raises(SettingsError, match=r"expected images of at least 3 classes, d0 has them of 2\. Leave it out"):
        check_shows("rare", domains([40], classes=2))
    check_shows("few5", domains([40], classes=2))
    assert len(set(classes_of(streams_of("rare", domains([400], classes=3))[0], domains([400], classes=3)))) == 3


@pytest.mark.parametrize("shows", ["all", *SHOWS])
def test_what_is_shown_has_words(shows: str) -> None:
    check_shows(shows)
    assert in_words(shows).startswith(("every", "one", "5", "50", "five", "four"))
