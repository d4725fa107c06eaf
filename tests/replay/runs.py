"""Runs of the real program for the tests of this folder: a process for what is live or killed, a call for the rest."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.dataset as ds

from adawise.__main__ import main
from adawise.sink.schemas import PREDICTED_AT
from adawise.store.store import open_store
from tests.deadlines import DEADLINE_S
from tests.models import PairFolder
from tests.processes import Command
from tests.replay.street import BATCH_IMAGES, LIMITS, MAX_AGE_S
from tests.sink.stored import read_predictions
from tests.worker.prepared import Prepared

DIFFERS = ["milliseconds", "segment"]  # between two runs: how long it took, and where segments were cut


@dataclass(frozen=True)
class Recorded:
    """A topic that was classified live and then recorded; `folder` holds adawise.toml."""

    bootstrap_servers: str
    topic: str
    folder: Path
    live: Path
    recording: Path
    messages: int
    rows: int


def write_settings(folder: Path, bootstrap_servers: str, topic: str, pair: PairFolder) -> None:
    """An adawise.toml; one thread, so that a process of its own and this one compute alike."""
    (folder / "adawise.toml").write_text(
        f"""
[kafka]
bootstrap_servers = "{bootstrap_servers}"
topic = "{topic}"
group = "{topic}"
session_timeout_ms = 6000  # the embedded broker makes a group wait for a part of it
[model]
architecture = "{pair.theta_0}"
theta_0 = "{pair.theta_0}"
theta_1 = "{pair.theta_1}"
classes = "{pair.classes}"
templates = "{pair.templates}"
precision = "fp32"
device = "cpu"
chunk_rows = 4
threads = 1
[search]
explore_images = 4
explore_every = 2
min_images = 3
[batch]
images = {BATCH_IMAGES}
max_age_s = {MAX_AGE_S}
[decode]
max_message_bytes = {LIMITS.max_message_bytes}
max_rows = {LIMITS.max_rows}
max_pixels = {LIMITS.max_pixels}
[sink]
root = "live"
flush_rows = 48
flush_age_s = 0.5
"""
    )


def adawise(folder: Path, *arguments: str) -> int:
    """A command, in this process: its exit code."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return main(arguments)
    finally:
        os.chdir(before)


@contextmanager
def process(
    folder: Path, *arguments: str, pipe_bytes: int = 0, before: Callable[[], object] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command as a process, its log on a pipe; killed if it is still there at the end.

    `pipe_bytes`: room for a log that is not read: a process with more to tell waits, wherever it is then. `before`: a
    function of a module, called first in the process.
    """
    command = Command if before is None else partial(Prepared, before)
    started = command(*arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        if pipe_bytes:
            assert started.stderr is not None
            fcntl.fcntl(started.stderr, fcntl.F_SETPIPE_SZ, pipe_bytes)
        yield started
    finally:
        started.kill()
        started.communicate()


def events(log: IO[str] | None) -> Iterator[dict[str, Any]]:
    """The log's events as they come; lines that are none (of the progress) are left out."""
    assert log is not None
    for line in log:
        if line.startswith("{"):
            yield json.loads(line)


def wait_for_rows(log: Iterator[dict[str, Any]], rows: int) -> list[dict[str, Any]]:
    """Read the log until segments with so many rows were committed; what was read."""
    seen: list[dict[str, Any]] = []
    for event in log:
        seen.append(event)
        if sum(each["rows"] for each in seen if each["event"] == "segment_committed") >= rows:
            return seen
    raise AssertionError(f"the worker ended before {rows} rows; its last words: {seen[-3:]}")


def end(running: subprocess.Popen[str]) -> tuple[int, str]:
    """SIGTERM: the exit code, and what it says at the end on the output proper."""
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=DEADLINE_S)
    return running.returncode, out


def recorded_messages(recording: Path) -> int:
    """How many messages a recording holds."""
    return int(ds.dataset(recording, format="parquet", partitioning=None, exclude_invalid_files=True).count_rows())


def predictions(root: Path | str) -> pa.Table:
    """All rows of a folder or URL by row id."""
    return read_predictions(open_store(str(root))).drop_columns([PREDICTED_AT]).sort_by("row_id")


def traces(root: Path) -> list[dict[str, Any]]:
    """All traces by partition, stream and batch, without what two runs need not share."""
    table = ds.dataset(root / "traces", format="parquet", partitioning=None).to_table().drop_columns(DIFFERS)
    order = [(name, "ascending") for name in ("partition", "stream_id", "batch_number")]
    rows: list[dict[str, Any]] = table.sort_by(order).to_pylist()
    return rows


def assert_same(root: Path, live: Path) -> None:
    """Two outputs hold the same predictions and traces, bit by bit."""
    ours, theirs = predictions(root), predictions(live)
    for name in theirs.column_names:  # a column at a time, so that a failure says which
        assert repr(ours[name].to_pylist()) == repr(theirs[name].to_pylist()), name  # nan equals nan
    for ours_, theirs_ in zip(traces(root), traces(live), strict=True):
        assert repr(ours_) == repr(theirs_)
