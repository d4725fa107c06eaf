"""One arithmetic: with torch and without, on every processor."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adawise.decode.resize import Pixels, by_numpy, by_torch

SIZES = (
    (640, 480),
    (1_920, 1_080),
    (333, 517),
    (31, 47),
    (1, 1),
    (3, 2),
    (224, 224),
    (1_001, 400),
    (100, 399),
    (448, 449),
)


def noise(width: int, height: int) -> Pixels:
    """Of two kinds, half by half: every level, and the outermost two, which overshoot."""
    generator = np.random.default_rng(1_000 * width + height)
    pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
    pixels[height // 2 :] = 255 * (pixels[height // 2 :] & 1)
    return pixels


def targets(width: int, height: int) -> list[tuple[int, int]]:
    return [
        (224, 224),
        (37, max(1, 37 * height // width)),
        (max(1, 96 * width // height), 96),
        (width, 50),
        (50, height),
    ]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("sides", SIZES)
def test_torch_and_numpy_have_equal_bits(sides: tuple[int, int], interpolation: str) -> None:
    for size in targets(*sides):
        with_torch = by_torch(noise(*sides), size, interpolation)
        assert with_torch.shape == (size[1], size[0], 3)
        assert np.array_equal(with_torch, by_numpy(noise(*sides), size, interpolation)), size


@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_torch_and_numpy_have_equal_bits_at_any_size(
    sides: tuple[int, int], size: tuple[int, int], interpolation: str
) -> None:
    assert np.array_equal(by_torch(noise(*sides), size, interpolation), by_numpy(noise(*sides), size, interpolation))


def digest_of_all() -> str:
    """Of the quicker resizes above, by torch; and of a JPEG, by libjpeg-turbo."""
    import simplejpeg

    digest = hashlib.sha256()
    for sides in SIZES[2:]:
        for size in targets(*sides):
            for interpolation in ("bicubic", "bilinear"):
                digest.update(by_torch(noise(*sides), size, interpolation).tobytes())
        digest.update(simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(noise(*sides), colorsubsampling="420")).tobytes())
    return digest.hexdigest()


def threads_that_decoding_starts() -> int:
    """Beyond those that decode; in a process in which torch has computed nothing yet."""
    pixels, before = noise(640, 480), len(os.listdir("/proc/self/task"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: by_torch(pixels, (298, 224), "bicubic"), range(8)))
        return len(os.listdir("/proc/self/task")) - before - len(pool._threads)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="only with AVX2")
def test_a_resize_runs_in_the_thread_that_asks_for_it() -> None:
    """And not in a team of torch's own, one for each thread that decodes."""
    code = "from tests.decode.test_resize import threads_that_decoding_starts; print(threads_that_decoding_starts())"
    assert output_of(code, {"OMP_NUM_THREADS": "4"}) == "0"


def output_of(code: str, environment: dict[str, str]) -> str:
    """What a process of its own prints."""
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


@pytest.mark.check("models")
def test_a_processor_that_can_less_has_equal_bits() -> None:
    """Of torch's resizes, and of libjpeg-turbo's JPEG."""
    code = "from tests.decode.test_resize import digest_of_all; print(digest_of_all())"
    less = {"ATEN_CPU_CAPABILITY": "default", "JSIMD_FORCENONE": "1"}
    assert output_of(code, {"OMP_NUM_THREADS": "1", **less}) == digest_of_all()
