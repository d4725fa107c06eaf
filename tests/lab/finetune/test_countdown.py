"""The countdown of a run, and its forecast from the first updates, count passes of images through the model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from adawise_lab.finetune.countdown import CARD, NEW, REHEARSAL, TRAINING, VERDICT, Countdown, Forecast
from adawise_lab.finetune.training import passes_left
from tests.lab.finetune.conftest import MakeRun


class Bar:
    """A bar that knows how much was counted."""

    def __init__(self) -> None:
        self.done = 0
        self.text = ""

    def advance(self, count: int = 1) -> None:
        assert isinstance(count, int)
        self.done += count

    def note(self, text: str) -> None:
        self.text = text


def test_shares_of_a_pass_add_up_and_no_stage_counts_more_than_was_expected() -> None:
    bar = Bar()
    countdown = Countdown(bar, {TRAINING: 10.0, CARD: 7.5, VERDICT: 0.0})
    countdown.enter(TRAINING)
    for _ in range(4):
        countdown.advance(1.7)
    assert bar.done == 7
    countdown.advance(100.0)
    assert bar.done == 10
    countdown.enter(CARD)
    evaluations = countdown.at_many_alphas(21, 0.25)
    for _ in range(21):
        evaluations.advance()
    assert bar.done == 16, "an image at 21 alphas is six passes"
    evaluations.note("alpha 1")
    assert bar.text == "card: alpha 1"
    countdown.enter(VERDICT)
    assert bar.done == 18


@pytest.mark.parametrize(("share", "update"), [(1.0, 3.0), (0.25, 1.5)])
def test_an_update_is_a_pass_forward_and_two_back_through_the_trained_layers(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, share: float, update: float
) -> None:
    run = make_run()  # 27 images in batches of 8 are three updates an epoch; 9 are held out; three epochs
    run.trained_share = share
    assert run.update_passes == update
    assert passes_left(run) == 3 * (3 * 8 * update + 2 * 9) + 9, "no activations are kept"
    seconds = iter([0.0, 8.0, 16.0, 24.0])
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("adawise_lab.finetune.countdown.time", clock)
    forecast = Forecast(run, {REHEARSAL: 60.0, NEW: 12.0, CARD: 24.0, VERDICT: 0.0})
    with capture_logs() as logs:
        for _ in range(4):
            forecast.updated()
    (line,) = [each for each in logs if each["event"] == "duration_estimated"]
    assert line["training_s"] == 3 * 3 * 8
    assert line["judging_s"] == round(3 * 2 * 9 / update)
    assert line["rehearsal_s"] == round(60 / update)
    assert line["card_s"] == round(36 / update)
