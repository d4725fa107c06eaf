"""The pairs of a root, its workers and the results of the shadow: in words for people, and as JSON. Loads no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from adawise.console import print_json, print_text
from adawise.pairs.operate import open_orders
from adawise.pairs.orders import Orders
from adawise.pairs.reports import Reported, print_damaged, read_reports
from adawise.pairs.shadow_sums import ShadowSums, sum_shadow
from adawise.sink import layout
from adawise.text import as_size, shared_layers

_WORST = 5  # cameras that are listed, those with the lowest agreement


def show(root: str, *, as_json: bool) -> bool:
    """Print the pairs, the workers, and the results of the shadow. Return False if a worker failed to load a pair.

    Raises:
        SettingsError: no worker ever wrote there.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    store, orders = open_orders(root)
    workers, damaged = read_reports(store)
    print_damaged(store, damaged)
    watched = _watched(orders)
    sums = ShadowSums() if watched is None else sum_shadow(store, orders.pairs[watched].id)
    for why in sums.damaged:
        print_text(f"{why}; it is left out of the shadow's sums", sys.stderr)
    given = {order.number: store.modified(layout.pair_key(order.number)) for order in orders.log}
    if as_json:
        print_json({"root": str(store), **_document(orders, workers, given, watched, sums)})
    else:
        lines = [*_pairs(orders), "", *_log(orders, given), "", *_workers(orders, workers), *_shadow(watched, sums)]
        lines += [
            f"{store}: {layout.pair_key(number)} is damaged and ignored: {why}"
            for number, why in orders.damaged.items()
        ]
        print_text("\n".join(lines))
    wanted = {orders.serves, *([orders.staged.pair] if orders.staged is not None else [])}
    return not any(worker.is_here and worker.state(number) == "failed" for worker in workers for number in wanted)


def _watched(orders: Orders) -> int | None:
    """Return the pair whose shadow is of interest: the staged one, or the one that was staged last with a shadow."""
    if orders.staged is not None:
        return orders.staged.pair if orders.staged.shadow else None
    return next((order.pair for order in reversed(orders.log) if order.kind == "stage" and order.shadow), None)


def _document(
    orders: Orders,
    workers: Sequence[Reported],
    given: Mapping[int, datetime | None],
    watched: int | None,
    sums: ShadowSums,
) -> dict[str, Any]:
    staged, served = sums.forward_equivalents
    worst = [{"stream_id": name, "agreement": share, "images": images} for name, share, images in sums.streams[:_WORST]]
    shadow = {
        "pair": watched,
        "batches": sums.batches,
        "images": sums.images,
        "agreement": sums.agreement,
        "objective_difference": sums.difference,
        "forward_equivalents": staged,
        "served_forward_equivalents": served,
        "worst": worst,
    }
    described = ("id", "theta_0", "theta_1", "classes", "card", "method", "tail_share")
    return {
        "serves": orders.serves,
        "staged": None if orders.staged is None else orders.staged.pair,
        "pairs": {
            number: {**{name: getattr(pair, name) for name in described}, "identity": dict(pair.identity)}
            for number, pair in orders.pairs.items()
        },
        "orders": [
            {"number": o.number, "order": o.kind, "pair": o.pair, "by": o.by, "at": given[o.number]} for o in orders.log
        ],
        "damaged": [
            {"order": number, "file": layout.pair_key(number), "why": why} for number, why in orders.damaged.items()
        ],
        "shadow": None if watched is None else shadow,
        "workers": [
            {
                "worker": worker.worker,
                "here": worker.is_here,
                "heard": worker.written,
                "heard_s": round(worker.age_s, 1),
                "pairs": {number: pair.model_dump() for number, pair in worker.report.pairs.items()},
                "shadow": None if worker.report.shadow is None else worker.report.shadow.model_dump(),
                "partitions": {
                    number: {"pair": orders.number_of(served.key), "id": served.pair, "from": served.first}
                    for number, served in worker.report.partitions.items()
                },
            }
            for worker in workers
        ],
    }


def _pairs(orders: Orders) -> Iterator[str]:
    for number, pair in orders.pairs.items():
        yield f"pair {number}  {pair.id}  {_role(orders, number)}".rstrip()
        yield f"    theta_0 {pair.theta_0}"
        yield f"    theta_1 {pair.theta_1}"
        classes = ", ".join(pair.classes[:3]) + (", ..." if len(pair.classes) > 3 else "")
        yield f"    {len(pair.classes)} classes ({classes}), {f'card {pair.card}' if pair.card else 'no card'}"
        if pair.method:
            yield f"    {pair.method}"
        if pair.tail_share is not None:
            yield f"    {shared_layers(pair.tail_share)}"


def _role(orders: Orders, number: int) -> str:
    if number == orders.serves:
        return "serves"
    if orders.staged is not None and orders.staged.pair == number:
        return "staged"
    if number == orders.undone:
        return f"rolled back: `adawise pair switch --pair {number}` serves it again"
    if number != orders.former:
        return ""
    # A rollback takes back the newest decision alone: while a pair is staged, or was just taken back, it is another.
    is_next = orders.staged is None and orders.undone is None
    return f"former: `adawise pair {'rollback' if is_next else f'switch --pair {number}'}` serves it again"


def _log(orders: Orders, given: Mapping[int, datetime | None]) -> Iterator[str]:
    for order in orders.log:
        at = given[order.number]
        when = "at an unknown time" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        yield f"order {order.number}  {when}  {order.kind} pair {order.pair}, by {order.by}"


def _workers(orders: Orders, workers: Sequence[Reported]) -> Iterator[str]:
    if not workers:
        yield "no worker has reported yet: each does within pairs.look_s of the first order after its start"
    for worker in workers:
        report = worker.report
        yield f"worker {worker.worker if worker.is_here else worker.absence}"
        for number, found in sorted(report.pairs.items()):
            pair = orders.pairs.get(number)
            load = None if pair is None else report.loads.get(pair.id)
            loaded = f" (loaded in {load.seconds:.1f} s, {as_size(load.bytes)})" if load and load.seconds else ""
            # A worker's own settings may choose alpha otherwise than those with which the pair was staged.
            is_otherwise = pair is not None and found.method not in ("", pair.method)
            otherwise, why = f", {found.method}" if is_otherwise else "", f": {found.why}" if found.why else ""
            yield f"    pair {number}: {found.state}{otherwise}{loaded}{why}"
        if (shadow := report.shadow) is not None:
            failed = f"; given up: {shadow.failed}" if shadow.failed else ""
            yield (
                f"    shadow: {shadow.done} batches in {shadow.seconds:.1f} s, {shadow.late} too late for their "
                f"segment{failed}"
            )
        for partition, served in sorted(report.partitions.items()):
            of = orders.number_of(served.key)
            yield f"    partition {partition}: pair {served.pair if of is None else of} from offset {served.first}"


def _shadow(watched: int | None, sums: ShadowSums) -> Iterator[str]:
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
    for name, share, images in sums.streams[:_WORST]:
        yield f"    {name}: {share:.1%} of {images} images"
