"""What readers of drift get of a root: each row once, the wanted ones alone, by Arrow and by DuckDB alike."""

from __future__ import annotations

import io
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from adawise.errors import ChainError, SettingsError, StoreUnavailable
from adawise.output.read.duckdb_rows import translated
from adawise.output.read.rows import Rows, read_predictions, read_traces
from adawise.sink import layout, schemas
from adawise.sink.layout import SegmentName
from adawise.store.shared_files import SharedFile
from adawise.store.store import LocalStore, open_store
from tests.damage.hostile_parquet import more_rows_than_its_groups_have, more_rows_than_there_are
from tests.output.compaction.building import STREAMS, Days, compacted, found
from tests.sink.building import TP, DictStore, open_chain
from tests.store.clouds import azurite, new_bucket, new_container, open_cloud, open_s3, s3_server, seaweedfs
from tests.store.faults import FaultyProxy

Read = Callable[..., Rows]
BOTH: list[tuple[Read, str]] = [(read_traces, layout.TRACES), (read_predictions, layout.PREDICTIONS)]
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
NUMBERS = ["alpha", "objective", "posterior_mean", "posterior_sd", "forward_equivalents"]
_IDENTITY = {layout.TRACES: ["stream_id", "batch_number"], layout.PREDICTIONS: ["row_id"]}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days in 18 segments, some of which are compacted."""
    root = tmp_path_factory.mktemp("days") / "out"
    store = LocalStore(root)
    Days(store).commit(18)
    compacted(store)
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces of an hour of two cameras: with the camera's time, without it, without any, and of an older version."""
    root = tmp_path_factory.mktemp("written")
    open_chain(LocalStore(root)).check()
    rows = traces([("north", minute) for minute in range(60)] + [("south", minute) for minute in range(60)])
    write(root, 0, rows)
    write(root, 1000, without(rows, "captured_at"))
    write(root, 2000, without(rows, "captured_at", "kafka_timestamp"))
    write(root, 3000, rows.drop_columns(["audit_regret", "captured_at"]))
    return root


@pytest.fixture
def by_hand(written: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(written, tmp_path, dirs_exist_ok=True))


def traces(batches: list[tuple[str, int]]) -> pa.Table:
    """One trace for each camera and minute after noon; the broker's time is five seconds later."""
    filled: dict[str, list[Any]] = {}
    for field in schemas.TRACES:
        empty: Any = {"string": "", "double": 0.5, "bool": True}.get(
            str(field.type), [] if pa.types.is_nested(field.type) else 1
        )
        filled[field.name] = [empty] * len(batches)
    filled["stream_id"] = [stream for stream, _ in batches]
    filled["batch_number"] = [minute for _, minute in batches]
    filled["captured_at"] = [NOON + timedelta(minutes=minute) for _, minute in batches]
    filled["kafka_timestamp"] = [at + timedelta(seconds=5) for at in filled["captured_at"]]
    return pa.Table.from_pydict(filled, schema=schemas.TRACES)


def without(rows: pa.Table, *names: str) -> pa.Table:
    for name in names:
        place, field = rows.schema.get_field_index(name), rows.schema.field(name)
        rows = rows.set_column(place, field, pa.nulls(rows.num_rows, field.type))
    return rows


def write(root: Path, first: int, rows: pa.Table) -> Path:
    path = root / layout.traces_key(layout.segment_key(TP, SegmentName(first)))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=10, use_dictionary=False, compression="none", write_page_checksum=True)
    return path


def by_arrow(rows: Rows) -> pa.Table:
    return rows.table()


def by_batches(rows: Rows) -> pa.Table:
    return pa.Table.from_batches(rows.batches(7), rows.schema)


def by_duckdb(rows: Rows) -> pa.Table:
    with duckdb.connect() as connection:
        return rows.relation(connection).to_arrow_table().cast(rows.schema)  # it calls UTC otherwise


WAYS = [by_arrow, by_batches, by_duckdb]


def same(one: pa.Table, other: pa.Table, identity: list[str]) -> bool:
    """Equal but for the order of rows."""
    keys = [(name, "ascending") for name in identity]
    ours, theirs = (table.sort_by(keys).to_pydict() for table in (one, other))
    return repr(ours) == repr(theirs)  # nan is equal to nan


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("read", "dataset"), BOTH)
def test_each_committed_row_is_read_once_and_has_its_time(
    days: Path, read: Read, dataset: str, way: Callable[[Rows], pa.Table]
) -> None:
    stored = found(LocalStore(days), dataset)
    expected = stored.append_column("time", stored["kafka_timestamp"].cast(pa.timestamp("us", tz="UTC")))
    rows = read(days)
    assert len(rows) == stored.num_rows == rows.count()
    assert any(layout.COMPACTED in file for file in rows.files)
    result = way(rows)
    assert result.column_names == [*stored.column_names, "time"]
    assert same(result, expected, _IDENTITY[dataset])


@pytest.mark.parametrize(("read", "dataset"), BOTH)
def test_arrow_keeps_types_descriptions_and_the_order_of_the_files(days: Path, read: Read, dataset: str) -> None:
    rows = read(days)
    table, stored = rows.table(), found(LocalStore(days), dataset)
    assert table.schema.equals(rows.schema, check_metadata=True)
    assert rows.schema.field("alpha").metadata
    assert [f.type for f in rows.schema][:-1] == [f.type for f in stored.schema]
    assert table["offset" if "offset" in table.column_names else "first_offset"].equals(
        stored["offset" if "offset" in table.column_names else "first_offset"]
    )
    batches = list(rows.batches(7))
    assert all(0 < len(batch) <= 7 for batch in batches)
    assert repr(pa.Table.from_batches(batches).to_pydict()) == repr(table.to_pydict())  # nan is equal to nan


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("source", ["days", "by_hand"])
@pytest.mark.cases("worker", every=3)
def test_streams_times_and_columns_choose_as_a_look_at_every_row_would(
    seed: int, source: str, way: Callable[[Rows], pa.Table], request: pytest.FixtureRequest
) -> None:
    root, draw = request.getfixturevalue(source), random.Random(seed)
    everything = read_traces(root).table()
    times = sorted(time for time in everything["time"].to_pylist() if time)
    since, until = sorted(draw.sample(sorted(set(times)), 2))
    streams = draw.sample([*STREAMS, "nobody"], 3)
    chosen = read_traces(root, streams, since, until, columns=["time", "stream_id", "batch_number", "alpha"])
    expected = [
        row
        for row in everything.select(["time", "stream_id", "batch_number", "alpha"]).to_pylist()
        if row["stream_id"] in streams and row["time"] and since <= row["time"] < until
    ]
    assert chosen.count() == len(expected)
    assert sorted(map(str, way(chosen).to_pylist())) == sorted(map(str, expected))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("microseconds", [-1, 1])
def test_bounds_between_two_of_the_brokers_milliseconds_are_as_good_as_any(
    by_hand: Path, way: Callable[[Rows], pa.Table], microseconds: int
) -> None:
    bound = NOON + timedelta(seconds=5, microseconds=microseconds)
    times = [time for time in read_traces(by_hand, "north").table()["time"].to_pylist() if time]
    assert way(read_traces(by_hand, "north", since=bound)).num_rows == sum(at >= bound for at in times)
    assert way(read_traces(by_hand, "north", until=bound)).num_rows == sum(at < bound for at in times)


def test_time_is_the_cameras_or_else_the_brokers_and_rows_without_any_need_no_bounds(by_hand: Path) -> None:
    rows = read_traces(by_hand, "north", columns="time")  # a single one is understood
    table = rows.table()
    assert table.column_names == ["time"]
    counts = {value["values"]: value["counts"] for value in pc.value_counts(table["time"]).to_pylist()}
    assert counts[None] == 60
    assert counts[NOON] == 1  # of the camera
    assert counts[NOON + timedelta(seconds=5)] == 2  # of the broker
    assert read_traces(by_hand, since=datetime(1970, 1, 2, tzinfo=UTC)).count() == 360
    assert read_traces(by_hand, until=datetime(2100, 1, 1, tzinfo=UTC)).count() == 360
    assert read_traces(by_hand).count() == 480


@pytest.mark.parametrize("way", WAYS)
def test_a_bound_may_be_of_any_time_zone(by_hand: Path, way: Callable[[Rows], pa.Table]) -> None:
    here = timezone(timedelta(hours=5, minutes=30))
    rows = read_traces(by_hand, "south", NOON.astimezone(here), (NOON + timedelta(minutes=2)).astimezone(here))
    assert way(rows)["batch_number"].to_pylist() == [0, 1] * 3


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-8)), timezone(timedelta(hours=8))])
@pytest.mark.parametrize("way", WAYS)
def test_the_first_and_the_last_time_that_there_is_are_bounds_too(
    by_hand: Path, way: Callable[[Rows], pa.Table], zone: timezone
) -> None:
    since, until = (limit.replace(tzinfo=zone) for limit in (datetime.min, datetime.max))
    assert way(read_traces(by_hand, since=since)).num_rows == 360
    assert way(read_traces(by_hand, until=until)).num_rows == 360
    assert read_traces(by_hand, since=since, until=until).count() == 360


@pytest.mark.parametrize("way", WAYS)
def test_audit_regret_is_null_without_an_audit_whatever_version_wrote_it(
    tmp_path: Path, way: Callable[[Rows], pa.Table]
) -> None:
    open_chain(LocalStore(tmp_path)).check()
    rows = traces([("north", minute) for minute in range(3)])
    place = rows.schema.get_field_index("audit_regret")
    for number, regret in enumerate(([math.nan, 0.02, math.nan], [None, 0.03, None])):
        field = pa.field("audit_regret", pa.float64(), nullable=bool(number))
        write(tmp_path, 1000 * number, rows.set_column(place, field, pa.array(regret, pa.float64())))
    table = way(read_traces(tmp_path, columns=["audit_regret", "alpha"]))
    assert sorted(pc.drop_null(table["audit_regret"]).to_pylist()) == [0.02, 0.03]
    assert table["audit_regret"].null_count == 4


@pytest.mark.parametrize("way", WAYS)
def test_what_an_older_version_did_not_write_is_null(by_hand: Path, way: Callable[[Rows], pa.Table]) -> None:
    rows = read_traces(by_hand, "north", columns=["audit_regret", "captured_at"])
    table = way(rows)
    assert (table["audit_regret"].null_count, table["captured_at"].null_count) == (60, 180)
    for file in rows.files[:3]:
        Path(file).unlink()
    table = way(read_traces(by_hand, "north", columns=["audit_regret", "alpha"]))
    assert table["audit_regret"].type == pa.float64()
    assert (table.num_rows, table["audit_regret"].null_count, table["alpha"].null_count) == (60, 60, 0)


@pytest.mark.parametrize(
    ("way", "how"),
    [
        *((way, how) for way in WAYS for how in ("camera", "stream")),
        *((way, "broker") for way in (by_arrow, by_batches)),  # DuckDB looks at the times of all of these
    ],
)
def test_row_groups_that_cannot_hold_what_is_wanted_are_not_read(
    by_hand: Path, how: str, way: Callable[[Rows], pa.Table]
) -> None:
    path = Path(read_traces(by_hand).files[1 if how == "broker" else 0])
    for other in set(read_traces(by_hand).files) - {str(path)}:
        Path(other).unlink()
    wanted = {"streams": "north"} if how == "stream" else {"since": NOON + timedelta(minutes=50)}
    expected = way(read_traces(by_hand, **wanted))
    metadata, data = pq.read_metadata(path), bytearray(path.read_bytes())
    spoiled = range(6, 12) if how == "stream" else [*range(5), *range(6, 11)]
    for group in spoiled:
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            start, size = chunk.data_page_offset, chunk.total_compressed_size
            data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    result = way(read_traces(by_hand, **wanted))
    assert result.num_rows == (60 if how == "stream" else 20)
    assert same(result, expected, ["stream_id", "batch_number"])
    with pytest.raises((ChainError, duckdb.Error)):
        way(read_traces(by_hand))


@pytest.mark.parametrize("way", WAYS)
def test_names_are_data_whatever_is_in_them(tmp_path: Path, way: Callable[[Rows], pa.Table]) -> None:
    names = ["x' OR 1=1 --", '"; DROP TABLE t; --', "", "{}", "$1", "camera\n7", "ümläut"]
    open_chain(LocalStore(tmp_path)).check()
    write(tmp_path, 0, traces([(name, minute) for minute, name in enumerate(names)]))
    for minute, name in enumerate(names):
        assert way(read_traces(tmp_path, name))["batch_number"].to_pylist() == [minute]
    assert way(read_traces(tmp_path, [])).num_rows == 0
    assert way(read_traces(tmp_path, reversed(names))).num_rows == len(names)


@pytest.mark.parametrize("way", WAYS)
def test_a_root_may_be_called_anything(tmp_path: Path, way: Callable[[Rows], pa.Table]) -> None:
    names = ("alpha=3", "o*t[x]?", "ootxy", "oot[x]y", "it's", "site[1]", "site1")  # some are patterns of others
    for name in names:
        open_chain(LocalStore(tmp_path / name)).check()
        write(tmp_path / name, 0, traces([(name, 0)]))
    for name in names:
        assert way(read_traces(tmp_path / name))["stream_id"].to_pylist() == [name]


@pytest.mark.parametrize("way", WAYS)
def test_a_root_without_rows_yet_has_the_columns(tmp_path: Path, way: Callable[[Rows], pa.Table]) -> None:
    open_chain(LocalStore(tmp_path)).check()
    rows = read_predictions(f"file://{tmp_path}", "north", NOON, columns=["time", "top_labels"])
    assert (rows.files, len(rows)) == ((), 0)
    table = way(rows)
    assert table.num_rows == 0
    assert table.column_names == ["time", "top_labels"]
    assert rows  # it is there


def test_rows_that_come_later_are_of_the_next_call_and_compaction_changes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    worker = Days(store)
    worker.commit(10)
    rows = read_traces(tmp_path)
    before = rows.table()
    worker.commit(2)
    compacted(store)
    assert same(rows.table(), before, ["first_offset"])
    assert read_traces(tmp_path).count() > before.num_rows


def test_batches_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    open_chain(LocalStore(tmp_path)).check()
    for number in range(20):
        path = write(tmp_path, number, traces([("north", number)]))
    path.write_bytes(b"no Parquet")
    batches = read_traces(tmp_path).batches()
    assert next(batches)["batch_number"].to_pylist() == [0]
    with pytest.raises(ChainError, match=path.name):
        list(batches)


def test_a_damaged_file_and_one_that_is_gone_are_errors_with_a_remedy(tmp_path: Path) -> None:
    open_chain(LocalStore(tmp_path)).check()
    path = write(tmp_path, 0, traces([("north", 0)]))
    rows = read_traces(tmp_path)
    data, chunk = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0).column(4)
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1  # the last letter of a page's last name
    path.write_bytes(data)
    with pytest.raises(ChainError, match="adawise verify"):
        rows.table()
    path.unlink()
    for read in (rows.table, rows.count, lambda: list(rows.batches())):
        with pytest.raises(ChainError, match=rf"(?s){path.name}.*read again"):
            read()


@pytest.mark.parametrize(
    ("damage", "row_groups"), [(more_rows_than_there_are, "268,435,456"), (more_rows_than_its_groups_have, "10")]
)
def test_a_file_that_states_too_many_rows_is_named_and_not_read(
    damage: Callable[[Path], None], row_groups: str, tmp_path: Path
) -> None:
    open_chain(LocalStore(tmp_path)).check()
    for number in range(3):
        path = write(tmp_path, number * 1000, traces([("north", minute) for minute in range(10)]))
    damage(path)
    rows = read_traces(tmp_path, columns=["batch_number", "trials"])
    expected = rf"{path.name}.*states 268,435,456 rows, but its row groups {row_groups}, in .*adawise verify"
    for read in (rows.table, rows.count, lambda: list(rows.batches())):
        with pytest.raises(ChainError, match=expected):
            read()


def test_a_column_that_states_too_many_values_is_an_error_of_duckdb_at_once(tmp_path: Path) -> None:
    open_chain(LocalStore(tmp_path)).check()
    path = write(tmp_path, 0, traces([("north", minute) for minute in range(10)]))
    more_rows_than_there_are(path)
    with duckdb.connect() as connection, pytest.raises(ChainError, match="adawise verify"), translated(str(tmp_path)):
        read_traces(tmp_path).relation(connection).fetchall()


def test_a_query_that_ctrl_c_interrupted_ends_as_python_would() -> None:
    with pytest.raises(KeyboardInterrupt), translated("root"):
        raise RuntimeError("Query interrupted")  # as DuckDB raises it


def test_another_runtime_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="something else"), translated("root"):
        raise RuntimeError("something else")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"columns": ["alpha", "beta"]}, "'beta'"),
        ({"columns": ["alpha", "alpha"]}, "once"),
        ({"since": datetime(2026, 1, 1)}, "since: expected a time with its zone"),
        ({"until": datetime(2026, 1, 1)}, "until: expected a time with its zone"),
        ({"since": NOON, "until": NOON}, "swap them"),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(days: Path, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        read_traces(days, **arguments)


def test_what_is_no_output_of_a_worker_is_an_error_that_names_what_was_expected(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SettingsError, match=r"_sink\.json.*sink\.root"):
            read_traces(root)
    with pytest.raises(SettingsError, match="s3://"):
        read_traces("ftp://host/folder")


def test_without_duckdb_arrow_reads_and_a_relation_is_an_error_that_says_what_to_install(
    days: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "adawise.output.read.duckdb_rows", raising=False)
    monkeypatch.delattr("adawise.output.read.duckdb_rows", raising=False)
    rows = read_traces(days)
    assert rows.table().num_rows == len(rows)
    with pytest.raises(SettingsError, match=r"adawise\[report\]"):
        rows.relation()


def test_a_relation_of_the_default_connection_is_found_by_its_variable(days: Path) -> None:
    traces = read_traces(days).relation()
    assert duckdb.execute("select count(*) from traces where stream_id = 'yard'").fetchall()[0][0] > 0
    assert traces.filter("alpha = 1").aggregate("count(*)").fetchall()[0][0] > 0


@pytest.fixture(params=["s3", *(pytest.param(name, marks=pytest.mark.soak) for name in ("azurite", "seaweedfs"))])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a root of four segments on an S3, a real one, or Azure's emulator."""
    made = DictStore()
    Days(made).commit(4)
    if request.param == "s3":
        url = f"s3://{new_bucket()}/some/out"
        store = open_s3(monkeypatch, s3_server(), url)
    elif request.param == "seaweedfs":
        url = f"s3://{seaweedfs().new_bucket()}/some/out"
        store = open_s3(monkeypatch, seaweedfs().address, url)
    else:
        url = f"az://{new_container()}/some/out"
        store = open_cloud(monkeypatch, azurite(), url)
    for key, data in made.objects.items():
        if not key.startswith(layout.PREDICTIONS):
            store.put(key, data)
    return url


def test_a_root_on_an_object_store_is_read_as_a_folder(bucket: str) -> None:
    stored = found(open_store(bucket), layout.TRACES)
    half = stored["kafka_timestamp"].to_pylist()[stored.num_rows // 2]
    rows, wanted = read_traces(bucket), read_traces(bucket, ["yard", "north"], until=half)
    for way in WAYS:
        assert same(way(rows).drop_columns("time"), stored, _IDENTITY[layout.TRACES])
        assert way(wanted).num_rows == wanted.count() < stored.num_rows


def test_large_files_on_an_object_store_are_read_by_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{new_bucket()}/out"
    store = open_s3(monkeypatch, s3_server(), url)
    open_chain(store).check()
    rows, rng = traces([("north", 0)]).take(pa.array(np.zeros(200_000, np.int64))), np.random.default_rng(0)
    for name in NUMBERS:
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(name), pa.array(rng.random(rows.num_rows)))
    file = io.BytesIO()
    pq.write_table(rows, file, row_group_size=50_000)
    assert file.tell() > 1 << 20
    for first in range(2):
        store.put(layout.traces_key(layout.segment_key(TP, SegmentName(first))), file.getvalue())
    for _ in range(3):
        with duckdb.connect(config={"threads": 4}) as connection:
            relation = read_traces(url, columns=NUMBERS).relation(connection)
            (sums,) = relation.aggregate(", ".join(f"sum({name})" for name in NUMBERS)).fetchall()
        assert sums == pytest.approx([2 * pc.sum(rows[name]).as_py() for name in NUMBERS])


_INTERRUPTED = """
import os, signal, sys
from adawise.output.read.duckdb_rows import translated
from adawise.output.read.rows import read_traces
from adawise.store.shared_files import SharedFiles
def glob(files, path): # which DuckDB calls in the thread that asks, where signals are handled; of reads some are there
    os.kill(os.getpid(), signal.SIGINT)
    return [path]
signal.signal(signal.SIGINT, signal.default_int_handler)
SharedFiles.glob = glob
try:
    with translated(sys.argv[1]):
        read_traces(sys.argv[1]).relation().fetchall()
except KeyboardInterrupt as error:
    print(type(error.__cause__), "glob" in str(error.__cause__))
"""


def test_ctrl_c_while_duckdb_asks_an_object_store_ends_as_python_would(bucket: str) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, bucket]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("<class '_duckdb.Error'> True\n", "")


def test_a_store_that_does_not_answer_duckdb_is_unavailable_and_its_files_are_not_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FaultyProxy(s3_server()) as proxy:
        url = f"s3://{new_bucket()}/out"
        store = open_s3(monkeypatch, proxy.address, url)
        open_chain(store).check()
        store.put(layout.traces_key(layout.segment_key(TP, SegmentName(0))), b"")
        rows = read_traces(url)
        proxy.down()
        with duckdb.connect() as connection, pytest.raises(StoreUnavailable, match="no usable answer"), translated(url):
            rows.relation(connection).fetchall()


def test_a_file_that_is_removed_while_duckdb_reads_it_is_gone_and_not_damaged(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, store = SharedFile.read, open_store(bucket)

    def read_once_removed(file: SharedFile, size: int = -1) -> bytes:
        for key in store.list(layout.TRACES):
            store.delete(key)
        return read(file, size)

    monkeypatch.setattr(SharedFile, "read", read_once_removed)
    with duckdb.connect() as connection, pytest.raises(ChainError, match="one is gone: "), translated(bucket):
        read_traces(bucket).relation(connection).fetchall()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GenericError", StoreUnavailable),
        ("TimeoutError", StoreUnavailable),
        ("InvalidPathError", SettingsError),
        ("ChainError", ChainError),
        ("NotImplementedError", duckdb.Error),
        ("len", duckdb.Error),
        ("AssertionError", duckdb.Error),
        ("MemoryError", duckdb.Error),
    ],
)
def test_only_what_a_store_raises_is_its_fault(name: str, expected: type[Exception]) -> None:
    text = f'Traceback (most recent call last):\n  File "x.py", line 1\n{name}: no answer\n\nLINE 1: select\n   ^'
    with pytest.raises(expected) as raised, translated("s3://bucket/a"):
        raise duckdb.Error(text)
    assert expected is duckdb.Error or "LINE" not in str(raised.value)


def test_a_file_that_is_gone_before_the_query_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match=r"but one is gone.*retain"), translated(str(tmp_path)):
        duckdb.execute(f"SELECT * FROM read_parquet('{tmp_path}/gone.parquet')")


def test_a_file_that_is_removed_while_the_query_runs_is_gone_and_not_damaged(tmp_path: Path) -> None:
    """As `retain` removes it: DuckDB opens some files ahead of what it reads, and the others later."""
    paths = [tmp_path / f"{n}.parquet" for n in range(128)]
    for path in paths:
        pq.write_table(pa.table({"n": [1]}), path)

    def remove(n: int) -> int:
        paths[-1].unlink(missing_ok=True)
        return n

    with duckdb.connect(config={"threads": 1}) as connection:
        connection.create_function("remove", remove, ["BIGINT"], "BIGINT", side_effects=True)
        with pytest.raises(ChainError, match=r"but one is gone.*127\.parquet.*retain"), translated(str(tmp_path)):
            connection.execute("SELECT remove(n) FROM read_parquet($files)", {"files": [*map(str, paths)]}).fetchall()
