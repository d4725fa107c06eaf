"""From bytes to pixels, one thread: by Pillow as id `/1` did it, with torch's resize, and as the decoder does it now.

The ways take turns at each picture, in processor time of the thread; ratios are of pairs, medians over all of them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import numpy.typing as npt
from PIL import Image

from adawise.decode import resize
from adawise.decode.codec import open_image, rgb
from adawise.decode.preprocess import Preprocess
from adawise.settings import DecodeSettings
from tools.bench.host import SIDE, jpegs, one_thread

SIZES = ((224, 224), (640, 480), (1_920, 1_080), (3_840, 2_160))
PICTURES, TURNS = 5, 8

_PREPROCESS = Preprocess(SIDE)
Way = Callable[[Image.Image], npt.NDArray[np.uint8]]


def by_pillow(image: Image.Image) -> npt.NDArray[np.uint8]:
    """All of it, as before: `[3, S, S]`."""
    return np.ascontiguousarray(_PREPROCESS._by_pillow(image).transpose(2, 0, 1))


def resized_by_torch(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Decoded by Pillow: `[3, S, S]`."""
    image.load()
    pixels = _PREPROCESS._by_integers(rgb(image), resize.by_torch)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


WAYS: dict[str, Way] = {
    "Pillow": by_pillow,
    "Pillow + torch": resized_by_torch,
    "now": lambda image: _PREPROCESS(image).numpy(),
}


def main() -> None:
    """Print a table: milliseconds an image by each way, its share of Pillow's, and how far its pixels are."""
    print(
        "| picture | KB | " + " | ".join(f"{way}, ms" for way in WAYS) + " | now / Pillow | levels: most | pixels off |"
    )
    print("|---|---" + "|---" * (len(WAYS) + 3) + "|")
    with one_thread():
        for width, height in SIZES:
            values = jpegs(width, height)[:PICTURES]
            report(f"{width} x {height} JPEG", values)
            report(f"{width} x {height} PNG", [_as_png(value) for value in values])


def report(what: str, values: list[bytes]) -> None:
    """One row."""
    max_pixels = DecodeSettings().max_pixels
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    most, off = 0, list[float]()
    for turn in range(TURNS):
        for value in values:
            found = {}
            for name, way in WAYS.items():
                began_s = time.thread_time()
                found[name] = way(open_image(value, max_pixels=max_pixels))
                took[name].append(1e3 * (time.thread_time() - began_s))
            if turn == 0:
                levels = np.abs(found["now"].astype(int) - found["Pillow"])
                most, off = max(most, int(levels.max())), [*off, float((levels > 0).mean())]
    ratio = median(now / before for now, before in zip(took["now"], took["Pillow"], strict=True))
    times = " | ".join(f"{median(times):.2f}" for times in took.values())
    size = sum(map(len, values)) / len(values) / 1e3
    print(f"| {what} | {size:.0f} | {times} | {ratio:.2f} | {most} | {100 * sum(off) / len(off):.2f} % |")


def _as_png(value: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(value)).save(out, "PNG", compress_level=1)
    return out.getvalue()
