"""What is asked of all workers of a root about its pairs: numbered documents, each created once, folded in their order.

    _pairs/000000.json   begin     the pair that serves from then on; by the first worker, or by one with another pair
    _pairs/000001.json   stage     a pair is to be prepared beside it, and to shadow it
    _pairs/000002.json   switch    a pair that a document describes is to serve
    _pairs/000003.json   withdraw  what is staged is not wanted any more

Nothing is overwritten and nobody locks: of two who give an order at the same time, one is told that the other was
quicker. A document has all that is needed to load a pair, so that a worker goes on with what the chain says, whatever
its own settings name. Who asked is in the document, and when is what the store says of it.
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
from adawise.store.documents import Count, Document, Line, Plain, Text, read_document, write_document
from adawise.store.store import AlreadyExists, Store

REPORT_S = 10.0
"""Between two reports of a worker at least; a report says that its worker lives."""

Kind = Literal["begin", "stage", "switch", "withdraw"]
State = Literal["keep", "reset"]


@dataclass(frozen=True, slots=True)
class PairDocument:
    """A pair, by what it holds (`identity` and `config`, hashes) and by where it lies.

    `used_config` is what `config` is a hash of, by name. `settings` are those of `search` and the like that belong to
    it, as in a file of settings: group to names. `method` says in words how alpha is chosen with them.
    """

    identity: Mapping[str, str]
    architecture: str
    theta_0: str
    theta_1: str
    head: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    card: str | None
    settings: Mapping[str, Mapping[str, Any]]
    method: str = ""
    config: str = ""  # of the model; an earlier version does not say it
    used_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole_identity(self) -> dict[str, str]:
        """`identity` and, where it is known, the config: what a root belongs to."""
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
    """Return which pair has this identity; the id is 16 hex digits, wherever it lies, whatever version loads it."""
    parts = sorted((name, value) for name, value in identity.items() if name != "config")
    return PairKey(sha256(json.dumps(parts).encode()).hexdigest()[:16], identity.get("config", ""))


@dataclass(frozen=True, slots=True)
class PairOrder:
    """One document. `pair` is the number of the order that describes the pair; of a begin or a stage, its own.

    `keeps`: streams go on from what they learned. `shadow`: batches of each partition that a staged pair classifies
    beside the one that serves. `by` is who asked.
    """

    number: int
    kind: Kind
    pair: int
    keeps: bool
    shadow: int
    by: str


@dataclass(frozen=True, slots=True)
class Orders:
    """What all orders up to now come to.

    `serves` is the number of the pair that is to serve, `keeps` as it was asked then; `former` the one before it;
    `staged` what is to be prepared. `undone` is the pair that the newest order took back: it was staged and is not any
    more, or it served and the one before it serves again. None if the newest order took nothing back. `damaged` are the
    numbers of documents that could not be read, with why.
    """

    log: tuple[PairOrder, ...] = ()
    pairs: Mapping[int, PairDocument] = field(default_factory=dict)
    serves: int = 0
    keeps: bool = False
    former: int | None = None
    staged: PairOrder | None = None
    undone: int | None = None
    damaged: Mapping[int, str] = field(default_factory=dict)

    @property
    def next_number(self) -> int:
        """Of the next order."""
        return max((-1, *(order.number for order in self.log[-1:]), *self.damaged)) + 1

    @property
    def serving(self) -> PairDocument:
        """The pair that is to serve; there is one once there are orders."""
        return self.pairs[self.serves]

    @property
    def is_of_a_start(self) -> bool:
        """True if a worker's settings brought the pair that is to serve, and no command has switched since."""
        return next((order.kind == "begin" for order in reversed(self.log) if order.kind in {"begin", "switch"}), False)

    def number_of(self, pair: PairKey) -> int | None:
        """The newest number of a pair."""
        return max((number for number, document in self.pairs.items() if document.key.matches(pair)), default=None)

    def after(self, order: PairOrder, document: PairDocument | None) -> Orders:
        """With one more."""
        log = (*self.log, order)
        pairs = {**self.pairs, **({order.number: document} if document is not None else {})}
        if order.kind == "stage":
            return replace(self, log=log, pairs=pairs, staged=order, undone=None)
        if order.kind == "withdraw":
            return replace(self, log=log, pairs=pairs, staged=None, undone=order.pair)
        goes_back = order.kind == "switch" and order.pair == self.former and order.pair != self.undone
        undone = self.serves if goes_back else None
        former = self.serves if self.log and self.serves != order.pair else self.former
        staged = None if self.staged is not None and self.staged.pair == order.pair else self.staged
        staged = staged if order.kind == "switch" else None
        return replace(
            self,
            log=log,
            pairs=pairs,
            serves=order.pair,
            keeps=order.keeps,
            former=former,
            staged=staged,
            undone=undone,
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
        # What follows it may depend on it. What was read once counts, whatever became of its file.
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
    """Ask for something, as the next order after `orders`.

    Raises:
        OrderTaken: somebody was quicker.
        SettingsError: the pair cannot be described; nothing was asked.
        StoreUnavailable: the store does not answer.
    """
    number = orders.next_number
    document = pair if isinstance(pair, PairDocument) else None
    order = PairOrder(number, kind, pair if isinstance(pair, int) else number, keeps, shadow, by)
    data = _written(store, order, document)
    try:
        store.create(layout.pair_key(number), data)
    except AlreadyExists:
        if store.get(layout.pair_key(number)) == data:  # the same: it was given, and the answer to that was lost
            return read_orders(store, orders)  # and others may have been given since
        log = read_orders(store, orders).log
        theirs = next((each.by for each in log if each.number == number), "another worker")
        raise OrderTaken(
            f"{store}: order {number} was given by {theirs} a moment before, and yours was not given. See "
            "`adawise pair list`, and ask again if you still want it"
        ) from None
    return orders.after(order, document)


def check_described(store: Store, document: PairDocument) -> None:
    """Raise SettingsError if no worker could read an order that describes the pair."""
    _written(store, PairOrder(0, "begin", 0, keeps=False, shadow=0, by=""), document)


def _written(store: Store, order: PairOrder, document: PairDocument | None) -> bytes:
    said: dict[str, Any] = {
        "layout": claims.LAYOUT,
        "order": order.kind,
        "pair": order.pair,
        "state": "keep" if order.keeps else "reset",
    }
    said |= {"shadow": order.shadow, "by": order.by, **({} if document is None else {"document": asdict(document)})}
    try:
        return write_document(_Order, said)
    except ValueError as error:
        raise SettingsError(
            f"{store}: this pair cannot be described in {layout.PAIRS}: {error}. No other worker could load it: give "
            "its files names in UTF-8, and fewer or shorter class names and prompts"
        ) from None


class _Document(Document):
    identity: Annotated[dict[Text, Text], Field(min_length=1, max_length=64)]
    architecture: Text
    theta_0: Text
    theta_1: Text
    head: Text
    classes: Annotated[tuple[Text, ...], Field(min_length=1)]
    templates: Annotated[tuple[Text, ...], Field(min_length=1)]
    card: Text | None
    settings: dict[Text, dict[Text, Plain]]
    method: Text = ""
    config: Line = ""
    used_config: Annotated[dict[Text, Plain], Field(default_factory=dict)]


class _Order(Document):
    order: Kind
    pair: Count
    state: State
    shadow: Count
    by: Line
    document: _Document | None = None


class _Layout(Document):
    layout: int


def _read(store: Store, key: str, known: Mapping[int, PairDocument]) -> tuple[PairOrder, PairDocument | None]:
    """The order at `key`, after those that described the `known` pairs. Raises ValueError if it is damaged.

    Raises:
        ChainError: it is of a later version.
    """
    data, number = store.get(key) or b"", _number(key)
    with suppress(ValueError):
        if (layout_ := read_document(_Layout, data).layout) > claims.LAYOUT:
            raise ChainError(
                f"{store}: {key} is of a later version (layout {layout_}), expected {claims.LAYOUT}: upgrade this "
                "program"
            )
    said = read_document(_Order, data)
    document = None if said.document is None else PairDocument(**said.document.model_dump())
    if (said.pair == number) is (document is None) or (document is None and said.pair not in known):
        raise ValueError(f"pair: no document before it describes pair {said.pair}")
    if not known and said.order not in {"begin", "switch"}:
        raise ValueError("order: no order before it says which pair serves")
    return PairOrder(number, said.order, said.pair, said.state == "keep", said.shadow, said.by), document


def _is_restored(store: Store, key: str, orders: Orders) -> bool:
    """True if an order that was damaged can be read now, after those before it."""
    number = _number(key)
    try:
        _read(store, key, {other: document for other, document in orders.pairs.items() if other < number})
    except ValueError:
        return False
    return True


def _number(key: str) -> int:
    number = layout.parse_pair_key(key)
    assert number is not None  # the caller has looked
    return number
