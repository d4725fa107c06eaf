"""Coloured shapes on noise, drawn as files: three classes that a tiny model can learn in seconds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

CLASSES = ("blue bar", "green square", "red disc")
_COLOURS = {"red disc": (220, 40, 40), "green square": (40, 200, 60), "blue bar": (50, 60, 220)}


def shape(name: str, random: np.random.Generator) -> Image.Image:
    """One image of a class, 48 x 40 px."""
    image = Image.fromarray((random.random((40, 48, 3)) * 90).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = (int(value) for value in random.integers(2, 16, 2))
    colour = tuple(int(value) for value in np.clip(np.array(_COLOURS[name]) + random.normal(0, 25, 3), 0, 255))
    if name == "red disc":
        draw.ellipse((x, y, x + 20, y + 20), fill=colour)
    else:
        box = (x, y, x + 20, y + 20) if name == "green square" else (x, y + 6, x + 26, y + 12)
        draw.rectangle(box, fill=colour)
    return image


def write_shapes(folder: Path, each: int, *, seed: int = 0) -> Path:
    """`each` PNG files of each class in a subfolder of its name; the folder."""
    random = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            shape(name, random).save(folder / name / f"{number:03}.png")
    return folder


def png(name: str, seed: int = 0) -> bytes:
    """One image of a class as a file's bytes."""
    buffer = io.BytesIO()
    shape(name, np.random.default_rng(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, columns: dict[str, object], metadata: dict[str, str] | None = None) -> Path:
    """A Parquet file with these columns; its path."""
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)
    return path
