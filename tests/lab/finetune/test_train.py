"""A run: it learns, judges, keeps the best epoch, stops, resumes bit for bit, and ends early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adawise.errors import TrainingError
from adawise_lab.finetune.folder import CONTENTS
from adawise_lab.finetune.images import HeldOut, Pixels
from adawise_lab.finetune.recipe import Recipe
from adawise_lab.finetune.train import Epoch, FinetuneRun, TrainingPosition
from adawise_lab.finetune.training import passes_left
from tests.lab.finetune.conftest import MakeRun
from tests.models import SIZE


def finish(run: FinetuneRun) -> FinetuneRun:
    run.start()
    assert run.go()
    return run


def assert_same(run: FinetuneRun, other: FinetuneRun) -> None:
    """Equal curves, weights in memory and best weights on disk, bit for bit."""
    assert repr([asdict(row) for row in run.progress.curve]) == repr([asdict(row) for row in other.progress.curve])
    for p, q in zip(run.learner.model.parameters(), other.learner.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert run.weights.read_bytes() == other.weights.read_bytes()


@pytest.mark.parametrize("loss", ["flyp", "cross_entropy", "balanced"])
def test_training_raises_held_out_accuracy(make_run: MakeRun, loss: str) -> None:
    run = finish(make_run(loss=loss, epochs=4))
    best = run.progress.best
    assert best is not None
    assert run.progress.curve[0].accuracy <= 0.7
    assert best.accuracy >= 0.9
    assert run.progress.curve[-1].loss < run.progress.curve[1].loss


def test_the_weights_on_disk_are_the_best_epoch_s(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(epochs=4)
    results = iter([0.4, 0.5, 0.8, 0.6, 0.7])
    monkeypatch.setattr(run, "_evaluate", lambda epoch, loss: row(epoch, next(results)))
    kept: dict[int, torch.Tensor] = {}
    run.start()
    run.go(on_epoch=lambda r: kept.setdefault(r.epoch, run.learner.model.visual.proj.detach().clone()))
    assert run.progress.best == row(2, 0.8)
    written = load_file(run.weights)
    assert torch.equal(written["visual.proj"], kept[2])
    assert not torch.equal(kept[2], kept[4])
    assert {tensor.dtype for tensor in written.values()} == {torch.float32}


def row(epoch: int, accuracy: float, *, nll: float = 1.0, half: float = 0.9) -> Epoch:
    return Epoch(epoch, 1.0, accuracy, nll, 0.1, half, 0.0)


def test_of_equal_accuracy_the_lower_nll_is_better_and_theta_0_never_the_best() -> None:
    curve = [row(0, 0.9), row(1, 0.6, nll=0.5), row(2, 0.6, nll=0.4), row(3, 0.6, nll=0.6)]
    assert TrainingPosition(curve=curve).best == curve[2]
    assert TrainingPosition(curve=curve[:1]).best is None


def test_patience_ends_a_run_that_does_not_get_better(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(epochs=20, patience=2)
    results = iter([0.4, 0.5, 0.8, 0.8, 0.7, 0.9])
    monkeypatch.setattr(run, "_evaluate", lambda epoch, loss: row(epoch, next(results)))
    assert finish(run).progress.curve[-1] == row(4, 0.7)


def test_the_middle_of_the_path_is_judged_and_a_barrier_told(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finish(make_run(epochs=1))
    one, half = run.progress.curve[1], run.learner.evaluate(run.held_out, 0.5)
    assert (one.accuracy_half, one.epoch) == (half.accuracy, 1)
    scores = {1.0: 0.8, 0.5: 0.3}
    monkeypatch.setattr(run.learner, "evaluate", lambda _held_out, alpha, _on: type(half)(scores[alpha], 1.0, 0.0))
    run.progress.curve[0] = row(0, 0.5)
    results = run._evaluate(2, 1.0)
    assert results.barrier == pytest.approx(0.2)
    assert results.has_barrier
    scores[0.5] = 0.6
    assert not run._evaluate(2, 1.0).has_barrier


def test_a_run_that_keeps_activations_decodes_held_out_images_once_and_has_the_same_curve(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = make_run("whole", blocks=1), make_run("run", blocks=1)
    pixels = run.held_out
    assert isinstance(pixels, HeldOut)
    trunk = run.learner.trunk(SIZE)
    assert trunk is not None
    run.held_out, run.trained_share = run.learner.behind(trunk, pixels), trunk.tail_share
    passes, decoded = list[float](), list[int]()
    run.on_evaluated = passes.append
    readable = run.images.readable

    def counted(rows: Sequence[Sequence[int]]) -> Iterator[Pixels]:
        decoded.append(len(rows))
        return readable(rows)

    monkeypatch.setattr(run.images, "readable", counted)
    before = passes_left(run)
    assert_same(finish(run), finish(whole))
    assert decoded == [2], "nine images in batches of eight"
    assert passes == [8.0, 1.0] + 3 * 2 * [8 * trunk.tail_share, trunk.tail_share]
    assert before == pytest.approx(3 * 3 * 8 * run.update_passes + sum(passes))
    found = run.compare()
    assert (found.labels, found.half) == (whole.compare().labels, whole.compare().half)


@pytest.fixture(scope="module")
def kept() -> list[FinetuneRun]:
    """The run of RECIPE that nothing stopped, once it was made."""
    return []


@pytest.fixture
def whole(make_run: MakeRun, kept: list[FinetuneRun]) -> FinetuneRun:
    """It, with its files, made by the first test that asks for it; not to be changed by a test."""
    if not kept:
        kept.append(finish(make_run("whole")))
    return kept[0]


@pytest.mark.parametrize("updates", [1, 3, 4, 7])
@pytest.mark.cases("lab", every=2)
def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not(
    make_run: MakeRun, whole: FinetuneRun, updates: int
) -> None:
    """27 images make 3 updates an epoch: the stop is within, at the end, and in a later epoch."""
    first = make_run("parts")
    first.start()
    done = 0

    def count(images: int, loss: float) -> None:
        nonlocal done
        done += 1

    assert not first.go(stopping=lambda: done == updates, on_update=count)
    second = make_run("parts")
    second.resume()
    assert second.progress.update == updates % 3
    assert second.go()
    assert_same(second, whole)


def test_a_run_of_the_balanced_loss_that_was_stopped_comes_to_the_same(make_run: MakeRun) -> None:
    uneven = {"counts": (90, 9, 3), "loss": "balanced", "epochs": 2}
    whole, first = finish(make_run("whole", **uneven)), make_run("parts", **uneven)
    first.start()
    assert not first.go(stopping=lambda: first.progress.update == 2)
    second = make_run("parts", **uneven)
    second.resume()
    assert second.go()
    assert_same(second, whole)
    even = finish(make_run("even", **{**uneven, "counts": (9, 9, 9)}))
    assert even.progress.curve[1].loss != whole.progress.curve[1].loss


def test_a_run_that_died_goes_on_from_its_last_checkpoint(make_run: MakeRun, whole: FinetuneRun) -> None:
    first = make_run("parts", checkpoint_every_s=0.0)
    first.start()

    class Died(Exception):
        pass

    def die(images: int, loss: float) -> None:
        if first.progress.epoch == 2 and first.progress.update == 2:
            raise Died  # after the second update, before its checkpoint

    with pytest.raises(Died):
        first.go(on_update=die)
    second = make_run("parts")
    second.resume()
    assert (second.progress.epoch, second.progress.update) == (2, 1)
    assert second.go()
    assert_same(second, whole)


def test_a_finished_run_is_resumed_without_another_update(make_run: MakeRun) -> None:
    finish(make_run(epochs=1))
    again = make_run(epochs=1)
    again.resume()
    assert again.go(on_update=lambda images, loss: pytest.fail("it was finished"))


def test_a_run_with_other_settings_is_not_resumed(make_run: MakeRun) -> None:
    make_run().start()
    with pytest.raises(TrainingError, match=r"finetune.epochs was 3, is 4; finetune.learning_rate was 0.001, is 0.1"):
        make_run(epochs=4, learning_rate=0.1).resume()


def test_that_the_contents_of_images_are_not_known_is_kept_by_every_later_resume(make_run: MakeRun) -> None:
    make_run().start()  # its settings have no digest of contents, as those of 0.2
    second = make_run()
    second.resume()
    assert second.progress.contents_unknown
    second.settings = {**second.settings, CONTENTS: "abc"}
    second.save()
    third = make_run()
    third.settings = second.settings
    third.resume()
    assert third.progress.contents_unknown


def test_a_checkpoint_of_another_program_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    torch.save({"format": 1, "settings": dict(run.settings), "progress": {}}, run.checkpoint)
    with pytest.raises(TrainingError, match="damaged"):
        run.resume()


def test_best_weights_that_are_gone_are_missed(make_run: MakeRun) -> None:
    finish(make_run(epochs=1)).weights.unlink()
    with pytest.raises(TrainingError, match="the best weights so far are gone"):
        make_run(epochs=1).resume()


def test_a_run_that_ends_with_an_epoch_takes_its_weights_whatever_held_out_images_say(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(epochs=9, patience=1)
    run.ends_with = 3
    results = iter([0.4, 0.9, 0.5, 0.6])
    monkeypatch.setattr(run, "_evaluate", lambda epoch, loss: row(epoch, next(results)))
    finish(run)
    assert [row.epoch for row in run.progress.curve] == [0, 1, 2, 3]
    written, now = load_file(run.weights), run.learner.model.state_dict()
    assert all(torch.equal(written[name], now[name]) for name in written)


def test_a_diverging_run_says_where_and_keeps_the_last_good_epoch(make_run: MakeRun) -> None:
    run = make_run(epochs=5)

    def spoil(row: Epoch) -> None:
        if row.epoch == 2:
            with torch.no_grad():
                run.learner.model.visual.proj.fill_(float("nan"))

    run.start()
    with pytest.raises(TrainingError) as caught:
        run.go(on_epoch=spoil)
    message = str(caught.value)
    assert "training diverged in epoch 3 at update 7: the loss is nan" in message
    assert "the best epoch, 2, is in" in message or "the best epoch, 1, is in" in message
    assert "Lower finetune.learning_rate" in message
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(run.weights).values())


def test_a_folder_that_cannot_be_written_is_found_before_training(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    run.checkpoint = tmp_path / "nowhere" / "checkpoint.pt"
    with pytest.raises(TrainingError, match="could not be written"):
        run.start()


def test_a_finished_run_is_extended_from_its_best_weights_by_a_schedule_of_its_own(make_run: MakeRun) -> None:
    """And the same again gives the same, whether it was stopped meanwhile or not."""
    ended = finish(make_run("run", epochs=2))
    best = ended.weights.read_bytes()

    def extended(name: str) -> FinetuneRun:
        run = make_run(name, epochs=4)
        run.weights.write_bytes(best)
        run.extend([Epoch.of_row(row.as_row()) for row in ended.progress.curve], [])
        return run

    first, second = extended("first"), extended("second")
    assert torch.equal(first.learner.model.visual.proj, load_file(ended.weights)["visual.proj"])
    rates: list[float] = []
    update = first.learner.update

    def noted(batches: object, rate: float) -> tuple[float, int]:
        rates.append(rate)
        return update(batches, rate)  # type: ignore[arg-type]

    first.learner.update = noted  # type: ignore[method-assign]
    assert first.go()
    assert [row.epoch for row in first.progress.curve] == [0, 1, 2, 3, 4]
    assert first.progress.extended_after == [2]
    assert rates == [first.recipe.rate(number, 6) for number in range(6)]
    done = 0

    def count(images: int, loss: float) -> None:
        nonlocal done
        done += 1

    assert not second.go(stopping=lambda: done == 4, on_update=count)
    third = make_run("second", epochs=4)
    third.resume()
    assert third.go()
    assert_same(third, first)


def test_patience_begins_anew_with_an_extension(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(make_run("run", epochs=1))
    run = make_run(epochs=9, patience=2)
    run.extend([row(0, 0.4), row(1, 0.9), row(2, 0.8), row(3, 0.8)], [])
    results = iter([0.5, 0.6, 0.7])
    monkeypatch.setattr(run, "_evaluate", lambda epoch, loss: row(epoch, next(results)))
    assert run.go()
    assert run.progress.curve[-1] == row(5, 0.6)


def test_the_best_weights_are_compared_with_theta_0_and_the_middle(make_run: MakeRun) -> None:
    run = finish(make_run(epochs=4))
    best, zero = run.progress.best, run.progress.curve[0]
    assert best is not None
    found = run.compare()
    shares = [
        sum(own == k for own, k in zip(found.labels, expected, strict=True)) / len(found.labels)
        for expected in (found.zero_shot, found.half, found.fine_tuned)
    ]
    assert shares == pytest.approx([zero.accuracy, best.accuracy_half, best.accuracy])


def test_an_image_that_a_balanced_epoch_shows_again_is_cut_anew(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(epochs=1, balanced=True)
    run.train_rows = [*run.train_rows[:9], run.train_rows[-1]]
    draws: list[tuple[int, ...]] = []
    random = Recipe.random

    def noted(recipe: Recipe, *place: int) -> object:
        draws.append(place)
        return random(recipe, *place)

    monkeypatch.setattr(Recipe, "random", noted)
    finish(run)
    again = [place for place in draws if len(place) == 3 and place[2] > 0]
    assert {place[1] for place in again} == {run.train_rows[-1]}
    assert len(again) == len(set(again)) > 1
