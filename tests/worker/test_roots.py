"""No colleague stops it: what a second worker may not do to the root of a live one, on real processes."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from adawise.settings import Settings
from adawise.sink.claims import read_sink_id, sink_id
from adawise.store.store import open_store
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder
from tests.processes import run
from tests.store.clouds import new_bucket, open_s3, s3_server
from tests.worker.cameras import IMAGES, Output, Topic, run_to_the_end, settings_for, single
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess, command_line, wait_until


def refused(settings: Settings) -> str:
    """What `adawise run` says that ends with 2."""
    done = run("run", env=command_line(settings), timeout=DEADLINE_S)
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def batches(topic: Topic, count: int) -> None:
    """Whole batches of one camera."""
    rng = random.Random(len(topic.sent))
    topic.produce(single(rng, 0, 1) for _ in range(count * IMAGES))


def test_another_group_is_refused_beside_a_live_worker_which_goes_on_undisturbed(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    """The former example of `run --help`: zero-shot only, in another group, on the same root."""
    yard, group = Topic(broker, topic(1)), fresh_name("yard")
    batches(yard, 3)
    settings = settings_for(yard, pair, root, group)
    plain = settings_for(yard, pair, root, fresh_name("plain"), search={"strategy": "fixed", "alpha": 0.0})
    output = Output(root)
    with WorkerProcess(Plan(settings, root.with_suffix(".log"))) as live:
        wait_until(lambda: output.rows == yard.rows, live)
        printed = refused(plain)
        batches(yard, 3)
        wait_until(lambda: output.rows == yard.rows, live)
        live.stop()
        assert all(event.won for event in live.seen if event.what == "committed")
    assert f"sink.root {root} belongs to the workers of group {group!r} on topic {yard.name!r}" in printed
    assert f"`adawise replay --topic {yard.name} -o FOLDER`" in printed
    assert output.faults(yard) == []


@pytest.mark.check("worker")
def test_another_class_list_is_refused_unless_it_is_said_what_becomes_of_the_streams(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    yard, group, other = Topic(broker, topic(1)), fresh_name("yard"), root.with_name("other.txt")
    other.write_text("lorry\ncar\n", encoding="utf-8")
    batches(yard, 3)
    run_to_the_end(yard, pair, root, group)
    changed = settings_for(yard, pair, root, group, model={"classes": other})
    assert f"sink.root {root} was written with another pair" in (printed := refused(changed))
    assert "model.classes was " in printed
    assert "--model.on-change to reset (each stream starts anew) or keep" in printed
    reset = settings_for(yard, pair, root, group, model={"classes": other, "on_change": "reset"})
    for requested, code, logged_before in (
        (changed, 1, "was written with another pair"),
        (reset, 0, f"classes differ from those that {root} was written with: every stream starts anew"),
    ):
        checked = run("doctor", env=command_line(requested), timeout=DEADLINE_S)
        assert (checked.returncode, logged_before in " ".join(checked.stdout.split())) == (code, True), checked.stdout

    for times, (classes, on_change) in enumerate(((other, "keep"), (pair.classes, "reset")), 1):
        batches(yard, 2)
        output = run_to_the_end(yard, pair, root, group, model={"classes": classes, "on_change": on_change})
        text = [line for line in root.with_suffix(".log").read_text().splitlines() if "model_changed" in line]
        assert len(text) == times
    assert [trace["batch_number"] for trace in output.traces] == [0, 0, 1, 1, 2, 3, 4]
    assert [trace["batch_number"] for trace in output.traces if trace["reset"] == "settings_changed"] == [0]
    assert output.faults(yard) == []


@pytest.mark.needs("commit_metadata")
def test_a_second_root_of_the_group_is_refused_beside_a_live_worker_which_keeps_its_partitions(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    yard, group = Topic(broker, topic(2)), fresh_name("yard")
    batches(yard, 3)
    settings = settings_for(yard, pair, root, group)
    other = settings_for(yard, pair, root.with_name("other"), group)
    output = Output(root)
    with WorkerProcess(Plan(settings, root.with_suffix(".log"))) as live:
        wait_until(lambda: output.rows == yard.rows, live)
        printed = refused(other)
        claimed(other.sink.root)  # a root that has an id of its own is refused likewise
        named = refused(other)
        batches(yard, 3)
        wait_until(lambda: output.rows == yard.rows, live)
        live.stop()
        assert not [event for event in live.seen if event.what == "lost"]
    ours, theirs = read_sink_id(output.store), read_sink_id(open_store(other.sink.root))
    assert f"group {group!r} writes to the output with the id {ours}" in printed
    assert f"sink.root {other.sink.root} is empty" in printed
    assert f"sink.root {other.sink.root} has the id {theirs}" in named
    assert "--kafka.group" in named


def claimed(root: str) -> None:
    sink_id(open_store(root), created_at="2026-11-26T10:00:00+00:00")


def test_an_empty_root_of_a_group_that_has_committed_is_refused_until_the_operator_says_so(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    """The disk was not mounted, or somebody emptied the folder."""
    yard, group = Topic(broker, topic(1)), fresh_name("yard")
    batches(yard, 3)
    settings = settings_for(yard, pair, root, group)
    run_to_the_end(yard, pair, root, group)
    root.rename(root.with_name("elsewhere"))
    root.mkdir()
    printed = refused(settings)
    assert f"sink.root {root} is empty" in printed
    assert "--sink.begin-anew" in printed
    assert list(root.iterdir()) == []
    output = run_to_the_end(yard, pair, root, group, sink={"begin_anew": True})
    assert output.faults(yard) == []
    batches(yard, 1)
    assert run_to_the_end(yard, pair, root, group).faults(yard) == []


def test_an_emptied_bucket_is_refused_likewise_and_nothing_is_written_to_it(
    broker: Broker, topic: MakeTopic, pair: PairFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard, group = Topic(broker, topic(1)), fresh_name("yard")
    url = f"s3://{new_bucket()}/yard"
    store = open_s3(monkeypatch, s3_server(), url)
    batches(yard, 1)
    member = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers.split(","), group_id=group, enable_auto_commit=False
    )
    with closing(member):
        member.assign([KafkaPartition(yard.name, 0)])
        member.commit({KafkaPartition(yard.name, 0): OffsetAndMetadata(5, "", -1)})
    output = refused(settings_for(yard, pair, url, group))
    assert f"sink.root {url} is empty, but group {group!r} has committed offset 5 of {yard.name}/0" in output
    assert store.list("") == []
