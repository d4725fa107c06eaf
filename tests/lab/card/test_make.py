"""A card and its heads are two files: whoever is killed between leaves a card that starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from adawise.card.card import read_card
from adawise.clip.heads import heads_path, read_heads
from adawise.errors import CardError
from adawise_lab.card.make import replace_card, write_beside, write_card
from tests.card.test_card import a_card

OLD, NEW = (torch.full((3, 8, 5), value) for value in (0.0, 1.0))


class Killed(BaseException):
    """In place of a SIGKILL: nothing of the program catches it."""


def test_a_card_and_its_heads_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "pair.card.json"
    made = write_card(path, a_card(), OLD)
    assert read_card(path) == made
    assert made.heads is not None
    heads = read_heads(heads_path(path), made.heads, (3, 5))
    assert heads is not None
    assert torch.equal(heads, OLD)
    replace_card(path, made)
    assert read_heads(heads_path(path), made.heads, (3, 5)) is not None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["pair.card.heads.safetensors", "pair.card.json"]


@pytest.mark.parametrize("file", range(2))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_the_files_leaves_a_card_without_heads_or_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: int, when: str
) -> None:
    path = tmp_path / "pair.card.json"
    write_card(path, a_card(), OLD)
    replaced = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal replaced
        dies = replaced == file
        replaced += 1
        if dies and when == "before":
            raise Killed
        os.rename(source, target)
        if dies:
            raise Killed

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        write_card(path, a_card(), NEW)
    left = read_card(path)
    assert left.heads is not None
    heads = read_heads(heads_path(path), left.heads, (3, 5))
    assert (heads is None) == ((file, when) != (1, "after"))


def test_a_folder_that_cannot_be_written_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CardError, match=r"pair\.card.*could not be written \(Not a directory\)"):
        write_card(tmp_path / "file" / "pair.card.json", a_card(), NEW)


def test_a_card_that_is_written_over_another_has_not_its_heads(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours.json", tmp_path / "other.json"
    made, _ = write_card(ours, a_card(), NEW), write_card(other, a_card(), OLD)
    assert made.heads is not None
    write_beside(ours, other, made)
    heads = read_heads(heads_path(other), made.heads, (3, 5))
    assert heads is not None
    assert torch.equal(heads, NEW)
    heads_path(ours).unlink()
    write_beside(ours, other, made)
    assert not heads_path(other).exists(), "they would be refused"
