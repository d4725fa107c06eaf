"""Smoothing: neighbouring frames correct each other where their order says something, and nowhere else."""

from __future__ import annotations

import base64
import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adawise.adapt.prior import Array, ClassPrior
from adawise.adapt.shortlist import Shortlist, Shortlists
from adawise.adapt.smoothing import (
    LARGEST,
    STAYS,
    Smoothing,
    _backward,
    _filtered,
    _neighbourhood,
    _sketches,
    continued,
    corrected,
)
from adawise.adapt.state import StreamState, largest_bytes
from adawise.errors import ChainError
from adawise.records import Predictions
from adawise.worker.adaptation import Adaptation, Adapted
from tests.adapt.curves import GRID
from tests.adapt.test_prior import CLOCKS, DIGEST, OneClass, Places, probabilities
from tests.adapt.test_shortlist import CLASSES, LISTED, ONES, Random, batches, made, served

C = 50


def in_runs(rng: np.random.Generator, shown: int, images: int, longest: int = 12) -> Places:
    """Classes in runs of 4 to `longest` images."""
    found: list[int] = []
    while len(found) < images:
        found += [int(rng.integers(shown))] * int(rng.integers(4, longest + 1))
    return np.array(found[:images])


def smoothed(
    p: Array, batch: int, prior: ClassPrior | None = None, before: Smoothing | None = None
) -> tuple[Smoothing, Array, Array, list[float]]:
    """The state after a stream, what it makes of the images, the same by the class prior alone, and the weights."""
    prior, state = prior or ClassPrior(DIGEST), before or Smoothing(DIGEST)
    found, plain, weights = [], [], []
    for first in range(0, len(p), batch):
        some = p[first : first + batch]
        prior = prior.observed(some)
        corrected = prior.corrected(some)
        state, q, weight = state.smoothed(some, corrected, prior)
        found.append(q)
        plain.append(corrected)
        weights.append(weight)
        assert state.is_sound()
    return state, np.concatenate(found), np.concatenate(plain), weights


def accuracy(q: Array, truth: Places) -> float:
    return float((q.argmax(axis=1) == truth).mean())


@pytest.mark.parametrize("shown", [5, C])
@pytest.mark.parametrize("batch", [1, 3, 16, 32])
def test_frames_that_come_in_runs_correct_each_other(batch: int, shown: int) -> None:
    rng = np.random.default_rng(2)
    truth = in_runs(rng, shown, 480)
    p = probabilities(rng, truth, C, 0.85)
    _, q, plain, weights = smoothed(p, batch)
    assert accuracy(q, truth) > accuracy(plain, truth) + 0.08
    assert max(weights) > 0.9
    assert q.sum(axis=1) == pytest.approx(np.ones(len(q)))


@pytest.mark.parametrize("batch", [1, 3, 16, 32])
def test_the_same_frames_in_no_order_are_left_as_they_are(batch: int) -> None:
    rng = np.random.default_rng(2)
    truth = rng.permutation(in_runs(rng, 5, 480))
    _, q, plain, weights = smoothed(probabilities(rng, truth, C, 0.85), batch)
    assert max(weights) < 0.05
    assert np.mean(weights) < 0.01
    assert accuracy(q, truth) >= accuracy(plain, truth) - 0.005


def test_a_model_that_says_another_class_in_each_condition_is_no_order() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, C, 640)
    p = probabilities(rng, truth, C)
    lean = np.exp(rng.normal(0.0, 1.0, (2, C)))
    p *= lean[(np.arange(640) // 32) % 2]  # conditions alternate every two batches, each with classes of its own
    p /= p.sum(axis=1, keepdims=True)
    assert max(smoothed(p, 16)[3]) < 0.05


def test_two_objects_that_alternate_are_not_smoothed() -> None:
    rng = np.random.default_rng(5)
    truth = np.arange(480) % 2
    _, q, plain, weights = smoothed(probabilities(rng, truth, C), 16)
    assert max(weights) < 0.01
    assert np.allclose(q, plain)


def test_frames_that_are_almost_one_picture_are_not_taken_for_many() -> None:
    rng = np.random.default_rng(6)
    truth = np.repeat(rng.integers(0, 5, 60), 8)
    once = probabilities(rng, truth[::8], C, 0.8)
    p = np.repeat(once, 8, axis=0) * np.exp(rng.normal(0.0, 0.3, (480, C)))
    p /= p.sum(axis=1, keepdims=True)
    state, _, _, weights = smoothed(p, 16)
    assert sum(state.weights()) > 0.9  # their order says much, but
    assert state.likeness > 0.9
    assert max(weights) == 0.0


def test_a_model_that_is_unsure_of_what_it_sees_is_not_smoothed() -> None:
    rng = np.random.default_rng(7)
    p = probabilities(rng, in_runs(rng, 5, 480), C, 0.5)
    state, _, _, weights = smoothed(p, 16)
    assert sum(state.weights()) > 0.5
    assert max(weights) == 0.0


def test_a_camera_that_changes_its_ways_is_followed() -> None:
    rng = np.random.default_rng(8)
    ordered = in_runs(rng, 5, 320)
    truth = np.concatenate([ordered, rng.permutation(ordered), in_runs(rng, 5, 320)])
    weights = np.array(smoothed(probabilities(rng, truth, C), 16)[3])
    assert weights[10:20].min() > 0.5
    assert weights[25:40].max() < 0.05
    assert weights[-5:].min() > 0.5


@pytest.mark.parametrize("s", range(len(STAYS)))
def test_posteriors_and_evidence_are_those_of_all_paths_together(s: int) -> None:
    rng = np.random.default_rng(9)
    N, classes = 5, 3
    p, jump, last = (rng.dirichlet(np.ones(classes), n) for n in (N, 1, 1))
    jump, last = jump[0], last[0]
    before, scales, after_all = _filtered(p, jump, last)
    found = before[:, s] * p * _backward(p, jump, scales)[:, s]
    found /= found.sum(axis=1, keepdims=True)
    expected, totals = np.zeros((N, classes)), np.zeros((N + 1, classes))
    for path in itertools.product(range(classes), repeat=N):
        for begun in range(classes):
            steps = zip((begun, *path), path, strict=False)
            chance = last[begun] * np.prod([STAYS[s] * (a == b) + (1.0 - STAYS[s]) * jump[b] for a, b in steps])
            for n in range(N):
                counted = np.sqrt(p[range(N), path])
                counted[n] = p[n, path[n]]  # the image itself counts fully
                expected[n, path[n]] += chance * counted.prod()
                totals[n, path[n]] += chance * np.sqrt(p[range(n), path[:n]]).prod()
            totals[N, path[-1]] += chance * np.sqrt(p[range(N), path]).prod()
    assert found == pytest.approx(expected / expected.sum(axis=1, keepdims=True))
    assert before[:, s] == pytest.approx(totals[:N] / totals[:N].sum(axis=1, keepdims=True))
    if s == 0:
        others = _filtered(p, jump, last)[2]
        assert others == pytest.approx(after_all)
        assert after_all.sum() == pytest.approx(1.0)


def test_the_neighbourhood_of_an_image_does_not_know_the_image() -> None:
    rng = np.random.default_rng(10)
    p = rng.dirichlet(np.ones(4), 6)
    jump, recent = rng.dirichlet(np.ones(4)), 3.0 * rng.dirichlet(np.ones(4))
    _, evidence = _neighbourhood(p, recent, jump)
    shown = p * (recent + 4.0 * jump)
    shown /= shown.sum(axis=1, keepdims=True)
    for n in range(6):
        others = recent + 4.0 * jump + np.delete(shown, n, axis=0).sum(axis=0)
        assert evidence[n] == pytest.approx(np.log((p[n] * others / others.sum()).sum()))


class Reference:
    """Smoothing by its definition, one image and one class after the other, with nothing packed; few classes."""

    def __init__(self) -> None:
        self.last, self.recent = np.full(C_OF, 1.0 / C_OF), np.zeros(C_OF)
        self.evidence, self.alike, self.image = np.full(2, -6.0), np.array([4.0, 3.6]), None

    def smoothed(self, p: Array, corrected: Array, prior: ClassPrior) -> Array:
        N = len(p)
        g = prior.factors(C_OF) / prior.factors(C_OF).sum()
        known = self.recent * 0.5 ** (N / 24) + 4 * g
        shown = np.stack([image * known / (image * known).sum() for image in p])
        mixture = [known + shown.sum(axis=0) - shown[n] for n in range(N)]
        of_mixture = sum(math.log((p[n] * mixture[n]).sum() / mixture[n].sum()) for n in range(N))
        counted = np.stack([p[n] * mixture[n] / (p[n] * mixture[n]).sum() for n in range(N)])
        self.recent = self.recent * 0.5 ** (N / 24) + counted.sum(axis=0)
        found, same, lasts, gained = [], np.zeros(N), [], []
        for s in (0.7, 0.95):
            messages, seen = [], self.last
            for n in range(N):
                predicted = s * seen + (1 - s) * g
                same[n] += (seen * p[n]).sum() / 2
                messages.append(predicted)
                seen = predicted * np.sqrt(p[n]) / (predicted * np.sqrt(p[n])).sum()
            after = [np.ones(C_OF)]
            for n in range(N - 1, 0, -1):
                message = after[0] * np.sqrt(p[n])
                message = s * message + (1 - s) * (message * g).sum()
                after.insert(0, message / message.sum())
            joint = [messages[n] * p[n] * after[n] for n in range(N)]
            found.append(np.stack([q / q.sum() for q in joint]))
            gained.append(sum(math.log((messages[n] * p[n]).sum()) for n in range(N)) - of_mixture)
            lasts.append(seen)
        self.last = np.mean(lasts, axis=0)
        self.evidence = np.clip(self.evidence * 0.5 ** (N / 120) + gained, -20, 8)
        x = np.log(p + 1e-6) - np.log(p + 1e-6).mean(axis=1, keepdims=True)
        before = [self.image, *x[:-1]]
        self.alike = (self.alike - [4.0, 3.6]) * 0.5 ** (N / 64) + [4.0, 3.6]
        for n in range(N):
            if (y := before[n]) is not None:
                self.alike += same[n] * np.array([1.0, (x[n] * y).sum() / np.sqrt((x[n] ** 2).sum() * (y**2).sum())])
        self.image = x[-1]
        r = self.alike[1] / self.alike[0]
        open_ = np.clip((0.88 - r) / 0.08, 0, 1) * np.clip((prior.sureness(C_OF) - 0.36) / 0.1, 0, 1)
        weights = open_ * np.exp(self.evidence) / (64 + np.exp(self.evidence).sum())
        mixed: Array = (1 - weights.sum()) * corrected + sum(w * q for w, q in zip(weights, found, strict=True))
        return mixed


C_OF = 6  # classes: the memory keeps them all, and a sketch is exact


@pytest.mark.parametrize("batch", [1, 5, 16])
def test_it_is_what_its_definition_gives(batch: int) -> None:
    rng = np.random.default_rng(12)
    truth = np.concatenate([in_runs(rng, C_OF, 160), rng.integers(0, C_OF, 32), in_runs(rng, C_OF, 160, 40)])
    z = rng.normal(0.0, 1.6, (len(truth), C_OF))
    z[np.arange(len(truth)), truth] += 2.2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    prior, state, reference, weights = ClassPrior(DIGEST), Smoothing(DIGEST), Reference(), []
    for first in range(0, len(p), batch):
        some = p[first : first + batch]
        prior = prior.observed(some)
        corrected = prior.corrected(some)
        state, q, weight = state.smoothed(some, corrected, prior)
        weights.append(weight)
        assert q == pytest.approx(reference.smoothed(some, corrected, prior), abs=0.02)
        assert state.evidence == pytest.approx(tuple(reference.evidence), abs=1e-3)
        assert state.likeness == pytest.approx(reference.alike[1] / reference.alike[0], abs=0.01)
    assert 0.1 < max(weights) < 1.0
    assert min(weights[len(weights) // 3 :]) < 0.2, "both ends of the gates are seen"


@pytest.mark.parametrize("likeness", [0.93, 0.86, 0.82, 0.7])
@pytest.mark.parametrize("confidence", [0.45, 0.49, 0.52, 0.6])
def test_the_gates_open_step_by_step(likeness: float, confidence: float) -> None:
    rng = np.random.default_rng(15)
    prior = ClassPrior(DIGEST).observed(rng.dirichlet(np.ones(C_OF), 200))
    prior = replace(prior, confidence=confidence * prior.images)
    p = rng.dirichlet(np.ones(C_OF), 1)
    state = Smoothing(DIGEST, evidence=(8.0, 8.0), alike=(400.0, 400.0 * likeness))
    after, _, weight = state.smoothed(p, prior.corrected(p), prior)
    sureness = (confidence - 1 / C_OF) / (1 - 1 / C_OF)
    gates = np.clip([(0.88 - after.likeness) / 0.08, (sureness - 0.36) / 0.1], 0.0, 1.0)
    assert after.likeness == pytest.approx(likeness, abs=0.01)
    assert [0.0 < gate < 1.0 for gate in gates] == [likeness in (0.86, 0.82), confidence in (0.49, 0.52)]
    assert weight == pytest.approx(gates.prod() * after.weights().sum())


def test_sketches_are_as_alike_as_what_they_are_of() -> None:
    rng = np.random.default_rng(13)
    pattern = np.tile(rng.normal(0.0, 1.0, 32), 32)  # what comes again in every 32nd class is not all that counts
    x = pattern * 0.5 + rng.normal(0.0, 1.5, (40, 1024))
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    sketches = _sketches(p)
    found = (sketches @ sketches.T)[np.triu_indices(40, 1)]
    centred = np.log(p + 1e-6) - np.log(p + 1e-6).mean(axis=1, keepdims=True)
    centred /= np.sqrt((centred**2).sum(axis=1, keepdims=True))
    assert found.mean() == pytest.approx((centred @ centred.T)[np.triu_indices(40, 1)].mean(), abs=0.06)


@pytest.mark.parametrize("gap", [20, 45, 70, 95, 400])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_what_a_sure_model_leaves_behind_can_be_read(gap: int, batch: int) -> None:
    rng = np.random.default_rng(gap)
    for _ in range(60):
        z = np.where(rng.random((4 * batch, 5)) < 0.4, 0.0, -gap * rng.random((4 * batch, 5)))
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        state, *_ = smoothed(p, batch)
        written = replace(made().initial(), smoothing=state)
        assert StreamState.from_bytes(written.to_bytes()).smoothing == state


@pytest.mark.parametrize("columns", [None, [2, 5, 7, 11]])
def test_the_corrected_class_and_its_probability_are_those_of_the_tempered_logits(columns: list[int] | None) -> None:
    rng = np.random.default_rng(14)
    K, T = (12, 2.0) if columns is None else (4, 2.0)
    prior, state = ClassPrior(DIGEST), Smoothing(DIGEST, evidence=(8.0, 8.0), alike=(50.0, 10.0))
    z = rng.normal(0.0, 3.0, (16, K))
    z[:, 1] += 8.0
    z[3] = np.nan
    top = np.full((16, 3), 9)
    none = np.zeros((16, 2), np.float32)
    plain = Predictions(top, np.full((16, 3), 0.4, np.float32), np.zeros(16, np.float32), none.astype(int), none)
    chosen = None if columns is None else torch.tensor(columns)
    found = corrected(prior, state, plain, torch.from_numpy(z), T, chosen)
    good = np.delete(z, 3, axis=0)
    p = np.exp(good / T) / np.exp(good / T).sum(axis=1, keepdims=True)
    after = prior.observed(p)
    expected, q, weight = state.smoothed(p, after.corrected(p), after)
    assert found.prior == after
    assert found.weight == pytest.approx(weight)
    assert found.smoothing is not None
    assert found.smoothing.evidence == pytest.approx(expected.evidence)
    assert weight > 0.1
    index, confidence = found.predictions.scene_index, found.predictions.scene_confidence
    assert index is not None
    assert confidence is not None
    best = q.argmax(axis=1)
    assert np.delete(index, 3).tolist() == (best if columns is None else np.array(columns)[best]).tolist()
    assert np.delete(confidence, 3) == pytest.approx(q.max(axis=1), rel=1e-5)
    assert (index[3], confidence[3]) == (9, pytest.approx(0.4))


@pytest.mark.parametrize("classes", [1, 2, 7, 33, 1000])
def test_probabilities_of_zero_and_one_are_smoothed_too(classes: int) -> None:
    rng = np.random.default_rng(11)
    truth = in_runs(rng, min(classes, 3), 320)
    p = np.zeros((320, classes))
    p[np.arange(320), truth] = 1.0
    p[::5] = 0.0
    p[::5, 0] = 1.0
    with np.errstate(all="raise", under="ignore"):
        state, q, _, _ = smoothed(p, 16)
    assert np.isfinite(q).all()
    assert q.sum(axis=1) == pytest.approx(np.ones(320))
    assert np.isfinite(state.evidence).all()


def test_a_state_of_other_classes_is_begun_anew() -> None:
    state = smoothed(probabilities(np.random.default_rng(0), np.arange(16), C), 16)[0]
    assert continued(state, DIGEST, C) is state
    assert continued(state, "0" * 12, C) == Smoothing("0" * 12)
    assert continued(None, DIGEST, C) == Smoothing(DIGEST)
    assert continued(state, DIGEST, 3) == Smoothing(DIGEST)  # damaged: it has a place that there is not


PRIOR = Adaptation(made(), Random(), ONES, 3, prior_of=DIGEST)


def test_beside_smoothing_everything_else_is_as_without_it() -> None:
    both = [served(replace(PRIOR, smooths=smooths), batches(8), made().initial()) for smooths in (False, True)]
    for without, beside in zip(*both, strict=True):
        assert replace(beside.state, smoothing=None).to_bytes() == without.state.to_bytes()
        assert repr(replace(beside.trace, **CLOCKS, scene_smoothing=None)) == repr(replace(without.trace, **CLOCKS))
        assert beside.predictions.top_index.tolist() == without.predictions.top_index.tolist()
        assert beside.predictions.top_probability.tobytes() == without.predictions.top_probability.tobytes()
        assert (without.trace.scene_smoothing, without.state.smoothing) == (None, None)
        assert beside.trace.scene_smoothing is not None
        assert b"smoothing" not in without.state.to_bytes()


class Runs(Random):
    """Random logits, with one class ahead in each six images that follow one another, in the places they are asked."""

    def logits(self, alpha_index: int, *images: Any) -> Any:
        z = super().logits(alpha_index, *images)
        for n in range(len(z)):
            z[n, (n // 6) % 4] += 5.0
        return z


SMOOTHS = Adaptation(made(), Runs(), ONES, 3, prior_of=DIGEST, smooths=True)


def scenes(found: list[Adapted]) -> list[Any]:
    return [None if (index := adapted.predictions.scene_index) is None else index.tolist() for adapted in found]


def test_a_worker_smooths_what_follows_one_another_in_a_batch() -> None:
    found = served(SMOOTHS, batches(20, images=24), made().initial())
    assert (found[-1].trace.scene_smoothing or 0.0) > 0.5
    truth = np.arange(24) // 6
    plain = np.mean([(adapted.predictions.top_index[:, 0] == truth).mean() for adapted in found[10:]])
    beside = np.mean([np.mean(np.array(index) == truth) for index in scenes(found[10:])])
    assert beside > plain + 0.05


def test_a_worker_that_restarts_after_each_batch_goes_on_with_the_same_bits() -> None:
    running = served(SMOOTHS, batches(12), made().initial())
    restarted, state = [], made().initial()
    for batch in batches(12):
        (again,) = SMOOTHS.run([batch], [StreamState.from_bytes(state.to_bytes())])
        state = again.state
        restarted.append(again)
    assert [a.state.to_bytes() for a in restarted] == [a.state.to_bytes() for a in running]
    assert scenes(restarted) == scenes(running)
    assert [a.trace.scene_smoothing for a in restarted] == [a.trace.scene_smoothing for a in running]


def test_cameras_of_one_round_have_the_same_bits_as_alone() -> None:
    one = replace(SMOOTHS, classifier=OneClass())
    begun = [served(one, batches(n), made().initial())[-1].state if n else made().initial() for n in range(8)]
    round_of = [batches(n + 1, f"yard-{n}", images=3 * n + 1)[n] for n in range(8)]
    together = one.run(round_of, begun)
    alone = [one.run([batch], [state])[0] for batch, state in zip(round_of, begun, strict=True)]
    assert [a.state.to_bytes() for a in together] == [a.state.to_bytes() for a in alone]
    assert [a.trace.scene_smoothing for a in together] == [a.trace.scene_smoothing for a in alone]
    assert scenes(together) == scenes(alone)
    assert len({a.state.smoothing for a in together}) == 8


def test_images_whose_logits_are_not_finite_teach_nothing() -> None:
    class Fails(Runs):
        def logits(self, alpha_index: int, *images: Any) -> Any:
            return super().logits(alpha_index, *images) * float("nan")

    state = served(SMOOTHS, batches(6), made().initial())[-1].state
    (failed,) = replace(SMOOTHS, classifier=Fails()).run(batches(1), [state])
    assert failed.state.smoothing == state.smoothing
    assert failed.trace.scene_smoothing == 0.0
    assert scenes([failed]) == [failed.predictions.top_index[:, 0].tolist()]


def test_a_new_shortlist_begins_anew_and_smoothing_that_is_switched_off_is_forgotten() -> None:
    first = replace(SMOOTHS, classifier=OneClass(), shortlists=Shortlists((("*", LISTED),)))
    state = served(first, batches(6), made().initial())[-1].state
    assert state.smoothing is not None
    assert state.smoothing.classes == LISTED.digest
    second = replace(first, shortlists=Shortlists((("*", Shortlist.of((0, 1, 3), CLASSES)),)))
    (changed,) = second.run(batches(1), [state])
    (fresh,) = second.run(batches(1), [made().initial()])
    assert changed.state.smoothing is not None
    assert changed.state.smoothing == fresh.state.smoothing
    (off,) = replace(first, smooths=False).run(batches(1), [state])
    assert off.state.smoothing is None
    assert off.state.prior is not None


def test_the_largest_state_has_room_for_a_scene() -> None:
    plain, prior, both = (
        largest_bytes("key", len(GRID), conditions=8, prior=prior, smoothing=smoothing)
        for prior, smoothing in ((False, False), (True, False), (True, True))
    )
    assert both - prior < 400
    assert both - plain < 1200
    state = served(SMOOTHS, batches(30), made().initial())[-1].state
    assert len(state.to_bytes()) - len(replace(state, smoothing=None).to_bytes()) <= both - prior
    rng = np.random.default_rng(3)
    widest = replace(state, smoothing=smoothed(probabilities(rng, np.arange(32), 60_000), 16)[0])
    assert len(widest.to_bytes()) - len(replace(state, smoothing=None).to_bytes()) == both - prior


def packed(*counts: tuple[int, float]) -> str:
    return base64.b64encode(np.array([*counts], [("place", "<u4"), ("images", "<f4")]).tobytes()).decode()


def numbers(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


SKETCH = base64.b64encode(bytes(32)).decode()
GOOD: list[Any] = ["0" * 12, packed((0, 1.0)), packed((0, 1.0)), SKETCH, numbers(0, 0, 0, 1, 0.5)]


def with_smoothing(value: object) -> bytes:
    return json.dumps({**json.loads(made().initial().to_bytes()), "smoothing": value}).encode()


def test_states_of_earlier_versions_have_no_smoothing_and_a_sound_one_is_read() -> None:
    assert StreamState.from_bytes(made().initial().to_bytes()).smoothing is None
    assert StreamState.from_bytes(with_smoothing(GOOD)).smoothing is not None
    state = replace(made().initial(), smoothing=LARGEST)
    with pytest.raises(ChainError, match="adaptation state"):
        StreamState.from_bytes(state.to_bytes())  # all its places are 0: it is large, and no camera has it


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 7),
        (1, packed((1, 1.0), (0, 1.0))),  # not ascending
        (1, packed(*((n, 1.0) for n in range(7)))),
        (1, "AAAA"),
        (2, packed((0, float("nan")))),
        (2, packed(*((n, 1.0) for n in range(17)))),
        (3, base64.b64encode(bytes(31)).decode()),
        (4, numbers(0, 0, 0, 1)),
        (4, numbers(0, 0, 0, 1, 0.5, 0)),
        (4, numbers(-1, 0, 0, 1, 0.5)),
        (4, numbers(float("nan"), 0, 0, 1, 0.5)),
        (4, numbers(0, 9, 0, 1, 0.5)),
        (4, numbers(0, 0, -21, 1, 0.5)),
        (4, numbers(0, float("nan"), 0, 1, 0.5)),
        (4, numbers(0, 0, 0, -1, 0.0)),
        (4, numbers(0, 0, 0, 1, 2)),
        (4, numbers(0, 0, 0, float("inf"), 0)),
        (4, ""),
    ],
)
def test_smoothing_that_no_camera_has_is_damaged(place: int, value: object) -> None:
    with pytest.raises(ChainError, match="adaptation state"):
        StreamState.from_bytes(with_smoothing([*GOOD[:place], value, *GOOD[place + 1 :]]))


@pytest.mark.parametrize("value", [[], {}, "text", GOOD[:-1], [*GOOD, ""]])
def test_smoothing_of_another_form_is_damaged(value: object) -> None:
    with pytest.raises(ChainError, match="adaptation state"):
        StreamState.from_bytes(with_smoothing(value))
