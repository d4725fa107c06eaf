"""The drift page of 200 cameras over a month in headless Chromium: its size, its elements, and how soon it answers.

The report is made by hand (`tests.drift.page.building`): 720 points of every measure for each camera, five of them in
each of 40 scenes with ten incidents of every shape, and labels. The page is opened from a file, without a network, once
at the processor's speed and once at a quarter of it. Interactive: it answers, and is complete but for its figures.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Page

from adawise_drift.page.write import write_page
from adawise_drift.report import Report
from tests.drift.page.building import a_yard, every_shape
from tests.page.browsing import a_browser

CAMERAS, SCENE, SLOWER = 200, 5, (1, 4)
_WAIT_MS = 300_000
_MARK = "(name) => performance.getEntriesByName(name)[0].startTime"  # milliseconds since it was opened


def fleet() -> Report:
    """200 cameras over 30 days by the hour, with 400 incidents and without frames."""
    yard = a_yard(CAMERAS)
    names = [camera.stream_id for camera in yard.cameras]
    events = [
        replace(event, incident=event.incident + 2 * begin, examples=())
        for begin in range(0, CAMERAS, SCENE)
        for event in every_shape(names[begin : begin + SCENE], hours=720)
    ]
    return replace(yard, events=tuple(events))


def main() -> None:
    """Print the size of the page, and seconds at each speed."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        report = fleet()
        began = time.process_time()
        write_page(page, report)
        print(f"written in {time.process_time() - began:.1f} s of processor: {page.stat().st_size / 1e6:.2f} MB")
        with a_browser() as browser:
            for slower in SLOWER:
                context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
                took = _opened(context.new_page(), page, slower)
                print(f"at 1/{slower} of the processor, load {os.getloadavg()[0]:.1f}: {took}")
                context.close()


def _opened(page: Page, file: Path, slower: int) -> str:
    """Return what the page took, in words."""
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    page.goto(file.as_uri(), timeout=_WAIT_MS)
    page.wait_for_selector("html[data-drawn]", timeout=_WAIT_MS)
    ready_s, drawn_s = (page.evaluate(_MARK, name) / 1e3 for name in ("ready", "drawn"))
    nodes = page.evaluate("document.querySelectorAll('*').length")
    began = time.perf_counter()
    page.evaluate("document.getElementById('camera-150').open = true")
    page.locator("#camera-150").scroll_into_view_if_needed()
    page.wait_for_selector("#camera-150 .over-time[data-drawn]", timeout=_WAIT_MS)
    camera_s = time.perf_counter() - began
    return (
        f"interactive after {ready_s:.1f} s, its figures drawn after {drawn_s:.1f} s, {nodes:,} elements, "
        f"a camera {camera_s:.1f} s after it is opened"
    )
