from __future__ import annotations

from dataclasses import replace

import pytest

from adawise.errors import ChainError, SettingsError
from adawise.pairs.orders import Orders, PairDocument, give_order, read_orders
from adawise.sink import layout
from tests.sink.building import DictStore


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


def test_who_was_slower_is_told_and_gives_no_order() -> None:
    store = DictStore()
    orders = begun(store)
    give_order(store, orders, "stage", pair=document("new"), by="ann@host")
    with pytest.raises(SettingsError, match="order 1 was given by ann@host a moment before, and yours was not given"):
        give_order(store, orders, "stage", pair=document("other"), by="bob@host")
    assert len(read_orders(store).log) == 2


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


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"order": "dance"}', b'{"order": "begin", "pair": 0}'], ids=str)
def test_an_order_that_cannot_be_read_is_told_of(data: bytes) -> None:
    store = DictStore()
    begun(store)
    store.objects[layout.pair_key(1)] = data
    with pytest.raises(ChainError, match=r"_pairs/000001.json: expected a claim written by this program"):
        read_orders(store)


def test_an_order_of_a_later_version_asks_for_an_upgrade() -> None:
    store = DictStore()
    begun(store)
    store.objects[layout.pair_key(1)] = b'{"layout": 2, "order": "dance"}'
    with pytest.raises(ChainError, match="later version"):
        read_orders(store)
