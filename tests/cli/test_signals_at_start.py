"""Signals before a command has loaded its libraries: what a service is promised holds, and nobody sees a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adawise.cli import command_of
from adawise.cli.parser import parse
from adawise.cli.services import flags_of, runs_until_stopped

SIGNALLED = """
import _signal, os, sys

# As from a terminal: a shell starts what runs in its background, such as these tests, with SIGINT ignored.
_signal.signal(_signal.SIGINT, _signal.default_int_handler)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            sys.stderr.write("signalled\\n")
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Finder())
sys.argv[:] = ["adawise", *{arguments!r}]
from adawise.__main__ import program
sys.exit(program())
"""
"""The console script of an installation, in a process that gets the signal when a module begins to load."""

LOADED = "import sys; before = {*sys.modules}; import adawise.__main__; print(*sorted({*sys.modules} - before))"


def signalled(folder: Path, number: signal.Signals, module: str, *arguments: str) -> tuple[int, str]:
    """Return the exit code of `adawise ARGUMENTS`, and what it said after the signal at the import of the module."""
    code = SIGNALLED.format(module=module, number=int(number), arguments=arguments)
    environment = os.environ | {"ADAWISE_SINK__ROOT": str(folder / "root")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    before, sent, after = done.stderr.partition("signalled\n")
    assert sent, f"{module} was not loaded: {before}"
    return done.returncode, after


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["run"], "threading"),  # the first module after the handlers
        (["run"], "adawise.errors"),
        (["--config", "adawise.toml", "run"], "pydantic"),
        (["run"], "structlog"),
        (["cameras", "cameras.toml"], "adawise.cli.parser"),
        (["record", "-o", "recording", "--follow"], "adawise.settings.reading"),
        (["record", "--from", "latest", "-o", "recording"], "adawise.settings.reading"),
        (["record", "-o", "recording", "--from=latest"], "adawise.settings.reading"),
        (["labels", "root", "--follow"], "adawise.app.recording"),
        (["cameras", "check"], "adawise.cli.parser"),  # a file with the name of an option
    ],
)
@pytest.mark.cases("worker", every=3)
def test_a_service_that_is_stopped_while_it_starts_ends_with_0_and_says_nothing(
    arguments: list[str], module: str, number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "adawise.toml").touch()
    assert signalled(tmp_path, number, module, *arguments) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["verify", "root"], "adawise.cli"),
        (["verify", "root"], "adawise.console"),
        (["verify", "root"], "adawise.cli.program"),
        (["verify", "root"], "pydantic"),
        (["verify", "root"], "pyarrow"),
        (["record", "-o", "recording"], "adawise.settings.reading"),
        (["record", "-o", "recording", "--from", "latest", "--max-seconds", "600"], "adawise.settings.reading"),
        (["record", "-o", "recording", "--from", "latest", "--max_bytes=9"], "adawise.settings.reading"),
        (["record", "-o", "latest", "--from", "earliest"], "adawise.settings.reading"),
        (["cameras", "cameras.toml", "--check"], "adawise.cli.parser"),
    ],
)
def test_a_command_with_an_end_that_is_interrupted_while_it_starts_says_so_without_a_traceback(
    arguments: list[str], module: str, tmp_path: Path
) -> None:
    assert signalled(tmp_path, signal.SIGINT, module, *arguments) == (130, "adawise: interrupted\n")


def test_an_interrupt_after_the_work_does_not_change_the_exit_code(tmp_path: Path) -> None:
    """The interpreter calls exit functions and waits for threads, of which some belong to libraries."""
    code = (
        "import atexit, os, sys, signal\n"
        "from adawise.__main__ import program\n"
        "sys.argv[:] = ['adawise', '--version']\n"
        "from adawise.cli import program as commands\n"
        "run = commands.run_command\n"
        "def ran(*arguments, **options):\n"
        "    atexit.register(signal.raise_signal, signal.SIGINT)\n"
        "    return run(*arguments, **options)\n"
        "commands.run_command = ran\n"
        "program()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("adawise ")


def test_before_the_program_can_handle_signals_hardly_a_module_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "adawise", "adawise.__main__", "atexit"}


LINES = (
    "run",
    "verify root",
    "cameras cameras.toml",
    "cameras cameras.toml --check",
    "labels root --follow",
    "labels root",
    "record --follow -o recording",
    "record -o recording",
    "record -o recording --from earliest",
    "record -o recording --from latest",
    "record -o recording --from=latest --kafka.topic yard",
    "record -o recording --from latest --until 1h",
    "record -o recording --from latest --max_messages=7",
    "record -o recording --max-seconds 600 --from latest",
    "record -o recording --from latest --max-bytes 9",
    "record -o recording --prune-only",
)


@pytest.mark.parametrize("line", LINES)
def test_a_command_logs_as_a_service_if_signals_end_its_start_as_a_service(line: str) -> None:
    name, *words = line.split()
    parsed = parse(command_of(name), words)
    assert not parsed.mistakes
    assert command_of(name).is_service(parsed.options) == runs_until_stopped(name, flags_of(words))
