"""Which rows of a message are of which shard: each row of one, and no image of another shard is prepared."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from adawise.decode.arrow_batch import ARROW_STREAM
from adawise.decode.message import PIXEL_ALLOWANCE, Decoder
from adawise.decode.preprocess import Preprocess
from adawise.decode.share import CameraShare, Owners
from adawise.errors import Reason
from adawise.records import DecodedMessage, Frame, Message, TopicPartition
from tests.hostile import Headers, arrow, hostile, picture

TP = TopicPartition("frames", 0)
OWNERS = {TP: Owners({"north": 0, "east": 1, "south": 2}, (0, 1, 2), rest=1)}
SHARES = [CameraShare(shard, OWNERS) for shard in range(3)]
DECODE = Decoder(Preprocess(32), 100_000, 16, 500_000)
ARROW: Headers = (("content-type", ARROW_STREAM.encode()),)
JPEG = picture(random.Random(0))
NAMES = ("north", "east", "south", "hidden", "cam-hostile", " no camera ", "", None)


def message(value: bytes | None, key: str | None = None, headers: Headers = ()) -> Message:
    return Message(*TP, 5, None if key is None else key.encode(), value, headers, 1_700_000_000_123)


def mixed(names: Sequence[str | None], images: Sequence[bytes | None] | None = None) -> bytes:
    images = [JPEG] * len(names) if images is None else images
    return arrow({"image": pa.array(images, pa.binary()), "stream_id": pa.array(names, pa.string())})


def seen(frame: Frame) -> tuple[object, ...]:
    pixels = None if frame.image is None else frame.image.numpy().tobytes()
    return frame.row_id, frame.stream_id, frame.reason, frame.detail, frame.meta, frame.frame_id, pixels


def in_shards(sent: Message, decoder: Decoder = DECODE) -> list[DecodedMessage]:
    """What the shards that take the message decode of it; each of their streams is named as theirs."""
    streams, found = decoder.streams(sent), []
    for share in SHARES:
        decoded = replace(decoder, share=share)(sent)
        if not share.takes(sent, streams):
            assert not decoded.frames, "a shard that passes a message by leaves none of its rows out"
            continue
        assert {frame.stream_id for frame in decoded.frames} & streams <= share.ours(
            sent, streams
        ) or sent.value is None
        found.append(decoded)
    return found


def check_divided(sent: Message, decoder: Decoder = DECODE) -> list[DecodedMessage]:
    whole, parts = decoder(sent), in_shards(sent, decoder)
    frames = sorted((frame for part in parts for frame in part.frames), key=lambda frame: frame.row_id)
    assert list(map(seen, frames)) == list(map(seen, whole.frames))
    assert sum(part.dead for part in parts) == whole.dead
    return parts


@given(st.lists(st.sampled_from(NAMES), max_size=8), st.sampled_from([None, "north", "hidden", " bad "]), st.booleans())
def test_every_row_of_an_arrow_batch_has_one_shard(
    names: list[str | None], key: str | None, is_attributed: bool
) -> None:
    attributes: Headers = (("ce_subject", b"east"),) if is_attributed else ()
    check_divided(message(mixed(names), key, (*ARROW, *attributes)))


@pytest.mark.parametrize("key", [None, "north", "east", "hidden"])
@pytest.mark.parametrize("value", [JPEG, b"\xff\xd8\xff broken", b"", None, b"no image", mixed([]), mixed(["north"])])
def test_every_message_has_one_shard(value: bytes | None, key: str | None) -> None:
    assert sum(len(part.frames) for part in check_divided(message(value, key))) == 1


def test_whatever_is_hostile_has_one_shard() -> None:
    for each in hostile(seed=1, count=60):
        check_divided(Message(*TP, 5, each.key, each.value, each.headers, 0))


def test_a_message_without_a_value_is_of_the_shard_of_what_has_no_camera() -> None:
    (part,) = check_divided(message(None, "north"))
    assert part.frames[0].reason is Reason.TOMBSTONE
    streams = frozenset({"north"})
    assert [share.takes(message(None, "north"), streams) for share in SHARES] == [False, True, False]
    assert [share.ours(message(None, "north"), streams) for share in SHARES] == [streams, frozenset(), frozenset()]


@pytest.mark.parametrize("attribute", [("ce_subject", b"north"), ("ce_source", b"/sites/3/north")])
@pytest.mark.parametrize("value", [JPEG, b"\xff\xd8\xff broken"])
@pytest.mark.parametrize("declared", [(), (("content-type", b"image/jpeg"),)])
def test_a_picture_is_decoded_by_the_shard_of_its_camera_alone_wherever_the_camera_is_named(
    attribute: tuple[str, bytes], value: bytes, declared: Headers
) -> None:
    sent = message(value, headers=(attribute, *declared))
    check_divided(sent)
    assert [share.takes(sent, DECODE.streams(sent)) for share in SHARES] == [True, False, False]


def test_a_batch_that_begins_like_a_picture_is_of_the_shard_of_what_has_no_camera_too() -> None:
    sent = message(b"BM" + bytes(100), headers=(*ARROW, ("ce_subject", b"north")))
    assert SHARES[1].takes(sent, frozenset({"north"}))
    assert not SHARES[2].takes(sent, frozenset({"north"}))


def test_what_a_message_may_ask_for_is_counted_over_the_rows_of_all_shards() -> None:
    decoder = Decoder(Preprocess(32), 10**6, PIXEL_ALLOWANCE + 2, 40 * 30)
    names = ["north", "east"] * (PIXEL_ALLOWANCE // 2) + ["east", "north"]
    parts = check_divided(message(mixed(names), headers=ARROW), decoder)
    assert [[frame.reason for frame in part.frames].count(Reason.TOO_MANY_PIXELS) for part in parts] == [1, 1]


def test_an_image_of_another_shard_is_not_prepared() -> None:
    prepared: list[Image.Image] = []

    def counting(image: Image.Image) -> Tensor:
        prepared.append(image)
        return Preprocess(32)(image)

    decoder = replace(DECODE, preprocess=counting, share=SHARES[0])
    decoder(message(mixed(["north", "east", "south", "north"]), headers=ARROW))
    assert len(prepared) == 2


def test_cameras_that_only_arrow_batches_name_are_divided_between_the_readers_alike_in_every_process() -> None:
    owners = Owners({}, (2, 5, 7), rest=2)
    found = [owners.of(f"camera-{n}") for n in range(8)]
    assert found == [owners.readers[zlib.crc32(f"camera-{n}".encode()) % 3] for n in range(8)]
    assert {*found} == {2, 5, 7}
