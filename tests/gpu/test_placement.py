"""Without a card: every tensor of the model's path is where it should be. See `fake_card` for how."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.interpolate import Layout, interpolate
from adawise.clip import classifier as module
from adawise.clip.classifier import PairClassifier
from adawise.clip.cuda import chunk_rows_for
from adawise.clip.device import Plain
from adawise.clip.load import CheckpointPair
from tests.clip.test_trunk import sharing
from tests.gpu.fake_card import CARD, FakeCard, MixedDevices, without_memory
from tests.models import CLASSES, SIZE, TEMPLATES

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# A ViT as OpenAI has it, a CoCa (its tower returns tokens too), a timm trunk without class token, a convolutional one.
ARCHITECTURES = [
    "ViT-B-32-quickgelu",
    *(
        pytest.param(name, marks=pytest.mark.check("models"))
        for name in ("coca_ViT-B-32", "vit_medium_patch16_gap_256", "convnext_tiny")
    ),
]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCard:
    # A value of a tensor that was made within a FakeTensorMode corrupts the process's memory (torch 2.15: the next
    # hundred operations end in a segmentation fault).
    monkeypatch.setattr(module, "_scale", math.exp)
    return FakeCard()


def on_card(
    pair: CheckpointPair, *, dtype: torch.dtype = torch.bfloat16, head: str = "text", bank_bytes: int = 0
) -> PairClassifier:
    return PairClassifier(
        pair,
        classes=CLASSES,
        templates=TEMPLATES,
        chunk_rows=16,
        dtype=dtype,
        device=Plain(CARD),
        bank_bytes=bank_bytes,
        head=head,
    )


def a_round(card: FakeCard, size: int = SIZE) -> dict[int, list[Tensor]]:
    """More alphas than a small bank has copies, more images than a chunk has rows."""
    return {
        0: [card.images(5, size), card.images(20, size)],
        7: [card.images(3, size)],
        20: [card.images(16, size)],
        3: [card.images(1, size)],
    }


@pytest.mark.parametrize(
    ("dtype", "head"),
    [
        (torch.bfloat16, "text"),
        (torch.bfloat16, "interpolate"),
        *(
            pytest.param(dtype, head, marks=pytest.mark.check("models"))
            for dtype in DTYPES
            for head in ("text", "interpolate")
            if dtype is not torch.bfloat16
        ),
    ],
)
def test_a_round_runs_on_the_card_from_the_flat_buffers_to_the_logits(
    pair: CheckpointPair, card: FakeCard, dtype: torch.dtype, head: str
) -> None:
    fake = card.pair(pair)
    with card.running():
        subject = on_card(fake, dtype=dtype, head=head)
        for _ in range(2):  # the second time everything is merged over
            logits = subject.evaluate(a_round(card))
        assert {index: list(z.shape) for index, z in logits.items()} == {
            0: [25, len(CLASSES)],
            7: [3, len(CLASSES)],
            20: [16, len(CLASSES)],
            3: [1, len(CLASSES)],
        }
        assert {(z.device.type, z.dtype) for z in logits.values()} == {("cpu", torch.float32)}
        tower = subject.bank.tower(7)
        assert {p.device for p in (*tower.parameters(), *tower.buffers())} == {CARD}
        assert {p.dtype for p in tower.parameters()} == {dtype}
        assert {end.dtype for end in subject.bank._ends} == {torch.float32}  # the masters
        assert {end.device for end in (*subject.bank._ends, *subject._heads.values())} == {CARD}
    assert subject.bank.capacity == 2
    assert {p.device.type for p in (*fake.theta_0.values(), *fake.theta_1.values())} == {"cpu"}


def test_a_tower_that_is_cut_runs_on_the_card(pair: CheckpointPair, card: FakeCard) -> None:
    fake = card.pair(sharing(pair))
    with card.running():
        subject = on_card(fake)
        assert subject.bank.trunk is not None
        assert {p.device for p in (*subject.bank.trunk.parameters(), *subject.bank.trunk.buffers())} == {CARD}
        batches = [card.images(5, SIZE), card.images(20, SIZE)]
        opened = subject.open(batches)
        for _ in range(2):
            logits = opened.evaluate({0: [(1, np.arange(20))], 7: [(0, np.array([1, 4])), (1, np.array([2]))]})
        assert {index: list(z.shape) for index, z in logits.items()} == {0: [20, len(CLASSES)], 7: [3, len(CLASSES)]}
        assert subject.evaluate(a_round(card))[0].shape == (25, len(CLASSES))


@pytest.mark.check("models")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_towers_of_every_kind_run_on_the_card(card: FakeCard, architecture: str) -> None:
    pair = card.untrained(architecture)
    with card.running():
        subject = on_card(pair, bank_bytes=2**40)
        logits = subject.evaluate({7: [card.images(3, pair.preprocess.size)]})
    assert logits[7].shape == (3, len(CLASSES))


def test_a_merge_on_the_card_is_in_place_and_in_pieces(card: FakeCard) -> None:
    with card.running():
        theta = {"w": torch.zeros(3, 2**24 + 5), "b": torch.zeros(7)}
        layout = Layout.of(theta)
        zero, one = layout.flatten(theta, CARD), layout.flatten(theta, CARD)
        for dtype in DTYPES:
            out = torch.empty(layout.numel, dtype=dtype, device=CARD)
            for alpha in (0.0, 0.35, 1.0):
                assert interpolate(zero, one, alpha, out=out) is out


@pytest.mark.check("models")
def test_heads_of_a_card_file_are_brought_to_the_card(pair: CheckpointPair, card: FakeCard) -> None:
    fake = card.pair(pair)
    with card.running():
        subject = on_card(fake)
        embeddings = subject.embeddings()
        assert embeddings.device.type == "cpu"  # as they are written beside the card file
        subject.use_embeddings(embeddings, "digest")
        subject.evaluate(a_round(card))
        assert {head.device for head in subject._heads.values()} == {CARD}


# -- planted mistakes: each must be seen


def test_a_tensor_that_was_not_brought_to_the_card_is_seen(
    pair: CheckpointPair, card: FakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = card.pair(pair)
    monkeypatch.setattr(module, "_per_channel", lambda values, where: torch.tensor(values).view(1, 3, 1, 1))
    with card.running(), pytest.raises(MixedDevices, match=r"sub_ of cuda \[16, 3, 32, 32\], cpu \[1, 3, 1, 1\]"):
        on_card(fake).evaluate(a_round(card))


def test_an_index_that_stayed_on_the_processor_is_seen(
    pair: CheckpointPair, card: FakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, right = card.pair(pair), module._head_logits

    def by_index(features: Tensor, head: Tensor, n: int) -> Tensor:
        return right(features, head, len(features))[torch.arange(n)]

    monkeypatch.setattr(module, "_head_logits", by_index)
    with card.running(), pytest.raises(MixedDevices, match=r"aten::index of cuda \[16, 5\], cpu \[16\]"):
        on_card(fake).evaluate(a_round(card))


def test_a_scalar_that_stayed_on_the_processor_is_seen(
    pair: CheckpointPair, card: FakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, right = card.pair(pair), PairClassifier._class_embeddings
    monkeypatch.setattr(PairClassifier, "_class_embeddings", lambda self, index: right(self, index) * torch.tensor(1.0))
    with card.running(), pytest.raises(MixedDevices, match=r"aten::mul of cuda \[\d+, 5\], cpu \[\]"):
        on_card(fake).evaluate(a_round(card))


def test_a_value_that_is_asked_for_within_a_round_is_seen(
    pair: CheckpointPair, card: FakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, right = card.pair(pair), module._head_logits

    def looking(features: Tensor, head: Tensor, n: int) -> Tensor:
        return right(features, head, n) if bool(features.isfinite().all()) else features

    monkeypatch.setattr(module, "_head_logits", looking)
    with card.running(), pytest.raises(Exception, match="local_scalar_dense"):
        on_card(fake).evaluate(a_round(card))


# -- the shape of a forward


def a_card(multiprocessors: int, gib: float) -> SimpleNamespace:
    return SimpleNamespace(multi_processor_count=multiprocessors, total_memory=int(gib * 2**30))


H100, A100, L4, T4 = a_card(132, 79.2), a_card(108, 79.2), a_card(58, 22.2), a_card(40, 14.6)


@pytest.mark.parametrize(
    ("architecture", "rows"),
    [("ViT-B-32", (32, 32, 16, 16)), ("ViT-B-16", (16, 8, 8, 8)), ("ViT-L-14", (8, 8, 8, 8))],
)
def test_a_chunk_is_the_least_that_fills_the_card(architecture: str, rows: tuple[int, ...]) -> None:
    tower = without_memory(architecture).visual
    assert tuple(chunk_rows_for(card, tower, torch.bfloat16) for card in (H100, A100, L4, T4)) == rows


def test_a_card_with_little_memory_gets_smaller_chunks() -> None:
    tower = without_memory("ViT-B-32").visual
    assert chunk_rows_for(a_card(132, 0.4), tower, torch.float32) < chunk_rows_for(H100, tower, torch.float32)
