"""`adawise labels` on a broker: each label once, whoever is killed and however many collect; the report uses them."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from adawise.__main__ import main
from adawise.app import recording
from adawise.records import Message
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.drift import yard
from tests.kafka.sources import DEADLINE_S, produce
from tests.replay.runs import process

PARTITIONS, EACH, OF_FILE = 2, 1_200, 1_000  # messages


def small_files() -> None:
    """A file with every thousandth message of a partition, and not with every 10,000th."""
    recording._LABEL_FILES = replace(recording._LABEL_FILES, max_messages=OF_FILE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return yard.write(tmp_path / "yard")


def arguments(broker: Broker, root: Path, topic: str, group: str, *more: str) -> list[str]:
    kafka = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.group", group]
    return ["labels", str(root), "--topic", topic, *kafka, "--kafka.session-timeout-ms", "6000", *more]


def collected(broker: Broker, root: Path, topic: str, group: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(arguments(broker, root, topic, group, "--json")) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def until(done: Callable[[], bool]) -> None:
    give_up, never = time.monotonic() + DEADLINE_S, threading.Event()
    while not done():
        assert time.monotonic() < give_up
        never.wait(0.02)


def files(root: Path) -> list[Path]:
    return list(root.glob("labels/*/*/*.parquet"))


def test_labels_of_a_topic_are_stored_once_and_the_report_judges_by_them(
    broker: Broker, topic: MakeTopic, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, group = topic(2), fresh_name("labels")
    rows = yard.predictions().to_pylist()[::40]
    accepted = [row for row in rows if row["status"] == "accepted"]
    values = [{"row_id": row["row_id"], "label": row["label"]} for row in accepted]
    values += [{"row_id": accepted[0]["row_id"], "label": "bus" if accepted[0]["label"] == "car" else "car"}]
    produce(broker, [Message(name, 0, 0, None, json.dumps(value).encode()) for value in values])
    produce(broker, [Message(name, 1, 0, None, b"no label")])
    first = collected(broker, root, name, group, capsys)
    assert (first["messages"], first["labels"], first["unread"]) == (len(values) + 1, len(values), 1)
    again = collected(broker, root, name, group, capsys)
    assert (again["messages"], again["files"]) == (0, 0)
    assert main(["drift", str(root), "--json"]) == 0
    helped = json.loads(capsys.readouterr().out)["helped"]
    assert helped["labelled"] == len(accepted)
    assert helped["labels_from"] == f"{root}/labels"
    served = helped["arms"][0]
    assert served["accuracy"]["value"] == pytest.approx(1.0 - 1.0 / len(accepted))
    assert any("1 labels" in note and "could not be read" in note for note in helped["notes"])


def test_two_collectors_of_which_one_is_killed_store_each_message_once(
    broker: Broker, topic: MakeTopic, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, group = topic(PARTITIONS), fresh_name("labels")
    value = b'{"row_id": "frames/0/%d/0", "label": "car"}'
    follow = arguments(broker, root, name, group, "--follow")
    with (
        process(tmp_path, *follow, before=small_files) as doomed,
        process(tmp_path, *follow, before=small_files) as other,
    ):
        produce(broker, [Message(name, n % PARTITIONS, 0, None, value % n) for n in range(PARTITIONS * EACH)])
        until(lambda: bool(files(root)))
        doomed.send_signal(signal.SIGKILL)
        until(lambda: len(files(root)) >= 2)
        other.send_signal(signal.SIGTERM)
        other.communicate(timeout=DEADLINE_S)
        assert (doomed.wait(), other.returncode) == (-signal.SIGKILL, 0)
    collected(broker, root, name, group, capsys)
    with duckdb.connect() as connection:
        found = connection.execute(
            'SELECT partition, count(*), min("offset"), max("offset"), count(DISTINCT "offset"), '
            "count(DISTINCT labels[1].row_id) FROM read_parquet(?) GROUP BY ALL ORDER BY ALL",
            [f"{root}/labels/*/*/*.parquet"],
        ).fetchall()
    assert found == [(number, EACH, 0, EACH - 1, EACH, EACH) for number in range(PARTITIONS)]


def test_labels_go_beside_what_a_worker_wrote_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["labels", str(tmp_path)]) != 0
    assert "expected the output of a worker, where labels are stored" in capsys.readouterr().err


def test_labels_of_another_topic_are_not_mixed_in_and_the_way_out_is_told(
    broker: Broker, topic: MakeTopic, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, group = topic(), topic(), fresh_name("labels")
    collected(broker, root, first, group, capsys)
    assert main(arguments(broker, root, second, group)) == 1
    assert f"move its files into a folder below it, such as {root}/labels/before" in " ".join(
        capsys.readouterr().err.split()
    )
