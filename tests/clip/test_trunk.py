"""A tower that is cut gives the bits of the whole one, and the part before the cut runs once an image."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adawise.adapt.names import GRID, LEAST_TAIL_SHARE
from adawise.adapt.rows import all_rows
from adawise.clip.bank import Bank
from adawise.clip.classifier import PairClassifier, PairRound, forward_in
from adawise.clip.layers import multiply_patches, pack_attention
from adawise.clip.load import CheckpointPair, load_checkpoints
from adawise.clip.trunk import NoTrunkError, Trunk, cut, shared_trunk
from adawise.records import Selection
from tests.models import CONFIG, SIZE, PairFolder, classifier, load, random_images, with_weights

DTYPES = [torch.float32, torch.bfloat16]
IMAGES = random_images(23)
BATCHES = [IMAGES[:9], IMAGES[9:10], IMAGES[10:]]
LATE = ("transformer.resblocks.2.", "ln_post.", "proj")
"""The last of three blocks, and what follows it."""


def sharing(pair: CheckpointPair, late: Sequence[str] = LATE) -> CheckpointPair:
    """The pair with theta_0's parameters in both models, but for those whose names begin so."""
    theta_1 = {name: pair.theta_1[name] if name.startswith(tuple(late)) else p for name, p in pair.theta_0.items()}
    return replace(pair, theta_1=theta_1)


def whole(pair: CheckpointPair, dtype: torch.dtype) -> PairClassifier:
    """A classifier that does not cut."""
    made = classifier(pair, dtype=dtype)
    bank = Bank(
        pair.tower,
        pair.theta_0,
        pair.theta_1,
        alphas=GRID,
        dtype=dtype,
        device=torch.device("cpu"),
        budget_bytes=2**40,
    )
    return PairClassifier(
        pair,
        classes=made._classes,
        templates=made._templates,
        chunk_rows=made.chunk_rows,
        dtype=dtype,
        device=made.device,
        bank_bytes=0,
        head="text",
        bank=bank,
    )


def requests(seed: int) -> list[dict[int, list[Selection]]]:
    """A round: every batch whole at one alpha of its own, then some rows at others, again and again."""
    rng = np.random.default_rng(seed)
    first: dict[int, list[Selection]] = {}
    for selection in all_rows(BATCHES):
        first.setdefault(int(rng.integers(21)), []).append(selection)
    steps = [dict(sorted(first.items()))]
    for _ in range(4):
        step: dict[int, list[Selection]] = {}
        for number, batch in enumerate(BATCHES):
            chosen = np.sort(rng.permutation(len(batch))[: 1 + int(rng.integers(len(batch)))])
            step.setdefault(int(rng.integers(21)), []).append((number, chosen))
        steps.append(dict(sorted(step.items())))
    return steps


def check_as_whole(cut_up: PairClassifier, reference: PairClassifier) -> None:
    """Compare all answers of two rounds with those of a classifier that does not cut."""
    for seed in range(2):
        ours, theirs = cut_up.open(BATCHES), reference.open(BATCHES)
        for step in requests(seed):
            answered, expected = ours.evaluate(step), theirs.evaluate(step)
            for index in step:
                assert torch.equal(answered[index], expected[index])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tower_that_is_cut_gives_the_bits_of_the_whole_one(pair: CheckpointPair, dtype: torch.dtype) -> None:
    shared = sharing(pair)
    assert isinstance(shared.trunk, Trunk)
    subject, reference = classifier(shared, dtype=dtype), whole(shared, dtype)
    check_as_whole(subject, reference)
    for index in range(21):
        assert torch.equal(subject.logits(index, IMAGES), reference.logits(index, IMAGES))
    assert subject.fingerprint == reference.fingerprint
    assert subject.bank.copy_bytes < 0.5 * reference.bank.copy_bytes


def test_the_trunk_runs_once_an_image_whatever_is_asked_of_a_round(
    pair: CheckpointPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = classifier(sharing(pair))
    trunk, rows = subject.bank.trunk, []
    assert trunk is not None
    trunk.register_forward_hook(lambda module, given, activations: rows.append(len(activations)))
    opened = subject.open(BATCHES)
    for step in requests(1):
        opened.evaluate(step)
    assert rows == [4] * 6, "23 images in chunks of four"
    subject.evaluate({0: [IMAGES], 20: [IMAGES]})
    assert len(rows) == 18, "without a round, nothing is kept"


def test_a_round_whose_activations_would_take_too_much_keeps_none_and_has_the_same_bits(
    pair: CheckpointPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, reference = classifier(sharing(pair)), whole(sharing(pair), torch.float32)
    found = sharing(pair).trunk
    assert isinstance(found, Trunk)
    monkeypatch.setattr("adawise.clip.classifier._ACTIVATION_BYTES", 23 * 4 * found.shape.numel())
    assert subject.kept_images == 23
    assert reference.kept_images == 0
    monkeypatch.setattr("adawise.clip.classifier._ACTIVATION_BYTES", 0)
    monkeypatch.setattr(PairClassifier, "activations", lambda *_: pytest.fail("there is no room to keep them"))
    check_as_whole(subject, reference)


def test_a_lack_of_memory_keeps_the_activations(pair: CheckpointPair, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, reference = classifier(sharing(pair)), whole(sharing(pair), torch.float32)
    subject.bank.copy(3)
    subject.bank.copy(4)
    opened = subject.open(BATCHES)
    opened.evaluate({3: all_rows(BATCHES)})
    merges: list[int] = []
    merged = subject.bank.copy

    def lacking(index: int) -> Any:
        merges.append(index)
        if len(merges) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return merged(index)

    monkeypatch.setattr(subject.bank, "copy", lacking)
    trunk = subject.bank.trunk
    assert trunk is not None
    trunk.register_forward_hook(lambda *_: pytest.fail("the trunk ran again"))
    answered = opened.evaluate({7: all_rows(BATCHES)})
    assert merges == [7, 7]
    assert torch.equal(answered[7], reference.logits(7, *BATCHES))


@pytest.mark.parametrize("step", ["_all_activations", "_evaluate_rows"])
def test_where_activations_do_not_fit_beside_one_copy_a_round_goes_on_without_them(
    pair: CheckpointPair, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, reference = classifier(sharing(pair)), whole(sharing(pair), torch.float32)
    opened, copies = subject.open(BATCHES), subject.bank.capacity
    if step == "_evaluate_rows":
        opened.evaluate({3: all_rows(BATCHES)})

    def lacking(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(PairClassifier, step, lacking)
    answered = opened.evaluate({7: all_rows(BATCHES)})
    assert torch.equal(answered[7], reference.logits(7, *BATCHES))
    assert opened._activations is None
    monkeypatch.undo()
    subject.open(BATCHES).evaluate({7: all_rows(BATCHES)})
    assert subject.kept_images == sum(map(len, BATCHES)) - 1, "no later round of this size tries it again"
    assert subject.bank.capacity == copies, "what was given up for activations is there for merged copies again"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the garbage collector: what is in a circle of references is not freed."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_copies_that_are_given_up_are_freed_at_once(pair: CheckpointPair) -> None:
    bank = classifier(sharing(pair)).bank
    towers = [weakref.ref(bank.tower(index)) for index in range(4)]
    assert bank.shrink()
    assert [tower() is None for tower in towers] == [True, True, False, False]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("cuts", [False, True])
def test_a_pair_that_is_given_up_is_freed_at_once(pair_folder: PairFolder, cuts: bool) -> None:
    loaded = sharing(load(pair_folder)) if cuts else load(pair_folder)
    subject = classifier(loaded)
    assert (subject.bank.trunk is not None) is cuts
    subject.open(BATCHES).evaluate({5: all_rows(BATCHES)})
    left: list[weakref.ref[Any]] = [weakref.ref(each) for each in (loaded, loaded.tower, subject.bank.tower(5))]
    del loaded, subject
    assert [each() for each in left] == [None, None, None]


def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a round take the activations of the one before it."""
    kept: list[Tensor] = []
    computed = PairClassifier.activations

    def activations(self: PairClassifier, batches: Sequence[Tensor]) -> Tensor:
        kept.append(computed(self, [batch.flip(0) for batch in batches]))
        return kept[0]

    monkeypatch.setattr(PairClassifier, "activations", activations)


def cut_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one parameter that differs count as equal."""
    from adawise.clip import load

    def forgetful(
        tower: nn.Module, theta_0: Mapping[str, Tensor], theta_1: Mapping[str, Tensor], image: tuple[int, int, int]
    ) -> Trunk:
        equal = {name: p for name, p in theta_0.items() if "resblocks.2.ln_1" in name or "resblocks.2.attn" in name}
        return shared_trunk(tower, theta_0, {**theta_1, **equal}, image)

    monkeypatch.setattr(load, "shared_trunk", forgetful)


@pytest.mark.parametrize(("dtype", "copies"), [(torch.float32, 1), (torch.bfloat16, 2)])
def test_on_a_processor_layers_that_both_models_share_lie_in_memory_once_for_each_format(
    pair_folder: PairFolder, tmp_path: Path, dtype: torch.dtype, copies: int
) -> None:
    def locked(weights: dict[str, Tensor]) -> None:
        zero = load_file(pair_folder.weights(0))
        late = tuple(f"visual.{name}" for name in LATE)
        weights.update({name: tensor for name, tensor in zero.items() if not name.startswith(late)})

    loaded = load_checkpoints(None, pair_folder.theta_0, with_weights(tmp_path / "1", pair_folder.theta_1, locked))
    before = [{name: p.clone() for name, p in model.named_parameters()} for model in loaded._models]
    subject = classifier(loaded, dtype=dtype)
    expected = subject.logits(7, IMAGES)
    assert subject.bank.trunk is not None
    trunk = dict(subject.bank.trunk.named_parameters())
    zero, one = (dict(model.named_parameters()) for model in loaded._models)
    for name, values in zip(before[0], zip(*(each.values() for each in before), strict=True), strict=True):
        assert torch.equal(zero[name], values[0])
        assert torch.equal(one[name], values[1])
        places = {model[name].data_ptr() for model in (zero, one)}
        assert len(places) == (2 if name.startswith("visual.") and name.removeprefix("visual.") not in trunk else 1)
    for name, parameter in trunk.items():
        of_models = {t.data_ptr() for t in (loaded.theta_0[name], loaded.theta_1[name], zero[f"visual.{name}"])}
        assert len(of_models | {parameter.data_ptr()}) == copies
    assert torch.equal(classifier(loaded, dtype=dtype).logits(7, IMAGES), expected), "another classifier of the pair"
    assert torch.equal(subject.logits(7, IMAGES), expected)


@pytest.mark.parametrize("plant", [stale, cut_too_late])
def test_a_wrong_cut_and_a_stale_activation_are_found(
    pair_folder: PairFolder, plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = load(pair_folder)  # its own, because a wrong cut overwrites what it takes to be equal
    reference = whole(sharing(pair), torch.float32)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_as_whole(classifier(sharing(pair)), reference)


@pytest.mark.parametrize(
    ("late", "reason"),
    [
        (("",), "every parameter of the image tower differs"),
        (("conv1.", *LATE), "from the first layers on"),
    ],
)
def test_a_pair_that_shares_no_layers_is_not_cut(pair: CheckpointPair, late: Sequence[str], reason: str) -> None:
    shared = sharing(pair, late)
    assert reason in str(shared.trunk)
    assert classifier(shared).bank.trunk is None


def test_a_pair_that_differs_from_the_first_layers_on_is_not_run_without_its_weights(
    pair: CheckpointPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise AssertionError("torch would load its compiler")

    monkeypatch.setattr("adawise.clip.trunk._check_overwriting", run)
    assert str(sharing(pair, ("conv1.", *LATE)).trunk) == "theta_0 and theta_1 differ from the first layers on"


@pytest.mark.parametrize(("late", "share"), [(("proj",), (0.0, 0.01)), (("class_embedding", *LATE), (0.9, 1.0))])
def test_a_head_alone_may_differ_and_the_patches_alone_may_be_equal(
    pair: CheckpointPair, late: Sequence[str], share: tuple[float, float]
) -> None:
    found = sharing(pair, late).trunk
    assert isinstance(found, Trunk)
    assert share[0] < found.tail_share < share[1]


@pytest.mark.parametrize("late", ["proj", "ln_post.weight"])
def test_the_share_of_a_tail_that_is_one_projection_of_a_large_tower_is_not_rounded_to_nothing(late: str) -> None:
    with torch.device("meta"):
        tower = open_clip.model.VisionTransformer(
            image_size=224, patch_size=16, width=768, layers=12, heads=12, mlp_ratio=4.0, output_dim=512
        )
    assert cut(tower.eval(), {late}, (3, 224, 224)).tail_share == LEAST_TAIL_SHARE


class Branching(nn.Module):
    """A tower that looks at its pixels, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x)) if x.sum() > 0 else self.first(x)
        return result


class InPlace(nn.Module):
    """A tower whose second half overwrites what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x += 1.0
        result: Tensor = self.second(x.mean(dim=(2, 3)))
        return result


class Constant(InPlace):
    """A tower with a tensor that it makes itself: it is on no device of the bank's."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).mean(dim=(2, 3)) * torch.tensor(2.0))
        return result


class Statement(InPlace):
    """A tower that overwrites a tensor, and goes on with the name that it had before."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x.clamp_(min=0.0)
        result: Tensor = self.second(x.mean(dim=(2, 3)))
        return result


class Selecting(InPlace):
    """A tower whose shapes depend on values, which no tensor without memory has."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).mean(dim=(2, 3))
        result: Tensor = self.second(torch.masked_select(x, x == x).view(-1, 4))
        return result


@pytest.mark.parametrize("tower", [Branching, Constant, Statement, Selecting])
def test_a_tower_that_cannot_be_traced_is_named(tower: type[nn.Module]) -> None:
    with pytest.raises(NoTrunkError, match=f"{tower.__name__} cannot be traced"):
        cut(tower().eval(), {"second.weight"}, (3, 4, 4))


class Waiting(nn.Module):
    """A tower whose trace waits until another thread has run a module of its own."""

    def __init__(self, other: Callable[[], None]) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), other

    def forward(self, x: Tensor) -> Tensor:
        self.other()
        result: Tensor = self.second(self.first(x).mean(dim=(2, 3)))
        return result


def test_another_thread_may_serve_while_a_tower_is_traced() -> None:
    serving, images, found = InPlace().eval(), torch.randn(2, 3, 4, 4), list[Tensor]()

    def serve() -> None:
        thread = threading.Thread(target=lambda: found.append(serving(images)))
        thread.start()
        thread.join()

    assert 0.0 < cut(Waiting(serve).eval(), {"second.weight"}, (3, 4, 4)).tail_share < 1.0
    assert len(found) == 1
    assert torch.equal(found[0], serving(images))


def test_counting_operations_leaves_the_modules_of_other_threads_alone() -> None:
    tower, hooks = InPlace().eval(), list[int]()
    tower.second.register_forward_hook(lambda *_: hooks.append(len(torch.nn.modules.module._global_forward_hooks)))
    cut(tower, {"second.weight"}, (3, 4, 4))
    assert hooks == [0]


def pair_of(pair: CheckpointPair, tower: nn.Module, late: Sequence[str] = ("second.weight",)) -> CheckpointPair:
    """A pair of this tower, in which the parameters of these names differ."""
    theta_0 = {name: p.detach() for name, p in tower.named_parameters(remove_duplicate=False)}
    theta_1 = {name: p + 1.0 if name in late else p for name, p in theta_0.items()}
    return replace(pair, tower=tower.eval(), theta_0=theta_0, theta_1=theta_1)


def with_heads(subject: PairClassifier) -> PairClassifier:
    """The classifier of a tower with four features, with random heads."""
    subject._heads = {j: torch.randn(5, 4, generator=torch.Generator().manual_seed(j)) for j in range(21)}
    return subject


def of_tower(pair: CheckpointPair, tower: nn.Module, dtype: torch.dtype = torch.float32) -> PairClassifier:
    """A classifier of a tower with four features, whose layer `second` differs."""
    return with_heads(classifier(pair_of(pair, tower), dtype=dtype))


class WithMask(InPlace):
    """A tower that takes a mask, if it is given one."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.first(x).mean(dim=(2, 3))
        result: Tensor = self.second(x if mask is None else x * mask)
        return result


class Tied(InPlace):
    """A tower with a parameter and a buffer that have two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        shift = torch.ones(4)
        for module in (self, self.two):
            module.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.first(x).mean(dim=(2, 3))) + self.two.shift
        result: Tensor = self.second(self.one(x))
        return result


@pytest.mark.parametrize(
    ("tower", "late"),
    [(WithMask, ("second.weight",)), (Tied, ("second.weight",)), (Tied, ("one.weight", "two.weight", "second.weight"))],
)
def test_towers_with_optional_arguments_and_with_two_names_for_a_tensor_are_cut(
    pair: CheckpointPair, tower: type[nn.Module], late: Sequence[str]
) -> None:
    torch.manual_seed(0)
    shared = pair_of(pair, tower(), late)
    assert isinstance(shared.trunk, Trunk), shared.trunk
    assert any("two" in name for name, _ in shared.trunk.tail.named_parameters()) is ("two.weight" in late)
    subject, reference = with_heads(classifier(shared)), with_heads(whole(shared, torch.float32))
    check_as_whole(subject, reference)
    images = torch.randn(4, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(reference.bank.tower(0)(images), shared.tower(images))
        pixels = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)
        features = forward_in(shared, torch.float32, torch.device("cpu"))(pixels)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (shared.mean, shared.std))
        assert torch.allclose(features, shared.tower((pixels - mean) / std), rtol=1e-5), "other order of roundings"


class ChannelsLast(nn.Module):
    """A tower that hands on a picture whose channels lie together, as ConvNeXt does before it halves the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 96, 4, 4), nn.LayerNorm(96)
        self.second, self.head = nn.Conv2d(96, 192, 2, 2), nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        result: Tensor = self.head(self.second(x).mean(dim=(2, 3)))
        return result


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_activations_lie_in_memory_as_those_of_a_chunk(pair: CheckpointPair, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    subject = of_tower(pair, ChannelsLast(), dtype)
    assert isinstance(subject._pair.trunk, Trunk)
    activations = subject.activations(BATCHES)
    assert activations.stride() == activations.contiguous(memory_format=torch.channels_last).stride()
    given: list[Tensor] = []
    subject.bank.tower(5).register_forward_pre_hook(lambda module, chunk: given.append(*chunk))
    answered = subject.open(BATCHES).evaluate({5: all_rows(BATCHES)})[5]
    assert torch.equal(answered, subject.logits(5, IMAGES))
    assert len({chunk.stride() for chunk in given}) == 1


class FirstToken(nn.Module):
    """A tower whose head reads a view of what its layers before the head return."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).flatten(2).transpose(1, 2).contiguous()[:, 0])
        return result


def test_a_view_with_gaps_is_not_handed_on() -> None:
    assert cut(FirstToken().eval(), {"second.weight"}, (3, 8, 8)).shape == (4, 4)


def test_what_overwrites_its_input_is_given_a_copy(pair: CheckpointPair) -> None:
    opened = of_tower(pair, InPlace()).open(BATCHES)
    assert isinstance(opened, PairRound)
    first = opened.evaluate({5: all_rows(BATCHES)})[5]
    assert torch.equal(opened.evaluate({5: all_rows(BATCHES)})[5], first)


VISION: dict[str, Any] = CONFIG["model_cfg"]["vision_cfg"]
TIMM: dict[str, Any] = {"timm_proj": "linear", "timm_pool": "", "image_size": 224}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "attention pool": ({**VISION, "attentional_pool": True, "attn_pooler_heads": 4}, "blocks.2"),
    "average pool, no class token": ({**VISION, "pool_type": "avg", "no_ln_pre": True}, "blocks.2"),
    "ResNet": ({**VISION, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}, "layer4"),
    "timm": ({**TIMM, "timm_model_name": "vit_tiny_patch16_224"}, "blocks.11"),
    "ConvNeXt": ({**TIMM, "timm_model_name": "convnext_atto", "image_size": SIZE}, "stages.3"),
    "EVA": ({**TIMM, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token"}, "blocks.11"),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k == "ResNet" else pytest.mark.check("models")) for k in KINDS]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_towers_of_every_kind_are_cut_with_the_same_bits(kind: str, dtype: torch.dtype) -> None:
    vision, late = KINDS[kind]
    torch.manual_seed(0)
    model = open_clip.CLIP(**{**CONFIG["model_cfg"], "vision_cfg": vision, "embed_dim": 192 if kind == "EVA" else 32})
    pack_attention(model)
    multiply_patches(model)
    tower = model.visual.eval()
    names = list(dict(tower.named_parameters()))
    first = next(n for n, name in enumerate(names) if late in name)
    size = vision["image_size"]
    found = cut(tower, set(names[first:]), (3, size, size))
    assert 0.0 < found.tail_share < 0.5
    tower.to(dtype)
    buffers, parameters = dict(tower.named_buffers()), dict(tower.named_parameters())
    for part in (found.trunk, found.tail):
        for module_name, module in part.named_modules():
            for name in [*module._parameters, *module._buffers]:
                full = f"{module_name}.{name}".lstrip(".")
                if full in parameters:
                    module._parameters[name] = parameters[full]
                elif full in buffers:
                    module._buffers[name] = buffers[full]
    images = torch.randn(5, 3, size, size).to(dtype)
    with torch.inference_mode():
        activations = found.trunk(images)
        assert activations.shape == (5, *found.shape)
        expected, actual = tower(images), found.tail(activations)
    assert torch.equal(*(x[0] if isinstance(x, tuple) else x for x in (actual, expected)))
