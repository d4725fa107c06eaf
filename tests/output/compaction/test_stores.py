"""Compaction on object stores, also where the network fails under it and compactions die."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta

import pytest
import stamina

from adawise.output.compaction import sql_views
from adawise.output.compaction.check import check, foreign_keys
from adawise.output.compaction.delete import deletable, delete
from adawise.output.compaction.segments import ChainIdentity
from adawise.sink import layout
from adawise.sink.files import compacted_names, data_files
from adawise.store.object_store import ATTEMPTS
from adawise.store.store import Store, open_store
from tests.output.compaction.building import Days, compacted, content
from tests.sink.building import TP
from tests.store.clouds import azurite, new_bucket, new_container, open_cloud, open_s3, s3_server, seaweedfs
from tests.store.faults import EveryFirstTry, FaultyProxy

BY_SOAK = [pytest.param(name, marks=pytest.mark.soak) for name in ("azurite", "seaweedfs")]


@pytest.fixture(params=["memory", "s3", "s3 that fails", *BY_SOAK])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with ExitStack() as stack:
        stack.enter_context(stamina.set_testing(True, attempts=ATTEMPTS))  # tries, but no waits between them
        match request.param:
            case "memory":
                yield open_store("memory://")
            case "s3":
                yield open_s3(monkeypatch, s3_server(), f"s3://{new_bucket()}/some/prefix")
            case "seaweedfs":
                yield open_s3(monkeypatch, seaweedfs().address, f"s3://{seaweedfs().new_bucket()}/some/prefix")
            case "azurite":
                yield open_cloud(monkeypatch, azurite(), f"az://{new_container()}/some/prefix")
            case _:
                proxy = stack.enter_context(FaultyProxy(s3_server(), EveryFirstTry()))
                yield open_s3(monkeypatch, proxy.address, f"s3://{new_bucket()}/some/prefix")


class Dies(Exception):
    pass


def test_a_bucket_is_compacted_as_a_folder_is(store: Store) -> None:
    days = Days(store, step=timedelta(hours=6))
    days.commit(9)
    before = content(store)
    for fatal in ("compact.planned", "compact.predictions_created"):

        def die(point: str, fatal: str = fatal) -> None:
            if point == fatal:
                raise Dies

        with suppress(Dies):
            compacted(store, at=die)
        assert content(store) == before
    assert compacted(store)
    assert content(store) == before
    gone = [
        key
        for covered in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC))
        for key in delete(store, covered)
    ]
    assert len(gone) == 6
    assert content(store) == before
    assert check(store, TP, ChainIdentity.of(store, TP), contiguous=True)[1] + foreign_keys(store) == []
    days.commit(5)  # the worker knows nothing of all this
    before = content(store)
    compacted(store)
    assert content(store) == before
    assert len(compacted_names(store, layout.TRACES, TP)) == 4


def test_readers_get_urls_of_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"s3://{new_bucket()}/yard"
    store = open_s3(monkeypatch, s3_server(), root)
    Days(store, step=timedelta(hours=12)).commit(3)
    compacted(store)
    sql_views.write(store, root)
    assert all(file.startswith(f"{root}/compacted/") for file in data_files(root)[:-1])
    assert data_files(root)[-1].startswith(f"{root}/predictions/")
    views = store.get(layout.VIEWS)
    assert views is not None
    assert f"coalesce(getvariable('root'), '{root}')".encode() in views
