"""Whole stretches of time are held out of a recording: no held-out frame has a neighbour in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from adawise.labels.folders.samples import Samples, Taken, split


def recorded(cameras: int, frames: int, label: Callable[[int, int], str]) -> Samples:
    """Frames as a recording has them, of all cameras in turn."""
    taken = [Taken(f"camera {c}", frame) for frame in range(frames) for c in range(cameras)]
    labels = [label(c, frame) for frame in range(frames) for c in range(cameras)]
    names = [f"frames/0/{i}/0" for i in range(len(labels))]
    return Samples("here", names, labels, tuple(sorted(set(labels))), lambda i: b"", "0", taken=taken)


def runs_of_50(camera: int, frame: int) -> str:
    """Twenty cameras, at each of which a class stays for 50 frames."""
    return f"class {(camera + frame // 50) % 5}"


def neighbours(samples: Samples, train: list[int], held_out: list[int]) -> int:
    """Count the held-out frames that have the frame before or after of their camera in training."""
    assert samples.taken is not None
    learned = {samples.taken[i] for i in train}
    taken = [samples.taken[i] for i in held_out]
    return sum(any(Taken(one.camera, one.at_ms + d) in learned for d in (-1, 1)) for one in taken)


@pytest.mark.parametrize("seed", range(5))
def test_no_held_out_frame_has_a_neighbour_in_training(seed: int) -> None:
    samples = recorded(20, 200, runs_of_50)
    train, held_out = split(samples, 0.1, seed)
    assert neighbours(samples, train, held_out) == 0
    assert 400 <= len(held_out) <= 500
    assert len(train) > 0.96 * (4000 - len(held_out))
    assert not {*train} & {*held_out}
    shares = Counter(samples.labels[i] for i in held_out)
    assert all(80 <= shares[name] <= 130 for name in samples.classes), "of 800 each"


def test_captured_times_do_not_change_what_is_held_out() -> None:
    samples = recorded(20, 200, runs_of_50)
    backwards = replace(samples, captured_us=list(range(4000, 0, -1)))
    assert split(backwards, 0.1, 0) == split(samples, 0.1, 0)  # else no earlier run could be resumed


def test_the_choice_is_a_function_of_the_seed() -> None:
    samples = recorded(20, 200, runs_of_50)
    assert split(samples, 0.1, 0) == split(samples, 0.1, 0)
    assert split(samples, 0.1, 0) != split(samples, 0.1, 1)


def test_frames_are_neighbours_by_the_time_of_their_camera_however_they_are_listed() -> None:
    one = recorded(3, 100, lambda camera, frame: f"class {frame % 2}")
    assert one.taken is not None
    order = sorted(range(300), key=lambda i: (i * 97) % 300)  # as from partitions that were read one after the other
    listed = Samples(
        "here", one.names, [one.labels[i] for i in order], one.classes, lambda i: b"", "0",
        taken=[one.taken[i] for i in order],
    )  # fmt: skip
    train, held_out = split(listed, 0.1, 0)
    assert neighbours(listed, train, held_out) == 0
    assert 20 <= len(held_out) <= 45


def test_a_class_of_one_stretch_alone_is_cut_within_it() -> None:
    samples = recorded(1, 500, lambda camera, frame: f"class {frame // 50}")
    train, held_out = split(samples, 0.1, 0)
    assert neighbours(samples, train, held_out) == 0
    assert Counter(samples.labels[i] for i in held_out) == dict.fromkeys(samples.classes, 5)
    assert {samples.labels[i] for i in train} == {*samples.classes}
    assert len(train) > 425


def test_stretches_are_cut_shorter_where_too_much_would_be_held_out() -> None:
    samples = recorded(1, 1000, lambda camera, frame: f"class {frame // 150}")
    train, held_out = split(samples, 0.1, 0)
    assert len(held_out) <= 150
    assert neighbours(samples, train, held_out) == 0


@pytest.mark.parametrize("frames", [9, 12, 16, 17, 24, 31, 40, 60])
def test_no_more_is_held_out_where_each_class_has_a_camera_of_few_frames(frames: int) -> None:
    samples = recorded(10, frames, lambda camera, frame: f"class {camera}")
    train, held_out = split(samples, 0.1, 0)
    assert len(held_out) <= 0.15 * len(samples)
    assert len(train) >= 0.75 * len(samples)
    assert neighbours(samples, train, held_out) == 0
    for part in (train, held_out):
        assert {samples.labels[i] for i in part} == {*samples.classes}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("cameras", "frames"), [(1, 4), (1, 12), (2, 3), (5, 7), (1, 300)])
def test_each_class_is_on_both_sides_however_few_frames_there_are(cameras: int, frames: int, share: float) -> None:
    samples = recorded(cameras, frames, lambda camera, frame: f"class {frame % 2}")
    for part in split(samples, share, 0):
        assert {samples.labels[i] for i in part} == {*samples.classes}


def test_images_without_a_camera_are_drawn_one_by_one() -> None:
    labels = ["a"] * 400
    samples = Samples("here", [str(i) for i in range(400)], labels, ("a",), lambda i: b"", "0")
    train, held_out = split(samples, 0.1, 0)
    assert len(held_out) == 40
    assert sum(i + 1 in train or i - 1 in train for i in held_out) > 36
