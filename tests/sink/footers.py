"""The footers of a root, as tests look at them."""

from __future__ import annotations

from collections.abc import Iterator

from adawise.sink import segment
from adawise.sink.files import read_bytes, segment_keys
from adawise.sink.segment import SegmentFooter
from adawise.store.store import Store


def read_segment_footers(store: Store) -> Iterator[tuple[str, SegmentFooter]]:
    """Every segment's key and footer, in the order of the chains. Raises ChainError at a damaged one."""
    for _, key in segment_keys(store):
        yield key, segment.read_footer(read_bytes(store, key), key)
