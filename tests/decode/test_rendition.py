"""What cameras need beyond open_clip: 16-bit grey is seen, a turned picture stands upright, a large one costs less."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from adawise.decode.codec import open_image
from adawise.decode.preprocess import Preprocess, ResizeMode
from adawise.decode.rendition import AS_OPEN_CLIP, Rendition, to_8_bits
from tests.decode.test_preprocess import by_open_clip, difference, image_of
from tests.hostile import png_chunk

TAG = 0x0112
PLAIN = Preprocess(64)
UPRIGHT = Preprocess(64, rendition=Rendition(orientation="apply"))
REDUCED = Preprocess(64, rendition=Rendition(reduced=True))
every_fit = pytest.mark.parametrize("fit", ["shortest", "squash", "longest"])


def saved(image: Image.Image, codec: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, codec, **options)
    return out.getvalue()


def decoded(preprocess: Preprocess, data: bytes) -> torch.Tensor:
    return preprocess(open_image(data, max_pixels=10**7))


def thermal(width: int = 160, height: int = 120) -> Image.Image:
    """A room at 14 bits: some hundred levels of 65,536."""
    grey = np.asarray(image_of("L", width, height)).astype(np.uint16)
    return Image.fromarray(7_000 + 2 * grey)


@every_fit
def test_16_bit_grey_is_what_open_clip_makes_of_the_same_picture_in_8_bits(fit: ResizeMode) -> None:
    """Of the 16 bits themselves it makes white."""
    assert set(by_open_clip(thermal(), 64, "squash", "bicubic").flatten().tolist()) == {255}
    ours = decoded(Preprocess(64, fit), saved(thermal(), "PNG"))
    off = difference(ours, by_open_clip(to_8_bits(thermal(), None), 64, fit, "bicubic"))
    assert int(off.max()) <= 1
    assert float((off > 0).float().mean()) < 0.01
    assert len(set(ours.flatten().tolist())) > 100


def test_16_bit_grey_by_a_fixed_range() -> None:
    data = saved(thermal(), "PNG")
    cold = decoded(Preprocess(64, rendition=Rendition(grey16_range=(7_000, 40_000))), data)
    assert int(cold.max()) <= 5
    own = decoded(PLAIN, data)
    assert int(own.max()) == 255


def test_16_bit_colour_is_its_high_byte() -> None:
    """So does open_clip: Pillow reads no more of it. A grey picture with alpha is read so, too."""
    values = np.random.default_rng(0).integers(0, 65_536, (12, 16, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    image = open_image(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks), max_pixels=1_000)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), (values >> 8).astype(np.uint8))


@every_fit
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP"])
def test_a_turned_picture_is_the_one_that_pillow_turns(codec: str, orientation: int, fit: ResizeMode) -> None:
    exif = Image.Exif()
    exif[TAG] = orientation
    data = saved(image_of("RGB", 150, 90), codec, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        theirs = replace(UPRIGHT, resize_mode=fit)(ImageOps.exif_transpose(image))
        as_stored = replace(PLAIN, resize_mode=fit)(image)
    assert torch.equal(decoded(replace(UPRIGHT, resize_mode=fit), data), theirs)
    assert torch.equal(decoded(replace(PLAIN, resize_mode=fit), data), as_stored)
    assert orientation == 1 or not torch.equal(theirs, as_stored)


def test_a_thermal_picture_is_turned_too() -> None:
    exif = Image.Exif()
    exif[TAG] = 6
    turned = decoded(UPRIGHT, saved(thermal(), "PNG", exif=exif))
    assert torch.equal(turned, PLAIN(thermal().transpose(Image.Transpose.ROTATE_270)))


@every_fit
@pytest.mark.parametrize(
    ("side", "scale"), [(127, 1), (255, 1), (256, 2), (511, 2), (512, 4), (1_023, 4), (1_024, 8), (2_100, 8)]
)
def test_a_large_jpeg_is_decoded_at_the_size_that_leaves_twice_the_input(
    side: int, scale: int, fit: ResizeMode
) -> None:
    data = saved(image_of("RGB", side, side), "JPEG")
    image = open_image(data, max_pixels=10**7)
    pixels = replace(REDUCED, resize_mode=fit)(image)
    assert image.size == (-(-side // scale), -(-side // scale))
    assert min(image.size) >= min(side, 2 * 64)
    whole = decoded(replace(PLAIN, resize_mode=fit), data)
    assert torch.equal(pixels, whole) == (scale == 1)
    by_pillow = open_image(data, max_pixels=10**7)
    by_pillow.draft(None, (side // scale, side // scale))
    by_pillow.load()
    assert torch.equal(pixels, replace(PLAIN, resize_mode=fit)(by_pillow))
    assert float(difference(pixels, whole).float().mean()) < 6


def test_what_is_cut_away_does_not_count_for_the_size() -> None:
    image = open_image(saved(image_of("RGB", 1_920, 400), "JPEG"), max_pixels=10**7)
    REDUCED(image)
    assert image.size == (960, 200), "a quarter would leave 100 rows of 128"


@pytest.mark.parametrize("codec", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_whole(codec: str) -> None:
    data = saved(image_of("RGB", 600, 400), codec)
    assert torch.equal(decoded(REDUCED, data), decoded(PLAIN, data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_is_reduced_and_turned(mode: str, progressive: bool) -> None:
    exif = Image.Exif()
    exif[TAG] = 8
    data = saved(image_of(mode, 640, 480), "JPEG", exif=exif, progressive=progressive)
    both = Preprocess(64, "squash", rendition=Rendition(orientation="apply", reduced=True))
    whole = decoded(Preprocess(64, "squash", rendition=Rendition(orientation="apply")), data)
    assert float(difference(decoded(both, data), whole).float().mean()) < 6


def test_the_id_names_what_is_not_as_open_clip_does_it() -> None:
    renditions = [
        AS_OPEN_CLIP,
        Rendition(orientation="apply"),
        Rendition(grey16_range=(7_000, 18_000)),
        Rendition(grey16_range=(7_000, 18_001)),
        Rendition(reduced=True),
        Rendition("apply", (1, 2), reduced=True),
    ]
    assert len({Preprocess(224, rendition=one).id for one in renditions}) == len(renditions)
    assert [one.id for one in renditions[:3]] == ["", "-upright", "-grey16:7000:18000"]
    assert Preprocess(224).id.endswith("-224/2")


def test_an_id_tells_pictures_that_are_read_otherwise_from_another_arithmetic() -> None:
    upright, both = replace(UPRIGHT, size=224), Preprocess(224, rendition=Rendition("apply", (1, 2), reduced=True))
    plain, before = Preprocess(224), Preprocess(224).continues[0]
    for one in (plain, upright, both):
        assert [one.reads_otherwise(other.id) for other in (plain, upright, both)] == [
            other is not one for other in (plain, upright, both)
        ]
        assert one.reads_otherwise(before) == (one is not plain)
        assert not any(one.reads_otherwise(id) for id in ("", UPRIGHT.id, PLAIN.id, Preprocess(224, "squash").id))
    assert upright.continues == both.continues == (), "their pixels are others"
