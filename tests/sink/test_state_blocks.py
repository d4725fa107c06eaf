from __future__ import annotations

import base64
import random

import pyarrow as pa
import pytest

from adawise.sink import schemas, segment
from adawise.sink.segment import BLOCK, StateBlocks


def decoded(part: bytes) -> dict[str, bytes]:
    """As a reader does that knows nothing of blocks."""
    with pa.CompressedInputStream(pa.BufferReader(base64.b64decode(part, validate=True)), "zstd") as stream:
        table = pa.ipc.open_stream(stream).read_all()
    assert table.schema.equals(schemas.STATES)
    return dict(zip(table["stream_id"].to_pylist(), table["state"].to_pylist(), strict=True))


def some(count: int, seed: int = 0) -> dict[str, bytes]:
    rng = random.Random(seed)
    return {f"camera-{number:03d}": rng.randbytes(rng.randrange(200)) for number in range(count)}


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_a_reader_finds_every_state_in_the_order_of_the_streams(count: int) -> None:
    states = some(count)
    found = decoded(StateBlocks().encode(states))
    assert found == states
    assert list(found) == sorted(states)


def test_the_bytes_follow_from_the_states_alone_whatever_was_encoded_before() -> None:
    blocks, states, rng = StateBlocks(), some(4 * BLOCK), random.Random(1)
    for _ in range(30):
        match rng.randrange(4):
            case 0:
                states[f"new-{rng.randrange(1000)}"] = rng.randbytes(20)
            case 1:
                del states[rng.choice(sorted(states))]
            case 2:
                states = dict(rng.sample(sorted(states.items()), len(states)))
            case _:
                states[rng.choice(sorted(states))] = rng.randbytes(90)
        part = blocks.encode(states)
        assert part == StateBlocks().encode(states)
        assert decoded(part) == states


def test_only_the_blocks_of_streams_that_changed_are_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[tuple[str, ...]] = []
    block = segment._block

    def noted(names: tuple[str, ...], values: tuple[bytes, ...]) -> bytes:
        encoded.append(names)
        return block(names, values)

    monkeypatch.setattr(segment, "_block", noted)
    blocks, states = StateBlocks(), some(10 * BLOCK)
    blocks.encode(states)
    assert len(encoded) == 10
    encoded.clear()
    blocks.encode({**states, "camera-040": b"changed", "camera-041": b"changed"})
    assert encoded == [tuple(sorted(states)[BLOCK : 2 * BLOCK])]
