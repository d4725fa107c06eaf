"""A partition's chain, segment by segment: the one place that goes from a segment to the next.

A segment determines the name of the next one, and names the key of the one before it. A walk reads one segment after
the other, compares each with these two, and keeps none. The caller decides what a missing link means:

- Without `keys` each successor is read by its name. The walk ends at the first that does not exist: the one before was
  the head.
- With `keys`, which were listed, all of them are read, and one that is gone by then is an error of `read`.
- A segment that is not the expected one is passed to `on_break`, which raises (as `refuse` does). Without it the walk
  goes on from there, and the caller reads the finding from `Link.broken`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, Literal, Protocol, TypeVar

from adawise.errors import ChainError
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.sink import claims, layout, segment
from adawise.sink.files import read_bytes, segment_keys, segment_names
from adawise.sink.layout import SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.store.store import Store

UNKNOWN = ""
"""The key of the segment before, if any key is accepted."""


class Linked(Protocol):
    """The part of a segment that a walk has to know."""

    @property
    def name(self) -> SegmentName:
        """The segment's place in the chain."""

    @property
    def previous(self) -> str | None:
        """The key of the segment before it; None for the first of a chain."""

    @property
    def successor(self) -> SegmentName:
        """The name of the segment after it."""


Footer = TypeVar("Footer", bound=Linked)


@dataclass(frozen=True, slots=True)
class ChainPlace:
    """The place at which the next segment is expected: its name, and the key that it names as the one before it.

    The key is None before the first segment of a chain.
    """

    name: SegmentName
    previous: str | None = UNKNOWN


@dataclass(frozen=True, slots=True, eq=False)
class Link(Generic[Footer]):
    """A segment that a walk came to, and the place where it was expected."""

    key: str
    data: bytes
    footer: Footer
    place: ChainPlace

    @property
    def broken(self) -> Literal["gap", "overlap", "foreign"] | None:
        """The fault before it: segments are missing, it overlaps another, or it was written after another."""
        if self.footer.name != self.place.name:
            return "gap" if self.footer.name > self.place.name else "overlap"
        return None if self.place.previous in (UNKNOWN, self.footer.previous) else "foreign"

    @property
    def after(self) -> ChainPlace:
        """The place of the next segment; an overlap does not move it."""
        return self.place if self.broken == "overlap" else ChainPlace(self.footer.successor, self.key)


def walk(
    read: Callable[[str], tuple[bytes, Footer] | None],
    tp: TopicPartition,
    place: ChainPlace | None,
    keys: Iterable[str] | None = None,
    *,
    on_break: Callable[[Link[Footer]], object] | None = None,
) -> Iterator[Link[Footer]]:
    """Yield the segments of a chain from `place` on, each when it is read.

    Args:
        read: returns the bytes and the footer of the segment with this key; None if there is none.
        tp: the partition of the chain.
        place: what the first segment must agree with; None to accept any.
        keys: the segments that were listed, in order; None to go from successor to successor.
        on_break: called with a link that is `broken`, before it is yielded.
    """
    listed = None if keys is None else iter(keys)
    while key := next(listed, None) if listed is not None else layout.segment_key(tp, place.name) if place else None:
        if (found := read(key)) is None:
            return
        link = Link(key, *found, place or ChainPlace(found[1].name, found[1].previous))
        if link.broken and on_break is not None:
            on_break(link)
        yield link
        place = link.after


def refuse(where: str, link: Link[Any]) -> None:
    """Raise ChainError for a segment under the root `where` that is not the expected one."""
    if link.footer.name != link.place.name:
        raise ChainError(
            f"{where}: {link.key}: expected the segment {link.place.name}, but its footer names "
            f"{link.footer.name}; restore its name, or move it away"
        )
    raise ChainError(
        f"{where}: {link.key}: expected a successor of {link.place.previous}, but it is one of "
        f"{link.footer.previous}: a segment was removed or replaced; restore the folder"
    )


def read_link(data: bytes, key: str, identity: TopicIdentity | None = None) -> SegmentFooter:
    """Return the footer of a segment that was found at `key`, if it belongs there.

    Raises:
        ChainError: it is damaged, or was written under another name, or from another topic than `identity`.
    """
    footer = segment.read_footer(data, key)
    if footer.key != key:
        raise ChainError(
            f"segment {key}: expected its footer to name it, but the footer names {footer.tp}, {footer.name}; "
            "restore its name, or move it away"
        )
    if identity is not None:
        topic_id, partitions = footer.topic_id, footer.partitions
        claims.check_identity(f"segment {key}", topic_id=topic_id, partitions=partitions, identity=identity)
    return footer


def reader(store: Store, identity: TopicIdentity | None = None) -> Callable[[str], tuple[bytes, SegmentFooter]]:
    """Return the reader of listed segments for `walk`. It raises ChainError as `read_link`, or if a segment is gone."""

    def read(key: str) -> tuple[bytes, SegmentFooter]:
        data = read_bytes(store, key)
        return data, read_link(data, key, identity)

    return read


def chains(store: Store) -> dict[TopicPartition, list[str]]:
    """Return the keys of every chain's segments, in order, by one listing of the root."""
    return {tp: [key for _, key in found] for tp, found in groupby(segment_keys(store), key=lambda each: each[0])}


def footer_of(store: Store, key: str) -> SegmentFooter:
    """Read the footer of a segment that was listed. Raises ChainError if it is gone or damaged."""
    return segment.read_footer(read_bytes(store, key), key)


def newest(store: Store, tp: TopicPartition) -> SegmentFooter | None:
    """Read the footer of a partition's newest segment; None if there is none. Raises ChainError if it is damaged."""
    names = segment_names(store, tp)
    return footer_of(store, layout.segment_key(tp, names[-1])) if names else None
