"""One update, and judging at any alpha."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from adawise.clip.skeleton import with_tensors
from adawise.clip.trunk import NoTrunkError
from adawise.errors import SettingsError, TrainingError
from adawise_lab.finetune.images import HeldOut, HeldOutActivations, Images, Pixels
from adawise_lab.finetune.learner import Learner, _blocks_above, frozen_names
from tests.lab.finetune.shapes import CLASSES
from tests.models import SIZE, TEMPLATES, PairFolder, classifier, load

MakeLearner = Callable[..., Learner]
PROMPTS = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def batch(make_images: Callable[[Path], Images], shapes: Path) -> Pixels:
    (pixels,) = make_images(shapes).batches([[0, 1, 12, 13, 24, 25]])
    return pixels


def parameters(learner: Learner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("loss", ["flyp", "cross_entropy", "balanced"])
def test_updates_bring_the_loss_down(make_learner: MakeLearner, batch: Pixels, loss: str) -> None:
    learner = make_learner(loss=loss)
    losses = [learner.update([(batch, PROMPTS)], 1e-3)[0] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("loss", ["cross_entropy", "balanced"])
def test_cross_entropy_leaves_the_text_tower_and_the_scale_bit_for_bit(
    make_learner: MakeLearner, batch: Pixels, loss: str
) -> None:
    learner = make_learner(loss=loss)
    before = parameters(learner)
    learner.update([(batch, PROMPTS)], 1e-2)
    moved = changed(before, parameters(learner))
    assert moved
    assert all(name.startswith("visual.") for name in moved)


def test_the_balanced_loss_takes_the_images_of_each_class_into_account_and_what_is_served_does_not(
    make_learner: MakeLearner, batch: Pixels
) -> None:
    even, uneven = make_learner(loss="balanced"), make_learner((900, 30, 1), loss="balanced")
    assert torch.equal(even.classify([batch], 1.0)[0], uneven.classify([batch], 1.0)[0])
    pixels, labels = batch
    frequent, rare = [((pixels[rows], labels[rows]), PROMPTS[rows]) for rows in (labels == 0, labels == 2)]
    assert uneven.update([frequent], 0.0)[0] < even.update([frequent], 0.0)[0]
    assert uneven.update([rare], 0.0)[0] > even.update([rare], 0.0)[0]


def test_flyp_trains_both_towers_and_the_scale(make_learner: MakeLearner, batch: Pixels) -> None:
    learner = make_learner()
    before = parameters(learner)
    learner.update([(batch, PROMPTS)], 1e-2)
    assert changed(before, parameters(learner)) == set(before)


def test_a_locked_text_tower_stays_bit_for_bit_under_flyp(make_learner: MakeLearner, batch: Pixels) -> None:
    learner = make_learner(lock_text=True)
    before = parameters(learner)
    learner.update([(batch, PROMPTS)], 1e-2)
    assert changed(before, parameters(learner)) == {name for name in before if name.startswith("visual.")}


def test_the_layers_before_the_last_blocks_stay_bit_for_bit(make_learner: MakeLearner, batch: Pixels) -> None:
    learner, whole = make_learner(blocks=1, loss="cross_entropy"), make_learner(loss="cross_entropy")
    before = parameters(learner)
    learner.update([(batch, PROMPTS)], 1e-2)
    trained = changed(before, parameters(learner))
    assert trained == {
        name
        for name in before
        if name.startswith(("visual.transformer.resblocks.2.", "visual.ln_post.")) or name == "visual.proj"
    }
    assert all(p.grad is None for name, p in learner.model.named_parameters() if name not in trained)
    assert learner.checkpoint_bytes < 0.5 * whole.checkpoint_bytes
    both = make_learner(blocks=1)  # with prompts, the text tower is trained as before
    before = parameters(both)
    both.update([(batch, PROMPTS)], 1e-2)
    assert changed(before, parameters(both)) == trained | {name for name in before if not name.startswith("visual.")}


def test_the_trained_share_is_counted_from_the_first_trained_layer_on(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_learner().trunk(SIZE) is None
    one, two = (make_learner(blocks=blocks).trunk(SIZE) for blocks in (1, 2))
    assert one is not None
    assert two is not None
    assert 0.2 < one.tail_share < 0.5 < two.tail_share < 0.9

    def untraceable(*_: object) -> None:
        raise NoTrunkError("it branches")

    monkeypatch.setattr("adawise_lab.finetune.learner.cut", untraceable)
    assert make_learner(blocks=1).trunk(SIZE) is None


@pytest.fixture
def held_out(make_images: Callable[[Path], Images], shapes: Path) -> HeldOut:
    """Three batches; the last one is smaller."""
    return HeldOut(make_images(shapes), [0, 1, 2, 12, 13, 14, 24, 25], 3)


def check_as_whole(learner: Learner, judged: HeldOut | HeldOutActivations, pixels: HeldOut) -> None:
    """Judged images have the logits of the whole tower, bit for bit, at both ends and between."""
    for alpha in (0.0, 0.5, 1.0):
        (logits, labels), (expected, same) = (learner.classify(images, alpha) for images in (judged, pixels))
        assert torch.equal(logits, expected)
        assert torch.equal(labels, same)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_are_not_trained_judge_an_image_once_in_a_run_with_the_bits_of_the_whole_tower(
    make_learner: MakeLearner,
    held_out: HeldOut,
    batch: Pixels,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed: list[int] = []

    def counted(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
        made = with_tensors(module, tensors)
        made.register_forward_hook(lambda _module, args, _result: passed.append(args[0].ndim))
        return made

    monkeypatch.setattr("adawise_lab.finetune.learner.with_tensors", counted)
    learner = make_learner(blocks=1)
    learner._dtype = dtype
    judged = learner.behind(learner.trunk(SIZE), held_out)
    assert isinstance(judged, HeldOutActivations)
    assert judged.rows == held_out.rows
    check_as_whole(learner, judged, held_out)
    for _ in range(2):
        learner.update([(batch, PROMPTS)], 1e-3)
        check_as_whole(learner, judged, held_out)
    pixels, activations = 4, 3  # dimensions of the trunk's input and of the tail's
    assert passed.count(pixels) == 3, "each batch passes the trunk once"
    assert passed.count(activations) == 3 * 3 * 3


def test_activations_that_take_too_much_memory_are_not_kept(
    make_learner: MakeLearner, held_out: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(blocks=1)
    trunk = learner.trunk(SIZE)
    assert trunk is not None
    assert learner.behind(None, held_out) is held_out
    limit = 8 * 4 * trunk.shape.numel()  # eight images in float32
    monkeypatch.setattr("adawise_lab.finetune.learner.ACTIVATION_BYTES", limit)
    assert isinstance(learner.behind(trunk, held_out), HeldOutActivations)
    monkeypatch.setattr("adawise_lab.finetune.learner.ACTIVATION_BYTES", limit - 1)
    assert learner.behind(trunk, held_out) is held_out


class Overwriting(nn.Module):
    """A tail whose first layer works in place, as ReLUs may."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.tail = tail

    @override
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.tail(x.clone())
        x.zero_()
        return result


def test_a_tail_that_overwrites_its_input_is_given_a_copy(make_learner: MakeLearner, held_out: HeldOut) -> None:
    learner = make_learner(blocks=1)
    judged = learner.behind(learner.trunk(SIZE), held_out)
    assert isinstance(judged, HeldOutActivations)
    judged.tail = Overwriting(judged.tail)
    check_as_whole(learner, judged, held_out)


@pytest.mark.parametrize("blocks", [3, 12])
def test_more_blocks_than_there_are_below_the_last_are_refused(make_learner: MakeLearner, blocks: int) -> None:
    with pytest.raises(SettingsError, match=rf"finetune.blocks is {blocks}, but the image tower has 3 blocks"):
        make_learner(blocks=blocks)


def test_a_tower_without_blocks_is_refused() -> None:
    with pytest.raises(SettingsError, match="no blocks are recognised in this image tower"):
        frozen_names(["visual.conv.weight", "visual.head.weight", "transformer.resblocks.0.ln_1.weight"], 2)
    assert frozen_names(["visual.conv.weight"], None) == set()


@pytest.mark.parametrize("below", ["reg_token", "cls_token", "pos_embed", "bn1.weight"])
def test_what_lies_below_the_first_block_is_frozen_with_it(below: str) -> None:
    first, last = "visual.trunk.blocks.0.norm1.weight", "visual.trunk.blocks.1.norm1.weight"
    assert frozen_names([f"visual.trunk.{below}", first, last, "visual.trunk.norm.weight"], 1) == {
        f"visual.trunk.{below}",
        first,
    }


def test_each_block_down_learns_by_a_share_of_the_rate_above_it(make_learner: MakeLearner, batch: Pixels) -> None:
    learner = make_learner(layer_decay=0.5)
    names = {id(p): name for name, p in learner.model.named_parameters()}
    learner.update([(batch, PROMPTS)], 1e-3)
    rates = {names[id(p)]: group["lr"] / 1e-3 for group in learner._optimizer.param_groups for p in group["params"]}
    assert rates.keys() == parameters(learner).keys()
    image = "visual.transformer.resblocks.{}.mlp.c_fc.weight"
    assert [rates[image.format(block)] for block in range(3)] == [0.25, 0.5, 1.0]
    assert [rates[f"transformer.resblocks.{block}.ln_1.bias"] for block in range(2)] == [0.5, 1.0]
    below = ("visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding", "visual.ln_pre.weight")
    assert [rates[name] for name in below] == [0.125] * 4
    assert [rates[name] for name in ("token_embedding.weight", "positional_embedding")] == [0.25] * 2
    above = ("visual.ln_post.weight", "visual.proj", "ln_final.bias", "text_projection", "logit_scale")
    assert [rates[name] for name in above] == [1.0] * 5


def test_blocks_of_stages_are_counted_through_the_tower_and_each_tower_by_itself() -> None:
    stages = ["stem.0.weight", "stages.0.blocks.0.norm.weight", "stages.0.blocks.1.norm.weight"]
    stages += ["stages.1.downsample.0.weight", "stages.1.blocks.0.norm.weight", "head.norm.weight"]
    image = [f"visual.trunk.{name}" for name in stages]
    text = ["positional_embedding", "text_projection", "transformer.resblocks.0.ln_1.weight", "ln_final.weight"]
    assert _blocks_above([*text, *image]) == dict(zip([*image, *text], [3, 2, 1, 1, 0, 0, 1, 0, 0, 0], strict=True))


def test_weight_decay_spares_norms_and_biases(make_learner: MakeLearner) -> None:
    groups = make_learner(weight_decay=0.3, layer_decay=1.0)._optimizer.param_groups
    assert [(group["weight_decay"], {p.ndim > 1 for p in group["params"]}) for group in groups] == [
        (0.3, {True}),
        (0.0, {False}),
    ]


def test_accumulated_batches_make_the_gradient_of_one(make_learner: MakeLearner, batch: Pixels) -> None:
    """With cross-entropy, whose terms are apart; a contrastive batch has its own negatives."""
    whole, parts = make_learner(loss="cross_entropy"), make_learner(loss="cross_entropy")
    pixels, labels = batch
    loss, images = whole.update([(batch, PROMPTS)], 0.0)
    halves = [((pixels[:2], labels[:2]), PROMPTS[:2]), ((pixels[2:], labels[2:]), PROMPTS[2:])]
    same_loss, same_images = parts.update(halves, 0.0)
    assert (images, same_images) == (6, 6)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    for (name, p), q in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        if p.grad is not None:  # sums in another order; small beside the gradient's length of at most 1
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_long_gradients_are_cut(make_learner: MakeLearner, batch: Pixels) -> None:
    learner = make_learner(clip_norm=1e-3)
    learner.update([(batch, PROMPTS)], 0.0)
    length = math.sqrt(sum(float(p.grad.square().sum()) for p in learner.model.parameters() if p.grad is not None))
    assert length == pytest.approx(1e-3, rel=1e-3)


def test_the_scale_stays_within_what_clip_allows(make_learner: MakeLearner, batch: Pixels) -> None:
    learner = make_learner()
    with torch.no_grad():
        learner.model.logit_scale.fill_(7.0)
    learner.update([(batch, PROMPTS)], 0.0)
    assert learner.model.logit_scale.item() == pytest.approx(math.log(100.0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_leaves_the_weights_alone(
    make_learner: MakeLearner, batch: Pixels, bad: float
) -> None:
    learner = make_learner()
    with torch.no_grad():
        learner.model.visual.proj.fill_(bad)
    before = parameters(learner)
    with pytest.raises(TrainingError, match="the loss is nan"):
        learner.update([(batch, PROMPTS)], 1.0)
    assert changed(before, parameters(learner)) <= {"visual.proj"}  # nan is not equal to itself


def test_half_way_is_what_a_worker_serves_at_alpha_half(
    make_learner: MakeLearner, batch: Pixels, pair_folder: PairFolder
) -> None:
    learner = make_learner()
    pair = load(pair_folder)
    served = classifier(pair, alphas=(0.0, 0.5, 1.0), classes=CLASSES, templates=TEMPLATES)
    one = dict(pair.theta_1)
    one_model = pair._models[1]
    with torch.no_grad():
        for name, p in learner.model.named_parameters():
            p.copy_(one[name.removeprefix("visual.")] if name.startswith("visual.") else one_model.get_parameter(name))
    before = parameters(learner)
    for index, alpha in enumerate((0.0, 0.5, 1.0)):
        logits = served.logits(index, batch[0]).double()
        nll = float(torch.nn.functional.cross_entropy(logits, batch[1]))
        assert learner.evaluate([batch], alpha).nll == pytest.approx(nll, rel=1e-4)
    assert not changed(before, parameters(learner))


def test_a_learner_goes_on_from_its_state_bit_for_bit(make_learner: MakeLearner, batch: Pixels) -> None:
    first, second = make_learner(), make_learner()

    def batches() -> Iterator[tuple[Pixels, Tensor]]:
        yield batch, PROMPTS

    first.update(batches(), 1e-3)
    second.restore(copy.deepcopy(first.state()))
    for learner in (first, second):
        learner.update(batches(), 1e-3)
    assert not changed(parameters(first), parameters(second))


def test_mixed_precision_learns_in_float32_weights(make_learner: MakeLearner, batch: Pixels) -> None:
    learner = make_learner()
    learner._dtype = torch.bfloat16
    losses = [learner.update([(batch, PROMPTS)], 1e-3)[0] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}
    assert torch.is_autocast_enabled("cpu") is False
