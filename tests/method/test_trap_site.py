"""A synthetic site of camera traps: its files, its times, and what its cameras see."""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adawise.decode.headers import read_headers
from adawise.demo.main import PAIR
from adawise.demo.scene import CLASSES
from tests.worker.recordings import recorded
from tools.method import trap_site
from tools.method.trap_site import BEGINS, EMPTY, Site, write

pytestmark = pytest.mark.check("tools")

SMALL = Site(cameras=2, intervals=3, images=7)


def described(folder: Path) -> Any:
    return json.loads((folder / "cameratraps.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_site_is_a_function_of_its_seed(tmp_path: Path) -> None:
    assert write(tmp_path / "a", SMALL) == write(tmp_path / "b", SMALL) == 2 * 3 * 7
    assert files(tmp_path / "a") == files(tmp_path / "b")
    write(tmp_path / "c", Site(2, 3, 7, seed=1))
    first, other = (described(tmp_path / name)["images"] for name in "ac")
    assert [image["datetime"] for image in first] != [image["datetime"] for image in other]


def test_every_image_is_described_as_coco_camera_traps_does(tmp_path: Path) -> None:
    write(tmp_path, SMALL, empty="empty")
    found = described(tmp_path)
    categories = {category["id"]: category["name"] for category in found["categories"]}
    assert categories[0] == "empty"
    assert (tmp_path / "classes.txt").read_text().split("\n") == [*CLASSES[:-1], "empty", ""]
    assert sorted(categories.values()) == sorted([*CLASSES[:-1], "empty"])
    labels = {a["image_id"]: categories[a["category_id"]] for a in found["annotations"]}
    assert list(labels) == [image["id"] for image in found["images"]]
    sequences: dict[str, list[dict[str, Any]]] = {}
    for image in found["images"]:
        with Image.open(tmp_path / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        sequences.setdefault(image["seq_id"], []).append(image)
    for images in sequences.values():
        assert [image["frame_num"] for image in images] == list(range(images[0]["seq_num_frames"]))
        assert len({labels[image["id"]] for image in images}) == 1
        begins, ends = (datetime.fromisoformat(images[i]["datetime"]) for i in (0, -1))
        assert ends - begins == timedelta(seconds=len(images) - 1)
    assert {len(images) for images in sequences.values()} <= {1, 2, 3, 4, 5}
    assert len(sequences) < len(labels), "some sequences have several frames"


def test_each_camera_takes_as_many_images_in_each_interval_in_the_order_of_time() -> None:
    for camera in range(SMALL.cameras):
        times = [shot.taken for shot in SMALL.images_of(camera)]
        assert all(a < b for a, b in pairwise(times))
        assert Counter((t - BEGINS).days * SMALL.intervals // 365 for t in times) == {0: 7, 1: 7, 2: 7}


def test_a_camera_sees_a_few_names_that_come_and_go_and_what_it_draws_is_its_mix() -> None:
    site = Site(cameras=6, intervals=10, images=60)
    mixes = [site.mix(camera) for camera in range(site.cameras)]
    for mix in mixes:
        names = set().union(*mix)
        assert len(names) == 6, "five and the empty one"
        assert all(sum(shares.values()) == pytest.approx(1.0) for shares in mix)
        assert min(map(len, mix)) < 6, "some are away"
    assert len({frozenset(set().union(*mix)) for mix in mixes}) > 1, "cameras differ"
    drawn = Counter(shot.label for shot in site.images_of(0))
    expected = {name: np.mean([shares.get(name, 0.0) for shares in mixes[0]]) for name in CLASSES}
    for name, share in expected.items():
        # About 200 sequences of 3 frames: a standard deviation of at most .036.
        assert drawn[name] / drawn.total() == pytest.approx(share, abs=0.12), name
        assert share > 0 or drawn[name] == 0


def test_nights_are_dark_and_longest_in_winter() -> None:
    site = Site()
    light = [
        [site.weather(BEGINS + timedelta(days=day, hours=hour)).daylight for hour in range(24)] for day in (15, 197)
    ]
    winter, summer = (sum(daylight < 0.5 for daylight in hours) for hours in light)
    assert winter > summer + 4
    assert min(light[0]) < 0.3


def test_the_recording_has_the_images_with_their_labels_and_times(tmp_path: Path) -> None:
    write(tmp_path, SMALL, recording=True)
    found = described(tmp_path)
    messages = recorded(tmp_path / "recording")
    headers = [read_headers(message.key, message.headers) for message in messages]
    names = {category["id"]: category["name"] for category in found["categories"]}
    assert [h.label for h in headers] == [names[a["category_id"]] for a in found["annotations"]]
    assert [h.stream.stream_id for h in headers] == [image["location"] for image in found["images"]]
    assert [h.captured_at_us for h in headers] == [
        datetime.fromisoformat(f"{image['datetime']}+00:00").timestamp() * 1e6 for image in found["images"]
    ]
    assert messages[-1].value == (tmp_path / "images" / found["images"][-1]["file_name"]).read_bytes()


def test_the_names_are_those_of_the_pair_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--cameras", "1", "--intervals", "1", "--images", "3"]
    monkeypatch.setattr(sys, "argv", ["trap_site", str(tmp_path / "site"), *arguments])
    trap_site.main()
    assert (tmp_path / "site" / "classes.txt").read_text() == (PAIR / "classes.txt").read_text()
    assert EMPTY in CLASSES
    with pytest.raises(SystemExit):  # there is something in it now
        trap_site.main()
