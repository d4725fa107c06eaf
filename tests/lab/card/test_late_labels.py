"""`adawise card correct`: late labels of what a worker served correct its card, or leave it as it is."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from adawise.__main__ import main
from adawise.adapt.objective import ERRORS_A_NAT, Objective, Values, tsallis
from adawise.app.model import load_model
from adawise.app.pairs import begin_orders, starting_pair
from adawise.app.signals import INTERRUPTED
from adawise.card.card import BIASED, Card, read_card
from adawise.clip.heads import heads_path
from adawise.labels.compare.compare import compare
from adawise.labels.message import LabelColumns
from adawise.output.read.rows import read_predictions, read_traces
from adawise.pairs.orders import read_orders
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message, TopicPartition
from adawise.replay.replay import ReplayResult
from adawise.settings import Settings, read
from adawise.store.store import open_store
from tests.models import CLASSES, random_images, write_pair

Captured = pytest.CaptureFixture[str]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CAMERAS, IMAGES, BATCH = 6, 96, 8
LABELLED = [n for n in range(CAMERAS * IMAGES) if n // CAMERAS % 4 == 0]  # two of each batch
TOPIC, IDENTITY = "frames", TopicIdentity("cluster", "topic-id", 1)


class Killed(BaseException):
    """In place of a SIGKILL: nothing of the program catches it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair with its settings and its card, a recording of six cameras, and what a worker served of that."""
    folder = tmp_path_factory.mktemp("late")
    pair = write_pair(folder / "pair")
    lines = [f'{name} = "{getattr(pair, name)}"' for name in ("theta_0", "theta_1", "classes", "templates")]
    (folder / "adawise.toml").write_text(
        f"[batch]\nimages = {BATCH}\n[search]\nobjective = 'tsallis'\n[sink]\nroot = 'live'\n"
        "[model]\nprecision = 'fp32'\nchunk_rows = 32\ncard = 'card.json'\n" + "\n".join(lines) + "\n",
        encoding="utf-8",
    )
    for i, pixels in enumerate(random_images(20)):
        path = folder / "own" / CLASSES[i % len(CLASSES)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    record(folder / "yard")
    with pytest.MonkeyPatch.context() as patch:
        assert adawise(folder, patch, "card", "make", "--labelled", "own", "-o", "card.json") == 0
        assert adawise(folder, patch, "replay", "yard", "-o", "served") == 0
    return folder


def png(pixels: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def pictures() -> torch.Tensor:
    return random_images(CAMERAS * IMAGES, seed=3)


@cache
def files() -> list[bytes]:
    return [png(pixels) for pixels in pictures()]


def record(
    root: Path,
    topic: str = TOPIC,
    identity: TopicIdentity = IDENTITY,
    until: int = CAMERAS * IMAGES,
    damaged: int = 0,
) -> None:
    """The cameras take turns; each image is a message. The first ones are damaged."""
    messages = [
        Message(
            topic,
            0,
            n,
            f"cam-{n % CAMERAS}".encode(),
            file[: 60 if n < damaged else None],
            timestamp_ms=1_767_225_600_000 + n,
        )
        for n, file in enumerate(files()[:until])
    ]
    policy = FilePolicy(max_messages=50, max_bytes=1 << 40, max_age_s=1e9)
    recorder = Recorder(str(root), topic=topic, identity=identity, policy=policy, max_buffered_bytes=1 << 40)
    recorder.begin(TopicPartition(topic, 0), 0)
    recorder.append(messages, 0.0)
    recorder.flush()


def adawise(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    return main(list(arguments))


def settings(folder: Path) -> Settings:
    return read((), environ={}, folder=folder, uses=frozenset()).checked()


@pytest.fixture(scope="module")
def logits(folder: Path) -> list[torch.Tensor]:
    """Of every labelled image at every alpha."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        chosen = settings(folder)
        model = load_model(chosen.model, chosen.decode)
        pictured = [Image.open(io.BytesIO(png(pictures()[n]))) for n in LABELLED]
        pixels = torch.stack([model.checkpoints.preprocess(picture) for picture in pictured])
        return [model.classifier.logits(j, pixels) for j in range(len(model.classifier.alphas))]


@pytest.fixture(scope="module")
def answers(logits: list[torch.Tensor]) -> dict[float, dict[int, str]]:
    """What every alpha says of each labelled image, by its offset."""
    named = [[CLASSES[c] for c in z.argmax(dim=-1).tolist()] for z in logits]
    return {j / 20: dict(zip(LABELLED, names, strict=True)) for j, names in enumerate(named)}


def write_labels(root: Path, labels: Mapping[int, str]) -> None:
    """As `adawise labels` stores them."""
    recorder = Recorder(
        str(root / "labels"),
        topic="truth",
        identity=TopicIdentity("cluster", "truth-id", 1),
        policy=FilePolicy(10, 1 << 30, 1e9),
        max_buffered_bytes=1 << 30,
        beside=LabelColumns(),
    )
    recorder.begin(TopicPartition("truth", 0), 0)
    values = [json.dumps({"row_id": f"{TOPIC}/0/{n}/0", "label": name}) for n, name in labels.items()]
    recorder.append([Message("truth", 0, n, None, value.encode()) for n, value in enumerate(values)], 0.0)
    recorder.flush()


@pytest.fixture
def labelled(folder: Path, answers: dict[float, dict[int, str]], tmp_path: Path) -> Path:
    """A copy of what was served, with the answers of alpha 0 for its labels: tsallis, which goes up, is wrong there."""
    root = tmp_path / "live"
    shutil.copytree(folder / "served", root)
    write_labels(root, answers[0.0])
    return root


@pytest.fixture(scope="module")
def corrected(folder: Path, answers: dict[float, dict[int, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card that the labels of `labelled` make of that of `folder`, with its heads. Not to be changed by a test."""
    place = tmp_path_factory.mktemp("corrected")
    root = a_root(folder, place / "live", answers[0.0])
    with pytest.MonkeyPatch.context() as patch:
        assert adawise(folder, patch, *command_line(root, place / "new.json", "--without-replay")) == 0
    return place / "new.json"


def command_line(root: Path, output: Path, *more: str) -> tuple[str, ...]:
    return ("card", "correct", str(root), "--recording", "yard", "-o", str(output), *more)


def test_labels_that_contradict_the_objective_make_a_card_that_serves_what_they_say(
    folder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    before, new = read_card(folder / "card.json"), tmp_path / "new.json"
    capsys.readouterr()
    assert adawise(folder, monkeypatch, *command_line(labelled, new)) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert f"labels from {labelled}/labels" in output
    assert "They show that tsallis is biased" in output
    assert re.search(r"another alpha in \d+ of 72 batches", output)
    assert "The bias was fitted to these labels" in output
    assert f"adawise pair stage {labelled} --model.card {new} --search.objective tsallis" in output

    card = read_card(new)
    assert card.bias is not None
    assert (card.bias.objective, card.format) == ("tsallis", BIASED)
    assert 100 <= card.bias.images <= len(LABELLED)
    assert f"{card.bias.images} labelled images under {card.bias.conditions} conditions" in output
    if card.bias.images < len(LABELLED):
        assert f"{len(LABELLED) - card.bias.images} labels are of conditions with labels in fewer than 8" in output
    assert card.bias.nats[0] < -1.0 < 0.0 < card.bias.nats[-1]
    assert np.mean(card.bias.nats) == pytest.approx(0.0, abs=1e-9)
    assert (card.temperature, card.heads) == (before.temperature, before.heads)
    assert heads_path(new).read_bytes() == heads_path(folder / "card.json").read_bytes()
    assert card.digest != before.digest

    assert adawise(folder, monkeypatch, "card", "show", str(new)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"`tsallis` is corrected by {card.bias.images} late labels under" in shown
    assert f"{card.bias.nats[0]:+.3f} ±" in shown

    assert adawise(folder, monkeypatch, "replay", "yard", "-o", str(tmp_path / "after"), "--card", str(new)) == 0
    alphas = [
        float(np.mean(read_traces(root, columns=["alpha"]).table()["alpha"].to_numpy()))
        for root in (folder / "served", tmp_path / "after")
    ]
    assert alphas[1] < alphas[0] - 0.3


@pytest.mark.check("lab")
def test_the_trace_has_the_objective_with_its_bias(
    folder: Path, corrected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bias = read_card(corrected).bias
    assert bias is not None
    record(tmp_path / "few", until=2 * CAMERAS * BATCH)
    served = []
    for card in ("card.json", str(corrected)):
        root = str(tmp_path / Path(card).stem)
        flags = ("--search.strategy", "fixed", "--search.alpha", "0.25", "--card", card)
        assert adawise(folder, monkeypatch, "replay", str(tmp_path / "few"), "-o", root, *flags) == 0
        rows = read_traces(root, columns=["first_offset", "objective"]).table().to_pylist()
        served.append({row["first_offset"]: row["objective"] for row in rows})
    assert len(served[0]) == 2 * CAMERAS
    for first, value in served[0].items():
        assert served[1][first] - value == pytest.approx(bias.nats[5], rel=1e-9)


def test_labels_that_agree_with_the_objective_write_no_card(
    folder: Path, logits: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Of each image that label by which the errors of its camera go as the objective does, as far as labels can."""
    answered = np.stack([z.argmax(dim=-1).numpy() for z in logits], axis=1)
    values = np.stack([tsallis(z, j) for j, z in enumerate(logits)], axis=1)
    root, labels = tmp_path / "live", dict[int, str]()
    for camera in range(CAMERAS):
        rows = slice(camera, None, CAMERAS)
        numbers = LABELLED[rows]
        chosen = agreeing(values[rows].mean(axis=0), answered[rows])
        labels |= {n: CLASSES[c] for n, c in zip(numbers, chosen, strict=True)}
    shutil.copytree(folder / "served", root)
    write_labels(root, labels)
    capsys.readouterr()
    assert adawise(folder, monkeypatch, *command_line(root, tmp_path / "new.json")) == 0
    assert "do not contradict the card, so no new card" in capsys.readouterr().out
    assert not (tmp_path / "new.json").exists()


def agreeing(objective: Floats, answered: Ints) -> Ints:
    """Labels `[n]` of images whose answers are `[n, G]`: errors are a third of the objective `[G]`, up to a level."""
    n, wanted = len(answered), ERRORS_A_NAT["tsallis"] * (objective - objective.mean())
    wrong = np.stack([(answered != c).astype(float) for c in range(len(CLASSES))])  # [C, n, G]
    chosen = answered[:, 0].copy()
    total = wrong[chosen, np.arange(n)].sum(axis=0)
    for i in [*range(n)] * 4:
        tried = (total - wrong[chosen[i], i] + wrong[:, i]) / n
        gaps = ((tried - tried.mean(axis=1, keepdims=True) - wanted) ** 2).sum(axis=1)
        total += wrong[gaps.argmin(), i] - wrong[chosen[i], i]
        chosen[i] = gaps.argmin()
    return chosen


def a_root(folder: Path, root: Path, labels: Mapping[int, str]) -> Path:
    shutil.copytree(folder / "served", root)
    if labels:
        write_labels(root, labels)
    return root


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, "0 have a label, and of 0 conditions 0 have labels in that many batches (none)"),
        (dict.fromkeys(LABELLED[:99], CLASSES[0]), "99 have a label, and"),
        (dict.fromkeys(range(140), CLASSES[0]), "140 have a label, and of"),  # in three batches each
        (dict.fromkeys([n for n in LABELLED if n % CAMERAS < 4], CLASSES[0]), "96 have a label"),
        (dict.fromkeys(LABELLED, "zeppelin"), f"{len(LABELLED)} labels are of classes that are not served"),
    ],
)
def test_too_few_labels_are_refused_and_how_many_there_are(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    labels: dict[int, str],
    expected: str,
) -> None:
    root = a_root(folder, tmp_path / "live", labels)
    capsys.readouterr()
    assert adawise(folder, monkeypatch, *command_line(root, tmp_path / "new.json")) == 2
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    assert expected in out + err
    assert "expected at least 100 labelled images, under at least 5 conditions with labels in 8 batches each" in err
    assert "Traceback" not in err
    assert ("there are no labels of these images" in out) == (not labels)
    assert not list(tmp_path.glob("*.json"))


def test_a_file_of_labels_stands_alone(
    folder: Path,
    answers: dict[float, dict[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    root = a_root(folder, tmp_path / "live", answers[1.0])
    file = tmp_path / "labels.csv"
    file.write_text("row_id,label\n" + "".join(f"frames/0/{n}/0,{name}\n" for n, name in answers[0.0].items()))
    flags = ("--labels", str(file), "--without-replay")
    assert adawise(folder, monkeypatch, *command_line(root, tmp_path / "new.json", *flags)) == 0
    assert f"labels from {file}" in " ".join(capsys.readouterr().out.split())
    bias = read_card(tmp_path / "new.json").bias
    assert bias is not None
    assert bias.nats[0] < bias.nats[-1]


@pytest.mark.check("lab")
def test_images_that_the_recording_has_not_or_nobody_can_read_are_left_out(
    folder: Path,
    answers: dict[float, dict[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    root = a_root(folder, tmp_path / "live", answers[0.0])
    for name, until, damaged in (
        ("short", 480, 0),
        ("shorter", 300, 0),
        ("damaged", 576, 60),
        ("ruined", 576, 240),
    ):
        record(tmp_path / name, until=until, damaged=damaged)
        flags = ("card", "correct", str(root), "--recording", str(tmp_path / name), "--without-replay")
        code = adawise(folder, monkeypatch, *flags, "-o", str(tmp_path / f"{name}.json"))
        output = " ".join(capsys.readouterr().err.split())
        if name in ("shorter", "ruined"):
            assert code == 2
            assert f"of them can be read in {tmp_path / name}" in output
        else:
            assert code == 0
            bias = read_card(tmp_path / f"{name}.json").bias
            assert bias is not None
            assert bias.images <= (until - damaged) / 4


@pytest.mark.check("lab")
def test_an_image_whose_logits_are_not_finite_at_an_alpha_is_left_out(
    folder: Path, labelled: Path, corrected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_card = Card.objective

    def with_nan(card: Card, name: str) -> Objective:
        def objective(z: torch.Tensor, index: int) -> Values:
            values = of_card(card, name)(z, index)
            values[0] = np.nan if index == 7 else values[0]
            return values

        return objective

    monkeypatch.setattr(Card, "objective", with_nan)
    assert adawise(folder, monkeypatch, *command_line(labelled, tmp_path / "new.json", "--without-replay")) == 0
    less, whole = (read_card(card).bias for card in (tmp_path / "new.json", corrected))
    assert less is not None
    assert whole is not None
    assert less.images == whole.images - whole.conditions
    assert np.isfinite(less.nats).all()


def test_what_cannot_be_is_told_before_anything_is_computed(
    folder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    record(tmp_path / "other", topic="street", until=CAMERAS)
    record(tmp_path / "again", identity=TopicIdentity("cluster", "another-id", 1), until=CAMERAS)
    (tmp_path / "classes.txt").write_text("\n".join([*CLASSES[:-1], "zeppelin"]) + "\n")
    bare = (folder / "adawise.toml").read_text().replace("card = 'card.json'", "")
    (tmp_path / "bare.toml").write_text(bare)
    listed = f'\n[[scene.shortlists]]\nstreams = "*"\nexclude = ["{CLASSES[0]}"]\n'
    (tmp_path / "listed.toml").write_text((folder / "adawise.toml").read_text() + listed)
    new = str(tmp_path / "new.json")
    root = ("card", "correct", str(labelled), "-o", new)
    for arguments, expected in (
        (root, "--recording is not given, and scene.prior is off"),
        ((*root, "--recording", str(tmp_path / "other")), "it is of topic 'street'"),
        ((*root, "--recording", str(tmp_path / "again")), "(id another-id)"),
        ((*root, "--recording", str(tmp_path / "none")), "expected a recording in"),
        ((*root[:3], "-o", "yard", "--recording", "yard"), "but it is a folder"),
        ((*root[:3], "-o", "card.json", "--recording", "yard"), "name a new file"),
        ((*command_line(labelled, tmp_path / "new.json"), "--model.card", str(tmp_path / "classes.txt")), "not a card"),
        (
            (*command_line(labelled, tmp_path / "new.json"), "--config", str(tmp_path / "listed.toml")),
            "would not hold within scene.shortlists",
        ),
        (
            (*command_line(labelled, tmp_path / "new.json"), "--config", str(tmp_path / "bare.toml")),
            "expected the card that",
        ),
        ((*command_line(folder, tmp_path / "new.json"),), "there is no output of a worker"),
        ((*command_line(labelled, tmp_path / "new.json"), "--search.strategy", "fixed"), "serve a fixed alpha of"),
        ((*command_line(labelled, tmp_path / "new.json"), "--images", "7"), "left by --images 7, and of"),
        (
            (*command_line(labelled, tmp_path / "new.json"), "--model.classes", str(tmp_path / "classes.txt")),
            "another pair",
        ),
    ):
        assert adawise(folder, monkeypatch, *arguments) not in (0, 3), arguments
        err = " ".join(capsys.readouterr().err.split())
        assert expected in err, arguments
        assert "Traceback" not in err
    assert not Path(new).exists()


def test_the_corrected_card_is_staged_and_serves_as_any_new_card(
    folder: Path, labelled: Path, corrected: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(folder)
    chosen = settings(folder)
    store = open_store(str(labelled))
    begin_orders(store, starting_pair(chosen, read_orders(store)))
    assert adawise(folder, monkeypatch, "pair", "stage", str(labelled), "--model.card", str(corrected)) == 0
    orders = read_orders(store)
    assert orders.staged is not None
    assert orders.pairs[orders.staged.pair].identity["card"] == read_card(corrected).digest
    assert adawise(folder, monkeypatch, "pair", "switch", str(labelled), "--anyway") == 0
    assert read_orders(store).serving.card == str(corrected)
    capsys.readouterr()
    assert adawise(folder, monkeypatch, "pair", "list", str(labelled)) == 0
    output = capsys.readouterr().out
    assert "    adapts by tsallis\n" in output
    assert "    adapts by tsallis, corrected by late labels\n" in output


@pytest.mark.check("lab")
def test_a_corrected_card_may_be_corrected_again(
    folder: Path, corrected: Path, answers: dict[float, dict[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By labels that now say otherwise: the second bias is on top of the first."""
    first, second = corrected, tmp_path / "second.json"
    root = a_root(folder, tmp_path / "other", answers[1.0])
    flags = ("--without-replay", "--model.card", str(first))
    assert adawise(folder, monkeypatch, *command_line(root, second, *flags)) == 0
    one, other = read_card(first).bias, read_card(second).bias
    assert one is not None
    assert other is not None
    assert one.nats[0] < one.nats[-1]
    assert other.nats[0] > other.nats[-1]
    agree = tmp_path / "third.json"
    assert (
        adawise(folder, monkeypatch, *command_line(root, agree, "--without-replay", "--model.card", str(second))) == 0
    )


def test_a_replay_that_is_stopped_leaves_the_card_and_says_what_is_not_known(
    folder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    stopped = ReplayResult("yard", 0, 0, 0.0, stopped=True, ends_streams=True, output="out")
    monkeypatch.setattr("adawise_lab.card.late_labels.replay", lambda *_, **__: stopped)
    assert adawise(folder, monkeypatch, *command_line(labelled, tmp_path / "new.json")) == INTERRUPTED
    output = capsys.readouterr().out
    assert "the effect of the card is not known" in output
    assert "adawise pair stage" in output
    assert read_card(tmp_path / "new.json").bias is not None


@pytest.mark.check("lab")
@pytest.mark.parametrize("point", ["card", "heads"])
def test_killed_while_it_writes_the_old_card_serves_on(
    folder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    new, before = tmp_path / "new.json", (folder / "card.json").read_bytes()
    replaced = os.replace

    def killed(source: str, target: str | Path) -> None:
        if Path(target) == (new if point == "card" else heads_path(new)):
            raise Killed
        replaced(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        adawise(folder, monkeypatch, *command_line(labelled, new, "--without-replay"))
    monkeypatch.setattr(os, "replace", replaced)
    assert (folder / "card.json").read_bytes() == before
    assert new.exists() == (point == "heads")
    assert adawise(folder, monkeypatch, *command_line(labelled, new, "--without-replay")) == 0
    assert read_card(new).bias is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", heads_path(new).name, "new.json"]


def scene_command(root: Path, output: Path, *more: str) -> tuple[str, ...]:
    return ("card", "correct", str(root), "-o", str(output), "--scene.prior", "beside", *more)


@pytest.fixture(scope="module")
def with_scene(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a worker with a class prior served, and the labels of its images in labels.csv: each is `scene_label`."""
    place = tmp_path_factory.mktemp("scene")
    with pytest.MonkeyPatch.context() as patch:
        # The model is unsure of noise, and says every class of it.
        patch.setattr("adawise.adapt.prior._SURE", (-1.0, -0.5))
        patch.setattr("adawise.adapt.prior._SPREAD", (1e9, 1e8))
        flags = ("--scene.prior", "beside")
        assert adawise(folder, patch, "replay", "yard", "-o", str(place / "beside"), *flags) == 0
    rows = read_predictions(place / "beside", columns=["row_id", "label", "scene_label"]).table().to_pylist()
    assert sum(row["label"] != row["scene_label"] for row in rows) > 50
    lines = [f"{row['row_id']},{row['scene_label']}" for row in rows]
    (place / "labels.csv").write_text("\n".join(["row_id,label", *lines, ""]), encoding="utf-8")
    return place


@pytest.mark.check("lab")
def test_labels_that_prove_the_scene_let_it_be_served(
    folder: Path, with_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    new, beside = tmp_path / "new.json", with_scene / "beside"
    labels = ("--labels", str(with_scene / "labels.csv"))
    served = ("replay", "yard", "-o", str(tmp_path / "served"), "--scene.prior", "served")
    assert adawise(folder, monkeypatch, *served) == 2
    assert "card.json has no comparison of scene_label with label" in " ".join(capsys.readouterr().err.split())
    assert adawise(folder, monkeypatch, *scene_command(beside, new, *labels)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "576 labelled images of 6 cameras in 72 batches" in shown
    assert "scene_label may be served" in shown
    card, before = read_card(new), read_card(folder / "card.json")
    assert card.scene is not None
    assert card.scene.proves
    assert (card.digest, replace(card, scene=None)) == (before.digest, before)
    assert heads_path(new).read_bytes() == heads_path(folder / "card.json").read_bytes()
    assert adawise(folder, monkeypatch, "card", "show", str(new)) == 0
    assert "scene_label may be served: on 576 labelled images" in " ".join(capsys.readouterr().out.split())

    monkeypatch.setattr("adawise.adapt.prior._SURE", (-1.0, -0.5))
    monkeypatch.setattr("adawise.adapt.prior._SPREAD", (1e9, 1e8))
    assert adawise(folder, monkeypatch, *served, "--card", str(new)) == 0
    assert not compare(str(beside), str(tmp_path / "served")).differs, "rows and states are those beside"
    capsys.readouterr()
    assert adawise(folder, monkeypatch, "drift", str(tmp_path / "served"), *labels, "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("results and alerts had scene_label as label (scene.prior = served)" in note for note in notes)


@pytest.mark.check("lab")
def test_labels_that_do_not_prove_the_scene_leave_it_beside(
    folder: Path, with_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    new, beside = tmp_path / "new.json", with_scene / "beside"
    rows = read_predictions(beside, columns=["row_id", "label"]).table().to_pylist()
    own = tmp_path / "own.csv"
    own.write_text("\n".join(["row_id,label", *(f"{r['row_id']},{r['label']}" for r in rows), ""]), encoding="utf-8")
    assert adawise(folder, monkeypatch, *scene_command(beside, new, "--labels", str(own))) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "scene_label may not be served, by these labels" in shown
    assert "Go on with beside" in shown
    served = ("replay", "yard", "-o", str(tmp_path / "served"), "--scene.prior", "served", "--card", str(new))
    assert adawise(folder, monkeypatch, *served) == 2
    assert "does not: on 576 labelled images of 6 cameras it is -" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--scene.prior", "off"), "--recording is not given, and scene.prior is off"),
        (("--images", "8"), "--images and --without-replay are about a recording"),
        (("--scene.smoothing", "beside"), "there are 0 of 0"),
        ((), "there are 0 of 0"),
    ],
)
def test_a_scene_that_cannot_be_compared_is_an_error(
    folder: Path,
    labelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    flags: tuple[str, ...],
    message: str,
) -> None:
    """The root was served without a class prior."""
    assert adawise(folder, monkeypatch, *scene_command(labelled, tmp_path / "new.json", *flags)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new.json").exists()


@pytest.mark.check("lab")
def test_drift_estimates_what_had_a_shortlist_by_thresholds_for_as_few_classes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    root, card = str(tmp_path / "listed"), read_card(folder / "card.json")
    listed = ("--scene.shortlists", json.dumps([{"streams": "*", "classes": CLASSES[:3]}]))
    assert adawise(folder, monkeypatch, "replay", "yard", "-o", root, *listed) == 0
    rows = read_predictions(root, columns=["alpha", "entropy"]).table()
    known = card.thresholds_among(3, len(CLASSES))
    assert known is not None
    at = dict(zip(card.alphas, known, strict=True))
    below = [
        value <= at[alpha] for alpha, value in zip(*(rows[n].to_pylist() for n in ("alpha", "entropy")), strict=True)
    ]
    for flags, expected in ((listed, float(np.mean(below))), ((), None)):
        capsys.readouterr()
        assert adawise(folder, monkeypatch, "drift", root, *flags, "--json") == 0
        report = json.loads(capsys.readouterr().out)
        helped = report["helped"]
        assert {each["name"]: each["value"] for each in helped["estimates"]} == (
            {} if expected is None else {"ATC": pytest.approx(expected)}
        )
        left_out = [
            note for note in helped["notes"] if note.startswith("576 of 576 images were served among a shortlist")
        ]
        assert len(left_out) == (expected is None)
