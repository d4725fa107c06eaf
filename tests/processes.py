"""Commands as processes of their own, forked from a server that has imported everything once.

What is tested of a process is its exit code, its signals, its pipes or its terminal. Starting an interpreter that
imports torch and open_clip costs 5 to 12 s of the processor each time, and a fork some hundredths. Where the start of
the interpreter is the subject (an import that is interrupted, `python -W error`), a test uses `subprocess` itself.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest
from typing_extensions import override

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
PRELOADED = ("tests.last", "tests.worker.process", "tests.preloaded")
ROOT = Path(__file__).parents[1]
_STREAMS = (("stdin", "r", "strict"), ("stdout", "w", "strict"), ("stderr", "w", "backslashreplace"))


def in_environment(work: Callable[..., object], environment: Mapping[str, str], *arguments: object) -> object:
    """Call what a fork is to do, in the environment of its parent: the server keeps that of when it was started."""
    os.environ.clear()
    os.environ.update(environment)
    return work(*arguments)


def start_server(*modules: str) -> None:
    """Start the server of this process, with few threads in what it imports, and with these modules.

    A server that runs already stays as it is: its forks import these modules themselves.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOADED, *modules])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        # Python 3.11 does not hand `sys.path` to the server, which passes over what it cannot import: so a server that
        # is first needed by a test in another working folder would start without these modules.
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        forkserver.ensure_running()


class Started(subprocess.Popen[str]):
    """A process of a test, as `subprocess.Popen`: a block that is left by an error kills it and does not wait."""

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


class Command(Started):
    """`adawise ARGUMENTS`, as `subprocess.Popen` would start it, by a fork of the server.

    The parent of the process is the server, so its end is learned from the pipe that multiprocessing keeps.

    Args:
        arguments: of the command line, without the name of the program.
        cwd: the folder in which it runs.
        env: its whole environment; None: that of this process.
        streams: `stdin`, `stdout`, `stderr` as for `subprocess.Popen`; text.
    """

    _process: ForkServerProcess

    def __init__(
        self,
        *arguments: str | os.PathLike[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        **streams: Any,
    ) -> None:
        start_server()
        super().__init__([*arguments], cwd=cwd, env=env, text=True, **streams)

    def _execute_child(
        self,
        args: list[str],
        executable: object,
        preexec_fn: object,
        close_fds: object,
        pass_fds: object,
        cwd: Path | None,
        env: Mapping[str, str] | None,
        *more: Any,
    ) -> None:
        # After startupinfo, creationflags and shell come the ends of three pipes, -1 where there is none.
        stdin, ours_in, ours_out, stdout, ours_err, stderr = more[3:9]
        ends = [(0, stdin), (1, stdout), (2, stderr)]
        given = [Connection(os.dup(number if end == -1 else end)) for number, end in ends]
        context = multiprocessing.get_context("forkserver")
        environment = dict(os.environ if env is None else env)
        where = str(cwd or Path.cwd())
        self._process = context.Process(target=_become, args=([*map(str, args)], where, environment, given))
        sys.audit("tests.fork")
        try:
            self._process.start()
        finally:
            for end in given:
                end.close()
            # what Popen opened for the child: pipes, files of DEVNULL; not what the test handed over
            self._close_pipe_fds(stdin, ours_in, ours_out, stdout, ours_err, stderr)  # type: ignore[attr-defined]
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._child_created = True

    def _internal_poll(self, **_: object) -> int | None:
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        self._process.join(timeout)
        if self._internal_poll() is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def run(
    *arguments: str | os.PathLike[str],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    input: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as `subprocess.run(..., capture_output=True, text=True)`."""
    streams = {"stdin": subprocess.PIPE if input is not None else subprocess.DEVNULL}
    with Command(*arguments, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _become(arguments: list[str], folder: str, environment: dict[str, str], streams: list[Connection]) -> None:
    """Be `adawise ARGUMENTS`, in the forked process."""
    for number, ((name, mode, errors), stream) in enumerate(zip(_STREAMS, streams, strict=True)):
        os.dup2(stream.fileno(), number)
        stream.close()
        # As the interpreter opens them: the error output by lines always, the others where they are a terminal.
        buffering = 1 if name == "stderr" or os.isatty(number) else -1
        opened = os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False, buffering=buffering)
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["adawise", *arguments]
    if PRELOADED[0] not in sys.modules:  # a server passes over what it cannot import
        raise RuntimeError(f"the server that processes are forked from has not imported {PRELOADED[0]}")
    import adawise.__main__ as entry
    from tests.last import LAST

    # What the program registers first comes last, after the exit functions of the libraries that are loaded already.
    vars(entry)["atexit"] = SimpleNamespace(register=lambda function: setattr(LAST, "function", function))
    try:
        entry.program()
    except SystemExit:
        raise
    except BaseException:  # the interpreter would print it before its exit functions, of which one ends the process
        traceback.print_exc()
        raise
    finally:  # what an interpreter does at its end; multiprocessing leaves the second out, and the first is before it
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
