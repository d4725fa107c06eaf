"""The port as strangers use it: too many connections, slow ones, garbage; and what becomes of it when it fails."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from pydantic import ValidationError
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from adawise.app.http import worker_port
from adawise.errors import SettingsError
from adawise.settings import HttpSettings, Settings
from adawise.watch.web import app as application
from adawise.watch.web import server
from adawise.watch.web.server import HttpThread, listen, url_of
from tests.watch.web.client import Listener, connected, request
from tests.watch.web.yard import a_yard, shown


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at connections often."""
    monkeypatch.setattr(server, "_CHECK_S", 0.05)


def mishaps(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def ended(sock: socket.socket) -> bool:
    """Reads until the other side ends it."""
    try:
        while sock.recv(65_536):
            pass
    except ConnectionError:
        pass
    return True


def test_a_default_port_that_is_taken_gives_one_near_it_and_a_set_one_an_error() -> None:
    with closing(listen("127.0.0.1", 0, 0)) as taken:
        number = taken.getsockname()[1]
        with closing(listen("127.0.0.1", None, number)) as near:
            assert near.getsockname()[1] != number
        with pytest.raises(SettingsError, match=rf"http.port: expected a free port, but 127.0.0.1 port {number} is"):
            listen("127.0.0.1", number, 0)


def test_where_all_near_it_are_taken_any_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_TRIES", 1)
    with (
        closing(listen("127.0.0.1", 0, 0)) as taken,
        closing(listen("127.0.0.1", None, taken.getsockname()[1])) as any_,
    ):
        assert any_.getsockname()[1] > 0


def test_an_address_that_is_not_this_machines_is_told_with_the_remedy() -> None:
    with pytest.raises(SettingsError, match=r"http.listen: expected an address of this machine.*--no-http.enabled"):
        listen("192.0.2.1", 0, 0)


@pytest.mark.parametrize(
    ("address", "url"), [("0.0.0.0", "http://127.0.0.1:{}/"), ("::1", "http://[::1]:{}/"), ("::", "http://[::1]:{}/")]
)
def test_the_url_is_one_that_a_browser_here_can_open(address: str, url: str) -> None:
    with closing(listen(address, 0, 0)) as bound:
        assert url_of(bound) == url.format(bound.getsockname()[1])


def test_a_port_that_others_can_reach_says_at_the_start_that_it_has_no_page() -> None:
    with capture_logs() as lines, worker_port(Settings.model_validate({"http": {"port": 0, "listen": "0.0.0.0"}})):
        pass
    (line,) = lines
    assert line["event"] == "http_started"
    assert "http.token" in line["note"]


def test_a_thousand_idle_connections_are_cut_and_probes_answer_on(quick: None) -> None:
    with shown(a_yard(1)) as url, ExitStack() as stack:
        sockets = [stack.enter_context(closing(connected(url))) for _ in range(1_000)]
        assert all(ended(sock) for sock in sockets), "also those within the bound, since they ask for nothing"
        assert request(url, "/").status == 200


def test_where_all_are_answered_the_oldest_of_the_address_with_the_most_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    with shown(a_yard(1)) as url, ExitStack() as stack:
        listeners = [stack.enter_context(Listener(url)) for _ in range(3)]
        assert [listener.next()[0] for listener in listeners] == ["all"] * 3
        assert request(url, "/").status == 200
        assert listeners[0].ended()
        assert [listener.next()[0] for listener in listeners[1:]] == ["some"] * 2


@pytest.mark.parametrize("holds", ["bodies", "answers"])
def test_nobody_keeps_probes_out_without_a_token(monkeypatch: pytest.MonkeyPatch, holds: str) -> None:
    """By bodies that never arrive, or by answers that are never read: version 0.2 answered one probe in fifty."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 8)
    body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\nt"
    many = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2_000
    with shown(a_yard(1), token="0123456789abcdef") as url, ExitStack() as stack:
        for _ in range(5):
            for _ in range(8):
                sock = stack.enter_context(closing(connected(url)))
                sock.setblocking(False)
                with suppress(OSError):
                    sock.send(body if holds == "bodies" else many)
            assert request(url, "/").status == 401  # an answer


def test_a_request_takes_the_place_of_the_oldest_connection_that_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    with shown(a_yard(1)) as url, ExitStack() as stack:
        listener = stack.enter_context(Listener(url))
        assert listener.next()[0] == "all"
        first, second = (stack.enter_context(closing(connected(url))) for _ in range(2))
        assert request(url, "/").status == 200
        assert ended(first)
        second.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert second.recv(100).startswith(b"HTTP/1.1 200")
        assert listener.next()[0] == "some"


def test_a_probe_on_the_last_place_is_not_what_makes_room_for_the_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a place and has sent nothing yet, as any request for a moment; all others wait for a body."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 8)
    body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\nExpect: 100-continue\r\n\r\n"
    with shown(a_yard(1), token="0123456789abcdef") as url, ExitStack() as stack:

        def wait_for_a_body() -> None:
            sock = stack.enter_context(closing(connected(url)))
            sock.sendall(body)
            assert sock.recv(100).startswith(b"HTTP/1.1 100")

        for _ in range(7):
            wait_for_a_body()
        probe = stack.enter_context(closing(connected(url, source="127.0.0.2")))
        for _ in range(4):
            wait_for_a_body()
        probe.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert probe.recv(100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_clients_are_counted_by_ipv4_address_or_ipv6_network(address: str, client: str) -> None:
    assert server._client(address) == client


def test_an_address_has_half_of_the_places_and_makes_room_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_OF_ADDRESS", 2)
    with shown(a_yard(1)) as url, ExitStack() as stack:
        theirs = stack.enter_context(closing(connected(url, source="127.0.0.2")))
        first, second, _third = (stack.enter_context(closing(connected(url))) for _ in range(3))
        assert ended(first)
        for sock in (theirs, second):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_port_of_probes_answers_these_alone_whatever_crowd_is_at_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 4)
    settings = Settings.model_validate({"kafka": {"topic": "yard"}, "http": {"port": 0, "probes_port": 0}})
    with capture_logs() as lines, worker_port(settings) as port, ExitStack() as stack:
        assert port.url is not None
        probes = next(line["probes"] for line in lines if line["event"] == "http_started")
        assert probes != port.url
        crowd = [stack.enter_context(Listener(port.url)) for _ in range(4)]
        idle = [stack.enter_context(closing(connected(probes))) for _ in range(server.MOST_PROBES)]
        assert [request(probes, path).status for path in ("/livez", "/readyz", "/metrics", "/", "/events")] == [
            *(200, 503),
            *[404] * 3,
        ]
        assert ended(idle[0])
        assert [listener.next()[0] for listener in crowd] == ["all"] * 4
        assert request(port.url, "/livez").status == 200


def test_a_port_for_two_things_or_one_that_is_taken_is_named() -> None:
    with closing(server.listen("127.0.0.1", 0, 0)) as taken:
        number = taken.getsockname()[1]
        both = {"port": number, "probes_port": number}
        with pytest.raises(ValidationError, match=r"probes_port: it is http\.port"):
            HttpSettings.model_validate(both)
        settings = Settings.model_validate({"http": {"port": 0, "probes_port": number}})
        with pytest.raises(
            SettingsError, match=f"http.probes_port: expected a free port, but .* port {number} is taken"
        ):
            worker_port(settings).__enter__()


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_request_that_does_not_come_to_its_end_is_cut(quick: None, begun: bytes) -> None:
    with shown(a_yard(1)) as url, closing(connected(url)) as sock:
        sock.sendall(begun)
        assert ended(sock)


def test_a_form_that_does_not_come_to_its_end_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "_FORM_S", 0.1)
    with shown(a_yard(1), token="0123456789abcdef") as url, closing(connected(url)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken=")
        assert sock.recv(100).startswith(b"HTTP/1.1 403")


def test_a_browser_that_takes_nothing_is_cut_and_another_has_its_place(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows do not fit into the buffers of the kernel."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)
    yard = a_yard(50)
    for number in range(50):
        yard.change(number, why="x" * 500_000)
    with shown(yard) as url, closing(connected(url)) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert request(url, "/").status == 200
        assert ended(sock)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\xfc\x03", b"GET\r\n\r\n", b"G" * 200_000, b"\x00" * 50])
def test_garbage_is_answered_or_cut_and_not_logged(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with shown(a_yard(1)) as url:
        with closing(connected(url)) as sock:
            try:
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                ended(sock)
            except OSError:
                pass
        assert request(url, "/").status == 200
    assert mishaps(caplog) == []


def test_the_port_ends_with_the_worker_also_while_browsers_look(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        with shown(a_yard(1)) as url:
            listener = stack.enter_context(Listener(url))
            assert listener.next()[0] == "all"
        assert listener.ended()
        assert "http" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(ConnectionRefusedError):
            connected(url)
    assert mishaps(caplog) == []


def test_a_thread_that_fails_is_logged_and_ends_nothing_else() -> None:
    bound = listen("127.0.0.1", 0, 0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("never")(scope, receive, send)

    thread = HttpThread(app, bound)
    thread._server.run = lambda **_: (_ for _ in ()).throw(MemoryError("no more"))  # type: ignore[method-assign]
    with capture_logs() as lines:
        thread.start()
        thread.close()
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("http_failed", "error")
    assert "the worker goes on" in line["note"]


def test_a_page_whose_rows_fail_is_an_error_of_that_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    yard = a_yard(1)
    with shown(yard) as url:
        yard.rows = [None]  # type: ignore[list-item]
        with Listener(url) as broken:
            assert broken.status == 500
        assert request(url, "/").status == 200
    assert "Exception in ASGI application" in caplog.text


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert "http" not in {thread.name for thread in threading.enumerate()}
