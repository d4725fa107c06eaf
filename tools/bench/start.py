"""From the start of the process to the first prediction, against open_clip's own load of one of the two checkpoints.

ViT-B-32 on a processor, 10 classes of six prompts, images waiting in the topic. In turns: open_clip alone (import,
`create_model_and_transforms` with the checkpoint), the worker with an empty cache of heads, and the same again. `ready`
is `worker_started` in the log. Beside wall time stands the processor's, for machines that others use, too.
`BENCH_ROUNDS` is how many rounds (3).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from tests.brokers import Broker, create_topic, fresh_name, running
from tests.worker.cameras import Topic, single
from tools.bench.paired import text, until_interrupted
from tools.bench.worker import write_pair

ROUNDS, CAMERAS, IMAGES = int(os.environ.get("BENCH_ROUNDS", "3")), 4, 64
OPEN_CLIP = (
    "import open_clip, sys; open_clip.create_model_and_transforms('ViT-B-32', pretrained=sys.argv[1]); "
    "print('loaded', flush=True); sys.stdin.read()"
)
WANTED = ("model_loaded", "worker_started", "batch_served", "heads_encoded")
Moment = tuple[float, float]  # seconds since the process began: wall, processor


def main() -> int:
    """Print the moments of each round, medians, and the ratio; 1 if a cold start takes more than twice open_clip's."""
    own: list[Moment] = []
    starts: dict[str, list[dict[str, Moment]]] = {"without heads on disk": [], "with heads on disk": []}
    with tempfile.TemporaryDirectory() as name, running() as broker:
        folder = Path(name)
        write_pair(folder)
        topic = filled(broker)
        load = os.getloadavg()[0]
        print(
            f"broker: {broker.name}; load {load:.1f}; {ROUNDS} rounds; seconds of wall (of the processor)", flush=True
        )
        with until_interrupted():
            for number in range(ROUNDS):
                own.append(open_clips_own(folder))
                print(f"  open_clip: {shown(own[-1])}", flush=True)
                for which, found in starts.items():
                    found.append(start(folder, topic, f"{number}-{len(which)}", folder / f"cache-{number}"))
                    moments = ", ".join(f"{event} {shown(at)}" for event, at in found[-1].items())
                    print(f"  {which}: {moments}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    print(f"open_clip's own load: {spread(own)}")
    for which, found in starts.items():
        for event in WANTED:
            print(f"{which}: {event} {spread([moments[event] for moments in found])}")
    ready = [moments["worker_started"] for moments in starts["without heads on disk"]]
    # each start against the load just before it: what else the machine does changes from round to round
    ratios = [(mine[0] / theirs[0], mine[1] / theirs[1]) for mine, theirs in zip(ready, own, strict=False)]
    print(f"ready without heads on disk over open_clip's own: {spread(ratios)}")
    return int(bool(ratios) and min(median(wall for wall, _ in ratios), median(own_s for _, own_s in ratios)) > 2.0)


def filled(broker: Broker) -> Topic:
    """Images of some cameras, before any worker runs."""
    topic, rng = Topic(broker, fresh_name("start")), random.Random(0)
    create_topic(broker, topic.name, 1)
    create_topic(broker, f"{topic.name}.dlq")
    topic.produce(single(rng, camera, 1) for _ in range(IMAGES) for camera in range(CAMERAS))
    return topic


def open_clips_own(folder: Path) -> Moment:
    """Until open_clip has one checkpoint."""
    call = [sys.executable, "-W", "ignore", "-c", OPEN_CLIP, str(folder / "theta_0.safetensors")]
    with process(call, os.environ.copy()) as (lines, moment):
        for line in lines:
            if line.startswith("loaded"):
                return moment()
    raise AssertionError("open_clip ended before it had loaded")


def start(folder: Path, topic: Topic, name: str, cache: Path, wanted: Sequence[str] = WANTED) -> dict[str, Moment]:
    """Until the worker has served a batch and has all heads, or what is wanted: when it came to what."""
    flags = {
        "kafka.bootstrap-servers": topic.broker.bootstrap_servers,
        "kafka.topic": topic.name,
        "kafka.group": f"{topic.name}-{name}",
        "kafka.session-timeout-ms": "6000",
        "model.theta-0": str(folder / "theta_0.safetensors"),
        "model.theta-1": str(folder / "theta_1.safetensors"),
        "model.classes": str(folder / "classes.txt"),
        "model.cache": str(cache),
        "model.device": "cpu",
        "sink.root": str(folder / name),
        "log.level": "debug",
        "log.format": "json",
    }
    call = [
        sys.executable,
        "-m",
        "adawise",
        "run",
        *(word for key, value in flags.items() for word in (f"--{key}", value)),
    ]
    found: dict[str, Moment] = {}
    with process(call, os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}) as (lines, moment):
        for line in lines:
            event = json.loads(line)["event"] if line.startswith("{") else ""
            if event in wanted:
                found.setdefault(event, moment())
            if len(found) == len(wanted):
                return {event: found[event] for event in wanted}
    raise AssertionError(f"the worker ended after {found}")


@contextmanager
def process(call: list[str], environ: dict[str, str]) -> Iterator[tuple[Iterator[str], Callable[[], Moment]]]:
    """Lines of its output as they come, and how long it runs by now; killed in the end."""
    began = time.monotonic()
    with subprocess.Popen(
        call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
    ) as child:

        def moment() -> Moment:
            times = psutil.Process(child.pid).cpu_times()
            return time.monotonic() - began, times.user + times.system

        try:
            assert child.stdout is not None
            yield iter(child.stdout), moment
        finally:
            child.kill()


def spread(moments: list[Moment]) -> str:
    """Medians with quartiles: of the wall, and of the processor."""
    return f"{text([wall for wall, _ in moments])}; processor {text([own for _, own in moments])}"


def shown(moment: Moment) -> str:
    """Both, for people."""
    return f"{moment[0]:.1f} ({moment[1]:.1f})"
