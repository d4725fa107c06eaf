"""A day of simulated cameras with scripted weather and faults, replayed and analysed: does the report show the script?

`python -m tools.drift.day FOLDER` draws the day as a recording, replays it as the demo's worker would have served it,
analyses it and writes the page; `--judge` compares the events that were told with the script. What is there already is
not made again. By default it is 47,040 images and takes four minutes of a core that is free. Needs the extra `report`.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from adawise.demo.main import PAIR
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message, RowId, TopicPartition
from tools.drift.day_script import CAMERAS, CameraDay, Day

TOPIC = "day"

_POLICY = FilePolicy(max_messages=4_096, max_bytes=8 << 20, max_age_s=3_600.0)
_BUFFERED_BYTES = 64 << 20


def make(folder: Path, day: Day) -> int:
    """Write the recording, the labels (apart, as if they came later) and the script; how many frames there are."""
    recorder = Recorder(
        str(folder / "recording"),
        topic=TOPIC,
        identity=TopicIdentity("simulated", "day", len(day.cameras)),
        policy=_POLICY,
        max_buffered_bytes=_BUFFERED_BYTES,
    )
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as lines:
        labels = csv.writer(lines)
        labels.writerow(("row_id", "label"))
        for partition, camera in enumerate(day.cameras):
            recorder.begin(TopicPartition(TOPIC, partition), 0)
            for message, label in _messages(day, camera, partition):
                recorder.append([message], time.monotonic())
                if label is not None:
                    labels.writerow((RowId(TOPIC, partition, message.offset, 0), label))
            recorder.flush()
    script = {
        "hours": day.hours,
        "every_s": day.every_s,
        "images": day.images,
        "seed": day.seed,
        "happenings": [asdict(happening) for happening in day.happenings()],
    }
    (folder / "script.json").write_text(json.dumps(script, indent=1) + "\n", encoding="utf-8")
    return recorder.recorded.messages


def _messages(day: Day, camera: CameraDay, partition: int) -> Iterator[tuple[Message, str | None]]:
    for offset, (batch, at_us, jpeg, label) in enumerate(day.frames(camera)):
        headers = {
            "content-type": "image/jpeg",
            "frame-id": f"{camera.name}-{batch:05d}-{offset % day.images:02d}",
            "captured-at": datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(),
        }
        raw = tuple((name, value.encode()) for name, value in headers.items())
        yield Message(TOPIC, partition, offset, camera.name.encode(), jpeg, raw, at_us // 1000), label


def settings_file(folder: Path, day: Day) -> Path:
    """The demo's settings, with batches as large as the day's.

    Segments by age, too: a worker reads on only while fewer rows wait than four segments have, of all cameras together.
    """
    path = folder / "adawise.toml"
    path.write_text(
        f"""[model]
architecture = "local-dir:{PAIR / "theta_0"}"
theta_0 = "local-dir:{PAIR / "theta_0"}"
theta_1 = "local-dir:{PAIR / "theta_1"}"
classes = "{PAIR / "classes.txt"}"
templates = "{PAIR / "templates.txt"}"
precision = "fp32"
device = "cpu"
threads = 1
[batch]
images = {day.images}
max_age_s = {day.every_s / 2}
[decode]
threads = 1
[sink]
flush_age_s = 30
[log]
level = "warning"
""",
        encoding="utf-8",
    )
    return path


def adawise(folder: Path, *arguments: str) -> str:
    """A command in the folder; what it prints. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", "adawise", *arguments]
    return subprocess.run(
        [*command, "--config", str(folder / "adawise.toml")], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def replay(folder: Path) -> Path:
    """Replay the recording as the search serves it; where to."""
    adawise(folder, "replay", str(folder / "recording"), "-o", str(folder / "run"))
    return folder / "run"


def analysed(folder: Path, *, page: bool = True) -> Path:
    """Write the report as JSON, and the page; the JSON."""
    arguments = ["drift", str(folder / "run"), "--recording", str(folder / "recording"), "--json"]
    arguments += ["--labels", str(folder / "labels.csv")]
    printed = adawise(folder, *arguments, *(["-o", str(folder / "day.html")] if page else []))
    path = folder / "drift.json"
    path.write_text(printed, encoding="utf-8")
    return path


def main() -> int:
    """Make what is not there yet, analyse, judge."""
    parser = argparse.ArgumentParser(prog="python -m tools.drift.day", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cameras", type=int, default=len(CAMERAS), choices=range(1, len(CAMERAS) + 1))
    parser.add_argument("--hours", type=float, default=24.0, help="that the day takes; default: %(default)g")
    parser.add_argument("--every", type=float, default=120.0, help="seconds between batches; default: %(default)g")
    parser.add_argument("--images", type=int, default=8, help="of a batch; default: %(default)d")
    parser.add_argument("--seed", type=int, default=1, help="of the pictures; default: %(default)d")
    parser.add_argument("--judge", action="store_true", help="only compare the report that is there with the script")
    parser.add_argument("--no-page", action="store_true", help="JSON alone")
    wanted = parser.parse_args()
    folder: Path = wanted.folder.resolve()
    if not wanted.judge:
        day = Day(CAMERAS[: wanted.cameras], wanted.hours, wanted.every, wanted.images, wanted.seed)
        _all(folder, day, page=not wanted.no_page)
    from tools.drift.day_verdict import assess, summary

    print(summary(assess(folder)))
    return 0


def _all(folder: Path, day: Day, *, page: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings_file(folder, day)
    if not (folder / "script.json").exists():
        _timed("drawn", partial(make, folder, day))
    _timed("replayed", partial(replay, folder))
    _timed("analysed", partial(analysed, folder, page=page))


def _timed(what: str, work: Callable[[], object]) -> None:
    began_s = time.monotonic()
    done = work()
    print(f"{what}: {done}, {time.monotonic() - began_s:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
