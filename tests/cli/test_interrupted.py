"""Ctrl-C: a command that was to come to an end and did not says so by its exit code; one that never ends is done."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.app import recording
from adawise.errors import StoreUnavailable
from adawise.produce import produce as producing
from adawise.produce.produce import produce as send_all
from adawise.recording.recorder import RecordingProgress
from adawise.recording.run import record
from adawise.records import Message
from adawise.sink import claims
from adawise.store.store import open_store
from tests.brokers import Broker, MakeTopic
from tests.hostile import picture
from tests.kafka.sources import numbered, produce
from tests.worker.recordings import recorded

Captured = pytest.CaptureFixture[str]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def watched(monkeypatch: pytest.MonkeyPatch, check: Callable[[int], object]) -> None:
    """Call `look` with the number of messages recorded so far, after each poll."""

    def watching(
        *arguments: Any, on_progress: Callable[[RecordingProgress], None], **options: Any
    ) -> RecordingProgress:
        def report(so_far: RecordingProgress) -> None:
            on_progress(so_far)
            check(so_far.messages)

        done: RecordingProgress = record(*arguments, on_progress=report, **options)
        return done

    monkeypatch.setattr(recording, "record", watching)


def arguments(broker: Broker, topic: str) -> list[str]:
    return ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.topic", topic]


def test_a_recorder_goes_on_past_the_head_and_past_a_store_that_was_away_until_it_is_stopped(
    broker: Broker,
    topic: MakeTopic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, root = topic(), str(tmp_path / "recording")
    produce(broker, numbered(name, 0, 3))
    began = 0

    def check(messages: int) -> None:
        nonlocal began
        if began == 0 and messages == 3:
            began = 1
            raise StoreUnavailable("the store is away")
        if began == 1:  # another run, which is at the head
            began = 2
            produce(broker, numbered(name, 0, 4, first=3))
        if began == 2 and messages == 4:
            interrupt()

    watched(monkeypatch, check)
    assert main(["record", "-o", root, "--follow", *arguments(broker, name)]) == 0
    assert [message.offset for message in recorded(root)] == list(range(7))
    [retried] = [line for line in capsys.readouterr().err.splitlines() if "recording_retried" in line]
    assert "the store is away" in retried


def test_a_recording_that_was_stopped_before_its_end_is_not_called_done(
    broker: Broker,
    topic: MakeTopic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, root = topic(), str(tmp_path / "recording")
    produce(broker, numbered(name, 0, 3))
    watched(monkeypatch, lambda messages: interrupt() if messages == 3 else None)
    assert main(["record", "-o", root, "--max-messages", "9", *arguments(broker, name)]) == 130
    assert "stopped before the end; the same command goes on" in capsys.readouterr().out
    assert len(recorded(root)) == 3


@pytest.mark.parametrize(("more", "code"), [((), 130), (("--follow",), 0)])
def test_labels_that_were_stopped_are_done_only_if_they_were_to_be_followed(
    more: tuple[str, ...], code: int, broker: Broker, topic: MakeTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    produce(broker, [Message(name, 0, 0, None, json.dumps({"row_id": "a/0/0/0", "label": "car"}).encode())])
    claims.sink_id(open_store(str(tmp_path)), created_at="now")
    watched(monkeypatch, lambda _: interrupt())
    words = ["labels", str(tmp_path), "--topic", name, "--kafka.bootstrap-servers", broker.bootstrap_servers]
    assert main([*words, *more]) == code


@pytest.mark.parametrize(("more", "code"), [((), 130), (("--loop",), 0)])
def test_images_that_were_not_all_sent_are_not_called_sent(
    more: tuple[str, ...], code: int, broker: Broker, topic: MakeTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(picture(random.Random(number)))

    def interrupted(*arguments: Any, **options: Any) -> Any:
        interrupt()
        return send_all(*arguments, **options)

    monkeypatch.setattr(producing, "produce", interrupted)
    assert main(["produce", str(tmp_path), "--rate", "1000", *arguments(broker, topic()), *more]) == code
