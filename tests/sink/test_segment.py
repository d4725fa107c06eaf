from __future__ import annotations

import json
import random
from dataclasses import asdict, fields, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.errors import ChainError, Lost
from adawise.records import Gap, Switch
from adawise.sink import schemas, segment
from adawise.sink.columns import prediction_table, trace_table
from adawise.sink.segment import SegmentFooter, StateBlocks
from tests.sink.building import CLASSES, damaged_page, draft

KEY = "predictions/topic-frames/partition-00003/00000000000000000000.parquet"
DRAFT = draft(0, 8)
ROWS = prediction_table(DRAFT, classes=CLASSES, model_fingerprint="model")
FOOTER = SegmentFooter(
    sink="sink",
    cluster_id="cluster",
    topic_id="topic",
    topic="frames",
    partition=3,
    partitions=4,
    first=0,
    sequence=0,
    next=12,
    previous=None,
    attempt="attempt",
    writer="worker-0",
    created_at="2026-11-25T12:00:00+00:00",
    model_fingerprint="model",
    config_fingerprint="config",
    pending=(8, 9, 11),
    gaps=(Gap(10, 11),),
    states={"north": b"\x00\xff state", "south": b""},
    stream_table=b'{"limit":8,"heard":{"north":[3,7]},"entered":[]}',
    alerts=b'{"attempt":"a","events":[],"state":{}}',
    trace=trace_table(DRAFT.accepted, classes=CLASSES),
)
DATA = segment.encode(ROWS, FOOTER)


def scalars(footer: SegmentFooter) -> dict[str, object]:
    return {key: value for key, value in asdict(replace(footer, trace=None)).items() if key != "trace"}


def test_a_segment_is_read_back_as_it_was_written() -> None:
    footer = segment.read_footer(DATA, KEY)
    assert scalars(footer) == scalars(FOOTER)
    assert footer.trace.schema.equals(schemas.BATCH_TRACE)
    assert repr(footer.trace.to_pylist()) == repr(FOOTER.trace.to_pylist())
    assert segment.read_rows(DATA, KEY).equals(ROWS)


def stored(data: bytes) -> dict[str, object]:
    metadata = pq.read_metadata(pa.BufferReader(data)).metadata
    return dict(json.loads(metadata[b"adawise.segment"]))


def test_a_gap_without_a_reason_is_written_as_earlier_versions_read_it() -> None:
    assert (stored(DATA)["format"], stored(DATA)["gaps"]) == (1, [[10, 11]])


def test_a_gap_keeps_its_reason_and_asks_earlier_versions_to_be_upgraded() -> None:
    gaps = (Gap(10, 11), Gap(11, 40, Lost.BATCH_TOO_LARGE))
    data = segment.encode(ROWS, replace(FOOTER, gaps=gaps))
    assert (stored(data)["format"], stored(data)["gaps"]) == (2, [[10, 11], [11, 40, "batch_too_large"]])
    assert segment.read_footer(data, KEY).gaps == gaps


@given(st.sets(st.integers(0, 2**62) | st.integers(0, 50)))
def test_pending_offsets_survive_as_ranges(pending: set[int]) -> None:
    footer = replace(FOOTER, pending=tuple(sorted(pending)), states={}, trace=schemas.BATCH_TRACE.empty_table())
    data = segment.encode(schemas.PREDICTIONS.empty_table(), footer)
    assert segment.read_footer(data, KEY).pending == footer.pending


def test_the_small_fields_can_be_read_without_this_program() -> None:
    values = pq.ParquetFile(pa.BufferReader(DATA)).metadata.metadata
    document = json.loads(values[b"adawise.segment"])
    elsewhere = {"states", "trace", "lineage", "stream_table", "alerts", "publish_when", "switches"}
    assert set(document) == {"format", *(f.name for f in fields(SegmentFooter))} - elsewhere
    assert document["pending"] == [[8, 10], [11, 12]]


def test_the_keys_of_a_file_are_those_of_every_version() -> None:
    """Spelled out, since a constant that is renamed on both sides would still be read back."""
    data = segment.encode(ROWS, replace(FOOTER, publish_when="early", alerts=b"{}"))
    values = pq.ParquetFile(pa.BufferReader(data)).metadata.metadata
    assert values[b"adawise.tells"] == b"early"
    assert {b"adawise.segment", b"adawise.states", b"adawise.alerts"} <= values.keys()


def test_a_value_of_any_size_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SPLIT", 100)
    data = segment.encode(ROWS, FOOTER)
    values = pq.ParquetFile(pa.BufferReader(data)).metadata.metadata
    assert max(len(value) for key, value in values.items() if key.startswith(b"adawise.")) == 100
    assert b"adawise.states.1" in values
    assert scalars(segment.read_footer(data, KEY)) == scalars(FOOTER)


@pytest.mark.check("damage")
@pytest.mark.slow
def test_a_footer_of_more_than_100_mb_is_read_back_and_one_that_was_written_in_one_piece_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states, blocks = {"north": random.Random(1).randbytes(80_000_000)}, StateBlocks()
    for split in (segment.SPLIT, 2**31):
        monkeypatch.setattr(segment, "SPLIT", split)
        data = segment.encode(ROWS, replace(FOOTER, states=states), blocks)
        assert segment.read_footer(data, KEY).states == states


def test_what_could_not_be_read_back_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_LONGEST", 1_000)
    with pytest.raises(ChainError, match=r"bytes in its footer could not be read again .*: lower limits\.streams"):
        segment.encode(ROWS, replace(FOOTER, states={"north": bytes(range(256)) * 20}))


def test_a_flipped_bit_in_the_table_of_streams_is_found() -> None:
    at = DATA.index(FOOTER.stream_table) + 20
    with pytest.raises(ChainError, match="table of streams"):
        segment.read_footer(DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :], KEY)


def test_a_flipped_bit_in_the_state_of_alerts_is_found() -> None:
    at = DATA.index(FOOTER.alerts) + 20
    with pytest.raises(ChainError, match="state of alerts"):
        segment.read_footer(DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :], KEY)


def test_a_flipped_bit_in_the_columns_that_came_later_is_found() -> None:
    at = DATA.index(pq.read_metadata(pa.BufferReader(DATA)).metadata[b"adawise.later"]) + 80
    with pytest.raises(ChainError, match="second part of the trace"):
        segment.read_footer(DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :], KEY)


def test_the_trace_is_kept_as_earlier_versions_read_it_and_what_they_wrote_has_nulls() -> None:
    values = pq.read_metadata(pa.BufferReader(DATA)).metadata
    names = [name for name in schemas.BATCH_TRACE.names if name not in schemas.LATER]
    assert segment._unpacked(values[b"adawise.trace"]).column_names == names
    earlier = segment.parquet(ROWS, [], {key: values[key] for key in values if key != b"adawise.later"})
    trace = segment.read_footer(earlier, KEY).trace
    assert trace.schema.equals(schemas.BATCH_TRACE)
    assert trace.select(names).to_pylist()[0]["alpha"] == FOOTER.trace["alpha"][0].as_py()
    assert all(trace[column.name].null_count == trace.num_rows for column in (*schemas.PIXELS, *schemas.OUTCOME))


def test_a_truncated_file_is_damaged_and_says_what_to_do() -> None:
    with pytest.raises(ChainError, match=f"{KEY}.*stop every worker and move it away"):
        segment.read_footer(DATA[:-100], KEY)


def test_a_flipped_bit_in_the_state_is_found() -> None:
    values = pq.ParquetFile(pa.BufferReader(DATA)).metadata.metadata
    at = DATA.index(values[b"adawise.states"]) + 20
    with pytest.raises(ChainError, match="checksum"):
        segment.read_footer(DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :], KEY)


def test_a_flipped_bit_in_the_rows_is_found() -> None:
    with pytest.raises(ChainError, match="readable rows"):
        segment.read_rows(damaged_page(DATA), KEY)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all, but long enough to look at" * 10])
def test_what_is_no_parquet_is_damaged(data: bytes) -> None:
    for read in (segment.read_footer, segment.read_rows):
        with pytest.raises(ChainError, match=KEY):
            read(data, KEY)


def test_a_parquet_file_of_somebody_else_is_no_segment() -> None:
    foreign = segment.parquet(pa.table({"a": [1]}), ["a"], {})
    with pytest.raises(ChainError, match="no adawise key-values"):
        segment.read_footer(foreign, KEY)


def test_a_newer_format_asks_for_an_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "format_of", lambda gaps, switches: 99)
    newer = segment.encode(ROWS, FOOTER)
    monkeypatch.undo()
    with pytest.raises(ChainError, match="format 3 or older, but it is 99; upgrade"):
        segment.read_footer(newer, KEY)


@pytest.mark.parametrize(("pairs", "expected"), [((), 1), (("a",), 1), (("a", "b"), 3)])
def test_a_version_that_follows_no_switch_of_pairs_refuses_a_partition_that_has_one(
    pairs: tuple[str, ...], expected: int
) -> None:
    data = segment.encode(ROWS, replace(FOOTER, gaps=(), switches=tuple(Switch(0, (), pair) for pair in pairs)))
    assert stored(data)["format"] == expected


def test_no_column_that_may_not_be_null_can_be_written_with_null() -> None:
    rows = ROWS.set_column(0, schemas.PREDICTIONS.field("row_id"), pa.nulls(ROWS.num_rows, pa.string()))
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        segment.encode(rows, FOOTER)


def test_a_reader_can_skip_by_every_column_that_is_not_nested() -> None:
    group = pq.ParquetFile(pa.BufferReader(DATA)).metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    nested = {column.path_in_schema for column in columns if not column.is_stats_set}
    assert nested == {
        "top_labels.list.element",
        "top_probabilities.list.element",
        "meta.key_value.key",
        "meta.key_value.value",
    }


def test_equal_content_is_equal_bytes() -> None:
    assert (
        segment.encode(ROWS, replace(FOOTER, states={name: FOOTER.states[name] for name in ("south", "north")})) == DATA
    )
