"""The program: errors become an exit code and a message that ends in the remedy.

0 done, 1 failed, 2 wrong settings or usage, 3 something was found, 130 interrupted.

Where the error output is read by programs (`logs.configure`), the message is an event, the last line of the log.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from adawise.console import say
from adawise.errors import AdawiseError, SettingsError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def program() -> NoReturn:
    """The process: `main`, and an end that no native thread can spoil.

    Arrow's threads free what they have read, sometimes a moment after their reader has its result, and ask for the
    interpreter's lock to do so. Before Python 3.14 an interpreter that is being torn down ends whoever asks, and C++
    answers that with SIGABRT, after all was well. What CUDA frees may abort, too, once its card is lost. So nothing is
    torn down: the last exit function ends the process.
    """
    last = _LastExitFunction()
    atexit.register(last)  # before all others, so called after them
    threading.excepthook = _thread_failed
    try:
        last.code = main()
        doctor = sys.modules.get("adawise.commands.doctor.checks")  # where it was asked for
        if doctor is not None and doctor.is_looking():
            last()  # or threads that a library has for it, such as a pool's, would be waited for, for ever
    except SystemExit as ended:  # the parser does that
        last.code = int(ended.code or 0)
        raise
    sys.exit(last.code)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Show a fault that ended a thread: as an event where programs read the error output."""
    logs = sys.modules.get("adawise.logs")
    name = "" if failed.thread is None else failed.thread.name
    if logs is None or failed.exc_value is None or not logs.log_thread(name, failed.exc_value):
        threading.__excepthook__(failed)


class _LastExitFunction:
    def __init__(self) -> None:
        self.code = FAILED  # unless `main` comes to its end: a fault of ours, which the interpreter shows

    def __call__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                stream.flush()
        os._exit(self.code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. `arguments`: in place of the process's own."""
    # Read by OpenMP when torch is loaded. Its threads would spin while they wait for one another, against the decode
    # pool and other processes: on two busy cores a forward was three times slower so (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (logs := sys.modules.get("adawise.logs")) is not None:
        logs.begin_program()
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except AdawiseError as error:
        code = WRONG_USAGE if isinstance(error, SettingsError) else FAILED
        return code if _is_logged(error, *error.cause_and_remedy, code) else _print(f"{error}", code)
    except KeyboardInterrupt as error:
        return INTERRUPTED if _is_logged(error, "", "", INTERRUPTED) else _print("interrupted", INTERRUPTED)
    except BrokenPipeError:
        if _has_reader():
            raise  # another pipe broke
        # whoever read the output went away, such as `head`; the interpreter must not try to write the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # a mistake in the name of a file
            cause, remedy = f"{error.filename}: {error.strerror}", "correct the path or its permissions"
            return FAILED if _is_logged(error, cause, remedy, FAILED) else _print(f"{cause}; {remedy}", FAILED)
        cause = f"{type(error).__name__}: {error}"
        if _is_logged(error, cause, "report it, with the lines before", FAILED, is_fault=True):
            return FAILED
        raise  # to be seen in full


def _run(arguments: Sequence[str]) -> int:
    from adawise.commands import run_command

    try:
        return run_command(arguments, environ=os.environ, folder=Path.cwd())
    finally:
        sys.stdout.flush()  # not left to the end of the interpreter, which would complain if nobody reads any more


def _has_reader() -> bool:
    """Whether somebody still reads the output proper."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except io.UnsupportedOperation:  # it is not a file
        return True
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _print(message: str, code: int) -> int:
    say(f"adawise: {message}", sys.stderr)
    return code


def _is_logged(error: BaseException, cause: str, remedy: str, code: int, *, is_fault: bool = False) -> bool:
    """Log the error as the last event where programs read the error output; whether that was done."""
    logs = sys.modules.get("adawise.logs")  # loaded with the settings: without them nothing says who reads it
    return logs is not None and bool(
        logs.log_end(type(error).__name__, cause, remedy, exit_code=code, fault=error if is_fault else None)
    )


if __name__ == "__main__":
    program()
