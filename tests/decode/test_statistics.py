"""The statistics of an image: equal to exact fractions, and the same bits for ever."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adawise.decode.statistics import statistics
from adawise.records import STATISTICS

Pixels = npt.NDArray[np.uint8]
IMAGES = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.sampled_from([256, 4, 2]).flatmap(
        lambda levels: arrays(np.uint8, (3, *size), elements=st.integers(0, levels - 1))
    )
)


def noise(seed: int, size: int) -> Pixels:
    """By a congruence of our own: no version of a library changes it."""
    numbers = [seed]
    for _ in range(3 * size * size):
        numbers.append((1_103_515_245 * numbers[-1] + 12_345) % 2**31)
    return np.array([number >> 16 & 255 for number in numbers[1:]], np.uint8).reshape(3, size, size)


def gradient(size: int) -> Pixels:
    y, x = np.mgrid[:size, :size]
    return np.stack([x * 255 // (size - 1), y * 255 // (size - 1), (x + y) % 256]).astype(np.uint8)


def flat(*colour: int, size: int = 8) -> Pixels:
    return np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, size, size)).copy()


def exact(pixels: Pixels) -> list[float]:
    """As the definition says, a pixel after the other."""
    _, height, width = pixels.shape
    red, green, blue = ([[Fraction(int(v), 255) for v in row] for row in channel] for channel in pixels)
    places = list(product(range(height), range(width)))
    Y = {
        (i, j): Fraction(299, 1000) * red[i][j] + Fraction(587, 1000) * green[i][j] + Fraction(114, 1000) * blue[i][j]
        for i, j in places
    }

    def mean(values: list[Fraction]) -> Fraction:
        return sum(values, Fraction(0)) / len(values) if values else Fraction(0)

    luminance = mean(list(Y.values()))
    sd = math.sqrt(mean([(value - luminance) ** 2 for value in Y.values()]))
    steps = [
        mean([abs(Y[i + a, j + b] - Y[i, j]) for i, j in places if (i + a, j + b) in Y]) for a, b in ((0, 1), (1, 0))
    ]
    inner = product(range(1, height - 1), range(1, width - 1))
    curvature = mean([abs(Y[i - 1, j] + Y[i + 1, j] + Y[i, j - 1] + Y[i, j + 1] - 4 * Y[i, j]) for i, j in inner])
    colour = mean([max(c) - min(c) for c in ((red[i][j], green[i][j], blue[i][j]) for i, j in places)])
    return [
        math.log(luminance + Fraction(2, 100)),
        math.log(sd + 0.02),
        math.log(float(sum(steps)) / (sd + 0.02) + 0.01),
        math.log((curvature / sum(steps) if sum(steps) else 0) + Fraction(1, 1000)),
        math.log(colour + Fraction(2, 100)),
    ]


@given(IMAGES)
def test_they_are_what_exact_fractions_give(pixels: Pixels) -> None:
    found = statistics(pixels)
    assert found.dtype == np.float32
    assert found.shape == (len(STATISTICS),)
    np.testing.assert_allclose(found, exact(pixels), rtol=2e-7, atol=1e-7)  # float32 has 24 bits


@given(IMAGES, st.sampled_from([lambda x: x[:, ::-1], lambda x: x[:, :, ::-1], lambda x: x.transpose(0, 2, 1)]))
def test_an_image_that_is_mirrored_or_turned_has_the_same_bits(
    pixels: Pixels, turned: Callable[[Pixels], Pixels]
) -> None:
    assert statistics(pixels).tobytes() == statistics(turned(pixels)).tobytes()


@given(IMAGES)
def test_the_pixels_are_left_as_they_are_and_how_they_lie_in_memory_is_of_no_account(pixels: Pixels) -> None:
    before, elsewhere = pixels.copy(), np.asfortranarray(pixels)
    assert statistics(pixels).tobytes() == statistics(elsewhere).tobytes()
    np.testing.assert_array_equal(pixels, before)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_an_image_of_one_colour_has_no_contrast_no_edges_and_no_texture(colour: tuple[int, int, int]) -> None:
    found = statistics(flat(*colour))
    nothing = np.array([math.log(0.02), math.log(0.01), math.log(0.001)], np.float32)
    np.testing.assert_array_equal(found[1:4], nothing)
    saturation = (max(colour) - min(colour)) / 255
    assert found[4] == pytest.approx(math.log(saturation + 0.02), rel=2e-7)


def test_black_and_white_are_the_ends_of_light() -> None:
    assert statistics(flat(0, 0, 0))[0] == np.float32(math.log(0.02))
    assert statistics(flat(255, 255, 255))[0] == np.float32(math.log(1.02))


def test_noise_has_more_texture_than_a_gradient_and_a_dark_image_less_light() -> None:
    noisy, smooth = statistics(noise(1, 32)), statistics(gradient(32))
    dark = statistics(gradient(32) // 4)
    assert noisy[3] > smooth[3] + 1
    assert noisy[2] > smooth[2] + 1
    assert dark[0] < smooth[0] - 1


def test_a_large_image_overflows_nothing() -> None:
    checks = np.indices((3, 700, 700)).sum(axis=0) % 2 * 255
    checks = np.broadcast_to(checks[:1], (3, 700, 700)).astype(np.uint8)
    np.testing.assert_allclose(
        statistics(checks),
        [math.log(0.52), math.log(0.52), math.log(2 / 0.52 + 0.01), math.log(2.001), math.log(0.02)],
        rtol=2e-7,
    )


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [
        (noise(1, 32), "4cd728bf40f2c1bf4de93e3f9f30ec3e7af82abf"),
        (noise(7, 224), "50ae27bfb7b0c5bf46803c3fde88f03efead25bf"),
        (gradient(224), "fed227bf9648c7bf51e252c0d35244bf4a421cbf"),
        (gradient(32) // 4, "8f5701c041022ac0371c0bc0ef411dc04988ebbf"),
        (flat(0, 0, 0), "965e7ac0965e7ac08e5d93c0550cddc0965e7ac0"),
        (flat(200, 100, 50), "59db2dbf965e7ac08e5d93c0550cddc02590febe"),
        (flat(9, 9, 9, size=1), "224939c0965e7ac08e5d93c0550cddc0965e7ac0"),
    ],
)
def test_the_bits_are_the_same_for_ever(pixels: Pixels, bits: str) -> None:
    """A state or a trace of another machine, or of an earlier version, is compared with them."""
    assert statistics(pixels).astype("<f4").tobytes().hex() == bits


@pytest.mark.parametrize("size", [(2, 3_000), (3_000, 2), (3_000, 3)])
def test_large_images_do_not_overflow_the_sums(size: tuple[int, int]) -> None:
    """A chequered image has the largest differences that there are."""
    height, width = size
    chequered = np.broadcast_to(255 * (np.indices(size).sum(axis=0) % 2), (3, *size)).astype(np.uint8)
    steps = (width > 1) + (height > 1)
    curvature = 4.0 / steps if min(size) > 2 else 0.0
    expected = [
        math.log(0.52),
        math.log(0.52),
        math.log(steps / 0.52 + 0.01),
        math.log(curvature + 0.001),
        math.log(0.02),
    ]
    np.testing.assert_allclose(statistics(chequered), expected, rtol=1e-4)
