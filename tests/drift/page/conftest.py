"""One yard for all tests of the page, with a camera and classes whose names are attacks, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from adawise_drift.page.write import write_page
from adawise_drift.report import Report
from tests.drift.page.building import CLASSES, HOSTILE, a_calendar, a_camera, a_gallery, a_help, a_yard, every_shape
from tests.page.browsing import a_browser


@pytest.fixture(scope="package")
def report() -> Report:
    """Ten cameras for ten days and ten incidents; the hostile one is first, so that it is in verdict and title too."""
    yard = a_yard(9, hours=240)
    hostile = a_camera(HOSTILE, [(0, 0.1), (100, 0.95)], hours=240, rejecting=True)
    hostile = replace(hostile, class_mix=((HOSTILE, 0.6, 0.7, 0.5), ("car", 0.4, 0.3, 0.5)), calendar=a_calendar())
    names = [HOSTILE, *(camera.stream_id for camera in yard.cameras)]
    group = replace(yard.groups[0], stream_ids=(HOSTILE, *yard.groups[0].stream_ids))
    helped = a_help(names, classes=(HOSTILE, *CLASSES[1:]))
    return replace(
        yard,
        cameras=(hostile, *yard.cameras),
        groups=(group,),
        helped=helped,
        root=HOSTILE,
        events=every_shape(names[:6]),
        gallery=a_gallery(names),
    )


@pytest.fixture(scope="package")
def page_file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "yard.html"
    write_page(place, report)
    return place


@pytest.fixture(scope="module")  # its event loop runs in this thread until it is closed
def browser() -> Iterator[Browser]:
    with a_browser() as chromium:
        yield chromium
