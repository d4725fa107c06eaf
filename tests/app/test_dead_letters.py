from __future__ import annotations

from pathlib import Path

import pytest

from adawise.app.dead_letters import save_original
from adawise.errors import SettingsError
from adawise.publish.dead_letters.reading import read_dead_letter
from adawise.publish.dead_letters.record import dead_letter_record
from adawise.records import Frame, Message, RowId

FRAME = Frame(RowId("frames", 3, 17, 0), -1, "north")


def test_an_original_is_saved_to_a_new_file_and_one_that_was_left_out_is_not(tmp_path: Path) -> None:
    record = dead_letter_record(Message("frames", 3, 17, None, b"\x00image"), FRAME, topic=None, worker="w")
    whole, empty = [
        read_dead_letter(Message(sent.topic, 0, 5, sent.key, sent.value, sent.headers))
        for sent in (record, record.without_original())
    ]
    save_original(whole, tmp_path / "image.jpg")
    assert (tmp_path / "image.jpg").read_bytes() == b"\x00image"
    with pytest.raises(FileExistsError):
        save_original(whole, tmp_path / "image.jpg")
    with pytest.raises(SettingsError, match="the dead letter does not hold its original; read frames/3/17"):
        save_original(empty, tmp_path / "other.jpg")
