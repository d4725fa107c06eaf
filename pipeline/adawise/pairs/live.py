"""The pairs of a running worker: what is asked for is loaded beside the one that serves, and then takes its turn.

The loop is never waited for, and never waits: orders are read by a thread now and then, a pair is loaded by another at
low priority (where that is allowed), and the loop only picks up what has come of it. Whatever fails there is told, and
serving goes on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from typing_extensions import override

from adawise.errors import AdawiseError, PairMissing
from adawise.pairs.orders import REPORT_S, Orders, PairDocument
from adawise.pairs.shadow import ShadowRun
from adawise.passes import Passes
from adawise.ports import Head
from adawise.records import Switch, TopicPartition
from adawise.worker.events import PairsProgress
from adawise.worker.pairs import Pairs, PairTurn, ServedBatch, Serving

PairState = Literal["serves", "ready", "loading", "failed", "former"]

_AGAIN_S = 60.0  # until a pair that could not be loaded is tried again
_NICE = 15

_log = structlog.get_logger("pairs")


@dataclass(slots=True)
class LoadedPair:
    """A pair in memory. `unused_s`: since when it serves nothing and is not asked for."""

    serving: Serving
    seconds: float = 0.0
    memory_bytes: int = 0
    unused_s: float | None = None


@dataclass(slots=True)
class _Loading:
    """A pair on its way, in a thread of its own."""

    pair: str
    document: PairDocument
    thread: threading.Thread | None = None
    loaded: LoadedPair | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of its pairs: by number their state, and by partition whose turn it is since which offset.

    `methods` says by number how alpha is chosen with those that are loaded.
    """

    states: Mapping[int, tuple[PairState, str]]
    partitions: Mapping[TopicPartition, tuple[str, int]]
    loads: Mapping[str, tuple[float, int]] = field(default_factory=dict)  # pair: seconds, bytes
    shadow: tuple[int, int, float, str] | None = None  # batches done, too late for their segment, seconds, why given up
    methods: Mapping[int, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pairs": {
                str(number): {"state": state, "why": why, "method": self.methods.get(number, "")}
                for number, (state, why) in self.states.items()
            },
            "partitions": {
                str(tp.partition): {"pair": pair, "from": first} for tp, (pair, first) in self.partitions.items()
            },
            "loads": {
                pair: {"seconds": round(seconds, 1), "bytes": size} for pair, (seconds, size) in self.loads.items()
            },
            "shadow": None if self.shadow is None else dict(zip(SHADOW_SAYS, self.shadow, strict=True)),
        }


SHADOW_SAYS = ("done", "late", "seconds", "failed")


class LivePairs(Pairs):
    """What is asked of the root.

    Args:
        first: the pair that was loaded at the start.
        orders: as they were then.
        keeps: whether streams go on from what they learned with another pair than `first`, by the settings.
        look: the orders as they are now; called in a thread.
        load: a pair that a document describes, checked and warmed up; called in a thread.
        report: has what this worker says of its pairs; called in a thread.
        leave: takes that back; called once at the end, if anything was said.
        failed: of pairs that could not be loaded at the start, by id: why.
        every_s: between two looks.
        keep_s: that a pair stays in memory after its last partition went to another.
        shadow_share: of the time that a shadow may take while images wait.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        first: Serving,
        orders: Orders,
        *,
        keeps: bool,
        look: Callable[[Orders], Orders],
        load: Callable[[PairDocument], LoadedPair],
        report: Callable[[WorkerReport], None],
        leave: Callable[[], None] = lambda: None,
        failed: Mapping[str, str] | None = None,
        every_s: float,
        keep_s: float,
        shadow_share: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(first, keeps=keeps)
        self._orders, self._keeps, self._load, self._report, self._leave = orders, keeps, load, report, leave
        self._keep_s, self._shadow_share, self._clock = keep_s, shadow_share, clock
        self._shadow: ShadowRun | None = None
        self._shadow_of = -1  # the order
        self._loaded = {first.pair: LoadedPair(first)}
        self._first = first.pair
        now_s = clock()
        self._failed = {pair: (why, now_s + _AGAIN_S) for pair, why in (failed or {}).items()}
        self._loading: _Loading | None = None
        self._turns: dict[TopicPartition, tuple[str, int]] = {}
        self._reported: tuple[WorkerReport | None, float] = (None, 0.0)
        self._look, self._tidy_s = look, now_s
        self._looks = Passes[tuple[WorkerReport, Orders], Orders](
            self._pass, tell=self._taken, failed=self._unanswered, every_s=every_s, first_s=every_s, name="pairs"
        )
        self._target: Serving | None = None
        self._awaited: dict[TopicPartition, int] = {}  # partitions that wait for a pair, by its number
        self._log_damaged(orders.damaged)
        self._aim()

    # -- what the loop asks

    @override
    def at(self, tp: TopicPartition, head: Head) -> PairTurn:
        """What is asked for, else what the chain says."""
        last = head.switches[-1] if head.switches else None
        loaded = self._loaded.get(last.pair) if last is not None else None
        if self._target is not None:
            serving = self._target
        elif loaded is not None:
            serving = loaded.serving
        elif last is None:
            serving = self._loaded[self._fallback()].serving
        else:
            raise self._missing(tp, last)
        self._awaited.pop(tp, None)
        self._turns[tp] = serving.pair, head.next_offset
        if last is not None and last.pair == serving.pair:
            self._turns[tp] = last.pair, last.first
            return PairTurn(serving, last.keeps)
        return PairTurn(serving, self._keeps_with(serving))

    @override
    def wanted(self, tp: TopicPartition, serving: Serving) -> PairTurn | None:
        del tp
        target = self._target
        return None if target is None or target is serving else PairTurn(target, self._keeps_with(target))

    @override
    def switched(self, tp: TopicPartition, turn: PairTurn, switch: Switch) -> None:
        self._turns[tp] = turn.serving.pair, switch.first

    def _keeps_with(self, serving: Serving) -> bool:
        orders = self._orders
        return orders.keeps if len(orders.log) > 1 and serving.pair == self._serving_id else self._keeps

    @property
    def _serving_id(self) -> str:
        return self._orders.serving.id if self._orders.log else self._first

    def _missing(self, tp: TopicPartition, last: Switch) -> PairMissing:
        number = self._orders.number_of(last.pair)
        named = f"pair {last.pair}" if number is None else f"pair {number} ({last.pair})"
        why = self._failed.get(last.pair, ("it is being loaded, and then it goes on", 0.0))[0]
        if number is not None:
            self._awaited[tp] = number
        else:
            why = "no document in _pairs describes it: start a worker whose settings name it"
        return PairMissing(
            f"{tp}: expected {named}, which serves it from offset {last.first} on as its chain says, but it is not "
            f"here: {why}. This partition stands, others go on. Give this machine the files, or switch all to another "
            "pair with `adawise pair switch` or `rollback`."
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
        """Take in what has come of looks and loads, and begin what is due."""
        now_s = self._clock()
        self._looks.turn(self._now(), now_s)
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
        states = {str(number): state for number, state in self._said().states.items()}
        if run is None:
            return PairsProgress(states)
        return PairsProgress(states, run.images, run.agreed, run.late)

    @property
    @override
    def has_work(self) -> bool:
        return self._shadow is not None and self._shadow.has_work

    @override
    def idle(self) -> bool:
        """The heads of whoever serves, then a batch of the shadow."""
        if self._target is not None and self._target.prepare():
            return True
        if self._shadow is None:
            return False
        self._shadow.run()
        return self._shadow.has_work

    @override
    def close(self) -> None:
        """A load that is under way ends with the process."""
        self._looks.close()
        if self._reported[0] is not None:
            with suppress(AdawiseError):  # it is not heard of any more, and so is gone
                self._leave()

    def _now(self) -> Iterator[tuple[WorkerReport, Orders]]:
        """What a pass is given; costs nothing unless one begins."""
        yield self._said(), self._orders

    def _taken(self, orders: Orders) -> None:
        known = {order.number for order in self._orders.log}
        for order in orders.log:
            if order.number in known:
                continue
            _log.info("pair_ordered", order=order.number, what=order.kind, pair=order.pair, by=order.by)
            self._failed.pop(orders.pairs[order.pair].id, None)  # whoever asks again has mended something
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
                note="it is passed over until its file is restored; see `adawise pair list`",
            )

    def _unanswered(self, error: str) -> None:
        _log.warning("pairs_not_read", error=error, note="they are looked for again; serving goes on")

    def _aim(self) -> None:
        found = self._loaded.get(self._serving_id)
        self._target = found.serving if found is not None else None
        staged = self._orders.staged
        loaded = self._loaded.get(self._orders.pairs[staged.pair].id) if staged is not None else None
        if staged is None or loaded is None or not staged.shadow:
            self._shadow, self._shadow_of = None, -1
        elif self._shadow_of != staged.number:
            self._shadow_of = staged.number
            self._shadow = ShadowRun(
                loaded.serving, keeps=staged.keeps, batches=staged.shadow, share=self._shadow_share, clock=self._clock
            )

    # -- loading

    def _asked_for(self) -> list[PairDocument]:
        """What is to be in memory, the most urgent first."""
        orders = self._orders
        if not orders.log:
            return []
        numbers = [orders.serves, *self._awaited.values(), *([] if orders.staged is None else [orders.staged.pair])]
        return [orders.pairs[number] for number in dict.fromkeys(numbers)]

    def _begin_load(self, now_s: float) -> None:
        for document in self._asked_for():
            pair = document.id
            if pair in self._loaded or self._failed.get(pair, ("", 0.0))[1] > now_s:
                continue
            loading = self._loading = _Loading(pair, document)
            loading.thread = threading.Thread(target=self._do_load, args=(loading,), name="pair", daemon=True)
            loading.thread.start()
            return

    def _do_load(self, loading: _Loading) -> None:
        began_s = time.monotonic()
        with suppress(OSError):  # a filter of system calls may refuse it, as that of the systemd unit does
            # of this thread, and those that it starts
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            loading.loaded = self._load(loading.document)
            loading.loaded.seconds = time.monotonic() - began_s
        except AdawiseError as error:
            loading.error = str(error)
        except Exception as error:  # noqa: BLE001  # of a library that was given what it does not know: no reason to stop serving
            loading.error = f"{type(error).__name__}: {error}"

    def _take_load(self, loading: _Loading, now_s: float) -> None:
        assert loading.thread is not None
        if loading.thread.is_alive():
            return
        self._loading, number = None, self._orders.number_of(loading.pair)
        if loading.loaded is None:
            self._failed[loading.pair] = loading.error, now_s + _AGAIN_S
            _log.error("pair_failed", pair=number, id=loading.pair, error=loading.error, again_s=_AGAIN_S)
            return
        found = loading.loaded
        if found.serving.pair != loading.pair:
            error = (
                f"the files are not those that were staged: by what they hold they are pair {found.serving.pair}, "
                f"expected {loading.pair}. Restore them, or stage the new ones"
            )
            self._failed[loading.pair] = error, now_s + _AGAIN_S
            _log.error("pair_failed", pair=number, id=loading.pair, error=error, again_s=_AGAIN_S)
            return
        self._loaded[loading.pair] = found
        mib = round(found.memory_bytes / 2**20)
        method, seconds = found.serving.by.method, round(found.seconds, 1)
        _log.info("pair_loaded", pair=number, id=loading.pair, method=method, seconds=seconds, memory_mib=mib)
        self._aim()

    def _let_go(self, now_s: float) -> None:
        """Free what serves nothing, and is not asked for any more, after a while.

        While the pair that is to serve is not here, one stays for partitions that come to this worker (`_fallback`).
        The others go: the memory that they take may be what the pair lacks.
        """
        used = {pair for pair, _ in self._turns.values()} | {document.id for document in self._asked_for()}
        if self._target is None:
            used.add(self._fallback())
        for pair, loaded in list(self._loaded.items()):
            if pair in used or pair == self._serving_id:
                loaded.unused_s = None
            elif loaded.unused_s is None:
                loaded.unused_s = now_s
            elif now_s - loaded.unused_s >= self._keep_s:
                del self._loaded[pair]
                _log.info("pair_freed", pair=self._orders.number_of(pair), id=pair)

    def _fallback(self) -> str:
        """The id of the pair that served last, of those in memory; of the first, if no order is about one of them."""
        served = (order for order in reversed(self._orders.log) if order.kind in {"begin", "switch"})
        ids = (self._orders.pairs[order.pair].id for order in served)
        return next((pair for pair in ids if pair in self._loaded), next(iter(self._loaded), ""))

    # -- reports

    def _said(self) -> WorkerReport:
        states: dict[int, tuple[PairState, str]] = {}
        for number, document in self._orders.pairs.items():
            state = self._state_of(number, document.id)
            if state is not None:
                states[number] = state
        loads = {pair: (found.seconds, found.memory_bytes) for pair, found in self._loaded.items() if found.seconds}
        run = self._shadow
        shadow = None if run is None else (run.done, run.late, round(run.seconds, 3), run.failed)
        loaded = {number: self._loaded.get(document.id) for number, document in self._orders.pairs.items()}
        methods = {number: found.serving.by.method for number, found in loaded.items() if found is not None}
        return WorkerReport(states, dict(self._turns), loads, shadow, methods)

    def _state_of(self, number: int, pair: str) -> tuple[PairState, str] | None:
        if pair in self._loaded:
            serves = number == self._orders.serves
            staged = self._orders.staged is not None and self._orders.staged.pair == number
            return ("serves" if serves else "ready" if staged else "former"), ""
        if self._loading is not None and self._loading.pair == pair:
            return "loading", ""
        if pair in self._failed and any(document.id == pair for document in self._asked_for()):
            return "failed", self._failed[pair][0]
        return None

    def _pass(self, given: Sequence[tuple[WorkerReport, Orders]], ends: Callable[[], bool]) -> Orders:
        del ends
        ((report, known),) = given
        orders = self._look(known)
        before, at_s = self._reported
        now_s = self._clock()
        if len(orders.log) > 1 and (report != before or now_s - at_s >= REPORT_S):
            self._report(report)
            self._reported = report, now_s
        return orders
