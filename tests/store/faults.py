"""A proxy between a store's client and its server that fails as networks and stores do, request by request, by script.

Real sockets: what the client sees is a closed connection, an answer that never comes, a 503. `down` closes the port.
"""

from __future__ import annotations

import hashlib
import random
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.deadlines import scaled
from tests.loopback import Answering, Server

UPSTREAM_S = scaled(60.0)  # for the server's answer; it is on this machine
SLOW_S = 0.05
_PATIENCE = 100  # faulty writes: a test that writes a thousand keys is about something else


class Fault(StrEnum):
    """What happens to one request."""

    NONE = "passed on and answered"
    SLOW = "passed on and answered late, within any time-out"
    CUT_BEFORE = "cut before anything of it was passed on"
    CUT_INSIDE = "cut when half of its body was passed on"
    BUSY = "answered 503, not passed on"
    FAILED = "answered 500, not passed on"
    DENIED = "answered 403, not passed on"
    UNKNOWN = "answered 501, not passed on"
    CUT_AFTER = "passed on, and cut before the answer"
    CUT_ANSWER = "passed on, and cut in the middle of the answer"
    WITHHELD = "passed on, and never answered"
    FAILED_AFTER = "passed on, and answered 500"


NOT_DONE = (Fault.CUT_BEFORE, Fault.CUT_INSIDE, Fault.BUSY, Fault.FAILED)
"""After these the server has not done what was asked."""

DONE = (Fault.CUT_AFTER, Fault.CUT_ANSWER, Fault.WITHHELD, Fault.FAILED_AFTER)
"""After these it has, and the client cannot know."""


_STATUS = {Fault.BUSY: 503, Fault.FAILED: 500, Fault.DENIED: 403, Fault.UNKNOWN: 501}


@dataclass(frozen=True)
class Request:
    """A request as it came; `digest` is the SHA-256 of its body. `again` says how often the same came before."""

    method: str
    path: str
    headers: Mapping[str, str]
    digest: str
    again: int

    @property
    def is_create(self) -> bool:
        """True if it must not replace what exists."""
        return "if-none-match" in self.headers


Script = Callable[[Request], Fault]


def calm(request: Request) -> Fault:
    """No faults."""
    return Fault.NONE


class EveryFirstTry:
    """Each request fails at its first try, one way after the other; a create without having been done.

    (A create that was done although nobody said so is refused at the second try: the chain's to resolve, not the
    store's.)
    """

    def __init__(self) -> None:
        self._turn = 0

    def __call__(self, request: Request) -> Fault:
        if request.again % 2 or (request.method == "PUT" and self._turn > _PATIENCE):
            return Fault.NONE
        self._turn += 1
        kinds = [fault for fault in (*NOT_DONE, *DONE) if fault is not Fault.WITHHELD]
        return (NOT_DONE if request.is_create else kinds)[self._turn % (4 if request.is_create else len(kinds))]


class AtRandom:
    """One request in `every` fails, in a way that the seed decides; one fault in `withheld` is a time-out."""

    def __init__(self, seed: int, *, every: int, withheld: int) -> None:
        self._rng = random.Random(seed)
        self._every, self._withheld = every, withheld

    def __call__(self, request: Request) -> Fault:
        if self._rng.randrange(self._every):
            return Fault.NONE
        if not self._rng.randrange(self._withheld):
            return Fault.WITHHELD
        return self._rng.choice([fault for fault in (*NOT_DONE, *DONE, Fault.SLOW) if fault is not Fault.WITHHELD])


@dataclass
class FaultyProxy:
    """The proxy; in a `with` block it serves at `address`. `without` are headers that it does not pass on."""

    upstream: str
    script: Script = calm
    without: frozenset[str] = frozenset()
    seen: list[tuple[Request, Fault]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tries: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()
        self._port = 0
        self.is_up = False

    @property
    def address(self) -> str:
        """Its URL, the same whenever it is up."""
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listen, at the same port as before."""
        self._server = _Listener(_Passing, self._port)
        self._server.proxy = self
        self._port = self._server.server_address[1]
        self.is_up = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def down(self) -> None:
        """Refuse connections, and cut those that there are at their next request."""
        self.is_up = False
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def decide(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Fault:
        """Write the request down and ask the script."""
        digest = hashlib.sha256(body).hexdigest()
        with self._lock:
            again = self._tries[method, path, digest]
            self._tries[method, path, digest] += 1
            request = Request(method, path, headers, digest, again)
            fault = self.script(request)
            self.seen.append((request, fault))
        return fault

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_up:
            self.down()


class _Listener(Server):
    proxy: FaultyProxy
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is the point of it all."""


class _Passing(Answering):
    """One connection of a client."""

    server: _Listener

    def _pass(self) -> None:
        proxy = self.server.proxy
        body = self.body()
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in proxy.without}
        fault = proxy.decide(self.command, self.path, headers, body) if proxy.is_up else Fault.CUT_BEFORE
        if fault is Fault.CUT_BEFORE:
            self._cut()
        elif fault is Fault.CUT_INSIDE:
            self._send_half(headers, body)
            self._cut()
        elif fault in _STATUS:
            self._answer(_STATUS[fault], {}, b"<Error><Code>AsTheScriptSays</Code></Error>")
        else:
            self._pass_on(fault, headers, body)

    get = put = post = delete = _pass

    def _pass_on(self, fault: Fault, headers: Mapping[str, str], body: bytes) -> None:
        server = self._upstream()
        try:
            server.request(self.command, self.path, body or None, dict(headers))
            response = server.getresponse()
            status, found, answer = response.status, dict(response.getheaders()), response.read()
        except (OSError, HTTPException):
            self._cut()
            return
        finally:
            server.close()
        if fault is Fault.CUT_AFTER:
            self._cut()
        elif fault is Fault.WITHHELD:
            select.select([self.connection], [], [], UPSTREAM_S)  # until the client has lost patience
            self.close_connection = True
        elif fault is Fault.FAILED_AFTER:
            self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
        else:
            if fault is Fault.SLOW:
                threading.Event().wait(SLOW_S)
            self._answer(status, found, answer, cut=fault is Fault.CUT_ANSWER)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("content-length", headers.get("Content-Length", str(len(body))))
        if not cut:
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)
            return
        if body:  # else the headers are what is cut
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
        self._cut()

    def _send_half(self, headers: Mapping[str, str], body: bytes) -> None:
        server = self._upstream()
        with suppress(OSError):
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                server.putheader(name, value)
            if body:  # of a request without one, half of the headers
                server.endheaders()
                server.send(body[: len(body) // 2])
        server.close()

    def _upstream(self) -> HTTPConnection:
        at = urlsplit(self.server.proxy.upstream)
        return HTTPConnection(at.hostname or "", at.port, timeout=UPSTREAM_S)

    def _cut(self) -> None:
        """Close with a reset, as a process that dies does with data unread."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
