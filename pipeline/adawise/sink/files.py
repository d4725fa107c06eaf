"""Reading a sink from outside: footers, rows, and the list of files that hold each row once. It changes nothing.

Rows are in segments, and those of past days also in compacted files, once `compact` was run. `data_keys` chooses by
names: it leaves out a segment that a compacted file covers. Segments are listed before compacted files. So a segment
that is deleted after it was listed is covered by a file that is listed, and one that is deleted before was covered
earlier still. Each row comes once, at any moment, whatever runs beside the reader.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from adawise.errors import ChainError
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.claims import beginning_name, beginnings
from adawise.sink.layout import CompactedName, SegmentName
from adawise.store.store import Store, check_regular, open_store


def segment_keys(store: Store) -> list[tuple[TopicPartition, str]]:
    """Return every segment with its partition, in the order of the chains."""
    named = [(parsed, key) for key in store.list(layout.PREDICTIONS) if (parsed := layout.parse_key(key))]
    begins = beginnings(store) if named else {}
    return [(tp, key) for (tp, name), key in sorted(named) if tp not in begins or name >= begins[tp]]


def begun_partitions(store: Store) -> set[TopicPartition]:
    """Return the partitions whose chain was begun or cut, by the names of the claims."""
    begun = {tp for key in store.list(layout.ORIGINS) if (tp := layout.parse_origin_key(key)) is not None}
    return begun | beginnings(store).keys()


def is_removed(key: str, begins: Mapping[TopicPartition, SegmentName]) -> bool:
    """Return True if the segment or the traces of this key come before the beginning of their chain."""
    named = layout.parse_key(key)
    return named is not None and named[0] in begins and named[1] < begins[named[0]]


def segment_names(store: Store, tp: TopicPartition, dataset: str = layout.PREDICTIONS) -> list[SegmentName]:
    """Return the existing segments of a partition, covered or not, in the order of the chain."""
    folder = layout.folder(dataset, tp)
    names = sorted(name for key in store.list(folder) if (name := SegmentName.parse(key.removeprefix(folder))))
    return names[bisect_left(names, beginning_name(store, tp)) :] if names else []


def newest_names(store: Store, tp: TopicPartition) -> tuple[list[SegmentName], bool]:
    """Return the last segments of a partition, in the order of the chain, and whether they are all that exist.

    For a chain of millions in an object store this takes some forty requests instead of thousands: the end is searched
    in steps that grow, and then halved. Empty only if there is no segment.
    """
    folder = layout.folder(layout.PREDICTIONS, tp)

    def page(after: SegmentName | None) -> tuple[list[SegmentName], bool]:
        keys, is_last = store.page(folder, "" if after is None else str(after))
        return [name for key in keys if (name := SegmentName.parse(key.removeprefix(folder)))], is_last

    found, is_last = page(None)
    if is_last:
        return found, True
    low, step, beyond, enough = found[-1], found[-1].first - found[0].first, None, len(found) // 2
    while True:
        step *= 2
        at = low.first + step if beyond is None else (low.first + beyond) // 2
        after = SegmentName(at) if at > low.first else low  # there is nothing left to halve
        more, is_last = page(after)
        if more and not is_last:
            found, low = more, more[-1]
        elif after == low:
            return [*found, *more], False
        elif len(more) >= enough:
            return more, False
        else:
            beyond = at


def compacted_names(store: Store, dataset: str, tp: TopicPartition) -> list[CompactedName]:
    """Return the compacted files of a partition, in the order of the chain."""
    folder = layout.compacted_folder(dataset, tp)
    names = sorted(name for key in store.list(folder) if (name := CompactedName.parse(key.removeprefix(folder))))
    begins = beginning_name(store, tp) if names else SegmentName(0)
    return [name for name in names if name.first >= begins]


def data_keys(store: Store, dataset: str = layout.PREDICTIONS) -> list[str]:
    """Return the files that together hold each committed row of a dataset once, in the order of the chains.

    A file in the list may be deleted later by `compact --delete-after`, but not before that time has passed.
    """
    segments = [(key, *named) for key in store.list(dataset) if (named := layout.parse_key(key))]
    folder = f"{layout.COMPACTED}/{dataset}"
    compacted = [(key, *parsed) for key in store.list(folder) if (parsed := layout.parse_compacted_key(key))]
    begins = beginnings(store) if segments or compacted else {}
    covers: dict[TopicPartition, list[CompactedName]] = {}
    for _, tp, name in sorted(compacted, key=lambda entry: entry[1:]):
        covers.setdefault(tp, []).append(name)
    kept = [(tp, name, key) for key, tp, name in segments if not is_covered(name, covers.get(tp, []))]
    kept += [(tp, name.first, key) for key, tp, name in compacted]
    return [key for tp, first, key in sorted(kept) if tp not in begins or first >= begins[tp]]


def is_covered(name: SegmentName, covers: Sequence[CompactedName]) -> bool:
    """Return True if one of the compacted files, which are in the order of the chain, covers this segment."""
    before = bisect_right(covers, name, key=lambda cover: cover.first)
    return before > 0 and name < covers[before - 1].until


def data_files(root: str, dataset: str = layout.PREDICTIONS, store: Store | None = None) -> list[str]:
    """Return `data_keys` of the root with this path or URL, as paths or URLs for DuckDB, Polars, pandas and others.

    Raises:
        ChainError: one of them is a pipe or a device, for which these would wait.
    """
    folder, opened = root.removeprefix("file://").rstrip("/"), store or open_store(root)
    keys = data_keys(opened, dataset)
    check_regular(opened, keys)
    return [f"{folder}/{key}" for key in keys]


def read_bytes(store: Store, key: str) -> bytes:
    """Return the bytes of a file that was listed. Raises ChainError if it is gone."""
    data = store.get(key)
    if data is None:
        raise ChainError(f"{store}: {key}: expected the segment that was listed, but it is gone; restore it")
    return data
