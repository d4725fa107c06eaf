"""The HTTP server: runs the application with uvicorn in a daemon thread with its own event loop.

A failure of the server is logged and does not affect the worker. What clients can use is bounded: the number of
connections (the worker needs the process's file descriptors, often a thousand), half of them from one address, the time
for a request's headers, and the time without reading the response. Probes may have a port of their own, whose
connections are counted separately.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from adawise.errors import SettingsError
from adawise.watch.web.access import PROBES

App = ASGIApp

MOST_CONNECTIONS = 128
MOST_OF_ADDRESS = 64  # of these, from one client's address; all clients behind one proxy share its address
MOST_PROBES = 16  # connections to a separate port of probes
_CHECK_S = 5.0  # between two checks of a connection
_IDLE_CHECKS = 2  # checks without a request after which a connection is closed
_STALLED_CHECKS = 6  # checks without a byte taken by the client after which a connection is closed
_TRIES = 10  # ports that are tried from the default on
_CLOSE_S = 5.0  # that closing waits for the thread, at most
_TICK_S = 1.0  # between two checks whether the server is to end
_FRESH_S = 1.0  # that a new connection has to send a request before another may take its place
_log = structlog.get_logger("http")


class BoundedConnection(H11Protocol):
    """A connection that is closed if its client is too slow, or if it is idle and a new connection needs its place."""

    probes_port: int | None = None  # the separate port of probes, if there is one
    _idle = _stalled = _port = 0
    _left = 0  # bytes in the write buffer at the last check
    _since_s = 0.0  # when it was made, by the loop's clock
    _next_check: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._port = transport.get_extra_info("sockname")[1]
        self._make_room(_client(str((transport.get_extra_info("peername") or ("",))[0])))
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._next_check = self.loop.call_later(_CHECK_S, self._check)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._next_check is not None:
            self._next_check.cancel()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self, address: str) -> None:
        """Close a connection if the port, or the new connection's address, has reached its maximum.

        The order of choice keeps one client from locking out the probes:

        1. the oldest idle connection that had at least a second to send a request;
        2. if the address with the most connections has a quarter of the places or more, or no connection is idle: the
           oldest connection of this address, an idle one if it has any;
        3. the oldest idle connection.
        """
        most = MOST_PROBES if self._port == self.probes_port else MOST_CONNECTIONS
        all_ = [each for each in self.connections if isinstance(each, BoundedConnection)]
        ours = [each for each in all_ if each._port == self._port]
        addresses = Counter(each._address for each in ours)
        if addresses[address] >= MOST_OF_ADDRESS:
            ours = [each for each in ours if each._address == address]
        elif len(ours) < most:
            return
        now_s = self.loop.time()
        idle = [each for each in ours if not each._is_answering]
        late = [each for each in idle if now_s - each._since_s >= _FRESH_S]
        if late:
            oldest = min(late, key=lambda each: each._since_s)
        elif (crowd := addresses.most_common(1)[0])[1] >= most // 4 or not idle:
            theirs = (each for each in ours if each._address == crowd[0])
            oldest = min(theirs, key=lambda each: (each._is_answering, each._since_s))
        else:
            oldest = min(idle, key=lambda each: each._since_s)
        self.connections.discard(oldest)  # uvicorn would remove it only in the next turn of the loop
        oldest.transport.abort()

    @property
    def _address(self) -> str:
        return _client(str(self.client[0])) if self.client else ""

    def _check(self) -> None:
        """Close the connection if it has been idle or stalled for too long; otherwise schedule the next check."""
        left = self.transport.get_write_buffer_size()
        self._idle = 0 if self._is_answering else self._idle + 1
        self._stalled = self._stalled + 1 if left and left >= self._left else 0
        self._left = left
        if self._idle >= _IDLE_CHECKS or self._stalled >= _STALLED_CHECKS:
            self.transport.abort()
        else:
            self._next_check = self.loop.call_later(_CHECK_S, self._check)


def _client(address: str) -> str:
    """Return the key that connections of one client share: an IPv4 address, or an IPv6 network of 64 bits.

    A host may use every address of its IPv6 network. A socket bound to `::` shows IPv4 clients as `::ffff:a.b.c.d`.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def listen(address: str, port: int | None, default: int, *, name: str = "http.port") -> socket.socket:
    """Return a socket that is bound and listens.

    Args:
        address: IP address of this machine, or localhost.
        port: port to listen on; 0 for any free one; None for the first free one of ten from `default` on, else any.
        default: first port to try if `port` is None.
        name: name of the port's setting, for messages.

    Raises:
        SettingsError: the port is taken, or the address or the port cannot be used.
    """
    host = "127.0.0.1" if address == "localhost" else address
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    tries = (*range(default, default + _TRIES), 0) if port is None else (port,)
    for number in tries:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, number))
            bound.listen(MOST_CONNECTIONS)  # SO_REUSEADDR lets two sockets bind the same port, but only one may listen
        except OSError as error:
            bound.close()
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(
                    f"http.listen: expected an address of this machine and a free port, but opening {host} port "
                    f"{number} failed: {error.strerror}. Set http.listen and {name}, or --no-http.enabled."
                ) from error
            continue
        return bound
    raise SettingsError(
        f"{name}: expected a free port, but {host} port {port} is taken, perhaps by another worker. Set another "
        f"{name}, 0 for any that is free, or none{' for one near the default' if name == 'http.port' else ''}."
    )


def url_of(bound: socket.socket) -> str:
    """Return the URL at which a browser on this machine reaches the socket."""
    host, port, *_ = bound.getsockname()
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if bound.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """A uvicorn server that calls `farewell` before it waits for open responses, and wakes up only once a second.

    Uvicorn itself checks ten times a second whether it is to end. Each time, its thread would take the interpreter lock
    (GIL) from the worker's thread.
    """

    def __init__(self, config: uvicorn.Config, farewell: Callable[[], object]) -> None:
        super().__init__(config)
        self._farewell = farewell
        self._waking: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def end(self) -> None:
        """Make the server end soon. Any thread may call it."""
        self.should_exit = True
        if self._waking is not None:
            loop, event = self._waking
            with suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(event.set)

    @override
    async def main_loop(self) -> None:
        event = asyncio.Event()
        self._waking = asyncio.get_running_loop(), event
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), _TICK_S)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._farewell()
        await super().shutdown(sockets)


class ProbesAlone:
    """ASGI middleware that lets one port answer nothing but probes."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as the ASGI specification defines it."""
        server = scope.get("server") or ("", None)
        if scope["type"] == "http" and server[1] == self._port and scope["path"] not in PROBES:
            await PlainTextResponse("this port answers only probes\n", 404)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class HttpThread:
    """The thread that serves an application from `start` to `close`.

    Args:
        app: the application.
        bound: the listening socket; `close` closes it.
        farewell: called in the thread when the server is to end; it must end responses that would never end by
            themselves.
        probes: a second listening socket, which answers only `access.PROBES`; `close` closes it.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        farewell: Callable[[], object] = lambda: None,
        *,
        probes: socket.socket | None = None,
    ) -> None:
        self._sockets = [bound] if probes is None else [bound, probes]
        self.url, self.probes_url = url_of(bound), None if probes is None else url_of(probes)
        if probes is not None:
            app = ProbesAlone(app, probes.getsockname()[1])

        class PortConnection(BoundedConnection):
            probes_port = None if probes is None else int(probes.getsockname()[1])

        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are about clients' bad requests
        options: dict[str, Any] = {
            "loop": "asyncio",
            "http": PortConnection,
            "ws": "none",
            "lifespan": "on",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "timeout_keep_alive": 5,
            "timeout_graceful_shutdown": 1,
        }
        self._server = _Server(uvicorn.Config(app, **options), farewell)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Start the thread and return at once; the port answers a moment later."""
        self._thread.start()

    def close(self) -> None:
        """Stop the server and wait for its thread, five seconds at most. It may be called twice."""
        self._server.end()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)
        for bound in self._sockets:
            bound.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=self._sockets)
        except BaseException:  # noqa: BLE001 - the worker goes on, whatever the error is
            _log.exception(
                "http_failed", url=self.url, note="probes, metrics and page are not served any more; the worker goes on"
            )
