"""Make frames of photographs: each photograph several times, as a camera that hardly moves would see it.

    python -m tools.method.frames IMAGES.parquet FRAMES.parquet [--photographs N] [--frames N]

A frame is a crop of .86 to all of a photograph's width and height at any place, enlarged again, within 7 % of its
brightness, with noise of 3 of 255 levels, and encoded anew as JPEG. `adawise evaluate --images FRAMES.parquet --cache
FOLDER` makes a table of them, which keeps the order of the frames of a class, and `tools.method.scene FOLDER --frames
N` reads it.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance

_LEAST, _BRIGHTNESS, _NOISE, _QUALITY = 0.86, 0.07, 3.0, 90


def frame_of(photograph: Image.Image, rng: np.random.Generator) -> bytes:
    """Return a frame of a photograph, as JPEG."""
    width, height = photograph.size
    part = rng.uniform(_LEAST, 1.0)
    w, h = int(width * part), int(height * part)
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    crop = photograph.crop((x, y, x + w, y + h)).resize((width, height), Image.Resampling.BICUBIC)
    lit = ImageEnhance.Brightness(crop).enhance(rng.uniform(1.0 - _BRIGHTNESS, 1.0 + _BRIGHTNESS))
    noisy = np.asarray(lit).astype(float) + rng.normal(0.0, _NOISE, (height, width, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(jpeg := io.BytesIO(), "JPEG", quality=_QUALITY)
    return jpeg.getvalue()


def frames_of(photographs: pa.Table, count: int, rng: np.random.Generator) -> pa.Table:
    """Return `count` frames of each photograph, one after the other, with its label."""
    images, labels = [], []
    for image, label in zip(photographs["image"].to_pylist(), photographs["label"].to_pylist(), strict=True):
        photograph = Image.open(io.BytesIO(image)).convert("RGB")
        images += [frame_of(photograph, rng) for _ in range(count)]
        labels += [label] * count
    table = pa.table({"image": images, "label": pa.array(labels, photographs.schema.field("label").type)})
    return table.replace_schema_metadata(photographs.schema.metadata)


def main() -> None:
    """Write the file of frames."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("frames_file", metavar="FRAMES.parquet", type=Path)
    parser.add_argument("--photographs", type=int, default=160)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    table, rng = pq.read_table(args.images), np.random.default_rng(args.seed)
    chosen = rng.choice(len(table), min(args.photographs, len(table)), replace=False)
    pq.write_table(frames_of(table.take(chosen), args.frames, rng), args.frames_file)
    print(f"{args.frames} frames of each of {len(chosen)} photographs: {args.frames_file}")


if __name__ == "__main__":
    main()
