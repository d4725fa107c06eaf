"""`adawise repair` as an operator calls it, on a folder and on S3, after each loss that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from adawise.__main__ import main
from adawise.sink import layout
from adawise.store.store import Store, open_store
from tests.sink.building import TP, DictStore
from tests.sink.forging import an_honest_sink, key
from tests.store.clouds import new_bucket, open_s3, s3_server

Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three segments; where they are."""
    url = str(tmp_path / "yard")
    if request.param == "s3":
        url = f"s3://{new_bucket()}/yard"
        open_s3(monkeypatch, s3_server(), url)
    store, made = open_store(url), an_honest_sink()
    for name, data in made.objects.items():
        store.create(name, data)
    return url


def test_a_whole_root_needs_nothing(root: str, capsys: Captured) -> None:
    assert main(["repair", root]) == 0
    assert f"{root}: nothing to repair" in capsys.readouterr().out


def test_it_shows_first_and_does_with_yes(root: str, capsys: Captured) -> None:
    """A hole, a removed `_sink.json`, and traces that belong to nothing."""
    store = open_store(root)
    stale = layout.traces_key(key(77))
    store.put(stale, b"of a segment that was computed again")
    for name in (key(4), layout.SINK):
        store.delete(name)
    before = contents(store)
    assert main(["verify", root]) == 3
    assert "`adawise repair` of this root" in capsys.readouterr().out

    assert main(["repair", root]) == 3
    out = capsys.readouterr().out.splitlines()
    assert contents(store) == before
    assert out[0].startswith(f"would: create {layout.SINK} again, with the id ")
    assert f"would: move {stale}, whose segment is missing, to _set_aside/{stale}" in out
    bridged = out.index(
        f"would: create {key(4)} without rows, so that {key(9)} follows again: of 6 offsets (3 to 8) the rows are lost"
    )
    assert f"adawise replay --topic frames --state-of {root}/{key(0)} -o FOLDER" in out[bridged + 1]
    assert out[-1] == f"{root}: 4 steps, nothing was changed; to take them, run: adawise repair {root} --yes"

    assert main(["repair", root, "--yes"]) == 0
    done = capsys.readouterr().out.splitlines()
    assert [line.replace("done:", "would:") for line in done[:-1]] == out[:-1]
    assert main(["verify", root]) == 0
    output = capsys.readouterr().out
    assert "every offset once except 6 that were never served" in output
    assert "offsets 3 to 8 have no rows, and that is recorded: segment_lost (6 offsets)" in output
    assert main(["repair", root]) == 0
    assert store.get(f"_set_aside/{stale}") == before[stale]


def test_what_is_beyond_repair_is_said(root: str, capsys: Captured) -> None:
    store = open_store(root)
    data = store.get(key(4))
    assert data is not None
    store.put(key(4), data[:-9])
    assert main(["repair", root, "--yes"]) == 3
    assert f"beyond repair: segment {key(4)}: expected a readable Parquet file" in capsys.readouterr().out


def test_twenty_partitions_without_a_segment_are_listed_and_the_others_counted(root: str, capsys: Captured) -> None:
    store = open_store(root)
    origin = store.get(layout.origin_key(TP))
    assert origin is not None
    for number in range(100, 121):
        store.create(layout.origin_key(TP._replace(partition=number)), origin)
    assert main(["repair", root]) == 0
    *listed, more, nothing = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in listed] == [f"frames/{number}" for number in range(100, 120)]
    assert more == f"and 1 more such partitions (`adawise verify {root} --json`)"
    assert nothing.startswith(f"{root}: nothing else to repair")


def test_a_place_that_no_worker_wrote_is_an_error(tmp_path: Path, capsys: Captured) -> None:
    assert main(["repair", str(tmp_path)]) == 2
    assert "there is no output of a worker in" in capsys.readouterr().err


def contents(store: Store | DictStore) -> dict[str, bytes | None]:
    return {name: store.get(name) for name in store.list("")}
