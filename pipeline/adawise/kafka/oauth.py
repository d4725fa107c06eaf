"""Tokens for OAUTHBEARER by OAuth 2.0's client credentials (RFC 6749, 4.4): fetched, cached, and renewed in time.

A client asks for a token when it logs in: at a new connection, and before the broker ends the session of an old one
(KIP-368). One token serves all connections of the process. A new one is fetched when four fifths of its life are over.
While the endpoint does not answer, the old token is used until it expires.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote_plus, urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from kafka import errors
from kafka.net.sasl.oauth import AbstractTokenProvider
from typing_extensions import override

from adawise.kafka.tls import authorities, refusal

TokenProvider = AbstractTokenProvider
"""The interface of kafka-python through which a client asks for a token."""

_TIMEOUT_S = 5.0  # the waiting thread also sends the group's heartbeats
_MOST_BYTES = 1 << 20
_RENEWED_AT = 0.8  # fraction of its life
_SHORTEST_S = 60.0  # the assumed life of a token that does not state one
_AGAIN_S = 5.0
_CLIENT = "kafka.security.oauth_client_id and oauth_client_secret"
_ENDPOINT = "kafka.security.oauth_token_endpoint"


class TokenRefused(errors.SaslAuthenticationFailedError):  # type: ignore[misc]
    """Raised when the endpoint refuses a token and asking again will not help; the message says why, and what to do."""


class TokenUnavailable(errors.KafkaConnectionError):  # type: ignore[misc]
    """Raised when no token can be had at the moment."""


class _NoRedirect(HTTPRedirectHandler):
    """A handler that follows no redirect: the secret goes to the configured endpoint and nowhere else."""

    @override
    def redirect_request(self, *_: Any) -> None:
        return None


class CalledTokens(AbstractTokenProvider):  # type: ignore[misc]
    """A provider whose tokens come from a function that renews them itself: for programs that use the library.

    An exception of the function keeps the client from logging in, and is reported.
    """

    def __init__(self, token: Callable[[], str]) -> None:
        super().__init__()
        self._token = token

    @override
    def token(self) -> str:
        """Return what the function returns."""
        try:
            return self._token()
        except errors.KafkaError:
            raise
        except Exception as error:  # foreign code that runs on the client's thread
            raise TokenUnavailable(f"the function for tokens failed: {type(error).__name__}: {error}") from error


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]
    """A provider whose tokens come from an OAuth endpoint. It is safe for use by several threads.

    Args:
        endpoint: its URL; https, unless it is on this machine.
        client_id: the client that asks.
        client_secret: its secret, sent to the endpoint alone.
        scope: the scope to ask for; None for the endpoint's default.
        ca: file of the authorities that sign the endpoint's certificate; None for the system's.
        clock: monotonic seconds.

    Raises:
        SettingsError: the certificates cannot be used.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        client_id: str,
        client_secret: str,
        scope: str | None = None,
        ca: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._endpoint, self._clock = endpoint, clock
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        user = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"  # RFC 6749, 2.3.1
        headers = {
            "authorization": f"Basic {base64.b64encode(user.encode()).decode()}",
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
        }
        self._request = Request(endpoint, urlencode(form).encode(), headers, method="POST")
        context = authorities(ca, "kafka.security.oauth_ca")
        self._opener = build_opener(_NoRedirect, HTTPSHandler(context=context))
        self._lock = threading.Lock()
        self._kept = ""
        self._renew_at = self._ends_at = float("-inf")

    @override
    def token(self) -> str:
        """Return a token that is valid for a while; raise TokenRefused or TokenUnavailable."""
        with self._lock:
            now = self._clock()
            if now < self._renew_at:
                return self._kept
            try:
                self._kept, life_s = self._fetch()
            except TokenUnavailable:
                if now >= self._ends_at:
                    raise
                self._renew_at = min(now + _AGAIN_S, self._ends_at)
                return self._kept
            self._renew_at, self._ends_at = now + _RENEWED_AT * life_s, now + life_s
            return self._kept

    def _fetch(self) -> tuple[str, float]:
        """Return a new token and its life in seconds."""
        try:
            with self._opener.open(self._request, timeout=_TIMEOUT_S) as answer:
                body = answer.read(_MOST_BYTES)
        except HTTPError as error:
            raise self._refused(error) from None
        except (URLError, OSError) as error:
            why = refusal(error)
            if why is not None:
                why = why.replace("the broker's", "its").replace("kafka.security.ssl_ca", "kafka.security.oauth_ca")
                raise TokenRefused(f"no token from {self._endpoint}: {why}") from None
            raise TokenUnavailable(
                f"no token from {self._endpoint}: {getattr(error, 'reason', error)}; check it, or correct {_ENDPOINT}"
            ) from None
        except (HTTPException, ValueError) as error:
            raise TokenUnavailable(
                f"no token from {self._endpoint}: the answer is not HTTP ({type(error).__name__}); correct {_ENDPOINT}"
            ) from None
        try:
            parsed: Any = json.loads(body)
            token, life_s = str(parsed["access_token"]), float(parsed.get("expires_in", _SHORTEST_S))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TokenRefused(
                f"no token from {self._endpoint}: expected JSON with an access_token, but got {len(body)} other "
                f"bytes; correct {_ENDPOINT}"
            ) from None
        return token, life_s

    def _refused(self, error: HTTPError) -> errors.KafkaError:
        with error:
            try:
                parsed: Any = json.loads(error.read(_MOST_BYTES))
                code, more = str(parsed["error"])[:100], str(parsed.get("error_description", ""))[:200]
            except (ValueError, KeyError, TypeError, OSError):
                code, more = "", ""
        status = f"{error.code}{f' {code}' if code else ''}{f' ({more})' if more else ''}"
        begun = f"no token from {self._endpoint}: it answers {status}"
        if error.code >= 500 or error.code == 429:
            return TokenUnavailable(begun)
        if error.code // 100 == 3:
            return TokenRefused(f"{begun} and redirects to another address; set {_ENDPOINT} to the last one")
        if code == "invalid_scope":
            return TokenRefused(f"{begun}; correct kafka.security.oauth_scope")
        if code in ("invalid_client", "unauthorized_client") or error.code in (401, 403):
            return TokenRefused(f"{begun}; correct {_CLIENT}, and allow this client the grant client_credentials")
        return TokenRefused(f"{begun}; correct {_ENDPOINT}")
