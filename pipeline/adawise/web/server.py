"""The application on a port, by uvicorn, in a daemon thread with a loop of its own.

Its failure is logged and ends nothing else. What clients can take is bounded: so many connections (a process has a
thousand file descriptors, which the worker needs), so long for a request's headers, so long without taking what was
written.
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
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from adawise.errors import SettingsError

App = ASGIApp

MOST_CONNECTIONS = 128
_LOOK_S = 5.0
_IDLE_LOOKS = 2  # without a request
_STALLED_LOOKS = 6  # without a byte taken
_TRIES = 10
_CLOSE_S = 5.0
_TICK_S = 1.0
_log = structlog.get_logger("http")


class BoundedConnection(H11Protocol):
    """A connection that is cut if its client is too slow, or asks for nothing where another needs its place."""

    _idle = _stalled = 0
    _left = 0
    _since_s = 0.0  # by the loop's clock
    _looking: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MOST_CONNECTIONS:
            self._make_room()
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._looking = self.loop.call_later(_LOOK_S, self._look)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> None:
        """Cut a connection of the address that has the most, so that nobody keeps probes out.

        Of these the oldest that asks for nothing, if there is one, else the oldest.
        """
        ours = [connection for connection in self.connections if isinstance(connection, BoundedConnection)]
        addresses = Counter(connection._address for connection in ours)
        oldest = min(ours, key=lambda each: (-addresses[each._address], each._is_answering, each._since_s))
        self.connections.discard(oldest)  # it says so itself a turn of the loop later
        oldest.transport.abort()

    @property
    def _address(self) -> str:
        return str(self.client[0]) if self.client else ""

    def _look(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._idle = 0 if self._is_answering else self._idle + 1
        self._stalled = self._stalled + 1 if left and left >= self._left else 0
        self._left = left
        if self._idle >= _IDLE_LOOKS or self._stalled >= _STALLED_LOOKS:
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(_LOOK_S, self._look)


def listen(address: str, port: int | None, default: int) -> socket.socket:
    """A socket that is bound; `port` None: the first free one of ten from `default` on, or else any.

    Raises:
        SettingsError: none can be had.
    """
    host = "127.0.0.1" if address == "localhost" else address
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    tries = (*range(default, default + _TRIES), 0) if port is None else (port,)
    for number in tries:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, number))
            bound.listen(MOST_CONNECTIONS)  # two sockets may be bound alike; only one may listen
        except OSError as error:
            bound.close()
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(
                    f"http.listen: expected an address of this machine and a port that may be had, but {host} port "
                    f"{number} gives {error.strerror}. Set http.listen and http.port, or --no-http.enabled."
                ) from error
            continue
        return bound
    raise SettingsError(
        f"http.port: expected a free port, but {host} port {port} is taken, perhaps by another worker. Set another "
        "http.port, 0 for any that is free, or none for one near the default."
    )


def url_of(bound: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port, *_ = bound.getsockname()
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if bound.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Says farewell before it waits for what is being answered, and looks at the time once a second.

    Uvicorn looks ten times a second whether it is to end. Each time its thread would take the interpreter from the
    worker's.
    """

    def __init__(self, config: uvicorn.Config, farewell: Callable[[], object]) -> None:
        super().__init__(config)
        self._farewell = farewell
        self._told: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def end(self) -> None:
        """Have it end soon; from any thread."""
        self.should_exit = True
        if self._told is not None:
            loop, event = self._told
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(event.set)

    @override
    async def main_loop(self) -> None:
        event = asyncio.Event()
        self._told = asyncio.get_running_loop(), event
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), _TICK_S)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._farewell()
        await super().shutdown(sockets)


class HttpThread:
    """Serves from `start` to `close`.

    Args:
        app: what.
        bound: where; it is closed in the end.
        farewell: called in the thread when it is to end: answers that would go on for ever are to end now.
    """

    def __init__(self, app: ASGIApp, bound: socket.socket, farewell: Callable[[], object] = lambda: None) -> None:
        self._bound = bound
        self.url = url_of(bound)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are about strangers' requests
        options: dict[str, Any] = {
            "loop": "asyncio",
            "http": BoundedConnection,
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
        """Returns at once; the port answers in a moment."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering; waits for it a few seconds at most. May be called twice."""
        self._server.end()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)
        self._bound.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._bound])
        except BaseException:  # noqa: BLE001 - whatever it is, the worker goes on
            _log.exception("http_failed", url=self.url, note="probes, metrics and page are gone; the worker goes on")
