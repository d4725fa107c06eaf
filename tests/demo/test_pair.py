"""The committed pair: open_clip loads it, it is small, its text is shared, and its endpoints differ as they should."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file

from adawise.demo.scene import CLASSES
from tools.demo_pair import table
from tools.demo_pair.dataset import Frames
from tools.demo_pair.model import MODEL_CFG, PAIR, SIZE, TEMPLATES, load, text_head
from tools.demo_pair.table import Split, choices, markdown, measure, rendered, served

HELD_OUT_SEED = 31_000  # cameras that are neither in training, nor in validation, nor in the test of the table
MEASURED = ("clear", "night", "fog", "low_bitrate")
MEBIBYTE = 2**20
ALPHAS = tuple(sorted({*table.ALPHAS[::2], *table.SHOWN}))


@pytest.fixture(scope="module", autouse=True)
def _fewer_alphas() -> Iterator[None]:
    """Not all of the grid; a forward of all frames at each is what takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ALPHAS", ALPHAS)
        yield


@functools.cache
def pair() -> tuple[CLIP, CLIP]:
    return load(PAIR / "theta_0"), load(PAIR / "theta_1")


@functools.cache
def frames() -> dict[str, Frames]:
    return rendered(HELD_OUT_SEED, 160, SIZE, MEASURED)


@functools.cache
def measured() -> Split:
    theta_0, theta_1 = pair()
    return measure(theta_0, theta_1, text_head(theta_0), frames())


def test_both_files_together_take_at_most_12_mib() -> None:
    sizes = [path.stat().st_size for path in PAIR.rglob("*.safetensors")]
    assert len(sizes) == 2
    assert sum(sizes) <= 12 * MEBIBYTE


def test_the_pair_is_stored_in_fp16() -> None:
    for name in ("theta_0", "theta_1"):
        tensors = load_file(PAIR / name / "open_clip_model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_open_clip_loads_model_transform_and_tokenizer_from_the_folder() -> None:
    location = f"local-dir:{PAIR / 'theta_0'}"
    model, _, preprocess = open_clip.create_model_and_transforms(location)
    tokens = open_clip.get_tokenizer(location)(["a photo of a car."])
    assert model.visual.image_size == (SIZE, SIZE)
    assert tokens.shape == (1, MODEL_CFG["text_cfg"]["context_length"])
    assert "mean=(0.5, 0.5, 0.5)" in str(preprocess).replace("[", "(").replace("]", ")")


def test_the_towers_share_text_and_scale_and_differ_in_the_image_tower() -> None:
    zero, one = (model.state_dict() for model in pair())
    assert zero.keys() == one.keys()
    shared = [key for key in zero if not key.startswith("visual.")]
    assert "token_embedding.weight" in shared
    assert "logit_scale" in shared
    assert all(torch.equal(zero[key], one[key]) for key in shared)
    assert not torch.equal(zero["visual.conv1.weight"], one["visual.conv1.weight"])


def test_classes_and_templates_are_those_that_the_pair_was_trained_with() -> None:
    assert tuple((PAIR / "classes.txt").read_text(encoding="utf-8").splitlines()) == CLASSES
    assert tuple((PAIR / "templates.txt").read_text(encoding="utf-8").splitlines()) == TEMPLATES


def test_the_class_captions_are_far_apart() -> None:
    head = text_head(pair()[0])
    likeness = head @ head.T - torch.eye(len(CLASSES))
    assert float(likeness.abs().max()) < 0.3


@pytest.mark.check("models")
def test_fine_tuning_gains_on_clear_days_and_loses_at_night_and_in_fog() -> None:
    gain = {c: float(measured().accuracy(c)[-1] - measured().accuracy(c)[0]) for c in ("clear", "night", "fog")}
    assert gain["clear"] > 0.02
    assert gain["night"] < -0.02
    assert gain["fog"] < -0.02


@pytest.mark.check("models")
def test_entropy_chooses_better_than_either_end_and_than_the_middle() -> None:
    chosen = choices(measured())
    mean = {way: served(measured(), indices) for way, indices in chosen.items()}
    assert mean["`entropy`"] > max(mean["zero-shot"], mean["fine-tuned"], mean["fixed .5"])


@pytest.mark.check("models")
def test_the_best_alpha_differs_by_condition() -> None:
    best = {c: ALPHAS[int(measured().accuracy(c).argmax())] for c in measured().logits}
    assert best["clear"] >= 0.5
    assert min(best.values()) <= 0.3


@pytest.mark.check("models")
def test_the_ways_to_choose_alpha_are_compared_in_one_table() -> None:
    chosen = choices(measured())
    assert all(0 <= index < len(ALPHAS) for way in chosen.values() for index in way.values())
    oracle = chosen["oracle"]
    for condition in measured().logits:
        accuracy = measured().accuracy(condition)
        assert accuracy[oracle[condition]] == accuracy.max()
    written = markdown(measured(), chosen)
    assert all(condition in written for condition in measured().logits)
    assert all(way in written for way in chosen)


@pytest.mark.check("models")
@pytest.mark.parametrize("alpha_index", [0, len(ALPHAS) - 1])
def test_the_ends_of_the_path_are_the_two_models(alpha_index: int) -> None:
    model = pair()[0 if alpha_index == 0 else 1]
    images = frames()["clear"].centred()[:64]
    with torch.inference_mode():
        features = model.encode_image(images, normalize=True)
        expected = model.logit_scale.exp() * features @ text_head(pair()[0]).T
    # fp32 sums in another order: 1e-4 on logits of about 10
    assert torch.allclose(measured().logits["clear"][alpha_index][:64], expected, atol=1e-4)
