"""`adawise evaluate --protocol chronological` as a user meets it: a recording in, trainings kept, a result out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adawise_lab.chronological.served import NAMES
from adawise_lab.chronological.trained import alone
from adawise_lab.evaluate.references import FINE_TUNED, ZERO_SHOT
from adawise_lab.finetune.folder import Folder
from tests.lab.chronological.site import EACH, QUICK, Seen, three_cameras, write_site
from tests.lab.evaluate.building import shorten_verdicts
from tests.lab.finetune.shapes import CLASSES
from tests.models import PairFolder, write_pair
from tests.replay.runs import adawise, events, process

Captured = pytest.CaptureFixture[str]
Logs = list[MutableMapping[str, Any]]
PROTOCOL = ("evaluate", "--protocol", "chronological")
FLAGS = (*PROTOCOL, "--images", "site", "--intervals", "3", *QUICK)


@pytest.fixture(scope="module")
def theta_0(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return write_pair(tmp_path_factory.mktemp("pair"), classes=CLASSES)


@pytest.fixture(autouse=True)
def logs(logs_of_this_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logs]:
    shorten_verdicts(monkeypatch)
    with capture_logs() as logs:
        yield logs


def prepared(place: Path, theta_0: PairFolder, seen: list[Seen], *, broken: Sequence[int] = ()) -> Path:
    """A folder with the recording `site` and the settings of theta_0."""
    write_site(place / "site", seen, broken=broken)
    lines = [f"theta_0 = '{theta_0.theta_0}'", f"architecture = '{theta_0.theta_0}'"]
    lines += ["device = 'cpu'", "precision = 'fp32'", "threads = 1"]
    (place / "adawise.toml").write_text("[model]\n" + "\n".join(lines))
    return place


@dataclass(frozen=True)
class Ran:
    """The protocol in `home`, run to its end: what `--json` printed, and what was logged."""

    home: Path
    result: dict[str, Any]
    logs: Logs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, theta_0: PairFolder) -> Callable[[], Ran]:
    """A run that no test may change, made when a test first asks for it."""

    @cache
    def made() -> Ran:
        home = prepared(tmp_path_factory.mktemp("whole"), theta_0, three_cameras())
        with capture_logs() as logs, redirect_stdout(StringIO()) as out:
            assert adawise(home, *FLAGS, "--scene.prior", "beside", "-o", "out", "--json") == 0
        return Ran(home, json.loads(out.getvalue()), logs)

    return made


@pytest.fixture
def home(tmp_path: Path, theta_0: PairFolder) -> Path:
    return prepared(tmp_path, theta_0, three_cameras())


def result_of(home: Path, captured: Captured, *flags: str) -> dict[str, Any]:
    assert adawise(home, *FLAGS, "--json", *flags) == 0
    result: dict[str, Any] = json.loads(captured.readouterr().out)
    return result


def refused(home: Path, captured: Captured, *arguments: str) -> str:
    assert adawise(home, *arguments) == 2
    out, err = captured.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def trainings(logs: Logs) -> int:
    return sum(log["event"] == "training_began" for log in logs)


@pytest.mark.check("lab")
def test_models_of_all_cameras_serve_the_interval_after_them(whole: Callable[[], Ran]) -> None:
    ran = whole()
    result = ran.result
    assert result["cameras"] == ["gate", "wall", "yard"]
    assert result["images"] == [3 * EACH] * 3
    assert [(t["interval"], t["camera"], t["images"]) for t in result["trainings"]] == [(0, None, 27), (1, None, 54)]
    assert {(cell["camera"], cell["interval"], cell["images"]) for cell in result["cells"]} == {
        (camera, k, EACH) for camera in ("gate", "wall", "yard") for k in (1, 2)
    }
    assert [(row["name"], row["scene"]) for row in result["rows"]] == [
        *((name, scene) for scene in (False, True) for name in NAMES),
        ("best_fixed", False),
        ("best_fixed_each", False),
    ]
    assert trainings(ran.logs) == 2


def test_a_page_and_the_result_are_written(whole: Callable[[], Ran]) -> None:
    ran = whole()
    assert json.loads((ran.home / "out" / "result.json").read_text()) == ran.result
    page = (ran.home / "out" / "page.html").read_text()
    assert "On the interval after a training" in page
    assert all(f'id="{anchor}"' in page for anchor in ("by-interval", "camera-fine_tuned", "camera-auto-scene"))


def test_a_training_is_a_run_of_finetune_on_what_came_before_alone(whole: Callable[[], Ran]) -> None:
    ran = whole()
    for training in ran.result["trainings"]:
        folder = Folder(ran.home / "runs" / "tables" / "chronological" / training["folder"])
        record = json.loads(folder.record.read_text())
        last = 3 * EACH * (training["interval"] + 1)  # offsets come in the order of time
        offsets = [int(name.split("/")[-1]) for name in record["held_out"]]
        assert offsets
        assert max(offsets) < last
        assert record["images"]["train"] + record["images"]["held_out"] <= last
        assert folder.card.exists()
        assert folder.classes.read_text().split("\n")[:3] == sorted(CLASSES)


def test_nothing_is_trained_again_while_nothing_changes(whole: Callable[[], Ran], capsys: Captured, logs: Logs) -> None:
    ran = whole()
    again = result_of(ran.home, capsys, "--scene.prior", "beside")
    assert again == ran.result
    assert trainings(logs) == 0
    plain = result_of(ran.home, capsys)  # how they are served does not matter to trainings
    assert trainings(logs) == 0
    assert [row for row in plain["rows"] if row["name"] == "warm"] == [
        row for row in ran.result["rows"] if (row["name"], row["scene"]) == ("warm", False)
    ]


def test_live_and_with_shortlists_the_same_trainings_serve_otherwise(
    whole: Callable[[], Ran], capsys: Captured, logs: Logs
) -> None:
    ran = whole()
    assert (ran.result["pace"], ran.result["shortlists"]) == ("backlog", {})
    assert ran.result["tested"]["batches"] == 6  # one of each camera and interval
    live = result_of(ran.home, capsys, "--pace", "live", "--batch.max-age-s", "3600", "--search.forget-after-s", "60")
    assert live["pace"] == "live"
    assert live["tested"]["batches"] == 6 * EACH  # an image in 9,600 s
    assert all(row["forwards"] in (1.0, None) for row in live["rows"])
    lists = f'--scene.shortlists=[{{"streams": "y*", "exclude": ["{CLASSES[2]}"]}}]'
    listed = result_of(ran.home, capsys, lists)
    assert listed["shortlists"] == {"yard": len(CLASSES) - 1}
    cells = {(c["camera"], c["interval"]): c["accuracy"] for c in ran.result["cells"]}
    for cell in listed["cells"]:
        before = {title: cells[cell["camera"], cell["interval"]][title] for title in cell["accuracy"]}
        assert cell["accuracy"][ZERO_SHOT] >= before[ZERO_SHOT]  # it never shows the third one
        assert cell["camera"] == "yard" or cell["accuracy"] == before
    assert trainings(logs) == 0


@pytest.mark.check("lab")
def test_another_recipe_is_trained_beside(whole: Callable[[], Ran], capsys: Captured, logs: Logs) -> None:
    ran = whole()
    other = result_of(ran.home, capsys, "--finetune.seed", "1")
    assert trainings(logs) == 2
    folders = [{training["folder"] for training in result["trainings"]} for result in (ran.result, other)]
    assert folders[0].isdisjoint(folders[1])


@pytest.mark.check("lab")
def test_a_camera_of_its_own_model_is_served_by_theta_0_where_none_can_be_trained(
    whole: Callable[[], Ran], home: Path, capsys: Captured, logs: Logs
) -> None:
    of_all = whole().result
    result = result_of(home, capsys, "--train", "camera")
    by_camera = {(t["camera"], t["interval"]): (t["images"], t["pair"]) for t in result["trainings"]}
    assert by_camera == {
        ("gate", 0): (9, True),
        ("gate", 1): (18, True),
        ("yard", 0): (9, True),
        ("yard", 1): (18, True),
        ("wall", 0): (0, False),  # it has shown one class so far
        ("wall", 1): (0, False),
    }
    assert {t["why"] for t in result["trainings"]} == {"", "fewer than two classes with two images each"}
    assert result["tested"] == {"cameras": 3, "images": 54, "without_pair": 18, "batches": 4}
    wall = [cell["accuracy"] for cell in result["cells"] if cell["camera"] == "wall"]
    assert all(accuracy[FINE_TUNED] == accuracy[ZERO_SHOT] == accuracy["warm"] for accuracy in wall)
    assert trainings(logs) == 4
    # theta_0 is the same alone, in a pair of one camera and in that of all.
    alone, others = (
        {(c["camera"], c["interval"]): c["accuracy"][ZERO_SHOT] for c in one["cells"]} for one in (result, of_all)
    )
    assert alone == others


@pytest.mark.check("lab")
def test_an_interval_whose_images_are_broken_does_not_count(
    tmp_path: Path, theta_0: PairFolder, capsys: Captured, logs: Logs
) -> None:
    home = prepared(tmp_path, theta_0, three_cameras(), broken=[2])
    result = result_of(home, capsys)
    assert {cell["interval"] for cell in result["cells"]} == {1}
    assert [log["interval"] for log in logs if log["event"] == "interval_left_out"] == [3]


@pytest.mark.check("lab")
def test_a_training_whose_images_are_broken_leaves_theta_0_alone(
    tmp_path: Path, theta_0: PairFolder, capsys: Captured
) -> None:
    result = result_of(prepared(tmp_path, theta_0, three_cameras(), broken=[0]), capsys)
    assert [one["pair"] for one in result["trainings"]] == [False, True]
    assert result["trainings"][0]["why"] == "a batch of images that cannot be read"
    assert {cell["interval"] for cell in result["cells"]} == {1, 2}


@pytest.mark.check("lab")
def test_theta_0_alone_makes_a_result(tmp_path: Path, theta_0: PairFolder, capsys: Captured) -> None:
    """The first training has no pair, and the interval of the second one cannot be read."""
    result = result_of(prepared(tmp_path, theta_0, three_cameras(), broken=[0, 2]), capsys)
    assert {cell["interval"] for cell in result["cells"]} == {1}
    accuracies = {row["accuracy"] for row in result["rows"]}
    assert len(accuracies) == 1


@pytest.mark.check("lab")
def test_a_damaged_training_is_named_with_what_to_do(
    whole: Callable[[], Ran], tmp_path: Path, capsys: Captured, logs: Logs
) -> None:
    home = Path(shutil.copytree(whole().home, tmp_path / "home"))
    first, *_ = sorted((home / "runs/tables/chronological").glob("all-001@*"))
    Folder(first).card.write_text("{")
    assert adawise(home, *FLAGS, "--scene.prior", "beside") == 1
    error = capsys.readouterr().err
    assert str(first.relative_to(home)) in error
    assert "Remove the folder, and the same command trains it anew" in error
    shutil.rmtree(first)
    logs.clear()
    assert result_of(home, capsys, "--scene.prior", "beside") == whole().result
    assert trainings(logs) == 1


def test_two_runs_do_not_share_a_cache(home: Path, capsys: Captured) -> None:
    with alone(home / "runs/tables/chronological"):
        error = refused(home, capsys, *FLAGS)
    assert "another run of a protocol uses it. Wait for its end" in error


@pytest.mark.parametrize("flags", [("-o", "adawise.toml/out"), ("--cache", "adawise.toml")])
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_trained(
    home: Path, capsys: Captured, logs: Logs, flags: tuple[str, ...]
) -> None:
    error = refused(home, capsys, *FLAGS, *flags)
    assert f"{flags[0]} adawise.toml" in error
    assert "Name a folder that can be written" in error
    assert trainings(logs) == 0


@pytest.mark.check("lab")
def test_a_run_that_is_killed_goes_on_where_it_was_and_ends_as_if_it_was_not(
    whole: Callable[[], Ran], home: Path, capsys: Captured, logs: Logs
) -> None:
    flags = (*FLAGS, "--scene.prior", "beside", "--finetune.checkpoint-every-s", "0", "--log.format", "json")
    with process(home, *flags) as running:
        next(event for event in events(running.stderr) if event["event"] == "epoch_finished")
        running.kill()
        running.wait()
    (checkpoint,) = (home / "runs").rglob("checkpoint.pt")
    assert checkpoint.is_file()
    result = result_of(home, capsys, "--scene.prior", "beside")
    epochs = [log["epoch"] for log in logs if log["event"] == "epoch_finished"]
    assert len(epochs) < 4  # of two trainings of two epochs each
    assert result == whole().result


def test_a_run_that_is_stopped_in_a_training_ends_as_commands_do(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adawise_lab.chronological.trained.finetune", lambda _: None)
    assert adawise(home, *FLAGS) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "the same `adawise evaluate` goes on" in err


def test_a_recipe_without_a_training_is_refused(home: Path, capsys: Captured) -> None:
    error = refused(home, capsys, "evaluate", "--logits", "tables", "--finetune.epochs", "3")
    assert "--finetune.epochs" in error
    assert "it has no effect with these options; leave it out" in error


def test_a_site_that_shows_one_class_only_is_refused(tmp_path: Path, theta_0: PairFolder, capsys: Captured) -> None:
    seen = [replace(one, label=CLASSES[0]) for one in three_cameras()]
    assert "there is nothing to distinguish" in refused(prepared(tmp_path, theta_0, seen), capsys, *FLAGS)


def test_a_site_on_which_nothing_can_be_trained_is_refused(
    tmp_path: Path, theta_0: PairFolder, capsys: Captured
) -> None:
    seen = [one for one in three_cameras() if one.camera == "wall" and one.day is not None]
    error = refused(prepared(tmp_path, theta_0, seen), capsys, *FLAGS)
    assert "no pair could be trained" in error
    assert "fewer than two classes" in error
    assert "from 2026-01-01 to 2026-01-03" in error


def test_only_a_recording_has_cameras_and_times(home: Path, capsys: Captured) -> None:
    (home / "folder" / "red disc").mkdir(parents=True)
    arguments = (*PROTOCOL, "--images", "folder", "--intervals", "3")
    assert "expected a recording" in refused(home, capsys, *arguments)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("--intervals", "3"), "--images"),
        (("--images", "site"), "--intervals"),
        (("--images", "site,other", "--intervals", "3"), "expected one recording"),
        (("--images", "site", "--intervals", "1"), "2 to 1000 intervals"),
        (("--images", "site", "--intervals", "30y"), "2 to 1000 intervals"),
        (("--images", "site", "--intervals", "900d"), "which makes 1 interval"),
        (("--images", "site", "--intervals", "3", "--logits", "tables"), "--logits"),
        (("--images", "site", "--intervals", "3", "--corrupt", "fog"), "--corrupt"),
        (("--images", "site", "--intervals", "3", "--streams", "long"), "--streams"),
        (("--images", "site", "--intervals", "3", "--seeds", "2"), "--seeds"),
        (("--images", "site", "--intervals", "3", "--calibrate", "a"), "--calibrate"),
        (("--images", "site", "--intervals", "3", "--shows", "few5"), "--shows"),
        (("--images", "site", "--intervals", "3", "--groups", "a=b"), "--groups"),
        (("--images", "site", "--intervals", "3", "--shortlists", "exact"), "--shortlists"),
        (("--images", "site", "--intervals", "3", "--batch.max-age-s", "9"), "--batch.max-age-s"),
        (("--images", "site", "--intervals", "3", "--search.forget-after-s", "90"), "--search.forget-after-s"),
        (("--images", "site", "--intervals", "3", "--curve"), "--curve"),
        (("--images", "site", "--intervals", "3", "--model.theta-1", "a.pt"), "--model.theta-1"),
        (("--images", "site", "--intervals", "3", "--model.card", "card.json"), "--model.card"),
    ],
)
def test_what_makes_no_sense_with_the_protocol_is_refused(
    home: Path, capsys: Captured, flags: tuple[str, ...], error: str
) -> None:
    assert error in refused(home, capsys, *PROTOCOL, *flags)


@pytest.mark.parametrize("flags", [("--intervals", "3"), ("--train", "camera"), ("--state", "keep")])
def test_options_of_the_protocol_need_it(home: Path, capsys: Captured, flags: tuple[str, ...]) -> None:
    error = refused(home, capsys, "evaluate", "--images", "site", *flags)
    assert flags[0] in error
    assert "it needs --protocol chronological" in error
