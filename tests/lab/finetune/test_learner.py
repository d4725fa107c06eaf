"""One update, and judging at any alpha."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adawise.clip.trunk import NoTrunkError
from adawise.errors import SettingsError, TrainingError
from adawise_lab.finetune.images import Images, Pixels
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


@pytest.mark.parametrize("loss", ["flyp", "cross_entropy"])
def test_updates_bring_the_loss_down(make_learner: MakeLearner, batch: Pixels, loss: str) -> None:
    learner = make_learner(loss=loss)
    losses = [learner.update([(batch, PROMPTS)], 1e-3)[0] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_cross_entropy_leaves_the_text_tower_and_the_scale_bit_for_bit(
    make_learner: MakeLearner, batch: Pixels
) -> None:
    learner = make_learner(loss="cross_entropy")
    before = parameters(learner)
    learner.update([(batch, PROMPTS)], 1e-2)
    moved = changed(before, parameters(learner))
    assert moved
    assert all(name.startswith("visual.") for name in moved)


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
    assert make_learner().trained_share(SIZE) == 1.0
    one, two = (make_learner(blocks=blocks).trained_share(SIZE) for blocks in (1, 2))
    assert 0.2 < one < 0.5 < two < 0.9

    def untraceable(*_: object) -> None:
        raise NoTrunkError("it branches")

    monkeypatch.setattr("adawise_lab.finetune.learner.cut", untraceable)
    assert make_learner(blocks=1).trained_share(SIZE) == 1.0


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
