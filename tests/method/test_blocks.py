"""The sweep of trained blocks and learning rates, on tables of which it is known who is right."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.tables import write_table
from tests.lab.evaluate.building import a_table, shorten_streams
from tools.method import blocks
from tools.method.blocks import BlocksRecipe, Sweep, serve
from tools.method.choose import card_of

pytestmark = pytest.mark.check("tools")
FULL, FASTER, FEW = BlocksRecipe(None, "1e-5"), BlocksRecipe(None, "2e-5"), BlocksRecipe(2, "2e-5")


def add_run(
    sweep: Sweep, name: str, recipe: BlocksRecipe, seed: int, *, worse: float = 0.0, share: float = 1.0
) -> None:
    """A run on the same images, whose logits of the right class are lower by `worse`."""
    place = sweep.place(name, recipe, seed)
    (place / "tables").mkdir(parents=True)
    tables = [a_table(f"{domain}_{name}", best) for domain, best in (("known", 0.9), ("new", 0.2))]
    for table in tables:
        logits = table.logits.copy()
        logits[:, np.arange(len(table.labels)), table.labels] -= worse
        write_table(place / "tables" / f"{table.name}.npz", replace(table, logits=logits))
    card = replace(card_of([replace(tables[0], name="known_clean")]), tail_share=share)
    (place / "pair").mkdir()
    (place / "pair" / "card.json").write_text(card.to_json())
    (place / "minutes.txt").write_text("3.00\n")
    serve(place)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    shorten_streams(monkeypatch)
    return Sweep(tmp_path)


def test_recipes_are_compared_image_by_image_and_a_probe_of_a_tail_costs_its_share(sweep: Sweep) -> None:
    for name in "ab":
        add_run(sweep, name, FULL, 0)
        add_run(sweep, name, FEW, 0, share=0.25)
    same = sweep.difference(FEW, FULL, "long")
    assert same is not None
    assert abs(same.mean) < 3  # same logits; probes are other ones, because they cost less
    *_, row, _, choice = "\n".join(sweep.report()).splitlines()
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:3] == ["2,2e-5", "2", "0.250"]
    fe, cost = ([float(value) for value in cells[i].split(" / ")] for i in (8, 9))
    np.testing.assert_allclose(cost, [1 + 0.25 * (value - 1) for value in fe], atol=0.011)
    assert choice.startswith("Choice: ")


def test_fewer_blocks_are_chosen_only_if_they_are_surely_not_worse(sweep: Sweep) -> None:
    add_run(sweep, "a", FULL, 0, worse=0.2)
    add_run(sweep, "a", FASTER, 0)
    add_run(sweep, "a", FEW, 0, worse=1.5)
    assert sweep.best_rate(None) == FASTER
    worse = sweep.difference(FEW, FASTER, "long")
    assert worse is not None
    assert worse.low < worse.mean < worse.high < -0.3
    assert sweep.choice() == FASTER
    better = BlocksRecipe(4, "1e-5")
    add_run(sweep, "a", better, 0, worse=-1.0)
    assert Sweep(sweep.folder).choice() == better


def test_factors_of_low_rank_are_compared_and_are_never_the_choice(sweep: Sweep) -> None:
    low = blocks._recipe("2r16,5e-4")
    assert (low.name, low.blocks, low.rank) == ("2r16,5e-4", 2, 16)
    assert low.program == ("tools.method.low_rank", "16")
    assert low.flags == ["--finetune.blocks", "2", "--finetune.learning-rate", "5e-4"]
    for recipe, worse in ((FULL, 0.0), (FEW, 3.0), (low, -1.0)):
        add_run(sweep, "a", recipe, 0, worse=worse)
    assert sweep.choice() == FULL
    rows = [line.split(" | ")[0] for line in sweep.report()]
    assert rows[1:4] == ["| all,1e-5", "| 2,2e-5", "| 2r16,5e-4"]


def test_a_pair_with_more_training_seeds_counts_as_much_as_another(sweep: Sweep) -> None:
    add_run(sweep, "a", FULL, 0)
    add_run(sweep, "b", FULL, 0, worse=1.5)
    before = next(line for line in sweep.report() if line.startswith("| all"))
    add_run(sweep, "b", FULL, 1, worse=1.5)
    after = next(line for line in Sweep(sweep.folder).report() if line.startswith("| all"))
    same = [3, 4, 5, 6, 7, 9, 10, 11, 12]  # all columns but the number of runs and what differs between them
    assert [before.split("|")[i] for i in same] == [after.split("|")[i] for i in same]
    assert json.loads(after.split("|")[2]) == 3


def test_rates_are_compared_on_the_pairs_that_all_of_them_have(sweep: Sweep) -> None:
    add_run(sweep, "a", FULL, 0, worse=0.5)
    add_run(sweep, "a", FASTER, 0)
    add_run(sweep, "b", FASTER, 0, worse=3.0)  # a harder pair, which the other rate was not tried on yet
    assert sweep.best_rate(None) == FASTER


def test_a_rate_that_made_a_pair_that_must_not_serve_is_not_chosen(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ruined(name: str, recipe: BlocksRecipe, seed: int, place: Path, **_: bool) -> None:
        if (name, recipe) == ("b", FASTER):
            (place / "pair" / "rejected").mkdir(parents=True)
            (place / "pair" / "rejected" / "finetune.json").write_text("{}")
            raise subprocess.CalledProcessError(1, "finetune")
        add_run(sweep, name, recipe, seed, worse=0.0 if recipe == FASTER else 0.5)

    monkeypatch.setattr(blocks, "carry_out", ruined)
    command = ["blocks", str(sweep.folder), "--pairs", "a,b", "--recipes", "all,2e-5 all,1e-5", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", command)
    blocks.main()
    assert capsys.readouterr().out.count('"pair"') == 4, "the others go on"
    blocks.main()
    assert capsys.readouterr().out == "", "it is not made again"
    assert Sweep(sweep.folder).best_rate(None) == FULL
    assert any("| 1, 1 rejected |" in line for line in Sweep(sweep.folder).report())
    monkeypatch.setattr("sys.argv", [*command[:-4], "--recipes", "all,2e-5 four,2e-5"])
    with pytest.raises(SystemExit):
        blocks.main()
    assert "'four,2e-5' is no recipe; expected BLOCKS,RATE" in capsys.readouterr().err


def test_a_training_that_diverged_ends_no_sweep_and_a_report_without_a_full_recipe_says_so(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverging(name: str, recipe: BlocksRecipe, seed: int, place: Path, **_: bool) -> None:
        if recipe == FULL:
            raise subprocess.CalledProcessError(1, "finetune")
        if recipe == FASTER:
            (place / "pair" / "rejected").mkdir(parents=True)
            (place / "pair" / "rejected" / "finetune.json").write_text("{}")
            raise subprocess.CalledProcessError(1, "finetune")
        add_run(sweep, name, recipe, seed)

    monkeypatch.setattr(blocks, "carry_out", diverging)
    command = ["blocks", str(sweep.folder), "--pairs", "a", "--recipes", "all,1e-5 all,2e-5 2,2e-5", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", command)
    blocks.main()
    assert "a all,1e-5 0: Command 'finetune' returned" in capsys.readouterr().err
    *_, row, diverged, rejected, choice = Sweep(sweep.folder).report()
    assert row.startswith("| 2,2e-5 | 1 |")
    assert (diverged, rejected) == ("| all,1e-5 | 0, 1 rejected |", "| all,2e-5 | 0, 1 rejected |")
    assert choice.startswith("\nNo choice: ")


def test_a_rate_that_diverged_on_one_pair_is_not_chosen_for_what_it_did_on_the_others(sweep: Sweep) -> None:
    add_run(sweep, "a", FULL, 0, worse=0.5)
    add_run(sweep, "a", FASTER, 0)
    assert sweep.best_rate(None) == FASTER
    add_run(sweep, "b", FULL, 0)
    place = sweep.place("b", FASTER, 0)
    place.mkdir(parents=True)
    (place / "failed.txt").write_text("ended with code 1")
    assert Sweep(sweep.folder).best_rate(None) == FULL


def test_a_photograph_that_is_in_several_domains_is_drawn_for_all_of_them(sweep: Sweep) -> None:
    """Which recipe is right is the same in each domain, so that more domains are no more evidence."""
    rng = np.random.default_rng(1)
    right = rng.random((2, 100)) < [[0.6], [0.5]]
    table = a_table("known_clean", 0.5, images=100)
    bench = Bench(tuple(replace(table, name=f"known_{name}") for name in "abcd"), (1.0,) * len(table.alphas))
    hits = np.tile(right, 4).astype(np.float64)
    spread = []
    for photographs in (np.tile(np.arange(100), 4), np.arange(400)):
        one, other = blocks._resampled(bench, photographs, hits, np.ones_like(hits), seed=0)
        spread.append(float(np.std(one - other)))
    assert 1.8 < spread[0] / spread[1] < 2.2


def test_a_mistake_in_the_command_ends_the_sweep(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object, **__: bool) -> None:
        raise subprocess.CalledProcessError(2, "finetune")

    monkeypatch.setattr(blocks, "carry_out", mistaken)
    monkeypatch.setattr("sys.argv", ["blocks", str(sweep.folder), "--pairs", "a"])
    with pytest.raises(subprocess.CalledProcessError):
        blocks.main()


def test_tables_that_a_kill_left_unfinished_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "0"
    (place / "tables").mkdir(parents=True)
    (place / "tables" / "known_clean.npz").write_text("half of a table")
    (place / "pair").mkdir()
    written: list[Path] = []
    monkeypatch.setattr(blocks, "make", lambda *_: frozenset({1}))
    monkeypatch.setattr(blocks, "write_tables", lambda theta_1, known, out, **_: written.append(out))
    monkeypatch.setattr(blocks, "serve", lambda place: None)
    blocks.carry_out("a", FULL, 0, place, tested=False, full=False)
    assert written == [place / "tables"]
