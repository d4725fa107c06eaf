"""A forked command is what a started one would be: output, exit code, signals, folder, environment and input."""

from __future__ import annotations

import atexit
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import adawise.__main__
from tests.deadlines import DEADLINE_S
from tests.processes import ROOT, Command, Started, run
from tests.worker.prepared import Prepared


@pytest.mark.parametrize(
    "arguments", [("--version",), ("status", "--nonsense"), ("verify", "nowhere"), ("config", "show")]
)
def test_it_says_and_ends_as_the_interpreter_that_is_started(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "adawise.toml").write_text("[kafka]\ntopic = 'yard'\n", encoding="utf-8")
    environment = {"PATH": "", "ADAWISE_KAFKA__GROUP": "of-the-environment", "HOME": str(tmp_path)}
    call = [sys.executable, "-m", "adawise", *arguments]
    expected = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    found = run(*arguments, cwd=tmp_path, env=environment, timeout=DEADLINE_S)
    assert (found.returncode, found.stdout, found.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_a_signal_ends_it_and_a_time_out_leaves_it(tmp_path: Path) -> None:
    call = ["record", "-o", "out", "--follow", "--kafka.topic", "frames", "--kafka.bootstrap-servers", "127.0.0.1:1"]
    with Command(*call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert "recording" in process.stdout.readline()  # it waits for a broker
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_S) == -signal.SIGKILL


def test_a_block_that_is_left_by_an_error_does_not_wait_for_what_it_started(tmp_path: Path) -> None:
    calls: list[Callable[[], Started]] = [
        lambda: Started([sys.executable, "-c", "import time; time.sleep(3600)"]),
        lambda: Command("record", "-o", "out", "--follow", "--kafka.bootstrap-servers", "127.0.0.1:1", cwd=tmp_path),
    ]
    for start in calls:
        with pytest.raises(AssertionError, match="of the test"), start() as process:
            raise AssertionError("of the test")
        assert process.returncode == -signal.SIGKILL


def test_what_nobody_reads_any_more_ends_it_without_a_traceback() -> None:
    with Command("config", "show", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(DEADLINE_S) in (0, 1)


def broken() -> None:
    """Break the program by a fault of ours."""
    vars(adawise.__main__)["main"] = lambda: 1 // 0


def threaded() -> None:
    """Leave a thread that has something to say at the end, not in UTF-8."""

    def last_words() -> None:
        threading.main_thread().join()
        print("the thread is done", flush=True)
        print("\udcff", file=sys.stderr)

    def main() -> int:
        threading.Thread(target=last_words).start()
        return 0

    vars(adawise.__main__)["main"] = main


FOUND = "print(logging.root.handlers, logging.root.level, sys.stdout.line_buffering, sys.stderr.line_buffering)"


def looking() -> None:
    """Print what a command finds of logs and streams, and end."""

    def main() -> int:
        exec(FOUND, {"logging": logging, "sys": sys})
        return 0

    vars(adawise.__main__)["main"] = main


def with_a_library() -> None:
    """Have something to do at the exit, as libraries do that are imported after the program began."""
    atexit.register(print, "the library ends")


def prepared(before: Callable[[], None]) -> tuple[int, str, str]:
    """Return how a forked command ended that was prepared so, and its output and error output."""
    with Prepared(before, "config", "show", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def test_a_fault_of_ours_is_a_traceback_on_the_error_output() -> None:
    code, _, err = prepared(broken)
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_threads_that_are_left_come_to_their_end() -> None:
    assert prepared(threaded) == (0, "the thread is done\n", "\\udcff\n")


def test_nothing_of_the_server_is_in_the_logs_and_streams_of_a_command() -> None:
    code = f"import logging, sys; import adawise.__main__; {FOUND}"
    call = [sys.executable, "-E", "-c", code]  # -E: whoever runs the tests may have asked for streams without buffers
    expected = subprocess.run(call, capture_output=True, text=True, timeout=DEADLINE_S)
    assert prepared(looking) == (0, expected.stdout, "")


def test_what_libraries_do_at_the_exit_is_done_before_the_program_ends_itself() -> None:
    code, out, _ = prepared(with_a_library)
    assert (code, out.splitlines()[-1]) == (0, "the library ends")


SERVED = """
import sys; sys.path.insert(0, {root!r})
from tests import processes
processes.PRELOADED = ("tests.last",)
print(processes.run("--version"))
"""


def test_a_server_that_is_first_needed_in_another_folder_imports_what_commands_need(tmp_path: Path) -> None:
    call = [sys.executable, "-c", SERVED.format(root=str(ROOT))]
    found = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (found.returncode, found.stderr) == (0, "")
    assert f"returncode=0, stdout='adawise {version('adawise')}" in found.stdout
