"""The campaign's account of what each camera should have got."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adawise.records import DecodedMessage, Frame, Message, RowId
from tools.fuzz.ledger import Ledger
from tools.fuzz.messages import TOPIC

NOW_MS, FORGET_MS = 1_700_000_000_000, 3_600_000


@pytest.mark.check("tools")
def test_a_camera_whose_clock_leaps_ahead_and_back_within_a_batch_is_accused_of_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, lambda _: frozenset(["cam"]))
    for offset, later_ms in enumerate((0, 1, 2, 3, 3 * FORGET_MS, 4, 5, 6)):  # two batches
        message = Message(TOPIC, 0, offset, b"cam", b"", timestamp_ms=NOW_MS + later_ms)
        image = torch.zeros(3, 1, 1, dtype=torch.uint8)
        assert (
            ledger.take(
                DecodedMessage(message, (Frame(RowId(TOPIC, 0, offset, 0), message.timestamp_ms, "cam", image=image),))
            )
            is None
        )
        if offset in (3, 7):
            assert ledger.commit() is None
    assert ledger.faults() == []
