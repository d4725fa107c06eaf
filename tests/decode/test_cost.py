"""Pixels against bytes: no honest picture is refused, however dark or flat; what nobody's camera sends is."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image, ImageFilter

from adawise.decode.codec import open_image
from adawise.decode.cost import FREE_NS, allowed_ns, estimated_ns
from adawise.errors import InvalidMessage
from tools.fuzz.extremes import FAMILIES, jpeg_of_scans, png

SIZES = {"VGA": (640, 480), "HD": (1_280, 720), "Full HD": (1_920, 1_080), "5 MP": (2_592, 1_944), "4K": (3_840, 2_160)}
LARGEST = (7_680, 4_320)
MAX_PIXELS = 34_000_000

BILLED = {
    "PNG 1 bit": 0.8,
    "PNG 1 bit interlaced": 4.8,
    "PNG grey": 5.2,
    "PNG grey 16": 8.9,
    "PNG palette": 2.4,
    "PNG palette 1 bit": 0.8,
    "PNG colour": 13.6,
    "PNG colour interlaced": 17.6,
    "PNG colour Paeth": 13.6,
    "PNG colour 16": 20.2,
    "PNG grey alpha": 11.9,
    "PNG grey alpha 16": 22.3,
    "PNG alpha": 22.3,
    "PNG alpha 16": 31.1,
    "PNG alpha 16 interlaced": 35.1,
    "WebP lossless": 12.0,
    "WebP lossless gradient": 12.0,
    "WebP lossless alpha": 18.5,
    "WebP lossless animated": 12.0,
    "WebP lossy": 12.0,
    "WebP lossy alpha": 18.5,
    "JPEG grey": 5.2,
    "JPEG colour": 10.3,
    "JPEG grey, 1 scan": 5.2,
    "JPEG grey, 10 scans": 5.2,
    "JPEG grey, 50 scans": 29.2,
    "JPEG colour, 10 scans": 10.3,
    "JPEG colour 4:4:4, 10 scans": 13.6,
    "JPEG colour 4:4:4, 50 scans": 85.6,
    "JPEG four colours, 10 scans": 17.8,
    "JPEG four colours, 50 scans": 113.8,
    "BMP 1 bit": 1.2,
    "BMP colour": 8.0,
}


def share(data: bytes, images: int = 1) -> float:
    """Of what a message of this many such images may ask for; more than 1 is refused."""
    image = open_image(data, max_pixels=MAX_PIXELS)
    return images * estimated_ns(image) / allowed_ns(images * len(data))


def saved(image: Image.Image, codec: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, codec, **options)
    return out.getvalue()


def at_night(size: tuple[int, int]) -> Image.Image:
    """Black, with a few lamps and nothing else: a sensor's noise that was cut off."""
    rng = random.Random(7)
    image = Image.new("RGB", size)
    for _ in range(12):
        lamp = Image.new("RGB", (40, 40))
        lamp.paste((255, 240, 200), (15, 15, 25, 25))
        place = rng.randrange(size[0] - 40), rng.randrange(size[1] - 40)
        image.paste(lamp.filter(ImageFilter.GaussianBlur(6)), place)
    return image


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("colour", ["black", "grey", "navy"])
@pytest.mark.cases("damage", every=4)
def test_a_flat_picture_is_accepted_from_every_lossy_encoder_and_as_png(size: tuple[int, int], colour: str) -> None:
    for mode in ("RGB", "L"):
        flat = Image.new("RGB", size, colour).convert(mode)
        for options in ({"quality": 1}, {"optimize": True}, {"optimize": True, "progressive": True}):
            assert share(saved(flat, "JPEG", **options)) <= 1.0, (mode, options)
        assert share(saved(flat, "PNG", compress_level=9)) <= 1.0, mode
    assert share(saved(flat, "WEBP", quality=1, method=0)) <= 1.0


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_night_with_a_few_lamps_is_accepted_from_every_encoder(size: tuple[int, int]) -> None:
    night = at_night(size)
    assert share(saved(night, "JPEG", optimize=True, progressive=True)) <= 1.0
    assert share(saved(night, "PNG")) <= 1.0
    assert share(saved(night, "WEBP", quality=1, method=0)) <= 1.0


@pytest.mark.parametrize(
    ("depth", "colours"),
    [*((depth, 0) for depth in (1, 8, 16)), *((depth, 3) for depth in (1, 2, 4, 8))]
    + [(depth, colours) for depth in (8, 16) for colours in (2, 4, 6)],
)
def test_a_flat_png_of_8k_is_accepted_in_every_depth_that_encoders_write(depth: int, colours: int) -> None:
    assert share(png(*LARGEST, depth=depth, colours=colours)) <= 1.0


def test_a_black_jpeg_of_8k_is_accepted() -> None:
    for mode in ("L", "RGB"):
        black = Image.new(mode, LARGEST)
        assert share(saved(black, "JPEG", optimize=True, progressive=True)) <= 1.0
        assert share(saved(black, "JPEG")) <= 1.0


def test_a_batch_of_black_frames_is_accepted() -> None:
    """The camera is on, and its lens is covered."""
    for mode in ("L", "RGB"):
        black = Image.new(mode, SIZES["VGA"])
        assert share(saved(black, "JPEG"), 256) <= 1.0
        assert share(saved(black, "JPEG", optimize=True, progressive=True), 256) <= 1.0
        assert share(saved(black, "PNG"), 256) <= 1.0


def test_the_emptiest_full_hd_picture_is_accepted_in_34_bytes() -> None:
    flat = FAMILIES["WebP lossless"](*SIZES["Full HD"])
    assert len(flat) < 40
    assert share(flat) <= 1.0


@pytest.mark.parametrize("family", ["WebP lossless", "WebP lossless alpha", "WebP lossless animated"])
def test_a_flat_lossless_webp_of_8k_asks_for_too_much(family: str) -> None:
    assert share(FAMILIES[family](*LARGEST)) > 5.0


def test_a_line_counts_as_what_the_resize_makes_of_it() -> None:
    for sides in ((1, 65_535), (65_535, 1)):
        assert share(png(*sides, depth=8, colours=0)) > 1.0
    assert share(png(1, 4_096, depth=8, colours=2)) <= 1.0


def test_a_jpeg_whose_layers_have_no_samples_ends_nothing() -> None:
    data = bytearray(saved(Image.new("RGB", (40, 30)), "JPEG"))
    at = data.index(b"\xff\xc0") + 10
    for layer in range(3):
        data[at + 1 + 3 * layer] = 0
    assert estimated_ns(open_image(bytes(data), max_pixels=MAX_PIXELS)) > 0.0


def test_the_bill_of_every_family_is_what_it_was() -> None:
    """Nanoseconds a pixel: with others, a replay would reject what a worker accepted, or the other way round."""
    billed = {}
    for family, make in FAMILIES.items():
        data = make(300, 300)
        billed[family] = round(estimated_ns(open_image(data, max_pixels=MAX_PIXELS)) / 300**2, 2)
    assert billed == BILLED


def test_scans_that_say_nothing_are_counted() -> None:
    few, many = (jpeg_of_scans(1_500, 1_300, layers=1, scans=n) for n in (9, 49))
    assert share(few) <= 1.0
    assert share(many) > 1.0
    assert abs(len(few) - len(many)) < 1_000


def test_the_estimate_is_of_the_header_alone() -> None:
    """Pixels that cannot be decoded cost as much as those that can."""
    good = png(1_000, 1_000, depth=8, colours=2)
    broken = png(1_000, 1_000, depth=8, colours=2, data=bytes(len(good)))
    costs = [estimated_ns(open_image(data, max_pixels=MAX_PIXELS)) for data in (good, broken)]
    assert costs[0] == costs[1] <= FREE_NS


def test_every_family_of_extremes_is_what_it_says() -> None:
    for family, make in FAMILIES.items():
        for sides in ((40, 30), (1, 300), (257, 3)):
            data = make(*sides)
            image = open_image(data, max_pixels=MAX_PIXELS)
            image.load()
            assert (image.size, image.format) == (sides, {"WebP": "WEBP"}.get(family.split()[0], family.split()[0]))
            assert estimated_ns(open_image(data, max_pixels=MAX_PIXELS)) > 0.0


def test_a_size_that_is_refused_anyway_needs_no_estimate() -> None:
    with pytest.raises(InvalidMessage, match="sides of at most"):
        open_image(png(10_000_000, 1, depth=8, colours=0, data=bytes(3_000)), max_pixels=MAX_PIXELS)
