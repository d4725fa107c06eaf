"""The page about cards is what the code derives, and the derivation keeps to what is published."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from adawise.app import worker
from adawise.clip.classifier import GRID
from adawise.clip.cuda import chunk_rows_for
from adawise.settings import ModelSettings
from tests.gpu.fake_card import without_memory
from tools.bench import card_page, cards, chunks, host
from tools.bench.cards import ANCHORS, COMPILED, EAGER, HD, HOST_CORES, VGA, Anchor


def test_the_page_is_what_the_code_writes() -> None:
    written = card_page.PAGE.read_text(encoding="utf-8")
    assert written == card_page.page(), "write it again: python -m tools.bench cards -o docs/gpu.md"


@pytest.mark.check("tools")
@pytest.mark.parametrize("anchor", ANCHORS[1:], ids=lambda anchor: f"{anchor.card.name}, {anchor.tower.name}")
def test_published_forwards_lie_within_a_tenth_of_the_models_range(anchor: Anchor) -> None:
    """All but the first, which ran without fused attention."""
    low, high = (1e3 / anchor.card.forward_ms(anchor.tower, way) for way in (EAGER, COMPILED))
    assert 0.9 * low <= anchor.images_per_s <= 1.1 * high


@pytest.mark.check("tools")
def test_what_the_page_says_in_short_follows_from_its_tables() -> None:
    def limits(card: cards.GpuCard, tower: cards.Architecture) -> set[str]:
        return {load.served(VGA, HOST_CORES)[1] for load in cards.loads(card, tower)}

    assert limits(cards.H100, cards.B32) == {"cores"}
    assert limits(cards.A100, cards.B32) == {"card", "cores"}
    assert all(limits(card, cards.L14) == {"card"} for card in cards.CARDS)
    assert all(limits(card, cards.B16) == {"card"} for card in (cards.L4, cards.T4))
    assert all(load.processes(VGA) > 1 for load in cards.loads(cards.H100, cards.L14))


@pytest.mark.check("tools")
def test_a_process_serves_less_than_the_card_could_and_less_of_larger_frames() -> None:
    for card in cards.CARDS:
        for tower in cards.ARCHITECTURES:
            for load in cards.loads(card, tower):
                assert load.process_rate(HD) <= load.process_rate(VGA) < load.card_rate


@pytest.mark.check("tools")
def test_copies_share_the_card_with_the_masters_of_every_process() -> None:
    assert cards.copies(cards.L4, cards.L14) == cards.GRID_ALPHAS
    assert 0 < cards.copies(cards.L4, cards.L14, processes=2) < cards.GRID_ALPHAS
    assert cards.copies(cards.T4, cards.L14, processes=8) == 0


def test_the_derivation_takes_the_workers_grid_bank_and_rounds() -> None:
    assert len(GRID) == cards.GRID_ALPHAS
    assert ModelSettings().bank_mib == cards.DEFAULT_BANK_MIB
    assert worker._ROUND_CHUNKS["cuda"] == host.ROUND_CHUNKS


def test_the_derivation_takes_the_workers_chunks() -> None:
    """What it looks at in place of a tower gives the rows that the tower gives."""
    for tower in cards.ARCHITECTURES:
        real = without_memory(tower.name.replace("/", "-")).visual
        for card in cards.CARDS:
            requested = SimpleNamespace(
                multi_processor_count=card.multiprocessors, total_memory=int(card.memory_gib * 2**30)
            )
            assert card.chunk_rows(tower) == chunk_rows_for(requested, real, torch.float16)
    assert cards.H100.chunk_rows(cards.B32) == host.CHUNK_ROWS


@pytest.mark.check("tools")
def test_the_padding_is_what_the_simulation_counts() -> None:
    with host.one_thread():
        batches = chunks.simulate(cards.FEW, chunks.BATCHES)
    for rows, by_cameras in cards.PADDING.items():
        for cameras in (1, cards.FEW):
            assert chunks.fill(batches, cameras, rows).padding == pytest.approx(by_cameras[cameras], abs=0.02)
