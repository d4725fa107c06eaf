"""The live page in a real browser: what it shows of rows, by hand and keyboard, in trouble, in number, on a phone."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from adawise.app.http import rows_port
from adawise.settings import HttpSettings
from adawise.watch.row import CameraRow, CameraState
from adawise.watch.web.feed import EventFeed
from tests.deadlines import scaled
from tests.page.browsing import Seen, opened
from tests.watch.web.yard import HOSTILE, NOW_S, Yard, a_row, a_yard, shown

TOKEN = "0123456789abcdef-not-a-secret"


@contextmanager
def browsing(browser: Browser, yard: Yard, **context: Any) -> Iterator[Seen]:
    """The page of a yard, open."""
    with shown(yard) as url:
        made = browser.new_context(**context)
        try:
            yield opened(made, url)
        finally:
            made.close()


def names(page: Page) -> list[str]:
    return page.locator("tbody .name").all_text_contents()


def row(page: Page, name: str) -> Any:
    return page.locator("tbody tr").filter(has=page.get_by_text(name, exact=True))


def test_a_row_says_all_of_a_camera_and_nothing_comes_from_elsewhere(browser: Browser) -> None:
    yard = a_yard(30)
    yard.change(
        0,
        alpha=0.25,
        condition=2,
        returns=3,
        classes=(("car", 0.624), ("road works", 0.3), ("bus", 0.076)),
        images_per_s=12.34,
        forward_equivalents=1.5,
        agreement=0.83,
        lag=12_345,
        last_seen_s=NOW_S - 150,
    )
    with browsing(browser, yard) as seen:
        cells = row(seen.page, "gate-0000").locator("td").all_text_contents()
        assert [cell for cell in cells if cell] == [
            *("0.25condition 2 (back 3×)", "car 62%, road works 30%, bus 8%", "12.3", "1.50", "83%", "12.3k"),
            cells[-1],
        ]
        assert re.fullmatch(r"[23] min", cells[-1])
        assert seen.page.title() == "(4) street by host:1234"
        assert seen.page.locator("#facts dd").all_text_contents() == ["ready", "512.4", "1.12", "0"]
        assert seen.complaints == []
        assert {request.split("/")[2] for request in seen.requests} == {seen.page.url.split("/")[2]}


@pytest.mark.check("browser")
def test_trouble_comes_first_with_a_word_a_shape_and_a_reason(browser: Browser) -> None:
    with browsing(browser, a_yard(30)) as seen:
        words = seen.page.locator("tbody .word").all_text_contents()
        assert words == ["failing", "silent", "silent", "rejected", "changed", "changed", *[""] * 24]
        assert row(seen.page, "gate-0003").locator(".why").text_content() == "its rows have waited 4 min to be written"
        shapes = {mark.get_attribute("d") for mark in seen.page.locator("tbody .mark path").all()}
        assert len(shapes) == 5
        assert seen.page.locator("#states button").all_text_contents() == [
            *("1failing", "2silent", "1rejected", "0frozen", "2changed", "24ok"),
        ]


@pytest.mark.check("browser")
def test_the_line_of_alpha_is_where_the_values_are(browser: Browser) -> None:
    yard = Yard([a_row(0), a_row(1)])
    first = yard.rows[0].first_step
    yard.change(0, alphas=(0.0, 1.0, None, 0.5), first_step=first + 116)
    with browsing(browser, yard) as seen:
        path = seen.page.locator("tbody .line").first.get_attribute("d")
        assert path == "M116.0 25.0h1.0H117.0V3.0h1.0H119.0V14.0h1.0"


@pytest.mark.check("browser")
def test_the_line_grows_at_its_end(browser: Browser) -> None:
    yard = Yard([a_row(0), a_row(1)])
    first = yard.rows[0].first_step + 116
    yard.change(0, alphas=(0.0, 1.0), first_step=first)
    with browsing(browser, yard) as seen:
        line = seen.page.locator("tbody .line").first
        expect(line).to_have_attribute("d", "M116.0 25.0h1.0H117.0V3.0h1.0h2.0")
        yard.change(0, alphas=(0.0, 0.5, 1.0))
        expect(line).to_have_attribute("d", "M116.0 25.0h1.0H117.0V14.0h1.0H118.0V3.0h1.0h1.0")
        yard.change(0, alphas=(0.5, 1.0, 0.0), first_step=first + 1)
        expect(line).to_have_attribute("d", "M117.0 14.0h1.0H118.0V3.0h1.0H119.0V25.0h1.0")


@pytest.mark.check("browser")
def test_a_line_has_all_of_its_place_while_a_worker_is_young(browser: Browser) -> None:
    yard = Yard([a_row(0)])
    first = yard.rows[0].first_step
    yard.change(0, alphas=(0.0, 1.0), first_step=first + 118)
    with browsing(browser, yard) as seen:
        expect(seen.page.locator("#past")).to_have_text("last 2 minutes")
        expect(seen.page.locator("tbody .line")).to_have_attribute("d", "M110.0 25.0h5.0H115.0V3.0h5.0")
        yard.now_s += 60 * 4
        expect(seen.page.locator("#past")).to_have_text("last 5 minutes", timeout=scaled(10_000))


def test_what_changes_is_shown_within_seconds_and_a_camera_that_goes_is_gone(browser: Browser) -> None:
    yard = a_yard(5)
    with browsing(browser, yard) as seen:
        assert names(seen.page)[-1] == "gate-0004"
        yard.change(4, state=CameraState.FAILING, why="what is next cannot be read", alpha=0.11)
        yard.notices = ["the store has not answered for 9 s"]
        expect(seen.page.locator("tbody .name").first).to_have_text("gate-0003")
        expect(seen.page.locator("tbody .name").nth(1)).to_have_text("gate-0004")
        expect(row(seen.page, "gate-0004").locator(".value")).to_have_text("0.11")
        expect(seen.page.locator("#notices")).to_have_text("the store has not answered for 9 s")
        yard.notices = []
        del yard.rows[4]
        expect(seen.page.locator("tbody tr")).to_have_count(4)
        expect(seen.page.locator("#notices")).to_be_hidden()
        assert seen.complaints == []


def test_names_classes_and_reasons_are_text_whatever_they_hold(browser: Browser) -> None:
    yard = Yard([a_row(0, HOSTILE), a_row(1, "</td><script>alert(1)</script>")])
    yard.change(0, classes=((HOSTILE, 1.0),), why=HOSTILE, state=CameraState.REJECTED, partition=HOSTILE)
    yard.notices, yard.facts = [HOSTILE], ((HOSTILE, HOSTILE),)
    with browsing(browser, yard) as seen:
        assert set(names(seen.page)) == {HOSTILE, "</td><script>alert(1)</script>"}
        assert seen.page.locator("#notices").text_content() == HOSTILE
        assert seen.page.locator("img, script:not([src])").count() == 0
        assert seen.complaints == []


@pytest.mark.check("browser")
def test_a_filter_finds_cameras_and_classes_and_a_state_shows_its_own(browser: Browser) -> None:
    yard = a_yard(60)
    for number in range(60):
        yard.change(number, classes=(("car", 1.0),))
    yard.change(17, classes=(("road works", 1.0),))
    with browsing(browser, yard) as seen:
        seen.page.keyboard.press("/")
        seen.page.keyboard.type("gate-001 Car")
        expect(seen.page.locator("tbody tr")).to_have_count(9)
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("tbody tr")).to_have_count(60)
        seen.page.fill("#filter", "works")
        expect(seen.page.locator("tbody .name")).to_have_text(["gate-0017"])
        seen.page.fill("#filter", "no such camera")
        expect(seen.page.locator("#none")).to_have_text("No camera matches.")
        seen.page.fill("#filter", "")
        seen.page.get_by_role("button", name="silent").click()
        expect(seen.page.locator("tbody .name")).to_have_text(["gate-0011", "gate-0012"])
        seen.page.get_by_role("button", name="silent").click()
        expect(seen.page.locator("tbody tr")).to_have_count(60)


@pytest.mark.check("browser")
def test_an_order_is_kept_while_values_change(browser: Browser) -> None:
    yard = a_yard(10)
    with browsing(browser, yard) as seen:
        seen.page.select_option("#order", "alpha")
        yard.change(4, alpha=1.0)
        yard.change(5, alpha=0.0)
        expect(seen.page.locator("tbody .name").first).to_have_text("gate-0004")
        expect(seen.page.locator("tbody .name").last).to_have_text("gate-0005")
        seen.page.select_option("#order", "name")
        expect(seen.page.locator("tbody .name")).to_have_text([f"gate-{n:04d}" for n in range(10)])


@pytest.mark.check("browser")
def test_the_arrows_go_from_camera_to_camera(browser: Browser) -> None:
    with browsing(browser, a_yard(5)) as seen:
        focused = "document.activeElement.querySelector('.name')?.textContent"
        seen.page.keyboard.press("ArrowDown")
        assert seen.page.evaluate(focused) == "gate-0003"
        seen.page.keyboard.press("ArrowDown")
        assert seen.page.evaluate(focused) == "gate-0000"
        seen.page.keyboard.press("ArrowUp")
        assert seen.page.evaluate(focused) == "gate-0003"
        assert seen.page.locator("tbody tr[tabindex='0']").count() == 1


@pytest.mark.check("browser")
def test_a_click_or_enter_on_a_row_opens_the_camera_and_a_link_leads_back(browser: Browser) -> None:
    yard = a_yard(5)
    yard.change(4, state=CameraState.CHANGED, why="alpha went from 0.22 to 0.61", alpha=0.61, condition=2, returns=3)
    with browsing(browser, yard) as seen:
        page = seen.page
        row(page, "gate-0004").locator("td.number").first.click()
        expect(page.locator("h1")).to_have_text("gate-0004")
        expect(page.locator("#state")).to_have_text("changed")
        expect(page.locator("#why")).to_have_text("alpha went from 0.22 to 0.61")
        expect(page.locator("#value")).to_have_text("0.61")
        expect(page.locator("#spark .line")).to_have_attribute("d", re.compile(r"^M[\d.]+ [\d.]+h"))
        cells = page.locator("#known tr").first.locator("td").all_text_contents()
        assert cells[:3] == ["2, now", "0.61", "3 times"]
        assert page.locator("#known tr").nth(2).locator("td").all_text_contents() == [
            *("98", "0.75", "–", "before this worker had the camera"),
        ]
        assert "adawise drift runs/street --streams=gate-0004 --since 1d" in page.locator("pre").all_text_contents()
        assert page.title() == "gate-0004: changed"
        yard.change(4, state=CameraState.OK, why="", alpha=0.5)
        expect(page.locator("#state")).to_have_text("ok")
        expect(page.locator("#value")).to_have_text("0.50")
        page.get_by_role("link", name="All cameras").click()
        expect(page.locator("tbody tr")).to_have_count(5)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("gate-0003")
        assert seen.complaints == []
        assert {request.split("/")[2] for request in seen.requests} == {page.url.split("/")[2]}


@pytest.mark.check("browser")
def test_a_camera_that_is_gone_while_its_page_is_open_stays_with_a_sentence(browser: Browser) -> None:
    yard = a_yard(2)
    with browsing(browser, yard) as seen:
        row(seen.page, "gate-0001").locator("a").click()
        expect(seen.page.locator("h1")).to_have_text("gate-0001")
        yard.change(1, alpha=None, alphas=(), condition=None)
        expect(seen.page.locator("#course")).to_be_hidden()
        expect(seen.page.locator("#conditions")).to_be_hidden()
        del yard.rows[1]
        expect(seen.page.locator("#away")).to_contain_text("This page does not know the camera any more.")
        expect(seen.page.locator("h1")).to_have_text("gate-0001")
        seen.page.reload()
        expect(seen.page.locator("h1")).to_have_text("No such camera")


@pytest.mark.check("browser")
def test_a_selection_on_a_cameras_page_stays_while_its_facts_change(browser: Browser) -> None:
    yard = a_yard(1)
    with browsing(browser, yard) as seen:
        page = seen.page
        row(page, "gate-0000").locator("a").click()
        expect(page.locator("#known tr")).to_have_count(3)
        page.evaluate("kept = [...document.querySelectorAll('#groups *, #known *')]")
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#groups dt'))")
        yard.change(0, images_per_s=98.7, alpha=0.35)
        expect(page.locator("#groups dd").first).to_have_text("98.7")
        expect(page.locator("#known td").nth(1)).to_have_text("0.35")
        assert page.evaluate("kept.every((node) => node.isConnected)")
        assert page.evaluate("String(getSelection())") == "images/s"


@pytest.mark.check("browser")
def test_a_cameras_page_whose_connection_was_cut_silently_says_so(browser: Browser) -> None:
    yard = a_yard(1)
    with browsing(browser, yard) as seen:
        page = seen.page
        page.context.add_init_script(
            "{ const of = AbortSignal.timeout; AbortSignal.timeout = () => of.call(AbortSignal, 9); }"
        )
        page.route("**/camera.json*", lambda _: None)  # never answered
        row(page, "gate-0000").locator("a").click()
        expect(page.locator("#away")).to_have_text("The worker does not answer.")
        page.unroute("**/camera.json*")
        page.evaluate("AbortSignal.timeout = () => new AbortController().signal")
        expect(page.locator("h1")).to_have_text("gate-0000")
        expect(page.locator("#away")).to_be_hidden()


@pytest.mark.check("browser")
def test_the_live_page_connects_again_after_a_silence(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a laptop that slept: its connection is gone, and no error comes with it."""
    monkeypatch.setitem(EventFeed.__init__.__kwdefaults__ or {}, "period_s", 1e9)  # nothing comes after the first
    with shown(a_yard(1)) as url:
        made = browser.new_context()
        made.add_init_script("{ const of = Date.now; skipped_ms = 0; Date.now = () => of() + skipped_ms; }")
        seen = opened(made, url)
        with seen.page.expect_request("**/events", timeout=scaled(20_000)):
            seen.page.evaluate("skipped_ms = 60_000")
        expect(seen.page.locator("#away")).to_be_hidden()
        expect(seen.page.locator("tbody tr")).to_have_count(1)
        made.close()


@pytest.mark.check("browser")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_cameras_page_has_names_as_text_and_fits_any_window(browser: Browser, width: int) -> None:
    yard = Yard([a_row(0, HOSTILE), a_row(1, "a" * 249)])
    yard.change(0, classes=((HOSTILE, 1.0),), why=HOSTILE, state=CameraState.REJECTED, rejected=9)
    with browsing(browser, yard, viewport={"width": width, "height": 800}) as seen:
        for number, name in enumerate((HOSTILE, "a" * 249)):
            seen.page.goto(f"{seen.page.url.split('camera')[0]}camera?of={quote(yard.rows[number].key, safe='')}")
            expect(seen.page.locator("h1")).to_have_text(name)
            assert seen.page.evaluate("document.documentElement.scrollWidth") == width
            assert seen.page.locator("main img[src], script:not([src])").count() == 0
        assert seen.complaints == []


@pytest.mark.check("browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_of_a_cameras_page_has_enough_contrast(browser: Browser, scheme: Any) -> None:
    yard = a_yard(4)
    with browsing(browser, yard, color_scheme=scheme) as seen:
        row(seen.page, "gate-0003").locator("a").click()
        expect(seen.page.locator("h1")).to_have_text("gate-0003")
        selectors = [".kind", "#state", "#why", "#past", ".orange", ".blue", "dt", "dd", ".meaning", "#known td", "pre"]
        ratios = seen.page.evaluate(CONTRAST.replace("SELECTORS", json.dumps(selectors)))
        assert set(ratios) == set(selectors)
        assert min(ratios.values()) >= 4.5, ratios


@pytest.mark.check("browser")
def test_a_thousand_cameras_are_drawn_as_one_scrolls_and_found_at_once(browser: Browser) -> None:
    with browsing(browser, a_yard(1_000), viewport={"width": 1280, "height": 800}) as seen:
        drawn = seen.page.locator("tbody tr").count()
        assert drawn <= 200
        assert "more; scroll down" in (seen.page.locator("#more").text_content() or "")
        seen.page.fill("#filter", "gate-0999")
        expect(seen.page.locator("tbody .name")).to_have_text(["gate-0999"])
        seen.page.fill("#filter", "")
        for count in range(200, 1_000, 100):
            expect(seen.page.locator("#more")).to_have_text(f"{1_100 - count} more; scroll down, or filter.")
            seen.page.evaluate("scrollTo(0, document.body.scrollHeight)")
            expect(seen.page.locator("tbody tr")).to_have_count(count)
        seen.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(seen.page.locator("tbody tr")).to_have_count(1_000)
        expect(seen.page.locator("#more")).to_be_hidden()


@pytest.mark.check("browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_schemes(browser: Browser, scheme: Any) -> None:
    yard = a_yard(30)
    yard.notices = ["the store has not answered for 9 s"]
    with browsing(browser, yard, color_scheme=scheme) as seen:
        ratios = seen.page.evaluate(CONTRAST.replace("SELECTORS", json.dumps(TEXTS)))
        assert ratios
        assert min(ratios.values()) >= 4.5, ratios


@pytest.mark.check("browser")
def test_on_a_phone_nothing_is_wider_than_the_screen_and_all_is_there(browser: Browser) -> None:
    yard = a_yard(30)
    yard.rows[5] = a_row(5, "a" * 120)
    with browsing(browser, yard, viewport={"width": 360, "height": 740}, is_mobile=True) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 360
        text = row(seen.page, "gate-0003").inner_text()
        for expected in ("failing", "0.60", "truck 67%", "4812"):
            assert expected in text
        box = row(seen.page, "gate-0003").locator(".value").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 360


@pytest.mark.check("browser")
@pytest.mark.parametrize("width", [900, 1000, 1190, 1280, 1600])
def test_cells_stand_below_their_heads_and_nothing_is_wider_than_the_window(browser: Browser, width: int) -> None:
    yard = a_yard(8)
    yard.rows[5] = a_row(5, "a" * 120)
    yard.change(1, picture=1)
    with browsing(browser, yard, viewport={"width": width, "height": 700}) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") == width
        edges = seen.page.evaluate(
            "[...document.querySelectorAll('#cameras tr')].map((row) => [...row.children].map((cell) => "
            "Math.round(cell.getBoundingClientRect().left)).join())"
        )
        assert len(edges) == 9
        assert len(set(edges)) == 1, "each row is a grid of its own"


@pytest.mark.check("browser")
def test_rows_that_were_taken_for_others_show_nothing_of_the_first(browser: Browser) -> None:
    yard = a_yard(6)
    yard.change(0, picture=1, classes=(("car", 1.0),), alpha=None, why="odd", state=CameraState.CHANGED)
    with browsing(browser, yard) as seen:
        expect(seen.page.locator("tbody img")).to_have_count(1)
        for number in range(1, 6):
            seen.page.fill("#filter", f"gate-000{number}")
            expect(seen.page.locator("tbody .name")).to_have_text([f"gate-000{number}"])
        expect(seen.page.locator("tbody img")).to_have_count(0)
        assert row(seen.page, "gate-0005").locator(".why").text_content() == ""
        seen.page.fill("#filter", "gate-0000")
        expect(seen.page.locator("tbody .name")).to_have_text(["gate-0000"])
        expect(seen.page.locator("tbody img")).to_have_count(1)
        assert row(seen.page, "gate-0000").locator(".sees").text_content() == "car 100%"


@pytest.mark.check("browser")
def test_a_worker_that_goes_away_is_told_and_one_that_comes_back_is_shown(browser: Browser) -> None:
    yard = a_yard(3)
    with ExitStack() as stack:
        with shown(yard) as url:
            made = browser.new_context()
            stack.callback(made.close)
            seen = opened(made, url)
        expect(seen.page.locator("#away")).to_be_visible(timeout=scaled(20_000))
        expect(seen.page.locator("#away")).to_contain_text("The worker does not answer. Below is the state of")
        assert len(names(seen.page)) == 3, "what was known stays"
        yard.rows.append(a_row(9, "new one"))
        port = int(url.rsplit(":", 1)[1].strip("/"))
        stack.enter_context(rows_port(HttpSettings(port=port), yard))
        expect(seen.page.locator("tbody tr")).to_have_count(4, timeout=scaled(20_000))
        expect(seen.page.locator("#away")).to_be_hidden()


@pytest.mark.check("browser")
def test_with_a_token_the_form_opens_the_page_and_its_events(browser: Browser) -> None:
    with shown(a_yard(3), token=TOKEN) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="This page needs a token")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("tbody tr")).to_have_count(3)
        assert page.url == url
        assert page.evaluate("document.cookie") == "", "no script has it"
        context.clear_cookies()
        page.reload()
        expect(page.get_by_label("Token")).to_be_visible()
        context.close()


@pytest.mark.check("browser")
def test_the_form_opens_the_camera_that_was_asked_for_also_after_a_wrong_token(browser: Browser) -> None:
    yard = Yard([a_row(0, "gate & süd")])
    with shown(yard, token=TOKEN) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}camera?of={quote(yard.rows[0].key, safe='')}")
        for token in ("wrong", TOKEN):
            page.get_by_label("Token").fill(token)
            page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("gate & süd")
        context.close()


@pytest.mark.check("browser")
def test_pictures_are_shown_where_there_are_some(browser: Browser) -> None:
    out = io.BytesIO()
    Image.new("RGB", (112, 112), (30, 90, 60)).save(out, "JPEG")
    yard = a_yard(3)
    with browsing(browser, yard) as seen:
        assert not seen.page.locator("th.pictured").is_visible()
        yard.pictures[yard.rows[1].key] = out.getvalue()
        yard.change(1, picture=1)
        image = row(seen.page, "gate-0001").locator("img")
        expect(image).to_be_visible()
        assert image.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 112
        assert seen.complaints == []


@pytest.mark.check("browser")
def test_before_the_first_image_the_page_says_that_it_waits(browser: Browser) -> None:
    yard = Yard([])
    yard.notices = ["it loads the two models, for 12 s"]
    with browsing(browser, yard) as seen:
        expect(seen.page.locator("#none")).to_have_text("Waiting for the first images.")
        expect(seen.page.locator("#notices")).to_have_text("it loads the two models, for 12 s")
        yard.rows.append(CameraRow("first", "frames/0", CameraState.REJECTED, why="1 of 1 images rejected", rejected=1))
        expect(seen.page.locator("tbody .name")).to_have_text(["first"])
        assert [text for text in row(seen.page, "first").locator("td").all_text_contents() if text] == [
            *("0.0", "–", "–", "–", "–"),
        ]
        assert seen.complaints == []


TEXTS = [
    *(".name", ".word.failing", ".word.rejected", ".word.silent", ".word.changed", ".why", ".value", ".sees", ".hot"),
    *(".place", "td.number", "thead th", "#facts dt", "#notices li", "footer p", "footer .blue", "footer .orange"),
    "#states button",
]

# The least ratio of text to what is behind it, by selector.
CONTRAST = """() => {
  const part = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = colour(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const selector of SELECTORS) {
    for (const node of document.querySelectorAll(selector)) {
      const [a, b] = [light(colour(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
      found[selector] = Math.min(found[selector] ?? 99, (a + 0.05) / (b + 0.05));
    }
  }
  return found;
}"""
