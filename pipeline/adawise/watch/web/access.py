"""Access control of the port: the Host of a request, the token or its cookie, and security headers of every response.

Probes answer every client under any Host. All other paths require a Host that is an IP address, localhost or a name
from the settings, against DNS rebinding: otherwise a web page elsewhere could let its own name resolve to this address
and read the responses.

With a token, the page and the metrics require it: as `Authorization: Bearer`, or as the cookie that the login form
sets, since a browser's EventSource cannot send that header. Without a token, the page is open only if no other machine
can reach the port, and the metrics are open to every client.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBES = ("/livez", "/readyz", "/startupz")
METRICS_PATH = "/metrics"
CAMERA_PATH = "/camera"  # one camera's page
COOKIE = "adawise_page"
COOKIE_S = 7 * 86_400
PAGES = {
    "/",
    CAMERA_PATH,
}  # a browser without a cookie gets the login form there, and sends it back to the same address
_OPEN = {"/live.css"}  # needs no token, for the login form

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send `Origin: null` even with our own form
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Access:
    """The access rules.

    Args:
        token: the secret that gives access; None if there is none.
        hosts: allowed Host names beside localhost and IP addresses, in lower case.
        is_local: True if only this machine can reach the port.
        clock: returns the Unix time in seconds.
    """

    token: str | None
    hosts: frozenset[str]
    is_local: bool
    clock: Callable[[], float]

    def knows(self, host: str | None) -> bool:
        """Return True if the Host is allowed. A request without one (HTTP/1.0) is, since browsers always send it."""
        if host is None:
            return True
        name = host_name(host)
        return name == "localhost" or name in self.hosts or _is_address(name)

    def is_token(self, given: str) -> bool:
        """Return True if this is the token; compared in constant time, against timing attacks."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def cookie(self) -> str:
        """Return the value of a new cookie: its expiry time, signed with the token.

        It is valid at every worker that has the same token.
        """
        until = str(int(self.clock()) + COOKIE_S)
        return f"{until}.{self._signature(until)}"

    def is_cookie(self, given: str) -> bool:
        """Return True if this is a cookie signed with the token that has not expired."""
        until, _, signature = given.partition(".")
        if self.token is None or not (until.isascii() and until.isdecimal() and len(until) < 15):
            return False
        return hmac.compare_digest(signature.encode(), self._signature(until).encode()) and int(until) > self.clock()

    def _signature(self, until: str) -> str:
        return hmac.new((self.token or "").encode(), f"adawise page until {until}".encode(), hashlib.sha256).hexdigest()

    def admits(self, headers: Headers) -> bool:
        """Return True if the request has the token as a bearer, or a valid cookie."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.is_token(given.strip())
        return any(
            self.is_cookie(value.strip())
            for name, _, value in (pair.partition("=") for pair in headers.get("cookie", "").split(";"))
            if name.strip() == COOKIE
        )  # not parsed with `http.cookies`, which takes half a minute for 60 KB of backslashes


class Guard:
    """ASGI middleware that applies the access rules and adds the security headers to all responses."""

    def __init__(self, app: ASGIApp, access: Access, login: Callable[[int], Response]) -> None:
        self._app, self._access, self._login = app, access, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as the ASGI specification defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    found[name] = value
                found.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refusal(scope["path"], scope["method"], headers) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, path: str, method: str, headers: Headers) -> Response | None:
        access = self._access
        if path in PROBES:
            return None
        if not access.knows(host := headers.get("host")):
            return _text_response(
                421,
                f"expected the Host to be localhost, an address or one of http.hosts; got {host!r}. Add the name to "
                "http.hosts if it is yours.",
            )
        if method == "POST" and not _is_same_origin(headers):
            return _text_response(403, "expected the form of this page, but another page sent it.")
        if access.token is None:
            if access.is_local or path == METRICS_PATH:
                return None
            return _text_response(
                403,
                "the page is closed, because other machines can reach it and no http.token is set. Set one "
                "(`openssl rand -hex 32`, as ADAWISE_HTTP__TOKEN); probes and /metrics need none.",
            )
        if path in _OPEN or (path in PAGES and method == "POST") or access.admits(headers):
            return None
        if path in PAGES:
            return self._login(401)
        refused = _text_response(401, "expected http.token, as a bearer token or by the form at /.")
        refused.headers["www-authenticate"] = "Bearer"
        return refused


def host_name(host: str) -> str:
    """Return a Host without its port, in lower case; "" if it is malformed."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+?)\.?)(?::[0-9]*)?", host.strip().lower())
    return found[1] or found[2] if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(headers: Headers) -> bool:
    """Return True if a POST comes from a page of this host, or from a client that is not a browser."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
    return origin.lower().partition("://")[2] == headers.get("host", "").lower()


def _text_response(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status)
