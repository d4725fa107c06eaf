"""What a worker does about what is asked of it, without a model, a broker or a wall clock."""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from adawise.errors import (
    CheckpointError,
    DeviceError,
    DeviceMemoryError,
    PairMissing,
    PairTooLarge,
    SettingsError,
    StoreFull,
    StoreUnavailable,
)
from adawise.pairs.live import LivePairs, LoadedPair, _lacks_memory
from adawise.pairs.orders import REPORT_S, Orders, PairDocument, give_order, read_orders
from adawise.pairs.reports import PairsReport, ReportOnPair, ReportOnPartition, WorkerReport
from adawise.ports import Head
from adawise.records import Switch, TopicPartition
from adawise.sink import layout
from adawise.worker.pairs import PairTurn, Serving
from tests.deadlines import DEADLINE_S
from tests.pairs.test_orders import begun, document
from tests.pairs.test_switching import NEW, OLD
from tests.sink.building import DictStore
from tests.worker.loop import TP


def as_pair(serving: Serving, of: PairDocument) -> Serving:
    return Serving(serving.adaptation, replace(serving.by, pair=of.id))


FIRST, SECOND = as_pair(OLD, document("old")), as_pair(NEW, document("new"))


class Driven:
    """The pairs of a worker whose time is moved by `turn`."""

    def __init__(
        self,
        load: Callable[[PairDocument], LoadedPair] | None = None,
        damaged: Mapping[int, str] | None = None,
        first: Serving = FIRST,
        **changes: Any,
    ) -> None:
        self.store = DictStore()
        begun(self.store)
        self.store.objects |= {layout.pair_key(number): b"" for number in damaged or ()}
        self.orders = read_orders(self.store)
        self.now_s = 0.0
        self.loads: list[str] = []
        self.reports: list[PairsReport] = []
        self.ills: list[Mapping[str, Any]] = []
        self.reported_s: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self._load = load or (lambda _: LoadedPair(SECOND))
        self.pairs = LivePairs(
            first,
            self.orders,
            keeps=False,
            read_orders=lambda known: read_orders(self.store, known),
            load=self._loaded,
            report=self._reported,
            every_s=1.0,
            keep_s=100.0,
            clock=lambda: self.now_s,
            **changes,
        )

    def _reported(self, report: PairsReport, illness: Mapping[str, Any]) -> None:
        self.reports.append(report)
        self.ills.append(illness)
        self.reported_s.append(self.now_s)

    def _loaded(self, wanted: PairDocument) -> LoadedPair:
        self.gate.wait(DEADLINE_S)
        self.loads.append(wanted.id)
        return self._load(wanted)

    def order(self, kind: Any, pair: PairDocument | int, **fields: Any) -> None:
        self.orders = give_order(self.store, self.orders, kind, pair=pair, by="ann@host", **fields)

    def until(self, done: Callable[[], bool]) -> None:
        """Turns, each two seconds later."""
        for _ in range(20_000):
            self.now_s += 2.0
            self.pairs.turn()
            if done():
                return
            for thread in threading.enumerate():
                if thread.name.startswith("pair"):
                    thread.join(0.005)
        raise AssertionError(self.pairs.progress())

    @property
    def is_shadowed(self) -> bool:
        return self.pairs._shadow is not None

    def state(self, number: int) -> str:
        return self.pairs.progress().states.get(str(number), ("none", ""))[0]


def test_what_is_staged_is_loaded_and_serves_once_it_is_switched_to() -> None:
    driven = Driven()
    assert driven.pairs.at(TP, Head(0)) == PairTurn(FIRST, keeps=False)
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "ready")
    assert driven.pairs.wanted(TP, FIRST) is None
    driven.order("switch", 1, keeps=True)
    driven.until(lambda: driven.pairs.wanted(TP, FIRST) is not None)
    turn = driven.pairs.wanted(TP, FIRST)
    assert turn == PairTurn(SECOND, keeps=True)
    driven.pairs.switched(TP, turn, Switch(40, (), SECOND.pair, keeps=True))
    assert driven.pairs.wanted(TP, SECOND) is None
    assert (driven.state(0), driven.state(1)) == ("former", "serves")
    serving_from_40 = {TP.partition: ReportOnPartition(pair=SECOND.pair, config=SECOND.key.config, first=40)}
    driven.until(lambda: bool(driven.reports) and dict(driven.reports[-1].partitions) == serving_from_40)
    driven.until(lambda: driven.state(0) == "none")  # after a while the former one leaves the memory
    assert driven.loads == [SECOND.pair]
    driven.pairs.close()


def test_a_pair_is_loaded_where_nobody_may_change_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refused)
    driven = Driven()
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "ready")
    driven.pairs.close()


def test_a_worker_with_nothing_new_to_say_says_that_it_lives_as_often_as_readers_expect_it_to() -> None:
    driven = Driven()
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "ready" and driven.reports[-1:] == [driven.pairs._pairs_report()])
    before = len(driven.reports)
    driven.until(lambda: len(driven.reports) > before + 3)
    assert driven.reports[before:] == [driven.reports[-1]] * (len(driven.reports) - before)
    spans = [after - earlier for earlier, after in pairwise(driven.reported_s[before:])]
    assert min(spans) >= REPORT_S  # and no oftener
    driven.pairs.close()


def test_a_worker_reports_the_beginning_of_an_error_of_any_text_and_serves_on() -> None:
    def fails(_: PairDocument) -> LoadedPair:
        raise DeviceError("\udcff" + "x" * 100_000)

    driven = Driven(load=fails)
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "failed")
    why = driven.pairs.progress().states["1"][1]
    assert (why[:2], len(why)) == ("?x", 1 << 16)
    driven.pairs.close()


def test_a_reason_that_repeats_a_long_error_leaves_the_report_readable() -> None:
    parts = {"pairs": {}, "partitions": {}, "loads": {}, "worker": "w", "again_s": 1.0}
    report = WorkerReport.model_validate(parts | {"reasons": ("pair 1 could not be loaded: " + "x" * 70_000,)})
    assert WorkerReport.model_validate_json(report.model_dump_json()) == report
    assert len(report.reasons[0]) == 1 << 16


def test_a_worker_that_nobody_asked_for_anything_reports_while_it_is_ill_and_takes_that_back() -> None:
    ill: dict[str, object] = {}
    left: list[float] = []
    driven: Driven = Driven(illness=lambda: ill, leave=lambda: left.append(driven.now_s))
    for _ in range(10):
        driven.until(lambda: True)
    assert driven.reports == []
    ill |= {"status": "ready", "waits_for": {"store": {"seconds": 1.0, "full": True}}}
    driven.until(lambda: len(driven.reports) == 3)
    assert driven.ills[0]["waits_for"] == {"store": {"seconds": 1.0, "full": True}}
    assert driven.reports[0].pairs == {0: ReportOnPair(state="serves")}
    assert min(after - earlier for earlier, after in pairwise(driven.reported_s)) >= REPORT_S
    ill.clear()
    driven.until(lambda: bool(left))
    driven.pairs.close()
    assert len(left) == 1


def test_a_rollback_to_what_is_in_memory_needs_no_load_and_one_to_what_left_it_loads() -> None:
    driven = Driven(lambda wanted: LoadedPair(FIRST if wanted.id == FIRST.pair else SECOND))
    driven.pairs.at(TP, Head(0))
    driven.order("stage", document("new"))
    driven.order("switch", 1)
    driven.until(lambda: driven.pairs.wanted(TP, FIRST) is not None)
    driven.pairs.switched(TP, PairTurn(SECOND, keeps=False), Switch(40, (), SECOND.pair))
    driven.order("switch", 0)
    driven.until(lambda: driven.pairs.wanted(TP, SECOND) is not None)
    assert driven.loads == [SECOND.pair]
    driven.order("switch", 1)
    driven.until(lambda: driven.pairs.wanted(TP, SECOND) is None and driven.state(0) == "none")
    driven.order("switch", 0)
    driven.until(lambda: driven.pairs.wanted(TP, SECOND) is not None)
    assert driven.loads == [SECOND.pair, FIRST.pair]
    driven.pairs.close()


@pytest.mark.parametrize(
    "error", [CheckpointError("no such file"), ValueError("of a library"), MemoryError()], ids=repr
)
def test_what_cannot_be_loaded_is_told_and_tried_again_and_serving_goes_on(error: Exception) -> None:
    answers: list[Exception | None] = [error, None]

    def load(_: PairDocument) -> LoadedPair:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return LoadedPair(SECOND)

    driven = Driven(load)
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "failed")
    assert str(error) in driven.pairs.progress().states["1"][1]
    assert driven.pairs.wanted(TP, FIRST) is None
    driven.until(lambda: driven.state(1) == "ready")
    driven.pairs.close()


def test_a_store_that_is_away_is_no_reason_to_stop_and_is_asked_again() -> None:
    driven = Driven()
    answers = iter([StoreUnavailable("away"), None])
    real = driven.pairs._read_orders

    def read_orders(known: Orders) -> Orders:
        if (error := next(answers, None)) is not None:
            raise error
        return real(known)

    driven.pairs._read_orders = read_orders
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "ready")
    driven.pairs.close()


def test_a_partition_goes_on_with_what_its_chain_says_until_what_is_asked_for_is_there() -> None:
    driven = Driven()
    head = Head(50, switches=(Switch(0, (), FIRST.pair), Switch(40, (), SECOND.pair, keeps=True)))
    driven.gate.clear()
    driven.order("stage", document("new"))
    driven.order("switch", 1)
    driven.until(lambda: driven.state(1) == "loading")
    with pytest.raises(PairMissing, match=r"expected pair 1 .* from offset 40 on .* the worker loads it"):
        driven.pairs.at(TP, head)
    assert driven.pairs.at(TP, Head(50, switches=head.switches[:1])) == PairTurn(FIRST, keeps=False)
    driven.gate.set()
    driven.until(lambda: driven.state(1) == "serves")
    assert driven.pairs.at(TP, head) == PairTurn(SECOND, keeps=True)
    driven.pairs.close()


def test_a_worker_in_reserve_keeps_the_pair_in_service_while_the_next_one_cannot_be_loaded() -> None:
    def absent(_: PairDocument) -> LoadedPair:
        raise CheckpointError("no such file: new")

    driven = Driven(absent)
    driven.order("switch", document("new"))
    driven.until(lambda: driven.now_s > 1_000.0 and len(driven.loads) > 2)
    assert driven.pairs.at(TP, Head(9, switches=(Switch(0, (), FIRST.pair, keeps=False),))).serving is FIRST
    assert driven.pairs.at(TopicPartition("frames", 7), Head(0)).serving is FIRST


@pytest.mark.parametrize("former", ["serves a partition", "serves none"])
def test_a_pair_that_lacks_memory_has_what_a_pair_takes_that_nobody_uses(former: str) -> None:
    """Two fit: the next one can be loaded once the staged one, which was withdrawn, is freed."""
    loaded = {document(name).id: as_pair(NEW, document(name)) for name in ("new", "newer")}

    def load(wanted: PairDocument) -> LoadedPair:
        if len(driven.pairs._loaded) > 1:
            raise SettingsError("1 MiB of memory are available")
        return LoadedPair(loaded[wanted.id])

    driven = Driven(load)
    if former == "serves a partition":
        driven.pairs.at(TP, Head(0))
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "ready")
    driven.order("withdraw", 1)
    driven.order("switch", document("newer"))
    driven.until(lambda: driven.state(3) == "serves")
    assert driven.pairs.at(TopicPartition("frames", 7), Head(0)).serving is loaded[document("newer").id]


def test_a_worker_in_reserve_serves_by_the_former_pair_while_others_are_freed() -> None:
    def load(wanted: PairDocument) -> LoadedPair:
        if wanted.id != SECOND.pair:
            raise CheckpointError("no such file")
        return LoadedPair(SECOND)

    driven = Driven(load)
    driven.order("stage", document("new"))
    driven.order("switch", 1)
    driven.until(lambda: driven.state(1) == "serves")
    driven.order("switch", document("newer"))
    driven.until(lambda: driven.state(3) == "failed")
    assert driven.pairs.at(TP, Head(0)).serving is SECOND, "and not the first"
    driven.pairs.lost(TP)
    driven.until(lambda: driven.state(0) == "none" and len(driven.loads) > 2)
    assert driven.pairs.at(TP, Head(0)).serving is SECOND


def test_orders_that_are_damaged_at_a_start_and_later_ones_are_logged_once() -> None:
    with capture_logs() as lines:
        driven = Driven(damaged={1: "it is empty"})
        driven.until(lambda: driven.now_s > 10)
        driven.store.objects[layout.pair_key(2)] = b"{half"
        driven.until(lambda: driven.now_s > 20)
    assert [line["order"] for line in lines if line["event"] == "pair_order_damaged"] == [1, 2]


def test_a_pair_that_a_chain_asks_for_is_loaded_again_while_another_is_to_serve() -> None:
    there: dict[str, Serving] = {}

    def load(wanted: PairDocument) -> LoadedPair:
        if wanted.id not in there:
            raise CheckpointError(f"no such file: {wanted.theta_1}")
        return LoadedPair(there[wanted.id])

    driven = Driven(load)
    older = document("older")
    driven.order("stage", older)
    driven.order("withdraw", 1)
    driven.order("switch", document("new"))
    driven.until(lambda: document("new").id in driven.loads)
    waits = Head(9, switches=(Switch(0, (), older.id, keeps=False),))
    with pytest.raises(PairMissing, match="expected pair 1"):
        driven.pairs.at(TP, waits)
    there[older.id] = as_pair(OLD, older)
    driven.until(lambda: driven.state(1) == "former")
    assert driven.pairs.at(TP, waits).serving is there[older.id]


def test_a_partition_whose_pair_nobody_describes_stands_and_the_message_says_what_to_do() -> None:
    driven = Driven()
    driven.pairs._loaded.clear()
    driven.pairs._aim()
    with pytest.raises(PairMissing, match="no document in _pairs describes it: start a worker whose settings name it"):
        driven.pairs.at(TP, Head(50, switches=(Switch(40, (), "f" * 16),)))
    driven.pairs.close()


def test_a_pair_that_a_start_brings_with_another_config_is_loaded_anew_and_serves() -> None:
    first, second = (Serving(NEW.adaptation, replace(NEW.by, pair=document("old").id, config=name)) for name in "ef")
    driven = Driven(lambda _: LoadedPair(second), first=first)
    assert driven.pairs.at(TP, Head(0)).serving is first
    driven.order("begin", replace(document("old"), config="f"), keeps=True)
    driven.until(lambda: driven.state(1) == "serves")
    assert driven.pairs.wanted(TP, first) == PairTurn(second, keeps=True)
    chain = Head(9, switches=(Switch(0, (), first.pair, keeps=False),))
    assert driven.pairs.at(TopicPartition("frames", 7), chain).serving is second
    assert (driven.state(0), driven.loads) == ("former", [first.pair])
    driven.pairs.close()


def test_a_partition_goes_on_with_the_config_that_is_here_until_the_one_that_is_ordered_is() -> None:
    first = Serving(OLD.adaptation, replace(OLD.by, pair=document("old").id, config="e"))

    def refused(_: PairDocument) -> LoadedPair:
        raise SettingsError("the staged weights but another config")

    driven = Driven(refused, first=first)
    driven.order("begin", replace(document("old"), config="f"), keeps=True)
    with capture_logs() as lines:
        driven.until(lambda: driven.state(1) == "failed")
    assert [line["pair"] for line in lines if line["event"] == "pair_failed"] == [1]
    assert driven.pairs.at(TP, Head(9, switches=(Switch(0, (), first.pair, keeps=False),))).serving is first
    assert driven.pairs.at(TopicPartition("frames", 7), Head(0)).serving is first
    driven.pairs.close()


def test_a_pair_that_is_staged_again_with_other_settings_is_loaded_with_these() -> None:
    by_price: list[object] = []

    def load(wanted: PairDocument) -> LoadedPair:
        by_price.append(wanted.settings["search"]["price"])
        return LoadedPair(as_pair(NEW, wanted))

    driven = Driven(load)
    for number, price in ((1, 0.1), (3, 0.2)):
        driven.order("stage", replace(document("new"), settings={"search": {"price": price}}))
        driven.until(lambda number=number: driven.state(number) == "ready")  # type: ignore[misc]
        driven.order("withdraw", number)
    driven.order("switch", 3)
    driven.until(lambda: driven.pairs.wanted(TP, FIRST) is not None)
    assert by_price == [0.1, 0.2]
    driven.order("switch", 1)
    target = driven.pairs.wanted(TP, FIRST)
    driven.until(lambda: driven.pairs.wanted(TP, FIRST) not in (None, target))
    assert by_price == [0.1, 0.2], "both are in memory"
    driven.pairs.close()


def test_a_device_that_failed_is_no_lack_of_memory() -> None:
    assert _lacks_memory(caused(CheckpointError("could not load theta_1"), DeviceMemoryError("no memory")))
    assert not _lacks_memory(caused(CheckpointError("could not load theta_1"), DeviceError("the card was lost")))


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    "error",
    [
        PairTooLarge("1 MiB is available"),
        DeviceMemoryError("no memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        caused(CheckpointError("could not load theta_1"), RuntimeError("[enforce fail] can't allocate memory")),
    ],
    ids=repr,
)
def test_a_staged_pair_leaves_the_memory_to_the_pair_that_is_to_serve(error: Exception) -> None:
    """Two fit: the one that serves, and either the staged one or the one that is to serve."""

    def load(wanted: PairDocument) -> LoadedPair:
        if len(driven.pairs._loaded) > 1:
            raise error
        return LoadedPair(as_pair(NEW, wanted))

    driven = Driven(load)
    driven.pairs.at(TP, Head(0))
    driven.order("stage", document("new"), shadow=20)
    driven.until(lambda: driven.state(1) == "ready")
    shadowed = [driven.is_shadowed]
    driven.order("switch", document("newer"))
    driven.until(lambda: driven.state(1) == "failed")
    shadowed.append(driven.is_shadowed)
    assert shadowed == [True, False], "it would hold what it is tried with"
    assert driven.pairs.progress().states["1"] == (
        "failed",
        "there is no memory for it beside pair 2, which should serve",
    )
    driven.until(lambda: driven.state(2) == "serves")
    assert driven.loads == [document("new").id, *[document("newer").id] * 2]
    turn = driven.pairs.wanted(TP, FIRST)
    assert turn is not None
    driven.pairs.switched(TP, turn, Switch(40, (), turn.serving.pair))
    driven.until(lambda: driven.state(1) == "ready")  # once the former one is gone
    assert driven.state(2) == "serves"
    driven.pairs.close()


def test_a_staged_pair_stays_where_the_pair_that_is_to_serve_fails_for_another_reason() -> None:
    def load(wanted: PairDocument) -> LoadedPair:
        if wanted.id == document("newer").id:
            raise CheckpointError("no such file")
        return LoadedPair(as_pair(NEW, wanted))

    driven = Driven(load)
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "ready")
    driven.order("switch", document("newer"))
    driven.until(lambda: driven.state(2) == "failed")
    ends_s = driven.now_s + 300.0
    driven.until(lambda: driven.now_s > ends_s)
    assert driven.state(1) == "ready"
    driven.pairs.close()


def test_a_worker_that_cannot_say_how_it_stands_follows_what_is_asked_for() -> None:
    driven = Driven()

    def full(*_: object) -> None:
        raise StoreFull("no space")

    driven.pairs._report = full
    driven.order("stage", document("new"))
    with capture_logs() as lines:
        driven.until(lambda: driven.state(1) == "ready")
    assert "pairs_not_read" in {line["event"] for line in lines}
    driven.pairs.close()
    assert driven.reports == []


def test_a_load_that_gets_no_thread_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    driven, real, refuses = Driven(), threading.Thread.start, True

    def start(thread: threading.Thread) -> None:
        if thread.name == "pair" and refuses:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    driven.order("stage", document("new"))
    driven.until(lambda: driven.state(1) == "failed")
    assert "can't start new thread" in driven.pairs.progress().states["1"][1]
    refuses = False
    driven.until(lambda: driven.state(1) == "ready")
    driven.pairs.close()


def test_the_pair_of_the_start_leaves_the_memory_once_it_is_freed() -> None:
    first = as_pair(OLD, document("old"))
    there = weakref.ref(first)
    driven = Driven(first=first)
    driven.pairs.at(TP, Head(0))
    del first
    driven.order("switch", document("new"))
    driven.until(lambda: driven.state(1) == "serves")
    driven.pairs.switched(TP, PairTurn(SECOND, keeps=False), Switch(40, (), SECOND.pair))
    driven.until(lambda: driven.state(0) == "none")
    gc.collect()
    assert there() is None
    driven.pairs.close()
