"""What operators do while workers serve: the product's own commands on the crew's root, and whether their words hold.

Each command has a name of its own, which `adawise pair` writes into the order that it gives. So the log of orders alone
says which command gave which, and whether one that said no gave one all the same.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

from adawise.output.compaction import retain
from adawise.output.compaction.delete import now_of
from adawise.pairs.orders import Orders, PairOrder, read_orders
from adawise.pairs.planned import Plan
from adawise.pairs.reports import read_reports
from adawise.records import Switch
from adawise.settings import Settings
from adawise.sink import layout
from adawise.store.store import Store
from tests.sink.footers import read_segment_footers
from tools.chaos.actor import Call, Role, begin, names_outage
from tools.chaos.schedule import Kind

_NAME = "operator-"
_FIRST_PAIR = 0.8  # from this chance on, a switch is to the first pair by its number
_LATER = timedelta(days=3)


@dataclass(eq=False)
class Operation:
    """One command. `away` is what did not answer at some time while it ran.

    `is_fenced` is true if another replay of dead letters ran at the same time: the broker refuses one of the two.
    """

    number: int
    kind: Kind
    arguments: tuple[str, ...]
    call: Call
    away: set[str] = field(default_factory=set)
    is_killed: bool = False
    is_fenced: bool = False

    @property
    def outcome(self) -> str:
        """How it ended, in a word or two."""
        code = self.call.exit_code
        assert code is not None
        if self.is_killed and code == -signal.SIGKILL:
            return "killed"
        return {0: "done", 2: "refused", 3: "found something"}.get(code, f"failed with code {code}")

    @property
    def fault(self) -> str | None:
        """What is wrong with how it ended; None if nothing is."""
        code, log = self.call.exit_code, self.call.log
        lines = log.read_text().splitlines() if log.exists() else []
        if any(line.startswith("Traceback") for line in lines):
            return f"{self} ended with a traceback: {lines[-1]}"
        if code in self._allowed or self.outcome == "killed":
            return None
        if self.away and code == 1 and lines and names_outage(lines[-1]) and self._was_away(lines[-1]):
            return None
        if self.is_fenced and code == 1 and lines and "another replay of the same dead letters began" in lines[-1]:
            return None
        return f"{self} ended with code {code}: {lines[-1] if lines else 'and said nothing'}"

    def _was_away(self, line: str) -> bool:
        """Return True unless a broker is named as away, and none was."""
        return "a broker" in self.away or "BrokerUnavailable" not in line

    @property
    def _allowed(self) -> set[int]:
        match self.kind:
            case Kind.STAGE | Kind.SWITCH:
                return {0, 2}
            case Kind.ROLLBACK | Kind.ROLLBACKS:
                return {0, 2, 3}  # 3: what was staged is withdrawn already, and there is a pair to go back to
            case Kind.REPAIR if "--yes" not in self.arguments:
                return {0, 3}  # a worker died between a segment and its traces
            case _:
                return {0}

    def __str__(self) -> str:
        return f"{_NAME}{self.number} (adawise {' '.join(self.arguments)})"


@dataclass
class Operator:
    """Starts commands on the root of `role`'s settings; `pairs` are the settings of what can be staged."""

    role: Role
    pairs: Sequence[Settings]
    folder: Path
    operations: list[Operation] = field(default_factory=list)

    def begin(self, kind: Kind, chance: float) -> list[Operation]:
        """Start what belongs to an operation; `chance` in [0, 1) says which variant of it."""
        root, settings = self.role.settings.sink.root, self.role.settings
        match kind:
            case Kind.STAGE:
                settings = self.pairs[int(chance * len(self.pairs))]
                shadow, state = ("0", "reset") if chance * 10 % 1 < 0.5 else ("20", "keep")
                return [self._begin(kind, settings, "pair", "stage", root, "--shadow", shadow, "--state", state)]
            case Kind.SWITCH:
                which = ("--pair", "0") if chance >= _FIRST_PAIR else ()
                return [self._begin(kind, settings, "pair", "switch", root, "--anyway", *which)]
            case Kind.ROLLBACK:
                return [self._begin(kind, settings, "pair", "rollback", root)]
            case Kind.ROLLBACKS:
                meet = multiprocessing.get_context("forkserver").Barrier(2)
                return [self._begin(kind, settings, "pair", "rollback", root, meet=meet) for _ in range(2)]
            case Kind.COMPACT:  # also what was committed today; small files, so that there are several
                limits = ("--before", "2199-01-01", "--max-rows", "200")
                return [self._begin(kind, settings, "compact", root, *limits)]
            case Kind.RETAIN:
                return [self._begin(kind, settings, "retain", root, "--keep", "1d", "--yes")]
            case Kind.REPAIR:
                return [self._begin(kind, settings, "repair", root, *(("--yes",) if chance >= 0.3 else ()))]
            case Kind.LETTERS:
                beside = [each for each in self.operations if each.kind is kind and each.call.exit_code is None]
                listed = self._begin(kind, settings, "dlq", "list")
                replay = self._begin(kind, settings, "dlq", "replay", "--all")
                # Which of two fences the other depends on who reaches the broker first.
                for each in (*beside, replay) if beside else ():
                    each.is_fenced = True
                return [listed, replay]
        raise ValueError(f"{kind} is done by no command")

    def _begin(self, kind: Kind, settings: Settings, *arguments: str, meet: Barrier | None = None) -> Operation:
        number = len(self.operations)
        name = f"{_NAME}{number}"
        role = replace(
            self.role,
            settings=settings,
            log=self.folder / f"{name}.log",
            environment={**self.role.environment, "LOGNAME": name},
        )
        call = begin(role, *arguments, meet=meet)
        self.operations.append(Operation(number, kind, arguments, call))
        return self.operations[-1]


def wrong_orders(operations: Sequence[Operation], orders: Orders) -> Iterator[str]:
    """Return the orders that do not fit what commands were asked for, or what they ended with."""
    given: dict[int, list[int]] = {}
    for order in orders.log:
        if (number := _operation_of(order.by)) is not None:
            given.setdefault(number, []).append(order.number)
    for operation in operations:
        mine, code = given.get(operation.number, []), operation.call.exit_code
        if len(mine) > 1:
            yield f"{operation} gave the orders {mine}"
        if code in (2, 3) and mine:
            yield f"{operation} said that it was refused, and gave order {mine[0]}"
        if code == 0 and not mine and operation.kind in (Kind.STAGE, Kind.SWITCH):
            yield f"{operation} said that it was done, and gave no order"
    yield from _unexpected(orders, {operation.number: operation for operation in operations})


def _unexpected(orders: Orders, operations: Mapping[int, Operation]) -> Iterator[str]:
    """Follow the log of orders, and compare each with the one that its command had to give then."""
    serves, former, staged, has_rolled_back = -1, -1, -1, False
    for order in orders.log:
        number = _operation_of(order.by)
        operation = None if number is None else operations.get(number)
        rolls_back = operation is not None and operation.kind in (Kind.ROLLBACK, Kind.ROLLBACKS)
        expected = _expected(order, operation, former, staged)
        if rolls_back and has_rolled_back:
            yield f"order {order.number} rolls back ({order.kind} pair {order.pair}), as the order before it has done"
        elif (order.kind, order.pair) != expected:
            yield (
                f"order {order.number} ({order.by}): {order.kind} pair {order.pair}, "
                f"expected {expected[0]} pair {expected[1]}"
            )
        has_rolled_back = rolls_back
        if order.kind == "stage":
            staged = order.pair
        elif order.kind == "withdraw":
            staged = -1
        else:
            former, serves = (serves, order.pair) if serves != order.pair else (former, serves)
            staged = -1 if order.kind == "begin" or staged == order.pair else staged


def _expected(order: PairOrder, operation: Operation | None, former: int, staged: int) -> tuple[str, int]:
    """Return what the order has to be, and of which pair: only the first is a worker's, whose settings never change."""
    match None if operation is None else operation.kind:
        case None:
            return "begin", 0
        case Kind.STAGE:
            return "stage", order.number
        case Kind.SWITCH:
            assert operation is not None
            return "switch", int(operation.arguments[-1]) if "--pair" in operation.arguments else staged
        case Kind.ROLLBACK | Kind.ROLLBACKS:
            return ("withdraw", staged) if staged >= 0 else ("switch", former)
    return "none", -1


def wrong_switches(plan: Plan, orders: Orders, *, settled: bool) -> Iterator[str]:
    """Partitions served by a pair that never was to serve, or, where all had `settled`, not by the last that was.

    That workers do not settle in time is a fault too: one of them never has the pair that is to serve.
    """
    if not settled:
        yield f"pair {orders.serves} is to serve, and not every worker had it in the end"
    requested = {orders.pairs[order.pair].id for order in orders.log if order.kind in ("begin", "switch")}
    for tp, switches in plan.items():
        for switch in switches:
            if switch.pair not in requested:
                yield f"{tp}: served from offset {switch.first} on by pair {switch.pair}, which was never to serve"
        if settled and switches and switches[-1].pair != orders.serving.id:
            yield f"{tp}: served by pair {switches[-1].pair} in the end, expected {orders.serving.id}"


def served_too_early(store: Store, orders: Orders) -> Iterator[str]:
    """Return the segments that were written by a pair before an order said that it is to serve."""
    due = dict[str, datetime]()
    for order in orders.log:
        at = store.modified(layout.pair_key(order.number))
        if order.kind in ("begin", "switch") and at is not None:
            due.setdefault(orders.pairs[order.pair].id, at)
    for key, footer in read_segment_footers(store):
        pair, at = footer.switches[-1].pair if footer.switches else "", store.modified(key)
        if at is not None and pair in due and at < due[pair]:
            yield f"{key}: written at {at} by pair {pair}, which was to serve from {due[pair]} on"


def returns(plan: Plan, orders: Orders) -> int:
    """Count switches to a pair that was to serve no more: a worker that had not yet looked took a partition over."""
    served = [orders.pairs[order.pair].id for order in orders.log if order.kind in ("begin", "switch")]
    return sum(_out_of_turn(switches, served) for switches in plan.values())


def _out_of_turn(switches: Sequence[Switch], served: Sequence[str]) -> int:
    at, late = 0, 0
    for switch in switches:
        if switch.pair in served[at:]:
            at += served[at:].index(switch.pair)
        else:
            late += 1
    return late


def all_have_it(store: Store, pids: Iterable[int]) -> bool:
    """True once each of these workers reports that it has the pair in memory that is to serve."""
    orders = read_orders(store)
    if len(orders.log) < 2:
        return True  # nobody reports before a second order
    states = {fields.worker.rpartition(":")[2]: fields.state(orders.serves) for fields in read_reports(store)[0]}
    return all(states.get(str(pid)) == "serves" for pid in pids)


def three_days_later() -> None:
    """Let `adawise retain` in this process find everything old. Only where no worker runs: one might stand still."""

    def later(store: Store) -> datetime:
        return now_of(store) + _LATER

    vars(retain)["now_of"] = later


def _operation_of(by: str) -> int | None:
    name = by.partition("@")[0]
    return int(name.removeprefix(_NAME)) if name.startswith(_NAME) else None
