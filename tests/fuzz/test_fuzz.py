"""A short form of the campaign, and that the campaign would find what it looks for."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from adawise.errors import Lost, Reason
from adawise.records import DecodedMessage, Frame, Message, RowId
from tests.processes import start_server
from tools.fuzz import parts
from tools.fuzz.campaign import Patience, campaign, examine
from tools.fuzz.contract import EachMode
from tools.fuzz.corpus import corpus
from tools.fuzz.ledger import Ledger
from tools.fuzz.messages import message, sent

CORPUS = corpus()
KILLED, STUCK, SLOW, RAISED, SILENT = 3, 1_004, 1_007, 1_010, 1_012


@pytest.fixture(scope="module", autouse=True)
def _fork_server() -> None:
    start_server()


def test_hundreds_of_damaged_messages_give_frames_or_reasons_and_nothing_else(tmp_path: Path) -> None:
    decode = EachMode()
    rows: Counter[str] = Counter()
    for block in examine(decode, 20_260_501, range(300), ledger=Ledger(tmp_path, decode.streams)):
        assert block.found == []
        rows += block.rows
    assert min(rows["accepted"], rows["undecodable_image"], rows["bad_arrow"]) > 20, "damage of one depth only"


@pytest.mark.check("tools")
def test_thousands_of_damaged_messages_give_frames_or_reasons_and_nothing_else(tmp_path: Path) -> None:
    rows: Counter[str] = Counter()
    decode = EachMode()
    for block in examine(decode, 20_260_501, range(4_000), ledger=Ledger(tmp_path, decode.streams)):
        assert block.found == []
        rows += block.rows
    never = {Reason.KILLS_DECODER, Reason.BAD_TIMESTAMP}  # a bad time costs no image
    lost = {reason for reason in Lost if reason.startswith("batch_")}
    assert set(rows) == {"accepted", *map(str, set(Reason) - never), *map(str, lost)}
    assert min(rows["accepted"], rows["undecodable_image"], rows["bad_arrow"]) > 500, "damage of one depth only"


@pytest.mark.check("tools")
def test_what_is_found_can_be_made_again() -> None:
    again = corpus()
    assert again.images == CORPUS.images
    for number in range(300):
        assert list(sent(7, number, CORPUS)) == list(sent(7, number, again))
    assert message(7, 0, CORPUS).value != message(8, 0, CORPUS).value


@pytest.mark.check("tools")
def test_formats_come_apart_and_together_as_they_were() -> None:
    forms = [(form, value) for form, values in CORPUS.formats for value in values]
    forms += [(parts.ARROW, value) for value in CORPUS.batches if value.startswith(b"\xff\xff\xff\xff")]
    for form, value in forms:
        split = form.split(value)
        assert len(split) >= 3 or form is parts.WEBP
        assert form.join(split, None) == value
        lying = form.join(split, parts.Lie(0, 0x7FFF))
        assert lying != value
        assert len(lying) == len(value)


def harmful(sent: Message) -> DecodedMessage:
    """A decoder with every fault that the campaign looks for."""
    reason: Reason | None = Reason.EMPTY
    match sent.offset if sent.topic == "fuzz" else None:  # others were fetched, and begin anywhere
        case 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 1_004:
            signal.pause()
        case 1_007:
            began_s = time.process_time()
            while time.process_time() - began_s < 0.3:
                pass
        case 1_010:
            raise RecursionError("too deep")
        case 1_012:
            reason = None
    frame = Frame(
        RowId(*sent.topic_partition, sent.offset, 0), sent.timestamp_ms, None, reason=reason, detail="so it is"
    )
    return DecodedMessage(sent, (frame,))


@pytest.mark.check("tools")
def test_the_campaign_finds_crashes_hangs_exceptions_and_broken_contracts_and_goes_on_behind_them() -> None:
    patience = Patience(hang_s=0.2, stuck_s=4.0)
    *_, outcome = campaign(seed=1, first=0, messages=2_000, processes=2, decode=harmful, patience=patience)
    assert outcome.messages == 2_000
    found = {each.number: each.what for each in outcome.found}
    assert found[KILLED] == "ended the process (SIGSEGV)"
    assert found[STUCK] == "ended the process (SIGKILL)"
    assert found[SLOW].endswith("s of the processor")
    assert "RecursionError" in found[RAISED]
    assert "image, reason and detail" in found[SILENT]
    assert len(found) == 5
    assert outcome.slowest == SLOW
    assert outcome.rows["accepted"] == 1
    assert outcome.rows["empty"] > 1_900 - 4
    assert outcome.rss_bytes.keys() == {0, 1}
