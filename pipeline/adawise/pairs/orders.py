"""The orders to all workers of a root about its pairs: numbered documents, each created once, applied in their order.

    _pairs/000000.json   begin     the pair that serves from then on; by the first worker, or by one with another pair
    _pairs/000001.json   stage     a pair is to be prepared beside it, and to shadow it
    _pairs/000002.json   switch    a pair that a document describes is to serve
    _pairs/000003.json   withdraw  the staged pair is not needed any more

Nothing is overwritten, and there are no locks: if two processes give an order at the same time, one gets the error that
the other was quicker. A document has all that is needed to load a pair, so that a worker goes on with the pair that the
chain names, whatever its own settings name. The document records who asked; the store records when.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import Field

from adawise.errors import ChainError, OrderTaken, SettingsError
from adawise.records import PairKey
from adawise.sink import claims, layout
from adawise.store.answers import AlreadyExists
from adawise.store.documents import Count, Document, Line, Plain, Share, Text, read_document, write_document
from adawise.store.store import Store

REPORT_S = 10.0
"""The least seconds between two reports of a worker; a report shows that its worker is alive."""

Kind = Literal["begin", "stage", "switch", "withdraw"]
State = Literal["keep", "reset"]


@dataclass(frozen=True, slots=True)
class PairDocument:
    """A pair, by its contents (`identity` and `config`, hashes) and by the paths of its files.

    `used_config` has the values that `config` is a hash of, by name. `settings` are those of `search` and the like that
    belong to the pair, as in a file of settings: group to names. `method` explains in words how alpha is chosen with
    them. `tail_share` is what an image costs at a second alpha, as a share of a forward; None in a document of an
    earlier version.
    """

    # The annotations are read by pydantic, as those of `_Order`.
    identity: Annotated[Mapping[Text, Text], Field(min_length=1, max_length=64)]
    architecture: Text
    theta_0: Text
    theta_1: Text
    head: Text
    classes: Annotated[tuple[Text, ...], Field(min_length=1)]
    templates: Annotated[tuple[Text, ...], Field(min_length=1)]
    card: Text | None
    settings: Mapping[Text, Mapping[Text, Plain]]
    method: Text = ""
    config: Line = ""  # of the model; "" in a document of an earlier version
    used_config: Mapping[Text, Plain] = field(default_factory=dict)
    tail_share: Share | None = None

    @property
    def whole_identity(self) -> dict[str, str]:
        """`identity` and, if known, the config: what a root belongs to."""
        return {**self.identity, **({"config": self.config} if self.config else {})}

    @property
    def key(self) -> PairKey:
        """See `key_of`."""
        return key_of(self.whole_identity)

    @property
    def id(self) -> str:
        """See `key_of`."""
        return self.key.id


def key_of(identity: Mapping[str, str]) -> PairKey:
    """Return the key of the pair with this identity; its id, 16 hex digits, depends on neither paths nor versions."""
    parts = sorted((name, value) for name, value in identity.items() if name != "config")
    return PairKey(sha256(json.dumps(parts).encode()).hexdigest()[:16], identity.get("config", ""))


@dataclass(frozen=True, slots=True)
class PairOrder:
    """One order. `pair` is the number of the order that describes the pair: for a begin or a stage, its own.

    `keeps`: streams go on from what they learned. `shadow`: the number of batches of each partition that a staged pair
    classifies beside the one that serves. `by` is who asked.
    """

    number: int
    kind: Kind
    pair: int
    keeps: bool
    shadow: int
    by: str


@dataclass(frozen=True, slots=True)
class Orders:
    """The result of all orders up to now.

    Attributes:
        log: the orders.
        pairs: the pairs that they describe, by the number of the order.
        serves: the number of the pair that is to serve.
        keeps: whether streams go on from what they learned, as the order for `serves` asked.
        history: the numbers of the pairs that served before it, the last one at the end. A pair that was rolled back is
            not among them, unless it was named again.
        staged: the order of the pair that is to be prepared.
        undone: the pair that the newest order took back: it was staged and is no longer, or it served and the one
            before it serves again. None if the newest order took nothing back.
        damaged: the numbers of documents that could not be read, with the reason.
    """

    log: tuple[PairOrder, ...] = ()
    pairs: Mapping[int, PairDocument] = field(default_factory=dict)
    serves: int = 0
    keeps: bool = False
    history: tuple[int, ...] = ()
    staged: PairOrder | None = None
    undone: int | None = None
    damaged: Mapping[int, str] = field(default_factory=dict)

    @property
    def next_number(self) -> int:
        """The number of the next order."""
        return max((-1, *(order.number for order in self.log[-1:]), *self.damaged)) + 1

    @property
    def former(self) -> int | None:
        """The number of the pair to which a rollback goes back; None if there is none."""
        return self.history[-1] if self.history else None

    @property
    def serving(self) -> PairDocument:
        """The pair that is to serve; there is one once there are orders."""
        return self.pairs[self.serves]

    @property
    def is_of_a_start(self) -> bool:
        """True if a worker's settings brought the pair that is to serve, and no command has switched since."""
        return next((order.kind == "begin" for order in reversed(self.log) if order.kind in {"begin", "switch"}), False)

    def number_of(self, pair: PairKey) -> int | None:
        """Return the newest number of a pair; None if no order describes it."""
        return max((number for number, document in self.pairs.items() if document.key.matches(pair)), default=None)

    def after(self, order: PairOrder, document: PairDocument | None) -> Orders:
        """Return the result with one order more."""
        log = (*self.log, order)
        pairs = {**self.pairs, **({order.number: document} if document is not None else {})}
        if order.kind == "stage":
            return replace(self, log=log, pairs=pairs, staged=order, undone=None)
        if order.kind == "withdraw":
            return replace(self, log=log, pairs=pairs, staged=None, undone=order.pair)
        goes_back = order.kind == "switch" and order.pair == self.former
        history = self.history[:-1] if goes_back else self.history
        if self.log and self.serves != order.pair and not goes_back:
            history = (*history, self.serves)
        staged = None if self.staged is not None and self.staged.pair == order.pair else self.staged
        staged = staged if order.kind == "switch" else None
        return replace(
            self,
            log=log,
            pairs=pairs,
            serves=order.pair,
            keeps=order.keeps,
            history=history,
            staged=staged,
            undone=self.serves if goes_back else None,
        )


def read_orders(store: Store, known: Orders | None = None) -> Orders:
    """Return all orders of a root. Costs one listing, and a read for each order that is new or was damaged.

    An order that is damaged, or that is about a pair that no order before it describes, is passed over
    (`Orders.damaged`) until its file is restored.

    Raises:
        ChainError: an order is of a later version.
        StoreUnavailable: the store does not answer.
    """
    orders, kept = known or Orders(), dict[int, tuple[PairOrder, PairDocument | None]]()
    keys = {_number(key): key for key in store.list(layout.PAIRS) if layout.parse_pair_key(key) is not None}
    if any(_is_restored(store, keys[number], orders) for number in keys.keys() & orders.damaged.keys()):
        # Later orders may depend on the restored one. An order that was read once counts, whatever became of its file.
        kept = {order.number: (order, orders.pairs.get(order.number)) for order in orders.log}
        orders = Orders()
    for number in sorted(keys.keys() | kept.keys()):
        if number < orders.next_number:
            continue
        try:
            orders = orders.after(*(kept.get(number) or _read(store, keys[number], orders.pairs)))
        except ValueError as error:
            orders = replace(orders, damaged={**orders.damaged, number: str(error)})
    return orders


def give_order(
    store: Store,
    orders: Orders,
    kind: Kind,
    *,
    pair: PairDocument | int,
    by: str,
    keeps: bool = False,
    shadow: int = 0,
) -> Orders:
    """Give an order, the next one after `orders`, and return the result.

    Raises:
        OrderTaken: another process was quicker.
        SettingsError: the pair cannot be described; no order was given.
        StoreUnavailable: the store does not answer.
    """
    number = orders.next_number
    document = pair if isinstance(pair, PairDocument) else None
    order = PairOrder(number, kind, pair if isinstance(pair, int) else number, keeps, shadow, by)
    data = _written(store, order, document)
    try:
        store.create(layout.pair_key(number), data)
    except AlreadyExists:
        if store.get(layout.pair_key(number)) == data:  # an earlier try created it, and the answer was lost
            return read_orders(store, orders)  # others may have been given since
        log = read_orders(store, orders).log
        theirs = next((each.by for each in log if each.number == number), "another worker")
        raise OrderTaken(
            f"{store}: {theirs} gave order {number} a moment before, so yours was not recorded. See `adawise pair "
            "list`, and repeat it if you still want it"
        ) from None
    return orders.after(order, document)


def check_described(store: Store, document: PairDocument) -> None:
    """Raise SettingsError if no worker could read an order that describes the pair."""
    _written(store, PairOrder(0, "begin", 0, keeps=False, shadow=0, by=""), document)


def _written(store: Store, order: PairOrder, document: PairDocument | None) -> bytes:
    parts: dict[str, Any] = {
        "layout": claims.LAYOUT,
        "order": order.kind,
        "pair": order.pair,
        "state": "keep" if order.keeps else "reset",
    }
    parts |= {"shadow": order.shadow, "by": order.by, **({} if document is None else {"document": asdict(document)})}
    try:
        return write_document(_Order, parts)
    except ValueError as error:
        raise SettingsError(
            f"{store}: this pair cannot be described in {layout.PAIRS}: {error}. No other worker could load it: give "
            "its files names in UTF-8, and fewer or shorter class names and prompts"
        ) from None


class _Order(Document):
    order: Kind
    pair: Count
    state: State
    shadow: Count
    by: Line
    document: PairDocument | None = None


class _Layout(Document):
    layout: int


def _read(store: Store, key: str, known: Mapping[int, PairDocument]) -> tuple[PairOrder, PairDocument | None]:
    """Return the order at `key`, after those that described the `known` pairs.

    Raises:
        ValueError: it is damaged.
        ChainError: it is of a later version.
    """
    try:
        data, number = store.get(key) or b"", _number(key)
    except ChainError as error:  # a pipe or a device
        raise ValueError(str(error)) from error
    with suppress(ValueError):
        if (layout_ := read_document(_Layout, data).layout) > claims.LAYOUT:
            raise ChainError(
                f"{store}: {key} is of a later version (layout {layout_}), expected {claims.LAYOUT}: upgrade this "
                "program"
            )
    parts = read_document(_Order, data)
    document = parts.document
    if (parts.pair == number) is (document is None) or (document is None and parts.pair not in known):
        raise ValueError(f"pair: no earlier document describes pair {parts.pair}")
    if not known and parts.order not in {"begin", "switch"}:
        raise ValueError("order: no earlier order says which pair serves")
    return PairOrder(number, parts.order, parts.pair, parts.state == "keep", parts.shadow, parts.by), document


def _is_restored(store: Store, key: str, orders: Orders) -> bool:
    """Return True if an order that was damaged can be read now, after those before it."""
    number = _number(key)
    try:
        _read(store, key, {other: document for other, document in orders.pairs.items() if other < number})
    except ValueError:
        return False
    return True


def _number(key: str) -> int:
    number = layout.parse_pair_key(key)
    assert number is not None  # the caller has checked it
    return number
