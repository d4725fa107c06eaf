"""The pairs of a running worker: an ordered pair is loaded beside the one that serves, and then takes its turn.

The worker's loop never waits for this: a thread reads the orders now and then, another one loads a pair at low priority
(where that is allowed), and the loop only picks up the results. An error there is logged, and serving goes on.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog
from typing_extensions import override

from adawise.errors import AdawiseError, DeviceMemoryError, PairMissing, PairTooLarge, StoreUnavailable
from adawise.pairs.orders import REPORT_S, Orders, PairDocument
from adawise.pairs.reports import PairsReport, ReportOnLoad, ReportOnPair, ReportOnPartition, ReportOnShadow
from adawise.pairs.shadow import ShadowRun
from adawise.ports import Head
from adawise.records import PairKey, Switch, TopicPartition
from adawise.worker.events import PairsProgress
from adawise.worker.pairs import Pairs, PairTurn, ServedBatch, Serving
from adawise.worker.passes import Passes

_AGAIN_S = 60.0  # until another try to load a pair that failed
_NICE = 15

_log = structlog.get_logger("pairs")


@dataclass(slots=True, eq=False)
class LoadedPair:
    """A pair in memory.

    `settings` are those of the document that it was loaded by; None for the pair of the start, which has the worker's
    own. `unused_s` is the time since which it serves nothing and is not asked for.
    """

    serving: Serving
    seconds: float = 0.0
    memory_bytes: int = 0
    settings: Mapping[str, Mapping[str, Any]] | None = None
    unused_s: float | None = None


@dataclass(slots=True)
class _Loading:
    """A pair that a thread of its own loads, by the number of its document."""

    number: int
    document: PairDocument
    thread: threading.Thread | None = None
    loaded: LoadedPair | None = None
    error: str = ""
    lacks_memory: bool = False


@dataclass(frozen=True, slots=True)
class _Failure:
    """The reason why a pair could not be loaded, and the time of the next try."""

    why: str
    again_s: float
    lacks_memory: bool = False


class LivePairs(Pairs):
    """The pairs that the orders of a root ask for.

    Args:
        first: the pair that was loaded at the start.
        orders: the orders at the start.
        keeps: whether streams go on from what they learned with another pair than `first`, by the settings.
        look: returns the orders as they are now; called in a thread.
        load: loads the pair of a document, checked and warmed up; called in a thread.
        report: publishes the report of this worker, beside its illness; called in a thread.
        leave: removes the report; called when there is nothing to report any more, and at the end.
        illness: returns what is wrong with this worker beside its pairs, as JSON has it; empty if nothing is.
        failed: the pairs that could not be loaded at the start, by number, with the reason.
        every_s: seconds between two looks.
        keep_s: seconds for which a pair stays in memory after its last partition went to another.
        shadow_share: the share of the time that a shadow may take while images wait.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        first: Serving,
        orders: Orders,
        *,
        keeps: bool,
        read_orders: Callable[[Orders], Orders],
        load: Callable[[PairDocument], LoadedPair],
        report: Callable[[PairsReport, Mapping[str, Any]], None],
        leave: Callable[[], None] = lambda: None,
        illness: Callable[[], Mapping[str, Any]] = dict,
        failed: Mapping[int, str] | None = None,
        every_s: float,
        keep_s: float,
        shadow_share: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # `Pairs.__init__` is not called: it would keep `first` in memory for ever.
        self._orders, self._keeps, self._load, self._report, self._leave = orders, keeps, load, report, leave
        self._illness = illness
        self._keep_s, self._shadow_share, self._clock = keep_s, shadow_share, clock
        self._shadow: ShadowRun | None = None
        self._shadow_of = -1  # number of the order
        self._loaded = [LoadedPair(first)]
        now_s = clock()
        self._failed = {number: _Failure(why, now_s + _AGAIN_S) for number, why in (failed or {}).items()}
        self._loading: _Loading | None = None
        self._turns: dict[TopicPartition, tuple[Serving, int]] = {}
        self._reported: tuple[PairsReport | None, float] = (None, 0.0)
        self._read_orders, self._tidy_s = read_orders, now_s
        self._passes = Passes[tuple[PairsReport, Mapping[str, Any], Orders], Orders](
            self._pass, finished=self._taken, failed=self._unanswered, every_s=every_s, first_s=every_s, name="pairs"
        )
        self._target: Serving | None = None
        self._awaited: dict[TopicPartition, int] = {}  # partitions that wait for a pair, by its number
        self._log_damaged(orders.damaged)
        self._aim()

    # -- what the loop asks

    @override
    def at(self, tp: TopicPartition, head: Head) -> PairTurn:
        """Return the ordered pair, or else the one that the chain names."""
        last = head.switches[-1] if head.switches else None
        serving = self._target or (self._last_served() if last is None else self._loaded_as(last.pair))
        if serving is None:
            assert last is not None
            raise self._missing(tp, last)
        self._awaited.pop(tp, None)
        if last is not None and last.pair == serving.pair:
            self._turns[tp] = serving, last.first
            return PairTurn(serving, last.keeps)
        self._turns[tp] = serving, head.next_offset
        return PairTurn(serving, self._keeps_with(serving))

    @override
    def wanted(self, tp: TopicPartition, serving: Serving) -> PairTurn | None:
        del tp
        target = self._target
        return None if target is None or target is serving else PairTurn(target, self._keeps_with(target))

    @override
    def switched(self, tp: TopicPartition, turn: PairTurn, switch: Switch) -> None:
        self._turns[tp] = turn.serving, switch.first

    def _keeps_with(self, serving: Serving) -> bool:
        orders = self._orders
        return orders.keeps if len(orders.log) > 1 and serving is self._target else self._keeps

    def _loaded_as(self, pair: str) -> Serving | None:
        """Return the newest pair in memory with an id, which is all that a chain records."""
        return next((loaded.serving for loaded in reversed(self._loaded) if loaded.serving.pair == pair), None)

    def _find(self, document: PairDocument) -> LoadedPair | None:
        """Return the pair of a document if it is in memory with its config and the settings that belong to it."""
        pair, settings = document.key, document.settings
        found = (loaded for loaded in reversed(self._loaded) if loaded.serving.key.matches(pair))
        return next((loaded for loaded in found if loaded.settings in (None, settings)), None)

    def _missing(self, tp: TopicPartition, last: Switch) -> PairMissing:
        number = self._orders.number_of(PairKey(last.pair))
        named = f"pair {last.pair}" if number is None else f"pair {number} ({last.pair})"
        why = "no document in _pairs describes it: start a worker whose settings name it"
        if number is not None:
            failed, self._awaited[tp] = self._failed.get(number), number
            why = "the worker loads it, and then goes on" if failed is None else failed.why
        return PairMissing(
            f"{tp}: expected {named}, which serves it from offset {last.first} on by its chain, but it is not on "
            f"this machine: {why}. This partition is blocked, others go on. Give this machine the files, or switch "
            "all to another pair with `adawise pair switch` or `rollback`."
        )

    # -- what happens

    @override
    def served(self, served: ServedBatch) -> None:
        if self._shadow is not None:
            self._shadow.offer(served)

    @override
    def lost(self, tp: TopicPartition) -> None:
        self._turns.pop(tp, None)
        self._awaited.pop(tp, None)
        if self._shadow is not None:
            self._shadow.lost(tp)

    @override
    def turn(self) -> None:
        """Take in the results of looks and loads, and begin what is due."""
        now_s = self._clock()
        self._passes.turn(self._now(), now_s)
        if self._loading is not None:
            self._take_load(self._loading, now_s)
        else:
            self._begin_load(now_s)
        if self._shadow is not None:
            self._shadow.turn()
        if now_s - self._tidy_s >= 1.0:
            self._tidy_s = now_s
            self._let_go(now_s)

    @override
    def progress(self) -> PairsProgress:
        run = self._shadow
        states = {str(number): (found.state, found.why) for number, found in self._pairs_report().pairs.items()}
        if run is None:
            return PairsProgress(states)
        return PairsProgress(states, run.images, run.agreed, run.late)

    @property
    @override
    def has_work(self) -> bool:
        return self._shadow is not None and self._shadow.has_work

    @override
    def idle(self) -> bool:
        """Prepare the heads of the pair that serves, then run a batch of the shadow."""
        if (self._target or self._last_served()).prepare():
            return True
        if self._shadow is None:
            return False
        self._shadow.run()
        return self._shadow.has_work

    @override
    def close(self) -> None:
        """Stop the looks and remove the report. A load that is under way ends with the process."""
        self._passes.close()
        if self._reported[0] is not None:
            with suppress(AdawiseError):  # the worker reports no more, and so counts as gone
                self._leave()

    def _now(self) -> Iterator[tuple[PairsReport, Mapping[str, Any], Orders]]:
        """Yield the input of a pass, which costs nothing unless one begins."""
        yield self._pairs_report(), self._illness(), self._orders

    def _taken(self, orders: Orders) -> None:
        known = {order.number for order in self._orders.log}
        for order in orders.log:
            if order.number in known:
                continue
            _log.info("pair_ordered", order=order.number, what=order.kind, pair=order.pair, by=order.by)
            self._failed.pop(order.pair, None)  # an operator who orders it again has repaired something
        known_damage = self._orders.damaged
        self._log_damaged({number: why for number, why in orders.damaged.items() if number not in known_damage})
        self._orders = orders
        self._aim()

    @staticmethod
    def _log_damaged(damaged: Mapping[int, str]) -> None:
        for number, why in damaged.items():
            _log.error(
                "pair_order_damaged",
                order=number,
                error=why,
                note="it is ignored until its file is restored; see `adawise pair list`",
            )

    def _unanswered(self, error: str) -> None:
        _log.warning("pairs_not_read", error=error, note="the worker tries again; serving goes on")

    def _aim(self) -> None:
        orders, staged = self._orders, self._orders.staged
        found = self._find(orders.serving) if orders.log else self._loaded[0]
        self._target = found.serving if found is not None else None
        loaded = self._find(orders.pairs[staged.pair]) if staged is not None else None
        if staged is None or loaded is None or not staged.shadow:
            self._shadow, self._shadow_of = None, -1
        elif self._shadow_of != staged.number:
            self._shadow_of = staged.number
            self._shadow = ShadowRun(
                loaded.serving, keeps=staged.keeps, batches=staged.shadow, share=self._shadow_share, clock=self._clock
            )

    # -- loading

    def _to_serve(self) -> list[int]:
        """Return the numbers of the pairs that are to serve now, the most urgent first."""
        return [self._orders.serves, *self._awaited.values()] if self._orders.log else []

    def _lacking_memory(self) -> int | None:
        """Return the number of a pair that is to serve and finds no memory."""
        return next(
            (number for number in self._to_serve() if number in self._failed and self._failed[number].lacks_memory),
            None,
        )

    def _wanted_pairs(self) -> list[int]:
        """Return the numbers of the pairs that are to be in memory, the most urgent first.

        A staged pair is among them only if the others fit.
        """
        staged = self._orders.staged
        is_wanted = staged is not None and self._lacking_memory() is None
        return list(dict.fromkeys([*self._to_serve(), *([staged.pair] if staged is not None and is_wanted else [])]))

    def _begin_load(self, now_s: float) -> None:
        for number in self._wanted_pairs():
            document, failed = self._orders.pairs[number], self._failed.get(number)
            if self._find(document) is not None or (failed is not None and failed.again_s > now_s):
                continue
            loading = self._loading = _Loading(number, document)
            loading.thread = threading.Thread(target=self._do_load, args=(loading,), name="pair", daemon=True)
            try:
                loading.thread.start()
            except RuntimeError as error:  # the limit of threads is reached
                loading.error = f"{type(error).__name__}: {error}"
            return

    def _do_load(self, loading: _Loading) -> None:
        began_s = time.monotonic()
        with suppress(OSError):  # a filter of system calls may refuse it, as that of the systemd unit does
            # The priority of this thread, and of those that it starts.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            loading.loaded = self._load(loading.document)
            loading.loaded.seconds = time.monotonic() - began_s
            loading.loaded.settings = loading.document.settings
        except AdawiseError as error:
            loading.error, loading.lacks_memory = str(error), _lacks_memory(error)
        except Exception as error:  # noqa: BLE001  # a library may raise anything for files that it does not know: no reason to stop serving
            loading.error = f"{type(error).__name__}: {error}"
            loading.lacks_memory = _lacks_memory(error)

    def _take_load(self, loading: _Loading, now_s: float) -> None:
        assert loading.thread is not None
        if loading.thread.is_alive():
            return
        self._loading, found = None, loading.loaded
        pair, number = loading.document.id, loading.number
        if found is None:
            self._failed[number] = _Failure(loading.error, now_s + _AGAIN_S, loading.lacks_memory)
            _log.error("pair_failed", pair=number, id=pair, error=loading.error, again_s=_AGAIN_S)
            return
        self._failed.pop(number, None)
        self._loaded.append(found)
        mib = round(found.memory_bytes / 2**20)
        method, seconds = found.serving.by.method, round(found.seconds, 1)
        _log.info("pair_loaded", pair=number, id=pair, method=method, seconds=seconds, memory_mib=mib)
        self._aim()

    def _let_go(self, now_s: float) -> None:
        """Free the pairs that serve nothing and are not asked for: after `keep_s`, or at once if a pair lacks memory.

        While the pair that is to serve is not loaded, one stays for partitions that come to this worker
        (`_last_served`). The others go: the pair may lack the memory that they take.
        """
        lacking = self._lacking_memory()
        used = [serving for serving, _ in self._turns.values()] + [self._target or self._last_served()]
        wanted = [self._find(self._orders.pairs[number]) for number in self._wanted_pairs()]
        unused = [loaded for loaded in self._loaded if loaded.serving not in used and loaded not in wanted]
        for loaded in self._loaded:
            if loaded not in unused:
                loaded.unused_s = None
            elif loaded.unused_s is None:
                loaded.unused_s = now_s
        gone = [
            loaded
            for loaded in unused
            if lacking is not None or (loaded.unused_s is not None and now_s - loaded.unused_s >= self._keep_s)
        ]
        for loaded in gone:
            self._loaded.remove(loaded)
            _log.info("pair_freed", pair=self._orders.number_of(loaded.serving.key), id=loaded.serving.pair)
        if gone:
            self._aim()  # a shadow of a freed pair ends
            if lacking is not None:
                self._failed[lacking] = replace(self._failed[lacking], again_s=now_s)

    def _last_served(self) -> Serving:
        """Return the pair that served last, of those in memory; the first of them if no order names one."""
        served = (order for order in reversed(self._orders.log) if order.kind in {"begin", "switch"})
        found = (self._find(self._orders.pairs[order.pair]) for order in served)
        return next((loaded.serving for loaded in found if loaded is not None), self._loaded[0].serving)

    # -- reports

    def _pairs_report(self) -> PairsReport:
        found = {number: self._find(document) for number, document in self._orders.pairs.items()}
        states = ((number, self._state_of(number, loaded)) for number, loaded in found.items())
        run = self._shadow
        return PairsReport(
            pairs={number: state for number, state in states if state is not None},
            partitions={
                tp.partition: ReportOnPartition(pair=serving.pair, config=serving.key.config, first=first)
                for tp, (serving, first) in self._turns.items()
            },
            loads={
                each.serving.pair: ReportOnLoad(seconds=round(each.seconds, 1), bytes=each.memory_bytes)
                for each in self._loaded
                if each.seconds
            },
            shadow=None
            if run is None
            else ReportOnShadow(done=run.done, late=run.late, seconds=round(run.seconds, 3), failed=run.failed),
        )

    def _state_of(self, number: int, loaded: LoadedPair | None) -> ReportOnPair | None:
        is_staged = self._orders.staged is not None and self._orders.staged.pair == number
        if loaded is not None:
            state = "serves" if number == self._orders.serves else "ready" if is_staged else "former"
            return ReportOnPair(state=state, method=loaded.serving.by.method)
        if self._loading is not None and self._loading.number == number:
            return ReportOnPair(state="loading")
        if number in self._failed and number in self._wanted_pairs():
            return ReportOnPair(state="failed", why=self._failed[number].why)
        if is_staged and (lacking := self._lacking_memory()) is not None:
            return ReportOnPair(
                state="failed", why=f"there is no memory for it beside pair {lacking}, which should serve"
            )
        return None

    def _pass(self, given: Sequence[tuple[PairsReport, Mapping[str, Any], Orders]], ends: Callable[[], bool]) -> Orders:
        del ends
        ((report, illness, known),) = given
        orders = self._read_orders(known)
        before, at_s = self._reported
        now_s = self._clock()
        if len(orders.log) > 1 or illness:
            if report != before or now_s - at_s >= REPORT_S:
                try:
                    self._report(report, illness)
                except StoreUnavailable as error:  # for example a full store; the orders are followed all the same
                    self._unanswered(str(error))
                else:
                    self._reported = report, now_s
        elif before is not None:  # the worker is well again, and no order asks for a report
            self._leave()
            self._reported = None, now_s
        return orders


def _lacks_memory(error: BaseException | None) -> bool:
    """Return True if this error, or one that it was raised from, is of too little memory."""
    while error is not None:
        if isinstance(error, (PairTooLarge, DeviceMemoryError, MemoryError)):
            return True
        # torch has no error of its own for the memory of a CPU
        if isinstance(error, RuntimeError) and re.search(r"allocate memory|out of memory", str(error)):
            return True
        error = error.__cause__
    return False
