"""A reader in a process of its own, which is killed at the end in any case.

These processes are forked from one that has loaded FFmpeg's libraries (a `forkserver`), so that they share them: 20
cost what 3 separate ones would. No part of a camera's address is in a command line, where `ps` shows it.
"""

from __future__ import annotations

import errno
import multiprocessing
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from adawise_cameras.camera import CameraSpec
from adawise_cameras.wire import End, Ended, NotAReader, WireMessage, read

_READER = "adawise_cameras.reader"
_FORKS = multiprocessing.get_context("forkserver")
_ONE_AT_A_TIME = threading.Lock()  # starting and reaping: `multiprocessing` has one list of all children
_REAP_S = 5.0


class Child:
    """One connection of a camera. Any thread may call `kill`; all else belongs to one thread.

    Raises:
        OSError: no process can be started: there are too many, or the one that forks them was ended, as by a signal to
            all processes of a service.
    """

    def __init__(self, camera: CameraSpec) -> None:
        self._camera = camera
        _FORKS.set_forkserver_preload([_READER])
        with _ONE_AT_A_TIME:
            self._pipe, theirs = _FORKS.Pipe(duplex=False)
            control, self._control = _FORKS.Pipe(duplex=False)
            self._process: ForkServerProcess = _FORKS.Process(
                target=_run, args=(camera, theirs, control), name=f"camera {camera.stream_id}", daemon=True
            )
            try:
                self._process.start()
            except BaseException as error:
                _close(self._pipe, self._control)
                if isinstance(error, EOFError):
                    raise ChildProcessError(errno.ECHILD, "the process that starts readers ended") from error
                raise
            finally:
                _close(theirs, control)

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    def next(self, timeout_s: float) -> WireMessage:
        """Return the next report, or how the reader ended, every time from then on; raise `Silence`."""
        try:
            received = read(self._pipe.fileno(), timeout_s=timeout_s, max_frame_bytes=self._camera.max_frame_bytes + 1)
        except NotAReader:
            return Ended(
                "its reader sent an invalid message and was stopped. Report it, with the camera's model.",
                End.FAILED,
            )
        return Ended(f"its reader {self._fate()}", End.FAILED) if received is None else received

    def kill(self) -> None:
        """Kill the process now."""
        with suppress(OSError, ValueError):
            self._process.kill()

    def close(self) -> None:
        """Kill the process, and free everything."""
        self.kill()
        with _ONE_AT_A_TIME:
            self._process.join(_REAP_S)
            _close(self._pipe, self._control)
            with suppress(ValueError):  # it is still running, and ends with this process
                self._process.close()

    def _fate(self) -> str:
        with _ONE_AT_A_TIME:
            self._process.join(_REAP_S)
            code = self._process.exitcode
        if code is None or code >= 0:
            return f"ended ({code}). Report it, with the camera's model."
        return f"was killed by {signal.Signals(-code).name}: the camera's data is damaged, or memory is short."


def _run(camera: CameraSpec, out: Connection, control: Connection) -> None:
    """Run in the new process: the import is here, so that no other process loads FFmpeg's libraries."""
    from adawise_cameras.reader import run

    run(camera, out, control)


def _close(*ends: Connection) -> None:
    for end in ends:
        end.close()
