"""A checksum of the values of rows, whatever order, chunks, pages and encodings they are stored in.

It is recorded when rows are copied to another file, and computed again from the copy to prove it. So it is taken of
values alone: the lengths and bytes of texts, the bits of numbers (nan equals nan), and which values are null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def digest(table: pa.Table, identity: Sequence[str]) -> str:
    """Return the SHA-256, in hexadecimal, of the rows in the order of the columns `identity`, which are unique."""
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in identity])
    hashed = hashlib.sha256()
    for name in table.column_names:  # one after the other, so that one sorted column is held at a time
        hashed.update(b"%s %d\n" % (name.encode(), table.num_rows))
        _feed(hashed, table[name].combine_chunks().take(order))
    return hashed.hexdigest()


def _feed(hashed: hashlib._Hash, array: pa.Array) -> None:
    """Add an array that is not a slice of another, so that its buffers begin where it begins."""
    _add(hashed, array.is_valid().cast(pa.uint8()).to_numpy())
    kind = array.type
    if pa.types.is_map(kind):
        _add(hashed, np.diff(array.offsets.to_numpy()))
        _feed(hashed, array.keys)
        _feed(hashed, array.items)
    elif pa.types.is_list(kind):
        _add(hashed, pc.fill_null(pc.list_value_length(array), 0).to_numpy())
        _feed(hashed, array.flatten())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            _feed(hashed, child)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        _add(hashed, pc.fill_null(pc.binary_length(array), 0).to_numpy())
        hashed.update(_texts(pc.drop_null(array)))
    else:
        numbers = array.view(pa.int64()) if pa.types.is_timestamp(kind) else array
        numbers = numbers.cast(pa.uint8()) if pa.types.is_boolean(kind) else numbers
        _add(hashed, pc.fill_null(numbers, 0).to_numpy())


def _texts(array: pa.Array) -> memoryview:
    """Return the bytes of a column of texts without nulls, one after the other."""
    _, ends, data = array.buffers()
    if not len(array) or data is None:
        return memoryview(b"")
    limits = np.frombuffer(ends, np.int32)[array.offset :][: len(array) + 1]
    return memoryview(data)[limits[0] : limits[-1]]


def _add(hashed: hashlib._Hash, numbers: npt.NDArray[np.generic]) -> None:
    hashed.update(np.ascontiguousarray(numbers).view(np.uint8).data)
