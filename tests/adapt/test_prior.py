"""The class prior: what a camera shows corrects its predictions, where it shows few classes and the model works."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from adawise.adapt.prior import KEPT, Array, ClassPrior, continued
from adawise.adapt.shortlist import Shortlist, Shortlists, digest_of
from adawise.adapt.state import StreamState, largest_bytes
from adawise.errors import ChainError
from adawise.worker.adaptation import Adaptation, Adapted
from tests.adapt.curves import GRID
from tests.adapt.test_shortlist import CLASSES, LISTED, ONES, Random, batches, made, served
from tests.adapt.test_shortlist import KEPT as LISTED_PLACES

Places: TypeAlias = "npt.NDArray[np.int64]"

DIGEST = digest_of(CLASSES)


def probabilities(rng: np.random.Generator, truth: Places, C: int, sharpness: float = 1.0) -> Array:
    """Calibrated probabilities of a model that is right for some .7 of the images (one that is `sharpness` 1)."""
    distance = sharpness * np.sqrt(2.0 * np.log(C))
    z = distance * rng.normal(0.0, 1.0, (len(truth), C))
    z[np.arange(len(truth)), truth] += distance**2
    p: Array = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p


def seen(classes: Places, C: int, images: int = 640, batch: int = 16, sharpness: float = 1.0) -> ClassPrior:
    """The prior after images of equally frequent classes."""
    rng, prior = np.random.default_rng(len(classes)), ClassPrior(DIGEST)
    for _ in range(images // batch):
        prior = prior.observed(probabilities(rng, rng.choice(classes, batch), C, sharpness))
    return prior


@pytest.mark.parametrize("batch", [1, 3, 16, 32])
@pytest.mark.parametrize(("shown", "C"), [(1, 10), (1, 100), (5, 100), (5, 1000), (20, 1000), (20, 10_000)])
def test_a_camera_that_shows_few_classes_is_corrected(shown: int, C: int, batch: int) -> None:
    prior = seen(np.arange(shown), C, 320 if C < 10_000 else 160, batch)
    rng = np.random.default_rng(7)
    truth = rng.choice(shown, 200)
    p = probabilities(rng, truth, C)
    assert prior.gate(C) > 0.3
    right, was = ((found.argmax(axis=1) == truth).mean() for found in (prior.corrected(p), p))
    assert right > was + 0.05
    assert prior.corrected(p).sum(axis=1) == pytest.approx(np.ones(len(p)))


@pytest.mark.parametrize("C", [2, 3, 7, 10, 100, 1000])
def test_a_camera_that_shows_every_class_is_served_as_without_a_prior(C: int) -> None:
    prior = seen(np.arange(C), C)
    p = probabilities(np.random.default_rng(7), np.arange(C), C)
    assert prior.gate(C) == 0.0
    assert np.allclose(prior.corrected(p), p, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("C", [2, 7])
def test_among_few_classes_one_that_is_almost_alone_opens_the_gate(C: int) -> None:
    prior = seen(np.array([1]), C, sharpness=2.0)
    assert prior.gate(C) > 0.5


def test_a_model_that_is_unsure_of_what_it_sees_is_not_believed() -> None:
    rng, prior = np.random.default_rng(3), ClassPrior(DIGEST)
    lean = rng.normal(0.0, 1.5, 100)  # it has collapsed: classes come from what it always says, and from noise
    for _ in range(120):
        p = np.exp(lean + rng.normal(0.0, 1.2, (16, 100)))
        prior = prior.observed(p / p.sum(axis=1, keepdims=True))
        assert prior.gate(100) == 0.0
    sure = replace(prior, confidence=prior.images)
    assert sure.gate(100) == 1.0  # few classes are counted, so that the other gate alone would be open


def test_the_gate_is_closed_for_the_first_images() -> None:
    p = probabilities(np.random.default_rng(0), np.zeros(5, int), 100)
    gates, prior = [], ClassPrior(DIGEST)
    for _ in range(8):
        prior = prior.observed(p)
        gates.append(prior.gate(100))
    assert gates[:3] == [0.0, 0.0, 0.0]
    assert gates[-1] > 0.5


def test_a_class_that_is_gone_is_forgotten_and_a_new_one_is_found() -> None:
    rng = np.random.default_rng(1)
    prior = seen(np.array([4]), 50)
    for _ in range(100):
        prior = prior.observed(probabilities(rng, np.full(16, 9), 50))
    assert max(zip(prior.counts, prior.places, strict=True))[1] == 9
    p = probabilities(rng, np.full(200, 9), 50)
    assert (prior.corrected(p).argmax(axis=1) == 9).mean() > (p.argmax(axis=1) == 9).mean()


def test_the_largest_counts_are_kept_and_the_others_share_the_rest() -> None:
    C = 500
    prior = seen(np.arange(3), C)
    assert len(prior.places) == KEPT
    assert {0, 1, 2} <= {*prior.places}
    images = sum(16 * 0.5 ** (16 * n / 320) for n in range(40))
    assert prior.images == pytest.approx(images, rel=1e-5)
    assert min(prior.counts) >= prior.rest / (C - KEPT) * 0.99


def test_a_prior_of_other_classes_is_begun_anew() -> None:
    prior = seen(np.arange(2), 12)
    assert continued(prior, DIGEST, 12) is prior
    assert continued(prior, "0" * 12, 12) == ClassPrior("0" * 12)
    assert continued(None, DIGEST, 12) == ClassPrior(DIGEST)
    assert continued(prior, DIGEST, 5) == ClassPrior(DIGEST)  # damaged: it has a place that there is not


CLOCKS: dict[str, Any] = {"milliseconds": {}, "predicted_at_us": 0}
WITH = Adaptation(made(), Random(), ONES, 3, prior_of=DIGEST)


def test_beside_a_prior_everything_else_is_as_without_one() -> None:
    plain = Adaptation(made(), Random(), ONES, 3)
    both = [served(each, batches(8), made().initial()) for each in (plain, WITH)]
    for without, beside in zip(*both, strict=True):
        assert replace(beside.state, prior=None).to_bytes() == without.state.to_bytes()
        assert repr(replace(beside.trace, **CLOCKS, scene_gate=None)) == repr(replace(without.trace, **CLOCKS))
        assert beside.predictions.top_index.tolist() == without.predictions.top_index.tolist()
        assert beside.predictions.top_probability.tobytes() == without.predictions.top_probability.tobytes()
        assert (without.predictions.scene_index, without.trace.scene_gate) == (None, None)
        assert b"prior" not in without.state.to_bytes()


class OneClass(Random):
    """Random logits, with class 3 ahead of most others."""

    def logits(self, alpha_index: int, *images: Any) -> Any:
        z = super().logits(alpha_index, *images)
        z[:, 3] += 7.0
        return z


def labels(found: list[Adapted]) -> list[list[int]]:
    return [
        adapted.predictions.scene_index.tolist() for adapted in found if adapted.predictions.scene_index is not None
    ]


@pytest.mark.parametrize("shortlists", [Shortlists(), Shortlists((("yard-*", LISTED),))])
def test_a_camera_of_one_class_is_corrected_towards_it(shortlists: Shortlists) -> None:
    adaptation = Adaptation(made(), OneClass(), ONES, 3, shortlists, prior_of=DIGEST)
    found = served(adaptation, batches(10), made().initial())
    assert found[0].trace.scene_gate is not None
    assert (found[-1].trace.scene_gate or 0.0) > 0.5
    corrected = np.array(labels(found)[5:])
    plain = np.array([adapted.predictions.top_index[:, 0] for adapted in found[5:]])
    assert (plain == 3).mean() < (corrected == 3).mean()
    if shortlists.rules:
        assert {*corrected.ravel().tolist()} <= {*LISTED_PLACES}
        assert found[-1].state.prior is not None
        assert found[-1].state.prior.classes == LISTED.digest


def test_a_worker_that_restarts_after_each_batch_goes_on_with_the_same_bits() -> None:
    adaptation = Adaptation(made(), OneClass(), ONES, 3, prior_of=DIGEST)
    running, restarted, state = [], [], made().initial()
    for batch, adapted in zip(batches(6), served(adaptation, batches(6), made().initial()), strict=True):
        (again,) = adaptation.run([batch], [StreamState.from_bytes(state.to_bytes())])
        state = again.state
        running.append(adapted.state.to_bytes())
        restarted.append(again.state.to_bytes())
    assert restarted == running


def test_the_usual_first_batch_decides_alike_whatever_rounding_does_to_it() -> None:
    rng = np.random.default_rng(5)
    gates = [seen(np.array([3]), 100, images=16).gate(100)]
    for _ in range(200):
        gates.append(ClassPrior(DIGEST).observed(probabilities(rng, np.full(16, 3), 100)).gate(100))
    assert np.mean(np.array(gates) > 0.0) > 0.9


def test_cameras_of_one_round_have_the_same_bits_as_alone() -> None:
    adaptation = Adaptation(made(), OneClass(), ONES, 3, prior_of=DIGEST)
    begun = [served(adaptation, batches(n), made().initial())[-1].state if n else made().initial() for n in range(8)]
    round_of = [batches(n + 1, f"yard-{n}", images=3 * n + 1)[n] for n in range(8)]
    together = adaptation.run(round_of, begun)
    alone = [adaptation.run([batch], [state])[0] for batch, state in zip(round_of, begun, strict=True)]
    assert [adapted.state.to_bytes() for adapted in together] == [adapted.state.to_bytes() for adapted in alone]
    assert [adapted.trace.scene_gate for adapted in together] == [adapted.trace.scene_gate for adapted in alone]
    assert labels(together) == labels(alone)
    assert len({adapted.state.prior for adapted in together}) == 8


def test_images_whose_logits_are_not_finite_teach_nothing() -> None:
    class Fails(OneClass):
        def logits(self, alpha_index: int, *images: Any) -> Any:
            return super().logits(alpha_index, *images) * float("nan")

    good = Adaptation(made(), OneClass(), ONES, 3, prior_of=DIGEST)
    state = served(good, batches(6), made().initial())[-1].state
    (failed,) = Adaptation(made(), Fails(), ONES, 3, prior_of=DIGEST).run(batches(1), [state])
    assert failed.state.prior == state.prior
    assert failed.predictions.scene_index is not None
    assert failed.predictions.scene_index.tolist() == failed.predictions.top_index[:, 0].tolist()


def test_a_new_shortlist_begins_a_new_prior_and_a_prior_that_is_switched_off_is_forgotten() -> None:
    first = Adaptation(made(), OneClass(), ONES, 3, Shortlists((("*", LISTED),)), prior_of=DIGEST)
    state = served(first, batches(6), made().initial())[-1].state
    second = replace(first, shortlists=Shortlists((("*", Shortlist.of((0, 1, 3), CLASSES)),)))
    (changed,) = second.run(batches(1), [state])
    assert changed.state.prior is not None
    assert sum(changed.state.prior.counts) == pytest.approx(16.0, rel=1e-6)
    (off,) = replace(first, prior_of=None).run(batches(1), [state])
    assert off.state.prior is None


def test_the_largest_state_has_room_for_a_prior_and_less_than_a_kibibyte_of_it() -> None:
    state = served(WITH, batches(30), made().initial())[-1].state
    bound = [largest_bytes(state.key, len(GRID), conditions=8, prior=prior) for prior in (False, True)]
    assert len(state.to_bytes()) <= bound[1]
    assert bound[1] - bound[0] < 1024
    widest = replace(state, prior=seen(np.arange(3), 60_000, images=32))
    assert len(widest.to_bytes()) - len(replace(state, prior=None).to_bytes()) <= bound[1] - bound[0]


def packed(*counts: tuple[int, float]) -> str:
    return base64.b64encode(np.array([*counts], [("place", "<u4"), ("images", "<f4")]).tobytes()).decode()


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        "text",
        ["", "", "", ""],
        ["0" * 12, base64.b64encode(b"1234567").decode(), 0.0, 0.0],  # no whole count
        ["0" * 12, packed((1, 1.0), (0, 1.0)), 0.0, 0.0],  # not ascending
        ["0" * 12, packed((0, 1.0), (0, 1.0)), 0.0, 0.0],
        ["0" * 12, packed((0, float("nan"))), 0.0, 0.0],
        ["0" * 12, packed((0, -1.0)), 0.0, 0.0],
        ["0" * 12, packed((0, 1.0)), 1e400, 0.0],
        ["0" * 12, packed((0, 1.0)), 0.0, -1.0],
        ["0" * 12, packed((0, 1.0)), 0, 0.0],
        ["0" * 12, packed(*((n, 1.0) for n in range(KEPT + 1))), 0.0, 0.0],
        [7, packed((0, 1.0)), 0.0, 0.0],
    ],
)
def test_a_prior_that_no_camera_has_is_damaged(value: object) -> None:
    parts = json.loads(made().initial().to_bytes())
    assert StreamState.from_bytes(json.dumps(parts).encode()).prior is None
    with pytest.raises(ChainError, match="adaptation state"):
        StreamState.from_bytes(json.dumps({**parts, "prior": value}).encode())
