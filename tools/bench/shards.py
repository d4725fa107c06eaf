"""What shards of a replay cost: two processes against one; planning; and 10, 100 and 1,000 tiny shards.

Two processes: ViT-B-32 at a fixed alpha, JPEGs of 640 x 480 of 8 cameras in two partitions, each process with one
thread on a core of its own, the commands as a user gives them. Tiny shards: the demo's pair, a camera for each shard,
four images each, in 8 partitions, all of them in this process.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import adawise
from adawise.__main__ import main as program
from adawise.bench.worker import jpegs
from adawise.demo.main import PAIR
from adawise.demo.scene import StreetCamera
from adawise.demo.weather import PRESETS
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message
from adawise.sink import layout
from tools.bench.worker import write_pair

IMAGES = int(os.environ.get("BENCH_IMAGES", "1000"))
TINY = [int(each) for each in os.environ.get("BENCH_SHARDS", "10,100,1000").split(",")]
PARTITIONS, IMAGES_A_CAMERA = 8, 4
_TIMED_SHARDS = 10
_JPEG = (("content-type", b"image/jpeg"),)


def main() -> None:
    """Print both parts."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        two_processes(Path(name))
    for shards in TINY:
        with tempfile.TemporaryDirectory() as name:
            tiny(Path(name), shards)


def record(folder: Path, partitions: int, cameras: int, images: int, jpeg: Callable[[int], bytes]) -> str:
    """Write a recording in which the cameras take turns, and return its folder."""
    policy = FilePolicy(max_messages=4_096, max_bytes=1 << 26, max_age_s=1e9)
    identity = TopicIdentity("bench", "shards", partitions)
    recorder = Recorder(str(folder), topic="frames", identity=identity, policy=policy, max_buffered_bytes=1 << 30)
    for partition in range(partitions):
        names = [f"camera-{number}".encode() for number in range(partition, cameras, partitions)]
        sent = [
            Message(
                "frames", partition, n, names[n % len(names)], jpeg(n), _JPEG, timestamp_ms=1_767_225_600_000 + 40 * n
            )
            for n in range(images * len(names))
        ]
        recorder.begin(sent[0].topic_partition, recorder.folder.begin(sent[0].topic_partition, 0))
        recorder.append(sent, 0.0)
    recorder.flush()
    return str(folder)


def two_processes(folder: Path) -> None:
    """Print the time of one process, of two with a shard each, of planning, and of reading the shards as one."""
    write_pair(folder)
    values = jpegs()
    recording = record(folder / "recording", 2, 8, IMAGES // 8, lambda n: values[n % len(values)])
    model = [
        f"--model.{each}={folder / file}"
        for each, file in (
            ("theta-0", "theta_0.safetensors"),
            ("theta-1", "theta_1.safetensors"),
            ("classes", "classes.txt"),
            ("cache", "heads"),
        )
    ]
    options = [
        *model,
        "--model.architecture=ViT-B-32",
        "--model.threads=1",
        "--decode.threads=1",
        "--search.strategy=fixed",
    ]
    whole, halves = folder / "whole", folder / "halves"
    serve = ["replay", recording, *options]
    ((plan_s, plan_cpu_s),) = at_once(["replay", recording, "--plan", "2", "-o", str(halves)])
    ((one_s, one_cpu_s),) = at_once([*serve, "-o", str(whole)])
    ((start_s, start_cpu_s),) = at_once([*serve, "-o", str(whole)])  # all is done: what it takes to begin
    shards = [[*serve, "-o", str(halves), "--shard", str(number)] for number in range(2)]
    two = at_once(*shards)
    starts = at_once(*shards)
    ((files_s, files_cpu_s),) = at_once(["files", str(halves)])
    ((_, _),) = at_once(["diff", str(whole), str(halves), "--whole"])
    wall, cpu = (max(each[place] for each in two) for place in (0, 1))
    begun = max(each[0] for each in starts), max(each[1] for each in starts)
    print(f"{IMAGES} images, ViT-B-32, seconds by the clock and of the processor")
    print(f"one process          {one_s:7.1f} {one_cpu_s:7.1f}   of them to begin {start_s:5.1f} {start_cpu_s:5.1f}")
    print(f"the longer of two    {wall:7.1f} {cpu:7.1f}   of them to begin {begun[0]:5.1f} {begun[1]:5.1f}")
    print(
        f"speed-up by the clock {one_s / wall:.2f}, without the beginning {(one_s - start_s) / (wall - begun[0]):.2f}"
    )
    ratio = (one_cpu_s - start_cpu_s) / (cpu - begun[1])
    print(f"by the processor {one_cpu_s / cpu:.2f}, without the beginning {ratio:.2f}")
    share = 100 * (plan_cpu_s + files_cpu_s) / cpu
    print(f"plan {plan_s:.1f} {plan_cpu_s:.1f}, files {files_s:.1f} {files_cpu_s:.1f}: {share:.1f} % of a shard")


def at_once(*commands: Sequence[str]) -> list[tuple[float, float]]:
    """Run commands at the same time, each on a core of its own, and return their seconds by the clock and processor."""
    cores = sorted(os.sched_getaffinity(0))

    def run(number: int) -> tuple[float, float]:
        began = time.perf_counter()
        call = ["taskset", "-c", str(cores[number % len(cores)]), sys.executable, "-m", "adawise", *commands[number]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            said = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, said.decode()[-2_000:]
        return time.perf_counter() - began, used.ru_utime + used.ru_stime

    with ThreadPoolExecutor(len(commands)) as pool:
        return [*pool.map(run, range(len(commands)))]


def tiny(folder: Path, shards: int) -> None:
    """Print what a plan of so many shards takes, one of them, and reading all of them as one root."""
    values = [StreetCamera("north", seed=3).jpeg(number, PRESETS["clear"])[0] for number in range(IMAGES_A_CAMERA)]
    cameras, output = max(PARTITIONS, shards), str(folder / "out")
    recording = record(folder / "recording", PARTITIONS, cameras, IMAGES_A_CAMERA, lambda n: values[n % len(values)])
    settings = {
        "model.theta_0": f"local-dir:{PAIR / 'theta_0'}",
        "model.theta_1": f"local-dir:{PAIR / 'theta_1'}",
        "model.classes": str(PAIR / "classes.txt"),
        "model.device": "cpu",
        "model.threads": 1,
        "decode.threads": 1,
        "search.strategy": "fixed",
    }
    print(f"{shards} shards of {cameras} cameras, seconds of the processor")
    with spent("plan"):
        stored = adawise.plan_replay(recording, output, shards=shards)
    with spent("plan that is there"):
        adawise.plan_replay(recording, output, shards=shards)
    read = sum(stored.plan.read_bytes) / max(1, stored.plan.stored_bytes)
    print(f"  {(folder / 'out' / layout.PLAN).stat().st_size / 1e3:.0f} KB of plan, read amplification {read:.1f}")

    def replay(number: int) -> object:
        return adawise.replay_recording(recording, output, shard=number, settings=settings, keep_pair=True)

    replay(0)
    timed = min(_TIMED_SHARDS, shards - 1)
    with spent("a shard", timed):
        for number in range(1, 1 + timed):
            replay(number)
    for number in range(1 + timed, shards):
        replay(number)
    with spent("a shard that is done", timed):
        for number in range(1, 1 + timed):
            replay(number)
    adawise.replay_recording(recording, str(folder / "whole"), settings=settings, keep_pair=True)
    for line in (["files", output], ["verify", output], ["diff", str(folder / "whole"), output, "--whole"]):
        with spent(line[0]), redirect_stdout(io.StringIO()):
            assert program(line) == 0


@contextmanager
def spent(what: str, times: int = 1) -> Iterator[None]:
    """Print the seconds of the processor that the block takes, with its processes, divided by `times`."""
    began = sum(os.times()[:4])
    yield
    print(f"  {what:22} {(sum(os.times()[:4]) - began) / times:8.2f}", flush=True)


if __name__ == "__main__":
    main()
