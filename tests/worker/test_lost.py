"""No loss is silent: what a broker deleted before it was read, and what it has in place of what was read."""

from __future__ import annotations

import json
import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from kafka import KafkaAdminClient
from kafka.structs import TopicPartition as KafkaPartition

from adawise.__main__ import main
from adawise.settings import Settings
from adawise.sink.files import read_bytes, segment_keys
from adawise.sink.holes import of_root
from adawise.sink.segment import read_rows
from adawise.store.store import LocalStore
from tests.brokers import ApacheKafka, Broker, MakeTopic, Unavailable, broker_of, create_topic, fresh_name
from tests.models import PairFolder
from tests.processes import run
from tests.sink.stored import read_predictions
from tests.worker.cameras import IMAGES, Output, Topic, settings_for, single
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess, command_line, wait_until

FIRST_MS = int(time.time() * 1000) - 3_600_000


def produce(topic: Topic, count: int, *, from_ms: int = FIRST_MS) -> None:
    """Of one camera, a second apart."""
    rng, sent = random.Random(len(topic.sent)), len(topic.sent)
    topic.produce(single(rng, 0, 1, from_ms + 1_000 * n) for n in range(sent, sent + count))


def events(log: Path, name: str) -> list[dict[str, object]]:
    """The lines of a worker's log with this event."""
    return [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == name]


@pytest.mark.needs("delete_records")
def test_what_retention_took_is_told_by_the_worker_by_verify_and_by_drift(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yard, group, output, log = Topic(broker, topic(1)), fresh_name("yard"), Output(root), root.with_suffix(".log")
    settings = settings_for(yard, pair, root, group, kafka={"on_gap": "skip"}, batch={"max_age_s": 60.0})
    produce(yard, 2 * IMAGES)
    with WorkerProcess(Plan(settings, log)) as worker:
        wait_until(lambda: output.rows == yard.rows, worker)
        worker.stop()
    produce(yard, 8 * IMAGES)
    first, until = 2 * IMAGES, 7 * IMAGES
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(",")) as admin:
        admin.delete_records({KafkaPartition(yard.name, 0): until})
    with WorkerProcess(Plan(settings, log)) as worker:
        wait_until(lambda: output.rows == yard.rows - (until - first), worker)
        worker.stop()

    (line,) = events(log, "messages_lost")
    assert (line["level"], line["partition"]) == ("warning", 0)
    assert (line["first"], line["last"], line["messages"]) == (first, until - 1, until - first)
    assert line["newest_before"] < line["oldest_after"]  # type: ignore[operator]
    capsys.readouterr()
    assert main(["verify", str(root)]) == 0
    text = capsys.readouterr().out
    assert f"every offset once except {until - first} that were never served" in text
    assert f"{yard.name}/0: offsets {first} to {until - 1} have no rows, and that is recorded: deleted" in text
    assert main(["verify", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["never_served"] == until - first
    assert main(["drift", str(root)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{until - first} messages of {yard.name}/0 (offsets {first} to {until - 1}) were never served" in printed
    assert f"between {line['newest_before']} and {line['oldest_after']}: deleted" in printed


@pytest.mark.check("worker")
def test_a_log_that_was_rewritten_lets_its_partition_stand_and_verify_finds_every_row_of_it(
    pair: PairFolder, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker whose disk was restored has 40 messages where it had 80, and then 100 others: what an unclean election
    leaves as well.
    """
    with ExitStack() as stack:
        try:
            kafka = stack.enter_context(ApacheKafka())
        except Unavailable as reason:
            pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")
        broker, name = broker_of(kafka), fresh_name("rewritten")
        create_topic(broker, name)
        create_topic(broker, f"{name}.dlq")
        yard, output, log = Topic(broker, name), Output(root), root.with_suffix(".log")
        settings = settings_for(yard, pair, root, fresh_name("yard"), batch={"max_age_s": 60.0})
        produce(yard, 5 * IMAGES)
        disk = next(kafka._folder.rglob(f"{name}-0"))
        shutil.copytree(disk, tmp_path / "backup")  # of a live broker, as a snapshot of its disk is
        produce(yard, 5 * IMAGES)
        with WorkerProcess(Plan(settings, log)) as worker:
            wait_until(lambda: output.rows == yard.rows, worker)
            worker.stop()
        kafka.kill(1)
        shutil.rmtree(disk)
        shutil.copytree(tmp_path / "backup", disk)
        for checkpoint in disk.parent.glob("*checkpoint"):
            if name in checkpoint.read_text():
                checkpoint.unlink()
        kafka.start()
        lost = {place: yard.sent.pop(place) for place in sorted(yard.sent)[5 * IMAGES :]}
        beside = ["--broker", "--kafka.bootstrap-servers", broker.bootstrap_servers, "--json"]

        assert main(["verify", str(root), *beside]) == 3  # the chain is ahead of the log
        (fault,) = json.loads(capsys.readouterr().out)["faults"]
        assert "expected the broker's log to reach offset" in fault["fault"]
        assert fault["fault"].endswith(f"but it ends at {5 * IMAGES}")

        produce(yard, 12 * IMAGES, from_ms=FIRST_MS + 1_800_000)
        rows = output.rows
        with WorkerProcess(Plan(settings, log)) as worker:
            while not events(log, "partition_blocked"):  # it tells its parent nothing of that
                worker.listen(0.1)
            worker.stop()
        line = events(log, "partition_blocked")[0]
        assert line["level"] == "error"
        assert "Its log was rewritten" in str(line["error"])
        assert output.rows == rows
        assert main(["verify", str(root), *beside]) == 3
        faults = json.loads(capsys.readouterr().out)["faults"]
        assert sum(int(fault["fault"].split("others at ")[1].split()[0]) for fault in faults) == len(lost)


def called(settings: Settings, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of `adawise` with these settings."""
    done = run(*arguments, env=command_line(settings), timeout=DEADLINE_S)
    return done.returncode, done.stdout + done.stderr


def test_a_hole_is_told_by_check_and_by_the_worker_bridged_beside_it_and_computed_again_as_it_was(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yard, output, log = Topic(broker, topic(1)), Output(root), root.with_suffix(".log")
    changes: dict[str, dict[str, Any]] = {"sink": {"flush_rows": IMAGES}, "batch": {"max_age_s": 60.0}}
    settings = settings_for(yard, pair, root, fresh_name("yard"), **changes)
    with WorkerProcess(Plan(settings, log)) as worker:
        for _ in range(5):
            produce(yard, IMAGES)
            wait_until(lambda: output.rows == yard.rows, worker)
        worker.stop()
    keys = [key for _, key in segment_keys(output.store)]
    lost = read_rows(read_bytes(output.store, keys[2]), keys[2])
    output.store.delete(keys[2])

    code, printed = called(settings, "doctor")
    assert code == 1
    assert f"FAIL  chains: expected every segment that the newest ones count, but {yard.name}/0: between" in printed
    with WorkerProcess(Plan(settings, log)) as live:
        while not events(log, "hole_found"):
            live.listen(0.1)
        assert main(["repair", str(root)]) == 3
        assert main(["repair", str(root), "--yes"]) == 0
        assert f"done: create {keys[2]} without rows, so that {keys[3]} follows again" in capsys.readouterr().out
        produce(yard, IMAGES)
        wait_until(lambda: output.rows == yard.rows - lost.num_rows, live)
        live.stop()
    assert main(["verify", str(root)]) == 0
    assert f"every offset once except {lost.num_rows} that were never served" in capsys.readouterr().out
    assert len(events(log, "hole_found")) == 1
    assert list(of_root(output.store)) == []

    again = tmp_path / "again"
    code, printed = called(
        settings, "replay", "--topic", yard.name, "--state-of", f"{root}/{keys[1]}", "-o", str(again)
    )
    assert code == 0, printed
    rows = read_predictions(LocalStore(again))
    wanted = rows.filter(pc.is_in(rows["offset"], lost["offset"]))
    for name in ("row_id", "label", "alpha", "batch_number"):
        assert wanted[name].to_pylist() == lost[name].to_pylist()
