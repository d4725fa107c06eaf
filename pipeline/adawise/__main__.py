"""The program: errors become an exit code and a message that ends in the remedy.

0 done, 1 failed, 2 wrong settings or usage, 3 something was found, 130 interrupted.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
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
    try:
        last.code = main()
        doctor = sys.modules.get("adawise.commands.doctor.checks")  # where it was asked for
        if doctor is not None and doctor.is_looking():
            last()  # or threads that a library has for it, such as a pool's, would be waited for, for ever
    except SystemExit as ended:  # the parser does that
        last.code = int(ended.code or 0)
        raise
    sys.exit(last.code)


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
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except SettingsError as error:
        return _end(f"{error}", WRONG_USAGE)
    except AdawiseError as error:
        return _end(f"{error}", FAILED)
    except KeyboardInterrupt:
        return _end("interrupted", INTERRUPTED)
    except BrokenPipeError:
        if _has_reader():
            raise  # another pipe broke
        # whoever read the output went away, such as `head`; the interpreter must not try to write the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.filename is None:
            raise  # not a mistake in the name of a file: a fault of ours, to be seen in full
        return _end(f"{error.filename}: {error.strerror}; correct the path or its permissions", FAILED)


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


def _end(message: str, code: int) -> int:
    say(f"adawise: {message}", sys.stderr)
    return code


if __name__ == "__main__":
    program()
