"""An OpenID provider on loopback for OAUTHBEARER: it gives tokens for a client's secret, and its keys to the broker."""

from __future__ import annotations

import base64
import json
import ssl
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.loopback import Answering, Server, serving

ISSUER, AUDIENCE, SCOPE = "https://login.example", "kafka", "frames:read"


class Identity(Server):
    """`clients` are ids with their secrets. `lifetime_s` is that of a token; `broken` answers in place of one.

    What was asked for is in `asked`, and the tokens that were given are in `given`.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(_Request)
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"
        self.key = rsa.generate_private_key(65537, 2048)
        self.clients: dict[str, str] = {}
        self.lifetime_s = 300
        self.broken: tuple[int, bytes] | None = None
        self.requests: list[dict[str, list[str]]] = []
        self.given: list[str] = []

    def url(self, path: str) -> str:
        """Of its own: /token, /jwks."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}{path}"

    def token(self, subject: str, *, lifetime_s: int | None = None, audience: str = AUDIENCE) -> str:
        """A signed one."""
        now = int(time.time())
        until = now + (self.lifetime_s if lifetime_s is None else lifetime_s)
        claims = {"iss": ISSUER, "aud": audience, "sub": subject, "iat": now, "exp": until, "scope": SCOPE}
        signed = f"{_json64({'alg': 'RS256', 'typ': 'JWT', 'kid': 'one'})}.{_json64(claims)}"
        return f"{signed}.{_b64(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def keys(self) -> dict[str, Any]:
        """The public ones."""
        numbers = self.key.public_key().public_numbers()
        n, e = (_b64(number.to_bytes(-(-number.bit_length() // 8), "big")) for number in (numbers.n, numbers.e))
        return {"keys": [{"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "n": n, "e": e}]}


def identity(certificate: Path | None = None) -> AbstractContextManager[Identity]:
    """A provider in a thread; with TLS, if it has a certificate."""
    return serving(Identity(certificate))


class _Request(Answering):
    server: Identity

    def get(self) -> None:
        self._answer(200, json.dumps(self.server.keys()).encode())

    def post(self) -> None:
        self.server.requests.append(parse_qs(self.body().decode()))
        if self.server.broken is not None:
            self._answer(*self.server.broken)
            return
        name, _, secret = base64.b64decode(self.headers.get("authorization", "Basic ")[6:]).decode().partition(":")
        name, secret = unquote_plus(name), unquote_plus(secret)
        if name not in self.server.clients or self.server.clients[name] != secret:
            self._answer(401, b'{"error": "invalid_client", "error_description": "Invalid client credentials"}')
            return
        token = self.server.token(name)
        self.server.given.append(token)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.server.lifetime_s}
        self._answer(200, json.dumps(answer).encode())

    def _answer(self, status: int, body: bytes) -> None:
        moved = {"location": "http://elsewhere.example/token"} if status // 100 == 3 else {}
        self.answer(status, body, content_type="application/json", **moved)


def _json64(value: object) -> str:
    return _b64(json.dumps(value).encode())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
