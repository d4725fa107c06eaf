from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.decode.child import IsolatedDecoder
from adawise.decode.message import Decoder
from adawise.decode.preprocess import Preprocess
from adawise.decode.share import CameraShare, Owners
from adawise.errors import FatalError, Reason
from adawise.records import DecodedMessage, Frame, Message
from tests.deadlines import DEADLINE_S
from tests.hostile import Headers, Limits, arrow, hostile, picture
from tests.worker import poison

LIMITS = Limits()
PREPROCESS = Preprocess(32)
DECODE = Decoder(PREPROCESS, LIMITS.max_message_bytes, LIMITS.max_rows, LIMITS.max_pixels)
RNG = random.Random(0)


@pytest.fixture
def isolated() -> Iterator[IsolatedDecoder]:
    made = IsolatedDecoder(DECODE, PREPROCESS.pixels, 3 * 32 * 32)
    yield made
    made.close()


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the child alone."""
    folder = poison.__path__[0]
    root = Path(folder).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, str(root / "pipeline"), str(root)]))


def message(value: bytes | None, offset: int = 5) -> Message:
    return Message("frames", 2, offset, b"cam-1", value, (("frame-id", b"7"),), 1_700_000_000_123)


def same(one: DecodedMessage, other: DecodedMessage) -> bool:
    assert one.message is other.message
    assert (one.is_batch, one.dead, len(one.frames)) == (other.is_batch, other.dead, len(other.frames))
    for mine, theirs in zip(one.frames, other.frames, strict=True):
        for name in ("row_id", "kafka_timestamp_ms", "stream_id", "reason", "detail", "frame_id", "true_label", "meta"):
            assert getattr(mine, name) == getattr(theirs, name), f"{name}: {mine.detail} {theirs.detail}"
        if mine.image is not None and theirs.image is not None:
            assert torch.equal(mine.image, theirs.image)
            assert mine.image.is_contiguous()
            assert mine.statistics is not None
            assert theirs.statistics is not None
            assert mine.statistics.tobytes() == theirs.statistics.tobytes()
        else:
            assert mine.image is theirs.image is None
    return True


def test_a_child_decodes_as_the_worker_does_whatever_it_is(isolated: IsolatedDecoder) -> None:
    values = [picture(RNG), None, b"", b"no image", *(bad.value for bad in hostile(3, 150, LIMITS))]
    for offset, value in enumerate(values):
        sent = message(value, offset)
        assert same(isolated(sent), DECODE(sent))
    [child] = isolated._children
    assert "libtorch" not in Path(f"/proc/{child._process.pid}/maps").read_text()


def test_the_child_loads_no_torch() -> None:
    code = "import sys, adawise.decode.child; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("poisoned")
def test_what_kills_two_children_is_rejected_and_the_next_message_is_decoded_by_a_third(
    isolated: IsolatedDecoder,
) -> None:
    killing = message(picture(RNG) + poison.SEGFAULT)
    decoded = isolated(killing)
    [frame] = decoded.frames
    assert (decoded.dead, frame.reason, frame.stream_id, frame.frame_id) == (True, Reason.KILLS_DECODER, "cam-1", "7")
    assert "the last one by SIGSEGV" in (frame.detail or "")
    good = message(picture(RNG))
    assert same(isolated(good), DECODE(good))


@pytest.mark.usefixtures("poisoned")
def test_what_kills_whoever_asks_for_its_streams_has_none_and_is_rejected_without_another_death(
    isolated: IsolatedDecoder,
) -> None:
    killing = replace(message(encode_batch([picture(RNG) + poison.SEGFAULT], stream_id="cam-2")), key=None)
    assert isolated.streams(killing) == frozenset()
    assert len(isolated._children) == 0
    decoded = isolated(killing)
    assert (decoded.dead, decoded.frames[0].reason) == (True, Reason.KILLS_DECODER)
    assert "the last one by SIGSEGV" in (decoded.frames[0].detail or "")
    good = replace(message(encode_batch([picture(RNG)], stream_id="cam-2")), key=None)
    assert isolated.streams(good) == {"cam-2"}
    assert same(isolated(good), DECODE(good))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "named", [(b"cam-1", ()), (None, (("stream-id", b"cam-1"),)), (None, (("ce_subject", b"cam-1"),))]
)
def test_a_row_that_kills_the_decoder_of_its_shard_is_found_by_key_or_headers_without_a_child(
    named: tuple[bytes | None, Headers], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, headers = named
    killing = replace(message(picture(RNG) + poison.SEGFAULT), key=key, headers=headers)
    owners = {killing.topic_partition: Owners({"cam-1": 0}, (0, 1), rest=1)}
    request = IsolatedDecoder._request

    def dies(self: IsolatedDecoder, what: Any, *rest: Any) -> tuple[Any, str]:
        is_short = self._decoder[0].share == CameraShare(0, owners)  # of memory, and the other shard's machine is not
        return (None, "by SIGKILL") if what == "streams" and is_short else request(self, what, *rest)

    monkeypatch.setattr(IsolatedDecoder, "_request", dies)
    frames = list[Frame]()
    for share in (CameraShare(0, owners), CameraShare(1, owners)):
        isolated = IsolatedDecoder(replace(DECODE, share=share), PREPROCESS.pixels, 3 * 32 * 32)
        if share.takes(killing, isolated.streams(killing)):
            frames += isolated(killing).frames
        isolated.close()
    [frame] = frames
    assert (frame.reason, frame.stream_id) == (Reason.KILLS_DECODER, "cam-1")


@pytest.mark.parametrize("where", ["opened", "decoded", "identified"])
@pytest.mark.usefixtures("poisoned")
def test_a_batch_that_kills_a_shard_is_one_row_if_it_kills_every_shard_and_else_rejected_rows_there(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [picture(RNG) + (poison.MEMORY if where == "opened" else b""), *(picture(RNG) for _ in range(3))]
    names = pa.array(["cam-1", "cam-2", "cam-1", None], pa.string())
    value = arrow({"image": pa.array(images, pa.binary()), "stream_id": names})
    killing = replace(message(value), key=None, headers=(("content-type", ARROW_STREAM.encode()),))
    owners = {killing.topic_partition: Owners({"cam-1": 0, "cam-2": 1}, (0, 1), rest=1)}
    request = IsolatedDecoder._request

    def dies(self: IsolatedDecoder, what: Any, *rest: Any) -> tuple[Any, str]:
        is_first = self._decoder[0].share == CameraShare(0, owners)
        # When it is decoded, by its own image, which the other leaves out; before, for lack of memory.
        is_dead = is_first and (what, where) in (("decode", "decoded"), ("streams", "identified"))
        return (None, "by SIGSEGV") if is_dead else request(self, what, *rest)

    monkeypatch.setattr(IsolatedDecoder, "_request", dies)
    rows = []
    for share in (CameraShare(0, owners), CameraShare(1, owners)):
        isolated = IsolatedDecoder(replace(DECODE, share=share), PREPROCESS.pixels, 3 * 32 * 32)
        assert share.takes(killing, isolated.streams(killing))
        rows += [(frame.row_id.index, share.shard, frame.reason) for frame in isolated(killing).frames]
        isolated.close()
    kills, none = Reason.KILLS_DECODER, Reason.MISSING_STREAM_ID
    expected = [(0, 0, kills), (1, 1, None), (2, 0, kills), (3, 1, none)]
    assert sorted(rows) == ([(0, 1, kills)] if where == "opened" else expected)


def test_a_fault_of_ours_in_a_child_is_no_messages_fault(isolated: IsolatedDecoder) -> None:
    isolated(message(picture(RNG)))
    [child] = isolated._children
    with pytest.raises(FatalError, match=r"failed at None: .*start the worker again"):
        child.request("decode", None)  # type: ignore[arg-type]
    assert same(isolated(good := message(picture(RNG))), DECODE(good))


@pytest.mark.usefixtures("poisoned")
def test_what_takes_more_memory_than_anything_may_is_rejected(isolated: IsolatedDecoder) -> None:
    [frame] = isolated(message(picture(RNG) + poison.MEMORY)).frames
    assert frame.reason == Reason.KILLS_DECODER
    assert "the last one with exit code 1" in (frame.detail or "")


def test_a_child_that_was_killed_by_somebody_else_costs_its_message_nothing(isolated: IsolatedDecoder) -> None:
    good = message(picture(RNG))
    assert same(isolated(good), DECODE(good))
    [child] = isolated._children
    os.kill(child._process.pid, signal.SIGKILL)
    assert same(isolated(good), DECODE(good))
    [other] = isolated._children
    assert other is not child


def test_threads_share_two_children_and_closing_ends_them(isolated: IsolatedDecoder) -> None:
    good, decoded = message(picture(RNG)), list[DecodedMessage]()
    threads = [threading.Thread(target=lambda: decoded.append(isolated(good))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 5
    children = list(isolated._children)
    assert 1 <= len(children) <= 2
    isolated.close()
    assert {child._process.wait(DEADLINE_S) for child in children} == {-signal.SIGKILL}
    assert isolated(good).dead  # of use to nobody, but at once


def test_a_child_answers_where_more_than_a_thousand_files_are_open(isolated: IsolatedDecoder) -> None:
    taken, good = list[int](), message(picture(RNG))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1_536), hard))
    try:
        while not taken or taken[-1] <= 1_024:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        assert same(isolated(good), DECODE(good))
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_closing_ends_a_child_that_hangs(isolated: IsolatedDecoder) -> None:
    good = message(picture(RNG))
    isolated(good)
    [child] = isolated._children
    os.kill(child._process.pid, signal.SIGSTOP)
    thread = threading.Thread(target=isolated, args=(good,))
    thread.start()
    isolated.close()
    thread.join()


def test_a_child_that_hangs_is_told_of_and_waited_for(
    isolated: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, decoded = message(picture(RNG)), list[DecodedMessage]()
    isolated(good)
    [child] = isolated._children
    found = threading.Event()
    monkeypatch.setattr("adawise.decode.child._LOG_EVERY_S", 0.05)
    monkeypatch.setattr("adawise.decode.child._log", LogStub(found))
    os.kill(child._process.pid, signal.SIGSTOP)
    thread = threading.Thread(target=lambda: decoded.append(isolated(good)))
    thread.start()
    assert found.wait(DEADLINE_S)
    os.kill(child._process.pid, signal.SIGCONT)
    thread.join()
    assert same(decoded[0], DECODE(good))


class LogStub:
    """A log that is waited for."""

    def __init__(self, found: threading.Event) -> None:
        self._called = found

    def warning(self, event: str, **facts: object) -> None:
        assert event == "decoder_stalled"
        assert facts["waiting"] == "to decode frames/2/5"
        self._called.set()
