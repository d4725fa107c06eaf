"""From bytes to pixels, one thread: by Pillow as id `/1` did it, with torch's resize, and as the decoder does it now.

The ways take turns at each picture, in processor time of the thread; ratios are of pairs, medians over all of them.
Then the predictions that change with the pixels: of the demo's frames by its pair, and of the validation photographs of
`ADAWISE_REAL_DATA` by the real pair, where that is.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image

from adawise.app.model import load_model
from adawise.bench.worker import jpegs
from adawise.decode import resize
from adawise.decode.codec import open_image, rgb
from adawise.decode.preprocess import Preprocess
from adawise.demo.main import demo_settings
from adawise.demo.scene import StreetCamera
from adawise.demo.weather import PRESETS
from adawise.settings import DecodeSettings, ModelSettings
from tools.bench.host import SIDE, one_thread

SIZES = ((224, 224), (640, 480), (1_920, 1_080), (3_840, 2_160))
PICTURES, TURNS = 5, 8
FRAMES, PHOTOGRAPHS = 25, 400  # of each camera in each weather; of the real pair
REAL_DATA = Path(os.environ.get("ADAWISE_REAL_DATA", str(Path(__file__).parents[2] / ".." / "shared" / "data")))

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
            values = jpegs(width, height, PICTURES)
            report(f"{width} x {height} JPEG", values)
            report(f"{width} x {height} PNG", [_as_png(value) for value in values])
    print("\n| pair | images | alpha | predictions that change | largest change of the first's probability |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        report_predictions("demo", demo_settings("none:9092", Path(name)).model, drawn())
    if (REAL_DATA / "pair").is_dir():
        with tempfile.TemporaryDirectory() as name:
            report_predictions("real", *real_pair(Path(name)))


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


def report_predictions(pair: str, settings: ModelSettings, values: Sequence[bytes]) -> None:
    """A row for each of three alphas."""
    model = load_model(settings, DecodeSettings(), with_card=False)
    preprocess, classifier = model.checkpoints.preprocess, model.classifier
    images = [open_image(value, max_pixels=DecodeSettings().max_pixels) for value in values]
    now = torch.stack([preprocess(image) for image in images])
    before = torch.stack([torch.from_numpy(preprocess._by_pillow(image)).permute(2, 0, 1) for image in images])
    last = len(classifier.alphas) - 1
    for index in (0, last // 2, last):
        new, old = (classifier.logits(index, pixels).softmax(dim=1) for pixels in (now, before))
        first = old.argmax(dim=1)
        moved = (new - old).gather(1, first[:, None]).abs().max()
        changed = int((new.argmax(dim=1) != first).sum())
        print(f"| {pair} | {len(images)} | {classifier.alphas[index]:g} | {changed} | {moved:.3f} |")


def drawn() -> list[bytes]:
    """Frames of the demo's cameras, in every weather."""
    cameras = [StreetCamera(str(seed), seed) for seed in range(3)]
    return [camera.jpeg(n, weather)[0] for camera in cameras for weather in PRESETS.values() for n in range(FRAMES)]


def real_pair(folder: Path) -> tuple[ModelSettings, list[bytes]]:
    """Its settings, and photographs."""
    table = pq.read_table(REAL_DATA / "images" / "validation_base.parquet").slice(0, PHOTOGRAPHS)
    names = json.loads(table.schema.metadata[b"class_names"])
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    ends = [f"local-dir:{REAL_DATA / 'pair' / name}" for name in ("theta0", "theta1")]
    settings = ModelSettings(theta_0=ends[0], theta_1=ends[1], classes=folder / "classes.txt")
    return settings, table["image"].to_pylist()


def _as_png(value: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(value)).save(out, "PNG", compress_level=1)
    return out.getvalue()
