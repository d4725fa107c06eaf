"""One camera's own page, asked for over a real port: who may see it, what is in it, and what is not known."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from adawise.watch.row import CameraState
from adawise.watch.web.camera import camera_document
from tests.watch.web.client import Reply, request
from tests.watch.web.yard import HOSTILE, Yard, a_row, a_view, a_yard, shown

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
