"""What `run --check` says of the recording that a worker would make."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from adawise.build.recording import recording_folder
from adawise.commands.run import checks
from adawise.errors import BrokerUnavailable
from adawise.kafka import unpack
from adawise.ports import TopicIdentity
from adawise.settings import Settings
from adawise.sink import claims
from adawise.store.store import LocalStore, open_store
from tests.store.clouds import new_bucket, open_s3, s3_server

IDENTITY = TopicIdentity("cluster", "an-id", 2)


def settings(folder: Path, topic: str = "yard", *, enabled: bool = True) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"topic": topic},
            "sink": {"root": str(folder / "out")},
            "record": {"enabled": enabled, "root": str(folder / "recording")},
        }
    )


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_identity", lambda settings: IDENTITY)
    monkeypatch.setattr(checks, "_commits", lambda settings: {})
    for name in ("_group", "_letters", "_model"):
        monkeypatch.setattr(checks, name, lambda settings: "no matter")
    topics = SimpleNamespace(expect_not_compacted=lambda name: None)
    monkeypatch.setattr(checks, "_topics", lambda settings: nullcontext(topics))


def told(wanted: Settings) -> dict[str, tuple[str, str]]:
    return {check.name: (check.status, check.detail) for check in checks.check(wanted)}


def test_the_folder_of_the_recording_is_looked_at_if_the_worker_records(tmp_path: Path) -> None:
    status, detail = told(settings(tmp_path))["recording folder"]
    assert (status, detail) == (
        "ok",
        f"{tmp_path}/recording creates only what is absent, and can hold a recording of yard",
    )
    recording_folder(settings(tmp_path), IDENTITY)
    status, detail = told(settings(tmp_path))["recording folder"]
    assert (status, detail) == ("ok", f"{tmp_path}/recording creates only what is absent, and is a recording of yard")
    assert "recording folder" not in told(settings(tmp_path, enabled=False))


@pytest.mark.parametrize("name", ["folder", "s3"])
def test_nothing_is_left_behind_where_nothing_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"s3://{new_bucket()}/some/prefix" if name == "s3" else f"{tmp_path}/not/there"
    store = open_s3(monkeypatch, s3_server(), root) if name == "s3" else None
    places = {"sink": {"root": root}, "record": {"root": f"{root}/recording"}}
    wanted = Settings.model_validate({"kafka": {"topic": "yard"}, **places})
    found = told(wanted.model_copy(update={"record": wanted.record.model_copy(update={"enabled": True})}))
    assert {found[part][0] for part in ("output folder", "recording folder")} == {"ok"}
    assert (store.list("") if store else list(tmp_path.iterdir())) == []


def test_an_output_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    claims.sink_id(open_store(str(tmp_path / "out")), created_at="then")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert told(settings(tmp_path, enabled=False))["output folder"][0] == "ok"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_store_that_overwrites_fails_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "create", LocalStore.put)
    status, detail = told(settings(tmp_path, enabled=False))["output folder"]
    assert status == "fail"
    assert "refuses to create a key that exists" in detail
    assert list(tmp_path.iterdir()) == []


def test_a_recording_of_another_topic_is_told_before_the_worker_starts(tmp_path: Path) -> None:
    recording_folder(settings(tmp_path, "street"), IDENTITY)
    status, detail = told(settings(tmp_path))["recording folder"]
    assert status == "fail"
    assert "street" in detail
    assert "Record into a new folder" in detail


def test_without_a_broker_each_part_still_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Settings) -> TopicIdentity:
        raise BrokerUnavailable("nobody answers")

    monkeypatch.setattr(checks, "_identity", away)
    found = told(settings(tmp_path))
    assert found["recording folder"] == ("fail", "nobody answers")
    assert found["output folder"][0] == "ok"


def test_the_codecs_of_batches_are_named_and_one_that_is_not_here_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(settings(tmp_path))["codecs of batches"] == ("ok", "none, gzip, snappy, lz4, zstd")
    monkeypatch.setattr(unpack, "missing_codecs", lambda: ["lz4"])
    status, detail = told(settings(tmp_path))["codecs of batches"]
    assert status == "fail"
    assert "this build of pyarrow lacks lz4: a partition with a batch that is compressed so will stand" in detail
