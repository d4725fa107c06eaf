"""A browser for all tests of the live page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.page.browsing import a_browser


@pytest.fixture(scope="module")  # its event loop runs in this thread until it is closed
def browser() -> Iterator[Browser]:
    with a_browser() as chromium:
        yield chromium
