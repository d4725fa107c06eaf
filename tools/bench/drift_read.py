"""Questions to the traces of a year of 200 cameras: wall seconds, processor seconds, and the memory of a fresh process.

The year is made first (`python -m tools.drift.year`: minutes, 4.5 GB in the temporary folder), or is found where
`ADAWISE_YEAR` says. Each question is asked in a process of its own, after one that asked the same: of files in memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from adawise.app.machine import usable_cores
from adawise.output.read.rows import Rows, read_traces
from tools.drift.year import make
from tools.drift.year_rows import Year
from tools.drift.year_script import BEGIN

_HOURLY = "stream_id, epoch_us(time) // 3_600_000_000 as hour"
_WEEK = (BEGIN + timedelta(days=100), BEGIN + timedelta(days=107))
_DAY = (BEGIN + timedelta(days=10), BEGIN + timedelta(days=11))
_CAMERA = "camera-0107"


def main() -> None:
    """Print a line for each question."""
    given = os.environ.get("ADAWISE_YEAR")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(given) if given else Path(folder) / "year"
        if not given:
            started = time.perf_counter()
            make(root, Year(), processes=usable_cores())
            print(f"made in {time.perf_counter() - started:.0f} s")
        files = read_traces(root).files
        size_mib = sum(os.path.getsize(file) for file in files) / 2**20
        print(f"{len(files)} files, {size_mib:.0f} MiB")
        for question in QUESTIONS:
            command = [sys.executable, "-m", "tools.bench.drift_read", str(root), question]
            for turn in range(2):
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                if turn:
                    print(f"{question}: {output}", end="")


def _hourly(rows: Rows) -> int:
    """Alpha per camera per hour, by DuckDB; how many of them."""
    relation = rows.relation()
    return int(relation.aggregate(f"{_HOURLY}, avg(alpha) as alpha, count(*) as batches").to_arrow_table().num_rows)


def _year(root: str) -> int:
    return _hourly(read_traces(root, columns=["stream_id", "time", "alpha"]))


def _camera(root: str) -> int:
    return _hourly(read_traces(root, _CAMERA, *_WEEK, columns=["stream_id", "time", "alpha"]))


def _day(root: str) -> int:
    return _hourly(read_traces(root, None, *_DAY, columns=["stream_id", "time", "alpha"]))


def _camera_by_arrow(root: str) -> int:
    return int(read_traces(root, _CAMERA, *_WEEK, columns=["time", "alpha"]).table().num_rows)


def _batches(root: str) -> int:
    return sum(batch.num_rows for batch in read_traces(root, columns=["time", "alpha"]).batches())


def _count(root: str) -> int:
    return len(read_traces(root))


def _by_calendar(root: str) -> int:
    """As `_year`, with a function that must ask a calendar for each row."""
    relation = read_traces(root, columns=["stream_id", "time", "alpha"]).relation()
    return int(
        relation.aggregate("stream_id, date_trunc('hour', time) as hour, avg(alpha) as alpha").to_arrow_table().num_rows
    )


QUESTIONS: dict[str, Callable[[str], int]] = {
    "rows, by Arrow": _count,
    "alpha per camera per hour of the year": _year,
    "the same by date_trunc": _by_calendar,
    "of one camera's week": _camera,
    "of one day of all": _day,
    "one camera's week, every batch, by Arrow": _camera_by_arrow,
    "every batch of the year, time and alpha, by Arrow's batches": _batches,
}


def ask(root: str, question: str) -> None:
    """Print what one question costs here."""
    started, busy = time.perf_counter(), time.process_time()
    answers = QUESTIONS[question](root)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - busy
    print(f"{answers} in {wall_s:.2f} s ({cpu_s:.2f} s of the processor), peak {_peak_mib():.0f} MiB")


def _peak_mib() -> float:
    """Of this process; `ru_maxrss` would begin with what its parent had when it forked."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    ask(*sys.argv[1:3])
