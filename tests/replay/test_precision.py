"""A replay with `model.precision = "auto"` runs in the number format in which the images were served."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from structlog.testing import capture_logs

from adawise.app import model as app_model
from adawise.clip import device as clip_device
from adawise.errors import StoreUnavailable
from adawise.replay import replay as module
from adawise.replay.replay import ReplayRequest, replay
from adawise.settings import ModelSettings, Settings
from adawise.sink.served_by import claim_precision
from adawise.store.store import Store, open_store
from tests.fixtures import versions

FIXTURES = Path(__file__).parents[1] / "fixtures"
BEFORE, NOW = FIXTURES / "version_0_2_0", FIXTURES / "version_0_2_1"


class Chosen(Exception):
    """The settings with which the pair would be loaded."""

    def __init__(self, model: ModelSettings) -> None:
        super().__init__()
        self.model = model


@pytest.fixture(autouse=True)
def _loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: ModelSettings, *_: object) -> NoReturn:
        raise Chosen(model)

    monkeypatch.setattr(app_model, "load_model", load)


def runs_on(monkeypatch: pytest.MonkeyPatch, vendor: str) -> None:
    """A processor with avx512_bf16: for a new root, AMD's would serve in bf16, and Intel's in fp32."""
    monkeypatch.setattr(clip_device, "vendor", lambda: vendor)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)


def chosen(
    folder: Path, recording: Path = NOW, *, sink: Path | None = None, precision: Any = "auto", **request: Any
) -> tuple[str, list[str]]:
    """Return the format of a replay of `following`, and the names of what it logged of that."""
    model = {"device": "cpu", "precision": precision}
    settings = Settings.model_validate({"model": model, "sink": {"root": str(sink or folder / "none")}})
    wanted = ReplayRequest(settings, str(folder / "out"), str(recording / "following"), **request)
    with capture_logs() as lines, pytest.raises(Chosen) as raised:
        replay(wanted)
    return raised.value.model.precision, [e for line in lines if (e := line["event"]).startswith("precision_")]


def test_a_recording_without_a_root_is_replayed_by_the_rule_for_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for vendor, precision in (("AuthenticAMD", "bf16"), ("GenuineIntel", "fp32")):
        runs_on(monkeypatch, vendor)
        assert chosen(tmp_path) == (precision, [])


def test_a_replay_follows_the_states_the_batches_or_the_output_that_it_goes_on_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs_on(monkeypatch, "AuthenticAMD")
    root, expected = NOW / "root", ("fp32", ["precision_followed"])
    assert chosen(tmp_path, state_of=str(versions.segments(root)[-1])) == expected
    assert chosen(tmp_path, state_of=f"{root}@2100-01-01T00:00:00Z") == expected
    assert chosen(tmp_path, sink=root) == expected
    monkeypatch.setattr(module, "_batch_ends", lambda *_: None)  # the recording begins behind the root's batches
    assert chosen(tmp_path, batches_of=str(root)) == expected
    assert chosen(tmp_path, pairs_of=str(root)) == expected
    assert chosen(tmp_path, sink=root, precision="bf16") == ("bf16", [])


def test_what_served_the_rows_counts_more_than_what_the_root_claims(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs_on(monkeypatch, "AuthenticAMD")
    root = Path(shutil.copytree(NOW / "root", tmp_path / "root"))
    claim_precision(open_store(str(root)), "bf16")
    assert chosen(tmp_path, sink=root)[0] == "fp32"
    shutil.rmtree(root / "_settings")
    assert chosen(tmp_path, sink=root)[0] == "bf16"


def test_states_of_a_version_that_recorded_no_format_are_gone_on_from_in_that_which_it_would_have_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs_on(monkeypatch, "GenuineIntel")
    state_of = str(versions.segments(BEFORE / "root")[-1])
    assert chosen(tmp_path, BEFORE, state_of=state_of) == ("bf16", ["precision_followed"])


def test_a_replay_that_was_stopped_goes_on_in_its_own_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs_on(monkeypatch, "AuthenticAMD")
    shutil.copytree(NOW / "replayed", tmp_path / "out")
    assert chosen(tmp_path) == ("fp32", ["precision_followed"])


def test_a_replay_needs_no_access_to_the_workers_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs_on(monkeypatch, "GenuineIntel")
    real = open_store

    def opened(root: str) -> Store:
        if root == "s3://bucket/yard":
            raise StoreUnavailable("no answer")
        return real(root)

    monkeypatch.setattr(module, "open_store", opened)
    settings = Settings.model_validate({"model": {"device": "cpu"}, "sink": {"root": "s3://bucket/yard"}})
    with capture_logs() as lines, pytest.raises(Chosen) as raised:
        replay(ReplayRequest(settings, str(tmp_path / "out"), str(NOW / "following")))
    assert raised.value.model.precision == "fp32"
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["precision_not_found"]
