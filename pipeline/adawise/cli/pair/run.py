"""The work of `adawise pair switch`, `rollback` and `list`: orders about pairs, and reports of the workers on them.

Loads no torch.
"""

from __future__ import annotations

import getpass
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from adawise.console import print_json, say
from adawise.errors import ChainError, SettingsError, StoreUnavailable
from adawise.output.compaction.delete import now_of
from adawise.output.near import did_you_mean
from adawise.pairs.orders import REPORT_S, Orders, PairDocument, give_order, read_orders
from adawise.pairs.shadow_sums import ShadowSums, sum_shadow
from adawise.records import PairKey
from adawise.settings import Settings
from adawise.sink import claims, layout
from adawise.sink.served_by import claim_pair
from adawise.store.documents import Count, Document, Line, Text, read_document
from adawise.store.store import Store, open_store
from adawise.text import as_duration, as_size

FOUND = 3
_WORST = 5  # cameras that are listed, those with the lowest agreement
_MISSED = 3  # missing reports after which a worker counts as gone; one that ends in order removes its report
_FORGOTTEN_S = 86_400.0  # seconds after which the report of a worker that was killed is ignored
_POLL_S = 0.5  # seconds between two looks while waiting


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker's last report: when and how long ago it came by the store's clock, and when the next one is due."""

    worker: str
    heard: datetime  # when the report was written
    age_s: float
    again_s: float  # seconds within which the next report is due
    pairs: Mapping[int, tuple[str, str]]  # number: state, why
    partitions: Mapping[int, tuple[PairKey, int]]  # pair, and the offset from which on it serves
    loads: Mapping[str, tuple[float, int]]  # pair's id: seconds to load, bytes
    shadow: Mapping[str, Any] | None  # batches done and late, seconds, why it was given up
    methods: Mapping[int, str]  # number: how alpha is chosen, "" where it is not loaded

    @property
    def is_here(self) -> bool:
        """False for a worker that was killed or hangs: several of its reports are missing."""
        return self.age_s < _MISSED * self.again_s

    @property
    def absence(self) -> str:
        """A sentence that says since when a worker that is gone has not reported."""
        return (
            f"{self.worker} is gone: it was killed or is stuck; its last report was at "
            f"{self.heard.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}, {as_duration(self.age_s)} ago, and the others do "
            "not wait for it"
        )


def opened(settings: Settings, root: str | None) -> tuple[Store, Orders]:
    """Open a root, and read its orders.

    Raises:
        SettingsError: no worker of this version ever began there.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    store = open_store(root or settings.sink.root)
    orders = read_orders(store)
    if not orders.log and orders.damaged:
        number, why = next(iter(orders.damaged.items()))
        raise ChainError(f"{store}: {layout.pair_key(number)}: expected an order about a pair, but {why}; restore it")
    if not orders.log:
        was = claims.known_sink_id(store) is not None
        raise SettingsError(
            f"{store}: "
            + (
                "no worker of this version has served it yet: start one, whose pair becomes the first"
                if was
                else f"there is no output of a worker; name the folder of sink.root{did_you_mean(str(store))}"
            )
        )
    return store, orders


def asking() -> str:
    """Return the user and the host that give an order."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def switch(
    settings: Settings, *, root: str | None, number: int | None, keeps: bool | None, anyway: bool, wait_s: float
) -> int:
    """Order the workers to serve a pair. Return 3 if a worker could not in time, else 0.

    Raises:
        SettingsError: nothing is staged, there is no such pair, it serves already, or a worker does not have it ready.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    store, orders = opened(settings, root)
    if number is None:
        if orders.staged is None:
            raise SettingsError(
                f"{store}: nothing is staged: run `adawise pair stage` first, or name one of {_numbers(orders)} "
                "with --pair"
            )
        number = orders.staged.pair
    if number not in orders.pairs:
        raise SettingsError(f"{store}: there is no pair {number}; there are {_numbers(orders)}")
    if number == orders.serves:
        raise SettingsError(f"{store}: pair {number} serves already")
    workers, damaged = reports(store)
    for report in damaged:
        _print_damaged(store, report)
    lack_it = [told for told in workers if told.pairs.get(number, ("",))[0] not in _HAVE_IT]
    lacking = [told for told in lack_it if told.is_here]
    if lacking and not anyway:
        said = "; ".join(_lacks(told, number) for told in lacking)
        raise SettingsError(
            f"{store}: not every worker has pair {number} ready: {said}. Wait for them (`adawise pair list`), or "
            "switch with --anyway: they keep serving their pair until they have the new one"
        )
    _tell_gone(lack_it)
    staged = orders.staged
    kept = keeps if keeps is not None else staged.keeps if staged is not None and staged.pair == number else False
    return _give_switch(store, orders, number, kept, wait_s, "serves from now on")


_HAVE_IT = ("ready", "former", "serves")


def _lacks(told: Reported, number: int) -> str:
    state, why = told.pairs.get(number, ("has not started on it", ""))
    late = told.age_s > told.again_s * 1.5
    silent = f" (last report {told.age_s:.0f} s ago: if it was killed, run this again in a moment)" if late else ""
    return f"{told.worker} {state}{': ' + why if why else ''}{silent}"


def _tell_gone(workers: Sequence[Reported]) -> None:
    for told in workers:
        if not told.is_here:
            say(f"  {told.absence}")


def rollback(settings: Settings, *, root: str | None, keeps: bool | None, wait_s: float) -> int:
    """Order the workers back to the former pair, or withdraw the staged one. Given again, it changes nothing.

    Returns:
        3 if a worker could not in time, or if it was given again after a withdrawal and there is a pair to go back to;
        else 0.

    Raises:
        SettingsError, ChainError, StoreUnavailable: as `switch`.
    """
    store, orders = opened(settings, root)
    if orders.staged is not None:
        number = orders.staged.pair
        orders = give_order(store, orders, "withdraw", pair=number, by=asking())
        say(f"{store}: pair {number} is withdrawn; pair {orders.serves} serves as before")
        return 0
    if orders.undone is not None:
        say(
            f"{store}: pair {orders.undone} was already rolled back, and pair {orders.serves} serves; to serve "
            "another, name it: `adawise pair switch --pair N`"
        )
        if orders.log[-1].kind == "withdraw" and orders.former is not None:
            say(f"  to go back further, to pair {orders.former}: `adawise pair switch --pair {orders.former}`")
            return FOUND
        # Claim as after a switch: the command that gave the order may have ended before it came to this.
        _claim(store, orders.serving)
        return wait_for(store, orders, wait_s, orders.serves, ("serves",))
    if orders.former is None:
        raise SettingsError(f"{store}: nothing to roll back: pair {orders.serves} is the first, and nothing is staged")
    kept = orders.keeps if keeps is None else keeps
    return _give_switch(store, orders, orders.former, kept, wait_s, "serves again")


def _give_switch(store: Store, orders: Orders, number: int, keeps: bool, wait_s: float, what: str) -> int:
    keeps = keeps or orders.pairs[number].id == orders.serving.id  # states stay valid if only the config differs
    orders = give_order(store, orders, "switch", pair=number, by=asking(), keeps=keeps)
    # The root then knows this pair as its own, so that a start with the pair's settings is not refused.
    _claim(store, orders.serving)
    say(f"{store}: pair {number} {what}; streams {'keep what they learned' if keeps else 'start anew'}")
    return wait_for(store, orders, wait_s, number, ("serves",))


def _claim(store: Store, serving: PairDocument) -> None:
    claim_pair(store, serving.whole_identity, "keep", used_config=serving.used_config)


def wait_for(store: Store, orders: Orders, wait_s: float, number: int, states: Sequence[str]) -> int:
    """Wait until every reporting worker has a pair in one of `states`. Return 3 if one failed or the time is over."""
    if not wait_s:
        return 0
    until_s, pair, waited_for, named = time.monotonic() + wait_s, orders.pairs[number].key, set[str](), set[str]()
    while True:
        try:
            workers, damaged = reports(store)
        except StoreUnavailable:  # the order is given, and workers follow it meanwhile
            if time.monotonic() > until_s:
                raise
            time.sleep(_POLL_S)
            continue
        for report in damaged:
            if report.key not in named:
                named.add(report.key)
                _print_damaged(store, report)
        found = [told for told in workers if told.is_here]
        waited_for |= {told.worker for told in found}
        done = [told for told in found if _is_done(told, number, pair, states)]
        failed = [told for told in found if told.pairs.get(number, ("",))[0] == "failed"]
        unknown = [report for report in damaged if report.is_here]
        all_done = bool(found) and len(done) == len(found) and not unknown
        if failed or all_done or time.monotonic() > until_s:
            break
        time.sleep(_POLL_S)
    for told in found:
        state, why = told.pairs.get(number, ("has not started", ""))
        say(f"  {told.worker}: {state}{': ' + why if why else ''}")
    # Without any worker left, those gone before the wait are the likeliest answer to "is one running?".
    _tell_gone([told for told in workers if told.worker in waited_for or not found])
    if not found:
        say(f"  no worker has reported within {wait_s:g} s; check that one of this version is running")
    return 0 if all_done else FOUND


def _is_done(told: Reported, number: int, pair: PairKey, states: Sequence[str]) -> bool:
    state = told.pairs.get(number, ("",))[0]
    all_switched = "serves" not in states or all(served.matches(pair) for served, _ in told.partitions.values())
    return state in states and all_switched


@dataclass(frozen=True, slots=True)
class DamagedReport:
    """A report that cannot be read: its key, the reason, and its age by the store's clock."""

    key: str
    why: str
    age_s: float

    @property
    def is_here(self) -> bool:
        """True while the worker that wrote it may live: it replaces its report within this time."""
        return self.age_s < _MISSED * REPORT_S


def _print_damaged(store: Store, report: DamagedReport) -> None:
    said = f"{store}: {report.key}: expected a worker's report on its pairs, but {report.why}; it is ignored"
    say(said, sys.stderr)


def reports(store: Store) -> tuple[list[Reported], list[DamagedReport]]:
    """Return the reports of the workers of a root on their pairs, by name, and the reports that are damaged.

    Reports that are older than a day are left out.
    """
    keys = [key for key in store.list(layout.WORKERS) if key.endswith(".json")]
    found, damaged = list[Reported](), list[DamagedReport]()
    if not keys:
        return found, damaged
    now = now_of(store)
    for key in keys:
        at, data = store.modified(key), store.get(key)
        if at is None or data is None:
            continue  # the worker ended meanwhile
        if (now - at).total_seconds() > _FORGOTTEN_S:
            continue
        try:
            found.append(_reported(read_document(_Report, data), at, now))
        except ValueError as error:  # a damaged report must not hide the others
            damaged.append(DamagedReport(key, str(error), (now - at).total_seconds()))
    return sorted(found, key=lambda told: told.worker), damaged


_Number = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$")]


class _OfPair(Document):
    state: Line
    why: Text
    method: Text = ""


class _Serves(Document):
    pair: Line
    config: Line = ""  # "" in reports of earlier versions
    from_: Annotated[Count, Field(alias="from")]


class _Load(Document):
    seconds: float
    bytes: Count


class _Shadow(Document):
    done: Count
    late: Count
    seconds: float
    failed: Text


class _Report(Document):
    worker: Line
    again_s: Annotated[float, Field(ge=0.0, le=1e9)]
    pairs: dict[_Number, _OfPair]
    partitions: dict[_Number, _Serves]
    loads: dict[Line, _Load]
    shadow: _Shadow | None = None


def _reported(said: _Report, heard: datetime, now: datetime) -> Reported:
    return Reported(
        worker=said.worker,
        heard=heard,
        age_s=max(0.0, (now - heard).total_seconds()),
        again_s=said.again_s,
        pairs={int(number): (of.state, of.why) for number, of in said.pairs.items()},
        partitions={int(number): (PairKey(of.pair, of.config), of.from_) for number, of in said.partitions.items()},
        loads={pair: (of.seconds, of.bytes) for pair, of in said.loads.items()},
        shadow=None if said.shadow is None else said.shadow.model_dump(),
        methods={int(number): of.method for number, of in said.pairs.items()},
    )


def list_pairs(settings: Settings, *, root: str | None, as_json: bool) -> int:
    """Print the pairs, the workers, and the results of the shadow.

    Returns:
        3 if a worker failed to load a pair that is asked for, else 0.

    Raises:
        SettingsError: no worker ever wrote there.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    store, orders = opened(settings, root)
    workers, damaged = reports(store)
    for report in damaged:
        _print_damaged(store, report)
    watched = _watched(orders)
    sums = ShadowSums() if watched is None else sum_shadow(store, orders.pairs[watched].id)
    for why in sums.damaged:
        say(f"{why}; it is left out of the shadow's sums", sys.stderr)
    given = {order.number: store.modified(layout.pair_key(order.number)) for order in orders.log}
    if as_json:
        print_json(
            {
                "root": str(store),
                "serves": orders.serves,
                "staged": None if orders.staged is None else orders.staged.pair,
                "pairs": {number: _plain(document) for number, document in orders.pairs.items()},
                "orders": [
                    {"number": o.number, "order": o.kind, "pair": o.pair, "by": o.by, "at": given[o.number]}
                    for o in orders.log
                ],
                "damaged": [
                    {"order": number, "file": layout.pair_key(number), "why": why}
                    for number, why in orders.damaged.items()
                ],
                "shadow": None if watched is None else {"pair": watched, **_summed(sums)},
                "workers": [
                    {
                        "worker": told.worker,
                        "here": told.is_here,
                        "heard": told.heard,
                        "heard_s": round(told.age_s, 1),
                        "pairs": {
                            number: {"state": state, "why": why, "method": told.methods[number]}
                            for number, (state, why) in told.pairs.items()
                        },
                        "shadow": told.shadow,
                        "partitions": {
                            number: {"pair": orders.number_of(pair), "id": pair.id, "from": first}
                            for number, (pair, first) in told.partitions.items()
                        },
                    }
                    for told in workers
                ],
            }
        )
    else:
        lines = [*_shown(orders, workers, given), *_shadow_lines(watched, sums), *_damaged(store, orders)]
        say("\n".join(lines))
    asked = {orders.serves, *([orders.staged.pair] if orders.staged is not None else [])}
    failed = any(told.is_here and told.pairs.get(number, ("",))[0] == "failed" for told in workers for number in asked)
    return FOUND if failed else 0


def _damaged(store: Store, orders: Orders) -> Iterator[str]:
    for number, why in orders.damaged.items():
        yield f"{store}: {layout.pair_key(number)} is damaged and ignored: {why}"


def _plain(document: PairDocument) -> dict[str, Any]:
    return {
        "id": document.id,
        "theta_0": document.theta_0,
        "theta_1": document.theta_1,
        "classes": list(document.classes),
        "card": document.card,
        "method": document.method,
        "identity": dict(document.identity),
    }


def _shown(orders: Orders, workers: Sequence[Reported], given: Mapping[int, datetime | None]) -> Iterator[str]:
    for number, document in orders.pairs.items():
        role = _role(orders, number)
        yield f"pair {number}  {document.id}  {role}".rstrip()
        yield f"    theta_0 {document.theta_0}"
        yield f"    theta_1 {document.theta_1}"
        card = f"card {document.card}" if document.card else "no card"
        yield f"    {len(document.classes)} classes ({_some(document.classes)}), {card}"
        if document.method:
            yield f"    {document.method}"
    yield ""
    for order in orders.log:
        at = given[order.number]
        when = "at an unknown time" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        yield f"order {order.number}  {when}  {order.kind} pair {order.pair}, by {order.by}"
    yield ""
    if not workers:
        yield "no worker has reported yet: each does within pairs.look_s of the first order after its start"
    for told in workers:
        yield f"worker {told.worker if told.is_here else told.absence}"
        for number, (state, why) in sorted(told.pairs.items()):
            known, method = orders.pairs.get(number), told.methods[number]
            seconds, size = (0.0, 0) if known is None else told.loads.get(known.id, (0.0, 0))
            loaded = f" (loaded in {seconds:.1f} s, {as_size(size)})" if seconds else ""
            # A worker's own settings may choose alpha otherwise than those with which the pair was staged.
            otherwise = f", {method}" if known is not None and method not in ("", known.method) else ""
            yield f"    pair {number}: {state}{otherwise}{loaded}{': ' + why if why else ''}"
        if told.shadow is not None:
            failed = f"; given up: {told.shadow['failed']}" if told.shadow["failed"] else ""
            yield (
                f"    shadow: {told.shadow['done']} batches in {told.shadow['seconds']:.1f} s, {told.shadow['late']} "
                f"too late for their segment{failed}"
            )
        for partition, (pair, first) in sorted(told.partitions.items()):
            of = orders.number_of(pair)
            yield f"    partition {partition}: pair {pair.id if of is None else of} from offset {first}"


def _watched(orders: Orders) -> int | None:
    """Return the pair whose shadow is of interest: the staged one, or the one that was staged last with a shadow."""
    if orders.staged is not None:
        return orders.staged.pair if orders.staged.shadow else None
    staged = [order for order in orders.log if order.kind == "stage" and order.shadow]
    return staged[-1].pair if staged else None


def _summed(sums: ShadowSums) -> dict[str, Any]:
    staged, served = sums.forward_equivalents
    return {
        "batches": sums.batches,
        "images": sums.images,
        "agreement": sums.agreement,
        "objective_difference": sums.difference,
        "forward_equivalents": staged,
        "served_forward_equivalents": served,
        "worst": [{"stream_id": name, "agreement": share, "images": seen} for name, share, seen in sums.worst(_WORST)],
    }


def _shadow_lines(watched: int | None, sums: ShadowSums) -> Iterator[str]:
    if watched is None:
        return
    yield ""
    if not sums.batches:
        yield f"shadow of pair {watched}: no results yet; the next segments write them"
        return
    staged, served = sums.forward_equivalents
    yield (
        f"shadow of pair {watched}: {sums.batches} batches, {sums.images} images, {sums.agreement:.1%} with the "
        f"served label; objective {sums.difference:+.4f} nats; {staged:.2f} forwards per image, serving pair "
        f"{served:.2f}"
    )
    for name, share, seen in sums.worst(_WORST):
        yield f"    {name}: {share:.1%} of {seen} images"


def _role(orders: Orders, number: int) -> str:
    if number == orders.serves:
        return "serves"
    if orders.staged is not None and orders.staged.pair == number:
        return "staged"
    if number == orders.undone:
        return f"rolled back: `adawise pair switch --pair {number}` serves it again"
    return "former: `adawise pair rollback` serves it again" if number == orders.former else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _numbers(orders: Orders) -> str:
    return ", ".join(map(str, orders.pairs))
