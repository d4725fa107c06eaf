"""Requests as a stranger sends them: any Host, any header, no cookie jar that helps."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, Self
from urllib.parse import urlsplit

from tests.deadlines import scaled

DEADLINE_S = scaled(20.0)


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(url: str, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    """One request; a header's name has `_` for `-`."""
    with closing(HTTPConnection(urlsplit(url).hostname or "", urlsplit(url).port, timeout=DEADLINE_S)) as connection:
        connection.putrequest(method, path, skip_host="host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def connected(url: str, source: str = "") -> socket.socket:
    """A bare connection, from one of this machine's addresses."""
    place = urlsplit(url)
    bound = (source, 0) if source else None
    return socket.create_connection((place.hostname or "", place.port or 0), timeout=DEADLINE_S, source_address=bound)


class Listener:
    """Reads server-sent events from the port, over a bare connection."""

    def __init__(self, url: str, **headers: str) -> None:
        self.socket = connected(url)
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        request = "\r\n".join(["GET /events HTTP/1.1", f"Host: {urlsplit(url).netloc}", *lines, "", ""])
        self.socket.sendall(request.encode())
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    def next(self) -> tuple[str, dict[str, Any]]:
        """The next event: its name and its data."""
        name = ""
        while True:
            line = self._file.readline()
            assert line, "the port has ended it"
            text = line.decode().rstrip()
            if text.startswith("event: "):
                name = text.removeprefix("event: ")
            if text.startswith("data: "):
                return name, json.loads(text.removeprefix("data: "))

    def ended(self) -> bool:
        """Reads to the end; True if there is one."""
        while self._file.readline():
            pass
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()
