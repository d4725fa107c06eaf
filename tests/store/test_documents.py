"""What lies under a root's own names is read by strict models, whatever somebody has put there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adawise.errors import ChainError
from adawise.output.compaction import compact
from adawise.recording.format import decode_manifest
from adawise.replay.claim import claimed
from adawise.replay.plan import plan_of
from adawise.replay.shards import read_method
from adawise.sink import claims, layout, owner, served_by
from adawise.sink.layout import SegmentName
from adawise.store.store import Store
from tests.sink.building import TP, DictStore

FIRST = SegmentName(7)
READERS: dict[str, Callable[[Store], object]] = {
    layout.SINK: claims.read_sink_id,
    layout.OWNER: owner.read_owner,
    layout.NUMERICS: served_by.read_precision,
    layout.origin_key(TP): lambda store: claims.read_origin(store, TP),
    layout.model_key(0): lambda store: served_by.check_pair(store, {}, "refuse"),
    layout.settings_key("m", "c"): served_by.read_settings,
    layout.retained_key(TP, FIRST): lambda store: claims.read_beginning(store, TP),
    layout.plan_key(TP, FIRST): lambda store: compact.read_plan(store, TP, FIRST),
    layout.REPLAY: lambda store: claimed(store, "root"),
    layout.PLAN: lambda store: plan_of(store, "root"),
    layout.SHARDS: read_method,
}
DAMAGED = {
    "empty": b"",
    "null": b"null",
    "number": b"1",
    "list": b"[]",
    "nested": b"[" * 100_000,
    "nested tables": b'{"a":' * 100_000,
    "binary": b"\x00\xff",
    "infinity": b'{"layout": 1, "sink": Infinity, "offset": Infinity, "partitions": 1e999, "segments": 1e999}',
    "other types": b'{"layout": [], "sink": {}, "cluster_id": 5, "group": [1], "topic": null, "purpose": {},'
    b' "file": [], "identity": [], "settings": [], "places": null, "previous": 3, "format": "1", "ranges": [],'
    b' "offset": "7"}',
    "many digits": b'{"layout": ' + b"9" * 5_000 + b"}",
    "huge": b'{"sink": "' + b"a" * (1 << 24) + b'"}',
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("key", READERS)
def test_a_document_that_is_not_as_it_was_written_is_damaged_in_one_sentence(key: str, data: bytes) -> None:
    store = DictStore()
    store.objects[key] = data
    with pytest.raises(ChainError) as raised:
        READERS[key](store)
    assert key in str(raised.value)
    assert len(str(raised.value)) < 500
    assert store.objects == {key: data}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_recordings_description_likewise(data: bytes) -> None:
    with pytest.raises(Exception, match=r"rec: expected the description of a recording, but: ") as raised:
        decode_manifest(data, "rec")
    assert type(raised.value).__name__ == "SourceError"
