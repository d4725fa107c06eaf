"""An operator's orders about the pairs of a root: stage another one, switch to it, go back, and wait for the workers.

Loads no torch.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterable

from adawise.console import print_text
from adawise.errors import ChainError, SettingsError, StoreUnavailable
from adawise.output.near import did_you_mean
from adawise.pairs.orders import Orders, PairDocument, give_order, read_orders
from adawise.pairs.reports import Reported, print_damaged, read_reports
from adawise.records import PairKey
from adawise.sink import claims, layout
from adawise.sink.served_by import claim_pair, config_in_words
from adawise.store.store import Store, open_store

_POLL_S = 0.5  # seconds between two looks while waiting
_READY = {"ready", "former", "serves"}  # states in which a worker has a pair in memory


def open_orders(root: str) -> tuple[Store, Orders]:
    """Open a root, and read its orders.

    Raises:
        SettingsError: no worker of this version ever began there.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    store = open_store(root)
    orders = read_orders(store)
    if orders.log:
        return store, orders
    for number, why in orders.damaged.items():
        raise ChainError(f"{store}: {layout.pair_key(number)}: expected an order about a pair, but {why}; restore it")
    if claims.known_sink_id(store) is not None:
        raise SettingsError(
            f"{store}: no worker of this version has served it yet: start one, whose pair becomes the first"
        )
    near = did_you_mean(str(store))
    raise SettingsError(f"{store}: there is no output of a worker; name the folder of sink.root{near}")


def stage(store: Store, orders: Orders, pair: PairDocument, shadow: int, *, keeps: bool, wait_s: float) -> bool:
    """Order the workers of a root to prepare a pair. Return False if one failed to, or could not in time.

    Args:
        store: the store of the root.
        orders: its orders a moment before.
        pair: the pair.
        shadow: batches of each partition that it classifies beside the pair that serves.
        keeps: True if streams go on from what they learned.
        wait_s: seconds to wait for the workers.

    Raises:
        SettingsError: the pair serves already, its pictures are prepared otherwise, or another order was given a moment
            before.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    orders = read_orders(store, orders)
    serving = orders.serving
    if pair.key.matches(serving.key):
        raise SettingsError(
            f"{store}: the pair of these settings is already serving, as pair {orders.serves}; name another"
        )
    if pair.id == serving.id:
        theirs = config_in_words(serving.config, serving.used_config, pair.used_config)
        ours = config_in_words(pair.config, pair.used_config, serving.used_config)
        raise SettingsError(
            f"{store}: pair {orders.serves} serves with the same weights and another config ({theirs}, by its "
            f"hash; this one's is {ours}), and what streams learned depends on the weights: restart a worker with "
            "the new config and --model.on-change keep, and the others follow"
        )
    serves, wanted = serving.identity["preprocess"], pair.identity["preprocess"]
    if serves != wanted:
        raise SettingsError(
            f"it preprocesses images as {wanted}, the serving pair as {serves}, and workers hold images prepared "
            "so: restart them with the new pair and --model.on-change reset or keep"
        )
    number = orders.next_number
    orders = give_order(store, orders, "stage", pair=pair, by=_operator(), keeps=keeps, shadow=shadow)
    print_text(f"{store}: pair {number} is staged; the workers prepare it (`adawise pair list` shows their progress)")
    return wait_for(store, orders, wait_s, number, "ready")


def switch(root: str, number: int | None, keeps: bool | None, *, anyway: bool, wait_s: float) -> bool:
    """Order the workers to serve a pair. Return False if one could not in time.

    Args:
        root: the folder or URL of the root.
        number: the pair; None: the staged one.
        keeps: True if streams go on from what they learned; None: as it was staged.
        anyway: True to switch although not every worker has the pair ready.
        wait_s: seconds to wait for the workers.

    Raises:
        SettingsError: nothing is staged, there is no such pair, it serves already, or a worker does not have it ready.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    store, orders = open_orders(root)
    staged, numbers = orders.staged, ", ".join(map(str, orders.pairs))
    if number is None:
        if staged is None:
            raise SettingsError(
                f"{store}: nothing is staged: run `adawise pair stage` first, or name one of {numbers} with --pair"
            )
        number = staged.pair
    if number not in orders.pairs:
        raise SettingsError(f"{store}: there is no pair {number}; there are {numbers}")
    if number == orders.serves:
        raise SettingsError(f"{store}: pair {number} serves already")
    workers, damaged = read_reports(store)
    print_damaged(store, damaged)
    lacking = [worker for worker in workers if worker.state(number) not in _READY]
    if not anyway and (late := "; ".join(_lacks(worker, number) for worker in lacking if worker.is_here)):
        raise SettingsError(
            f"{store}: not every worker has pair {number} ready: {late}. Wait for them (`adawise pair list`), or "
            "switch with --anyway: they keep serving their pair until they have the new one"
        )
    _print_gone(lacking)
    if keeps is None:
        keeps = staged is not None and staged.pair == number and staged.keeps
    return _switch(store, orders, number, keeps, wait_s, "serves from now on")


def _lacks(worker: Reported, number: int) -> str:
    late = worker.age_s > worker.report.again_s * 1.5
    silent = f" (last report {worker.age_s:.0f} s ago: if it was killed, run this again in a moment)" if late else ""
    return f"{worker.worker} {worker.in_words(number, 'has not started on it')}{silent}"


def _print_gone(workers: Iterable[Reported]) -> None:
    for worker in workers:
        if not worker.is_here:
            print_text(f"  {worker.absence}")


def rollback(root: str, keeps: bool | None, *, wait_s: float) -> bool:
    """Order the workers back to the former pair, or withdraw the staged one. Given again, it changes nothing.

    Args:
        root: the folder or URL of the root.
        keeps: True if streams go on from what they learned; None: as at the last switch.
        wait_s: seconds to wait for the workers.

    Returns:
        False if a worker could not in time, or if it was given again after a withdrawal and there is a pair to go back
        to.

    Raises:
        SettingsError, ChainError, StoreUnavailable: as `switch`.
    """
    store, orders = open_orders(root)
    if orders.staged is not None:
        number = orders.staged.pair
        orders = give_order(store, orders, "withdraw", pair=number, by=_operator())
        print_text(f"{store}: pair {number} is withdrawn; pair {orders.serves} serves as before")
        return True
    if orders.undone is not None:
        print_text(
            f"{store}: pair {orders.undone} was already rolled back, and pair {orders.serves} serves; to serve "
            "another, name it: `adawise pair switch --pair N`"
        )
        if orders.log[-1].kind == "withdraw" and orders.former is not None:
            print_text(f"  to go back further, to pair {orders.former}: `adawise pair switch --pair {orders.former}`")
            return False
        # Claim as after a switch: the command that gave the order may have ended before it came to this.
        _claim(store, orders.serving)
        return wait_for(store, orders, wait_s, orders.serves, "serves")
    if orders.former is None:
        raise SettingsError(f"{store}: nothing to roll back: pair {orders.serves} is the first, and nothing is staged")
    return _switch(store, orders, orders.former, orders.keeps if keeps is None else keeps, wait_s, "serves again")


def _switch(store: Store, orders: Orders, number: int, keeps: bool, wait_s: float, what: str) -> bool:
    keeps = keeps or orders.pairs[number].id == orders.serving.id  # states stay valid if only the config differs
    orders = give_order(store, orders, "switch", pair=number, by=_operator(), keeps=keeps)
    # The root then knows this pair as its own, so that a start with the pair's settings is not refused.
    _claim(store, orders.serving)
    print_text(f"{store}: pair {number} {what}; streams {'keep what they learned' if keeps else 'start anew'}")
    return wait_for(store, orders, wait_s, number, "serves")


def _claim(store: Store, serving: PairDocument) -> None:
    claim_pair(store, serving.whole_identity, "keep", used_config=serving.used_config)


def _operator() -> str:
    """Return the user and the host that give an order."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def wait_for(store: Store, orders: Orders, wait_s: float, number: int, state: str) -> bool:
    """Wait until a pair is in `state` in every reporting worker. Return False if one failed or the time is over."""
    if not wait_s:
        return True
    until_s, pair, waited_for, named = time.monotonic() + wait_s, orders.pairs[number].key, set[str](), set[str]()
    while True:
        try:
            workers, damaged = read_reports(store)
        except StoreUnavailable:  # the order is given, and workers follow it meanwhile
            if time.monotonic() > until_s:
                raise
            time.sleep(_POLL_S)
            continue
        print_damaged(store, [report for report in damaged if report.key not in named])
        named |= {report.key for report in damaged}
        found = [worker for worker in workers if worker.is_here]
        waited_for |= {worker.worker for worker in found}
        all_done = bool(found) and all(_is_done(worker, number, pair, state) for worker in found)
        all_done = all_done and not any(report.is_here for report in damaged)
        failed = any(worker.state(number) == "failed" for worker in found)
        if failed or all_done or time.monotonic() > until_s:
            break
        time.sleep(_POLL_S)
    for worker in found:
        print_text(f"  {worker.worker}: {worker.in_words(number, 'has not started')}")
    # Without any worker left, those gone before the wait are the likeliest answer to "is one running?".
    _print_gone(worker for worker in workers if worker.worker in waited_for or not found)
    if not found:
        print_text(f"  no worker has reported within {wait_s:g} s; check that one of this version is running")
    return all_done


def _is_done(worker: Reported, number: int, pair: PairKey, state: str) -> bool:
    partitions = worker.report.partitions.values()
    all_switched = state != "serves" or all(served.key.matches(pair) for served in partitions)
    return worker.state(number) == state and all_switched
