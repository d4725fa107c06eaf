"""A page as people open it: in a browser that has no network, and notes what the page does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.deadlines import scaled

expect.set_options(timeout=scaled(30_000))  # 5 s if nothing is said


@dataclass
class Seen:
    """What the page did."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(context: BrowserContext, place: Path | str) -> Seen:
    """The page of a file or a URL, when it has drawn what it draws at the start."""
    page = context.new_page()
    seen = Seen(page)
    page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("dialog", lambda dialog: seen.complaints.append(f"dialog: {dialog.message}"))
    page.goto(place.as_uri() if isinstance(place, Path) else place)
    page.wait_for_selector("html[data-drawn]", timeout=scaled(180_000))
    return seen
