"""Opening a stranger's image: four formats, no metadata, no pixel before its cost is known, no endless work."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from adawise.decode.codec import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS, MAX_SIDE, foreign, open_image, rgb, sniff
from adawise.errors import InvalidMessage, Reason
from tests.hostile import picture, png_chunk
from tools.fuzz.extremes import png

RNG = random.Random(0)


def saved(image: Image.Image, codec: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, codec, **options)
    return out.getvalue()


def reason_of(data: bytes, max_pixels: int = 1_000_000) -> Reason:
    with pytest.raises(InvalidMessage) as caught:
        open_image(data, max_pixels=max_pixels).load()
    return caught.value.reason


@pytest.mark.parametrize(
    ("codec", "mode", "media_type"),
    [
        ("JPEG", "RGB", "image/jpeg"),
        ("JPEG", "L", "image/jpeg"),
        ("JPEG", "CMYK", "image/jpeg"),
        ("PNG", "RGB", "image/png"),
        ("PNG", "RGBA", "image/png"),
        ("PNG", "P", "image/png"),
        ("PNG", "LA", "image/png"),
        ("PNG", "1", "image/png"),
        ("PNG", "I;16", "image/png"),
        ("WEBP", "RGB", "image/webp"),
        ("WEBP", "RGBA", "image/webp"),
        ("BMP", "RGB", "image/bmp"),
        ("BMP", "P", "image/bmp"),
    ],
)
def test_each_format_and_mode_has_the_pixels_that_pillow_itself_reads(codec: str, mode: str, media_type: str) -> None:
    data = saved(Image.new("I;16", (9, 7), 40_000), "PNG") if mode == "I;16" else picture(RNG, codec, mode)
    with Image.open(io.BytesIO(data)) as theirs:
        ours = open_image(data, max_pixels=10_000)
        assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
        assert ours.tobytes() == theirs.tobytes()
    assert sniff(data) == media_type


def test_a_progressive_jpeg_with_metadata_has_the_same_pixels_and_no_metadata() -> None:
    image = Image.open(io.BytesIO(picture(RNG)))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: open_clip ignores it, and so do we
    data = saved(image, "JPEG", progressive=True, exif=exif, comment=b"hello", icc_profile=bytes(300))
    with Image.open(io.BytesIO(data)) as theirs:
        assert theirs.getexif()
        ours = open_image(data, max_pixels=10_000)
        assert ours.tobytes() == theirs.tobytes()
    assert not ours.getexif()
    assert not {"exif", "comment", "icc_profile"} & ours.info.keys()


def test_broken_exif_raises_no_warning() -> None:
    plain = picture(RNG)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x1a\x01\x05\0\xff\xff\xff\x7f\xff\xff\xff\x7f"
    data = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[20:]
    with pytest.warns(UserWarning, match=r".*"):
        Image.open(io.BytesIO(data))
    assert open_image(data, max_pixels=10_000).size == (40, 30)  # warnings are errors here


def test_a_large_image_within_the_limit_raises_no_warning() -> None:
    data = saved(Image.new("1", (10_000, 10_000)), "PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))
    assert open_image(data, max_pixels=10**8).size == (10_000, 10_000)


@pytest.mark.parametrize("codec", ["PNG", "WEBP"])
def test_of_an_animation_the_first_image_is_read(codec: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], codec, save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(data, max_pixels=10_000).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_a_text_chunk_that_unpacks_to_megabytes_is_never_unpacked() -> None:
    data = picture(RNG, "PNG")
    bomb = png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(20_000_000)))
    hostile = data[:33] + bomb + data[33:]
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(hostile))
    assert open_image(hostile, max_pixels=10_000).tobytes() == open_image(data, max_pixels=10_000).tobytes()


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "BMP"])
def test_an_image_of_exactly_the_limit_is_read_and_one_pixel_more_is_not(codec: str) -> None:
    data = picture(RNG, codec)
    assert open_image(data, max_pixels=1_200).size == (40, 30)
    assert reason_of(data, max_pixels=1_199) == Reason.TOO_MANY_PIXELS


def test_what_pillow_could_read_but_no_one_agreed_on_is_unsupported() -> None:
    for codec in ("GIF", "TIFF", "PPM", "ICO", "TGA"):
        assert reason_of(picture(RNG, codec)) == Reason.UNSUPPORTED_FORMAT


def test_junk_between_jpeg_segments_is_skipped() -> None:
    data = picture(RNG)
    with_junk = data[:20] + b"junk\xff\x00\xff\xff" + data[20:]  # after the JFIF segment
    assert open_image(with_junk, max_pixels=10_000).tobytes() == open_image(data, max_pixels=10_000).tobytes()


def test_structure_without_end_is_undecodable() -> None:
    jpeg, png = picture(RNG), picture(RNG, "PNG")
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    assert reason_of(jpeg[:2] + b"\xff\xfe\0\x02" * (MAX_SEGMENTS + 1) + jpeg[2:]) == Reason.UNDECODABLE_IMAGE
    assert reason_of(jpeg[:-2] + scan * MAX_SCANS + jpeg[-2:]) == Reason.UNDECODABLE_IMAGE
    assert reason_of(png[:33] + png_chunk(b"IDAT", b"") * MAX_CHUNKS + png[33:]) == Reason.UNDECODABLE_IMAGE


@pytest.mark.parametrize(
    "error",
    [MemoryError(), struct.error("x"), OverflowError(), RecursionError(), zlib.error(), EOFError(), SyntaxError("x")],
    ids=repr,
)
def test_whatever_a_codec_raises_is_a_reason(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.__init__", fail)
    assert reason_of(picture(RNG, "PNG")) == Reason.UNDECODABLE_IMAGE


def test_an_interrupt_within_a_codec_is_none_of_the_images_business(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.__init__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_image(picture(RNG, "PNG"), max_pixels=10_000)


def test_an_image_with_a_side_of_exactly_the_cap_is_read_and_one_pixel_more_is_not() -> None:
    for sides in ((MAX_SIDE, 1), (1, MAX_SIDE)):
        assert open_image(png(*sides, depth=8, colours=0), max_pixels=34_000_000).size == sides
    for sides in ((MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (33_600_000, 1)):
        hostile = png(*sides, depth=16, colours=6, data=bytes(5_000))
        with pytest.raises(InvalidMessage, match=r"sides of at most 65535 pixels, the header says \d+ x \d+") as caught:
            open_image(hostile, max_pixels=34_000_000)
        assert caught.value.reason == Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("codec", "mode", "name"),
    [
        *(("AVIF", "RGB", "AVIF"), ("JPEG2000", "RGB", "JPEG 2000"), ("ICO", "RGB", "ICO")),
        *(("TGA", mode, "TGA") for mode in ("RGB", "RGBA", "L", "P")),
    ],
)
def test_formats_that_begin_with_a_zero_byte_are_known_by_name(codec: str, mode: str, name: str) -> None:
    value = picture(RNG, codec, mode)
    assert foreign(value) == name
    if name == "TGA":
        assert foreign(value[:-26]) == name, "as the first version of the format has it, without a footer"
    with pytest.raises(InvalidMessage, match=f"got {name}"):
        open_image(value, max_pixels=10_000)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]), st.binary(max_size=40))
def test_what_a_serializer_framed_is_no_image_of_another_format(schema: int, codec: str, more: bytes) -> None:
    """In a registry of fewer than 65,536 schemas; beyond, a TGA's first bytes may be meant."""
    framed = b"\0" + struct.pack(">I", schema % 65_536)
    assert foreign(framed + picture(RNG, codec)) is None
    assert foreign(framed + more) is None


@pytest.mark.parametrize("codec", ["PNG", "JPEG", "BMP"])
def test_a_size_that_the_data_cannot_hold_is_known_before_the_pixels_are_made(codec: str) -> None:
    lying = bytearray(picture(RNG, codec))
    match codec:
        case "PNG":
            lying[8:33] = png_chunk(b"IHDR", struct.pack(">II", 7_000, 7_000) + bytes(lying[24:29]))
        case "JPEG":
            at = lying.index(b"\xff\xc0") + 5
            lying[at : at + 4] = struct.pack(">HH", 7_000, 7_000)
        case "BMP":
            lying[18:26] = struct.pack("<II", 7_000, 7_000)
    tracemalloc.start()
    assert reason_of(bytes(lying), max_pixels=50_000_000) == Reason.UNDECODABLE_IMAGE
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("codec", ["PNG", "JPEG"])
def test_the_emptiest_large_image_still_holds_its_size(codec: str) -> None:
    """So small that a sharper bound would refuse it: one colour, packed as well as can be."""
    options = {"progressive": True, "optimize": True} if codec == "JPEG" else {"compress_level": 9}
    data = saved(Image.new("L" if codec == "JPEG" else "1", (5_000, 5_000)), codec, **options)
    assert open_image(data, max_pixels=50_000_000).getextrema() == (0, 0)


def test_a_png_without_image_data_is_no_black_image() -> None:
    data = picture(RNG, "PNG")
    assert reason_of(data[:33] + png_chunk(b"IEND", b"")) == Reason.UNDECODABLE_IMAGE


def test_what_stands_behind_the_image_data_of_a_png_changes_nothing() -> None:
    data = picture(RNG, "PNG", "P")
    header, palette = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)), png_chunk(b"PLTE", bytes(768))
    late = data[:-12] + header + palette + png_chunk(b"tRNS", b"\0\x80") + data[-12:]
    ours, plain = open_image(late, max_pixels=10_000), open_image(data, max_pixels=10_000)
    assert ours.convert("RGB").tobytes() == plain.convert("RGB").tobytes()
    assert "transparency" not in ours.info


def test_a_webp_canvas_beyond_what_an_image_can_fill_is_undecodable() -> None:
    """970 bytes that claimed 24 x 1,477,906 pixels took 1.7 s; the fuzz campaign found it."""
    frames = [Image.new("RGB", (24, 18), colour) for colour in ("red", "lime")]
    data = bytearray(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert data[12:16] == b"VP8X"
    data[27:30] = (1_477_905).to_bytes(3, "little")
    assert reason_of(bytes(data), max_pixels=50_000_000) == Reason.UNDECODABLE_IMAGE
    data[27:30] = (1_000).to_bytes(3, "little")
    assert open_image(bytes(data), max_pixels=50_000_000).size == (24, 1_001)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_lossy_webp_that_claims_more_pixels_than_its_data_can_hold_is_undecodable(mode: str) -> None:
    """Its headers say 4000 x 4000, its data is that of 40 x 30."""
    image = Image.effect_noise((40, 30), 50).convert("RGB")
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    data = bytearray(saved(image, "WEBP", quality=1))
    assert data[12:16].decode() == ("VP8X" if mode == "RGBA" else "VP8 ")
    if mode == "RGBA":
        data[24:30] = (3_999).to_bytes(3, "little") * 2
    image_at = data.index(b"VP8 ")
    data[image_at + 14 : image_at + 18] = (4_000).to_bytes(2, "little") * 2
    with pytest.raises(InvalidMessage, match=r"data for 4000 x 4000 pixels, got .* which cannot hold them") as caught:
        open_image(bytes(data), max_pixels=50_000_000)
    assert caught.value.reason == Reason.UNDECODABLE_IMAGE


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_of_one_colour_is_read_however_small_it_is(lossless: bool) -> None:
    data = saved(Image.new("RGB", (2_000, 1_500), "navy"), "WEBP", lossless=lossless, quality=0, method=0)
    assert len(data) < 10_000
    blue = open_image(data, max_pixels=3_000_000).convert("RGB").tobytes()[2::3]
    assert min(blue) > 100


@pytest.mark.parametrize(
    ("progressive", "marker", "expected"),
    [
        (False, 0xC9, "arithmetic-coded"),
        (True, 0xCA, "arithmetic-coded"),
        (False, 0xC3, "lossless or hierarchical"),
        (False, 0xC5, "lossless or hierarchical"),
    ],
)
def test_a_jpeg_that_not_every_libjpeg_reads_is_refused_with_a_reason_that_says_so(
    progressive: bool, marker: int, expected: str
) -> None:
    usual = saved(Image.open(io.BytesIO(picture(RNG))), "JPEG", progressive=progressive)
    at = usual.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 1
    assert open_image(usual, max_pixels=10_000).size == (40, 30)
    with pytest.raises(
        InvalidMessage, match=f"expected a baseline or progressive JPEG, got one that is {expected}"
    ) as caught:
        open_image(usual[:at] + bytes([marker]) + usual[at + 1 :], max_pixels=10_000)
    assert caught.value.reason == Reason.UNSUPPORTED_FORMAT


def jpegs() -> dict[str, bytes]:
    """Of every kind that is read."""
    small = Image.frombytes("RGB", (9, 7), RNG.randbytes(9 * 7 * 3))
    image = small.resize((203, 151), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    found = {
        "progressive": saved(image, "JPEG", progressive=True),
        "grey": saved(image.convert("L"), "JPEG"),
        "four colours": saved(image.convert("CMYK"), "JPEG"),
        "of RGB": saved(image, "JPEG", keep_rgb=True),
        "restarts": saved(image, "JPEG", restart_marker_blocks=3),
        "best": saved(image, "JPEG", quality=100),
    }
    kinds = ("444", "422", "420", "440", "411")
    return found | {kind: simplejpeg.encode_jpeg(pixels, colorsubsampling=kind) for kind in kinds}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes are others, gone, new, a marker or from elsewhere; or the end is missing."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(3, rng.choice((len(broken), min(len(broken), 700))))
        match rng.randrange(6):
            case 0:
                broken[at] = rng.randrange(256)
            case 1:
                del broken[at : at + rng.randrange(1, 30)]
            case 2:
                broken[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                broken[at : at + 2] = bytes([0xFF, rng.choice((0xD0, 0xD9, 0xDA, 0xDD, 0xC4, 0xDB, 0xFE))])
            case 4:
                start = rng.randrange(2, len(broken))
                broken[at:at] = broken[start : start + rng.randrange(200)]
            case _:
                return bytes(broken[: max(4, at)])
    return bytes(broken)


def read_by(how: Callable[[Image.Image], npt.NDArray[np.uint8]], data: bytes) -> npt.NDArray[np.uint8] | str:
    """The pixels, or why there are none."""
    try:
        image = open_image(data, max_pixels=1_000_000)
        return how(image) if image.mode in ("RGB", "L") else image.mode
    except Exception as error:  # noqa: BLE001  of any kind, and the same
        return repr(error)


def by_pillow(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.array(image.convert("RGB"))


def test_a_jpeg_is_read_or_refused_as_by_pillow_whatever_is_wrong_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    rng, refused = random.Random(4), 0
    kinds = jpegs()
    values = [*kinds.values(), *(damaged(rng.choice([*kinds.values()]), rng) for _ in range(1_500))]
    good = kinds["420"]
    values += [good[:-1], good[:-2], good[: len(good) // 2], good + b"x", good + good, b"\xff\xd8\xff\xff" + good[2:]]
    for number, data in enumerate(values):
        ours, theirs = read_by(rgb, data), read_by(by_pillow, data)
        assert np.array_equal(ours, theirs), number
        refused += isinstance(ours, str)
    assert 300 < refused < 1_200
    assert capfd.readouterr() == ("", "")


def test_a_baseline_jpeg_without_a_fault_is_not_read_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [open_image(data, max_pixels=1_000_000) for kind, data in jpegs().items() if kind != "progressive"]
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    assert {rgb(image).shape for image in images if image.mode in ("RGB", "L")} == {(151, 203, 3)}


def test_what_is_done_to_an_opened_jpeg_is_not_lost() -> None:
    image = open_image(picture(RNG), max_pixels=1_000_000)
    image.paste((1, 2, 3), (0, 0, *image.size))
    assert rgb(image).reshape(-1, 3).tolist() == [[1, 2, 3]] * (40 * 30)
