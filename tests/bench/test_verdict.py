"""From planted figures to the verdict: what limits, what a core or a card would give, how many cameras."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adawise.bench.figures import BenchReport, Spread
from adawise.bench.verdict import ImageCost, limit, verdict, with_one_more_card, with_one_more_core
from adawise.text import two

# A ViT-B/32 on two cores: 20 images/s at 1.4 forwards an image, and 30 forwards/s bare.
ON_CORES = ImageCost(
    whole_s=0.050,
    slowest_s=0.0526,
    forwards_s=0.048,
    host_s=0.001,
    writing_s=0.0,
    decode_s=0.002,
    processor_s=0.095,
    forward_cost=1.4,
    of_bare=20 * 1.4 / 30,
    threads=2,
    cores=2,
    on_card=False,
)
# One process beside a card that waits for it: 1,000 images/s, and 5,000 forwards/s bare.
ON_CARD = ImageCost(
    whole_s=0.001,
    slowest_s=0.00125,
    forwards_s=0.0003,
    host_s=0.0006,
    writing_s=0.0,
    decode_s=0.0014,
    processor_s=0.0021,
    forward_cost=1.2,
    of_bare=1_000 * 1.2 / 5_000,
    threads=16,
    cores=16,
    on_card=True,
)


def test_forwards_limit_a_processor_and_one_more_core_takes_a_share_of_them() -> None:
    found = verdict(ON_CORES)
    assert found.limit == "forwards"
    assert found.cameras == 19
    assert found.with_one_more_core == pytest.approx(1 / (0.048 * 2 / 3 + 0.001 + 0.001))
    assert found.text == (
        "Forwards of the model limit this worker: they take 96% of its time, and an image needs 1.40 of them. It runs "
        ".93 of the forwards a second of open_clip's image tower alone. One more core would give about 29.4 images a "
        "second in place of 20, and a first GPU at most 667 (both estimated). This machine carries 19 cameras at one "
        "image a second each, in full batches."
    )


def test_a_first_card_gives_at_most_what_the_cores_can_decode_and_write() -> None:
    assert with_one_more_card(ON_CORES) == pytest.approx(2 / (0.002 + 0.001))
    assert with_one_more_card(replace(ON_CORES, host_s=0.010)) == pytest.approx(1 / 0.010)


def test_no_core_or_card_makes_a_worker_slower_and_a_coarse_clock_divides_by_no_zero() -> None:
    beyond = replace(ON_CORES, host_s=0.060)  # processor time that the clock's whole has no room for
    assert with_one_more_core(beyond) == with_one_more_card(beyond) == pytest.approx(20)
    unseen = replace(ON_CORES, forwards_s=0.050, host_s=0.0, decode_s=0.0)
    assert verdict(unseen).limit == "forwards"
    assert with_one_more_card(unseen) == pytest.approx(1e9)


def test_the_workers_own_thread_limits_beside_a_card_and_more_cores_do_not_help_it() -> None:
    assert limit(ON_CARD) == "host"
    assert with_one_more_core(ON_CARD) == pytest.approx(1_000)
    assert with_one_more_card(ON_CARD) == pytest.approx(2_000)
    assert "A second worker process" in verdict(ON_CARD).text


def test_a_second_card_gives_no_more_than_the_cores_can_feed() -> None:
    few = replace(ON_CARD, cores=3, threads=3)
    assert with_one_more_card(few) == pytest.approx(3 / 0.002)
    assert with_one_more_card(replace(few, cores=1)) == pytest.approx(1_000)


def test_a_worker_that_waits_is_limited_by_decoding_if_its_threads_are_busy_and_else_by_the_broker() -> None:
    waits = replace(ON_CARD, host_s=0.0001, threads=2, cores=2)
    assert limit(waits) == "decoding"
    assert with_one_more_core(waits) == pytest.approx(1 / (0.0003 + 0.0001 + 0.0006 * 2 / 3))
    idle = replace(waits, decode_s=0.0002)
    assert limit(idle) == "broker"
    assert with_one_more_core(idle) == pytest.approx(1_000)
    assert "decode.reduced" in verdict(waits).text
    assert "waits for messages for 60% of the time, and decode threads are busy for 10% of it" in verdict(idle).text


def test_a_worker_that_waits_for_its_commits_is_limited_by_the_disk_and_not_by_the_broker() -> None:
    slow = replace(ON_CARD, host_s=0.0001, decode_s=0.0002, writing_s=0.0005)
    assert limit(slow) == "writing"
    assert with_one_more_core(slow) == pytest.approx(1_000)
    assert "Commits limit this worker: 0.50 ms an image" in verdict(slow).text
    assert limit(replace(slow, writing_s=0.0002)) == "broker"
    assert limit(replace(ON_CARD, writing_s=0.0005)) == "host"  # what a commit computes is not waiting
    on_cores = replace(slow, whole_s=0.010, forwards_s=0.001, writing_s=0.008, on_card=False)
    assert with_one_more_card(on_cores) == pytest.approx(1 / (0.0001 + 0.008))


def test_a_small_model_that_takes_less_of_the_cores_than_decoding_is_limited_by_decoding() -> None:
    small = replace(ON_CORES, whole_s=0.006, forwards_s=0.005, host_s=0.0004, decode_s=0.003, processor_s=0.0056)
    assert limit(small) == "decoding"
    assert limit(replace(small, processor_s=0.0116)) == "forwards"


def test_parts_are_shares_of_their_own_turn_and_the_text_has_the_ratio_of_the_table() -> None:
    fast = {"forward": 5.0, "plain": 9.0, "worker": 4.0, "forward_equivalents": 1.4, "forward_cost": 1.4}
    fast |= {"forwards_ms": 240.0, "search_ms": 0.3, "host_ms": 1.0, "processor_ms": 450.0, "writing_ms": 0.1}
    fast |= {"decoding_ms": 2.0, "decoding_limit_ms": 1.5, "writing_limit_ms": 0.05}
    slow = {**fast, "forward": 2.0, "worker": 1.0, "forwards_ms": 960.0}
    report = BenchReport({"cores": 2, "decode_threads": 2, "device": "cpu"}, [slow, fast], seconds=1.0)
    assert "they take 96% of its time" in report.verdict.text
    ratio = report.ratios["forward"]
    assert ratio is not None
    assert f"It runs {two(ratio.median)} of the forwards" in report.verdict.text


def test_ratios_are_of_the_same_turn_and_a_part_that_was_left_out_has_none() -> None:
    figures = {
        **{"forward": 30.0, "plain": 24.0, "worker": 20.0, "forward_equivalents": 1.4, "forward_cost": 1.4},
        **{"forwards_ms": 48.0, "search_ms": 0.3, "host_ms": 1.0, "processor_ms": 90.0},
        **{"decoding_ms": 2.0, "decoding_limit_ms": 1.5, "writing_ms": 0.1, "writing_limit_ms": 0.05},
    }
    slow = {**figures, "forward": 15.0, "plain": 12.0, "worker": 10.0}
    machine = {"cores": 2, "decode_threads": 2, "device": "cpu"}
    report = BenchReport(machine, [{**figures, "naive": 0.8}, slow, figures], seconds=1.0)
    assert report.ratios["plain"] == Spread(median=20 / 24, low=20 / 24, high=20 / 24, turns=3)
    forward = report.ratios["forward"]
    assert forward is not None
    assert forward.median == pytest.approx(20 * 1.4 / 30)
    assert report.ratios["naive"] == Spread(25.0, 25.0, 25.0, turns=1)
    assert report.verdict.cameras == 10
    assert report.spread("worker") == Spread(20.0, 10.0, 20.0, turns=3)
    without = BenchReport(machine, [slow], seconds=1.0).document()
    assert without["images_per_s"]["naive"] is None
    assert without["worker_over"]["naive"] is None
