"""Whether labels prove `scene_label`: the decision by counts of batches, and the rows that count."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from adawise.errors import SettingsError
from adawise.sink.served_by import ServedSettings
from adawise_lab.card.scene_proof import BOUND, BatchCount, _windows, decide, shrunken

CAMERAS = tuple(f"camera-{n}" for n in range(6))


def batches(camera: str, gain: float, *, label: float = 0.6, count: int = 60, seed: int = 0) -> Iterator[BatchCount]:
    """Batches of four labelled images, of which `label` and then `gain` more are right on average."""
    rng = np.random.default_rng([seed, *camera.encode()])
    for n in range(count):
        right = int(rng.binomial(4, label))
        more = int(rng.binomial(4 - right, min(1.0, max(0.0, gain) / (1.0 - label))))
        fewer = int(rng.binomial(right, min(1.0, max(0.0, -gain) / label)))
        yield BatchCount(camera, f"{camera}, condition {n % 2}", 4, right, right + more - fewer)


def test_a_gain_at_all_cameras_proves_the_scene() -> None:
    proof = decide([each for camera in CAMERAS for each in batches(camera, 0.1)], "d", "root")
    assert proof.proves
    assert (proof.images, proof.batches, proof.cameras, proof.settings, proof.bound) == (1440, 360, 6, "d", BOUND)
    assert proof.gain[0] == pytest.approx(0.1, abs=0.02)
    assert 0.0 < proof.gain[1] < proof.gain[0] < proof.gain[2]
    assert proof.worst_gain == pytest.approx(proof.gain[0], abs=0.03), "chance explains what cameras differ by"


def test_no_gain_and_a_gain_of_few_labels_prove_nothing() -> None:
    equal = decide([each for camera in CAMERAS for each in batches(camera, 0.0)], "d", "root")
    assert not equal.proves
    assert equal.gain == (0.0, 0.0, 0.0)
    few = decide([*batches(CAMERAS[0], 0.01, count=60)], "d", "root")
    assert not few.proves
    assert few.gain[1] <= 0.0


def test_a_mean_gain_that_hides_a_worse_camera_proves_nothing() -> None:
    good = [each for camera in CAMERAS[1:] for each in batches(camera, 0.3)]
    proof = decide([*good, *batches(CAMERAS[0], -0.12)], "d", "root")
    assert proof.gain[1] > 0.0, "the mean alone would be a proof"
    assert CAMERAS[0] in proof.worst
    assert proof.worst_gain < -0.05
    assert not proof.proves


def test_a_gain_at_one_camera_of_two_is_no_proof_for_cameras() -> None:
    alone = [*batches(CAMERAS[0], 0.3)]
    assert decide(alone, "d", "root").proves
    both = decide([*alone, *batches(CAMERAS[1], 0.0)], "d", "root")
    assert not both.proves, "cameras are drawn whole"
    assert both.gain[1] == pytest.approx(0.0)


@pytest.mark.parametrize(("cameras", "count"), [(1, 40), (2, 19)])
def test_with_too_few_labels_nothing_is_decided(cameras: int, count: int) -> None:
    rows = [each for camera in CAMERAS[:cameras] for each in batches(camera, 0.3, count=count)]
    with pytest.raises(SettingsError, match=f"root: expected at least 200 .* there are {4 * cameras * count} of"):
        decide(rows, "d", "root")


def test_groups_are_drawn_together_as_far_as_chance_explains_their_distance() -> None:
    rng = np.random.default_rng(0)

    def group(gain: float, images: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        gained = rng.choice([1.0, -1.0, 0.0], size=images, p=[0.2 + gain / 2, 0.2 - gain / 2, 0.6])
        return np.stack([np.ones(images), gained], axis=1)

    alike = {str(n): group(0.1, 60) for n in range(8)}
    raw = [float(rows[:, 1].mean()) for rows in alike.values()]
    assert max(raw) - min(raw) > 0.1
    found = shrunken(alike)
    assert max(found.values()) - min(found.values()) < 0.6 * (max(raw) - min(raw))
    apart = {**{str(n): group(0.3, 400) for n in range(8)}, "bad": group(-0.2, 400)}
    assert shrunken(apart)["bad"] == pytest.approx(float(apart["bad"][:, 1].mean()), abs=0.02)
    assert shrunken({"one": alike["0"]}) == {"one": pytest.approx(raw[0])}


def noted(model: str, card: str, day: int) -> ServedSettings:
    return ServedSettings(model, f"{card}{day}", f"2026-05-{day:02}T00:00:00+00:00", {"model.card": card}, {})


def test_rows_count_until_another_card_serves_the_same_pair() -> None:
    (window,) = _windows([noted("m", "ours", 1), noted("m", "ours", 4), noted("other", "theirs", 2)], "ours")
    assert (window.model, window.since, window.until) == ("m", None, None)
    (window,) = _windows([noted("m", "theirs", 1), noted("m", "ours", 3), noted("m", "theirs", 5)], "ours")
    assert (window.since and window.since.day, window.until and window.until.day) == (3, 5)
    assert _windows([noted("m", "theirs", 1)], "ours") == []
