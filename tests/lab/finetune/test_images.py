"""Decoding for training and judging: crops, what cannot be read, and what is kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adawise.decode.preprocess import Preprocess, ResizeMode
from adawise.decode.rendition import Rendition
from adawise.errors import SettingsError
from adawise_lab.finetune import images as module
from adawise_lab.finetune.images import HeldOut, Images, RandomCrop
from tests.lab.finetune.shapes import png, write_parquet, write_shapes

MakeImages = Callable[[Path], Images]
SQUASH = Preprocess(size=16, resize_mode="squash")


def crop(seed: int, *, least: float = 0.9, flip: float = 0.0) -> RandomCrop:
    return RandomCrop(np.random.default_rng(seed), least=least, flip=flip)


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // (width - 1), y * 255 // (height - 1)
    return Image.fromarray(np.stack([red, green, 0 * red], axis=-1).astype(np.uint8))


def test_a_crop_depends_on_its_random_numbers_alone() -> None:
    first, again, other = (crop(seed)(picture(40, 40), SQUASH) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.dtype, first.shape) == (torch.uint8, (3, 16, 16))


@pytest.mark.parametrize("size", [(400, 300), (1920, 1080), (1080, 1920), (300, 200)])
def test_a_crop_keeps_the_share_of_the_area_that_it_must_and_nearly_the_shape_of_the_image(
    size: tuple[int, int],
) -> None:
    width, height = size
    for least in (0.08, 0.5, 0.9):
        boxes = [crop(seed, least=least)._box(width, height) for seed in range(100)]
        assert len(set(boxes)) > 80
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            w, h = right - left, bottom - top
            assert w * h >= 0.98 * least * width * height  # sides are whole pixels
            assert 0.74 < w * height / (h * width) < 1.36


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (1, 1)])
def test_an_image_of_any_shape_has_a_crop(size: tuple[int, int]) -> None:
    left, top, right, bottom = crop(0, least=0.5)._box(*size)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert crop(0)(picture(*(max(2, side) for side in size)), SQUASH).shape == (3, 16, 16)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_what_is_trained_on_is_what_is_served(mode: ResizeMode) -> None:
    """The whole of a camera's frame, as a crop, is what the model gets of it."""
    frame, preprocess = picture(192, 108), Preprocess(size=32, resize_mode=mode)
    assert torch.equal(crop(0, least=1.0)(frame, preprocess), preprocess(picture(192, 108)))


def test_an_image_is_mirrored_as_often_as_asked() -> None:
    plain, mirrored = (crop(3, flip=flip)(picture(), SQUASH) for flip in (0.0, 1.0))
    assert torch.equal(plain.flip(2), mirrored)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_kind_of_image_can_be_cropped(mode: str) -> None:
    image = Image.new("I;16", (40, 40)) if mode == "I;16" else picture(40, 40).convert(mode)
    assert crop(0)(image, SQUASH).shape == (3, 16, 16)


def test_a_crop_is_of_the_picture_as_the_model_sees_it() -> None:
    room = Image.fromarray(7_000 + np.arange(1_600, dtype=np.uint16).reshape(40, 40) // 4)
    assert len(set(crop(0)(room, SQUASH).flatten().tolist())) > 80
    turned = picture()
    turned.info["orientation"] = 6
    upright = Preprocess(16, "squash", rendition=Rendition(orientation="apply", reduced=True))
    theirs = crop(3)(picture().transpose(Image.Transpose.ROTATE_270), SQUASH)
    assert torch.equal(crop(3)(turned, upright), theirs)
    assert not torch.equal(crop(3)(turned, SQUASH), theirs)


def test_the_whole_image_is_what_the_model_sees_at_inference(make_images: MakeImages, shapes: Path) -> None:
    images = make_images(shapes)
    ((pixels, labels),) = images.batches([[0, 12, 24]])
    with Image.open(shapes / "green square" / "000.png") as image:
        assert torch.equal(pixels[1], Preprocess(size=32)(image))
    assert labels.tolist() == [0, 1, 2]


def test_batches_come_in_order_however_many_are_ahead(make_images: MakeImages, shapes: Path) -> None:
    labels = [labels.tolist() for _, labels in make_images(shapes).batches([[i, 35 - i] for i in range(12)])]
    assert labels == [[0, 2]] * 12


def test_images_that_cannot_be_read_are_left_out_and_named(make_images: MakeImages, tmp_path: Path) -> None:
    broken = [b"", b"not an image", b"BM", png("red disc")[:60]]
    columns: dict[str, object] = {"image": [*broken, png("red disc")], "label": ["red disc"] * 5}
    images = make_images(write_parquet(tmp_path / "a.parquet", columns))
    ((pixels, labels),) = images.batches([range(5)])
    assert (len(pixels), labels.tolist()) == (1, [2])
    assert set(images.skipped) == {"row 0", "row 1", "row 2", "row 3"}
    assert "expected JPEG, PNG, WebP or BMP" in images.skipped["row 1"]


def test_an_image_with_more_pixels_than_allowed_is_left_out(make_images: MakeImages, tmp_path: Path) -> None:
    (tmp_path / "red disc").mkdir()
    picture(400, 400).save(tmp_path / "red disc" / "large.png")
    picture(40, 40).save(tmp_path / "red disc" / "small.png")
    images = make_images(tmp_path)
    ((pixels, _),) = images.batches([[0, 1]])
    assert len(pixels) == 1
    assert "at most 10000 pixels" in images.skipped["red disc/large.png"]


def test_a_batch_of_nothing_readable_ends_the_run(make_images: MakeImages, tmp_path: Path) -> None:
    columns: dict[str, object] = {"image": [b"x", b"y"], "label": ["red disc"] * 2}
    images = make_images(write_parquet(tmp_path / "a.parquet", columns))
    with pytest.raises(SettingsError, match=r"none of 2 images can be read, such as row 0: .* Give JPEG"):
        list(images.batches([[0, 1]]))


@pytest.mark.parametrize("kept", [True, False])
def test_held_out_images_are_the_same_each_time(
    make_images: MakeImages, shapes: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 10**9 if kept else 0)
    images = make_images(shapes)
    held_out = HeldOut(images, range(0, 36, 3), 5)
    first = [pixels for pixels, _ in held_out]
    if kept:
        images.close()  # nothing is decoded again
    again = [pixels for pixels, _ in held_out]
    assert [len(pixels) for pixels in first] == [5, 5, 2]
    assert torch.equal(torch.cat(first), torch.cat(again))


def test_jitter_recolours_by_the_image_s_own_random_numbers_and_0_changes_nothing() -> None:
    def cut(seed: int, jitter: float) -> torch.Tensor:
        return RandomCrop(np.random.default_rng(seed), least=0.9, flip=0.0, jitter=jitter)(picture(), SQUASH)

    plain, recoloured = cut(1, 0.0), cut(1, 0.3)
    assert torch.equal(plain, crop(1)(picture(), SQUASH))
    assert torch.equal(recoloured, cut(1, 0.3))
    assert not torch.equal(recoloured, cut(2, 0.3))
    assert (recoloured.dtype, recoloured.shape) == (torch.uint8, plain.shape)
    gaps = (recoloured.float() - plain.float()).abs()
    assert 2 < gaps.mean() < 0.3 * 255
    brightness = [float(cut(seed, 0.3).float().mean()) / float(cut(seed, 0.0).float().mean()) for seed in range(60)]
    assert 0.65 < min(brightness) < 0.85 < 1.1 < max(brightness) < 1.35


def test_an_image_that_is_gone_has_no_thumbnail(make_images: MakeImages, tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "images", 1)
    images = make_images(folder)
    small = images.thumbnail(0)
    assert small is not None
    assert Image.open(io.BytesIO(small)).format == "JPEG"
    (folder / "blue bar" / "000.png").unlink()
    assert images.thumbnail(0) is None


def test_a_held_out_batch_of_which_nothing_can_be_read_ends_no_run(make_images: MakeImages, tmp_path: Path) -> None:
    """The last batch may be one image, and that one broken."""
    folder = write_shapes(tmp_path / "images", 1)
    (folder / "red disc" / "000.png").write_bytes(b"broken")
    images = make_images(folder)
    batches = list(HeldOut(images, [0, 1, 2], 2))
    assert [labels.tolist() for _, labels in batches] == [[0, 1]]
    assert list(images.skipped) == ["red disc/000.png"]
    with pytest.raises(SettingsError, match=r"none of 1 images can be read, such as red disc/000\.png"):
        list(HeldOut(images, [2], 2))
