"""`adawise finetune --compare-blocks`: a run for each number of blocks, as the command makes one, and a choice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from adawise.app.signals import INTERRUPTED
from adawise.card.card import read_card
from adawise.errors import CheckpointError, DivergedError, SettingsError, TrainingError
from adawise.settings import ModelSettings, Settings
from adawise_lab.evaluate.result import Difference
from adawise_lab.finetune import compare
from adawise_lab.finetune import comparison as results
from adawise_lab.finetune.compare_page import page
from adawise_lab.finetune.comparison import BlocksComparison, BlocksRun, choose
from adawise_lab.finetune.finetune import Finetuned, FinetuneRequest
from adawise_lab.finetune.finetune import finetune as real
from adawise_lab.finetune.folder import Folder
from tests.lab.evaluate.building import shorten_verdicts
from tests.lab.finetune.test_command import finetune, four_classes, message, prepared
from tests.models import PairFolder

Captured = pytest.CaptureFixture[str]
ONE = ("--labelled", "four", "--finetune.validation-share", "0.5", "--finetune.epochs", "1")
ALL = BlocksRun(None, "all", 0.700, None, {"home": 0.8, "new": 0.6}, 0.8, 1.2, 1.2, 1.0, 10.0)
FOUR = replace(ALL, blocks=4, folder="blocks-4", served=0.697, forward_cost=1.07, tail_share=0.36, minutes=5.0)
TWO = replace(FOUR, blocks=2, folder="blocks-2", served=0.690, forward_cost=1.04, tail_share=0.19, minutes=4.0)
BROKEN = BlocksRun(8, "blocks-8", failed="training diverged")


@pytest.fixture(autouse=True)
def _alone(logs_of_this_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shorten_verdicts(monkeypatch)
    with capture_logs():
        yield


@pytest.fixture
def folder(tmp_path: Path, pair_folder: PairFolder, shapes: Path) -> Path:
    place = prepared(tmp_path, pair_folder, shapes)
    four_classes(place)
    return place


@pytest.mark.check("lab")
def test_each_number_of_blocks_is_trained_as_the_command_trains_it_and_one_is_chosen(
    folder: Path, capsys: Captured
) -> None:
    assert finetune(folder, *ONE, "--compare-blocks", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(run["blocks"], run["folder"]) for run in found["runs"]] == [(None, "all"), (2, "blocks-2")]
    assert found["chosen"] in {"all", "blocks-2"}
    assert found["held_out"] == 24
    whole, last = found["runs"]
    assert whole["tail_share"] == 1.0
    assert whole["fe"] == whole["forward_cost"]
    assert last["tail_share"] == read_card(folder / "out" / "blocks-2" / "card.json").tail_share < 1.0
    assert last["forward_cost"] == 1.0 + last["tail_share"] * (last["fe"] - 1.0)
    assert all(set(run["groups"]) == {"home", "shifted", "new"} for run in found["runs"])
    assert all(run["minutes"] > 0.0 for run in found["runs"])
    assert whole["versus_all"] is None
    assert last["versus_all"]["difference"] == pytest.approx(last["served"] - whole["served"], abs=1e-12)
    low, high = last["versus_all"]["ci"]
    assert low <= last["versus_all"]["difference"] <= high
    record = json.loads((folder / "out" / "all" / "finetune.json").read_text())
    assert float(record["settings"]["finetune.learning_rate"]) > 0.0  # which a resumed comparison takes, not `auto`
    kept = json.loads((folder / "out" / "comparison.json").read_text())
    assert {**found, "seconds": kept["seconds"]} == kept
    shown = (folder / "out" / "comparison.html").read_text()
    assert found["why"] in shown
    assert finetune(folder, *ONE, "-o", "alone", "--finetune.blocks", "2") == 0
    for name in ("theta_1/open_clip_model.safetensors", "finetune.json", "served.parquet"):
        assert (folder / "alone" / name).read_bytes() == (folder / "out" / "blocks-2" / name).read_bytes(), name


@pytest.mark.check("lab")
def test_runs_that_did_not_keep_what_each_image_was_served_are_compared_without_intervals(
    folder: Path, capsys: Captured
) -> None:
    quick = (*ONE, "--no-finetune.rehearsal", "--compare-blocks")
    assert finetune(folder, *quick) == 0
    assert "mean against all" in capsys.readouterr().out
    (folder / "out" / "blocks-2" / "served.parquet").unlink()  # as a run of 0.3.0
    assert finetune(folder, *quick, "--resume", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["versus_all"] for run in found["runs"]] == [None, None]
    assert all(run["served"] is not None for run in found["runs"])


@pytest.mark.check("lab")
def test_a_comparison_that_was_stopped_goes_on_with_the_run_that_was_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    called: list[FinetuneRequest] = []
    stops = [True]

    def stopping(request: FinetuneRequest) -> Finetuned | None:
        called.append(request)
        return None if request.settings.finetune.blocks != "all" and stops else real(request)

    quick = (*ONE, "--no-finetune.rehearsal", "--compare-blocks")
    monkeypatch.setattr(compare, "finetune", stopping)
    assert finetune(folder, *quick) == INTERRUPTED
    before = json.loads((folder / "out" / "comparison.json").read_text())["seconds"]
    stops.clear()
    weights = folder / "out" / "all" / "theta_1" / "open_clip_model.safetensors"
    written = weights.stat().st_mtime_ns
    assert finetune(folder, *quick) == 2
    assert "there is a run already" in message(capsys)
    assert finetune(folder, *quick, "--resume") == 0
    assert [(request.output.name, request.resume) for request in called] == [
        *(("all", False), ("blocks-2", False)),
        *(("all", True), ("blocks-2", False)),
    ]
    after = json.loads((folder / "out" / "comparison.json").read_text())["seconds"]
    assert after["all"] == before["all"], "a run that has ended takes no more time"
    assert after["blocks-2"] > before["blocks-2"]
    assert weights.stat().st_mtime_ns == written
    output = capsys.readouterr().out
    assert "Would choose" in output
    assert "The choice is yours" in output
    assert "[model]" in output


def test_all_runs_have_the_learning_rate_of_the_run_that_began_first(tmp_path: Path) -> None:
    """What `auto` means depends on the version and on the epochs, which may be raised when runs are resumed."""
    began = Folder(tmp_path / "blocks-2")
    began.path.mkdir()
    began.record.write_text(json.dumps({"settings": {"finetune.learning_rate": "1e-05"}}))
    request = FinetuneRequest(Settings(), tmp_path, tmp_path)
    assert compare._at_rate_of(request, [None, 2]).settings.finetune.learning_rate == 1e-5
    assert compare._at_rate_of(request, [None, 1]).settings.finetune.learning_rate == "auto"
    given = Settings.model_validate({"finetune": {"learning_rate": 3e-5}})
    assert compare._at_rate_of(replace(request, settings=given), [None, 2]).settings is given


def test_a_run_that_is_made_again_for_more_epochs_has_the_rate_of_the_run_that_is_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = Folder(folder / "out" / "all")
    began.path.mkdir(parents=True)
    began.record.write_text(json.dumps({"settings": {"finetune.learning_rate": "2e-05"}}))
    rates = dict[str, float | str]()

    def trained(request: FinetuneRequest) -> NoReturn:
        rates[request.output.name] = request.settings.finetune.learning_rate
        raise DivergedError("training diverged in epoch 2")

    monkeypatch.setattr(compare, "finetune", trained)
    more = ("--finetune.epochs", "6", "--finetune.learning-rate", "auto", "--resume")  # whose own rate would be lower
    assert finetune(folder, *ONE, *more, "--compare-blocks") == 1
    assert rates == {"all": 2e-05, "blocks-2": 2e-05}


@pytest.mark.check("lab")
def test_a_run_that_diverges_is_listed_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def diverging(request: FinetuneRequest) -> Finetuned | None:
        if request.settings.finetune.blocks == "all":
            raise DivergedError("training diverged in epoch 1")
        return real(request)

    monkeypatch.setattr(compare, "finetune", diverging)
    assert finetune(folder, *ONE, "--no-finetune.rehearsal", "--compare-blocks", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["failed"] for run in found["runs"]] == ["training diverged in epoch 1", ""]
    assert found["chosen"] == "blocks-2"


def test_a_comparison_whose_every_training_fails_is_shown_and_is_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def diverging(request: FinetuneRequest) -> Finetuned | None:
        raise DivergedError("training diverged in epoch 1")

    monkeypatch.setattr(compare, "finetune", diverging)
    assert finetune(folder, *ONE, "--compare-blocks") == 1
    output, errors = capsys.readouterr()
    assert "all: training diverged in epoch 1" in output
    assert "no run made a pair that may serve" in errors
    found = json.loads((folder / "out" / "comparison.json").read_text())
    assert [(run["failed"], run["tail_share"]) for run in found["runs"]] == 2 * [("training diverged in epoch 1", None)]
    assert found["held_out"] == 0
    assert "Every training failed." in (folder / "out" / "comparison.html").read_text()


def raising(error: Exception) -> Callable[..., NoReturn]:
    def function(*_: object) -> NoReturn:
        raise error

    return function


def test_a_comparison_that_is_made_anew_keeps_no_run_of_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    earlier = [folder / "out" / name / "finetune.json" for name in ("all", "blocks-2", "blocks-8")]
    for record in earlier:
        record.parent.mkdir(parents=True)
        record.write_text("{}")
    kept = folder / "out" / "comparison.json"
    before = '{"seconds": {"all": 600.0, "blocks-2": 300.0}}'
    kept.write_text(before)
    (folder / "none").mkdir()
    assert finetune(folder, "--compare-blocks", "--overwrite", "--labelled", "none") == 2
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert finetune(folder, *ONE, "--compare-blocks", "--overwrite", "--finetune.mlflow") == 2
    with monkeypatch.context() as damaged:
        damaged.setattr("adawise_lab.finetune.finetune.starting_model", raising(CheckpointError("damaged")))
        assert finetune(folder, *ONE, "--compare-blocks", "--overwrite") == 1
    assert all(record.exists() for record in earlier), "there is nothing to replace them"
    assert kept.read_text() == before
    monkeypatch.setattr(compare, "finetune", lambda request: request.begins and request.begins())
    assert finetune(folder, *ONE, "--compare-blocks", "--overwrite") == INTERRUPTED
    assert not any(record.exists() for record in earlier)
    assert set(json.loads(kept.read_text())["seconds"]) == {"all"}


def test_the_minutes_of_a_run_are_those_of_the_training_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()
    monkeypatch.setattr(compare, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    place = Folder(tmp_path / "all")
    place.path.mkdir()
    settings = Settings()
    anew = FinetuneRequest(settings, tmp_path, place.path)
    resumed = replace(anew, resume=True)
    seconds: dict[str, float] = {}

    def session(request: FinetuneRequest, *, ends: bool) -> dict[str, float]:
        with compare._timed(request, seconds):
            if ends:
                place.record.write_text("{}")
        return seconds

    assert session(anew, ends=False) == {"all": 1.0}
    place.checkpoint.touch()
    assert session(resumed, ends=False) == {"all": 2.0}
    place.checkpoint.unlink()
    assert session(anew, ends=False) == {"all": 1.0}, "as after a pair that must not serve"
    assert session(resumed, ends=True) == {"all": 2.0}
    assert session(resumed, ends=False) == {"all": 2.0}, "it had ended"
    os.utime(place.record, ns=(0, 0))
    assert session(resumed, ends=True) == {"all": 3.0}, "it was extended"
    seconds.clear()
    assert session(resumed, ends=False) == {}, "it is not known"
    (tmp_path / "comparison.json").write_text("what was found")
    with pytest.raises(SettingsError), compare._timed(anew, seconds):
        raise SettingsError("no such image")
    assert (tmp_path / "comparison.json").read_text() == "what was found"

    def full(path: Path, content: bytes) -> None:
        raise TrainingError("no room for the minutes")

    monkeypatch.setattr(compare, "write_bytes", full)
    with pytest.raises(TrainingError, match="no room for the weights"), compare._timed(anew, seconds):
        raise TrainingError("no room for the weights")


def test_an_output_that_is_a_file_is_refused(folder: Path, capsys: Captured) -> None:
    (folder / "out").touch()
    assert finetune(folder, *ONE, "--compare-blocks") == 2
    assert "expected a folder, but it is a file" in message(capsys)


@pytest.mark.parametrize(
    ("flags", "blocks", "expected"),
    [
        (("--finetune.blocks", "2"), 3, "finetune.blocks is 2, and --compare-blocks trains several"),
        (("--resume",), 3, "there is no run of a comparison to resume"),
        ((), 2, "2 blocks are recognised in this image tower, expected 3 or more"),
        ((), 0, "0 blocks are recognised in this image tower, expected 3 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    flags: tuple[str, ...],
    blocks: int,
    expected: str,
) -> None:
    monkeypatch.setattr(compare, "stated_blocks", lambda *_: blocks or None)
    monkeypatch.setattr(compare, "image_blocks", lambda _names: blocks)
    assert finetune(folder, *ONE, "--compare-blocks", *flags) == 2
    assert expected in message(capsys)
    assert not (folder / "out").exists()


def test_the_fewest_blocks_that_serve_nearly_as_much_as_the_best_are_chosen() -> None:
    assert choose([ALL, BROKEN, FOUR, TWO])[0] is FOUR
    assert choose([ALL, TWO])[0] is ALL
    assert choose([replace(ALL, served=0.69), FOUR, TWO])[0] is FOUR, "two serve .7 points less than four"
    chosen, why = choose([BROKEN])
    assert chosen is None
    assert "No pair was judged" in why
    _, why = choose([ALL, FOUR])
    assert "It serves .697 (the best, all: .700) and took 5.0 minutes; " in why
    assert "an image at a second alpha costs 0.36 of a forward" in why
    _, why = choose([replace(ALL, minutes=None)])
    assert "It serves .700; nothing is shared." in why


def test_the_page_has_every_run_and_what_the_figures_are_worth() -> None:
    runs = (ALL, BROKEN, FOUR, TWO)
    shown = page(BlocksComparison(runs, *choose(runs), 200, Path("out")), ["finetune", "--compare-blocks"])
    assert "Blocks to train: would choose 4" in shown
    assert "Means over conditions: all .700, 4 .697, 2 .690." in shown
    assert "training diverged" in shown
    assert "200 held-out images judge it" in shown
    assert "Whole forwards an image: all 1.20, 4 1.07, 2 1.04." in shown
    assert "With evaluation, rehearsal and card: all 10.0, 4 5.0, 2 4.0." in shown, "8 blocks stopped early"


def test_intervals_say_which_runs_the_images_cannot_distinguish(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "paper", lambda: Console(width=80, force_terminal=True, color_system=None))
    four = replace(FOUR, versus_all=Difference(-0.003, (-0.012, 0.005)))
    runs = (ALL, BROKEN, four, replace(TWO, versus_all=Difference(-0.01, (-0.019, -0.002))))
    comparison = BlocksComparison(runs, *choose(runs), 200, Path("out"))
    few = "These images are too few to distinguish 4 from all: raise finetune.judged_images"
    assert few in results.caution(comparison)
    assert "too few" not in results.caution(replace(comparison, runs=(ALL, runs[-1])))
    shown = page(comparison, ["finetune", "--compare-blocks"])
    assert few in shown
    assert "−0.3 (−1.2 to +0.5)" in shown
    results.show_comparison(replace(comparison, chosen=None), ModelSettings(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines if "against" in line or " to +" in line or " to −" in line] == [
        "blocks mean against all, in points",
        "4 −0.3 (−1.2 to +0.5)",
        "2 −1.0 (−1.9 to −0.2)",
    ]


def test_a_table_with_a_run_that_failed_fits_a_terminal(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "paper", lambda: Console(width=80, force_terminal=True, color_system=None))
    broken = replace(BROKEN, failed="training diverged in epoch 3 at update 200: the loss is nan")
    runs = (replace(ALL, alpha=0.65), broken, FOUR)
    results.show_comparison(BlocksComparison(runs, None, "none", 200, Path("out")), ModelSettings(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[3].split()) == "all .800 – .600 .700 alpha .65 .800 1.20 1.20 1.00 10.0"
    assert lines[4].split() == ["8", *4 * ["–"], "failed", *5 * ["–"]]
    assert f"8: {broken.failed}" in lines
    assert not any("…" in line for line in lines)
