"""Draw a synthetic site of camera traps, as a data set in the format COCO Camera Traps.

    python -m tools.method.trap_site OUT [--cameras 20] [--intervals 10] [--images 40] [--seed 0] [--recording]

`OUT/images/LOCATION/*.jpg` are the images, `OUT/cameratraps.json` says of each where, when and in which sequence it was
taken and what it shows, and `OUT/classes.txt` has the names for `model.classes`. The demo's street cameras paint them,
so that the demo's pair (`adawise/demo/pair`) knows every class. `--recording` writes the same images to `OUT/recording`
as labelled messages, as `adawise produce` would send them: the stream is the location, and captured-at the time (in
UTC; the format itself has local times).

A camera has one view. It sees a few of the names, which the site's frequent names are likelier to be among, as often as
Zipf's law says. The first of them is there all year, another one in a season of its own. The intervals divide a year:
short foggy winter days, long glaring ones in summer, and the weather of a day is the same at every camera. Sequences
are 1 to 5 frames, a second apart, of one thing that moves a little. All depends on the seed alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from adawise.decode.headers import written_headers
from adawise.demo.actors import ACTORS
from adawise.demo.scene import CLASSES, HEIGHT, RUN, WIDTH, StreetCamera
from adawise.demo.weather import PRESETS, Weather, blend
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message, TopicPartition

EMPTY = "empty street"
TOPIC = "camera-traps"
BEGINS = datetime(2025, 1, 1, tzinfo=UTC)

_DAYS = 365
_SLOT_S = 60  # sequences begin so far apart at least, and none takes as long
_LONGEST = 5  # frames of a sequence
_NAMES = 5  # of a camera
_SITE, _CAMERA, _DAY = range(3)  # independent random streams under one seed
_OTHERS = 100_000  # seeds of views from here on are not those of the frames that the demo's pair was made with
_EMPTY_SHARE = 0.15, 0.35
_NIGHT = 0.2  # light of the darkest hours, where 0 is the night of the demo and 0.5 its dusk
_SEASON = -0.2  # a name is there while the cosine of the days to its best day is above this
_POLICY = FilePolicy(max_messages=4_096, max_bytes=8 << 20, max_age_s=3_600.0)


@dataclass(frozen=True, slots=True)
class TrapImage:
    """One image of a camera; `frame` counts from 0 within its sequence of `frames`."""

    location: str
    taken: datetime
    sequence: str
    frame: int
    frames: int
    label: str
    jpeg: bytes

    @property
    def name(self) -> str:
        """The name of its file below the folder of images."""
        return f"{self.location}/{self.sequence}-{self.frame}.jpg"


@dataclass(frozen=True, slots=True)
class Site:
    """The cameras of a site, the intervals of its year, and how many images each camera takes in each of them."""

    cameras: int = 20
    intervals: int = 10
    images: int = 40
    seed: int = 0

    def images_of(self, camera: int) -> Iterator[TrapImage]:
        """Yield the images of a camera, counted from 0, in the order of time."""
        rng = np.random.default_rng((self.seed, _CAMERA, camera))
        location, own = f"trap-{camera:02d}", self.mix(camera)
        street, events = StreetCamera(location, _OTHERS + 1_000 * self.seed + camera, runs=True), Events()
        noise, quality = rng.uniform(0.0, 0.02), rng.uniform(50.0, 90.0)  # of its sensor and its encoder
        slots, sequence = _DAYS * 86_400 // _SLOT_S // self.intervals, 0
        for interval in range(self.intervals):
            lengths = _lengths(self.images, rng)
            shares = own[interval]
            for slot, length in zip(np.sort(rng.permutation(slots)[: len(lengths)]), lengths, strict=True):
                begins = BEGINS + timedelta(seconds=int(interval * slots + slot) * _SLOT_S)
                label = str(rng.choice(list(shares), p=list(shares.values())))
                first = RUN * events.next(street, label) + int(rng.integers(RUN - length + 1))
                for frame in range(length):
                    taken = begins + timedelta(seconds=frame)
                    weather = self.weather(taken)
                    seen = replace(weather, noise=weather.noise + noise, jpeg_quality=quality)
                    jpeg, drawn = street.jpeg(first + frame, seen)
                    yield TrapImage(location, taken, f"{location}-{sequence:05d}", frame, length, drawn, jpeg)
                sequence += 1

    def mix(self, camera: int) -> Sequence[Mapping[str, float]]:
        """Return for each interval the share of the sequences of a camera that show a name; they sum to 1."""
        names, site = list(ACTORS), np.random.default_rng((self.seed, _SITE))
        rng = np.random.default_rng((self.seed, _SITE, camera))
        frequent = np.argsort(site.permutation(len(names)))  # the rank of each name at the site
        order = np.argsort(np.log1p(frequent) - rng.gumbel(size=len(names)))[:_NAMES]
        best = rng.uniform(size=_NAMES)  # the best time of the year for each of them, as a share of it
        empty, shares = rng.uniform(*_EMPTY_SHARE), []
        for interval in range(self.intervals):
            near = np.cos(2 * np.pi * ((interval + 0.5) / self.intervals - best))
            there = np.clip(near - _SEASON, 0.0, None)
            there[0] = 1.0  # a resident
            weights = there / np.arange(1, _NAMES + 1)
            weights *= (1 - empty) / weights.sum()
            shares.append({EMPTY: empty, **{names[i]: float(w) for i, w in zip(order, weights, strict=True) if w > 0}})
        return shares

    def weather(self, at: datetime) -> Weather:
        """Return the light and the air of the site at a time of its year."""
        day = (at - BEGINS) / timedelta(days=1)
        winter = math.cos(2 * math.pi * (day - 15) / _DAYS)  # 1 in the middle of January, -1 in July
        rng = np.random.default_rng((self.seed, _DAY, int(day)))
        likely = {"fog": 0.15 + 0.3 * max(winter, 0.0), "rain": 0.2, "glare": 0.3 * max(-winter, 0.0)}
        kind = str(rng.choice(["clear", *likely], p=[1 - sum(likely.values()), *likely.values()]))
        air = blend(PRESETS["clear"], PRESETS[kind], rng.uniform(0.3, 1.0))
        air = replace(air, warmth=air.warmth - 0.25 * winter)
        noon, horizon = math.cos(2 * math.pi * (day % 1 - 0.5)), math.cos(math.pi * (12 - 4 * winter) / 24)
        light = min(
            max(0.5 + 2.0 * (noon - horizon), 0.0), 1.0
        )  # 1 by day, 0 by night, about an hour from one to the other
        ends = (PRESETS["dusk"], air, 2 * light - 1) if light > 0.5 else (PRESETS["night"], PRESETS["dusk"], 2 * light)
        return replace(blend(*ends), fog=air.fog * light, rain=air.rain)


class Events:
    """The events of a street from a `first` one on that were not shown yet, by what they show."""

    def __init__(self, first: int = 0) -> None:
        self._waiting: defaultdict[str, deque[int]] = defaultdict(deque)
        self._seen = first

    def next(self, street: StreetCamera, label: str) -> int:
        """Return the next event of the street that shows `label`."""
        while not self._waiting[label]:
            self._waiting[street.label(RUN * self._seen)].append(self._seen)
            self._seen += 1
        return self._waiting[label].popleft()


def _lengths(images: int, rng: np.random.Generator) -> list[int]:
    """Draw the frames of each sequence, which are `images` together."""
    lengths = list[int]()
    while (left := images - sum(lengths)) > 0:
        lengths.append(min(int(rng.integers(1, _LONGEST + 1)), left))
    return lengths


def write(folder: Path, site: Site, *, empty: str = EMPTY, recording: bool = False) -> int:
    """Write the data set, and return how many images it has.

    Args:
        folder: where to; it must not hold anything.
        site: the site.
        empty: the name of the class of images without anything in them.
        recording: write `recording` beside the images.
    """
    (folder / "images").mkdir(parents=True)
    identity = TopicIdentity("simulated", TOPIC, site.cameras)
    recorder = _recorder(folder / "recording", identity) if recording else None
    names = [empty if name == EMPTY else name for name in CLASSES]
    # The format's data sets number the empty class 0.
    numbers = {name: number for number, name in enumerate([EMPTY, *ACTORS])}
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for camera in range(site.cameras):
        tp = TopicPartition(TOPIC, camera)
        if recorder is not None:
            recorder.begin(tp, 0)
        for offset, shot in enumerate(site.images_of(camera)):
            file = folder / "images" / shot.name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(shot.jpeg)
            images.append(_image(shot))
            annotations.append(
                {"id": shot.name, "image_id": shot.name, "category_id": numbers[shot.label], "seq_id": shot.sequence}
            )
            if recorder is not None:
                recorder.append([_message(tp, offset, shot, empty)], 0.0)
    if recorder is not None:
        recorder.flush()
    found = {
        "info": {
            "version": "1.0",
            "description": f"synthetic camera traps: {site}",
            "date_created": f"{BEGINS:%Y-%m-%d}",
        },
        "categories": [{"id": number, "name": empty if name == EMPTY else name} for name, number in numbers.items()],
        "images": images,
        "annotations": annotations,
    }
    (folder / "cameratraps.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return len(images)


def _image(shot: TrapImage) -> dict[str, Any]:
    return {
        "id": shot.name,
        "file_name": shot.name,
        "width": WIDTH,
        "height": HEIGHT,
        "location": shot.location,
        "datetime": f"{shot.taken:%Y-%m-%d %H:%M:%S}",
        "seq_id": shot.sequence,
        "seq_num_frames": shot.frames,
        "frame_num": shot.frame,
    }


def _recorder(folder: Path, identity: TopicIdentity) -> Recorder:
    return Recorder(str(folder), topic=TOPIC, identity=identity, policy=_POLICY, max_buffered_bytes=64 << 20)


def _message(tp: TopicPartition, offset: int, shot: TrapImage, empty: str) -> Message:
    label, at_us = empty if shot.label == EMPTY else shot.label, int(shot.taken.timestamp()) * 1_000_000
    headers = written_headers("image/jpeg", at_us, shot.name, label=label, meta={"seq-id": shot.sequence})
    return Message(tp.topic, tp.partition, offset, shot.location.encode(), shot.jpeg, tuple(headers), at_us // 1000)


def main() -> None:
    """Write the data set that the arguments ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.method.trap_site", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the data set, which must not hold anything")
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--intervals", type=int, default=10, help="parts of the year")
    parser.add_argument("--images", type=int, default=40, help="of a camera in an interval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--empty", default=EMPTY, metavar="NAME", help=f"name of the empty class (default: {EMPTY})")
    parser.add_argument("--recording", action="store_true", help="write a labelled recording beside the images")
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"{args.out} is not empty; name another folder")
    site = Site(args.cameras, args.intervals, args.images, args.seed)
    count = write(args.out, site, empty=args.empty, recording=args.recording)
    print(f"{count} images of {args.cameras} cameras: {args.out / 'cameratraps.json'}")


if __name__ == "__main__":
    main()
