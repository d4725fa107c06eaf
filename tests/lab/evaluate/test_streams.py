"""Streams: the same for the same seed, fair to every domain, and shaped as their names say."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise_lab.evaluate.streams import (
    CONTROLS,
    KINDS,
    ORDERS,
    Domain,
    Stream,
    _in_runs,
    appearance_shifts,
    make_streams,
    share_of_second,
)

SMOOTH = ((0,), (1,))


def domains(sizes: list[int], *, classes: int = 6, vocabularies: list[int] | None = None) -> list[Domain]:
    starts = np.cumsum([0, *sizes])
    return [
        Domain(
            f"d{i}",
            np.arange(starts[i], starts[i] + n),
            np.arange(n) % classes,
            vocabularies[i] if vocabularies else 0,
            rank=float(-i),
        )
        for i, n in enumerate(sizes)
    ]


def domain_of(batch: np.ndarray, there: list[Domain]) -> list[int]:
    """Ids number the images of all domains through."""
    of: list[int] = np.repeat(np.arange(len(there)), [len(domain.ids) for domain in there])[batch].tolist()
    return of


def visits(stream: Stream, there: list[Domain]) -> list[tuple[int, int]]:
    """(domain, batches) of one visit after the other; every batch must be of one domain."""
    of = [set(domain_of(batch, there)) for batch in stream]
    assert all(len(seen) == 1 for seen in of)
    return [(d, len(list(run))) for d, run in groupby(next(iter(seen)) for seen in of)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_stream_is_a_function_of_its_seed(kind: str, order: str) -> None:
    there = domains([40, 50, 60])
    first, again, other = (make_streams(kind, order, there, seed=s, smooth=SMOOTH) for s in (3, 3, 4))
    assert all((a == b).all() for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not all((a == b).all() for x, y in zip(first, other, strict=True) for a, b in zip(x, y, strict=True))
    assert all(batch.shape == (32,) and batch.dtype == np.int64 for stream in first for batch in stream)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.integers(0, 99), st.sampled_from(ORDERS))
def test_an_image_comes_again_only_when_all_of_its_domain_have_come(sizes: list[int], seed: int, order: str) -> None:
    there = domains(sizes)
    for kind in ("short", "stationary", "cycle", "jumps", "mixed"):
        for stream in make_streams(kind, order, there, seed=seed):
            counts = Counter(np.concatenate(stream).tolist())
            for domain in there:
                times = [counts[i] for i in domain.ids.tolist()]
                assert max(times) - min(times) <= 1


@given(st.integers(1, 6), st.integers(0, 99))
def test_every_kind_gives_every_domain_the_same_number_of_batches(count: int, seed: int) -> None:
    there = domains([33] * count)
    for kind, batches in (("short", 12), ("long", 50), ("cycle", 24), ("jumps", 24)):
        (stream,) = make_streams(kind, "iid", there, seed=seed)
        seen: Counter[int] = Counter()
        for d, length in visits(stream, there):
            seen[d] += length
        assert seen == dict.fromkeys(range(count), batches)
    alone = make_streams("stationary", "iid", there, seed=seed)
    assert [visits(stream, there) for stream in alone] == [[(d, 50)] for d in range(count)]


def test_short_and_long_streams_pass_each_domain_once_in_an_order_of_their_own() -> None:
    there = domains([40] * 8)
    orders = set()
    for seed in range(4):
        passed = visits(make_streams("short", "iid", there, seed=seed)[0], there)
        assert {length for _, length in passed} == {12}
        orders.add(tuple(d for d, _ in passed))
    assert len(orders) == 4


def test_a_cycle_goes_up_and_down_twice_by_rank() -> None:
    there = domains([40] * 3)  # ranks fall with the number
    passed = visits(make_streams("cycle", "iid", there, seed=0)[0], there)
    assert passed == [(2, 6), (1, 6), (0, 12), (1, 6), (2, 12), (1, 6), (0, 12), (1, 6), (2, 6)]


@given(st.integers(2, 6), st.integers(0, 999))
def test_jumps_come_back_to_each_domain_three_times_and_never_to_the_same_at_once(count: int, seed: int) -> None:
    there = domains([40] * count)
    passed = visits(make_streams("jumps", "iid", there, seed=seed)[0], there)
    assert Counter(d for d, _ in passed) == dict.fromkeys(range(count), 3)
    assert all(4 <= length <= 16 for _, length in passed)
    assert all(a != b for (a, _), (b, _) in pairwise(passed))


def test_a_mixed_batch_has_images_of_every_domain_of_its_vocabulary_and_of_no_other() -> None:
    there = domains([40, 50, 60, 70], vocabularies=[0, 1, 0, 1])
    streams = make_streams("mixed", "iid", there, seed=1)
    assert len(streams) == 2
    for stream, members in zip(streams, ({0, 2}, {1, 3}), strict=True):
        assert len(stream) == 48
        assert all(Counter(domain_of(batch, there)) == dict.fromkeys(members, 16) for batch in stream)


@pytest.mark.parametrize("order", ORDERS)
def test_a_smooth_stream_moves_to_the_second_group_and_back(order: str) -> None:
    there = domains([300, 300, 300])
    (stream,) = make_streams("smooth", order, there, seed=0, smooth=((0, 1), (2,)))
    share = np.array([np.mean([d == 2 for d in domain_of(batch, there)]) for batch in stream])
    assert (share[0], share[-1]) == (0.0, 0.0)
    assert abs(share - share_of_second()).max() < 0.35  # 4 sd of a binomial of 32 at one half
    assert abs(share - share_of_second()).mean() < 0.1
    assert share[95:105].mean() > 0.9


def test_a_returning_stream_comes_back_twelve_times_to_six_domains() -> None:
    there = domains([400] * 8)
    (stream,) = make_streams("returning", "iid", there, seed=0)
    passed = visits(stream, there)
    assert {length for _, length in passed} == {12}
    assert len(passed) == 18
    assert len({d for d, _ in passed[:6]}) == len({d for d, _ in passed}) == 6
    assert all(a != b for (a, _), (b, _) in pairwise(passed))


def test_a_calendar_has_ten_days_with_a_night_each_and_weather_on_some() -> None:
    there = domains([400] * 8)
    (stream,) = make_streams("calendar", "iid", there, seed=0)
    of = [domain_of(batch, there)[0] for batch in stream]
    assert len(of) == 10 * (16 + 12)
    days = [of[28 * k : 28 * (k + 1)] for k in range(10)]
    (night,) = {d for day in days for d in day[16:]}
    usual = Counter(d for day in days for d in day[:16]).most_common(1)[0][0]
    weathers = {d for day in days for d in day[:16]} - {usual}
    assert night not in weathers
    assert night != usual
    assert 1 <= len(weathers) <= 4
    for day in days:
        assert Counter(day[:16]) in [Counter({usual: 16}), *(Counter({usual: 8, w: 8}) for w in weathers)]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", ["returning", "calendar", *CONTROLS])
def test_few_domains_do(kind: str, count: int) -> None:
    assert make_streams(kind, "iid", domains([40] * count), seed=0)


def test_controls_are_a_stream_for_each_domain_and_move_what_they_say() -> None:
    there = domains([400] * 3, classes=9)
    for kind in CONTROLS:
        streams = make_streams(kind, "iid", there, seed=0)
        assert [len(stream) for stream in streams] == [50] * 3
        shifts = appearance_shifts(kind, 50, seed=0, stream=0)
        assert (shifts is None) == (kind == "odd")
    assert appearance_shifts("long", 50, seed=0, stream=0) is None
    of = [domain_of(batch, there) for batch in make_streams("odd", "iid", there, seed=0)[1]]
    assert np.mean([d != 1 for batch in of for d in batch]) == pytest.approx(0.05, abs=0.02)
    exposure, brightness, pan = (
        appearance_shifts(kind, 50, seed=0, stream=0) for kind in ("exposure", "brightness", "pan")
    )
    assert exposure is not None
    assert np.flatnonzero(np.diff(exposure[:, 0])).tolist() == [11, 23, 35, 47]
    assert brightness is not None
    assert 1.0 < np.ptp(brightness[:, 0]) <= 1.2
    assert abs(np.diff(brightness[:, 0])).max() < 0.08
    assert pan is not None
    assert len(np.unique(pan[:, 0])) == 3
    (first, *_) = make_streams("pan", "iid", there, seed=0)
    seen = [set(there[0].labels[batch].tolist()) for batch in first]
    assert all(len(classes) <= 3 for classes in seen)
    assert not seen[0] & seen[8]


def test_runs_are_about_eight_images_of_one_class_and_iid_images_are_not() -> None:
    there = domains([480], classes=12)
    lengths = {}
    for order in ORDERS:
        (stream,) = make_streams("stationary", order, there, seed=0)
        classes = np.concatenate(stream)[:480] % 12
        lengths[order] = np.mean([len(list(run)) for _, run in groupby(classes.tolist())])
    assert 6.0 < lengths["runs"] < 11.0  # two runs of a class may follow each other
    assert lengths["iid"] < 1.5


def test_a_batch_in_runs_has_few_classes() -> None:
    there = domains([400], classes=50)
    per_batch = {
        order: np.mean([len(set((b % 50).tolist())) for b in make_streams("stationary", order, there, seed=0)[0]])
        for order in ORDERS
    }
    assert per_batch["runs"] < 8 < 20 < per_batch["iid"]


@pytest.mark.parametrize("images", [1, 7, 40, 200])
def test_runs_are_drawn_as_numpy_would_choose_among_the_classes_that_have_images_left(images: int) -> None:
    """So streams of a seed are what they were in results of earlier versions."""
    labels = np.random.default_rng(images).integers(0, 9, size=images) * 3
    mine, other = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(5):
        shuffled = mine.permutation(images)
        left = {int(c): shuffled[labels[shuffled] == c] for c in np.unique(labels)}
        expected: list[int] = []
        while any(len(ids) for ids in left.values()):
            classes = [c for c, ids in left.items() if len(ids)]
            counts = np.array([len(left[c]) for c in classes], dtype=np.float64)
            c = classes[int(mine.choice(len(classes), p=counts / counts.sum()))]
            length = int(mine.integers(4, 13))
            expected += left[c][:length].tolist()
            left[c] = left[c][length:]
        assert _in_runs(labels, np.unique(labels), other.permutation(images), other).tolist() == expected
    assert mine.bit_generator.state == other.bit_generator.state
