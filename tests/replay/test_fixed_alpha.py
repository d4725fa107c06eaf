"""A card whose verdict advises a fixed alpha, served live: what a replay makes of it, and what an operator is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adawise.app.model import load_model
from adawise.card.card import PairVerdict, make_card
from adawise.settings import read
from tests.replay.runs import Recorded, adawise, assert_same, end, events, process, traces, wait_for_rows

pytestmark = pytest.mark.check("replay")

METHOD = "a fixed alpha of 0.45, as the card advises"

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def card(recorded: Recorded, tmp_path: Path) -> tuple[str, str]:
    """The flag of such a card."""
    settings = read((), environ={}, folder=recorded.folder, uses=frozenset({"model"})).checked()
    model = load_model(settings.model, settings.decode)
    images = len(model.classes)
    made = make_card(
        lambda _: torch.eye(images),
        torch.arange(images),
        alphas=model.classifier.alphas,
        identity=model.classifier.identity,
        created_at="2026-11-28T00:00:00Z",
    )
    verdict = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.65, 0.6, (-0.05, -0.06, -0.04), ())
    (tmp_path / "card.json").write_text(replace(made, verdict=verdict).to_json())
    return "--model.card", str(tmp_path / "card.json")


def test_what_auto_serves_by_a_fixed_alpha_is_replayed_bit_by_bit_and_everybody_says_so(
    recorded: Recorded, card: tuple[str, str], tmp_path: Path, capsys: Captured
) -> None:
    live, again = tmp_path / "live", tmp_path / "again"
    group = f"{recorded.topic}-fixed"
    with process(recorded.folder, "run", "--sink.root", str(live), "--kafka.group", group, *card) as worker:
        log = wait_for_rows(events(worker.stderr), recorded.rows)
        assert end(worker)[0] == 0
    (loaded,) = [event for event in log if event["event"] == "model_loaded"]
    assert loaded["method"] == METHOD
    assert {(trace["alpha"], trace["forward_equivalents"]) for trace in traces(live)} == {(0.45, 1.0)}

    assert adawise(recorded.folder, "replay", "recording", "-o", str(again), *card) == 0
    assert_same(again, live)
    pairs_of = ("-o", str(tmp_path / "by its pairs"), "--pairs-of", str(live))
    assert adawise(recorded.folder, "replay", "recording", *pairs_of, *card) == 0
    assert_same(tmp_path / "by its pairs", live)
    capsys.readouterr()
    assert adawise(recorded.folder, "diff", str(live), str(again)) == 0
    assert " are equal: " in capsys.readouterr().out

    for root in (live, again):
        adawise(recorded.folder, "status", "--root", str(root), "--no-broker", "--json")
        assert {each["method"] for each in json.loads(capsys.readouterr().out)["partitions"]} == {METHOD}
    adawise(recorded.folder, "status", "--root", str(live), "--no-broker")
    assert f"\nmethod: {METHOD}\n" in capsys.readouterr().out
    assert adawise(recorded.folder, "pair", "list", str(live)) == 0
    assert f"card {card[1]}\n    {METHOD}\n" in capsys.readouterr().out
    assert adawise(recorded.folder, "drift", str(live), "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(note.startswith("a fixed alpha of 0.45 served: a constant alpha says nothing") for note in notes)
