"""The simulated cameras: reproducible, labelled, all classes, different from each other."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageChops

from adawise.demo.scene import CLASSES, HEIGHT, RUN, WIDTH, StreetCamera
from adawise.demo.weather import PRESETS

CLEAR = PRESETS["clear"]


@pytest.mark.parametrize("condition", PRESETS)
def test_a_frame_is_a_pure_function_of_seed_number_and_weather(condition: str) -> None:
    first, second = StreetCamera("a", 7), StreetCamera("another name", 7)
    first.jpeg(3, CLEAR)  # what was asked before does not matter
    assert first.jpeg(12, PRESETS[condition]) == second.jpeg(12, PRESETS[condition])


def test_another_seed_and_another_number_give_other_pictures() -> None:
    picture, _ = StreetCamera("a", 7).jpeg(12, CLEAR)
    assert picture != StreetCamera("a", 8).jpeg(12, CLEAR)[0]
    assert picture != StreetCamera("a", 7).jpeg(13, CLEAR)[0]


def test_every_class_is_drawn_about_equally_often() -> None:
    camera = StreetCamera("a", 1)
    labels = [camera.jpeg(number, CLEAR)[1] for number in range(1000)]
    counts = [labels.count(name) for name in CLASSES]
    assert len(CLASSES) == 10
    assert min(counts) > 60  # expected 100, standard deviation 9.5
    assert sum(counts) == 1000


def test_the_weather_does_not_change_what_is_seen() -> None:
    camera = StreetCamera("a", 5)
    for number in range(20):
        assert len({camera.frame(number, weather)[1] for weather in PRESETS.values()}) == 1


def test_a_thing_in_the_street_changes_the_picture_where_it_stands() -> None:
    camera = StreetCamera("a", 3)
    frames = [camera.frame(number, CLEAR) for number in range(120)]
    empty = [np.asarray(image, dtype=np.float64) for image, label in frames if label == "empty street"]
    street = np.median(empty, axis=0)
    for image, label in frames:
        if label != "empty street":
            assert (np.abs(np.asarray(image) - street).max(axis=2) > 40).sum() > 40, label


def test_a_frame_is_the_decoded_jpeg_in_the_stated_size() -> None:
    camera = StreetCamera("a", 2)
    jpeg, label = camera.jpeg(4, CLEAR)
    image, same_label = camera.frame(4, CLEAR)
    assert image.size == (WIDTH, HEIGHT)
    assert image.mode == "RGB"
    assert label == same_label
    with Image.open(io.BytesIO(jpeg)) as sent:
        assert sent.format == "JPEG"
        assert ImageChops.difference(sent.convert("RGB"), image).getbbox() is None


def test_a_camera_with_runs_shows_the_same_thing_for_a_run_and_moves_it() -> None:
    camera = StreetCamera("a", 9, runs=True)
    labels = [camera.jpeg(number, CLEAR)[1] for number in range(40 * RUN)]
    assert labels == [camera.label(number) for number in range(40 * RUN)]
    runs = [set(labels[i : i + RUN]) for i in range(0, len(labels), RUN)]
    assert all(len(run) == 1 for run in runs)
    assert len(set.union(*runs)) >= 8
    assert len({camera.jpeg(number, CLEAR)[0] for number in range(RUN)}) == RUN


def test_a_negative_seed_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"'gate': expected a seed >= 0, got -1"):
        StreetCamera("gate", -1)


def test_another_view_is_another_street_with_the_same_things_on_it() -> None:
    camera = StreetCamera("a", 9)
    first, label = camera.jpeg(3, CLEAR)
    other, same = camera.jpeg(3, CLEAR, view=1)
    assert label == same
    assert first != other
    assert camera.jpeg(3, CLEAR, view=0)[0] == first
    assert StreetCamera("b", 9).jpeg(3, CLEAR, view=1)[0] == other


def test_a_longer_exposure_is_brighter_and_clips() -> None:
    camera = StreetCamera("a", 9)
    dark, day, bright = (
        np.asarray(camera.frame(3, replace(CLEAR, exposure=e))[0], dtype=float) for e in (0.6, 1.0, 1.5)
    )
    assert dark.mean() / day.mean() == pytest.approx(0.6, abs=0.03)
    assert day.mean() < bright.mean() < 1.5 * day.mean()
    assert (bright == 255).mean() > (day == 255).mean()
