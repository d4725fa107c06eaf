from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adawise.pairs.orders import Kind as OrderKind
from adawise.pairs.orders import Orders, PairDocument, PairOrder
from adawise.records import Switch, TopicPartition
from tools.chaos.operators import Operation, returns, wrong_orders, wrong_switches
from tools.chaos.schedule import Kind

TP = TopicPartition("yard", 0)
Given = tuple[OrderKind, int, str]  # what, which pair, who


def pair(number: int) -> PairDocument:
    return PairDocument({"theta_1": str(number)}, "", "", "", "text", ("car",), ("{}",), None, {})


def orders(*given: Given) -> Orders:
    found = Orders()
    for number, (what, which, who) in enumerate(given):
        order = PairOrder(number, what, which, False, 0, f"{who}@host")
        found = found.after(order, pair(which) if which == number else None)
    return found


def operation(number: int, kind: Kind, code: int = 0, log: Path = Path("absent"), **changes: Any) -> Operation:
    call: Any = SimpleNamespace(exit_code=code, log=log)
    return Operation(number, kind, (str(kind),), call, **changes)


BEGUN: list[Given] = [("begin", 0, "worker"), ("stage", 1, "operator-0"), ("switch", 1, "operator-1")]
OPERATIONS = [
    *(operation(0, Kind.STAGE), operation(1, Kind.SWITCH), operation(2, Kind.ROLLBACK), operation(3, Kind.ROLLBACKS)),
    *(operation(4, Kind.ROLLBACKS), operation(5, Kind.SWITCH)),
]


def test_a_rollback_that_serves_the_pair_which_one_before_took_back_is_found() -> None:
    back: Given = ("switch", 0, "operator-2")
    assert [*wrong_orders(OPERATIONS[:5], orders(*BEGUN, back))] == []
    [fault] = wrong_orders(OPERATIONS[:5], orders(*BEGUN, back, ("switch", 1, "operator-3")))
    assert fault == "order 4 is a rollback, and serves pair 1 again, which order 3 had taken back"
    by_name: list[Given] = [("switch", 1, "operator-5"), ("switch", 0, "operator-3")]
    assert [*wrong_orders(OPERATIONS, orders(*BEGUN, back, *by_name))] == []


def test_a_command_that_says_no_and_gives_an_order_is_found_and_one_that_says_yes_and_gives_none() -> None:
    given = orders(*BEGUN)
    assert ["said that it was refused" in fault for fault in wrong_orders([operation(1, Kind.SWITCH, 2)], given)] == [
        True
    ]
    assert ["gave no order" in fault for fault in wrong_orders([operation(7, Kind.SWITCH)], given)] == [True]
    twice = orders(*BEGUN, ("withdraw", 1, "operator-1"))
    assert ["gave the orders [2, 3]" in fault for fault in wrong_orders([operation(1, Kind.SWITCH)], twice)] == [True]


def test_a_partition_that_is_served_by_a_pair_which_never_was_to_serve_is_found() -> None:
    given = orders(*BEGUN[:2])
    plan = {TP: [Switch(0, (), pair(0).id), Switch(8, (), pair(1).id)]}
    assert ["never to serve" in fault for fault in wrong_switches(plan, given, settled=False)] == [True]
    assert [*wrong_switches(plan, orders(*BEGUN), settled=True)] == []


def test_a_partition_that_is_not_served_by_the_pair_which_is_to_serve_in_the_end_is_found() -> None:
    plan = {TP: [Switch(0, (), pair(0).id)]}
    assert [*wrong_switches(plan, orders(*BEGUN), settled=False)] == []
    assert ["in the end" in fault for fault in wrong_switches(plan, orders(*BEGUN), settled=True)] == [True]


def test_switches_out_of_the_order_in_which_pairs_were_to_serve_are_counted() -> None:
    a, b = pair(0).id, pair(1).id
    given = orders(*BEGUN)
    assert returns({TP: [Switch(0, (), a), Switch(8, (), b)]}, given) == 0
    assert returns({TP: [Switch(0, (), a), Switch(8, (), b), Switch(9, (), a), Switch(9, (), b)]}, given) == 1


@pytest.mark.parametrize(
    ("kind", "code", "said", "excused", "is_fault"),
    [
        (Kind.SWITCH, 0, "", "", False),
        (Kind.SWITCH, 2, "nothing is staged", "", False),
        (Kind.SWITCH, 1, "the store does not answer", "", True),
        (Kind.SWITCH, 1, "the store does not answer", "the store was away", False),
        (Kind.SWITCH, 1, "Traceback (most recent call last):", "the store was away", True),
        (Kind.REPAIR, 3, "beyond repair", "", False),
        (Kind.COMPACT, 2, "there is no output", "", True),
        (Kind.COMPACT, -9, "", "", False),
    ],
)
def test_how_a_command_ended_is_a_fault_unless_it_may_be_refused_killed_or_was_excused(
    kind: Kind, code: int, said: str, excused: str, is_fault: bool, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text(said)
    assert (operation(1, kind, code, tmp_path / "log", excused=excused).fault is not None) is is_fault
