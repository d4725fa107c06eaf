"""Small documents that are claimed by create-if-absent: a root's id, a topic's first identity, a chain's beginning.

A topic can get more partitions later. All messages of a partition that was added are new, so its chain begins at the
start of the log, whatever the configured origin is: "latest" would lose the messages that came before a worker saw the
partition.

The origin is claimed because it can move: two workers that resolve "latest" at two times would begin two chains whose
names differ and never collide. The first claim holds, and the other worker adopts it.

Each time retention cuts a chain, a claim records the segment with which it begins from then on; the one with the last
name counts. It distinguishes a chain that retention has cut from one that lost files. Readers go by its name, so one
that is damaged hides what comes before it; where names are listed, its contents are checked, and it is named.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Event, Lock
from uuid import uuid4

import structlog
from pydantic import ConfigDict

from adawise.errors import ChainError, FatalError, SettingsError, StoreUnavailable
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.layout import Lineage, SegmentName
from adawise.store.answers import AlreadyExists
from adawise.store.documents import Count, Document, Text, parse, unreadable
from adawise.store.store import Store

LAYOUT = 1

_READERS = 16  # claims that are read at a time, since an object store answers slowly
_AGAIN_S = 600.0  # after which a claim is read again: a command lists claims several times, a service for months

_log = structlog.get_logger("sink")
_checking = Lock()
_checked: dict[str, dict[str, float]] = {}
"""When this process found each claim of retention whole, in monotonic seconds, by root and key; inf: it was named."""

OVERWRITES = (
    "{}: expected a store that refuses to create a key that exists, but it overwrote one: two workers would destroy "
    "each other's results; set sink.root to a local folder or to a store with conditional writes"
)


@dataclass(frozen=True, slots=True)
class ChainOrigin:
    """The offset at which a partition's chain begins, and the identity of its topic."""

    offset: int
    cluster_id: str
    topic_id: str
    partitions: int


class _Sink(Document):
    layout: int
    sink: Text


class _Topic(Document):
    cluster_id: Text
    topic_id: Text
    partitions: Count


class _Origin(_Topic):
    offset: Count


def sink_id(store: Store, *, created_at: str) -> str:
    """Return the id of this root, which is made now if it has none.

    Raises:
        ChainError: the root is of another layout, or its document cannot be read or was lost.
    """
    if (found := store.get(layout.SINK)) is None:
        known_sink_id(store)
        found = claim(store, layout.SINK, {"layout": LAYOUT, "sink": uuid4().hex, "created_at": created_at})
    document = parse(_Sink, store, layout.SINK, found)
    if document.layout != LAYOUT:
        raise ChainError(
            f"{store}: {layout.SINK}: expected layout {LAYOUT}, but found {document.layout}; set another sink.root"
        )
    return document.sink


def known_sink_id(store: Store) -> str | None:
    """Return the id of this root, None if the root is new. Raises ChainError if there was an id and it was lost."""
    if (known := read_sink_id(store)) is not None:
        return known
    kept = next((key for dataset in (layout.PREDICTIONS, layout.COMPACTED) for key in store.list(dataset)), None)
    # Another worker that makes a new root may be a moment ahead, with a segment already; so the id is read again.
    if kept is not None and (known := read_sink_id(store)) is None:
        raise ChainError(
            f"{store}: expected {layout.SINK} beside {kept}: it was removed, and the segments name its id, which a "
            f"new one would not have. Restore it from a backup, or from the segments with `adawise repair {store}`"
        )
    return known


def read_sink_id(store: Store) -> str | None:
    """Return the id of this root, None if it has none. Raises ChainError if its document cannot be read."""
    data = store.get(layout.SINK)
    return None if data is None else parse(_Sink, store, layout.SINK, data).sink


def prove_create_if_absent(store: Store) -> None:
    """Check that the store refuses to create a key that exists.

    The key is that of the root's own document, with the same bytes: harmless if the store overwrites it.

    Raises:
        SettingsError: the store does not refuse.
        StoreUnavailable: the root's document cannot be read back.
    """
    data = store.get(layout.SINK)
    if data is None:
        raise StoreUnavailable(f"{store}: {layout.SINK} was created but cannot be read back; {StoreUnavailable.REMEDY}")
    try:
        store.create(layout.SINK, data)
    except AlreadyExists:
        return
    raise SettingsError(OVERWRITES.format(store))


def topic(store: Store, name: str, now: TopicIdentity) -> TopicIdentity:
    """Return the topic as it was when the first of its chains began, which is `now` if none has.

    Raises:
        ChainError: the claim cannot be read, or is of another topic.
    """
    key = layout.topic_key(name)
    document = parse(_Topic, store, key, claim(store, key, {"layout": LAYOUT, **asdict(now)}))
    first = TopicIdentity(document.cluster_id, document.topic_id, document.partitions)
    check_identity(f"{store}: {name}", topic_id=first.topic_id, partitions=first.partitions, identity=now)
    return first


def origin(store: Store, tp: TopicPartition, proposal: ChainOrigin) -> ChainOrigin:
    """Return the claimed origin of the partition's chain, which is `proposal` if none was claimed before.

    Raises:
        ChainError: the claim cannot be read.
    """
    key = layout.origin_key(tp)
    return _origin(store, key, claim(store, key, {"layout": LAYOUT, **asdict(proposal)}))


def read_origin(store: Store, tp: TopicPartition) -> ChainOrigin | None:
    """Return the claimed origin, None if there is none. Raises ChainError if the claim cannot be read."""
    key = layout.origin_key(tp)
    data = store.get(key)
    return None if data is None else _origin(store, key, data)


def check_identity(where: str, *, topic_id: str, partitions: int, identity: TopicIdentity) -> None:
    """Raise ChainError unless the recorded topic (`topic_id`, `partitions`) and the present one are the same topic.

    Kafka only adds partitions. If both ids are known, the number of partitions proves nothing; otherwise fewer
    partitions mean another topic.
    """
    if topic_id and identity.topic_id and topic_id != identity.topic_id:
        raise ChainError(
            f"{where}: expected the topic with id {topic_id}, but the broker's has id {identity.topic_id}: it was "
            f"deleted and created again, or this is another cluster; set another sink.root for the new topic"
        )
    if partitions > identity.partitions and not (topic_id and identity.topic_id):
        raise ChainError(
            f"{where}: expected a topic of {partitions} partitions or more, but it has {identity.partitions}: it was "
            f"deleted and created again, or this is another cluster; set another sink.root for the new topic"
        )


def _origin(store: Store, key: str, data: bytes) -> ChainOrigin:
    document = parse(_Origin, store, key, data)
    return ChainOrigin(document.offset, document.cluster_id, document.topic_id, document.partitions)


def claim(store: Store, key: str, document: Mapping[str, object]) -> bytes:
    """Create a document unless there is one at `key`, and return the JSON that is there then."""
    found = store.get(key)
    if found is None:
        data = json.dumps(document).encode()
        try:
            store.create(key, data)
        except AlreadyExists:
            found = store.get(key)
        else:
            return data
    if found is None:
        raise StoreUnavailable(f"{store}: {key} exists but cannot be read back; {StoreUnavailable.REMEDY}")
    return found


class Beginning(Document):
    """The claim that a chain begins with the segment after which this claim is named; what came before is removed.

    `previous` is the key of the segment before, `pending` are the offsets that it left open, `lineage` is its count of
    the segments before it (as in its footer; "" if it has none). Removed in all were `rows`, `files` and `size_bytes`,
    which were committed up to the day `until_day` (UTC).
    """

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

    def after_previous(self) -> Lineage | None:
        """Return the lineage up to and with the segment before; None if it is not known."""
        named = layout.parse_key(self.previous)
        if not self.lineage or named is None:
            return None
        return Lineage.of(self.lineage.encode()).extended(named[1])


def beginnings(store: Store) -> dict[TopicPartition, SegmentName]:
    """Return the names with which the chains begin that retention has cut; what comes before them counts as removed.

    List them after the files: what was removed in between then comes before a name that is listed. A claim that cannot
    be read counts as well, because it may have been one: it is named, once in a process, by a warning. Each is read at
    the first listing of a process, and again after ten minutes.
    """
    found = _begun(store, layout.RETAINED)
    _check(store, found)
    return found


def _check(store: Store, begun: Mapping[TopicPartition, SegmentName]) -> None:
    """Read the claims that were not read lately, and name those that are damaged."""
    with _checking:  # one thread at a time: a damaged claim is named once
        _check_due(store, begun)


def _check_due(store: Store, begun: Mapping[TopicPartition, SegmentName]) -> None:
    root, now_s, failed = str(store), time.monotonic(), Event()
    keys = {layout.retained_key(tp, name): (tp, name) for tp, name in begun.items()}
    known = {key: at_s for key, at_s in _checked.get(root, {}).items() if key in keys and now_s - at_s < _AGAIN_S}

    def read(key: str) -> Beginning | FatalError | None:
        if failed.is_set():  # each read tries again for seconds while the store does not answer
            return None
        try:
            return _beginning(store, *keys[key])
        except FatalError as error:
            return error
        except BaseException:
            failed.set()
            raise

    due = [key for key in keys if key not in known]
    with ThreadPoolExecutor(_READERS, "claims") as pool:
        found = dict(zip(due, pool.map(read, due), strict=True))
    # One that is gone since it was listed counts as not read.
    _checked[root] = known | {key: now_s for key, claimed in found.items() if isinstance(claimed, Beginning)}
    for key, claimed in found.items():
        if isinstance(claimed, FatalError):
            _warn(key, claimed)
            _checked[root] = _checked[root] | {key: math.inf}


def beginning_name(store: Store, tp: TopicPartition) -> SegmentName:
    """Return the beginning of one partition by its name alone; the least of all names if retention never cut it."""
    return _begun(store, layout.retained_folder(tp)).get(tp, SegmentName(0))


def _begun(store: Store, under: str) -> dict[TopicPartition, SegmentName]:
    found: dict[TopicPartition, SegmentName] = {}
    for tp, name in filter(None, map(layout.parse_retained_key, store.list(under))):
        found[tp] = max(name, found.get(tp, name))
    return found


def _warn(key: str, error: FatalError) -> None:
    note = (
        "rows, files and commands leave out all of this partition that comes before it; if there is no copy to "
        "restore, move it away, and check the root with `adawise verify`"
    )
    if structlog.is_configured():
        _log.warning("claim_damaged", file=key, error=str(error), note=note)
    else:  # in a program that only imports this one, structlog would write to the standard output
        warnings.warn(f"{error}: {note}", stacklevel=2)


def read_beginning(store: Store, tp: TopicPartition) -> tuple[SegmentName, Beginning] | None:
    """Return the name that the chain begins with, and the claim; None if retention never cut it.

    Raises:
        ChainError: the claim cannot be read.
    """
    name = _begun(store, layout.retained_folder(tp)).get(tp)
    if name is None:
        return None
    if (found := _beginning(store, tp, name)) is not None:
        return name, found
    if beginning_name(store, tp) > name:  # retention has cut it again a moment ago
        return read_beginning(store, tp)
    key = layout.retained_key(tp, name)
    raise ChainError(f"{store}: {key}: expected the claim that was listed, but it is gone; restore it")


def _beginning(store: Store, tp: TopicPartition, name: SegmentName) -> Beginning | None:
    """Return the claim that the chain begins with this name; None if it is gone. Raises ChainError if it is damaged."""
    key = layout.retained_key(tp, name)
    data = store.get(key)
    if data is None:
        return None
    found = parse(Beginning, store, key, data)
    previous = layout.parse_key(found.previous)
    if found.layout != LAYOUT or previous is None or previous[0] != tp or previous[1] >= name:
        raise unreadable(store, key)
    try:
        found.after_previous()
    except (TypeError, ValueError) as error:
        raise unreadable(store, key) from error
    return found
