from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adawise.pairs.orders import Kind as OrderKind
from adawise.pairs.orders import Orders, PairDocument, PairOrder
from adawise.records import Switch, TopicPartition
from adawise.settings import Settings
from adawise.sink import layout
from tests.sink.building import IDENTITY, DictStore, draft, open_chain
from tests.sink.building import TP as SEGMENTS_OF
from tools.chaos import operators
from tools.chaos.actor import Role
from tools.chaos.operators import Operation, Operator, returns, served_too_early, wrong_orders, wrong_switches
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
    *(operation(4, Kind.ROLLBACKS), replace(operation(5, Kind.SWITCH), arguments=("pair", "switch", "--pair", "1"))),
]


def test_a_replay_of_dead_letters_may_fail_because_another_began_and_only_then(tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    log.write_text('{"error": "could not send 9 dead letters back: another replay of the same dead letters began."}\n')
    assert operation(0, Kind.LETTERS, 1, log, is_fenced=True).fault is None
    assert "ended with code 1" in str(operation(0, Kind.LETTERS, 1, log).fault)
    log.write_text('{"error": "could not send 9 dead letters back: no."}\n')
    assert "ended with code 1" in str(operation(0, Kind.LETTERS, 1, log, is_fenced=True).fault)


def test_either_of_two_replays_at_once_may_be_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Any] = [SimpleNamespace(exit_code=code, log=tmp_path / "absent") for code in (0, None, 0, 0, 0, 0)]
    monkeypatch.setattr(operators, "begin", lambda *_, **__: ends.pop(0))
    operator = Operator(Role(Settings(), tmp_path / "log", tmp_path / "outage"), [], tmp_path)
    for _ in range(2):
        operator.begin(Kind.LETTERS, 0.5)
    assert [each.is_fenced for each in operator.operations] == [False, True, False, True]
    operator.operations[1].call = operator.operations[0].call  # it has ended
    operator.begin(Kind.LETTERS, 0.5)
    assert not any(each.is_fenced for each in operator.operations[4:])


def test_a_rollback_that_follows_another_one_and_serves_a_pair_is_found() -> None:
    back: Given = ("switch", 0, "operator-2")
    assert [*wrong_orders(OPERATIONS[:5], orders(*BEGUN, back))] == []
    [fault] = wrong_orders(OPERATIONS[:5], orders(*BEGUN, back, ("switch", 1, "operator-3")))
    assert fault == "order 4 rolls back (switch pair 1), as the order before it has done"
    by_name: list[Given] = [("switch", 1, "operator-5"), ("switch", 0, "operator-3")]
    assert [*wrong_orders(OPERATIONS, orders(*BEGUN, back, *by_name))] == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("switch", 0, "operator-2"), []),
        (("switch", 2, "operator-2"), ["order 4 (operator-2@host): switch pair 2, expected switch pair 0"]),
        (("withdraw", 2, "operator-2"), ["order 4 (operator-2@host): withdraw pair 2, expected switch pair 0"]),
        (("begin", 4, "worker"), ["order 4 (worker@host): begin pair 4, expected begin pair 0"]),
        (("switch", 0, "worker"), ["order 4 (worker@host): switch pair 0, expected begin pair 0"]),
    ],
)
def test_a_rollback_that_serves_another_pair_than_the_former_and_an_order_of_a_worker_are_found(
    given: Given, expected: list[str]
) -> None:
    served: list[Given] = [("begin", 0, "worker"), ("stage", 1, "operator-0"), ("stage", 2, "operator-6")]
    log = orders(*served, ("switch", 2, "operator-1"), given)
    assert [*wrong_orders([*OPERATIONS[:5], operation(6, Kind.STAGE)], log)] == expected


def test_a_rollback_withdraws_what_is_staged() -> None:
    staged = BEGUN[:2]
    assert [*wrong_orders(OPERATIONS[::2], orders(*staged, ("withdraw", 1, "operator-2")))] == []
    [fault] = wrong_orders(OPERATIONS[::2], orders(*staged, ("switch", 0, "operator-2")))
    assert fault.endswith("expected withdraw pair 1")


def test_a_command_that_says_no_and_gives_an_order_is_found_and_one_that_says_yes_and_gives_none() -> None:
    given, stage = orders(*BEGUN), operation(0, Kind.STAGE)
    [fault] = wrong_orders([stage, operation(1, Kind.SWITCH, 2)], given)
    assert "said that it was refused" in fault
    [fault] = wrong_orders([*OPERATIONS[:2], operation(7, Kind.SWITCH)], given)
    assert "gave no order" in fault
    twice = orders(*BEGUN, ("switch", 1, "operator-1"))
    faults = [*wrong_orders([stage, operation(1, Kind.SWITCH)], twice)]
    assert "gave the orders [2, 3]" in faults[0]


def test_a_partition_that_is_served_by_a_pair_which_never_was_to_serve_is_found() -> None:
    given = orders(*BEGUN[:2])
    plan = {TP: [Switch(0, (), pair(0).id), Switch(8, (), pair(1).id)]}
    assert any("never to serve" in fault for fault in wrong_switches(plan, given, settled=True))
    assert [*wrong_switches(plan, orders(*BEGUN), settled=True)] == []


def test_a_partition_that_is_not_served_by_the_pair_which_is_to_serve_in_the_end_is_found() -> None:
    plan = {TP: [Switch(0, (), pair(0).id)]}
    [fault] = wrong_switches(plan, orders(*BEGUN), settled=False)
    assert "not every worker had it" in fault
    assert ["in the end" in fault for fault in wrong_switches(plan, orders(*BEGUN), settled=True)] == [True]


def test_switches_out_of_the_order_in_which_pairs_were_to_serve_are_counted() -> None:
    a, b = pair(0).id, pair(1).id
    given = orders(*BEGUN)
    assert returns({TP: [Switch(0, (), a), Switch(8, (), b)]}, given) == 0
    assert returns({TP: [Switch(0, (), a), Switch(8, (), b), Switch(9, (), a), Switch(9, (), b)]}, given) == 1


AWAY = '{"event": "program_failed", "kind": "StoreUnavailable"}'


@pytest.mark.parametrize(
    ("kind", "code", "expected", "away", "is_fault"),
    [
        (Kind.SWITCH, 0, "", "", False),
        (Kind.SWITCH, 2, "nothing is staged", "", False),
        (Kind.SWITCH, 1, AWAY, "", True),
        (Kind.SWITCH, 1, AWAY, "the store", False),
        (Kind.SWITCH, 1, "Traceback (most recent call last):", "the store", True),
        (Kind.SWITCH, 1, '{"event": "program_failed", "kind": "ChainError"}', "the store", True),
        (Kind.SWITCH, 3, "", "", True),
        (Kind.ROLLBACK, 3, "pair 1 was already rolled back", "", False),
        (Kind.REPAIR, 3, "would: write the traces", "", False),
        (Kind.COMPACT, 2, "there is no output", "", True),
        (Kind.COMPACT, 3, "", "", True),
        (Kind.COMPACT, -9, "", "", True),
    ],
)
def test_how_a_command_ended_is_a_fault_unless_it_may_be_refused_or_what_it_asked_was_away(
    kind: Kind, code: int, expected: str, away: str, is_fault: bool, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text(expected)
    ended = operation(1, kind, code, tmp_path / "log", away={away} - {""})
    assert (ended.fault is not None) is is_fault


def test_a_command_that_was_killed_is_no_fault() -> None:
    assert operation(1, Kind.COMPACT, -9, is_killed=True).fault is None


@pytest.mark.parametrize("late_s", [30, -30])
def test_a_segment_that_was_written_by_a_pair_before_it_was_to_serve_is_found(late_s: int) -> None:
    store, given = DictStore(), orders(*BEGUN)
    for number in range(3):
        store.put(layout.pair_key(number), b"")
        store.now += timedelta(minutes=1)
    chain, switches = open_chain(store), (Switch(0, (), pair(0).id), Switch(4, (), pair(1).id))
    chain.recover(SEGMENTS_OF, IDENTITY, 0)
    assert chain.commit(replace(draft(0, 4), switches=switches[:1])).won
    store.now += timedelta(seconds=late_s - 60)  # after the last order
    assert chain.commit(replace(draft(4, 8, number=1), switches=switches)).won
    assert ["to serve from" in fault for fault in served_too_early(store, given)] == [True] * (late_s < 0)
