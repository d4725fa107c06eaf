"""What the demo shows while it runs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from adawise.demo.live import BAR, Board, bar, line, table, watching
from adawise.demo.script import scripts
from adawise.ports import Commit, Head
from adawise.records import BatchTrace, Frame, Predictions, RowId, TopicPartition, TrialRecord
from adawise.worker.events import BatchServed, FrameRejected, PartitionRecovered, SegmentCommitted

CAMERAS = scripts(64)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def board(clock: Clock | None = None, served: list[int] | None = None) -> Board:
    found = served if served is not None else []
    return Board(CAMERAS, lambda: [16, 16, 16, 16], found.append, clock or Clock())


def trace(partition: int, last: int, *, images: int = 8, alpha: float = 0.5, trigger: str = "none") -> BatchTrace:
    trials = (TrialRecord(alpha, images, 1.0),) * (1 if trigger == "none" else 3)
    return BatchTrace(
        topic="frames",
        partition=partition,
        first_offset=last - images + 1,
        last_offset=last,
        stream_id=CAMERAS[partition].camera_id,
        batch_number=0,
        captured_at_us=None,
        kafka_timestamp_ms=0,
        images=images,
        alpha=alpha,
        previous_alpha=None,
        trials=trials,
        objective=1.0,
        posterior_mean=0.0,
        posterior_sd=0.1,
        trigger=trigger,
        reset=None,
        forward_equivalents=float(len(trials)),
    )


def batch(trace: BatchTrace) -> BatchServed:
    indices, numbers = np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32)
    return BatchServed(trace, Predictions(indices, numbers, numbers, indices, numbers), [], None)


def test_a_board_is_done_when_the_last_frame_of_every_camera_was_served() -> None:
    shown = board()
    for partition in range(4):
        assert not shown.done
        shown.observe(batch(trace(partition, 7)))
        shown.observe(batch(trace(partition, 15)))
    assert shown.done
    assert shown.images == 64


def test_a_camera_that_is_served_again_from_an_earlier_offset_is_not_done() -> None:
    shown = board()
    for partition in range(4):
        shown.observe(batch(trace(partition, 15)))
    shown.observe(batch(trace(2, 7)))
    assert not shown.done


def test_served_and_rejected_images_allow_as_many_more() -> None:
    served: list[int] = []
    shown = board(served=served)
    shown.observe(batch(trace(0, 7)))
    shown.observe(FrameRejected(Frame(RowId("frames", 0, 8, 0), 0, "market")))
    assert served == [8, 1]


def test_forward_equivalents_are_weighted_by_images() -> None:
    shown = board()
    shown.observe(batch(trace(0, 11, images=12)))
    shown.observe(batch(trace(1, 3, images=4, trigger="start")))
    assert shown.forward_equivalents == pytest.approx((12 * 1 + 4 * 3) / 16)


def test_lag_is_what_the_topic_has_and_was_not_served() -> None:
    shown = board()
    assert shown.lag(1) == 16
    shown.observe(batch(trace(1, 11)))
    assert shown.lag(1) == 4


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    shown = board(clock)
    shown.observe(batch(trace(0, 7)))
    clock.now += 2
    shown.observe(batch(trace(0, 15)))
    assert shown.rate() == shown.rate(0) == pytest.approx(16 / 2)
    assert shown.rate(1) == 0
    clock.now += 10
    assert shown.rate() == 0


def test_the_table_shows_weather_alpha_and_why_it_was_searched() -> None:
    shown = board()
    shown.observe(batch(trace(0, 7, alpha=0.25, trigger="start")))
    shown.observe(batch(trace(0, 15, alpha=0.25)))
    shown.observe(SegmentCommitted(TopicPartition("frames", 0), Commit(Head(16), True, 16, 1), 0))
    out = io.StringIO()
    Console(file=out, width=80).print(table(shown, "adawise demo"))
    (row,) = [text for text in out.getvalue().splitlines() if "market" in text]
    assert "clear" in row
    assert f"{'█' * 3}{'░' * 9} 0.25" in row
    assert "start, 1 ago" in row
    assert "…" not in out.getvalue()
    assert "16 rows written" in out.getvalue()


def test_a_bar_is_empty_at_zero_shot_and_full_at_fine_tuned() -> None:
    assert bar(0.0) == "░" * BAR + " 0.00"
    assert bar(1.0) == "█" * BAR + " 1.00"


def test_the_line_says_that_the_worker_gets_ready_before_it_has_a_partition() -> None:
    shown = board()
    assert line(shown) == "the worker starts; 64 images wait for it"
    shown.observe(PartitionRecovered(TopicPartition("frames", 0), Head(0)))
    shown.observe(batch(trace(0, 7, alpha=0.75)))
    assert line(shown).startswith("8 of 64 images")
    assert "market night 44% alpha 0.75" in line(shown)


def test_without_a_terminal_a_last_line_is_printed_and_no_control_characters() -> None:
    out = io.StringIO()
    with watching(board(), "adawise demo", out) as draw:
        draw()
    assert out.getvalue() == "the worker starts; 64 images wait for it\n"


def test_on_a_terminal_the_table_is_drawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    with watching(board(), "adawise demo", out) as draw:
        draw()
    assert "market" in out.getvalue()
    assert "\x1b[" in out.getvalue()
