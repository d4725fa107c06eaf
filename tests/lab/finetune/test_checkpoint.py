"""Files that are whole or not there, and checkpoints that are ours or refused."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adawise.errors import TrainingError
from adawise_lab.finetune.folder import (
    check_settings,
    read_checkpoint,
    remove_leftovers,
    write_bytes,
    write_checkpoint,
    write_weights,
)
from adawise_lab.finetune.recipe import IN_0_2, Recipe
from tests.dying import exit_code

SETTINGS = {"finetune.seed": "0", "finetune.learning_rate": "1e-05"}


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """A full disk for this process: no file grows larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    state = {"learner": {"weights": {"a": torch.tensor([1.5])}}, "progress": {"epoch": 2, "curve": [{"loss": 0.5}]}}
    write_checkpoint(path, settings=SETTINGS, state=state)
    read = read_checkpoint(path, settings=SETTINGS)
    assert read["progress"] == state["progress"]
    assert torch.equal(read["learner"]["weights"]["a"], torch.tensor([1.5]))
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", settings=SETTINGS, state={})
    other = {"finetune.seed": "0", "finetune.learning_rate": "0.1", "finetune.new": "1"}
    with pytest.raises(TrainingError) as caught:
        read_checkpoint(tmp_path / "c.pt", settings=other)
    message = str(caught.value)
    assert "finetune.learning_rate was 1e-05, is 0.1; finetune.new was not set, is 1. Set them back" in message
    assert "seed" not in message


def test_equal_settings_in_another_order_are_the_same(tmp_path: Path) -> None:
    check_settings(tmp_path, SETTINGS, dict(reversed(SETTINGS.items())))


def test_settings_that_0_2_did_not_have_are_what_it_did(tmp_path: Path) -> None:
    now = Recipe(layer_decay=1.0).as_settings()
    before = {name: value for name, value in now.items() if name not in IN_0_2}
    check_settings(tmp_path, before, now)
    with pytest.raises(TrainingError, match=r"finetune\.layer_decay was 1\.0, is 0\.75\. Set them back"):
        check_settings(tmp_path, before, Recipe(layer_decay=0.75).as_settings())


def test_blocks_that_were_not_set_are_all_blocks(tmp_path: Path) -> None:
    some, whole = Recipe(blocks=3).as_settings(), Recipe().as_settings()
    with pytest.raises(TrainingError, match=r"finetune\.blocks was 3, is all\. Set them back"):
        check_settings(tmp_path, some, whole)
    with pytest.raises(TrainingError, match=r"finetune\.blocks was all, is 3\."):
        check_settings(tmp_path, whole, some)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(Harmful()), pickle.dumps([1]), b"PK\x03\x04 broken"])
def test_what_is_no_checkpoint_is_refused_and_never_run(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"not a checkpoint of this program, or damaged .* --overwrite"):
        read_checkpoint(path, settings=SETTINGS)
    assert not (tmp_path / "harmed").exists()


def test_a_cut_off_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    write_checkpoint(path, settings=SETTINGS, state={"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="damaged"):
        read_checkpoint(path, settings=SETTINGS)


def test_another_format_and_no_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no checkpoint to resume from. Leave --resume out"):
        read_checkpoint(tmp_path / "c.pt", settings=SETTINGS)
    torch.save({"format": 99, "settings": SETTINGS}, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="expected a checkpoint of format 1, got 99"):
        read_checkpoint(tmp_path / "c.pt", settings=SETTINGS)


def test_without_room_the_old_file_stays_and_the_message_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    write_bytes(path, b"old")
    with largest_file(4096), pytest.raises(TrainingError, match=r"100000 bytes could not be written .* --resume"):
        write_bytes(path, b"n" * 100_000)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.check("lab")
def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    write_bytes(path, b"old")
    code = exit_code(be_killed_while_writing, path)
    assert code == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    theirs = {".notes.tmp", ".c.pt.mine.tmp", ".d.pt.0123abcd.tmp"}
    for name in theirs:
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert {file.name for file in tmp_path.iterdir()} == {"c.pt", *theirs}


def be_killed_while_writing(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), 9))
        write_bytes(path, b"new" * 1000)


def test_weights_are_safetensors_whole_even_of_views(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    write_weights(tmp_path / "w.safetensors", {"a": base[:3], "b": base[3:], "c": base.view(2, 3).T})
    read = load_file(tmp_path / "w.safetensors")
    assert torch.equal(read["b"], base[3:])
    assert torch.equal(read["c"], base.view(2, 3).T)
