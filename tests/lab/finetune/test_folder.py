"""The output folder: what is there already, what is begun anew, and a run that ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from adawise.errors import SettingsError, TrainingError
from adawise.settings import Settings
from adawise_lab.finetune.folder import Folder, write_checkpoint
from adawise_lab.finetune.training import as_recorded

SETTINGS = {"finetune.seed": "0"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "run")
    folder.begin({"model_cfg": {"x": 1}}, ["cat", "dog"], ["a {}."])
    return folder


def test_a_new_folder_has_what_open_clip_and_a_worker_want(folder: Folder) -> None:
    assert json.loads(folder.config.read_text()) == {"model_cfg": {"x": 1}}
    assert folder.classes.read_text() == "cat\ndog\n"
    assert folder.templates.read_text() == "a {}.\n"


def test_a_run_that_is_there_is_neither_mixed_up_nor_lost(folder: Folder) -> None:
    folder.check(resume=False, overwrite=False)  # what was begun, and has not judged theta_0, is no run
    folder.checkpoint.touch()
    with pytest.raises(SettingsError, match=r"there is a run already \(checkpoint.pt\).*--overwrite"):
        folder.check(resume=False, overwrite=False)
    folder.check(resume=False, overwrite=True)


def test_beginning_anew_removes_a_run_s_files_and_no_others(folder: Folder) -> None:
    mine = {"notes.txt", ".notes.txt.tmp"}
    for name in (*mine, ".card.json.0123abcd.tmp", "theta_1/.open_clip_config.json.0123abcd.tmp"):
        (folder.path / name).touch()
    for file in (folder.card, folder.checkpoint, folder.record):
        file.touch()
    folder.begin({}, ["cat"], ["{}"])
    assert {file.name for file in folder.path.iterdir()} == {"theta_1", "classes.txt", "templates.txt", *mine}
    assert [file.name for file in folder.theta_1.iterdir()] == ["open_clip_config.json"]


def test_a_rehearsal_that_has_ended_leaves_what_is_not_its_own(folder: Folder) -> None:
    place = folder.rehearsal
    place.begin({}, ["cat"], ["{}"])
    for file in (place.checkpoint, place.weights, place.path / ".checkpoint.pt.0123abcd.tmp", place.path / "notes.txt"):
        file.touch()
    folder.remove_rehearsal()
    assert [file.name for file in place.path.rglob("*")] == ["notes.txt"]
    (place.path / "notes.txt").unlink()
    folder.remove_rehearsal()
    assert not place.path.exists()
    folder.remove_rehearsal()


def test_nothing_is_not_resumed(tmp_path: Path) -> None:
    Folder(tmp_path).check(resume=False, overwrite=False)
    with pytest.raises(SettingsError, match="no run to resume"):
        Folder(tmp_path).check(resume=True, overwrite=False)


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(SettingsError, match="expected a folder, but it is a file"):
        Folder(tmp_path / "f").check(resume=False, overwrite=True)


def test_a_finished_run_is_known_by_its_settings(folder: Folder) -> None:
    assert folder.finished(SETTINGS) is None
    folder.record.write_text(json.dumps({"settings": SETTINGS, "best": 1}))
    assert folder.finished(SETTINGS) == {"settings": SETTINGS, "best": 1}
    with pytest.raises(TrainingError, match=r"finetune.seed was 0, is 1"):
        folder.finished({"finetune.seed": "1"})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 3}'])
def test_what_is_no_record_is_refused(folder: Folder, content: str) -> None:
    folder.record.write_text(content)
    with pytest.raises(SettingsError, match="not the record of a run"):
        folder.finished(SETTINGS)


@pytest.mark.parametrize(
    ("setting", "began", "vendor", "expected"),
    [
        ("auto", "bfloat16", "GenuineIntel", "bf16"),  # by the rule of 0.2.1
        ("auto", "float32", "AuthenticAMD", "fp32"),
        ("auto", "bfloat16", "AuthenticAMD", "auto"),
        ("auto", "", "GenuineIntel", "auto"),
        ("fp32", "bfloat16", "GenuineIntel", "fp32"),  # which resuming refuses
    ],
)
@pytest.mark.parametrize("is_over", [False, True])
def test_a_run_goes_on_in_the_number_format_in_which_it_began(
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    began: str,
    vendor: str,
    expected: str,
    is_over: bool,
) -> None:
    monkeypatch.setattr("adawise.clip.device.vendor", lambda: vendor)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    settings = Settings.model_validate({"model": {"device": "cpu", "precision": setting}})
    assert as_recorded(settings, folder) is settings, "there is no run"
    if is_over:
        folder.record.write_text(json.dumps({"settings": {"model.precision": began}}))
    else:
        write_checkpoint(folder.checkpoint, settings={"model.precision": began}, state={"learner": torch.zeros(3)})
    with capture_logs() as lines:
        assert as_recorded(settings, folder).model.precision == expected
    assert [line["event"] for line in lines] == (["precision_followed"] if expected != setting else [])


@pytest.mark.parametrize(
    ("setting", "began", "expected"),
    [
        ({}, {"finetune.learning_rate": "1e-05", "finetune.blocks": "None"}, (1e-5, "all")),
        ({}, {"finetune.learning_rate": "3e-05", "finetune.blocks": "6"}, (3e-5, 6)),
        ({}, {"finetune.learning_rate": "1e-05"}, (1e-5, "all")),  # of 0.2, which trained all blocks
        ({"blocks": 2}, {"finetune.learning_rate": "1e-05", "finetune.blocks": "None"}, (1e-5, 2)),  # is refused later
        ({"learning_rate": 1e-4}, {"finetune.learning_rate": "1e-05", "finetune.blocks": "4"}, (1e-4, 4)),
        ({}, {"finetune.learning_rate": "fast", "finetune.blocks": "4"}, ("auto", 4)),  # damaged
    ],
)
def test_a_run_goes_on_with_the_rate_and_the_blocks_that_auto_meant_when_it_began(
    folder: Folder, setting: dict[str, object], began: dict[str, str], expected: tuple[object, object]
) -> None:
    settings = Settings.model_validate({"finetune": setting})
    folder.record.write_text(json.dumps({"settings": began}))
    followed = as_recorded(settings, folder).finetune
    assert (followed.learning_rate, followed.blocks) == expected


def test_damaged_files_of_a_run_name_no_number_format(folder: Folder) -> None:
    folder.checkpoint.write_bytes(b"PK\x03\x04 nothing")
    assert folder.recorded() == {}
