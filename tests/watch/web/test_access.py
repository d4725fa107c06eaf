"""Who may see what, asked over a real port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from urllib.parse import urlencode

import pytest

from adawise.app.http import worker_port
from adawise.settings import Settings
from adawise.watch.web.access import COOKIE, COOKIE_S, Access, host_name
from tests.watch.web.client import Reply, request
from tests.watch.web.yard import a_yard, shown

TOKEN = "0123456789abcdef-not-a-secret"


@contextmanager
def a_worker(**http: object) -> Iterator[str]:
    with worker_port(Settings.model_validate({"http": {"port": 0, **http}})) as port:
        assert port.url is not None
        yield port.url


def log_in(url: str, token: str, path: str = "/", **headers: str) -> Reply:
    form = urlencode({"token": token}).encode()
    return request(url, path, method="POST", body=form, content_type="application/x-www-form-urlencoded", **headers)


def cookie_of(reply: Reply) -> SimpleCookie:
    return SimpleCookie(reply.headers["set-cookie"])


def test_on_this_machine_and_without_a_token_all_is_open() -> None:
    with a_worker() as url:
        assert {path: request(url, path).status for path in ("/", "/live.js", "/live.css", "/metrics", "/livez")} == {
            "/": 200,
            "/live.js": 200,
            "/live.css": 200,
            "/metrics": 200,
            "/livez": 200,
        }


def test_what_others_can_reach_has_no_page_without_a_token_but_probes_and_metrics() -> None:
    with a_worker(listen="0.0.0.0") as url:
        assert [request(url, path).status for path in ("/livez", "/metrics", "/", "/events", "/live.js")] == [
            *(200, 200),
            *(403, 403, 403),
        ]
        assert "ADAWISE_HTTP__TOKEN" in request(url, "/").text


def test_with_a_token_only_probes_answer_without_it() -> None:
    with a_worker(token=TOKEN) as url:
        assert request(url, "/livez").status == 200
        assert request(url, "/readyz").status == 503, "it has not begun, and says so to anybody"
        for path in ("/metrics", "/events", "/picture", "/live.js"):
            assert request(url, path).status == 401, path
            assert request(url, path).headers["www-authenticate"] == "Bearer"
            assert request(url, path, authorization=f"Bearer {TOKEN}x").status == 401, path
        front = request(url, "/")
        assert front.status == 401
        assert 'type="password"' in front.text
        assert request(url, "/metrics", authorization=f"Bearer {TOKEN}").status == 200
        assert request(url, "/", authorization=f"bearer {TOKEN}").status == 200
        assert request(url, "/metrics", authorization=f"Basic {TOKEN}").status == 401


def test_the_form_gives_a_cookie_that_no_script_and_no_other_site_has_and_that_is_not_the_token() -> None:
    with a_worker(token=TOKEN) as url:
        assert log_in(url, "wrong").status == 403
        assert "set-cookie" not in log_in(url, "wrong").headers
        reply = log_in(url, TOKEN)
        assert (reply.status, reply.headers["location"]) == (303, "./")
        (morsel,) = cookie_of(reply).values()
        assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "strict", "/")
        assert TOKEN not in reply.headers["set-cookie"]
        assert request(url, "/", cookie=f"{morsel.key}={morsel.value}").status == 200
        assert request(url, "/metrics", cookie=f"other=1; {morsel.key}={morsel.value}").status == 200
        until, _, signature = morsel.value.partition(".")
        for forged in (
            f"{int(until) + 1}.{signature}",
            f"{until}.",
            "",
            ".",
            f"x.{signature}",
            f"{until}.{'0' * 64}",
            "é.1",
        ):
            assert request(url, "/metrics", cookie=f"{morsel.key}={forged}".encode().decode("latin-1")).status == 401, (
                forged
            )


@pytest.mark.parametrize(
    ("asked", "opened"),
    [
        *[("/", "./"), ("/?of=x", "./"), ("/camera?of=yard%2F0%2Fa%20b%26c", "camera?of=yard%2F0%2Fa+b%26c")],
        *[("/camera", "camera?of="), ("/camera?of=https://evil.example", "camera?of=https%3A%2F%2Fevil.example")],
        *[("/camera?of=%0d%0aX:%20y&next=//evil.example", "camera?of=%0D%0AX%3A+y")],
    ],
)
def test_the_form_opens_the_page_that_was_asked_for_and_none_elsewhere(asked: str, opened: str) -> None:
    with a_worker(token=TOKEN) as url:
        assert log_in(url, "wrong", asked).status == 403
        reply = log_in(url, TOKEN, asked)
        assert (reply.status, reply.headers["location"]) == (303, opened)
        assert log_in(url, TOKEN, asked, origin="http://evil.example").status == 403
    with a_worker() as url:
        assert log_in(url, TOKEN, asked).status == 405, "without a token there is no form"


def test_a_cookie_ends_and_holds_for_all_workers_with_the_token() -> None:
    now = [1_000.0]
    first, second = (Access(TOKEN, frozenset(), False, lambda: now[0]) for _ in range(2))
    cookie = first.cookie()
    assert second.is_cookie(cookie)
    assert not Access("another-token-0123456789", frozenset(), False, lambda: now[0]).is_cookie(cookie)
    now[0] += COOKIE_S
    assert not first.is_cookie(cookie)


def test_a_cookie_is_secure_where_the_page_came_encrypted() -> None:
    with a_worker(token=TOKEN) as url:
        (morsel,) = cookie_of(log_in(url, TOKEN, x_forwarded_proto="https")).values()
        assert morsel["secure"] is True


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8642", "localhost.evil.example", "127.0.0.1.evil.example", ""),
        *("[::1].evil.example", "[::1", "localhost:80.evil.example", "[localhost]", "::1"),
    ],
)
def test_a_name_that_is_not_ours_gets_nothing_but_probes(host: str) -> None:
    with a_worker(hosts="cams.example, gate") as url:
        assert request(url, "/livez", host=host).status == 200
        for path in ("/", "/metrics", "/events", "/camera"):
            reply = request(url, path, host=host)
            assert reply.status == 421, path
        assert "http.hosts" in reply.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8642", "127.0.0.1", "[::1]:8642", "10.2.3.4:80", "cams.example", "gate.:1"]
)
def test_addresses_localhost_and_names_of_the_settings_are_ours(host: str) -> None:
    with a_worker(hosts="cams.example, gate") as url:
        assert request(url, "/metrics", host=host).status == 200


def test_a_form_of_another_site_is_refused() -> None:
    with a_worker(token=TOKEN) as url:
        assert log_in(url, TOKEN, origin="http://evil.example").status == 403
        assert log_in(url, TOKEN, origin="null").status == 403
        assert log_in(url, TOKEN, origin="http://[::1").status == 403
        assert log_in(url, TOKEN, sec_fetch_site="cross-site").status == 403
        assert log_in(url, TOKEN, origin=url.rstrip("/")).status == 303


def test_a_form_that_is_too_long_or_no_form_is_refused() -> None:
    with a_worker(token=TOKEN) as url:
        assert request(url, "/", method="POST", body=b"token=" + b"x" * 10_000).status == 403
        assert request(url, "/", method="POST", body=b"\xff\xfe").status == 403
        assert request(url, "/", method="POST", body=b"token=" + TOKEN.encode()).status == 303
        assert request(url, "/", method="PUT", body=b"").status == 401


def test_every_answer_says_that_nothing_outside_and_no_frame_is_wanted() -> None:
    with shown(a_yard(2)) as url:
        for path in ("/", "/live.js", "/nowhere", "/metrics"):
            headers = request(url, path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
        assert request(url, "/nowhere").headers["cache-control"] == "no-store"
        assert "server" not in request(url, "/").headers


def test_paths_are_what_they_say_and_lead_nowhere_else() -> None:
    with shown(a_yard(1)) as url:
        for path in ("/live.html", "/login.html", "/../live.js", "/%2e%2e/app.py", "//", "/live.js/", "/picture?of=x"):
            assert request(url, path).status in {404, 307}, path
        assert request(url, "/events", method="POST").status == 405


def test_a_cookie_is_found_among_others_and_one_of_any_form_keeps_nobody_waiting() -> None:
    with a_worker(token=TOKEN) as url:
        (morsel,) = cookie_of(log_in(url, TOKEN)).values()
        ours = f"{COOKIE}={morsel.value}"
        for cookie in (f"a=b; {ours}", f"{ours};c", f'{COOKIE}=x; =;;"; {ours} '):
            assert request(url, "/", cookie=cookie).status == 200
        for cookie in (COOKIE, f"{COOKIE}=", f"x{ours}", f'{COOKIE}="' + "\\" * 60_000 + '"'):
            assert request(url, "/", cookie=cookie).status == 401


def test_whether_there_are_events_is_answered_without_an_end_to_wait_for() -> None:
    with shown(a_yard(1)) as url:
        assert request(url, "/events", method="HEAD").headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(("given", "name"), [("A.b:80", "a.b"), ("[::1]:8", "::1"), ("[::1]", "::1"), ("x.", "x")])
def test_a_host_is_read_without_its_port(given: str, name: str) -> None:
    assert host_name(given) == name
