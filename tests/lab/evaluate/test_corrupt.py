"""Corruptions: the same ones always, stronger with each step, as strong at every size."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio
from skimage.transform import resize

from adawise.errors import SettingsError
from adawise_lab.evaluate.corrupt import KINDS, SEVERITIES, Corruption, Pixels, corrupt, parse
from tests.deadlines import scaled

SIZE = 64
IMAGES = 12


@cache
def photograph(seed: int, size: int = SIZE) -> Pixels:
    """uint8 `[3, size, size]`: smooth colours with edges and texture, as photographs have; equal at every size."""
    rng = np.random.default_rng(seed)
    x = resize(rng.uniform(0.1, 0.7, (5, 5, 3)), (size, size, 3), order=3)
    down, across = np.indices((size, size)) / size
    for _ in range(6):
        disk = np.hypot(down - rng.uniform(), across - rng.uniform()) < rng.uniform(0.05, 0.25)
        x[disk] = rng.uniform(0.0, 0.9, 3)
    x = x + 0.06 * np.sin(60.0 * across + 25.0 * down)[..., None]
    picture = np.ascontiguousarray(np.rint(np.clip(x, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(2, 0, 1))
    picture.flags.writeable = False  # every test has the same
    return picture


def mean_psnr(kind: str, severity: int, size: int = SIZE) -> float:
    """Of the mean squared error over the images, dB."""
    images = np.stack([photograph(seed, size) for seed in range(IMAGES)])
    corrupted = np.stack([corrupt(image, Corruption(kind, severity), 0) for image in images])
    return float(peak_signal_noise_ratio(images, corrupted, data_range=255))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.cases("lab", every=4)
def test_each_severity_is_further_from_the_image_than_the_one_before(kind: str) -> None:
    psnr = [mean_psnr(kind, severity) for severity in SEVERITIES]
    assert all(b < a for a, b in itertools.pairwise(psnr)), psnr
    assert 3.0 < psnr[-1] < psnr[0] < 45.0  # neither nothing left nor nothing done


@pytest.mark.check("lab")
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"pixelate", "jpeg"}))  # these depend on what the pixels resolve
def test_a_severity_means_the_same_to_a_small_model_and_to_a_large_one(kind: str) -> None:
    assert mean_psnr(kind, 3, 48) == pytest.approx(mean_psnr(kind, 3, 144), abs=3.5)  # dB; severities span 6 to 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_stays_a_picture_whatever_is_in_it(kind: str) -> None:
    for value in (0, 255):
        flat = np.full((3, 33, 33), value, dtype=np.uint8)
        for severity in (1, 5):
            result = corrupt(flat, Corruption(kind, severity), 1)
            assert result.shape == flat.shape
            assert result.dtype == np.uint8
            assert result.flags.c_contiguous


def test_the_result_depends_on_image_kind_severity_and_seed_alone() -> None:
    image, noise = photograph(0), Corruption("gaussian_noise", 2)
    before = image.copy()
    first = corrupt(image, noise, 7)
    np.random.default_rng(1).normal()
    np.testing.assert_array_equal(corrupt(image, noise, 7), first)
    np.testing.assert_array_equal(image, before)
    assert not np.array_equal(corrupt(image, noise, 8), first)
    other = photograph(1)
    drift = first.astype(int) - image, corrupt(other, noise, 7).astype(int) - other
    assert not np.array_equal(*drift)  # each image has noise of its own


def test_another_process_makes_the_same_images() -> None:
    program = (
        "import hashlib; from tests.lab.evaluate.test_corrupt import all_of_them; "
        "print(hashlib.sha256(all_of_them()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=scaled(120.0)
    )
    assert done.stdout.strip() == hashlib.sha256(all_of_them()).hexdigest()


def all_of_them() -> bytes:
    """Every kind at two severities, as bytes."""
    image = photograph(3)
    return b"".join(corrupt(image, Corruption(kind, s), 5).tobytes() for kind in KINDS for s in (2, 5))


def test_corruptions_are_named_with_and_without_severity() -> None:
    assert parse("fog:2, motion_blur") == (Corruption("fog", 2), Corruption("motion_blur", 3))
    assert [str(c) for c in parse("jpeg:4")] == ["jpeg4"]
    assert parse("all:5") == tuple(Corruption(kind, 5) for kind in KINDS)
    assert len(parse("all")) == 15


def test_without_scikit_image_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise_lab.evaluate.corrupt.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"adawise\[report\]"):
        parse("fog:2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fogg", "'fogg'"),
        ("fog:6", "'fog:6'"),
        ("fog:0", "'fog:0'"),
        ("fog:", "'fog:'"),
        ("fog:²", "'fog:²'"),
        ("fog:2,fog:2", "fog2 twice"),
        ("all,fog:3", "fog3 twice"),
        (",", "got ','"),
    ],
)
def test_what_is_no_corruption_is_refused_with_the_names_of_those_that_are(text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=r"Name .*fog") as refused:
        parse(text)
    assert expected in str(refused.value)
