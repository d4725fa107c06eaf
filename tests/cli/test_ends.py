"""How a command ends by an error: a message for people, or the last event of a log that programs read."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import structlog

from adawise import logs
from adawise.__main__ import _thread_failed, main
from adawise.cli.verify import VerifyCommand
from adawise.errors import ChainError, FatalError, SettingsError, StoreFull


@pytest.fixture(autouse=True)
def _logging_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    structlog.configure(**before)


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Have `adawise verify` end by this error."""

    def fail(_requested: object) -> int:
        raise error

    monkeypatch.setattr(VerifyCommand, "call", fail)


@pytest.mark.parametrize(
    ("error", "code", "fields"),
    [
        (
            SettingsError("wrong here. Correct it"),
            2,
            {"kind": "SettingsError", "error": "wrong here", "remedy": "Correct it"},
        ),
        (
            ChainError("segment 7 of yard/3: damaged; restore it from a copy"),
            1,
            {"kind": "ChainError", "error": "segment 7 of yard/3: damaged", "remedy": "restore it from a copy"},
        ),
        (
            FileNotFoundError(2, "No such file or directory", "x.json"),
            1,
            {
                "kind": "FileNotFoundError",
                "error": "x.json: No such file or directory",
                "remedy": "correct the path or its permissions",
            },
        ),
    ],
)
def test_an_error_is_the_last_event_where_the_log_is_for_programs(
    error: Exception,
    code: int,
    fields: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fails(monkeypatch, error)
    assert main(["verify", "out", "--log.format", "json"]) == code
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    del last["timestamp"]
    assert last == {"event": "program_failed", "level": "error", "exit_code": code, **fields}


def test_mistakes_in_settings_and_an_interrupt_are_events_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "out", "--log.format", "json", "--sink.flush-rows", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "program_failed"
    assert "--sink.flush-rows" in json.loads(line)["error"]

    fails(monkeypatch, KeyboardInterrupt())
    for quieter in ((), ("--log.level", "warning")):
        assert main(["verify", "out", "--log.format", "json", *quieter]) == 130
        (line,) = capsys.readouterr().err.splitlines()
        assert (json.loads(line)["event"], json.loads(line)["exit_code"]) == ("program_interrupted", 130)


def test_a_fault_of_ours_is_an_event_with_its_traceback_where_the_log_is_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(monkeypatch, ValueError("not meant"))
    assert main(["verify", "out", "--log.format", "json"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    last = json.loads(line)
    assert (last["event"], last["kind"], last["error"]) == ("program_failed", "ValueError", "ValueError: not meant")
    assert "Traceback" in last["exception"]


def test_a_fault_in_a_thread_is_an_event_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines of plain text among objects end the programs that read them."""

    def fail() -> None:
        raise ValueError("not meant")

    monkeypatch.setattr(threading, "excepthook", _thread_failed)
    for form in ("json", "console"):
        logs.configure("info", form)
        thread = threading.Thread(target=fail, name="feed")
        thread.start()
        thread.join()
    line, *traceback = capsys.readouterr().err.splitlines()
    document = json.loads(line)
    assert (document["event"], document["thread"], document["error"]) == (
        "thread_failed",
        "feed",
        "ValueError: not meant",
    )
    assert "Traceback" in document["exception"]
    assert traceback[0] == "Exception in thread feed:"


def test_without_a_terminal_only_a_service_ends_by_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker's error output is a log, that of a command which ends by itself is for whoever called it."""
    for line, is_event in (("run --nowhere", True), ("verify out --nowhere", False), ("record -o r --nowhere", False)):
        assert main(line.split()) == 2
        err = capsys.readouterr().err
        assert err.startswith('{"') == is_event
        assert err.startswith("adawise: ") != is_event
    assert main(["record", "-o", "r", "--follow", "--until", "1h"]) == 2
    assert json.loads(capsys.readouterr().err)["kind"] == "SettingsError"


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("no room: the disk is full. Make room; work goes on then", "work goes on then"),
        ("could not reach it. Is it running? Start one with `adawise broker`", "Start one with `adawise broker`"),
        ("could not create it. Create the topic. Or set kafka.dead_letters = false", "Create the topic. Or set "),
        ("x.json: 2.1 is no version", ""),
        ("expected a URL as gs://... or az://..., but ftp: its scheme is not one of these; correct it", "correct it"),
        ("x.json is damaged. Mend it; or, where it lies beside a file, take it away", "Mend it; or, where it lies"),
        ("another config. Give the one that wrote it (x.json; model.mean), or a root of its own", "Give the one that"),
        ("2 things to correct\n  - a; b\n  - c", "correct what is listed"),
    ],
)
def test_the_remedy_is_the_last_part_of_a_message_and_nothing_is_lost(message: str, remedy: str) -> None:
    for error in (FatalError(message), StoreFull(message)):
        cause, found = error.cause_and_remedy
        assert found.startswith(remedy) if remedy else found == ""
        assert message.startswith(cause)
        assert message.endswith(found) or "\n" in message
