"""Tokens by client credentials: kept, renewed in time, and what is said where none is given."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from adawise.kafka.client import translated
from adawise.kafka.oauth import CalledTokens, ClientCredentials, TokenRefused, TokenUnavailable
from tests.kafka.identity import Identity, identity

ID, SECRET = "worker", "s3cret:/of+it"


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def shared() -> Iterator[Identity]:
    with identity() as provider:
        yield provider


@pytest.fixture
def provider(shared: Identity) -> Identity:
    shared.clients = {ID: SECRET}
    shared.given.clear()
    shared.requests.clear()
    shared.lifetime_s, shared.broken = 100, None
    return shared


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tokens_of(provider: Identity, clock: Clock) -> ClientCredentials:
    return ClientCredentials(endpoint=provider.url("/token"), client_id=ID, client_secret=SECRET, clock=clock)


def test_a_token_is_kept_until_four_fifths_of_its_life_are_over(provider: Identity, clock: Clock) -> None:
    tokens = tokens_of(provider, clock)
    first = tokens.token()
    clock.now_s += 79.9
    assert tokens.token() == first
    clock.now_s += 0.2
    tokens.token()
    assert len(provider.given) == 2
    assert provider.requests[0] == {"grant_type": ["client_credentials"]}


def test_while_nobody_gives_a_new_one_the_old_one_serves_to_its_end(provider: Identity, clock: Clock) -> None:
    tokens = tokens_of(provider, clock)
    first = tokens.token()
    provider.broken = (503, b"busy")
    clock.now_s += 90
    assert [tokens.token(), tokens.token()] == [first, first]
    assert len(provider.requests) == 2  # not again at once
    clock.now_s += 6
    assert tokens.token() == first
    assert len(provider.requests) == 3
    clock.now_s += 4
    with pytest.raises(TokenUnavailable, match="it answers 503"):
        tokens.token()
    provider.broken = None
    assert tokens.token() == provider.given[-1]


REFUSED = {
    "secret": (401, b'{"error": "invalid_client"}', "401 invalid_client; correct kafka.security.oauth_client_id and"),
    "grant": (
        400,
        b'{"error": "unauthorized_client", "error_description": "no"}',
        r"unauthorized_client \(no\); correct",
    ),
    "scope": (400, b'{"error": "invalid_scope"}', "correct kafka.security.oauth_scope"),
    "address": (404, b"<html>", "it answers 404; correct kafka.security.oauth_token_endpoint"),
    "another place": (302, b"", "it answers 302 and redirects to another address; set kafka.security.oauth_token"),
    "no token": (200, b'{"token": "x"}', "expected JSON with an access_token, but got 14 other bytes"),
    "no JSON": (200, b"<html>", "expected JSON with an access_token, but got 6 other bytes"),
    "a list": (200, b"[]", "expected JSON with an access_token"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_will_not_change_is_refused_with_its_remedy(what: str, provider: Identity, clock: Clock) -> None:
    *provider.broken, found = REFUSED[what]  # type: ignore[assignment]
    tokens = tokens_of(provider, clock)
    with pytest.raises(TokenRefused, match=found) as raised:
        tokens.token()
    message = str(translated(raised.value, "127.0.0.1:9092", "connect to Kafka"))
    assert message.startswith("could not connect to Kafka at 127.0.0.1:9092: no token from http://127.0.0.1")
    assert SECRET not in message
    assert "TokenRefused" not in message


def test_a_function_of_the_program_gives_tokens_and_what_it_raises_is_told() -> None:
    assert CalledTokens(lambda: "one").token() == "one"

    def fails() -> str:
        raise RuntimeError("the metadata service is away")

    with pytest.raises(TokenUnavailable, match="failed: RuntimeError: the metadata service is away"):
        CalledTokens(fails).token()


def test_an_endpoint_that_speaks_no_http_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4_096)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        tokens = ClientCredentials(
            endpoint=f"http://127.0.0.1:{listening.getsockname()[1]}/token", client_id="yard", client_secret="secret"
        )
        with pytest.raises(TokenUnavailable, match=r"is not HTTP.*correct kafka.security.oauth_token_endpoint"):
            tokens.token()
        thread.join()
