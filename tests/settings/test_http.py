"""Settings of the HTTP port: what is wrong with an address, a name or a token is told, and a token never shown."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from adawise.settings import HttpSettings


@pytest.mark.parametrize(
    ("listen", "is_loopback"),
    [
        *[("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("[::1]", True)],
        *[("0.0.0.0", False), ("::", False), ("192.0.2.7", False)],
    ],
)
def test_an_address_says_who_can_reach_it(listen: str, is_loopback: bool) -> None:
    assert HttpSettings(listen=listen).is_loopback == is_loopback


@pytest.mark.parametrize("listen", ["", "example.com", "0.0.0.0:80", "http://0.0.0.0", "1.2.3"])
def test_a_name_or_a_url_is_no_address(listen: str) -> None:
    with pytest.raises(ValidationError):
        HttpSettings(listen=listen)


def test_names_are_taken_in_lower_case_and_wrong_ones_named() -> None:
    assert HttpSettings(hosts="Cams.Example, gate-1 ,10.0.0.7").hosts == "cams.example,gate-1,10.0.0.7"
    for wrong in ("", "a,,b", "http://x", "x:80", "*.example", "a b"):
        with pytest.raises(ValidationError, match=r"is not a host name|it is empty"):
            HttpSettings(hosts=wrong)


def test_a_token_that_could_be_guessed_is_refused_and_none_is_ever_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        HttpSettings.model_validate({"token": "guess-me"})
    assert "guess-me" not in str(caught.value)
    assert "openssl rand" in str(caught.value)
    assert "0123456789" not in repr(HttpSettings.model_validate({"token": "0123456789abcdef"}))
