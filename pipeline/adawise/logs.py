"""Structured logs on the error output: one event, named in the past tense, with its facts as keys.

    log = structlog.get_logger()
    log.info("segment_committed", topic=..., partition=..., rows=...)

Records of libraries that log through `logging` (torch, obstore) are written in the same form from WARNING up, as are
Python's own warnings. Records of kafka-python are shown at level debug only: the program itself logs what concerns an
operator, with the remedy. The value of a key that names a secret is hidden; pydantic's `SecretStr` hides itself.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import re
import sys
from collections.abc import Mapping
from io import StringIO
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor
from typing_extensions import override

from adawise.console import plain

HIDDEN = "**********"
_SECRET_KEY = re.compile(r"(^|_)(password|passwd|secret|token|credentials?|api_?key|ssl_key)$", re.IGNORECASE)
_LOGGER = "adawise"  # the one stdlib logger that all structlog events go through
_CHATTER = "kafka"  # kafka-python's loggers: sentences about each connection, on which no operator can act


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
    *,
    is_service: bool = False,
) -> None:
    """Set up structlog and `logging` for the process. May be called again; the last call holds.

    Args:
        level: least severity that is shown.
        form: one JSON object a line, or lines for people. `auto`: for people if `stream` is a terminal, else JSON.
        stream: the output, in place of the standard error output.
        is_service: the program runs until it is stopped, and other programs read its error output. The error by which
            it ends is then an event wherever lines are JSON; for other commands, only where `form` is json.
    """
    out = stream if stream is not None else sys.stderr
    for_people = form == "console" or (form == "auto" and out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _hide_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_stdlib_logger,
        cache_logger_on_first_use=False,  # loggers made at import must follow a later call
    )
    handler = _Output(stream, ends_by_event=form == "json" or (is_service and not for_people))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(for_people, out)],
        )
    )
    if threshold > logging.DEBUG:
        handler.addFilter(lambda record: not _is_chatter(record))
    _take_over_logging(handler, threshold)


def log_end(kind: str, cause: str, remedy: str, *, exit_code: int, fault: BaseException | None = None) -> bool:
    """Log the error by which the program ends; return False if it is to be printed for people instead.

    Args:
        kind: name of the error's class.
        cause: what was expected, what came, and where.
        remedy: what to do.
        exit_code: the exit code of the process.
        fault: the error itself if it was not raised on purpose: its traceback is logged.
    """
    if not _is_read_by_programs():
        return False
    log = structlog.get_logger("program")
    if kind == KeyboardInterrupt.__name__:
        log.warning("program_interrupted", exit_code=exit_code)  # a warning, so that logs of that level show it too
    else:
        log.error("program_failed", exit_code=exit_code, kind=kind, error=cause, remedy=remedy, exc_info=fault)
    return True


def log_thread(name: str, fault: BaseException) -> bool:
    """Log the fault that ended a thread; return False if it is to be printed for people instead."""
    if _is_read_by_programs():
        log = structlog.get_logger("program")
        error = f"{type(fault).__name__}: {fault}"
        log.error(
            "thread_failed", thread=name, error=error, remedy="Report it, with the lines before it.", exc_info=fault
        )
        return True
    return False


def _is_read_by_programs() -> bool:
    """Return True if other programs read the error output, by the arguments of `configure`."""
    return any(handler.ends_by_event for handler in logging.getLogger().handlers if isinstance(handler, _Output))


def begin_program() -> None:
    """Forget what a program that ran in this process before has configured about the error output's reader."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Output):
            handler.ends_by_event = False


def _is_chatter(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == _CHATTER


class _Output(logging.StreamHandler[TextIO]):
    """A handler that writes to the stream or, without one, to `sys.stderr` at that moment.

    A progress bar replaces `sys.stderr` while it is shown.
    """

    def __init__(self, stream: TextIO | None, *, ends_by_event: bool) -> None:
        super().__init__(stream)
        self.ends_by_event = ends_by_event
        self._follows_stderr = stream is None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if self._follows_stderr:
            self.stream = sys.stderr  # setStream would flush the stream before, which may be closed by now
        super().emit(_lowered(_in_a_line(record)))

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be written, such as to a full disk; show other errors as `logging` does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _in_a_line(record: logging.LogRecord) -> logging.LogRecord:
    """Return the record; a library's record of a failed system call comes without its traceback, with the error's text.

    Such a failure, as of a network, is no fault of a program.
    """
    error = record.exc_info[1] if record.exc_info else None
    if record.name == _LOGGER or not isinstance(error, OSError):
        return record
    brief = copy.copy(record)  # other handlers get the record as it is
    brief.msg, brief.args = f"{record.getMessage()}: {error}", None
    brief.exc_info = brief.exc_text = None
    return brief


def _lowered(record: logging.LogRecord) -> logging.LogRecord:
    """Return the record, with level debug if it is kafka-python's, whatever level that library gave it."""
    if not _is_chatter(record):
        return record
    lowered = copy.copy(record)
    lowered.levelno, lowered.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
    return lowered


def _stdlib_logger(*_names: object) -> logging.Logger:
    return logging.getLogger(_LOGGER)


def _rendering(for_people: bool, out: TextIO) -> list[Processor]:
    if for_people:
        colors = out.isatty() and not os.environ.get("NO_COLOR")
        return [_printable, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_write_traceback)]
    return [structlog.processors.format_exc_info, _without_nan, structlog.processors.JSONRenderer(default=str)]


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Make every text printable: names of cameras and a broker's texts must not move a terminal's cursor."""
    return {key: plain(value) if isinstance(value, str) else value for key, value in event.items()}


def _write_traceback(out: TextIO, exc_info: Any) -> None:
    """Write a plain traceback: richer ones print local variables, which may hold secrets."""
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.write(plain(text.getvalue()))


def _take_over_logging(handler: logging.Handler, threshold: int) -> None:
    """Send all records of `logging` to one handler; loggers of libraries from WARNING up."""
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):  # from an earlier call
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(threshold, logging.WARNING))
    # Independent of the level that is shown: `kafka.client` finds in these records why a connection failed.
    logging.getLogger(_CHATTER).setLevel(logging.WARNING)
    logging.getLogger(_LOGGER).setLevel(threshold)


def _hide_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    return _hidden(event)


def _hidden(values: Mapping[str, object]) -> dict[str, object]:
    hidden: dict[str, object] = {}
    for key, value in values.items():
        if _SECRET_KEY.search(str(key)) and value is not None:
            hidden[key] = HIDDEN
        else:
            hidden[key] = _hidden(value) if isinstance(value, Mapping) else value
    return hidden


def _without_nan(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace nan and infinity by None: JSON has neither, and other programs cannot read what Python writes."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in event.items()
    }
