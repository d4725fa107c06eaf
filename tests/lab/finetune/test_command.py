"""`adawise finetune` as a user meets it: the whole product from a zero-shot model and a folder, and every refusal."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from adawise.adapt.search import forward_cost
from adawise.app.model import load_model
from adawise.app.pairs import starting_pair
from adawise.card.advice import AUTO, OWN, advised_alpha, chosen, recommend
from adawise.card.card import PairVerdict, read_card
from adawise.console import Progress
from adawise.errors import DivergedError
from adawise.pairs.orders import Orders
from adawise.settings import DecodeSettings, ModelSettings, Settings
from adawise_lab.card.show import verdict_text
from adawise_lab.finetune.countdown import Countdown
from adawise_lab.finetune.folder import CONTENTS, Folder
from adawise_lab.finetune.learner import Learner
from adawise_lab.finetune.rehearsal import kept_classes
from adawise_lab.finetune.training import for_run, starting_model
from tests.deadlines import scaled
from tests.lab.evaluate.building import shorten_verdicts
from tests.lab.finetune.shapes import CLASSES, png, write_parquet, write_shapes
from tests.labels.folders.places import Shot, write_recording
from tests.models import PairFolder
from tests.replay.runs import adawise, process

Captured = pytest.CaptureFixture[str]
QUICK = ("--finetune.epochs", "2", "--finetune.batch-images", "8", "--finetune.learning-rate", "1e-3")


@pytest.fixture(autouse=True)
def _logging(logs_of_this_process: None) -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(autouse=True)
def _short_verdicts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not where a run here is compared with that of a process of its own, which nothing patches."""
    if request.node.get_closest_marker("soak") is None:
        shorten_verdicts(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, pair_folder: PairFolder, shapes: Path) -> Path:
    """Where `images` is the folder of shapes and theta_0 is set."""
    return prepared(tmp_path, pair_folder, shapes)


def prepared(place: Path, pair_folder: PairFolder, shapes: Path) -> Path:
    (place / "images").symlink_to(shapes)
    lines = [f"theta_0 = '{pair_folder.theta_0}'", f"architecture = '{pair_folder.theta_0}'"]
    lines += ["device = 'cpu'", "precision = 'fp32'", "threads = 1"]
    (place / "adawise.toml").write_text("[model]\n" + "\n".join(lines))
    return place


@dataclass(frozen=True)
class Finished:
    """A run of `finetune(folder)` that ended well: the folder, and what it printed and logged."""

    folder: Path
    output: str
    logs: list[MutableMapping[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pair_folder: PairFolder, shapes: Path) -> Callable[[], Finished]:
    """The run, made when a test first asks for it: what is patched for each test is patched for it."""

    @cache
    def made() -> Finished:
        place = prepared(tmp_path_factory.mktemp("whole"), pair_folder, shapes)
        with capture_logs() as logs, redirect_stdout(io.StringIO()) as out:
            assert finetune(place) == 0
        return Finished(place, out.getvalue(), logs)

    return made


@pytest.fixture
def finished(folder: Path, whole: Callable[[], Finished]) -> Finished:
    """A copy of the run that a test may change."""
    made = whole()
    shutil.copytree(made.folder / "out", folder / "out")
    return replace(made, folder=folder)


def finetune(folder: Path, *flags: str) -> int:
    return adawise(folder, "finetune", "--labelled", "images", "-o", "out", *QUICK, *flags)


def message(captured: Captured) -> str:
    err = captured.readouterr().err
    assert "Traceback" not in err
    return err[err.index("adawise: ") :].rstrip()


def test_a_zero_shot_model_and_a_folder_become_a_pair_that_runs(
    finished: Finished, pair_folder: PairFolder, capsys: Captured
) -> None:
    folder, output = finished.folder, finished.output
    toml = output[output.index("[model]") :]
    assert 'theta_1 = "local-dir:out/theta_1"' in toml
    (folder / "adawise.toml").write_text(toml + "device = 'cpu'\nprecision = 'fp32'\n[search]\nobjective = 'atc'\n")
    assert adawise(folder, "doctor", "--kafka.bootstrap-servers", "127.0.0.1:1") == 1  # there is no broker
    checked = capsys.readouterr().out
    assert "OK    model pair and card: 3 classes" in checked
    record = json.loads((folder / "out" / "finetune.json").read_text())
    assert record["curve"][0]["accuracy"] < record["best"]["accuracy"]
    assert (record["images"]["train"], record["images"]["held_out"]) == (33, 3)
    assert len(record["held_out"]) == 3
    assert set(record["versions"]) == {"adawise", "torch", "open_clip", "python"}
    assert re.fullmatch(r"pillow-bicubic-shortest-\d+/1", record["settings"]["preprocessing"]), (
        "a run that 0.2 began, which tied it to the pixels' first id, goes on"
    )
    card = read_card(folder / "out" / "card.json")
    assert (card.images, card.identity["theta_1"]) == (3, record["theta_1"]["hash"])
    left = {path.name for path in (folder / "out").iterdir()}
    made = {"theta_1", "classes.txt", "templates.txt", "card.json", "card.heads.safetensors"}
    assert left == made | {"finetune.json", "finetune.html", "served.parquet"}
    out = folder / "out"
    settings = ModelSettings(
        theta_0=pair_folder.theta_0,
        theta_1=f"local-dir:{out / 'theta_1'}",
        classes=out / "classes.txt",
        templates=out / "templates.txt",
        card=out / "card.json",
        device="cpu",
        precision="fp32",
    )
    model = load_model(settings, DecodeSettings())  # as a worker does
    assert model.classes == CLASSES
    assert model.card is not None


@pytest.mark.parametrize("place", ["beside", "beside what a link names", "beside a link"])
def test_a_worker_that_searches_without_the_card_beside_theta_1_warns_at_its_start(
    finished: Finished, pair_folder: PairFolder, place: str
) -> None:
    out = finished.folder / "out"
    theta_1, beside = out / "theta_1", out / "card.json"
    if place != "beside":
        theta_1 = finished.folder / "latest"
        theta_1.symlink_to(out / "theta_1")
    if place == "beside a link":
        (out / "theta_1").rename(finished.folder / "stored")
        theta_1 = out / "theta_1"
        theta_1.symlink_to(finished.folder / "stored")
    model = ModelSettings(
        theta_0=pair_folder.theta_0,
        theta_1=f"local-dir:{theta_1}",
        classes=out / "classes.txt",
        templates=out / "templates.txt",
        device="cpu",
        precision="fp32",
    )

    def warned_of(card: Path | None) -> list[str]:
        settings = Settings().model_copy(update={"model": model.model_copy(update={"card": card})})
        with capture_logs() as logs:
            starting_pair(settings, Orders())
        return [log["card"] for log in logs if log["event"] == "card_left_out"]

    assert warned_of(None) == [str(beside)]
    assert warned_of(beside) == []


def four_classes(folder: Path) -> Path:
    """Where the fourth class is a blue disc; images of two classes are new to a rehearsal."""
    place = write_shapes(folder / "four", 12)
    shutil.copytree(place / "red disc", place / "blue disc")
    for file in (place / "blue disc").iterdir():
        with Image.open(file) as image:
            Image.merge("RGB", image.split()[::-1]).save(file)
    return place


@pytest.mark.check("lab")
def test_a_run_of_the_last_blocks_makes_a_pair_with_shared_layers_that_serves_at_their_price(
    folder: Path, capsys: Captured
) -> None:
    assert finetune(folder, "--finetune.blocks", "1") == 0
    card = read_card(folder / "out" / "card.json")
    assert 0.2 < card.tail_share < 0.5, "one block of three, and the projection"
    output = capsys.readouterr().out
    (folder / "adawise.toml").write_text(output[output.index("[model]") :] + "device = 'cpu'\nprecision = 'fp32'\n")
    assert adawise(folder, "doctor", "--kafka.bootstrap-servers", "127.0.0.1:1") == 1  # there is no broker
    shares = f"equal first layers: an image at a second alpha costs {card.tail_share:.2f} of a forward"
    assert shares in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("recipe", "images", "expected"),
    [
        ({}, 400, (1.7e-5, 1)),  # 60 updates
        ({}, 64, (2e-5, 1)),
        ({}, 10_000, (1e-5, 1)),
        ({"batch_images": 32, "accumulate": 2, "epochs": 5}, 256, (2e-5, 1)),
        ({"loss": "flyp"}, 256, (1e-5, "all")),
        ({"loss": "balanced"}, 256, (2e-5, 1)),
        ({"blocks": "all", "learning_rate": 3e-4}, 256, (3e-4, "all")),
        ({"blocks": 2}, 256, (2e-5, 2)),
    ],
)
def test_rate_and_blocks_follow_from_the_loss_the_tower_and_the_updates(
    pair_folder: PairFolder, recipe: dict[str, object], images: int, expected: tuple[object, object]
) -> None:
    model = {"architecture": pair_folder.theta_0, "theta_0": pair_folder.theta_0}
    settings = Settings.model_validate({"model": model, "finetune": recipe})
    found = for_run(settings, starting_model(settings), images).finetune
    assert (found.learning_rate, found.blocks) == expected


def test_too_many_blocks_are_refused_before_weights_and_images_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("adawise_lab.finetune.finetune.read_data", None)
    assert finetune(folder, "--finetune.blocks", "3") == 2
    assert "finetune.blocks is 3, but the image tower has 3 blocks" in message(capsys)


@pytest.mark.check("lab")
def test_the_recipe_is_run_again_without_some_classes_and_the_pair_judged_on_them(
    folder: Path, capsys: Captured
) -> None:
    four_classes(folder)
    with capture_logs() as logs:
        assert finetune(folder, "--labelled", "four", "--finetune.validation-share", "0.5") == 0
    (began,) = [line for line in logs if line["event"] == "rehearsal_began"]
    assert (began["classes"], began["left_out"], began["images"]) == (2, 2, 12)
    rows = [line["epoch"] for line in logs if line["event"] == "epoch_finished"]
    output = capsys.readouterr().out
    assert "classes left out" in output
    assert "search.strategy = auto" in output
    out = folder / "out"
    card, record = read_card(out / "card.json"), json.loads((out / "finetune.json").read_text())
    assert card.verdict is not None
    advised: dict[str, Any] = {"advised_alpha": advised_alpha(card.verdict), "told": verdict_text(card.verdict)}
    advised["recommended"] = asdict(recommend(card.verdict))
    advised["fe"] = record["verdict"]["fe"]
    advised["forward_cost"] = forward_cost(record["verdict"]["fe"], card.tail_share)
    assert rows[rows.index(1, 1) :] == list(range(1, record["best"]["epoch"] + 1)), "as long as theta_1 was trained"
    assert record["verdict"] == json.loads(json.dumps({**asdict(card.verdict), **advised}))
    assert verdict_text(card.verdict) in output
    assert "classes left out of a rehearsal" in (out / "finetune.html").read_text()
    groups = {group.group: (group.conditions, group.images) for group in card.verdict.groups}
    assert groups == {"home": (1, 24), "shifted": (5, 24), "new": (6, 12)}
    assert {one.condition for one in card.judged} == {
        OWN,
        *(f"shifted_{kind}" for kind in ("gaussian_noise2", "motion_blur2", "fog2", "contrast2", "jpeg4")),
        *(f"new_{kind}" for kind in ("clean", "gaussian_noise2", "motion_blur2", "fog2", "contrast2", "jpeg4")),
    }
    assert len(card.shifted_temperature) == len(card.alphas)
    assert not (out / "rehearsal").exists()
    assert not (out / "checkpoint.pt").exists()
    assert finetune(folder, "--labelled", "four", "--overwrite", "--no-finetune.rehearsal") == 0
    card = read_card(out / "card.json")
    assert card.verdict is not None
    assert [group.group for group in card.verdict.groups] == ["home", "shifted"]


@pytest.mark.check("lab")
def test_the_balanced_loss_counts_the_images_to_learn_from_and_a_rehearsal_counts_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = four_classes(folder)
    for number in range(8):
        (place / "red disc" / f"{number:03}.png").unlink()
    counts = list[Sequence[int]]()

    class Counted(Learner):
        def __init__(self, *arguments: Any, **others: Any) -> None:
            counts.append(others["counts"])
            super().__init__(*arguments, **others)

    monkeypatch.setattr("adawise_lab.finetune.training.Learner", Counted)
    flags = ("--labelled", "four", "--finetune.validation-share", "0.5", "--finetune.loss", "balanced")
    assert finetune(folder, *flags, "--finetune.epochs", "1") == 0
    record = json.loads((folder / "out" / "finetune.json").read_text())
    assert record["settings"]["finetune.loss"] == "balanced"
    learned = [row["train"] for row in record["classes"]]
    assert [row["name"] for row in record["classes"]] == ["blue bar", "blue disc", "green square", "red disc"]
    assert learned == [6, 6, 6, 2]
    kept = kept_classes([row["name"] for row in record["classes"]], 0)
    rehearsed = [row["train"] if row["name"] in kept else 0 for row in record["classes"]]
    assert counts == [learned, rehearsed]


def test_uneven_classes_are_not_corrected_for_twice(folder: Path, capsys: Captured) -> None:
    assert finetune(folder, "--finetune.loss", "balanced", "--finetune.balanced") == 2
    told = message(capsys)
    assert "finetune.balanced = true" in told
    assert "the loss balanced corrects for uneven classes, and would do so a second time; leave one of them out" in told
    assert not (folder / "out").exists()


class Counting:
    """A bar that keeps what it is told."""

    def __init__(self) -> None:
        self.totals: list[int | None] = []
        self.done = 0
        self.stages: list[str] = []

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, text: str) -> None:
        stage = text.partition(":")[0]
        if self.stages[-1:] != [stage]:
            self.stages.append(stage)

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "images") -> Iterator[Counting]:
        del title, unit
        self.totals.append(total)
        yield self


@pytest.mark.check("lab")
def test_one_countdown_covers_training_rehearsal_card_and_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_classes(folder)
    bar = Counting()
    monkeypatch.setattr("adawise_lab.finetune.finetune.progress", bar.progress)
    assert finetune(folder, "--labelled", "four", "--finetune.validation-share", "0.5") == 0
    (total,) = bar.totals
    assert bar.done == total
    assert bar.stages == ["training", "rehearsal", "new classes", "card", "verdict"]


@pytest.mark.parametrize("blocks", [None, pytest.param(1, marks=pytest.mark.check("lab"))])
def test_each_stage_takes_the_passes_that_were_expected_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, blocks: int | None
) -> None:
    expected: dict[str, float] = {}
    taken: dict[str, float] = defaultdict(float)

    class Counted(Countdown):
        def __init__(self, bar: Progress, stages: Mapping[str, float]) -> None:
            super().__init__(bar, stages)
            expected.update(stages)

        def advance(self, count: float = 1) -> None:
            taken[self._stage] += count
            super().advance(count)

    four_classes(folder)
    monkeypatch.setattr("adawise_lab.finetune.finetune.Countdown", Counted)
    one_epoch = ("--finetune.validation-share", "0.5", "--finetune.epochs", "1")  # so that none is left out at the end
    last = ("--finetune.blocks", str(blocks or "all"))
    assert finetune(folder, "--labelled", "four", *one_epoch, *last) == 0
    assert expected == pytest.approx({**taken, "verdict": 0.0}, rel=1e-3), "the share of a pair has four digits"
    assert list(expected) == ["training", "rehearsal", "new classes", "card", "verdict"]
    share = read_card(folder / "out" / "card.json").tail_share
    assert (share == 1.0) is (blocks is None)
    # theta_0 is judged, and an epoch trained, and judged twice by the trained layers
    assert expected["training"] == pytest.approx(24 + (1 + 2 * share) * 24 + 2 * share * 24, abs=0.01)
    at_six, at_all = (1 + share * (alphas - 1) for alphas in (6, 21))
    assert expected["new classes"] == pytest.approx(6 * 12 * at_six, abs=0.1)
    assert expected["card"] == pytest.approx(24 * at_all + 5 * 24 * at_six, abs=0.1)


@pytest.mark.check("lab")
def test_broken_images_of_classes_that_a_rehearsal_leaves_out_cost_no_run(folder: Path) -> None:
    place = four_classes(folder)
    left_out = set(listed := sorted(path.name for path in place.iterdir())) - kept_classes(listed, 0)
    for file in (file for name in left_out for file in (place / name).iterdir()):
        file.write_bytes(file.read_bytes()[:60])
    with capture_logs() as logs:
        assert finetune(folder, "--labelled", "four", "--finetune.validation-share", "0.5") == 0
    (why,) = [line["why"] for line in logs if line["event"] == "rehearsal_left_out"]
    assert "none of 12 images can be read" in why
    verdict = read_card(folder / "out" / "card.json").verdict
    assert verdict is not None
    assert [group.group for group in verdict.groups] == ["home", "shifted"]


@pytest.mark.check("lab")
def test_a_rehearsal_that_diverges_costs_no_run(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_classes(folder)

    def diverges(*_: object) -> bool:
        raise DivergedError("training diverged in epoch 1 at update 1: the loss is nan; no epoch was finished.")

    monkeypatch.setattr("adawise_lab.finetune.rehearsal.train", diverges)
    with capture_logs() as logs:
        assert finetune(folder, "--labelled", "four", "--finetune.validation-share", "0.5") == 0
    (why,) = [line["why"] for line in logs if line["event"] == "rehearsal_left_out"]
    assert "diverged in epoch 1" in why
    notes = json.loads((folder / "out" / "finetune.json").read_text())["notes"]
    (note,) = [each for each in notes if "rehearsal" in each]
    assert note in capsys.readouterr().out
    assert not (folder / "out" / "rehearsal").exists()
    assert (folder / "out" / "card.json").exists()


@pytest.mark.check("lab")
def test_a_run_that_is_killed_before_its_rehearsal_is_gone_is_not_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_classes(folder)

    def killed(_: Folder) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "remove_rehearsal", killed)
        assert finetune(folder, "--labelled", "four", "--finetune.validation-share", "0.5") == 130
    assert (folder / "out" / "finetune.json").exists()
    assert finetune(folder, "--labelled", "four", "--finetune.validation-share", "0.5", "--resume") == 0
    assert not (folder / "out" / "rehearsal").exists()


@pytest.mark.check("lab")
def test_an_interrupt_while_the_card_is_made_says_how_to_go_on(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **_named: object) -> None:
        raise KeyboardInterrupt  # as Ctrl-C does; a process under xdist does not hear of the signal

    with monkeypatch.context() as patched:
        patched.setattr("adawise_lab.card.make.make_card", interrupt)
        assert finetune(folder, "--model.threads", "1") == 130
    assert "the same command with --resume continues" in capsys.readouterr().err
    assert finetune(folder, "--model.threads", "1", "--resume") == 0
    output = capsys.readouterr().out
    assert "no rehearsal: images of 3 classes, but leaving some out needs 4" in output


def test_labels_that_only_the_held_out_images_have_are_told_without_a_list_of_names(
    folder: Path, capsys: Captured
) -> None:
    shutil.copytree(folder / "images" / CLASSES[0], folder / "others" / "zebra")
    assert finetune(folder, "--validation", "others") == 2
    output = message(capsys)
    assert "the labels 'zebra' are not among the 3 labels of --labelled" in output
    assert "list all served names in a file for --model.classes" in output


@pytest.mark.soak
def test_a_rehearsal_that_is_killed_goes_on_and_comes_to_the_same(folder: Path) -> None:
    four_classes(folder)
    flags = ("finetune", "--labelled", "four", *QUICK, "--finetune.checkpoint-every-s", "0")
    with process(folder, *flags, "-o", "whole") as running:
        _, err = running.communicate(timeout=scaled(240.0))
    assert running.returncode == 0, err
    with process(folder, *flags, "-o", "out") as running:
        assert running.stderr is not None
        lines = iter(running.stderr)
        next(line for line in lines if '"rehearsal_began"' in line)
        next(line for line in lines if '"epoch_finished"' in line)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert (folder / "out" / "rehearsal" / "checkpoint.pt").exists()
    with process(folder, *flags, "-o", "out", "--resume") as running:
        _, err = running.communicate(timeout=scaled(240.0))
    assert running.returncode == 0, err
    assert (folder / "out" / "finetune.json").read_bytes() == (folder / "whole" / "finetune.json").read_bytes()


def test_a_card_says_how_the_pictures_were_read(folder: Path) -> None:
    assert finetune(folder, "--decode.orientation", "apply", "--decode.grey16-range", "7000-18000") == 0
    assert read_card(folder / "out" / "card.json").identity["preprocess"].endswith("-upright-grey16:7000:18000/2")
    assert finetune(folder, "--resume") == 1, "what is half done goes on with the same pictures"


@pytest.mark.check("lab")
def test_cross_entropy_on_other_held_out_images_shares_the_text_tower(
    folder: Path, pair_folder: PairFolder, capsys: Captured
) -> None:
    write_shapes(folder / "others", 4, seed=1)
    (folder / "classes.txt").write_text("\n".join([*reversed(CLASSES), "cat"]))
    flags = ("--validation", "others", "--finetune.loss", "cross_entropy", "--model.classes", "classes.txt", "--json")
    assert finetune(folder, *flags) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["images"]["train"], shown["images"]["held_out"]) == (36, 12)
    assert shown["use"][0] == "[model]"
    zero = load_file(pair_folder.weights(0))
    one = load_file(folder / "out" / "theta_1" / "open_clip_model.safetensors")
    text = [name for name in zero if not name.startswith("visual.")]
    assert text
    assert all(torch.equal(zero[name], one[name]) for name in text)
    assert read_card(folder / "out" / "card.json").identity["head"] == "shared"


def test_a_recording_with_labels_is_trained_on_and_what_it_has_of_no_use_is_counted(
    folder: Path, capsys: Captured
) -> None:
    """18 images, of which one is of no class and one cannot be decoded; judged on a table."""
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    shots = [Shot(name, png(name, seed)) for seed in range(6) for name in CLASSES]
    write_recording(folder / "recorded", [Shot("zeppelin", shots[0].png), Shot(CLASSES[1], b"BM"), *shots[2:]])
    write_parquet(folder / "held.parquet", {"image": [shot.png for shot in shots], "label": [s.label for s in shots]})
    flags = ("--labelled", "recorded", "--validation", "held.parquet", "--model.classes", "classes.txt", "--json")
    assert finetune(folder, *flags) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["images"] == {"train": 16, "held_out": 18, "skipped": 2}
    assert list(shown["skipped"]) == ["frames/0/0/0", "frames/0/1/0"]


@pytest.mark.soak
def test_a_run_that_is_killed_and_resumed_makes_the_same_model(folder: Path, capsys: Captured) -> None:
    assert finetune(folder) == 0
    (folder / "out").rename(folder / "whole")
    flags = ("finetune", "--labelled", "images", "-o", "out", *QUICK, "--finetune.checkpoint-every-s", "0")
    checkpoint = folder / "out" / "checkpoint.pt"
    with process(folder, *flags) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if '"epoch_finished"' in line:
                break
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    capsys.readouterr()
    with process(folder, *flags, "--resume", "--json") as running:
        out, err = running.communicate(timeout=scaled(240.0))
    assert running.returncode == 0, err
    same = ("theta_1/open_clip_model.safetensors", "finetune.json", "classes.txt", "card.heads.safetensors")
    for name in same:
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    assert json.loads(out)["best"] == json.loads((folder / "whole" / "finetune.json").read_text())["best"]
    assert not checkpoint.exists()


@pytest.mark.check("lab")
def test_a_signal_ends_a_run_in_order_and_resume_goes_on(folder: Path) -> None:
    long = ("--finetune.epochs", "2000", "--finetune.patience", "2000")
    flags = ("finetune", "--labelled", "images", "-o", "out", *QUICK, *long)
    ends = []
    for number, resume in ((signal.SIGTERM, ()), (signal.SIGINT, ("--resume",))):
        with process(folder, *flags, *resume) as running:
            assert running.stderr is not None
            epochs = [json.loads(line)["epoch"] for line in _until_epoch(running.stderr)]
            running.send_signal(number)
            _, err = running.communicate(timeout=scaled(120.0))
        ends.append(epochs[-1])
        assert running.returncode == 130
        assert "stopped in epoch" in err
        assert "--resume continues" in err
        assert "Traceback" not in err
    assert ends[0] < ends[1]


def _until_epoch(log: IO[str]) -> Iterator[str]:
    """The first line that tells of an epoch; what comes before is left out."""
    for line in log:
        if '"epoch_finished"' in line:
            yield line
            return


def test_a_finished_run_is_shown_again_and_not_made_again(finished: Finished, capsys: Captured) -> None:
    folder = finished.folder
    written = (folder / "out" / "theta_1" / "open_clip_model.safetensors").stat().st_mtime_ns
    assert finetune(folder, "--resume") == 0
    assert capsys.readouterr().out == finished.output
    assert (folder / "out" / "theta_1" / "open_clip_model.safetensors").stat().st_mtime_ns == written
    assert finetune(folder) == 2
    assert "Continue with --resume, start anew with --overwrite" in message(capsys)
    assert finetune(folder, "--resume", "--finetune.seed", "1") == 1
    assert "finetune.seed was 0, is 1" in message(capsys)


def test_images_that_cannot_be_read_are_counted(folder: Path, capsys: Captured) -> None:
    write_shapes(folder / "some", 6)
    (folder / "some" / "red disc" / "broken.png").write_bytes(png("red disc")[:80])
    with capture_logs() as logs:
        assert finetune(folder, "--labelled", "some", "--json") == 0
    first = capsys.readouterr().out
    shown = json.loads(first)
    assert [line["first"] for line in logs if line["event"] == "files_skipped"] == [["red disc/broken.png"]]
    assert shown["images"]["skipped"] == 1
    assert list(shown["skipped"]) == ["red disc/broken.png"]
    assert finetune(folder, "--labelled", "some", "--json", "--resume") == 0
    assert capsys.readouterr().out == first


def test_files_of_no_use_are_told_in_the_record_and_at_the_end(folder: Path, capsys: Captured) -> None:
    write_shapes(folder / "some", 6)
    for name in ("a.tiff", "b.tiff", "notes.txt"):
        (folder / "some" / "red disc" / name).touch()
    (folder / "some" / "zebra").mkdir()
    with capture_logs() as logs:
        assert finetune(folder, "--labelled", "some") == 0
    fields = {line["event"]: line for line in logs}
    assert fields["folders_left_empty"]["first"] == ("zebra",)
    assert fields["files_skipped"]["of_them"] == {
        ".tiff: not JPEG, PNG, WebP or BMP": 2,
        ".txt: not JPEG, PNG, WebP or BMP": 1,
    }
    output = capsys.readouterr().out
    assert "3 files were skipped; finetune.json names the first:" in output
    assert "2, such as red disc/a.tiff: .tiff: not JPEG" in output
    record = json.loads((folder / "out" / "finetune.json").read_text())
    assert record["images"]["skipped"] == 3
    assert "red disc/b.tiff" in record["skipped"]
    assert any(note.startswith("3 held-out images judge") for note in record["notes"])
    assert "1 folder of a class has no image: zebra." in record["notes"]
    assert [row["name"] for row in record["classes"]] == list(CLASSES)
    assert {"memory_estimated", "data_questioned"} <= fields.keys()


@pytest.mark.check("lab")
def test_a_run_that_ruins_the_model_keeps_the_pair_apart(folder: Path, capsys: Captured) -> None:
    """First a theta_0 that knows the classes, then a rate at which it forgets them."""
    good = ("--finetune.validation-share", "0.5", "--finetune.epochs", "6")
    assert finetune(folder, "-o", "good", *good) == 0
    capsys.readouterr()
    bad = ("--model.theta-0", "local-dir:good/theta_1", "--finetune.learning-rate", "0.5", "--finetune.blocks", "all")
    assert finetune(folder, *bad, *good) == 1
    output = message(capsys)
    assert "the pair must not serve: theta_1 is right on" in output
    assert "kept in out/rejected, without a card" in output
    left = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    weights = {f"rejected/theta_1/open_clip_{name}" for name in ("config.json", "model.safetensors")}
    assert left == {"classes.txt", "templates.txt", "rejected/finetune.json", *weights}
    assert "ruin" in json.loads((folder / "out" / "rejected" / "finetune.json").read_text())
    assert finetune(folder) == 2
    assert "start anew with --overwrite" in message(capsys)
    assert finetune(folder, "--overwrite", "--finetune.validation-share", "0.5") == 0
    assert not (folder / "out" / "rejected").exists()


@pytest.mark.check("lab")
def test_a_finished_run_is_extended_by_resume_with_more_epochs(finished: Finished, capsys: Captured) -> None:
    folder = finished.folder
    before = json.loads((folder / "out" / "finetune.json").read_text())
    assert finetune(folder, "--resume", "--finetune.epochs", "3", "--json") == 0
    after = json.loads((folder / "out" / "finetune.json").read_text())
    assert after["extended_after"] == [2]
    assert after["curve"][:3] == before["curve"]
    assert [row["epoch"] for row in after["curve"]] == [0, 1, 2, 3]
    assert after["settings"]["finetune.epochs"] == "3"
    assert finetune(folder, "--resume", "--finetune.epochs", "2") == 1
    assert "finetune.epochs was 3, is 2" in message(capsys)
    assert finetune(folder, "--resume", "--finetune.epochs", "4", "--finetune.seed", "1") == 1
    assert "finetune.seed was 0, is 1" in message(capsys)
    assert finetune(folder, "--resume", "--finetune.epochs", "5") == 0
    assert json.loads((folder / "out" / "finetune.json").read_text())["extended_after"] == [2, 3]


def test_a_run_does_not_go_on_with_an_image_that_another_of_equal_size_has_replaced(
    finished: Finished, capsys: Captured
) -> None:
    folder = finished.folder
    images = Path(shutil.copytree(folder / "images", folder / "copied"))
    assert finetune(folder, "--labelled", "copied", "--resume") == 0, "where the images are does not matter"
    file = sorted(images.rglob("*.png"))[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    capsys.readouterr()
    assert finetune(folder, "--labelled", "copied", "--resume") == 1
    assert "of a run with other settings: contents of the images was " in message(capsys)


@pytest.mark.check("lab")
def test_a_run_of_a_version_that_kept_no_contents_goes_on_and_says_what_is_not_known(
    finished: Finished, capsys: Captured
) -> None:
    folder, record = finished.folder, finished.folder / "out" / "finetune.json"
    before = json.loads(record.read_text())
    before["settings"].pop(CONTENTS)
    record.write_text(json.dumps(before))
    assert finetune(folder, "--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"] == before["settings"], "it is over, and not made again"
    with capture_logs() as logs:
        assert finetune(folder, "--resume", "--finetune.epochs", "3", "--json") == 0
    notes = [line["note"] for line in logs if line["event"] == "data_questioned"]
    assert [note for note in notes if "that began the run" in note] == [
        note for note in json.loads(capsys.readouterr().out)["notes"] if "that began the run" in note
    ]
    assert sum("that began the run" in note for note in notes) == 1
    assert CONTENTS in json.loads(record.read_text())["settings"]
    assert finetune(folder, "--resume", "--finetune.epochs", "4", "--json") == 0
    assert sum("that began the run" in note for note in json.loads(capsys.readouterr().out)["notes"]) == 1


@pytest.mark.check("lab")
def test_the_command_that_is_printed_makes_a_card_for_other_names(
    finished: Finished, pair_folder: PairFolder, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = finished.folder, finished.output
    (folder / "adawise.toml").write_text(output[output.index("[model]") :] + "device = 'cpu'\nprecision = 'fp32'\n")
    (folder / "OTHER.txt").write_text("zebra\nred disc\ngreen square\n")
    (command,) = (line.split() for line in output.splitlines() if line.startswith("  adawise card "))
    assert adawise(folder, *command[1:]) == 0
    card = read_card(folder / "out" / "OTHER.card.json")
    assert card.images == 2, "of the three that were held out, one is of no class of these"
    assert card.identity["theta_1"] == read_card(folder / "out" / "card.json").identity["theta_1"]
    assert card.shifted_temperature == read_card(folder / "out" / "card.json").shifted_temperature != ()
    assert chosen(AUTO, card) == "calibrated_tsallis"
    assert card.verdict is None
    verdict = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.65, 0.6, (-0.05, -0.06, -0.04), ())
    (folder / "out" / "card.json").write_text(
        replace(read_card(folder / "out" / "card.json"), verdict=verdict).to_json()
    )
    capsys.readouterr()
    assert adawise(folder, *command[1:]) == 0
    assert "The pair's own card advises a fixed alpha of 0.45. This one advises nothing" in capsys.readouterr().out
    assert adawise(folder, *command[1:], "--model.theta-1", pair_folder.theta_1) == 0
    assert read_card(folder / "out" / "OTHER.card.json").shifted_temperature == (), "of another pair"
    capsys.readouterr()
    (folder / "OTHER.txt").write_text("zebra\nelk\n")
    assert adawise(folder, *command[1:]) == 2
    assert "none of 3 images is of the 2 classes" in message(capsys)
    write_shapes(folder / "others", 1)
    assert (
        adawise(folder, "card", "make", "--labelled", "others", "--held-out", "out/finetune.json", "-o", "c.json") == 2
    )
    assert "images that the run held out are not in others, such as" in message(capsys)
    assert adawise(folder, "card", "make", "--labelled", "others", "--held-out", "out/card.json", "-o", "c.json") == 2
    assert "expected finetune.json of a run" in message(capsys)
    (folder / "out" / "card.json").write_text("{")
    monkeypatch.setattr("adawise_lab.card.make.logits_of", None)  # not one forward before it is told
    assert adawise(folder, *command[1:]) == 1
    assert "card.json: not a card" in message(capsys)


def test_names_are_asked_for_and_those_without_images_told(finished: Finished) -> None:
    folder = finished.folder
    (folder / "names.txt").write_text("\n".join([*CLASSES, "zebra"]))
    with capture_logs() as logs:
        assert finetune(folder, "--overwrite", "--finetune.seed", "1", "--model.classes", "names.txt") == 0
    notes = [[line["note"] for line in run if line["event"] == "data_questioned"] for run in (finished.logs, logs)]
    assert notes[0][0].startswith("The 3 labels are used as all served class names.")
    assert notes[1][0].startswith("1 of 4 names have no image to learn from (zebra)")


@pytest.mark.parametrize("extra", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_told_before_anything_is_read(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    monkeypatch.setattr("adawise_lab.finetune.trackers.find_spec", lambda name: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert finetune(folder, f"--finetune.{extra}") == 2
    assert f"pip install 'adawise[{extra}]'" in message(capsys)
    assert not (folder / "out").exists()


@pytest.mark.check("lab")
def test_tensorboard_gets_the_curve(folder: Path) -> None:
    pytest.importorskip("tensorboardX", reason="pip install 'adawise[tensorboard]'")
    from tensorboardX.proto.event_pb2 import Event

    assert finetune(folder, "--finetune.tensorboard") == 0
    (file,) = (folder / "out" / "tensorboard").iterdir()
    data, received = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        received += [(value.tag, event.step) for value in event.summary.value]
        data = data[16 + length :]
    assert [step for tag, step in received if tag == "accuracy"] == [0, 1, 2]
    assert [step for tag, step in received if tag == "loss"] == [1, 2]


@pytest.mark.check("lab")
def test_mlflow_gets_settings_and_curve_and_a_server_that_is_away_ends_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'adawise[mlflow]'")
    assert finetune(folder, "--finetune.mlflow") == 2
    assert "MLFLOW_TRACKING_URI is not set" in message(capsys)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with capture_logs() as logs:
        assert finetune(folder, "--finetune.mlflow") == 0
    assert [line["tracker"] for line in logs if line["event"] == "tracking_failed"] == ["mlflow"] * 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (folder / "tracked").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(None)
    assert finetune(folder, "--overwrite", "--finetune.mlflow") == 0
    (run,) = mlflow.search_runs(output_format="list")
    assert (run.info.run_name, run.info.status) == ("out", "FINISHED")
    assert run.data.params["finetune.epochs"] == "2"
    client = mlflow.MlflowClient()
    assert [point.step for point in client.get_metric_history(run.info.run_id, "accuracy")] == [0, 1, 2]


def one_class(folder: Path) -> None:
    (folder / "images").unlink()
    write_shapes(folder / "images", 3)
    for name in CLASSES[1:]:
        shutil.rmtree(folder / "images" / name)


def one_image(folder: Path) -> None:
    (folder / "images").unlink()
    write_shapes(folder / "images", 2)
    (folder / "images" / "blue bar" / "001.png").unlink()


def no_label(folder: Path) -> None:
    (folder / "images").unlink()
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "a.png")


def other_classes(folder: Path) -> None:
    (folder / "classes.txt").write_text("cat\ndog\n")
    with (folder / "adawise.toml").open("a") as file:
        file.write("\nclasses = 'classes.txt'\n")


def no_theta_0(folder: Path) -> None:
    (folder / "adawise.toml").write_text("")


def prompt_without_a_class(folder: Path) -> None:
    (folder / "t.txt").write_text("a photo\n")
    with (folder / "adawise.toml").open("a") as file:
        file.write("\ntemplates = 't.txt'\n")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (one_image, "the class 'blue bar' has one image"),
        (one_class, "expected images of two classes at least, found 3 of 'blue bar' only: there is no class"),
        (no_label, "1 images have no label, such as a.png"),
        (other_classes, "are not among the 2 class names of model.classes"),
        (no_theta_0, "model.theta_0  (not set)\n      the zero-shot checkpoint is needed"),
        (prompt_without_a_class, "expected {} for the class name in 'a photo'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_told_before_anything_is_written(
    folder: Path, spoil: object, expected: str, capsys: Captured
) -> None:
    assert callable(spoil)
    spoil(folder)
    assert finetune(folder) == 2
    assert expected in message(capsys)
    assert not (folder / "out").exists()


def test_resume_and_overwrite_exclude_each_other(folder: Path, capsys: Captured) -> None:
    assert finetune(folder, "--resume", "--overwrite") == 2
    assert "--resume" in message(capsys)


def test_a_theta_0_that_is_not_finite_is_refused(folder: Path, pair_folder: PairFolder, capsys: Captured) -> None:
    broken = Path(shutil.copytree(pair_folder.theta_0.removeprefix("local-dir:"), folder / "broken"))
    weights = load_file(broken / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] = float("nan")
    save_file(weights, broken / "open_clip_model.safetensors")
    assert finetune(folder, "--model.theta-0", f"local-dir:{broken}") == 1
    assert "'visual.proj' in theta_0 holds values that are not finite" in message(capsys)
