"""One small evaluation for all tests of the page, a domain whose name is an attack, and a browser if there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.candidates import at_every_price
from adawise_lab.evaluate.page import Provenance, provenance, write_page
from adawise_lab.evaluate.result import Result
from tests.lab.evaluate.building import a_bench, a_plan, a_table, run_here, shorten_streams
from tests.page.browsing import a_browser

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
TABLES = (
    a_table("known_a", 0.7),
    a_table("new_a", 0.1),
    a_table(HOSTILE, 0.8),
    a_table("style_a", 0.4, classes=7),
)
COMMAND = ["evaluate", "--logits", "<b>tables</b> & more"]


@pytest.fixture(scope="package")
def result() -> Result:
    bench = a_bench(*TABLES)
    plan = a_plan("warm,grid,fixed", kinds=("short", "smooth", "mixed"), seeds=2, smooth=((0,), (1,)))
    plan = replace(plan, candidates=at_every_price(plan.candidates))
    with pytest.MonkeyPatch.context() as patch:
        shorten_streams(patch)
        return assess(bench, plan, None, run_here(bench, plan), calibration="all 1")


@pytest.fixture(scope="package")
def made() -> Provenance:
    return provenance(COMMAND, TABLES, created_at="2026-11-25T17:00:00+00:00")


@pytest.fixture(scope="package")
def page_file(result: Result, made: Provenance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"), result, made)


@pytest.fixture(scope="module")  # its event loop runs in this thread until it is closed
def browser() -> Iterator[Browser]:
    with a_browser() as chromium:
        yield chromium
