"""Preprocessing is open_clip's own evaluation transform, for every image mode and shape that can arrive."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor

from adawise.decode.codec import MAX_SIDE
from adawise.decode.preprocess import Interpolation, Preprocess, ResizeMode

MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK")
SIZES = ((640, 480), (333, 517), (31, 47), (224, 300), (300, 224), (3, 120), (97, 1), (1, 1))
PLAIN_MODES = ("RGB", "L")
SHARE = 0.001  # of the pixels may differ: the box has float32 coordinates
# Weights of 16 bits where Pillow has 22: a level in a few of a thousand pixels; two in a few of a million, where one of
# the first pass meets one of the second. Where a scale makes many sums of just a half, more of a picture differs.
INTEGER_SHARE, MOST_SHARE, TWO_LEVELS = 0.005, 0.05, 1e-5


def image_of(mode: str, width: int, height: int) -> Image.Image:
    """Structure at two scales and noise, with all alphas; the same for the same arguments."""
    return _made(mode, width, height).copy()


@lru_cache(maxsize=64)
def _made(mode: str, width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 10_000 + height)
    coarse = Image.fromarray(generator.integers(0, 256, (height // 9 + 2, width // 7 + 2, 4), np.uint8), "RGBA")
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels = np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    match mode:
        case "RGBA":
            return image
        case "LA":
            return image.convert("LA")
        case "CMYK":
            return Image.frombytes("CMYK", image.size, pixels.tobytes())
        case "P":
            return image.convert("RGB").quantize(200, Image.Quantize.FASTOCTREE)
        case "I;16":
            return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        case _:
            return image.convert("RGB").convert(mode)


def by_open_clip(image: Image.Image, size: int, mode: ResizeMode, how: Interpolation, fill_color: int = 0) -> Tensor:
    transform = image_transform(
        size,
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=mode,
        interpolation=how,
        fill_color=fill_color,
    )
    pixels: Tensor = transform(image)
    return (pixels * 255).round().to(torch.uint8)


def difference(ours: Tensor, theirs: Tensor) -> Tensor:
    assert ours.dtype == torch.uint8
    assert ours.shape == theirs.shape
    return (ours.int() - theirs.int()).abs()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
def test_shortest_equals_open_clip_within_one_level_of_a_thousandth_of_the_pixels(
    mode: str, how: Interpolation
) -> None:
    for width, height in SIZES:
        theirs = by_open_clip(image_of(mode, width, height), 224, "shortest", how)
        off = difference(Preprocess(224, "shortest", how)(image_of(mode, width, height)), theirs)
        share = 2 * INTEGER_SHARE if mode in PLAIN_MODES else SHARE
        assert float((off > 0).float().mean()) <= share, (width, height)
        # undoing near-zero alpha magnifies a level, CMYK multiplies two bands
        if mode in (*PLAIN_MODES, "1", "P"):
            assert int((off > 1).sum()) <= (4 if mode in PLAIN_MODES else 0), (width, height)
            assert int(off.max()) <= 2, (width, height)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resize_mode", ["squash", "longest"])
def test_squash_and_longest_equal_open_clip_exactly_but_for_the_weights_bits(
    mode: str, resize_mode: ResizeMode
) -> None:
    for width, height in (*SIZES, (300, 620), (480, 640)):
        for size in (96, 224):
            if resize_mode == "longest" and max(width, height) > size * 2 * min(width, height):
                continue  # open_clip rounds a side to nothing there, and raises
            theirs = by_open_clip(image_of(mode, width, height), size, resize_mode, "bicubic", 7)
            off = difference(Preprocess(size, resize_mode, "bicubic", 7)(image_of(mode, width, height)), theirs)
            assert int(off.max()) <= (1 if mode in PLAIN_MODES else 0), (width, height, size)
            assert float((off > 0).float().mean()) <= 2 * INTEGER_SHARE, (width, height, size)


@pytest.mark.parametrize("mode", PLAIN_MODES)
@pytest.mark.parametrize("sides", [(300, 600), (300, 601), (225, 500), (300, 1_200), (300, 1_201), (40, 3_000)])
def test_shortest_resizes_x_first_however_tall_a_picture_is(mode: str, sides: tuple[int, int]) -> None:
    """As it always did; Pillow 13, and so open_clip, begins with y beyond 2:1."""
    levels = np.random.default_rng(4).integers(0, 2, (sides[1], sides[0], 3), np.uint8) * np.uint8(255)
    image = Image.fromarray(levels).convert(mode)
    height = 224 * sides[1] // sides[0]
    whole = image.resize((224, sides[1]), Image.Resampling.BICUBIC).resize((224, height), Image.Resampling.BICUBIC)
    top = round((height - 224) / 2)
    expected = np.array(whole.crop((0, top, 224, top + 224)).convert("RGB"))
    off = difference(Preprocess(224)(image), torch.from_numpy(expected).permute(2, 0, 1))
    assert int(off.max()) <= 2
    assert float((off > 0).float().mean()) <= 2 * INTEGER_SHARE


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
@pytest.mark.parametrize("fit", ["shortest", "squash", "longest"])
def test_the_id_before_gave_the_same_pixels_but_for_a_level_in_a_few_of_them(
    fit: ResizeMode, how: Interpolation
) -> None:
    """Which lets cards and states go on: see `continues`."""
    preprocess, pixels, off, off_by_two = Preprocess(224, fit, how), 0, 0, 0
    assert preprocess.continues == (f"pillow-{how}-{fit}{'-fill0' if fit == 'longest' else ''}-224/1",)
    sides = np.random.default_rng(3).integers(30, 1_200, (6, 2)).tolist()
    for width, height in (*sides, (640, 480), (1_920, 1_080), (448, 448), (896, 672)):
        for mode in PLAIN_MODES:
            image = image_of(mode, width, height)
            before = torch.from_numpy(preprocess._by_pillow(image.copy())).permute(2, 0, 1)
            found = difference(preprocess(image), before)
            assert int(found.max()) <= 2, (width, height)
            assert float((found > 0).float().mean()) <= MOST_SHARE, (width, height)
            pixels, off = pixels + found.numel(), off + int((found > 0).sum())
            off_by_two += int((found > 1).sum())
    assert 0 < off <= INTEGER_SHARE * pixels
    assert off_by_two <= TWO_LEVELS * pixels


@pytest.mark.parametrize("fit", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_without_torch_the_pixels_are_the_same(mode: str, fit: ResizeMode) -> None:
    for sides in (*SIZES, (224, 224), (500, 130)):
        preprocess = Preprocess(224, fit, fill_color=9)
        pixels = preprocess.pixels(image_of(mode, *sides))
        assert torch.equal(torch.from_numpy(pixels), preprocess(image_of(mode, *sides))), sides
        assert pixels.flags.c_contiguous


def test_what_is_long_or_tall_is_never_resized_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it is made that is larger than four times the model's input."""
    sizes = []
    whole = Preprocess._by_integers

    def watched(preprocess: Preprocess, pixels: Any, *rest: Any) -> Any:
        sizes.append(preprocess._whole(pixels.shape[1], pixels.shape[0]))
        return whole(preprocess, pixels, *rest)

    monkeypatch.setattr(Preprocess, "_by_integers", watched)
    for fit, tallest in (("shortest", 4), ("longest", 2), ("squash", 1)):
        sizes.clear()
        for sides in ((400, 100), (100, 100 * tallest)):
            Preprocess(32, fit)(Image.new("RGB", sides))  # type: ignore[arg-type]
        assert len(sizes) == 2
        assert max(width * height for width, height in sizes) <= 4 * 32 * 32
        for sides in ((401, 100), (100, 100 * tallest + 1), (1, MAX_SIDE), (MAX_SIDE, 1)):
            Preprocess(32, fit)(Image.new("RGB", sides))  # type: ignore[arg-type]
        assert len(sizes) == 2


def test_extreme_aspect_ratios_equal_open_clip() -> None:
    for size in ((1, 4000), (4000, 1), (7, 2000)):
        theirs = by_open_clip(image_of("L", *size), 64, "shortest", "bicubic")
        off = difference(Preprocess(64)(image_of("L", *size)), theirs)
        assert int(off.max()) <= 1
        assert float((off > 0).float().mean()) <= SHARE


def test_a_line_of_millions_of_pixels_costs_no_more_than_its_middle() -> None:
    line = Image.new("L", (4_000_000, 1), 0)
    line.paste(200, (2_000_000, 0, 4_000_000, 1))
    pixels = Preprocess(224)(line)  # resized whole it would have 2e11 pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[0, 0, -1] == 200


def passes_over_the_whole(image: Image.Image, size: int, how: Interpolation) -> Tensor:
    """`shortest` with a first pass over every row and a premultiplied copy of the whole: what the id has stood for."""
    width, height = image.size
    resized = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    starts = [round((side - size) / 2) for side in resized]
    mode, resampling = image.mode, {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[how]
    image = image.convert({"RGBA": "RGBa", "LA": "La"}.get(mode, mode))
    for axis in (0, 1):
        whole, across = image.size[axis], image.size[1 - axis]
        start = starts[axis] * whole / resized[axis]
        stop = (starts[axis] + size) * whole / resized[axis]
        reach = math.ceil(2 * max(1.0, (stop - start) / size)) + 1
        first, last = max(0, math.floor(start) - reach), min(whole, math.ceil(stop) + reach)
        if axis == 0:
            image = image.crop((first, 0, last, across))
            image = image.resize((size, across), resampling, (start - first, 0.0, stop - first, float(across)))
        else:
            image = image.crop((0, first, across, last))
            image = image.resize((across, size), resampling, (0.0, start - first, float(across), stop - first))
    return torch.from_numpy(np.array(image.convert(mode).convert("RGB"))).permute(2, 0, 1)


@example("RGBA", (224, 225), True, 224, "bicubic")
@given(
    st.sampled_from([mode for mode in MODES if mode not in ("1", "P")]),
    st.tuples(st.integers(1, 700), st.integers(1, 700)) | st.tuples(st.integers(1, 5), st.integers(1, 9_000)),
    st.booleans(),
    st.sampled_from([32, 64, 224]),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_rows_that_are_cut_away_first_change_no_bit(
    mode: str, sides: tuple[int, int], lying: bool, size: int, how: Interpolation
) -> None:
    """The id names the arithmetic, and cards and states are tied to it."""
    image = image_of(mode, *(sides[::-1] if lying else sides))
    preprocess = Preprocess(size, "shortest", how)
    if image.size == preprocess._whole(*image.size):
        return  # untouched
    ours = torch.from_numpy(preprocess._by_pillow(image.copy())).permute(2, 0, 1)
    assert int(difference(ours, passes_over_the_whole(image, size, how)).max()) == 0


@pytest.mark.parametrize("fit", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("sides", [(1, MAX_SIDE), (MAX_SIDE, 1), (3, MAX_SIDE)])
@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P"])
def test_the_longest_line_takes_no_more_memory_than_its_pixels_and_rows_of_the_models_width(
    monkeypatch: pytest.MonkeyPatch, fit: ResizeMode, sides: tuple[int, int], mode: str
) -> None:
    """`shortest` made 224 pixels of each of its rows, in a picture of which 224 are left."""
    most = 0
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *arguments: Any, **more: Any) -> Image.Image:
        nonlocal most
        most = max(most, size[0] * size[1], size[0] * image.height if fit != "longest" else 0)
        return resize(image, size, *arguments, **more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    line = Image.new(mode, sides)
    assert Preprocess(224, fit)(line).shape == (3, 224, 224)
    assert most <= {"shortest": 224 * 224, "squash": 224 * MAX_SIDE, "longest": 224 * 3}[fit]


def test_longest_keeps_a_line_where_open_clip_gives_up() -> None:
    line = Image.new("RGB", (1, 4000), (255, 0, 0))
    with pytest.raises(ValueError, match="height and width"):
        by_open_clip(line, 96, "longest", "bicubic")
    pixels = Preprocess(96, "longest")(line)
    assert pixels[0].sum(dim=0).count_nonzero() == 1


@pytest.mark.parametrize("transparency", [b"\x00\x80\xff", 3])
def test_a_palette_with_transparency_warns_nobody_and_equals_open_clip(transparency: bytes | int) -> None:
    image = image_of("P", 90, 70)
    image.info["transparency"] = transparency
    ours = Preprocess(64)(image.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # open_clip lets Pillow warn
        theirs = by_open_clip(image, 64, "shortest", "bicubic")
    assert int(difference(ours, theirs).max()) == 0


def test_the_id_names_all_that_changes_the_result() -> None:
    variants = [
        Preprocess(224),
        Preprocess(96),
        Preprocess(224, "squash"),
        Preprocess(224, "longest"),
        Preprocess(224, "longest", fill_color=7),
        Preprocess(224, interpolation="bilinear"),
    ]
    assert len({variant.id for variant in variants}) == len(variants)
    assert Preprocess(224).id == "integer-bicubic-shortest-224/2"
    assert Preprocess(224, fill_color=7).id == Preprocess(224).id, "only `longest` pads"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "size is 0"), ((224, "crop"), "'crop'"), ((224, "shortest", "nearest"), "'nearest'")],
)
def test_what_open_clip_does_not_know_is_refused(arguments: tuple[int, str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocess(*arguments)  # type: ignore[arg-type]
