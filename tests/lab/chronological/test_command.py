"""`adawise evaluate --protocol chronological` as a user meets it: a recording in, trainings kept, a result out."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adawise_lab.evaluate.references import FINE_TUNED, ZERO_SHOT
from tests.lab.chronological.site import EACH, QUICK, three_cameras, write_site
from tests.lab.evaluate.building import shorten_verdicts
from tests.lab.finetune.shapes import CLASSES
from tests.models import PairFolder, write_pair
from tests.replay.runs import adawise

Captured = pytest.CaptureFixture[str]
FLAGS = ("evaluate", "--protocol", "chronological", "--images", "site", "--intervals", "3", *QUICK)


@pytest.fixture(scope="module")
def theta_0(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return write_pair(tmp_path_factory.mktemp("pair"), classes=CLASSES)


@pytest.fixture(autouse=True)
def logs(logs_of_this_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    shorten_verdicts(monkeypatch)
    with capture_logs() as logs:
        yield logs


@pytest.fixture
def home(tmp_path: Path, theta_0: PairFolder) -> Path:
    """A folder with the recording `site` and the settings of theta_0."""
    write_site(tmp_path / "site", three_cameras())
    lines = [f"theta_0 = '{theta_0.theta_0}'", f"architecture = '{theta_0.theta_0}'"]
    lines += ["device = 'cpu'", "precision = 'fp32'", "threads = 1"]
    (tmp_path / "adawise.toml").write_text("[model]\n" + "\n".join(lines))
    return tmp_path


def result_of(home: Path, captured: Captured, *flags: str) -> dict[str, Any]:
    assert adawise(home, *FLAGS, "--json", *flags) == 0
    result: dict[str, Any] = json.loads(captured.readouterr().out)
    return result


def trainings(logs: list[MutableMapping[str, Any]]) -> int:
    return sum(log["event"] == "training_began" for log in logs)


def test_models_of_all_cameras_serve_the_interval_after_them(
    home: Path, capsys: Captured, logs: list[MutableMapping[str, Any]]
) -> None:
    result = result_of(home, capsys, "--scene.prior", "beside", "-o", "out")
    assert result["cameras"] == ["gate", "wall", "yard"]
    assert result["images"] == [3 * EACH] * 3
    assert [(t["interval"], t["camera"], t["images"]) for t in result["trainings"]] == [(0, None, 27), (1, None, 54)]
    assert {(cell["camera"], cell["interval"], cell["images"]) for cell in result["cells"]} == {
        (camera, k, EACH) for camera in ("gate", "wall", "yard") for k in (1, 2)
    }
    names = [(row["name"], row["scene"]) for row in result["rows"]]
    ways = [ZERO_SHOT, "fixed_0.50", FINE_TUNED, "warm", "auto"]
    assert names == [
        *((n, False) for n in ways),
        *((n, True) for n in ways),
        ("best_fixed", False),
        ("best_fixed_each", False),
    ]
    assert json.loads((home / "out" / "result.json").read_text()) == result
    page = (home / "out" / "page.html").read_text()
    assert "On the interval after a training" in page
    assert trainings(logs) == 2
