"""The page as people open it: in a browser that has no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from adawise.labels.arrays import empty
from adawise.text import two
from adawise_drift.events.result import Series
from adawise_drift.page.write import write_page
from adawise_drift.report import Report
from tests.deadlines import scaled
from tests.drift.page.building import HOSTILE, a_camera, a_report, a_yard, every_shape, without_rows
from tests.page.browsing import Seen, opened

SECTIONS = (
    *(
        "verdict",
        "happened",
        "first",
        "cameras",
        "ranking",
        "events",
        "gallery",
        "together",
        "helped",
        "overall",
        "each",
        "notes",
        "made",
    ),
)


@pytest.fixture(scope="module")
def seen(browser: Browser, page_file: Path) -> Iterator[Seen]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield opened(context, page_file)
    context.close()


def open_camera(page: Page, number: int) -> None:
    page.evaluate(f"document.getElementById('camera-{number}').open = true")
    page.locator(f"#camera-{number} .over-time").scroll_into_view_if_needed()
    page.wait_for_selector(f"#camera-{number} .over-time[data-drawn]", timeout=scaled(120_000))


def spans(page: Page, number: int) -> list[str]:
    """The words along the time of each figure of a camera."""
    found: list[str] = page.eval_on_selector_all(
        f"#camera-{number} .chart",
        """places => places.map(place => [...place.querySelectorAll('.role-axis text')]
        .map(text => text.textContent).sort().join(' '))""",
    )
    return found


def settle(page: Page) -> None:
    """Two frames of the screen, and what is drawn of them."""
    page.evaluate("() => new Promise(d => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(d, 50))))")


def test_it_opens_offline_without_a_complaint_or_a_request(seen: Seen, page_file: Path) -> None:
    open_camera(seen.page, 1)
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:image/")] == [page_file.as_uri()]


@pytest.mark.check("browser")
@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_a_heading_and_is_linked(seen: Seen, section: str) -> None:
    assert seen.page.locator(f"section#{section} h2").is_visible()
    assert seen.page.locator(f'nav a[href="#{section}"]').is_visible()


@pytest.mark.check("browser")
def test_a_camera_is_drawn_when_it_is_opened_and_not_before(seen: Seen) -> None:
    page = seen.page
    assert page.locator("#camera-4 .over-time[data-drawn]").count() == 0
    assert page.locator("#camera-4 .chart .marks").count() == 0
    open_camera(page, 4)
    widths = page.eval_on_selector_all(
        "#camera-4 .chart", "places => places.map(p => [p.id, p.clientWidth, p.querySelector('svg')?.clientWidth ?? 0])"
    )
    assert len(widths) >= 4
    for name, place, drawn in widths:
        assert 0.9 * place < drawn <= place, name


@pytest.mark.check("browser")
def test_events_are_marked_in_the_figure_of_their_measure_with_the_number_of_their_incident(seen: Seen) -> None:
    page = seen.page
    open_camera(page, 1)
    signs = page.eval_on_selector_all(
        "#camera-1 .chart",
        """places => Object.fromEntries(places.map(place => [place.id.replace('camera-1-', ''),
        [...place.querySelectorAll('.mark-text text')].map(text => text.textContent)
        .filter(text => /^[▲▼◆][0-9]+$/.test(text))]))""",
    )
    assert {name: found for name, found in signs.items() if found} == {
        "alpha": ["◆2"],
        "accuracy": ["▼1"],
        "answers": ["▼1"],
        "picture": ["▼1"],
    }


@pytest.mark.check("browser")
def test_a_calendar_has_a_column_a_day_and_the_hour_pointed_at_is_told(seen: Seen) -> None:
    page = seen.page
    open_camera(page, 1)
    place = page.locator('#camera-1 figure[data-panel="calendar"]')
    assert place.locator(".legend li").all_inner_texts() == ["1", "0", "20 others"]
    assert (
        place.locator("figcaption")
        .inner_text()
        .startswith(
            "2 conditions and 20 brief or rare ones, 39 returns; condition 1 from 18 h to 6 h, "
            "condition 0 from 6 h to 18 h."
        )
    )
    columns = page.eval_on_selector_all(
        "#camera-1-calendar .mark-rect path", "paths => [...new Set(paths.map(p => Math.round(p.getBBox().width)))]"
    )
    assert len(columns) <= 3, "days are alike, to the pixel; the pointer is none"
    place.locator(".timed").scroll_into_view_if_needed()
    box = place.locator(".timed").bounding_box()
    assert box is not None
    received = []
    for share in (0.1, 0.45):  # of the height, which has the axis of time below the day
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + share * box["height"])
        settle(page)
        received.append(page.locator("#told").inner_text().splitlines()[1])
    assert received == ["condition 1", "condition 0"]
    page.mouse.move(0, 0)
    rows = page.locator('#camera-1 [aria-label^="Conditions of"] tbody th').all_inner_texts()
    assert [row.strip() for row in rows] == ["1", "0", "20 others"]
    assert page.locator('#camera-2 [aria-label^="Conditions of"]').count() == 0


@pytest.mark.check("browser")
def test_measured_accuracy_is_solid_estimates_are_dashed_and_a_moment_is_told_with_bands(seen: Seen) -> None:
    page = seen.page
    open_camera(page, 1)
    learned = {"measured": '[stroke-width="3"]', "by confidence": '[stroke-dasharray="6,3"]'}
    drawn = {
        name: page.locator(f"#camera-1-accuracy .mark-rule line{check}").count() for name, check in learned.items()
    }
    assert drawn == {"measured": 8, "by confidence": 10}
    assert page.locator("#camera-1-accuracy .mark-rect path").count() >= 18
    place = page.locator('#camera-1 figure[data-panel="accuracy"] .timed')
    place.focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    output = page.locator("#told").inner_text()
    assert "measured by labels ." in output
    assert output.count("within .") == 3
    page.keyboard.press("Escape")


@pytest.mark.check("browser")
def test_a_link_opens_what_is_folded(seen: Seen) -> None:
    page = seen.page
    page.locator('#cameras a[href="#camera-6"]').click()
    page.wait_for_selector("#camera-6[open] .over-time[data-drawn]", timeout=scaled(120_000))
    page.locator('#camera-6 a[href="#query-series"]').first.click()
    page.wait_for_selector("#query-series[open]")
    assert "FROM outcomes" in page.locator("#query-series code").inner_text()


@pytest.mark.check("browser")
def test_every_figure_has_a_sentence_and_a_query_that_is_on_the_page(seen: Seen) -> None:
    page = seen.page
    open_camera(page, 1)
    figures = page.locator(".over-time figure")
    assert figures.count() > 12
    for caption in page.locator("#camera-1 .over-time figcaption").all():
        assert caption.inner_text().removesuffix("query").strip().endswith(".")
    links = page.eval_on_selector_all("a.query", "links => links.map(a => a.getAttribute('href'))")
    assert {link for link in links if page.locator(link).count() != 1} == set()
    assert len(set(links)) >= 6


@pytest.mark.check("browser")
def test_all_figures_of_a_camera_show_the_same_time_and_zoom_together(seen: Seen) -> None:
    page = seen.page
    open_camera(page, 1)
    before = spans(page, 1)
    page.locator("#camera-1 [data-zoom=in]").click()
    settle(page)
    zoomed = spans(page, 1)
    assert all(a != b for a, b in zip(before, zoomed, strict=True))
    box = page.locator("#camera-1 .timed").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 420, box["y"] + 60)
    page.mouse.up()
    settle(page)
    assert all(a != b for a, b in zip(spans(page, 1), zoomed, strict=True))
    page.locator("#camera-1 .timed").first.dblclick()
    settle(page)
    assert spans(page, 1) == before
    page.locator("#camera-1 [data-around]").first.click()
    settle(page)
    assert spans(page, 1) != before
    page.locator("#camera-1 [data-zoom=all]").click()
    settle(page)
    assert spans(page, 1) == before


@pytest.mark.check("browser")
def test_the_pointer_tells_the_values_that_the_report_has(seen: Seen, report: Report) -> None:
    page = seen.page
    open_camera(page, 1)
    timed = page.locator("#camera-1 .timed").first
    timed.scroll_into_view_if_needed()
    box = timed.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60)
    settle(page)
    output = page.locator("#told.visible").inner_text().splitlines()
    series = report.cameras[0].series
    when = output[0].removesuffix(" UTC").replace(" ", "T")
    times = [str(t)[:16] for t in series.time_us.astype("datetime64[us]")]
    point = times.index(when)
    plot = page.locator("#camera-1 .chart svg .role-frame .background").first.bounding_box()
    assert plot is not None
    share = (box["x"] + 0.5 * box["width"] - plot["x"]) / plot["width"]
    assert point == pytest.approx(share * len(times), abs=1.0)
    assert output[1] == f"alpha, mean {two(series.alpha[point])}"
    assert output[2] == f"served {two(series.alpha_low[point])} to {two(series.alpha_high[point])}"
    page.mouse.move(0, 0)
    assert page.locator("#told.visible").count() == 0


@pytest.mark.check("browser")
def test_keys_reach_everything_and_tell_the_values_point_by_point(seen: Seen, page_file: Path) -> None:
    page = seen.page
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=scaled(120_000))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#verdict")
    assert page.locator("table").count() == page.locator("[role=region][tabindex='0'][aria-label] table").count()
    page.locator("#camera-1 summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#camera-1 .over-time[data-drawn]", timeout=scaled(120_000))
    page.locator("#camera-1 .timed").first.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#told").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#told").get_attribute("role") == "status"
    assert "alpha, mean" in first
    assert page.locator("#told").inner_text() != first
    before = spans(page, 1)
    page.keyboard.press("+")
    settle(page)
    assert spans(page, 1) != before
    page.keyboard.press("0")
    settle(page)
    assert spans(page, 1) == before


def test_a_hostile_name_is_shown_and_not_obeyed(seen: Seen) -> None:
    page = seen.page
    assert HOSTILE in page.locator("h1").inner_text()
    assert page.locator("#ranking th", has_text=HOSTILE).count() == 1
    assert page.locator("#camera-1 .mix th", has_text=HOSTILE).count() == 1
    assert page.locator("#helped svg text", has_text="</script>").count() > 0  # inside a figure too
    assert page.locator("main script").count() == 0
    assert {src[:11] for src in page.eval_on_selector_all("img", "i => i.map(e => e.src)")} == {"data:image/"}
    assert seen.complaints == []


@pytest.mark.check("browser")
def test_examples_say_in_words_what_was_served(seen: Seen) -> None:
    words = seen.page.eval_on_selector_all("#camera-1 .examples img", "i => i.map(e => e.alt)")
    assert len(words) == 6
    assert words[0].startswith("Frame before it, 2026-10-")
    assert "served as truck with confidence .60 at alpha .10" in words[0]


@pytest.mark.check("browser")
def test_the_gallery_says_what_was_said_by_whom_on_which_camera(seen: Seen) -> None:
    page = seen.page
    assert page.locator("#gallery h3").count() == 3
    assert page.locator("#gallery figure").count() == 6
    output = page.locator("#gallery figure").first.inner_text()
    assert HOSTILE in output
    assert "zero-shot: car" in output
    assert "fine-tuned" not in output  # it was not asked
    words = page.locator("#gallery img").first.get_attribute("alt")
    assert words is not None
    assert words.endswith("with confidence .21")


@pytest.mark.check("browser")
def test_the_ranking_is_sorted_by_its_headers(seen: Seen) -> None:
    page = seen.page
    button = page.locator("#ranking th button", has_text="alpha")
    for ascending in (False, True):
        button.click()
        cells = "rows => rows.map(row => Number(row.cells[5].dataset.value))"
        column = page.eval_on_selector_all("#ranking tbody tr", cells)
        assert column == sorted(column, reverse=not ascending)
    assert page.locator("#ranking th[aria-sort=ascending]").inner_text() == "alpha"


@pytest.mark.check("browser")
def test_cameras_are_found_by_name(seen: Seen) -> None:
    page = seen.page
    page.locator("#filter").fill("CAM-03")
    assert page.locator(".multiples li:visible").count() == 1
    assert page.locator(".camera:visible").count() == 1
    page.locator("#filter").fill("silence")
    assert page.locator("#events tbody tr:visible").count() == 1
    assert page.locator(".timeline .row[data-find]:visible").count() == 1
    page.locator("#filter").fill("")
    assert page.locator(".camera:visible").count() == 10


@pytest.mark.check("browser")
def test_the_line_of_the_fleet_counts_every_camera_and_each_state_shows_its_cameras_alone(seen: Seen) -> None:
    page = seen.page
    assert page.locator(".fleet button").all_inner_texts() == ["4 ok", "4 changed", "1 failing", "1 silent"]
    page.locator(".fleet .failing").click()
    assert page.locator(".camera:visible").count() == 1
    assert page.locator(".timeline .row[data-find]:visible").count() == 1
    assert {card.get_attribute("data-state") for card in page.locator(".card:visible").all()} == {"failing"}
    page.locator(".fleet .failing").click()
    assert page.locator(".camera:visible").count() == 10


@pytest.mark.check("browser")
def test_the_first_screen_has_a_mark_for_each_incident_and_a_card_for_each_that_matters(seen: Seen) -> None:
    page = seen.page
    assert page.locator(".timeline .track > a").count() == 10
    assert page.locator(".card").count() == 6
    first = page.locator(".card").first
    assert HOSTILE in first.inner_text()
    assert "accuracy .80 to .45" in first.inner_text()
    assert "measured by labels" in first.inner_text()
    page.locator('.timeline a[href="#incident-1"]').click()
    page.wait_for_selector("#camera-1[open] .over-time[data-drawn]", timeout=scaled(120_000))
    assert page.locator("#incident-1").is_visible()


@pytest.mark.check("browser")
def test_the_next_command_is_copied(seen: Seen, report: Report) -> None:
    page = seen.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".card [data-copy]").first.click()
    page.locator(".card [data-copy]", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == report.events[0].next


@pytest.mark.check("browser")
@pytest.mark.parametrize("width", [1440, 1024, 720, 390])
def test_nothing_of_the_first_screen_is_cut_off(browser: Browser, page_file: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    seen = opened(context, page_file)
    beyond = seen.page.evaluate(
        """() => [...document.querySelectorAll('#verdict *, #happened *, #first *')]
        .filter(e => e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") == width
    context.close()


@pytest.mark.check("browser")
def test_figures_follow_light_and_dark_without_being_drawn_again(seen: Seen) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        seen.page.emulate_media(color_scheme=scheme)
        colours[scheme] = seen.page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('#overall svg text')).fill,
            getComputedStyle(document.querySelector('.multiples .small-mean')).stroke]"""
        )
    assert colours["light"][0] == "rgb(255, 255, 255)"
    assert all(a != b for a, b in zip(colours["light"], colours["dark"], strict=True))


@pytest.mark.check("browser")
def test_paper_is_light_and_shows_what_was_folded_with_a_picture_of_every_camera(seen: Seen) -> None:
    page = seen.page
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.locator("details:not([open], .on-request)").count() == 0
    band = "getComputedStyle(document.querySelector('.small-band')).fill"
    assert page.evaluate(band) != "none"
    page.emulate_media(color_scheme="light", media="screen")


@pytest.mark.check("browser")
def test_paper_has_a_summary_and_of_the_cameras_those_that_are_open(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = opened(context, page_file).page
    page.emulate_media(media="print")
    assert not page.locator("#each").is_visible()
    assert page.locator("#overall svg").count() > 3
    page.emulate_media(media="screen")
    open_camera(page, 3)
    page.emulate_media(media="print")
    assert [camera.get_attribute("id") for camera in page.locator(".camera:visible").all()] == ["camera-3"]
    context.close()


@pytest.mark.check("browser")
def test_every_list_has_the_failing_and_silent_cameras_first_and_says_that_they_are(
    browser: Browser, page_file: Path
) -> None:
    context = browser.new_context(offline=True)
    page = opened(context, page_file).page
    wanted = ["failing", "silent", *["changed"] * 4]
    for rows in (".timeline .row[data-find]", ".multiples li", "#ranking tbody tr", ".camera > summary"):
        said = [text.split() for text in page.locator(rows).locator(".badge").all_text_contents()]
        assert [text[-1] for text in said[:6]] == wanted, rows
    context.close()


@pytest.mark.check("browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, page_file: Path, scheme: Literal["light", "dark"]) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core comes with pip install axe-playwright-python")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, color_scheme=scheme)
    page = opened(context, page_file).page
    open_camera(page, 1)
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then((found) => found.violations.map(({ id, nodes }) => [id, nodes[0].html]))")
    assert found == []
    context.close()


@pytest.mark.check("browser")
def test_all_cameras_can_be_opened_and_drawn_for_print(seen: Seen) -> None:
    page = seen.page
    page.locator("#close-all").click()
    page.locator("#open-all").click()
    page.wait_for_selector("#drawn-told[data-done]", timeout=scaled(240_000))
    assert page.locator(".camera .over-time:not([data-drawn])").count() == 0
    assert seen.complaints == []


@pytest.mark.check("browser")
def test_a_narrow_screen_scrolls_tables_and_not_the_page(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800}, offline=True)
    narrow = opened(context, page_file)
    open_camera(narrow.page, 1)
    assert narrow.page.evaluate("document.documentElement.scrollWidth") == 360
    assert narrow.complaints == []
    context.close()


@pytest.mark.check("browser")
@pytest.mark.parametrize("kind", ["one camera", "no changes", "only traces", "one batch", "only history"])
def test_a_page_of_little_is_right_too(browser: Browser, tmp_path: Path, kind: str) -> None:
    camera = a_camera("yard/gate", [(0, 0.3), (100, 0.7)], hours=200)
    flat = a_camera("yard/flat", [(0, 0.3)], hours=1 if kind == "one batch" else 200)
    given = {
        "one camera": a_report([camera], hours=200),
        "no changes": a_report([flat, replace(flat, stream_id="yard/other")], hours=200),
        "only traces": a_report([without_rows(camera), without_rows(flat)], hours=200, models=(), queries={}),
        "one batch": a_report([flat], hours=1),
        "only history": a_report([flat], hours=200),
    }[kind]
    if kind == "only history":  # a camera that has sent nothing since
        given = replace(given, cameras=(replace(flat, series=empty(Series), alpha=np.nan),))
    if kind == "only traces":
        given = replace(given, overall=without_rows(replace(camera, series=given.overall)).series)
    write_page(tmp_path / "page.html", given)
    context = browser.new_context(viewport={"width": 1000, "height": 800}, offline=True)
    seen = opened(context, tmp_path / "page.html")
    open_camera(seen.page, len(given.cameras))
    assert seen.complaints == []
    assert "nan" not in seen.page.locator("main").inner_text().split()
    context.close()


@pytest.mark.check("browser")
def test_two_hundred_cameras_for_a_month_open_and_answer(browser: Browser, tmp_path: Path) -> None:
    yard = a_yard(200, labels=False)
    names = [camera.stream_id for camera in yard.cameras]
    events = [
        replace(event, incident=event.incident + 10 * place)
        for place in range(40)
        for event in every_shape(names[5 * place : 5 * place + 5], hours=720)
    ]
    write_page(tmp_path / "page.html", replace(yard, events=tuple(events)))
    assert (tmp_path / "page.html").stat().st_size < 4e6
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    seen = opened(context, tmp_path / "page.html")
    assert seen.page.locator("*").count() < 6_000
    assert seen.page.locator(".multiples li").count() == 24
    seen.page.locator("#cameras [data-more]").click()
    expect(seen.page.locator(".multiples li")).to_have_count(200)
    assert seen.page.locator(".timeline .row[data-find]").count() == 40
    assert seen.page.locator(".cards.at-once .card").count() == 6  # the scenes are alike
    assert "and 160 cameras more" in seen.page.locator("#happened").inner_text()
    assert seen.page.locator(".over-time[data-drawn]").count() == 1
    open_camera(seen.page, 150)
    assert seen.page.locator(".over-time[data-drawn]").count() < 10
    assert seen.complaints == []
    context.close()
