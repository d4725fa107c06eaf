"""The program's entry point: errors become an exit code and a message that ends in the remedy.

0 done, 1 failed, 2 wrong settings or usage, 3 something was found, 130 interrupted.

Where other programs read the error output (`logs.configure`), the message is an event, the last line of the log.
"""

from __future__ import annotations

# Only what the interpreter has loaded already: until `program` is called, a signal ends the process as any Python
# program, by a traceback.
import atexit
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from typing import NoReturn

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def program() -> NoReturn:
    """Run `main`, and end the process without the interpreter's teardown, in which native threads may abort.

    Arrow's threads free what they have read, sometimes a moment after their reader has its result, and ask for the
    interpreter's lock to do so. Before Python 3.14 an interpreter that is being torn down ends a thread that asks, and
    C++ answers that with SIGABRT, after all work was done. CUDA may abort too when it frees memory of a lost card. So
    nothing is torn down: the last exit function ends the process.
    """
    last = _LastExitFunction()
    atexit.register(last)  # before all others, so called after them
    try:
        _open_closed_streams()
        _handle_signals()
        last.code = main()
        from adawise.app.signals import end_at_once

        end_at_once(last)  # from here on only threads of libraries are awaited
        doctor = sys.modules.get("adawise.doctor.checks")  # loaded by the command `doctor` only
        if doctor is not None and doctor.is_checking():
            last()  # otherwise the interpreter would wait for ever for library threads of a check that hangs
    except SystemExit as ended:  # raised by the parser
        last.code = int(ended.code or 0)
        raise
    except KeyboardInterrupt:  # outside of `main`, or again while it handled the first one
        last.code = INTERRUPTED
        sys.stderr.write("adawise: interrupted\n")
    sys.exit(last.code)


def _open_closed_streams() -> None:
    """Discard what is written to a standard stream that was closed at the start, as by `>&-`.

    Python has None in its place. Its number is free, and the next file to be opened would get what libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in this order, each gets its own number
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - it stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _handle_signals() -> None:
    """Let signals end the start of a service with 0; the others are interrupted, as `main` reports."""
    from adawise.cli import begins_at
    from adawise.cli.services import flags_of, runs_until_stopped

    words = sys.argv[1 + begins_at(sys.argv[1:]) :]
    if words and runs_until_stopped(words[0], flags_of(words)):
        from adawise.app.signals import end_start_at_once

        end_start_at_once()
    import threading

    threading.excepthook = _thread_failed


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Show a fault that ended a thread: as an event where programs read the error output, else as a traceback."""
    logs = sys.modules.get("adawise.logs")
    name = "" if failed.thread is None else failed.thread.name
    if logs is None or failed.exc_value is None or not logs.log_thread(name, failed.exc_value):
        import threading

        threading.__excepthook__(failed)


class _LastExitFunction:
    def __init__(self) -> None:
        self.code = FAILED  # stays if `main` raises: a fault of the program, which the interpreter shows

    def __call__(self) -> None:
        from contextlib import suppress

        for stream in (sys.stdout, sys.stderr):
            # Its reader has ended, or it is closed, or a signal came while it was flushed.
            with suppress(OSError, ValueError, RuntimeError):
                stream.flush()
        os._exit(self.code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. `arguments` replace those of the process."""
    # OpenMP reads this when torch is loaded. Otherwise its threads spin while they wait for one another, and take the
    # cores from the decode pool and other processes: on two busy cores a forward was three times slower (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Pydantic searches all installed packages for its plug-ins, which takes some .03 s of each command.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if (logs := sys.modules.get("adawise.logs")) is not None:
        logs.begin_program()
    try:
        return _code_of(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as error:
        return INTERRUPTED if _is_logged(error, "", "", INTERRUPTED) else _print("interrupted", INTERRUPTED)


def _code_of(arguments: Sequence[str]) -> int:
    """Return the exit code of a command line; report the error by which it ends."""
    from adawise.errors import AdawiseError, SettingsError

    try:
        return _run(arguments)
    except AdawiseError as error:
        code = WRONG_USAGE if isinstance(error, SettingsError) else FAILED
        return code if _is_logged(error, *error.cause_and_remedy, code) else _print(f"{error}", code)
    except BrokenPipeError:
        if _has_reader():
            raise  # another pipe broke
        # The output's reader, such as `head`, has ended. The interpreter must not try to write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # likely a mistake in a file's name
            cause, remedy = f"{error.filename}: {error.strerror}", "correct the path or its permissions"
            return FAILED if _is_logged(error, cause, remedy, FAILED) else _print(f"{cause}; {remedy}", FAILED)
        cause = f"{type(error).__name__}: {error}"
        if _is_logged(error, cause, "Report it, with the lines before it.", FAILED, is_fault=True):
            return FAILED
        raise  # people see the whole traceback


def _run(arguments: Sequence[str]) -> int:
    from pathlib import Path

    from adawise.cli.program import run_command

    try:
        return run_command(arguments, environ=os.environ, folder=Path.cwd())
    finally:
        sys.stdout.flush()  # the interpreter's own flush at its end would complain if the reader has ended


def _has_reader() -> bool:
    """Return True if the standard output still has a reader."""
    import io
    import select

    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except io.UnsupportedOperation:  # it has no file descriptor
        return True
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _print(message: str, code: int) -> int:
    from adawise.console import print_text

    print_text(f"adawise: {message}", sys.stderr)
    return code


def _is_logged(error: BaseException, cause: str, remedy: str, code: int, *, is_fault: bool = False) -> bool:
    """Log the error as the last event where programs read the error output; return True if that was done."""
    logs = sys.modules.get("adawise.logs")  # loaded with the settings, which say whether programs read the error output
    return logs is not None and bool(
        logs.log_end(type(error).__name__, cause, remedy, exit_code=code, fault=error if is_fault else None)
    )


if __name__ == "__main__":
    program()
