"""What a store answers in place of doing its work: one table for all requests, by a server that refuses everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import stamina

from adawise.errors import SettingsError, StoreUnavailable
from adawise.store.answers import AlreadyExists
from adawise.store.object_store import ATTEMPTS
from adawise.store.store import Store
from tests.loopback import Answering, Server, serving
from tests.store.clouds import open_s3

OPERATIONS: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create("key", b"data"),
    "put": lambda store: store.put("key", b"data"),
    "get": lambda store: store.get("key"),
    "open": lambda store: store.open("key"),
    "list": lambda store: store.list("folder"),
    "delete": lambda store: store.delete("key"),
}


class Refusing(Answering):
    refused = (200, "")
    seen = 0

    def refuse(self) -> None:
        self.body()
        type(self).seen += 1
        status, code = self.refused
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>What {code} means.</Message>'
            "<RequestId>4442587FB7D0A2F9</RequestId></Error>"
        )
        self.answer(status, body.encode())

    get = put = post = delete = head = refuse


@contextmanager
def refusing(status: int, code: str) -> Iterator[str]:
    """The URL of a store that answers all with this."""
    Refusing.refused, Refusing.seen = (status, code), 0
    with serving(Server(Refusing)) as server:
        yield server.address


WAITED_FOR = [
    (403, "RequestTimeTooSkewed", "the clock of this machine is too far from the store's", "NTP"),
    (503, "SlowDown", "the store limits the rate of requests", "if it lasts"),
    (500, "InternalError", "the store has failed", "check the store's state"),
    (507, "XMinioStorageFull", "the store is full", "free space"),
]
TO_MEND = [
    (400, "ExpiredToken", "the access key has expired", "a new one .* stored data is not lost"),
    (403, "InvalidAccessKeyId", "the store does not know the access key", "it and its secret"),
    (403, "AccessDenied", "the access key lacks the right", "rights to read, write, list and delete"),
    (403, "SomethingNew", "the access key lacks the right", "rights to read"),
    (404, "NoSuchBucket", "there is no such bucket", "sink.root, record.root"),
    (301, "PermanentRedirect", "the bucket is in another region", "AWS_REGION"),
    (501, "NotImplemented", "does not support conditional writes", "If-None-Match"),
]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("status", "code", "cause", "remedy"), [*WAITED_FOR, *TO_MEND])
def test_an_answer_means_the_same_for_every_request(
    operation: str, status: int, code: str, cause: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = (status, code, cause, remedy) in WAITED_FOR
    with refusing(status, code) as address, stamina.set_testing(True, attempts=ATTEMPTS):
        store = open_s3(monkeypatch, address, "s3://bucket/prefix")
        with pytest.raises(StoreUnavailable if waits else SettingsError, match=f"{cause}.*{remedy}") as caught:
            OPERATIONS[operation](store)
    output = str(caught.value)
    assert output.startswith("s3://bucket/prefix: ")
    assert "slow" not in output.replace("SlowDown", "")
    assert "<" not in output
    assert "The program tries again" not in output  # a command does not
    assert ("any other command is to be run again once the store answers" in output) == (waits and status != 507)
    if status != 301:  # whose body the client does not read
        assert f"{status} " in output
        assert f"{code}: What {code} means.)" in output
    assert Refusing.seen == (ATTEMPTS if waits else 1)


def test_a_conflict_of_two_that_create_at_once_is_no_proof_that_the_object_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with refusing(409, "ConditionalRequestConflict") as address, stamina.set_testing(True, attempts=ATTEMPTS):
        store = open_s3(monkeypatch, address, "s3://bucket/prefix")
        with pytest.raises(StoreUnavailable, match="limits the rate of requests"):
            store.create("key", b"data")


def test_an_absent_object_is_no_error_and_a_refused_one_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing(404, "NoSuchKey") as address:
        store = open_s3(monkeypatch, address, "s3://bucket/prefix")
        assert (store.get("key"), store.open("key")) == (None, None)
        store.delete("key")
    with refusing(412, "PreconditionFailed") as address, pytest.raises(AlreadyExists):
        open_s3(monkeypatch, address, "s3://bucket/prefix").create("key", b"data")


def test_the_remedy_of_an_outage_is_one_part_of_a_message() -> None:
    error = StoreUnavailable(f"the root: it was created but cannot be read back; {StoreUnavailable.REMEDY}")
    assert error.cause_and_remedy == ("the root: it was created but cannot be read back", StoreUnavailable.REMEDY)
