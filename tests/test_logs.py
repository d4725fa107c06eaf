"""Logs: JSON lines or lines for people, other libraries in the same form, no secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from adawise.logs import configure


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("kafka", "adawise")}
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_object_on_a_line() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    with structlog.contextvars.bound_contextvars(topic="frames", partition=3):
        structlog.get_logger().info("segment_committed", rows=7, text="two\nlines", alpha=float("nan"))
    (line,) = lines_of(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "segment_committed",
        "level": "info",
        "topic": "frames",
        "partition": 3,
        "rows": 7,
        "text": "two\nlines",
        "alpha": None,
    }


def test_without_a_terminal_auto_means_json_and_console_means_lines_for_people() -> None:
    auto, people = io.StringIO(), io.StringIO()
    configure("info", "auto", auto)
    structlog.get_logger().info("worker_started")
    configure("info", "console", people)
    structlog.get_logger().info("worker_started", rows=1)
    assert lines_of(auto)[0]["event"] == "worker_started"
    assert "worker_started" in people.getvalue()
    assert "rows=1" in people.getvalue()
    assert "\x1b" not in people.getvalue()


def test_a_line_for_people_moves_no_terminals_cursor_whatever_names_and_errors_hold() -> None:
    people, hostile = io.StringIO(), "cam\x1b[2J\u202e"
    configure("info", "console", people)
    structlog.get_logger().info("worker_started", stream_id=hostile, partition=1)
    logging.getLogger("obstore.retry").warning("closed %s", hostile)
    try:
        raise ValueError(hostile)
    except ValueError:
        structlog.get_logger().exception("report_failed", cameras=[hostile])
    document = people.getvalue()
    assert document.count("cam?[2J?") == 3
    assert "\x1b" not in document
    assert "\u202e" not in document


def test_a_logger_made_before_follows_the_last_setup() -> None:
    log = structlog.get_logger()
    first, second = io.StringIO(), io.StringIO()
    configure("warning", "json", first)
    log.info("worker_started")
    configure("debug", "json", second)
    log.debug("worker_stopped")
    assert not first.getvalue()
    assert [line["event"] for line in lines_of(second)] == ["worker_stopped"]


def test_logs_follow_the_error_output(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("info", "json")
    later = io.StringIO()  # as a progress bar does, which lets lines pass above itself
    monkeypatch.setattr(sys, "stderr", later)
    structlog.get_logger().info("worker_started")
    assert lines_of(later)[0]["event"] == "worker_started"


def test_an_error_output_that_was_closed_meanwhile_does_not_hinder_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure("info", "json")
    closed, out = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().info("first_written")
    closed.close()
    monkeypatch.setattr(sys, "stderr", out)
    structlog.get_logger().info("second_written")
    assert [line["event"] for line in lines_of(out)] == ["second_written"]


def test_secrets_are_hidden_by_key_and_by_type() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    structlog.get_logger().info(
        "settings_read",
        sasl_password="hunter2",
        security={"ssl_key_password": "hunter2", "protocol": "SSL"},
        given=SecretStr("hunter2"),
        tokenizer="clip",
    )
    (line,) = lines_of(out)
    assert "hunter2" not in out.getvalue()
    assert line["security"] == {"ssl_key_password": "**********", "protocol": "SSL"}
    assert line["tokenizer"] == "clip"


def test_libraries_speak_from_warning_up_in_the_same_form() -> None:
    out = io.StringIO()
    configure("debug", "json", out)
    logging.getLogger("obstore.retry").info("connected")
    logging.getLogger("obstore.retry").warning("closed %s", "now")
    (line,) = lines_of(out)
    assert (line["event"], line["level"], line["logger"]) == ("closed now", "warning", "obstore.retry")


def test_a_network_that_fails_under_a_library_is_one_line_and_anything_else_has_its_traceback() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    for error in (ConnectionResetError(104, "Connection reset by peer"), ValueError("a bug")):
        try:
            raise error
        except (OSError, ValueError):
            logging.getLogger("obstore").exception("receiving from %s", "broker 1")
    reset, bug = (json.loads(line) for line in stream.getvalue().splitlines())
    assert reset["event"] == "receiving from broker 1: [Errno 104] Connection reset by peer"
    assert "exception" not in reset
    assert "Traceback" in bug["exception"]


def test_warnings_of_python_are_logged() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (line,) = lines_of(out)
    assert line["logger"] == "py.warnings"
    assert "old" in line["event"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_does_not_show_local_variables(form: Any) -> None:
    out = io.StringIO()
    configure("info", form, out)
    password = "hunter" + "2"
    try:
        raise ValueError(f"{len(password)} letters")
    except ValueError:
        structlog.get_logger().exception("commit_failed")
    assert "7 letters" in out.getvalue()
    assert "hunter2" not in out.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(("level", "line"), [("info", 1), ("error", 1), ("debug", 2)])
def test_lines_of_kafka_python_are_for_debugging_alone(level: Any, form: Any, line: int) -> None:
    out = io.StringIO()
    configure(level, form, out)
    logging.getLogger("kafka.net.connection").error("socket disconnected")
    logging.getLogger("kafkaesque").error("not of that library")
    assert len(out.getvalue().splitlines()) == line


def test_a_line_of_kafka_python_has_the_level_debug_whatever_that_library_takes_it_for() -> None:
    out = io.StringIO()
    configure("debug", "json", out)
    logging.getLogger("kafka.net.selector").warning("slow")
    logging.getLogger("kafka.coordinator").error("heartbeat failed")
    assert [(line["event"], line["level"]) for line in lines_of(out)] == [
        ("slow", "debug"),
        ("heartbeat failed", "debug"),
    ]


def test_why_a_connection_failed_can_be_read_off_kafka_pythons_records_at_every_level() -> None:
    """`kafka.client` does so: what is not shown still has to reach other handlers."""
    seen: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    listener = Listener()
    logger = logging.getLogger("kafka.net")
    logger.addHandler(listener)
    try:
        configure("error", "json", io.StringIO())
        logger.warning("refused")
    finally:
        logger.removeHandler(listener)
    assert seen == ["refused"]


def test_a_log_on_a_full_disk_loses_its_lines_and_hinders_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    full = open("/dev/full", "w", buffering=1, encoding="utf-8")  # noqa: SIM115  # closing it fails, too
    try:
        configure("info", "json", full)
        structlog.get_logger().info("segment_committed")
        logging.getLogger("kafka").warning("a library")
    finally:
        configure()
        with suppress(OSError):
            full.close()
    assert capsys.readouterr().err == ""
