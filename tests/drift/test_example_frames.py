"""The pictures of a drift report are those that the model saw."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adawise.records import RowId
from adawise.settings import DecodeSettings
from adawise_drift.example_frames import open_frames
from tests.labels.folders.places import write_singles

ROW = RowId("frames", 0, 0, 0)


def test_a_turned_thermal_frame_is_shown_upright_and_not_as_white(tmp_path: Path) -> None:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.arange(7_000, 7_600, dtype=np.uint16).reshape(20, 30)).save(out, "PNG", exif=exif)
    write_singles(tmp_path / "yard", [(out.getvalue(), ())])
    frames = open_frames(str(tmp_path / "yard"), DecodeSettings(orientation="apply"))
    image = frames._image(ROW)
    assert image is not None
    assert float(image.float().mean()) / 255 == pytest.approx(0.5, abs=0.01)
    assert tuple(image.shape) == (3, 30, 20)
