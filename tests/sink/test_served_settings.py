"""A root says what the fingerprints of its segments stand for, once and before the first rows of each."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from adawise.errors import ChainError, StoreUnavailable
from adawise.ports import ServedBy
from adawise.sink import layout
from adawise.sink.served_by import note_settings, read_noted, read_settings
from tests.sink.building import CLASSES, IDENTITY, TP, DictStore, draft, frame, open_chain, served

KEY = "_settings/model-config.json"


def by(config: str = "config", price: float = 0.03) -> ServedBy:
    return ServedBy(CLASSES, "model", config, "", {"search.price": price}, {"model.theta_0": "pair/theta_0"})


def test_settings_are_noted_before_the_first_rows_and_read_as_they_were() -> None:
    store = DictStore()
    chain = open_chain(store, by=by())
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    assert read_settings(store) == []
    store.refuse = ["before"]  # the document itself
    segment = draft(0, 4)
    with pytest.raises(StoreUnavailable):
        chain.commit(segment)
    assert store.list(layout.PREDICTIONS) == []
    chain.commit(segment)
    (found,) = read_settings(store)
    assert (found.model_fingerprint, found.config_fingerprint) == ("model", "config")
    assert (found.settings, found.places) == ({"search.price": 0.03}, {"model.theta_0": "pair/theta_0"})
    assert store.list(layout.SETTINGS) == [KEY]


@pytest.mark.parametrize(("prior", "column"), [("served", "scene_label"), ("beside", "label"), (None, "label")])
def test_the_newest_results_have_the_label_of_the_settings_that_served_them(prior: str | None, column: str) -> None:
    store = DictStore()
    known = {} if prior is None else {"scene.prior": prior}
    chain = open_chain(store, by=replace(by(), settings={**by().settings, **known}))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    images, predictions, trace = served([frame(offset) for offset in range(3)])
    scene = np.full(3, 2, np.int32), np.full(3, 0.5, np.float32)
    corrected = replace(predictions, scene_index=scene[0], scene_confidence=scene[1])
    chain.commit(replace(draft(0, 3), accepted=[(images, corrected, trace)], rejected=[]))
    later = open_chain(store, by=by("another"))
    later.check()
    later.recover(TP, IDENTITY, 0)
    (publication,) = later.newest(TP)
    assert isinstance(publication.what, list)
    assert [result.label_column for result in publication.what] == [column] * 3
    assert [result.label for result in publication.what] == (
        [CLASSES[2]] * 3 if column == "scene_label" else [CLASSES[n] for n in range(3)]
    )


def test_what_was_noted_stays_and_other_settings_come_behind_it() -> None:
    store = DictStore()
    for day, (config, price) in enumerate([("b", 0.05), ("a", 0.03), ("b", 0.07)], start=1):
        note_settings(store, by(config, price), now=datetime(2026, 12, day, tzinfo=UTC))
    assert [(each.config_fingerprint, each.settings["search.price"]) for each in read_settings(store)] == [
        ("b", 0.05),
        ("a", 0.03),
    ]


def test_the_share_of_a_pair_is_noted_and_that_of_an_earlier_document_is_not_known() -> None:
    store = DictStore()
    note_settings(store, replace(by(), tail_share=0.25), now=datetime(2026, 12, 1, tzinfo=UTC))
    found = read_noted(store, "model", "config")
    assert found is not None
    assert found.tail_share == 0.25
    document = json.loads(store.objects[KEY])
    del document["tail_share"]
    store.objects[KEY] = json.dumps(document).encode()
    found = read_noted(store, "model", "config")
    assert found is not None
    assert found.tail_share is None
    store.objects[KEY] = json.dumps({**document, "tail_share": 0.0}).encode()
    with pytest.raises(ChainError, match="damaged"):
        read_noted(store, "model", "config")
    assert read_noted(store, "model", "other") is None


def test_nothing_is_noted_where_nobody_knows_the_settings() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 4))
    assert store.list(layout.SETTINGS) == []


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b'{"settings": 3, "places": {}, "since": ""}'])
def test_a_damaged_document_is_named(damaged: bytes) -> None:
    store = DictStore()
    store.objects[KEY] = damaged
    with pytest.raises(ChainError, match=rf"{KEY}.*it is damaged; restore it"):
        read_settings(store)


def test_a_path_that_is_not_utf_8_is_readable_but_for_what_is_not() -> None:
    store = DictStore()
    note_settings(store, replace(by(), places={"model.theta_0": os.fsdecode(b"/models/z\xff")}), now=datetime.now(UTC))
    assert read_settings(store)[0].places == {"model.theta_0": "/models/z?"}
