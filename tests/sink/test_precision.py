"""A root keeps the number format of its workers: claimed once, or read from what served its newest segments."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adawise.errors import ChainError
from adawise.ports import ServedBy
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.served_by import (
    claim_precision,
    footers_within,
    newest_footers,
    precision_of,
    read_precision,
    served_precision,
)
from adawise.store.store import LocalStore, open_store
from tests.sink.building import CLASSES, IDENTITY, TP, DictStore, draft, open_chain

FIXTURES = Path(__file__).parents[1] / "fixtures"


def by(model: str, precision: str, device: str = "cpu") -> ServedBy:
    settings = {"model.precision": precision, "model.device": device}
    return ServedBy(CLASSES, model, "config", "", settings, {})


def test_the_first_claim_holds() -> None:
    store = DictStore()
    assert read_precision(store) is None
    assert claim_precision(store, "bf16") == claim_precision(store, "fp32") == read_precision(store) == "bf16"
    assert json.loads(store.objects[layout.NUMERICS]) == {"layout": 1, "precision": "bf16"}


@pytest.mark.parametrize("data", [b"", b"{}", b'{"precision": "fp8"}', b'{"precision": 16}', b"\xff", b"[" * 100_000])
def test_a_damaged_claim_is_named_and_stays_as_it_is(data: bytes) -> None:
    store = DictStore()
    store.objects[layout.NUMERICS] = data
    requests: list[Callable[[], object]] = [lambda: read_precision(store), lambda: claim_precision(store, "fp32")]
    for request in requests:
        with pytest.raises(ChainError, match=r"_numerics\.json: .* it is damaged; restore it"):
            request()
    assert store.objects == {layout.NUMERICS: data}


@pytest.mark.parametrize(
    ("precision", "device", "found"),
    [
        ("float32", "cpu", "fp32"),
        ("bfloat16", "cpu", "bf16"),
        ("float16", "NVIDIA T4 7.5 cuda 13.0 cudnn 91000", "fp16"),
        ("float32", "NVIDIA L4 8.9 cuda 13.0 cudnn 91000 tf32", "tf32"),
        ("float8", "cpu", None),
    ],
)
def test_recorded_settings_name_a_format(precision: str, device: str, found: str | None) -> None:
    assert precision_of(by("model", precision, device).settings) == found
    assert precision_of({}) is None


def test_without_a_claim_the_newest_segment_whose_settings_are_recorded_says_what_served() -> None:
    store = DictStore()
    assert served_precision(store, newest_footers(store)) is None
    chain = open_chain(store)
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    for number, served in enumerate((by("old", "bfloat16"), by("new", "float32"), ServedBy(CLASSES, "none", "config"))):
        chain.commit(replace(draft(4 * number, 4 * number + 4, number=number), by=served))
        (footer,) = newest_footers(store)
        assert footer.model_fingerprint == served.model_fingerprint
        assert served_precision(store, [footer]) == ("bf16", "fp32", None)[number]
    for part, expected in (((0, 4), "bf16"), ((0, 5), "fp32"), ((2, 8), "fp32"), ((0, 99), None), ((3, 3), None)):
        assert served_precision(store, footers_within(store, {TP: part})) == expected
    footers = [
        replace(footer, model_fingerprint=name, created_at=datetime(2026, 12, day, tzinfo=UTC).isoformat())
        for name, day in (("new", 2), ("old", 3), ("none", 4))
    ]
    assert served_precision(store, footers) == "bf16"
    store.objects[layout.settings_key("old", "config")] = b"{}"
    assert served_precision(store, footers) == "fp32", "a damaged document counts as missing"
    newest = max(store.list(layout.PREDICTIONS))
    store.objects[newest] = store.objects[newest][:-9]
    nowhere = TopicPartition("frames", 9)
    assert newest_footers(store) == footers_within(store, {TP: (9, 99), nowhere: (0, 9)}) == []
    first = min(store.list(layout.PREDICTIONS))
    del store.objects[first]
    (footer,) = footers_within(store, {TP: (0, 2)})
    assert footer.first == 4, "the first that is left"


def test_the_newest_segments_of_all_partitions_are_found_by_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    store, listed = open_store(str(FIXTURES / "root_0_1_0" / "root")), list[str]()
    real = LocalStore.list

    def counted(self: LocalStore, prefix: str) -> list[str]:
        listed.append(prefix)
        return real(self, prefix)

    monkeypatch.setattr(LocalStore, "list", counted)
    assert len(newest_footers(store)) == 2
    assert listed == [layout.PREDICTIONS, layout.RETAINED]


@pytest.mark.parametrize(
    ("root", "found"),
    [("version_0_2_1/root", "fp32"), ("version_0_2_1/replayed", "fp32"), ("version_0_2_0/root", None)],
)
def test_roots_of_earlier_versions(root: str, found: str | None) -> None:
    store = open_store(str(FIXTURES / root))
    footers = newest_footers(store)
    assert len(footers) == 1
    assert read_precision(store) is None
    assert served_precision(store, footers) == found
