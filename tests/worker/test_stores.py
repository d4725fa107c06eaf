"""Recordings and labels by the commands, in every kind of store: what one run wrote, the next one reads."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.app.worker import run_worker
from adawise.recording import format as layout
from adawise.records import Message, TopicPartition
from adawise.sink import claims
from adawise.store import object_store
from adawise.store.store import open_store
from adawise.worker.events import Event, SegmentCommitted
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.kafka.sources import produce
from tests.models import PairFolder
from tests.sink.stored import read_predictions
from tests.store.clouds import new_bucket, s3_environment, s3_server
from tests.worker.cameras import IMAGES, Topic, settings_for, single
from tests.worker.loop import Journal
from tests.worker.recordings import recorded


@pytest.fixture(params=["folder", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where everything goes, as a user names it."""
    if request.param == "s3":
        for name, value in s3_environment(s3_server()).items():
            monkeypatch.setenv(name, value)
        return f"s3://{new_bucket()}/some/prefix"
    if request.param == "memory":  # of one process, for as long as the test lasts
        monkeypatch.setattr(object_store, "open_url", cache(object_store.open_url))
        return "memory://bucket"
    return str(tmp_path / "folder")


@pytest.fixture
def filled(broker: Broker, topic: MakeTopic) -> Topic:
    return Topic(broker, topic(1))


@pytest.fixture(autouse=True)
def environment(filled: Topic, pair: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the commands, as a user has them in the environment."""
    chosen = settings_for(filled, pair, tmp_path / "unused", filled.name)
    groups: dict[str, dict[str, Any]] = chosen.model_dump(mode="json", exclude_unset=True)
    for group, values in groups.items():
        for name, value in values.items():
            monkeypatch.setenv(f"ADAWISE_{group}__{name}".upper(), str(value))


def send(filled: Topic, count: int, *, seed: int) -> None:
    rng = random.Random(seed)
    filled.produce(single(rng, 0, 1) for _ in range(count))


def test_a_recording_is_continued_replayed_and_pruned(
    filled: Topic, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"{folder}/recording"
    send(filled, IMAGES, seed=1)
    assert main(["record", "-o", root]) == 0
    send(filled, IMAGES, seed=2)
    assert main(["record", "-o", root]) == 0
    output = re.findall(r"(\d+) messages \(.* added to", capsys.readouterr().out)
    assert output == [str(IMAGES), str(IMAGES)]
    assert [message.offset for message in recorded(root)] == list(range(2 * IMAGES))
    assert main(["replay", root, "-o", str(tmp_path / "again")]) == 0
    assert read_predictions(open_store(str(tmp_path / "again")), ["row_id"]).num_rows == 2 * IMAGES
    assert main(["record", "-o", root, "--prune-only", "--forget-images-after", "0s"]) == 0
    assert "2 without images now" in capsys.readouterr().out
    assert main(["record", "-o", root]) == 0
    assert recorded(root, forgotten="skip") == []


def test_a_damaged_file_is_named_and_nothing_says_that_anything_is_to_be_removed(
    filled: Topic, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, key = f"{folder}/recording", layout.key_of(TopicPartition(filled.name, 0), 0)
    send(filled, 2, seed=1)
    assert main(["record", "-o", root]) == 0
    open_store(root).put(key, b"PAR1 is not all that makes a file")
    assert main(["record", "-o", root]) == 1
    output = capsys.readouterr().err
    assert f"{root}/{key}: expected a Parquet file" in output
    assert "Remove nothing: start again" in output


def test_labels_are_added_by_a_second_run(
    filled: Topic, folder: str, broker: Broker, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    claims.sink_id(open_store(folder), created_at="2026-11-26")
    name = topic(1)
    for number in range(2):
        label = {"row_id": f"{filled.name}/0/{number}/0", "label": "car"}
        produce(broker, [Message(name, 0, number, None, json.dumps(label).encode())])
        assert main(["labels", folder, "--topic", name, "--kafka.group", fresh_name("g"), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["labels"], document["files"], document["unread"]) == (1, 1, 0)
    assert len([key for key in open_store(f"{folder}/labels").list("") if key.endswith(".parquet")]) == 2


class UntilWritten(Journal):
    """Sends SIGTERM when so many rows are written."""

    def observe(self, event: Event) -> None:
        super().observe(event)
        if isinstance(event, SegmentCommitted) and sum(each.rows for _, each in self.commits) == IMAGES:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_that_records_is_started_again(filled: Topic, pair: PairFolder, folder: str, tmp_path: Path) -> None:
    if folder.startswith("memory"):
        pytest.skip("a worker's settings name no store that ends with it")
    root = f"{folder}/recording"
    changes = {"record": {"enabled": True, "root": root}}
    for run in range(2):
        send(filled, IMAGES, seed=run)
        settings = settings_for(filled, pair, f"{folder}/output", filled.name, **changes)
        assert run_worker(settings, observer=UntilWritten()) == 0
    assert [message.offset for message in recorded(root)] == list(range(2 * IMAGES))
    assert read_predictions(open_store(f"{folder}/output"), ["row_id"]).num_rows == 2 * IMAGES
