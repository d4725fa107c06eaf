"""A 16-bit grey picture keeps what it shows in 8 bits, whatever part of the levels its sensor fills."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from adawise.decode.codec import open_image
from adawise.decode.rendition import GREY16_MODES, LEVELS, TAIL, own_range, to_8_bits

ROOM = (7_000, 7_400)  # levels of a room, of a 14-bit thermal sensor


def scene(low: int, high: int, width: int = 80, height: int = 60) -> np.ndarray:
    """uint16 `[height, width]`: a slope from `low` to `high`."""
    return np.linspace(low, high, width * height).astype(np.uint16).reshape(height, width)


def by_sorting(pixels: np.ndarray) -> np.ndarray:
    """The definition, in Python's own numbers."""
    ordered = sorted(min(max(int(level), 0), LEVELS - 1) for level in pixels.ravel())
    outside = len(ordered) // TAIL
    low, high = ordered[outside], ordered[-1 - outside]
    if low == high:
        low, high = ordered[0], ordered[-1]
    if low == high:
        low, high = 0, LEVELS - 1
    made = [
        int((min(max(int(level), low), high) - low) * 255 / (high - low) + 0.5) for level in pixels.ravel().tolist()
    ]
    return np.array(made, np.uint8).reshape(pixels.shape)


def test_what_pillow_makes_white_keeps_its_256_levels() -> None:
    image = Image.fromarray(scene(*ROOM))
    assert np.unique(np.asarray(image.convert("RGB"))).tolist() == [255]
    assert len(np.unique(np.asarray(image) >> 8)) == 2, "and the high byte says hardly more"
    assert len(np.unique(np.asarray(to_8_bits(image, None)))) == 256


@pytest.mark.parametrize("broken", [0, 65_535])
def test_a_dead_or_hot_pixel_takes_no_range_from_the_others(broken: int) -> None:
    pixels = scene(*ROOM)
    whole = np.asarray(to_8_bits(Image.fromarray(pixels), None)).copy()
    pixels[30, 40] = broken
    made = np.asarray(to_8_bits(Image.fromarray(pixels), None)).astype(int)
    assert made[30, 40] == (255 if broken else 0)
    made[30, 40] = whole[30, 40]
    assert np.abs(made - whole).max() <= 1


def test_a_small_hot_thing_on_a_flat_ground_is_seen() -> None:
    pixels = np.full((100, 100), 7_000, np.uint16)
    pixels[50, 50:53] = 7_300
    assert np.unique(np.asarray(to_8_bits(Image.fromarray(pixels), None))).tolist() == [0, 255]


@pytest.mark.parametrize(("level", "grey"), [(0, 0), (65_535, 255), (32_768, 128), (7_000, 27)])
def test_a_picture_of_one_level_becomes_its_share_of_all_levels(level: int, grey: int) -> None:
    made = to_8_bits(Image.new("I;16", (9, 7), level), None)
    assert (made.mode, made.size, set(made.tobytes())) == ("L", (9, 7), {grey})


def test_a_fixed_range_keeps_the_absolute_level() -> None:
    """By its own range a picture that is all fire looks as one that is all cold."""
    cold, fire = (Image.fromarray(scene(*range_)) for range_ in (ROOM, (15_000, 15_400)))
    assert to_8_bits(cold, None).tobytes() == to_8_bits(fire, None).tobytes()
    means = [np.asarray(to_8_bits(image, (6_000, 16_000))).mean() for image in (cold, fire)]
    assert means == pytest.approx([30.6, 234.6], abs=0.5)
    assert set(to_8_bits(fire, (0, 100)).tobytes()) == {255}
    assert set(to_8_bits(cold, (20_000, 20_001)).tobytes()) == {0}


@given(
    arrays.arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 60)), elements=st.integers(0, LEVELS - 1))
    | arrays.arrays(np.uint16, (40, 60), elements=st.integers(7_000, 7_003), fill=st.just(np.uint16(7_001)))
)
def test_it_is_what_the_definition_says(pixels: np.ndarray) -> None:
    assert np.array_equal(np.asarray(to_8_bits(Image.fromarray(pixels), None)), by_sorting(pixels))


@given(st.integers(0, LEVELS - 2), st.data())
def test_levels_rise_from_black_to_white(low: int, data: st.DataObject) -> None:
    high = data.draw(st.integers(low + 1, LEVELS - 1))
    every = Image.fromarray(np.arange(LEVELS, dtype=np.uint16).reshape(256, 256))
    made = np.asarray(to_8_bits(every, (low, high))).ravel().astype(int)
    assert (made[low], made[high]) == (0, 255)
    assert (np.diff(made) >= 0).all()
    middle = data.draw(st.integers(low, high))
    assert abs(made[middle] - (middle - low) * 255 / (high - low)) <= 0.5


def test_every_byte_order_and_32_bits_are_the_same_picture() -> None:
    pixels = scene(*ROOM)
    made = {
        to_8_bits(image, None).tobytes()
        for image in (
            Image.fromarray(pixels),
            Image.frombytes("I;16B", (80, 60), pixels.astype(">u2").tobytes()),
            Image.frombytes("I;16L", (80, 60), pixels.astype("<u2").tobytes()),
            Image.fromarray(pixels.astype(np.int32)),
        )
    }
    assert len(made) == 1
    beyond = Image.fromarray(np.array([[-5, 0, 65_535, 2**31 - 1]], np.int32))
    assert np.asarray(to_8_bits(beyond, None)).tolist() == [[0, 0, 255, 255]]


def test_a_png_of_16_bit_grey_is_opened_in_one_of_the_modes() -> None:
    out = io.BytesIO()
    Image.fromarray(scene(*ROOM)).save(out, "PNG")
    image = open_image(out.getvalue(), max_pixels=10_000)
    assert image.mode in GREY16_MODES
    assert to_8_bits(image, None).tobytes() == to_8_bits(Image.fromarray(scene(*ROOM)), None).tobytes()


@pytest.mark.parametrize("levels", [2, 300, 65_536])
def test_few_pixels_have_the_range_that_many_of_the_same_have(levels: int) -> None:
    """Although they are sorted, and these are counted."""
    few = np.random.default_rng(levels).integers(0, levels, (20, 50)).astype(np.uint16)
    few[0, :2] = 0, 65_535
    assert own_range(few) == own_range(np.tile(few, (100, 1)))
    assert own_range(few[:2]) == (0, 65_535)


def test_strips_change_nothing_and_save_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, LEVELS, (700, 1_000), np.uint16))
    whole = to_8_bits(image, None).tobytes()
    monkeypatch.setattr("adawise.decode.rendition._AT_ONCE", 9_999)
    tracemalloc.start()
    try:
        assert to_8_bits(image, None).tobytes() == whole
        assert tracemalloc.get_traced_memory()[1] < 8 * 700_000
    finally:
        tracemalloc.stop()


def test_the_outermost_thousandth_is_outside_the_range_at_either_end() -> None:
    pixels = np.repeat(np.array([5, 6, 7, 60_000], np.uint16), [4, 2_000, 2_000, 4])[None]
    assert own_range(pixels) == (6, 7)
    assert own_range(pixels[:, 1:]) == (6, 7)
    assert own_range(pixels[:, :999]) == (5, 6), "of fewer than a thousand all count"
