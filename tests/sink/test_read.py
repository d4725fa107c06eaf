from __future__ import annotations

import pytest

from pipeline.errors import ChainError
from pipeline.sink import layout, schemas
from pipeline.sink.layout import SegmentName
from pipeline.sink.read import read_predictions, read_segment_footers
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain


def key(first: int) -> str:
    return layout.segment_key(TP, SegmentName(first))


@pytest.fixture
def store() -> DictStore:
    """A chain of three segments: [0, 4), [4, 9), [9, 12)."""
    made = DictStore()
    chain = open_chain(made)
    chain.recover(TP, IDENTITY, 0)
    for number, (first, until) in enumerate([(0, 4), (4, 9), (9, 12)]):
        chain.commit(draft(first, until, number=number))
    return made


def test_footers_and_rows_come_in_the_order_of_the_chain(store: DictStore) -> None:
    assert [(name, footer.next) for name, footer in read_segment_footers(store)] == [
        (key(0), 4),
        (key(4), 9),
        (key(9), 12),
    ]
    rows = read_predictions(store, ["offset", "status"])
    assert rows["offset"].to_pylist() == list(range(12))
    assert rows.column_names == ["offset", "status"]
    assert read_predictions(DictStore()).schema.equals(schemas.PREDICTIONS)


def test_reading_rows_of_a_damaged_segment_is_an_error(store: DictStore) -> None:
    store.objects[key(4)] = store.objects[key(4)][:-9]
    with pytest.raises(ChainError, match=key(4)):
        read_predictions(store)
