"""Figures as files for papers, whatever the cameras are called."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from adawise.errors import SettingsError
from adawise_drift.page.plots import write_plots
from tests.drift.page.building import HOSTILE, a_camera, a_help, a_report, without_rows


@pytest.mark.check("browser")
def test_each_figure_is_there_as_png_and_svg_under_a_name_that_any_file_system_takes(tmp_path: Path) -> None:
    cameras = [
        a_camera("../../etc/passwd", [(0, 0.3), (30, 0.7)], hours=60, silent=(40, 50)),
        replace(a_camera("$\\frac{1}", [(0, 0.3), (30, 0.6)], hours=60), stream_id="雨$\\frac{1}\n"),
        without_rows(a_camera(HOSTILE, [(0, 0.3)], hours=60)),
    ]
    write_plots(tmp_path / "plots", a_report(cameras, hours=60, helped=a_help(["a"])))
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == [
        *("camera-01-etc-passwd.png", "camera-01-etc-passwd.svg", "camera-02-frac-1.png", "camera-02-frac-1.svg"),
        *(
            "camera-03-script-script-alert-1-script-img-src-x.png",
            "camera-03-script-script-alert-1-script-img-src-x.svg",
        ),
        *("helped.png", "helped.svg", "overview.png", "overview.svg"),
    ]
    drawing = (tmp_path / "plots" / "overview.svg").read_text(encoding="utf-8")
    assert "<script" not in drawing
    assert "var(--" not in drawing  # the colours are those of paper
    with Image.open(io.BytesIO((tmp_path / "plots" / "camera-01-etc-passwd.png").read_bytes())) as image:
        assert abs(image.width - 3.45 * 300) <= 1  # a column, at 300 dots an inch


def test_the_same_report_gives_the_same_files_and_one_camera_is_enough(tmp_path: Path) -> None:
    report = a_report([a_camera("gate", [(0, 0.3)], hours=2)], hours=2)
    for name in ("a", "b"):
        write_plots(tmp_path / name, report)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"--plots .*file: the figures cannot be written .* Name a folder"):
        write_plots(tmp_path / "file", a_report([a_camera("gate", [(0, 0.3)], hours=2)], hours=2))
