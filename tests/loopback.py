"""HTTP servers for tests: on loopback, in a thread, silent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar


class Server(ThreadingHTTPServer):
    """On a free port, unless one is given."""

    daemon_threads = True
    block_on_close = False  # a connection that a client keeps open has no end

    def __init__(self, request: type[Answering], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), request)

    @property
    def address(self) -> str:
        """Its URL, without a path."""
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    """One that is answered as a whole, by a method of its name: `get`, `put`, `post`, `delete`, `head`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):  # by which the library looks for it
            return getattr(self, name[3:].lower())
        raise AttributeError(name)

    def body(self) -> bytes:
        """What came with it."""
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """`content_type` in `headers` is sent as content-type."""
        self.send_response_only(status)
        for name, value in ({"content_length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not into a test's output."""


Running = TypeVar("Running", bound=Server)


@contextmanager
def serving(server: Running) -> Iterator[Running]:
    """The server while it answers."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
