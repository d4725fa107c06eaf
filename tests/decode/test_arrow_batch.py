"""Arrow batches: what producers write is read, in other writers' types too; the rest is refused before it costs."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.decode import arrow_batch, arrow_stream, headers
from adawise.decode.arrow_batch import encode_batch, read_batch
from adawise.decode.arrow_stream import MAX_METADATA_BYTES
from adawise.errors import InvalidMessage, Reason
from tests.hostile import arrow, unfolding_schema

IMAGE = pa.array([b"one", b"two"], pa.binary())


def refused(value: bytes, max_rows: int = 256) -> tuple[Reason, str]:
    with pytest.raises(InvalidMessage) as caught:
        read_batch(value, max_rows=max_rows)
    return caught.value.reason, caught.value.detail


def test_a_batch_is_read_as_it_was_written() -> None:
    value = encode_batch(
        [b"one", b"two"],
        stream_id="cam-7",
        frame_ids=["a", None],
        captured_at_us=[1_700_000_000_000_001, None],
        labels=[None, "car"],
        meta={"gain": ["1.5", None]},
    )
    first, second = read_batch(value, max_rows=2)
    assert first == arrow_batch.ImageRow(b"one", b"cam-7", "a", 1_700_000_000_000_001, None, {"gain": "1.5"})
    assert second == arrow_batch.ImageRow(b"two", b"cam-7", None, None, "car", {})
    assert pa.ipc.open_stream(value).schema.metadata == {b"schema": b"image-batch/1"}


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=50),
            st.none() | st.text(max_size=20),
            st.none() | st.integers(-(2**62), 2**62),
            st.none() | st.text(max_size=20),
        ),
        max_size=8,
    )
)
def test_any_batch_survives_the_way(rows: list[tuple[bytes, str | None, int | None, str | None]]) -> None:
    images, frame_ids, times, labels = ([row[i] for row in rows] for i in range(4))
    value = encode_batch(images, frame_ids=frame_ids, captured_at_us=times, labels=labels)  # type: ignore[arg-type]
    read = [(row.image, row.frame_id, row.captured_at_us, row.label) for row in read_batch(value, max_rows=8)]
    assert read == rows


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_every_binary_layout_is_an_image_column(kind: pa.DataType) -> None:
    assert [row.image for row in read_batch(arrow({"image": IMAGE.cast(kind)}), max_rows=2)] == [b"one", b"two"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_text_layout_is_a_text_column(kind: pa.DataType) -> None:
    texts = pa.array(["left", None]).cast(kind)
    columns = {"image": IMAGE, "stream_id": texts, "frame_id": texts, "label": texts, "meta_side": texts}
    first, second = read_batch(arrow(columns), max_rows=2)
    assert (first.stream_id, first.frame_id, first.label, first.meta) == (b"left", "left", "left", {"side": "left"})
    assert (second.stream_id, second.frame_id, second.label, second.meta) == (None, None, None, {})


@pytest.mark.parametrize(
    ("kind", "ticks", "microseconds"),
    [
        (pa.timestamp("us", "UTC"), 1_500_000, 1_500_000),
        (pa.timestamp("ns", "Europe/Berlin"), 1_999, 1),
        (pa.timestamp("ns"), -1, -1),
        (pa.timestamp("ms", "UTC"), 1_500, 1_500_000),
        (pa.timestamp("s", "UTC"), 2**62, 2**62 * 1_000_000),
    ],
)
def test_every_unit_of_time_becomes_microseconds(kind: pa.DataType, ticks: int, microseconds: int) -> None:
    times = pa.array([ticks, None], pa.int64()).cast(kind)
    rows = read_batch(arrow({"image": IMAGE, "captured_at": times}), max_rows=2)
    assert [row.captured_at_us for row in rows] == [microseconds, None]


def test_numbers_and_booleans_pass_through_as_text_and_other_columns_are_ignored() -> None:
    columns = {
        "image": IMAGE,
        "frame_id": pa.array([7, None], pa.int64()),
        "meta_gain": pa.array([1.5, None]),
        "meta_night": pa.array([True, False]),
        "meta_boxes": pa.array([[1], [2]]),
        "meta_" + "n" * headers.MAX_META_NAME: pa.array(["long", "name"]),
        "other": pa.array(["x", "y"]),
    }
    first, second = read_batch(arrow(columns), max_rows=2)
    assert (first.frame_id, first.meta) == ("7", {"gain": "1.5", "night": "True"})
    assert (second.frame_id, second.meta) == (None, {"night": "False"})


def test_rows_of_several_record_batches_come_in_order() -> None:
    out = io.BytesIO()
    batches = [pa.record_batch({"image": pa.array([text], pa.binary())}) for text in (b"a", b"b", b"c")]
    with pa.ipc.new_stream(out, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    assert [row.image for row in read_batch(out.getvalue(), max_rows=3)] == [b"a", b"b", b"c"]
    assert refused(out.getvalue(), max_rows=2)[0] == Reason.TOO_MANY_ROWS


def test_overlong_texts_are_dropped_and_an_overlong_stream_stays_too_long() -> None:
    long = "x" * (headers.MAX_TEXT_BYTES + 1)
    value = encode_batch([b"i"], stream_id=long, frame_ids=[long], labels=[long], meta={"m": [long]})
    (row,) = read_batch(value, max_rows=1)
    assert (row.frame_id, row.label, row.meta) == (None, None, {})
    assert row.stream_id is not None
    assert len(row.stream_id) == headers.MAX_STREAM_ID_BYTES + 1
    assert read_batch(encode_batch([b"i"], labels=[long[1:]]), max_rows=1)[0].label == long[1:]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_compressed_body_is_refused_before_it_is_unpacked(compression: str) -> None:
    value = arrow({"image": pa.array([bytes(50_000_000)], pa.binary())}, compression)
    assert pa.ipc.open_stream(value).read_all().nbytes > 50_000_000 > 100 * len(value), "Arrow itself would unpack it"
    reason, detail = refused(value)
    assert reason == Reason.BAD_ARROW
    assert "uncompressed" in detail


def test_a_compressed_dictionary_beside_plain_rows_is_refused() -> None:
    columns = {"image": IMAGE[:1], "stream_id": pa.array(["cam" * 1_000]).dictionary_encode()}
    plain, packed = (list(pa.ipc.MessageReader.open_stream(arrow(columns, how))) for how in (None, "zstd"))
    schema, dictionary, rows = plain[0], packed[1], plain[2]
    assert (schema.type, dictionary.type, rows.type) == ("schema", "dictionary", "record batch")
    mixed = b"".join(each.serialize().to_pybytes() for each in (schema, dictionary, rows))
    assert pa.ipc.open_stream(mixed).read_all().num_rows == 1, "Arrow itself would unpack it"
    assert "uncompressed" in refused(mixed)[1]


def test_images_that_all_show_the_same_bytes_are_refused() -> None:
    """Views make a message of 1 MB into 256 images of 1 MB: work that nobody paid for."""
    one = pa.array([bytes(100_000)], pa.binary_view())
    _, view, data = one.buffers()
    views = np.tile(np.frombuffer(view, np.uint8)[:16], 50).tobytes()
    shared = pa.Array.from_buffers(pa.binary_view(), 50, [None, pa.py_buffer(views), data])
    assert "shared" in refused(arrow({"image": shared}))[1]


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"picture": IMAGE}, "picture"),
        ({"image": pa.array(["a", "b"])}, "string"),
        ({"image": IMAGE.dictionary_encode()}, "dictionary"),
        ({"image": IMAGE, "captured_at": pa.array(["2026-05-01T12:00:00Z"] * 2)}, "captured_at"),
        ({"image": IMAGE, "stream_id": pa.array([1, 2])}, "stream_id"),
        ({"image": IMAGE, "frame_id": pa.array([1.0, 2.0])}, "frame_id"),
        ({"image": IMAGE, "label": pa.array([1, 2])}, "label"),
        ({"image": IMAGE, **{f"c{i}": IMAGE for i in range(arrow_batch.MAX_COLUMNS)}}, "257"),
    ],
)
def test_a_schema_outside_the_contract_is_named(columns: dict[str, pa.Array], names: str) -> None:
    reason, detail = refused(arrow(columns))
    assert reason == Reason.BAD_ARROW
    assert names in detail


def test_a_column_that_comes_twice_is_refused() -> None:
    out = io.BytesIO()
    twice = pa.RecordBatch.from_arrays([IMAGE, IMAGE], names=["image", "image"])
    with pa.ipc.new_stream(out, twice.schema) as writer:
        writer.write_batch(twice)
    assert refused(out.getvalue())[0] == Reason.BAD_ARROW


def test_a_stream_of_empty_batches_ends_early() -> None:
    out = io.BytesIO()
    empty = pa.record_batch({"image": pa.array([], pa.binary())})
    with pa.ipc.new_stream(out, empty.schema) as writer:
        for _ in range(arrow_stream.MAX_IPC_MESSAGES):
            writer.write_batch(empty)
    assert refused(out.getvalue())[0] == Reason.BAD_ARROW


def test_every_cut_of_a_batch_is_refused_or_shorter_but_never_wrong() -> None:
    value = encode_batch([b"one", b"two"], stream_id="cam")
    for length in range(len(value)):
        with contextlib.suppress(InvalidMessage):
            rows = read_batch(value[:length], max_rows=2)
            # only the end marker is missing, or all of the body
            assert [row.image for row in rows] in ([], [b"one", b"two"])


def test_a_schema_that_unfolds_into_more_fields_than_it_has_bytes_is_refused() -> None:
    """One byte pair a level, twice as many fields: 21 levels and a megabyte of padding took Arrow 870 MB (measured)."""
    assert len(pa.ipc.open_stream(unfolding_schema(4)).schema.types[0]) == 2, "Arrow itself would read it"
    assert "columns a" in refused(unfolding_schema(8))[1], "255 fields are no harm"
    assert "512" in refused(unfolding_schema(10))[1]
    assert str(MAX_METADATA_BYTES) in refused(unfolding_schema(10, padding=MAX_METADATA_BYTES))[1]


def test_a_schema_whose_descriptions_unfold_is_refused() -> None:
    """512 fields that share one description of 100 KB would be 50 MB; here each has its own."""
    fields = [pa.field(f"c{i}", pa.int8(), metadata={"k": "x" * 900}) for i in range(200)]
    described = pa.schema([pa.field("image", pa.binary()), *fields])
    assert read_batch(described.serialize().to_pybytes(), max_rows=1) == []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("adawise.decode.arrow_stream.MAX_TEXT_BYTES", 200 * 900)
        assert "names and descriptions" in refused(described.serialize().to_pybytes())[1]


def test_metadata_that_ends_early_or_points_anywhere_is_refused_or_read_by_arrow() -> None:
    value = bytearray(encode_batch([b"one"], stream_id="cam"))
    for at in range(8, 200):
        for number in (0, 0x7F, 0xFF):
            with contextlib.suppress(InvalidMessage):
                read_batch(bytes(value[:at] + bytes([number]) + value[at + 1 :]), max_rows=8)


def views_of_one_text(count: int, size: int) -> pa.Array:
    """`count` texts of `size` bytes each that lie in one place."""
    one = pa.array(["x" * size], pa.string_view())
    _, view, data = one.buffers()
    views = np.tile(np.frombuffer(view, np.uint8)[:16], count).tobytes()
    return pa.Array.from_buffers(pa.string_view(), count, [None, pa.py_buffer(views), data])


def test_texts_that_all_show_the_same_megabytes_are_refused_before_they_are_checked() -> None:
    """32 columns of 256 views of a text of 4 MB: 34 GB of UTF-8 to look at, for one message."""
    images = pa.array([b"i"] * 256, pa.binary())
    shared = views_of_one_text(256, 4_000_000)
    assert "shared" in refused(arrow({"image": images, "meta_a": shared}))[1]
    assert len(read_batch(arrow({"image": images, "meta_a": views_of_one_text(256, 2_000)}), max_rows=256)) == 256


def test_a_dictionary_that_every_batch_and_column_uses_is_refused_when_looking_at_it_becomes_work() -> None:
    out = io.BytesIO()
    large = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["x" * 2_000_000]))
    batch = pa.record_batch({"image": IMAGE[:1], **{f"meta_{i}": large for i in range(4)}})
    with pa.ipc.new_stream(out, batch.schema) as writer:
        for _ in range(50):
            writer.write_batch(batch)
    assert "shared" in refused(out.getvalue())[1]


def test_a_dictionary_of_views_is_no_text() -> None:
    views = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), views_of_one_text(1, 20))
    assert "label" in refused(arrow({"image": IMAGE, "label": views}))[1]
    assert read_batch(arrow({"image": IMAGE, "meta_a": views}), max_rows=2)[0].meta == {}


def test_a_buffer_of_views_that_says_it_is_a_bit_longer_is_cut() -> None:
    """Found by the fuzz campaign: the length need not be a multiple of anything, as long as it lies in the message."""
    value = arrow({"image": pa.array([b"i"], pa.binary()), "label": views_of_one_text(1, 20)})
    length = struct.pack("<q", 16)
    places = [at for at in range(len(value)) if value.startswith(length, at)]
    labels = set()
    for at in places:
        longer = value[:at] + struct.pack("<q", 19) + value[at + 8 :]
        with contextlib.suppress(InvalidMessage):
            labels |= {row.label for row in read_batch(longer, max_rows=8)}
    assert labels == {"x" * 20}
