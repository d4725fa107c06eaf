"""The page's events: all rows, then what changed; bounded, and made only while somebody looks."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest

from adawise.records import TopicPartition
from adawise.watch.camera import LiveCamera
from adawise.watch.row import CameraState
from adawise.watch.state import StatePolicy
from adawise.watch.web import feed as feeding
from adawise.watch.web.feed import EventFeed, camera_document
from tests.watch.web.client import Listener, Reply, request
from tests.watch.web.yard import HOSTILE, NOW_S, Yard, a_row, a_view, a_yard, shown


def parsed(message: bytes | None) -> tuple[str, dict[str, Any]]:
    assert message is not None
    name, data = message.decode().strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def run(yard: Yard, steps: Any) -> None:
    feed = EventFeed(yard, period_s=0.01)
    try:
        await steps(feed)
    finally:
        feed.close()


def test_a_browser_hears_all_rows_and_then_those_that_changed_or_went() -> None:
    yard = a_yard(5)

    async def steps(feed: EventFeed) -> None:
        queue = feed.enter()
        name, everything = parsed(await queue.get())
        assert name == "all"
        assert [row["name"] for row in everything["rows"]] == [f"gate-{n:04d}" for n in range(5)]
        assert (everything["title"], everything["notices"]) == ("street by host:1234", [])
        yard.change(2, alpha=0.99, state=CameraState.CHANGED, why="alpha went")
        yard.notices = ["the store is away"]
        while True:
            name, news = parsed(await queue.get())
            if news["rows"]:
                break
        assert name == "some"
        assert [(row["name"], row["alpha"], row["state"]) for row in news["rows"]] == [("gate-0002", 0.99, "changed")]
        assert news["notices"] == ["the store is away"]
        assert "gone" not in news
        del yard.rows[0]
        while "gone" not in (news := parsed(await queue.get())[1]):
            pass
        assert news["gone"] == ["street/0/gate-0000"]

    asyncio.run(run(yard, steps))


def test_of_a_line_only_its_end_is_told_and_a_browser_has_it_whole() -> None:
    camera = LiveCamera("gate", TopicPartition("street", 0), NOW_S)
    seen: dict[str, Any] = {}
    lengths: list[int] = []

    async def steps(feed: EventFeed) -> None:
        queue = feed.enter()
        await queue.get()
        for turn in range(400):
            now_s = NOW_S + 2.0 * turn + (300.0 if turn > 200 else 0.0) + (900.0 if turn > 300 else 0.0)
            camera.served(
                now_s,
                alpha=turn % 7 / 10,
                forward_equivalents=1.0,
                labels=[0],
                confidence=0.5,
                entropy=0.7,
                compared=0,
                agreed=0,
                reset=None,
            )
            row = camera.row(camera.facts(now_s), StatePolicy(), (), None)
            yard.rows = [row]
            _, news = parsed(feed._turn(yard.view()))
            for expected in news["rows"]:
                lengths.append(len(expected["alphas"]))
                if "keep" in expected:  # as the page does it
                    begin = expected["keep"] - seen["first"]
                    expected["alphas"] = seen["alphas"][begin : expected["first"] - seen["first"]] + expected["alphas"]
                    expected["first"] = expected["keep"]
                seen.update(expected)
            assert seen["first"] == row.first_step
            assert seen["alphas"] == [None if alpha is None else round(100 * alpha) for alpha in row.alphas]

    yard = Yard([])
    asyncio.run(run(yard, steps))
    assert sorted(lengths)[len(lengths) // 2] <= 2


def test_a_row_that_is_equal_is_not_told_again() -> None:
    yard = a_yard(3)

    async def steps(feed: EventFeed) -> None:
        queue = feed.enter()
        await queue.get()
        yard.rows = [a_row(number) for number in range(3)]  # other objects
        for _ in range(3):
            assert parsed(await queue.get())[1]["rows"] == []

    asyncio.run(run(yard, steps))


def test_while_nobody_looks_nothing_is_asked() -> None:
    yard = a_yard(1)

    async def steps(feed: EventFeed) -> None:
        queue = feed.enter()
        await queue.get()
        await queue.get()
        feed.leave(queue)
        turning = feed._turning
        assert turning is not None
        await turning
        requested = yard.views
        again = feed.enter()
        assert yard.views == requested + 1
        assert parsed(await again.get())[0] == "all"

    asyncio.run(run(yard, steps))


def test_a_browser_that_does_not_keep_up_is_let_go_and_the_others_hear_on() -> None:
    yard = a_yard(1)

    async def steps(feed: EventFeed) -> None:
        slow, quick = feed.enter(), feed.enter()
        while feed.viewers == 2:
            await quick.get()
        assert slow.get_nowait() is None
        assert slow.empty()
        assert await quick.get() is not None

    asyncio.run(run(yard, steps))


def test_a_crowd_that_comes_at_once_costs_nobody_its_place() -> None:
    yard = a_yard(3)

    async def steps(feed: EventFeed) -> None:
        first = feed.enter()
        await first.get()
        yard.change(1, alpha=0.99)
        crowd = [feed.enter() for _ in range(20)]
        assert feed.viewers == 21
        for queue in (first, *crowd):  # each has what came meanwhile, now or by the next turn
            alphas: dict[str, float] = {}
            while alphas.get("gate-0001") != 0.99:
                alphas |= {row["name"]: row["alpha"] for row in parsed(await queue.get())[1]["rows"]}

    asyncio.run(run(yard, steps))


def test_there_are_so_many_places_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "MOST_VIEWERS", 2)
    with shown(a_yard(1)) as url, Listener(url) as second:
        with Listener(url) as first:
            assert first.next()[0] == second.next()[0] == "all"
            with Listener(url) as third:
                assert third.status == 503
        status = 503
        while status == 503:  # until the port has heard that the first one went
            second.next()
            with Listener(url) as fourth:
                status = fourth.status


def test_hostile_names_are_one_line_of_json() -> None:
    yard = Yard([a_row(0, HOSTILE), a_row(1, "new\nline\r\u2028"), a_row(2, "event: all")])

    async def steps(feed: EventFeed) -> None:
        message = await feed.enter().get()
        assert message is not None
        assert message.count(b"\n") == 3
        assert b"\r" not in message
        assert [row["name"] for row in parsed(message)[1]["rows"]] == [row.stream_id for row in yard.rows]

    asyncio.run(run(yard, steps))


TOKEN = "0123456789abcdef-not-a-secret"
NAMES = [
    *(
        "gate",
        "a b",
        "a/b/c",
        "?of=x&of=y#z",
        "100%",
        "+",
        "süd ✓",
        "a\nb\r\n\r\nc",
        "\x00\x1b[2J",
        '"><script>alert(1)</script>',
    ),
    *(HOSTILE, "x" * 249, "../../etc/passwd", "%2e%2e", "{{7*7}}", "\u202e", "'; drop table cameras; --"),
]


def of(url: str, key: str, path: str = "/camera.json", *, method: str = "GET", **headers: str) -> Reply:
    return request(url, f"{path}?of={quote(key, safe='')}", method=method, body=None, **headers)


@pytest.mark.parametrize("name", NAMES)
def test_a_camera_of_any_name_is_found_by_its_quoted_key_and_its_name_is_only_data(name: str) -> None:
    yard = Yard([a_row(0), a_row(1, name)])
    yard.change(1, why=name, state=CameraState.REJECTED, classes=((name, 1.0),), rejected=3)
    key = yard.rows[1].key
    with shown(yard) as url:
        page, data = of(url, key, "/camera"), of(url, key)
        assert (page.status, data.status) == (200, 200)
        assert page.headers["content-type"].startswith("text/html")
        assert page.body == of(url, yard.rows[0].key, "/camera").body, "the page is the same for all cameras"
        assert data.headers["content-type"] == "application/json"
        assert data.headers["x-content-type-options"] == "nosniff"
        assert data.headers["cache-control"] == "no-store"
        assert (data.json["row"]["name"], data.json["row"]["why"]) == (name, name)
        assert data.json == json.loads(json.dumps(camera_document(a_view(yard.rows[1]))))


@pytest.mark.parametrize("key", ["", "nobody", "street/0/gate-9999", "street/0/", "x" * 8_000, "é" * 500, "\x00"])
def test_a_camera_that_is_not_known_is_404_and_the_page_says_why_that_may_be(key: str) -> None:
    with shown(a_yard(2)) as url:
        page, data = of(url, key, "/camera"), of(url, key)
        assert (page.status, data.status) == (404, 404)
        assert "This page knows no such camera now." in page.text
        assert 'href="./"' in page.text
        assert data.text == "this page knows no such camera now\n"
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_without_a_key_or_with_one_that_is_no_text_there_is_no_camera() -> None:
    with shown(a_yard(2)) as url:
        for query in ("", "?of", "?of=%ff%fe", "?of=%", "?no=street/0/gate-0000"):
            assert request(url, f"/camera{query}").status == 404, query
            assert request(url, f"/camera.json{query}").status == 404, query


def test_a_camera_is_seen_by_those_who_may_see_the_page_alone() -> None:
    yard = a_yard(2)
    key = yard.rows[0].key
    with shown(yard, token=TOKEN) as url:
        page = of(url, key, "/camera")
        assert page.status == 401
        assert 'type="password"' in page.text, "the form, as on the page"
        assert of(url, "nobody", "/camera").status == 401, "whether there is such a camera is not said either"
        assert of(url, key).status == 401
        assert of(url, key, authorization=f"Bearer {TOKEN}x").status == 401
        for path in ("/camera", "/camera.json"):
            assert of(url, key, path, authorization=f"Bearer {TOKEN}").status == 200
    with shown(yard, listen="0.0.0.0") as url:
        assert {of(url, key, path).status for path in ("/camera", "/camera.json", "/camera.js")} == {403}
    with shown(yard) as url:
        assert {of(url, key, path, host="evil.example").status for path in ("/camera", "/camera.json")} == {421}
        assert of(url, key, "/camera", method="POST").status == 405


def test_a_value_that_is_not_a_number_is_null() -> None:
    nan = float("nan")
    document = camera_document(a_view(a_row(0)))
    assert document["conditions"][2] == {"number": 98, "alpha": 0.75, "seen": None, "returns": 0, "current": False}
    yard = Yard([a_row(0)])
    yard.change(0, alpha=nan, forward_equivalents=nan)
    assert camera_document(a_view(yard.rows[0]))["row"]["alpha"] is None
    json.dumps(camera_document(a_view(yard.rows[0])), allow_nan=False)
