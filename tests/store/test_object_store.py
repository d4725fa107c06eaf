"""What is particular to object stores: lost answers, bounded time-outs, what the environment says, errors to correct.

And the chain over them while the network fails at random: two workers, one chain, every row once.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import stamina
from structlog.testing import capture_logs

from adawise.errors import SettingsError, StoreUnavailable
from adawise.output.verify.root import verify
from adawise.ports import Head, SegmentDraft
from adawise.sink.chain import SegmentChain
from adawise.store import object_store
from adawise.store.answers import AlreadyExists
from adawise.store.object_store import ATTEMPTS, open_url
from adawise.store.store import Store, open_store
from tests.brokers import free_ports
from tests.sink.building import IDENTITY, TP, draft, next_state, open_chain
from tests.sink.footers import read_segment_footers
from tests.sink.stored import read_predictions
from tests.store.buckets import buckets
from tests.store.clouds import new_bucket, open_cloud, open_s3, s3_environment, s3_server
from tests.store.faults import DONE, NOT_DONE, AtRandom, Fault, FaultyProxy, Request

KEY = "predictions/topic-frames/partition-00003/00000000000000000000.parquet"
IMPATIENT = {"AWS_TIMEOUT": "300ms"}


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


@contextmanager
def behind(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, bucket: str | None = None, **environment: str
) -> Iterator[Store]:
    with proxy:
        yield open_s3(monkeypatch, proxy.address, f"s3://{bucket or new_bucket()}/some/prefix", **environment)


def only_first(fault: Fault, *, create: bool = True) -> FaultyProxy:
    """The first create meets this fault (or, if not `create`, the first request of another kind)."""
    met: list[Request] = []

    def script(request: Request) -> Fault:
        if request.is_create is create and not met:
            met.append(request)
            return fault
        return Fault.NONE

    return FaultyProxy(s3_server(), script)


@pytest.mark.parametrize("fault", NOT_DONE)
def test_a_create_that_failed_is_tried_again(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    with behind(only_first(fault), monkeypatch) as store:
        store.create(KEY, b"segment" * 100)
        assert store.get(KEY) == b"segment" * 100


@pytest.mark.parametrize("fault", DONE)
def test_a_create_whose_answer_was_lost_exists_at_the_second_try(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    with behind(only_first(fault), monkeypatch, **IMPATIENT) as store:
        with pytest.raises(AlreadyExists):
            store.create(KEY, b"segment")
        assert store.get(KEY) == b"segment"


@pytest.mark.parametrize("fault", DONE)
def test_a_commit_whose_answer_was_lost_is_won_by_its_attempt(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = only_first(fault)
    bucket = new_bucket()
    with behind(FaultyProxy(s3_server()), monkeypatch, bucket) as calm:
        open_chain(calm).recover(TP, IDENTITY, 0)  # its claims are made where nothing fails
    with behind(proxy, monkeypatch, bucket, **IMPATIENT) as store:
        chain = open_chain(store)
        chain.recover(TP, IDENTITY, 0)
        assert chain.commit(draft(0, 4)).won
        creates = [request for request, _ in proxy.seen if request.is_create]
        assert len(creates) == 2
        assert creates[0].digest == creates[1].digest
        assert verify(store, contiguous=True) == []


@pytest.mark.parametrize("fault", [*NOT_DONE, *DONE, Fault.SLOW])
def test_reading_and_listing_are_tried_again(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    with behind(only_first(fault, create=False), monkeypatch, **IMPATIENT) as store:
        store.create(KEY, b"segment" * 100)
        assert store.get(KEY) == b"segment" * 100
    with behind(only_first(fault, create=False), monkeypatch, **IMPATIENT) as store:
        store.create(KEY, b"segment")
        assert store.list("") == [KEY]


def test_a_store_that_is_down_is_unavailable_after_a_few_tries_and_back_when_it_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = FaultyProxy(s3_server())
    with behind(proxy, monkeypatch) as store:
        proxy.down()
        with pytest.raises(StoreUnavailable, match=r"s3://bucket-.*tries again"):
            store.create(KEY, b"segment")
        proxy.up()
        store.create(KEY, b"segment")
        assert store.get(KEY) == b"segment"


def test_tries_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = FaultyProxy(s3_server(), lambda _: Fault.BUSY)
    with behind(proxy, monkeypatch) as store, pytest.raises(StoreUnavailable, match="503"):
        store.create(KEY, b"segment")
    assert len(proxy.seen) == ATTEMPTS


def test_each_try_is_told_with_the_store_and_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = only_first(Fault.BUSY)
    with capture_logs() as logged, behind(proxy, monkeypatch) as store:
        store.create(KEY, b"segment")
    (event,) = logged
    assert (event["event"], event["tries"], event["log_level"]) == ("store_retried", 1, "warning")
    assert event["error"].startswith("s3://bucket-")
    assert "503" in event["error"]


def test_a_store_that_never_answers_is_not_asked_again_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "RETRY_S", 0.1)
    proxy = FaultyProxy(s3_server(), lambda _: Fault.WITHHELD)
    with (
        behind(proxy, monkeypatch, **IMPATIENT) as store,
        stamina.set_testing(False),
        pytest.raises(StoreUnavailable, match="time-out"),
    ):
        store.create(KEY, b"segment")
    assert len(proxy.seen) == 1


def test_time_outs_are_ours_unless_the_environment_says_otherwise() -> None:
    ours = object_store._client_options("AWS", {"GOOGLE_TIMEOUT": "1s"})
    assert ours == {"connect_timeout": "3s", "timeout": "15s"}
    theirs = object_store._client_options("AWS", {"AWS_TIMEOUT": "60s", "AWS_PROXY_URL": "http://proxy:3128"})
    assert theirs == {"connect_timeout": "3s", "timeout": "60s", "proxy_url": "http://proxy:3128"}


def test_a_store_that_ignores_the_condition_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = FaultyProxy(s3_server(), without=frozenset({"if-none-match"}))
    with behind(proxy, monkeypatch) as store:
        with pytest.raises(SettingsError, match=r"refuses to create a key that exists.*sink\.root"):
            open_chain(store).check()
        with pytest.raises(SettingsError, match="refuses to create"):
            open_chain(store).check()


@pytest.mark.parametrize(
    ("fault", "what"),
    [(Fault.DENIED, "rights to read, write, list and delete"), (Fault.UNKNOWN, r"conditional writes.*sink\.root")],
)
def test_answers_that_waiting_does_not_change_are_settings_to_correct(
    fault: Fault, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = FaultyProxy(s3_server(), lambda _: fault)
    with behind(proxy, monkeypatch) as store, pytest.raises(SettingsError, match=what):
        store.create(KEY, b"segment")
    assert len(proxy.seen) == 1


def test_a_missing_bucket_is_a_setting_to_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"s3://no-such-bucket/.*sink\.root"):
        open_s3(monkeypatch, s3_server(), "s3://no-such-bucket/prefix").create(KEY, b"")


def test_a_port_that_nobody_listens_on_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(monkeypatch, f"http://127.0.0.1:{free_ports(1)}", "s3://bucket/prefix")
    with pytest.raises(StoreUnavailable, match="s3://bucket"):
        store.create(KEY, b"")


@pytest.mark.parametrize("status", [409, 412])
def test_azure_refuses_in_two_ways(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with buckets(refuses_with=status) as server:
        store = open_cloud(monkeypatch, server.address, "az://bucket/prefix")
        store.create(KEY, b"first")
        with pytest.raises(AlreadyExists):
            store.create(KEY, b"second")
        assert server.objects == {f"bucket/prefix/{KEY}": b"first"}


@pytest.mark.parametrize(
    "url", ["nonsense://bucket", "s3://", "gs://", "ftp://host/path", "https://host/path", "S3 ://bucket"]
)
def test_a_url_that_names_no_store_says_which_do(url: str) -> None:
    with pytest.raises(SettingsError, match=r"s3://bucket/prefix, gs://\.\.\. or az://"):
        open_store(url)


def test_azure_without_an_account_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_USE_EMULATOR", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match=r"az://container/prefix: .*Account"):
        open_url("az://container/prefix")


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("AWS_ENDPOINT", "localhost:9000", "expected a URL as https://host:port"),
        ("AWS_ENDPOINT_URL", "http://localhost:9000", "AWS_ALLOW_HTTP=true"),
        ("AWS_TIMEOUT", "soon", 'sink.root.*"soon"'),
        ("AWS_ALLOW_HTTP", "perhaps", 'sink.root.*"perhaps"'),
        ("AWS_ROOT_CERTIFICATE", "none", "sink.root.*root_certificate"),
    ],
)
def test_an_environment_that_cannot_work_is_refused_when_the_store_is_opened(
    name: str, value: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in s3_environment(""):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=what):
        open_store("s3://bucket/prefix")


def test_conditional_writes_that_are_turned_off_are_a_setting_to_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(monkeypatch, s3_server(), f"s3://{new_bucket()}/prefix", AWS_CONDITIONAL_PUT="disabled")
    with pytest.raises(SettingsError, match="does not support conditional writes"):
        store.create(KEY, b"")


# -- the chain, while the network fails at random

SEED = 5


class Rival:
    """A worker on the chain, as far as it commits: the same draft until it knows, then on from the head."""

    def __init__(self, chain: SegmentChain, seed: int) -> None:
        self.chain = chain
        self._rng = random.Random(seed)
        self._draft: SegmentDraft | None = None
        self._next, self._number, self._state = 0, 0, b""
        self.outcomes: dict[str, int] = defaultdict(int)

    def begin(self) -> None:
        while True:
            try:
                self.chain.check()
                self._go_on(self.chain.recover(TP, IDENTITY, 0))
                return
            except StoreUnavailable:
                self.outcomes["unavailable"] += 1

    def turn(self) -> None:
        if self._draft is None:
            until = self._next + self._rng.randint(1, 3)
            rows = [f"{TP.topic}/{TP.partition}/{offset}/0" for offset in range(self._next, until)]
            state = next_state(self._state, rows)
            self._draft = draft(self._next, until, number=self._number, states={"north": state})
        try:
            done = self.chain.commit(self._draft)
        except StoreUnavailable:
            self.outcomes["unavailable"] += 1
            return
        self.outcomes["won" if done.won else "lost"] += 1
        self._go_on(done.head)

    def _go_on(self, head: Head) -> None:
        self._draft, self._next = None, head.next_offset
        self._state = head.states.get("north", b"")
        self._number = int(self._state.partition(b":")[0] or 0)


@pytest.mark.parametrize("commits", [30, pytest.param(100, marks=pytest.mark.check("kills"))])
def test_two_workers_write_every_row_once_while_the_network_fails_at_random(
    monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    survive(monkeypatch, SEED, commits)


def survive(monkeypatch: pytest.MonkeyPatch, seed: int, commits: int) -> None:
    bucket = new_bucket()
    url = f"s3://{bucket}/some/prefix"
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(FaultyProxy(s3_server(), AtRandom(seed + n, every=3, withheld=60))) for n in (0, 1)
        ]
        stores = [open_s3(monkeypatch, proxy.address, url, **IMPATIENT) for proxy in proxies]
        rivals = [Rival(open_chain(store, f"rival-{n}"), seed + n) for n, store in enumerate(stores)]
        for rival in rivals:
            rival.begin()
        turns = random.Random(seed)
        while sum(rival.outcomes["won"] for rival in rivals) < commits:
            turns.choice(rivals).turn()
    check_what_was_written(open_s3(monkeypatch, s3_server(), url))
    check_what_was_sent(proxies, rivals)


def check_what_was_written(store: Store) -> None:
    """The chain is whole, every row is there once, and the state follows from the rows of each segment."""
    assert verify(store, contiguous=True) == []
    offsets = read_predictions(store, ["offset"])["offset"].to_pylist()
    assert offsets == list(range(len(offsets)))
    state = b""
    for _, footer in read_segment_footers(store):
        state = next_state(state, [f"{TP.topic}/{TP.partition}/{o}/0" for o in range(footer.first, footer.next)])
        assert footer.states == {"north": state}


def check_what_was_sent(proxies: list[FaultyProxy], rivals: list[Rival]) -> None:
    """Retries were the same bytes, and all of it happened: lost races, answers lost after the fact."""
    lost_answers = 0
    for proxy in proxies:
        bodies: dict[str, set[str]] = defaultdict(set)
        for request, fault in proxy.seen:
            if request.is_create and "/predictions/" in request.path:
                bodies[request.path].add(request.digest)
                lost_answers += fault in DONE
        assert {len(digests) for digests in bodies.values()} == {1}
    assert {fault for proxy in proxies for _, fault in proxy.seen} >= {*DONE, *NOT_DONE}
    won = sum(rival.outcomes["won"] for rival in rivals)
    assert lost_answers > won // 10
    assert all(rival.outcomes["won"] and rival.outcomes["lost"] for rival in rivals)
