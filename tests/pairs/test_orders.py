from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from adawise.errors import ChainError, SettingsError
from adawise.pairs.orders import Orders, PairDocument, give_order, read_orders
from adawise.pairs.reports import read_reports
from adawise.sink import layout
from adawise.store.documents import MOST_BYTES
from adawise.store.store import LocalStore
from tests.sink.building import DictStore, ForgetfulStore


def document(name: str) -> PairDocument:
    return PairDocument(
        identity={"theta_1": name, "classes": "c", "preprocess": "p"},
        architecture="ViT-B-32",
        theta_0="/models/zero.pt",
        theta_1=f"/models/{name}.pt",
        head="text",
        classes=("car", "bus"),
        templates=("a {}.",),
        card=None,
        settings={"search": {"strategy": "warm"}, "predict": {"top_k": 5}},
        method=f"adapts by {name}",
    )


def begun(store: DictStore) -> Orders:
    return give_order(store, read_orders(store), "begin", pair=document("old"), by="worker:1")


def ordered(store: DictStore, given: str) -> Orders:
    """The result of orders such as `stage switch-1`, after the first pair."""
    orders = begun(store)
    for number, word in enumerate(given.split(), start=1):
        kind, _, pair = word.partition("-")
        named: Any = int(pair) if pair else document(f"pair {number}")
        orders = give_order(store, orders, kind, pair=named, by="ann@host")  # type: ignore[arg-type]
    return orders


def test_orders_are_read_back_as_they_were_given_and_only_new_ones_are_read() -> None:
    store = DictStore()
    orders = begun(store)
    orders = give_order(store, orders, "stage", pair=document("new"), by="ann@host", keeps=True, shadow=20)
    assert read_orders(store) == orders
    assert orders.staged is not None
    assert (orders.serves, orders.staged.pair, orders.staged.shadow, orders.staged.keeps) == (0, 1, 20, True)
    store.objects[layout.pair_key(0)] = b"damaged meanwhile"
    assert read_orders(store, orders) is orders
    after = give_order(store, orders, "switch", pair=1, by="ann@host", keeps=True)
    assert read_orders(store, orders) == after
    assert (after.serves, after.former, after.staged, after.keeps) == (1, 0, None, True)
    assert after.serving == document("new")


def test_the_share_of_a_pair_is_kept_and_a_document_of_an_earlier_version_has_none() -> None:
    store = DictStore()
    shared = replace(document("old"), tail_share=0.25)
    assert give_order(store, read_orders(store), "begin", pair=shared, by="w").serving == shared
    assert read_orders(store).serving == shared
    parts = json.loads(store.objects[layout.pair_key(0)])
    del parts["document"]["tail_share"]
    store.objects[layout.pair_key(0)] = json.dumps(parts).encode()
    assert read_orders(store).serving == document("old")
    parts["document"]["tail_share"] = 0.0
    store.objects[layout.pair_key(0)] = json.dumps(parts).encode()
    assert 0 in read_orders(store).damaged


def test_who_was_slower_is_told_and_gives_no_order() -> None:
    store = DictStore()
    orders = begun(store)
    give_order(store, orders, "stage", pair=document("new"), by="ann@host")
    with pytest.raises(SettingsError, match="ann@host gave order 1 a moment before, so yours was not recorded"):
        give_order(store, orders, "stage", pair=document("other"), by="bob@host")
    assert len(read_orders(store).log) == 2


def test_an_order_whose_answer_was_lost_was_given() -> None:
    store = ForgetfulStore()
    orders = begun(store)
    orders = give_order(store, orders, "stage", pair=document("new"), by="ann@host")
    orders = give_order(store, orders, "switch", pair=1, by="ann@host")
    assert read_orders(store) == orders
    assert [order.kind for order in orders.log] == ["begin", "stage", "switch"]


@pytest.mark.parametrize(
    ("given", "serves", "undone"),
    [
        ("", 0, None),
        ("stage", 0, None),
        ("stage withdraw-1", 0, 1),
        ("stage withdraw-1 stage", 0, None),
        ("stage withdraw-1 switch-1", 1, None),
        ("stage switch-1", 1, None),
        ("stage switch-1 switch-0", 0, 1),
        ("stage switch-1 switch-0 switch-1", 1, None),
        ("stage switch-1 switch-0 switch-1 switch-0", 0, 1),
        ("stage switch-1 switch-0 stage", 0, None),
        ("stage switch-1 stage withdraw-3", 1, 3),
        ("stage switch-1 stage withdraw-3 switch-0", 0, 1),
        ("stage switch-1 stage switch-3", 3, None),
        ("stage switch-1 stage switch-3 switch-1", 1, 3),
        ("stage switch-1 stage switch-3 switch-0", 0, None),
        ("stage switch-1 switch-0 begin", 4, None),
        ("stage switch-1 begin switch-1", 1, 3),
    ],
)
def test_what_the_newest_order_took_back_is_known(given: str, serves: int, undone: int | None) -> None:
    store = DictStore()
    orders = ordered(store, given)
    assert (orders.serves, orders.undone) == (serves, undone)
    assert read_orders(store) == orders


@pytest.mark.parametrize(
    ("given", "former"),
    [
        ("", None),
        ("stage switch-1", 0),
        ("stage switch-1 switch-0", None),
        ("stage switch-1 switch-0 stage", None),
        ("stage switch-1 switch-0 stage withdraw-3", None),
        ("stage switch-1 stage switch-3 switch-1", 0),
        ("stage switch-1 stage switch-3 switch-0", 3),
        ("stage switch-1 switch-0 switch-1", 0),
    ],
)
def test_a_pair_that_was_rolled_back_is_not_gone_back_to(given: str, former: int | None) -> None:
    orders = ordered(DictStore(), given)
    assert orders.former == former


def test_a_withdrawn_pair_is_not_staged_and_one_staged_again_takes_its_place() -> None:
    store = DictStore()
    orders = give_order(store, begun(store), "stage", pair=document("new"), by="a")
    assert give_order(store, orders, "withdraw", pair=1, by="a").staged is None
    store = DictStore()
    orders = give_order(store, begun(store), "stage", pair=document("new"), by="a")
    orders = give_order(store, orders, "stage", pair=document("newer"), by="a")
    assert orders.staged is not None
    assert orders.staged.pair == 2


def test_a_worker_with_another_pair_begins_anew_and_nothing_is_staged() -> None:
    store = DictStore()
    orders = give_order(store, begun(store), "stage", pair=document("new"), by="a")
    orders = give_order(store, orders, "begin", pair=document("third"), by="worker:2")
    assert (orders.serves, orders.former, orders.staged) == (2, 0, None)


def test_a_pair_has_the_same_id_wherever_it_lies_and_another_with_another_card() -> None:
    one = document("new")
    assert replace(one, theta_1="/elsewhere/new.pt").id == one.id
    assert replace(one, identity={**one.identity, "card": "d"}).id != one.id


GOOD: dict[str, Any] = {
    "layout": 1,
    "order": "stage",
    "pair": 1,
    "state": "keep",
    "shadow": 0,
    "by": "ann@host",
    "document": json.loads(json.dumps(asdict(document("new")))),
}


def order(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def described(**changes: object) -> bytes:
    return order(document={**GOOD["document"], **changes})


DAMAGED = {
    "empty": b"",
    "cut short": b"{",
    "list": b"[]",
    "null": b"null",
    "NaN": b"NaN",
    "nested": b"[" * 100_000,
    "nested settings": b'{"a":' * 10_000,
    "binary": b"\xff\xfe{}",
    "huge": b" " * (MOST_BYTES + 1),
    "many digits": order().replace(b'"pair": 1', b'"pair": ' + b"9" * 5_000),
    "unknown kind": order(order="dance"),
    "infinite pair": order(pair=float("inf")),
    "no pair": order(pair=float("nan")),
    "text for a number": order(shadow="3"),
    "state list": order(state=[]),
    "control characters": order(by="\x1b[31mX\n"),
    "no document": order(document=None),
    "document list": order(document=[]),
    "identity list": described(identity=[]),
    "identity null": described(identity=None),
    "identity empty": described(identity={}),
    "identity of numbers": described(identity={"theta_0": 1}),
    "settings list": described(settings=[]),
    "settings null": described(settings=None),
    "classes text": described(classes="abc"),
    "no classes": described(classes=[]),
    "switch to a pair that nobody described": order(order="switch", pair=99, document=None),
    "withdrawal of such a pair": order(order="withdraw", pair=99, document=None),
    "stage under another number": order(pair=0),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_an_order_that_is_damaged_is_named_and_passed_over(data: bytes) -> None:
    store = DictStore()
    before = begun(store)
    store.objects[layout.pair_key(1)] = data
    read = read_orders(store)
    assert [*read.damaged] == [1]
    assert (read.log, read.pairs, read.serving) == (before.log, before.pairs, before.serving)
    assert read_orders(store, read) is read
    after = give_order(store, read, "switch", pair=document("new"), by="ann@host")
    assert after.serving == document("new")
    assert (after.log[-1].number, read_orders(store)) == (2, after)


def test_the_order_that_the_damaged_ones_are_made_of_is_good() -> None:
    store = DictStore()
    begun(store)
    store.objects[layout.pair_key(1)] = order()
    read = read_orders(store)
    assert (read.damaged, read.log[-1].kind, read.pairs[1]) == ({}, "stage", document("new"))


def test_a_root_whose_first_order_is_damaged_begins_with_the_next_one() -> None:
    store = DictStore()
    store.objects[layout.pair_key(0)] = b""
    assert read_orders(store).log == ()
    assert begun(store).log[0].number == 1


def test_an_order_of_a_later_version_asks_for_an_upgrade() -> None:
    store = DictStore()
    begun(store)
    store.objects[layout.pair_key(1)] = b'{"layout": 2, "order": "dance"}'
    with pytest.raises(ChainError, match="later version"):
        read_orders(store)


def test_an_order_whose_file_is_restored_counts_again_and_so_does_what_depends_on_it() -> None:
    store = DictStore()
    orders = give_order(store, begun(store), "stage", pair=document("new"), by="ann@host")
    whole = give_order(store, orders, "switch", pair=1, by="ann@host")
    kept = store.objects[layout.pair_key(1)]
    store.objects[layout.pair_key(1)] = kept[:40]
    read = read_orders(store)
    assert [*read.damaged] == [1, 2]
    assert read.serving == document("old")
    store.objects[layout.pair_key(1)] = kept
    assert read_orders(store, read) == whole == read_orders(store)


def test_an_order_that_is_listed_and_gone_when_it_is_read_is_read_again() -> None:
    class Behind(DictStore):
        is_behind = True

        def get(self, key: str) -> bytes | None:
            return None if self.is_behind and key == layout.pair_key(1) else super().get(key)

    store = Behind()
    whole = give_order(store, begun(store), "stage", pair=document("new"), by="ann@host")
    read = read_orders(store)
    assert [*read.damaged] == [1]
    store.is_behind = False
    assert read_orders(store, read) == whole


def test_an_order_before_any_pair_serves_is_passed_over() -> None:
    store = DictStore()
    give_order(store, begun(store), "stage", pair=document("new"), by="ann@host")
    store.objects[layout.pair_key(0)] = b"{half"
    read = read_orders(store)
    assert ([*read.damaged], read.log) == ([0, 1], ())
    assert "no earlier order says which pair serves" in read.damaged[1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"theta_1": "/models/new\udcff.pt"}, "surrogate"),
        ({"classes": tuple("c" * 60_000 for _ in range(300))}, f"{MOST_BYTES} at most"),
        ({"settings": {"search": {"price": float("nan")}}}, "settings.search.price"),
    ],
    ids=["a path that is not UTF-8", "too large", "a number that is not finite"],
)
def test_a_pair_that_no_worker_could_read_is_refused_and_nothing_is_written(changes: dict[str, Any], why: str) -> None:
    store = DictStore()
    orders = begun(store)
    before = {**store.objects}
    with pytest.raises(SettingsError, match=f"this pair cannot be described in _pairs: .*{why}"):
        give_order(store, orders, "stage", pair=replace(document("new"), **changes), by="ann@host")
    assert store.objects == before


def test_what_was_read_once_counts_whatever_becomes_of_its_file_when_another_one_is_restored() -> None:
    store = DictStore()
    orders = give_order(store, begun(store), "switch", pair=document("new"), by="ann@host")
    whole = store.objects[layout.pair_key(2)] = order(pair=2, document=asdict(document("newer")))
    store.objects[layout.pair_key(2)] = b"{half"
    known = read_orders(store, orders)
    store.objects[layout.pair_key(0)] = b"damaged meanwhile"
    del store.objects[layout.pair_key(1)]
    store.objects[layout.pair_key(2)] = whole
    found = read_orders(store, known)
    assert (found.serving, [*found.damaged], found.log[-1].number) == (document("new"), [], 2)


def test_an_order_about_a_pair_that_a_later_one_describes_costs_one_read_a_look() -> None:
    class Counting(DictStore):
        reads = 0

        def get(self, key: str) -> bytes | None:
            self.reads += 1
            return super().get(key)

    store = Counting()
    orders = begun(store)
    store.objects[layout.pair_key(1)] = order(order="switch", pair=2, document=None)
    store.objects[layout.pair_key(2)] = order(pair=2, document=asdict(document("new")))
    known = read_orders(store, orders)
    assert ([*known.damaged], known.next_number) == ([1], 3)
    before = store.reads
    assert read_orders(store, known) is known
    assert store.reads == before + 1


def bind(path: Path) -> None:
    """Leave a socket, whose path may have a hundred characters at most."""
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.name), bind])
def test_an_order_or_a_report_that_is_no_regular_file_is_named_as_damaged(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    store = LocalStore(tmp_path)
    before = give_order(store, read_orders(store), "begin", pair=document("old"), by="worker:1")
    for key in (layout.pair_key(1), layout.worker_key("one")):
        (tmp_path / key).parent.mkdir(exist_ok=True)
        make(tmp_path / key)
    read = read_orders(store)
    assert "a pipe, a device" in str(read.damaged[1])
    assert read.serving == before.serving
    found, (damaged,) = read_reports(store)
    assert found == []
    assert "a pipe, a device" in damaged.why
    assert damaged.is_here == (make is os.mkfifo or make is bind)  # a link to itself is of no time
