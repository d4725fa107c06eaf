"""The check of cameras: try each once, and print what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from adawise.app.signals import INTERRUPTED, stop_signals
from adawise.console import paper
from adawise.settings import Settings
from adawise.text import as_size
from adawise_cameras.app import cameras_of
from adawise_cameras.camera import CameraSpec
from adawise_cameras.child import Child
from adawise_cameras.watch import CAUSE_WITHIN_S, no_process
from adawise_cameras.wire import CameraFrame, End, Ended, Opened, Silence

_AT_ONCE = 16  # cameras that are tried at the same time


@dataclass(frozen=True, slots=True)
class _Tried:
    camera: CameraSpec
    what: str  # the stream, as its process describes it; "" if it was not opened
    came: str  # size and clock of the first frame; "" if none came
    why: str  # why no frame came; "" if one did


def check(settings: Settings, file: str) -> int:
    """Try each camera once, and print a table of the results.

    Returns:
        0 if every camera gave a frame, 1 if one gave none, 130 if the check was interrupted.
    """
    cameras = cameras_of(settings, file)
    open_now: set[Child] = set()

    def end_all() -> None:
        for child in list(open_now):
            child.kill()

    with stop_signals(end_all) as should_stop, ThreadPoolExecutor(_AT_ONCE) as pool:
        tried = list(pool.map(lambda camera: _try(camera, open_now, should_stop), cameras))
    if should_stop():
        return INTERRUPTED
    _show(tried)
    return 1 if any(each.why for each in tried) else 0


def _try(camera: CameraSpec, open_now: set[Child], should_stop: Callable[[], bool]) -> _Tried:
    """Read the first frame of a camera.

    Meanwhile its process is in `open_now`, so that the handler of SIGTERM and SIGINT can kill it.
    """
    what = ""
    if should_stop():
        return _Tried(camera, what, "", "stopped before it was tried")
    try:
        child = Child(camera)
    except OSError as error:
        return _Tried(camera, what, "", no_process(error))
    open_now.add(child)
    try:
        while not should_stop():  # the signal may have come before the process was in `open_now`
            match child.next(camera.timeout_s + CAUSE_WITHIN_S):
                case Opened(description):
                    what = description
                case CameraFrame(data, _, clock):
                    return _Tried(camera, what, f"{as_size(len(data))}, clock: {clock}", "")
                case Ended(why, end):
                    return _Tried(camera, what, "", why if end != End.REACHED else "it has no frames.")
                case _:
                    pass
    except Silence:
        return _Tried(
            camera, what, "", f"no frame within {camera.timeout_s:g} s (timeout_s). Check that the camera is on."
        )
    finally:
        open_now.discard(child)
        child.close()
    return _Tried(camera, what, "", "stopped before it was tried")


def _show(tried: Sequence[_Tried]) -> None:
    table = Table("camera", "source", "stream", "first frame", box=None)
    for each in tried:
        cells = (each.camera.stream_id, each.camera.address.shown, each.what, each.came or each.why)
        table.add_row(*(Text(cell) for cell in cells))
    paper(sys.stdout).print(table)
