"""The page as people open it: in a browser that has no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from adawise_lab.evaluate.result import Result
from tests.lab.evaluate.page.conftest import HOSTILE
from tests.page.browsing import Seen, opened

SECTIONS = ("verdict", "cost", "price", "strategies", "domains", "paths", "calibration", "made")


@pytest.fixture(scope="module")
def seen(browser: Browser, page_file: Path) -> Iterator[Seen]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield opened(context, page_file)
    context.close()


@pytest.mark.check("browser")
def test_it_opens_offline_without_a_complaint_or_a_request(seen: Seen, page_file: Path) -> None:
    assert seen.complaints == []
    assert seen.requests == [page_file.as_uri()]


@pytest.mark.check("browser")
@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_a_heading_and_is_linked(seen: Seen, section: str) -> None:
    assert seen.page.locator(f"section#{section} h2").is_visible()
    assert seen.page.locator(f'nav a[href="#{section}"]').is_visible()


def test_every_figure_is_drawn_as_wide_as_its_place(seen: Seen, result: Result) -> None:
    widths = seen.page.eval_on_selector_all(
        ".chart", "places => places.map(p => [p.id, p.clientWidth, p.querySelector('svg')?.clientWidth ?? 0])"
    )
    views = len({(row.stream, row.order) for row in result.rows})
    assert len(widths) == 6 * views  # cost, price, two by domain, path, calibration
    for name, place, drawn in widths:
        assert 0 < drawn <= place, name
        assert drawn > 0.9 * place, name


@pytest.mark.check("browser")
def test_every_figure_has_its_sentence_for_those_who_cannot_see_it(seen: Seen) -> None:
    for figure in seen.page.locator("figure").all():
        sentence = figure.locator("figcaption").inner_text()
        assert sentence.endswith(".")
        assert sentence in (figure.locator("[role=img]").first.get_attribute("aria-label") or "")


def test_a_hostile_name_is_shown_and_not_obeyed(seen: Seen) -> None:
    page = seen.page
    assert page.locator("#made th", has_text=HOSTILE).count() == 1
    assert page.locator("img").count() == 0
    assert page.locator("#paths svg text", has_text="</script>").count() > 0  # inside a figure too
    assert page.locator("main script").count() == 0
    assert page.locator("#made code", has_text="<b>tables</b>").count() == 1


@pytest.mark.check("browser")
def test_keys_reach_the_skip_link_first_and_every_table(seen: Seen) -> None:
    page = seen.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#verdict")
    assert page.locator("table").count() == page.locator("[role=region][tabindex='0'][aria-label] table").count()


@pytest.mark.check("browser")
def test_figures_follow_light_and_dark_without_being_drawn_again(seen: Seen) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        seen.page.emulate_media(color_scheme=scheme)
        colours[scheme] = seen.page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('#cost svg text')).fill]"""
        )
    assert colours["light"][0] == "rgb(255, 255, 255)"
    assert colours["dark"][0] != colours["light"][0]
    assert colours["dark"][1] != colours["light"][1]


@pytest.mark.check("browser")
def test_paper_is_light_and_shows_what_was_folded(seen: Seen) -> None:
    page = seen.page
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("details:not([open])").count() > 0
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.locator("details:not([open])").count() == 0


@pytest.mark.check("browser")
def test_a_narrow_screen_scrolls_tables_and_not_the_page(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800}, offline=True)
    narrow = opened(context, page_file)
    assert narrow.page.evaluate("document.documentElement.scrollWidth") == 360
    assert narrow.complaints == []
    context.close()
