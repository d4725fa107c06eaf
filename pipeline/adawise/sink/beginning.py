"""The segment with which a chain begins since retention cut it, and what a reader of the chain has to know there.

One small document for each cut, created once; the one with the last name counts. It distinguishes a chain that
retention has cut from one that lost files.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

from pydantic import ConfigDict

from adawise.errors import ChainError
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.claims import LAYOUT
from adawise.sink.files import beginning_name, beginnings
from adawise.sink.layout import SegmentName
from adawise.sink.lineage import Lineage
from adawise.store.documents import Count, Document, Text, parse, unreadable
from adawise.store.store import AlreadyExists, Store


@dataclass(frozen=True, slots=True)
class Beginning:
    """The claim that a chain begins with the segment after which this claim is named; what came before is removed.

    `previous` is the key of the segment before, `pending` are the offsets that it left open, `lineage` is its count of
    the segments before it (as in its footer; "" if it has none). Removed in all were `rows`, `files` and `size_bytes`,
    which were committed up to the day `until_day` (UTC).
    """

    previous: str
    pending: tuple[int, ...]
    lineage: str
    rows: int
    files: int
    size_bytes: int
    until_day: str
    removed_at: str

    def after_previous(self) -> Lineage | None:
        """Return the lineage up to and with the segment before; None if it is not known."""
        named = layout.parse_key(self.previous)
        if not self.lineage or named is None:
            return None
        return Lineage.of(self.lineage.encode()).extended(named[1])


class _Beginning(Document):
    model_config = ConfigDict(extra="forbid")  # files are deleted by this claim: an unknown field may matter

    layout: int
    previous: Text
    pending: tuple[Count, ...]
    lineage: Text
    rows: Count
    files: Count
    size_bytes: Count
    until_day: Text
    removed_at: Text


def read(store: Store, tp: TopicPartition) -> tuple[SegmentName, Beginning] | None:
    """Return the name that the chain begins with, and the claim; None if retention never cut it.

    Raises:
        ChainError: the claim cannot be read.
    """
    name = beginnings(store, layout.retained_folder(tp)).get(tp)
    if name is None:
        return None
    key = layout.retained_key(tp, name)
    data = store.get(key)
    if data is None:
        if beginning_name(store, tp) > name:  # retention has cut it again a moment ago
            return read(store, tp)
        raise ChainError(f"{store}: {key}: expected the claim that was listed, but it is gone; restore it")
    document = parse(_Beginning, store, key, data)
    previous = layout.parse_key(document.previous)
    if document.layout != LAYOUT or previous is None or previous[0] != tp or previous[1] >= name:
        raise unreadable(store, key)
    found = Beginning(**document.model_dump(exclude={"layout"}))
    try:
        found.after_previous()
    except (TypeError, ValueError) as error:
        raise unreadable(store, key) from error
    return name, found


def claim(store: Store, tp: TopicPartition, name: SegmentName, beginning: Beginning) -> None:
    """Claim that the chain begins with `name`. If there is such a claim already, that one holds."""
    with suppress(AlreadyExists):
        store.create(layout.retained_key(tp, name), json.dumps({"layout": LAYOUT, **asdict(beginning)}).encode())
