"""The states in a segment's footer, encoded in blocks: of 10,000 streams only some change between two segments.

The part is base64(zstd(Arrow IPC)), as `segment` describes. It is made of blocks that decoders read as one: a batch of
the IPC stream is a zstd frame of its own, followed by a skippable frame that makes the length a multiple of three, so
that the joined base64 of blocks is the base64 of them all. A block whose streams and states are the same is reused.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping

import pyarrow as pa

from adawise.sink import schemas

BLOCK = 32
"""Streams of a block, which are encoded anew if one of them changed; a block by itself costs some .3 KB."""

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # the end of an IPC stream
_SKIPPED = b"\x50\x2a\x4d\x18"  # the beginning of a zstd frame that decoders skip; its length follows
_CODEC = pa.Codec("zstd")

_Names = tuple[str, ...]
_States = tuple[bytes, ...]


class StateBlocks:
    """An encoder of states that keeps the blocks that it encoded last."""

    def __init__(self) -> None:
        self._blocks: dict[_Names, tuple[_States, bytes]] = {}

    def encode(self, states: Mapping[str, bytes]) -> bytes:
        """Return the encoded states; a function of `states` alone, whatever was encoded before."""
        streams = sorted(states)  # so that equal states are equal bytes
        blocks: dict[_Names, tuple[_States, bytes]] = {}
        for start in range(0, len(streams), BLOCK):
            names = tuple(streams[start : start + BLOCK])
            values = tuple(states[name] for name in names)
            known = self._blocks.get(names)
            # States that did not change are the same objects, so this compares none of their bytes.
            blocks[names] = known if known is not None and known[0] == values else (values, _block(names, values))
        self._blocks = blocks
        parts = (encoded for _, encoded in blocks.values())
        return b"".join((_framed(schemas.STATES.serialize().to_pybytes()), *parts, _framed(_END)))


def _block(names: _Names, values: _States) -> bytes:
    columns = [pa.array(names, pa.string()), pa.array(values, pa.large_binary())]
    return _framed(pa.RecordBatch.from_arrays(columns, schema=schemas.STATES).serialize().to_pybytes())


def _framed(data: bytes) -> bytes:
    """Return the base64 of a zstd frame, with one that fills it up to a multiple of three bytes."""
    frame: bytes = _CODEC.compress(data, asbytes=True)
    missing = -(len(frame) + len(_SKIPPED) + 4) % 3
    return base64.b64encode(frame + _SKIPPED + struct.pack("<I", missing) + bytes(missing))
