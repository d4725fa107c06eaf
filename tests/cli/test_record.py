"""What an outage leaves behind, and what the worker's own recording is set to."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from adawise.__main__ import main
from adawise.app import recording
from adawise.app.recording import worker_recorder
from adawise.errors import StoreFull
from adawise.recording.recorder import Recorder
from adawise.records import Message
from adawise.settings import Settings
from adawise.settings.recording import RecordSettings
from adawise.sink import claims
from adawise.store.store import LocalStore
from adawise.worker.attempts import Backoff
from tests.fakes import FakeSource


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("24h", 86_400.0), ("7d", 604_800.0), ("0", 0.0)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert RecordSettings.model_validate({"keep": text}).keep == seconds


@pytest.mark.parametrize("value", ["7", "", "1w", "-1h", "1.5h", 7, "999999999d", None.__class__])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        RecordSettings.model_validate({"keep": value})


def test_a_worker_records_only_if_it_is_asked_to(tmp_path: Path) -> None:
    source, root = FakeSource(), tmp_path / "recording"
    for enabled in (False, True):
        settings = Settings.model_validate({"record": {"enabled": enabled, "root": str(root)}})
        recorder = worker_recorder(settings, source, failpoint=lambda _: None)
        assert (recorder is not None) == root.exists() == enabled
        if recorder is not None:
            recorder.close()


@pytest.mark.parametrize(("command", "policy"), [("record", "FILES"), ("labels", "_LABEL_FILES")])
@pytest.mark.cases("worker", every=2)
def test_an_outage_of_the_store_leaves_no_recorder_behind_and_its_files_are_counted(
    command: str, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two attempts store a file each before the store is full; the third one stores the rest."""
    begun: list[weakref.ref[Recorder]] = []
    room = 0
    create = LocalStore.create
    values = [b'{"row_id": "frames/0/%d/0", "label": "car"}' % n for n in range(25)]
    messages = [Message("frames", 0, n, b"gate", value, timestamp_ms=n) for n, value in enumerate(values)]

    def source(*_: object, **__: object) -> FakeSource:
        nonlocal room
        gc.collect()
        assert [recorder for each in begun if (recorder := each()) is not None] == []
        room = 1 if len(begun) < 2 else len(messages)
        return FakeSource(messages, finite=True)

    def noted(*arguments: Any, **options: Any) -> Recorder:
        recorder = Recorder(*arguments, **options)
        begun.append(weakref.ref(recorder))
        return recorder

    def limited(store: LocalStore, key: str, data: bytes) -> None:
        nonlocal room
        if key.endswith(".parquet"):
            if not room:
                raise StoreFull("no space left on device")
            room -= 1
        create(store, key, data)

    claims.sink_id(LocalStore(tmp_path), created_at="2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(recording, policy, replace(getattr(recording, policy), max_messages=10))
    monkeypatch.setattr(recording, "kafka_source", source)
    monkeypatch.setattr(recording, "Recorder", noted)
    monkeypatch.setattr(LocalStore, "create", limited)
    monkeypatch.setattr(Backoff, "due", lambda *_: True)
    place = ["-o", str(tmp_path / "r"), "--kafka.topic"] if command == "record" else [str(tmp_path), "--topic"]
    assert main([command, *place, "frames", "--follow"]) == 0
    assert len(begun) == 3
    output = capsys.readouterr().out
    assert ("25 messages" if command == "record" else "25 labels of 25 messages") in output
    found = [offset for path in tmp_path.rglob("*.parquet") for offset in pq.read_table(path)["offset"].to_pylist()]
    assert sorted(found) == list(range(25))
