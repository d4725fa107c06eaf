"""`adawise status` as an operator and a script call it: on a folder, on S3, beside a broker and without one."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from adawise.__main__ import main
from adawise.errors import Reason
from adawise.kafka.group import Membership
from adawise.output.verify.findings import Finding
from adawise.records import TopicPartition
from adawise.sink.owner import Owner
from adawise.store.store import open_store
from adawise.watch.status import facts
from adawise.watch.status.broker import BrokerFacts
from tests.brokers import Broker, MakeTopic
from tests.deadlines import DEADLINE_S
from tests.processes import Command
from tests.sink.building import DictStore
from tests.store.clouds import new_bucket, open_s3, s3_server
from tests.watch.status.yard import Yard

Captured = pytest.CaptureFixture[str]
NOBODY = "127.0.0.1:1"

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where there is nothing yet."""
    if request.param == "folder":
        return str(tmp_path / "yard")
    url = f"s3://{new_bucket()}/yard"
    open_s3(monkeypatch, s3_server(), url)
    return url


def well(root: str, owner: Owner | None = None) -> Yard:
    """Two cameras, seen a moment ago."""
    yard = Yard(open_store(root), owner=owner, now_s=time.time())
    for ago_s in (20, 1):
        yard.write(ago_s=ago_s, batches=[("north", 4, 0.25), ("south", 4, 1.0)])
    return yard


def test_a_fleet_that_is_well_ends_with_0_and_one_in_trouble_with_3_and_the_trouble_comes_first(
    root: str, capsys: Captured
) -> None:
    yard = well(root)
    assert main(["status", "--root", root, "--no-broker"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith(f"{root}: all is well; topic frames, group adawise")
    assert "broker was not asked: --no-broker" in out
    assert "2 cameras: 2 ok" in out
    assert "1.00   ██" in out
    yard.write(ago_s=0, rejected={"south": [Reason.UNDECODABLE_IMAGE] * 20})
    assert main(["status", "--root", root, "--no-broker"]) == 3
    heading, _, first, remedy, *_ = capsys.readouterr().out.splitlines()
    assert heading.startswith(f"{root}: 1 trouble of 1 kind")
    assert first.startswith("! south: 20 images were rejected and 8 accepted; most for undecodable_image")
    assert remedy.startswith("  -> fix its producer")


def test_the_json_has_every_field_that_the_reference_names(root: str, capsys: Captured) -> None:
    well(root).write(ago_s=0, rejected={"south": [Reason.EMPTY]})
    assert main(["status", "--root", root, "--no-broker", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["well"], found["root"]) == (1, False, root)
    shapes = {
        "troubles": Finding,
        "members": facts.MemberStatus,
        "partitions": facts.PartitionStatus,
        "cameras": facts.CameraStatus,
        "rejects": facts.RejectStatus,
    }
    assert set(found) == {"well", *(field.name for field in dataclasses.fields(facts.FleetStatus))}
    for name, shape in shapes.items():
        assert found[name]
        assert set(found[name][0]) == {field.name for field in dataclasses.fields(shape)}
    assert [(each["reason"], each["images"]) for each in found["rejects"]] == [("empty", 1)]


def test_a_broker_that_is_down_is_said_and_the_root_is_told_all_the_same(tmp_path: Path, capsys: Captured) -> None:
    well(str(tmp_path))
    assert main(["status", "--root", str(tmp_path), "--kafka.bootstrap-servers", NOBODY]) == 3
    out = capsys.readouterr().out
    assert f"! could not connect to Kafka at {NOBODY}" in out
    assert "broker_silent" in out
    assert "was not asked" not in out
    assert "2 cameras: 2 ok" in out


def test_a_root_that_is_none_is_a_mistake_of_its_setting(tmp_path: Path, capsys: Captured) -> None:
    assert main(["status", "--root", str(tmp_path / "typo"), "--no-broker"]) == 2
    assert f"there is no output of a worker in {tmp_path / 'typo'}; set --root" in capsys.readouterr().err


def test_a_mistyped_root_is_a_mistake_whatever_the_broker_knows_of_the_group(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a file of settings the topic and the group are right, and the root may still be mistyped."""
    frames_0 = TopicPartition("frames", 0)
    known = BrokerFacts("cluster", {frames_0: (0, 16)}, {frames_0: (16, "0123456789abcdef")}, Membership("Empty", []))
    monkeypatch.setattr("adawise.watch.status.reader.FleetReader._query_broker", lambda *_: known)
    well(str(tmp_path / "yard"))
    assert main(["status", "--root", str(tmp_path / "yrad")]) == 2
    err = capsys.readouterr().err
    assert f"there is no output of a worker in {tmp_path}/yrad; set --root" in err
    assert err.rstrip().endswith(f"did you mean {tmp_path}/yard?")


def test_of_a_thousand_cameras_those_in_trouble_are_shown_and_all_of_them_when_asked(
    tmp_path: Path, capsys: Captured
) -> None:
    yard = Yard(open_store(str(tmp_path)), now_s=time.time())
    yard.write(ago_s=9_000, batches=[(f"dead-{n}", 1, 0.5) for n in range(10)])
    yard.write(ago_s=1, batches=[(f"camera-{n:04d}", 1, 0.5) for n in range(1_000)])
    assert main(["status", "--root", str(tmp_path), "--no-broker"]) == 3
    out = capsys.readouterr().out
    assert "1,010 cameras: 10 silent, 1,000 ok" in out
    assert "camera-0001" not in out
    assert out.count("dead-") == 4 + 10  # troubles of a kind, and the table
    assert "and 6 more like it (--all)" in out
    assert main(["status", "--root", str(tmp_path), "--no-broker", "--all"]) == 3
    out = capsys.readouterr().out
    assert "camera-0999" in out
    assert out.count("dead-") == 20


def test_what_strangers_call_their_cameras_moves_no_cursor(tmp_path: Path, capsys: Captured) -> None:
    yard = Yard(open_store(str(tmp_path)), now_s=time.time())
    yard.write(ago_s=1, rejected={"\x1b[2J[red]evil\r\n" + "x" * 300: [Reason.EMPTY] * 3})
    yard.write(ago_s=0, batches=[("[bold]door[/]:smile:", 1, 0.5)])
    main(["status", "--root", str(tmp_path), "--no-broker"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert "[bold]door[/]:smile:" in out


def test_watching_looks_again_and_ctrl_c_ends_it_with_the_code_of_the_last_look(tmp_path: Path) -> None:
    yard = well(str(tmp_path))
    call = ("status", "--root", tmp_path, "--no-broker", "--json", "--watch", "0.2")
    with Command(*call, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        lines = iter(watching.stdout.readline, "")
        assert json.loads(next(lines))["well"]
        yard.write(ago_s=0, rejected={"south": [Reason.EMPTY] * 30})
        while json.loads(next(lines))["well"]:
            pass
        watching.send_signal(signal.SIGINT)
        rest = list(lines)
        assert watching.wait(DEADLINE_S) == 3
        assert all(json.loads(line) for line in rest)
        assert watching.stderr.read() == ""


def test_a_replay_s_output_has_no_group_to_ask_for(tmp_path: Path, capsys: Captured) -> None:
    well(str(tmp_path), Owner("", "frames", "", "replay"))
    assert main(["status", "--root", str(tmp_path), "--kafka.bootstrap-servers", NOBODY]) == 0
    assert "the output is a replay's" in capsys.readouterr().out


@pytest.fixture
def member(broker: Broker, topic: MakeTopic) -> Iterator[tuple[str, str]]:
    """A topic of two partitions whose group has one member, as a worker is one; what both are called."""
    name = topic(2)
    group = f"group-of-{name}"
    consumer = KafkaConsumer(
        name,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=group,
        client_id="worker-7",
        partition_assignment_strategy=[CooperativeStickyAssignor],
        enable_auto_commit=False,
    )
    with closing(consumer):
        give_up_s = time.monotonic() + DEADLINE_S
        while len(consumer.assignment()) < 2 and time.monotonic() < give_up_s:
            consumer.poll(200)
        yield name, group


@pytest.mark.needs("describe_configs")  # the embedded broker does not tell who has which partition
def test_beside_a_broker_it_says_who_has_what_and_how_far_behind_it_is(
    tmp_path: Path, broker: Broker, member: tuple[str, str], capsys: Captured
) -> None:
    topic, group = member
    well(str(tmp_path), Owner("", topic, group, "run"))
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers)) as producer:
        for _ in range(16):
            producer.send(topic, b"x", partition=0)
        producer.flush()
    arguments = ["status", "--root", str(tmp_path), "--kafka.bootstrap-servers", broker.bootstrap_servers, "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["topic"], found["group"], found["group_state"]) == (topic, group, "Stable")
    [worker] = found["members"]
    assert (worker["client_id"], worker["partitions"]) == ("worker-7", [0, 1])
    first, second = found["partitions"]
    assert first["member"] == second["member"] == worker["member"]
    facts_of = {name: first[name] for name in ("log_start", "log_end", "next_offset", "lag", "committed")}
    assert facts_of == {"log_start": 0, "log_end": 16, "next_offset": 16, "lag": 0, "committed": None}
    assert (second["lag"], second["lag_s"], second["segment"]) == (0, 0.0, None)


@pytest.mark.needs("times")
def test_the_age_of_the_oldest_waiting_message_is_its_own(
    tmp_path: Path, broker: Broker, member: tuple[str, str], capsys: Captured
) -> None:
    topic, group = member
    yard = Yard(open_store(str(tmp_path)), owner=Owner("", topic, group, "run"), now_s=time.time())
    yard.write(ago_s=1, batches=[("north", 4, 0.25)], pending=2)
    sent_s = time.time()
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers)) as producer:
        for n in range(11):
            producer.send(topic, b"x", partition=0, timestamp_ms=round(1e3 * (sent_s - 100 + n)))
        producer.flush()
    arguments = ["status", "--root", str(tmp_path), "--kafka.bootstrap-servers", broker.bootstrap_servers]
    assert main([*arguments, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    [trouble] = found["troubles"]
    assert (trouble["kind"], trouble["where"]) == ("behind", f"{topic}/0")
    first = found["partitions"][0]
    assert (first["lag"], first["pending"]) == (7, 2)  # five at the broker, and two that wait for their batch
    assert 96.0 <= first["lag_s"] < 120.0
    assert TopicPartition(first["topic"], first["partition"]) == TopicPartition(topic, 0)
    assert main(arguments) == 3
    assert f"! {topic}/0: 7 messages wait, the oldest for" in capsys.readouterr().out


def test_a_store_that_is_down_leaves_what_the_broker_knows(
    broker: Broker, member: tuple[str, str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adawise.errors import StoreUnavailable

    class Down(DictStore):
        def get(self, key: str) -> bytes | None:
            raise StoreUnavailable(f"{key}: nobody answers")

    monkeypatch.setattr("adawise.watch.status.reader.open_store", lambda root: Down())
    topic, group = member
    servers = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.topic", topic, "--kafka.group", group]
    assert main(["status", "--root", "s3://bucket/yard", *servers, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [trouble["kind"] for trouble in found["troubles"]] == ["root_unreadable"]
    assert [each["log_end"] for each in found["partitions"]] == [0, 0]


def test_a_page_waits_for_the_first_worker_of_its_root(tmp_path: Path) -> None:
    root = tmp_path / "yard"
    call = ("status", "--root", root, "--no-broker", "--http", "--http.port", "0", "--watch", "0.2")
    with Command(*call, stderr=subprocess.PIPE) as serving:
        assert serving.stderr is not None
        first = serving.stderr.readline()
        assert "there is no output of a worker" in first
        assert "; waiting for one, until Ctrl-C" in first
        well(str(root))
        assert " is shown at " in serving.stderr.readline()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(DEADLINE_S) == 0
    with Command(*call[:2], tmp_path / "none", *call[3:], stderr=subprocess.PIPE) as waiting:
        assert waiting.stderr is not None
        assert "; waiting for one" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(DEADLINE_S) == 2


def test_the_fleet_is_shown_as_a_page_until_it_is_told_to_stop(tmp_path: Path) -> None:
    well(str(tmp_path))
    call = ("status", "--root", tmp_path, "--no-broker", "--http", "--http.port", "0", "--watch", "0.5")
    with Command(*call, stderr=subprocess.PIPE) as serving:
        assert serving.stderr is not None
        found = next(line for line in iter(serving.stderr.readline, "") if " is shown at " in line)
        url = found.split(" is shown at ")[1].split(",")[0]
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as page:
            assert page.status == 200
            assert b"<html" in page.read().lower()
        with urllib.request.urlopen(f"{url.rstrip('/')}/events", timeout=DEADLINE_S) as events:
            read = b""
            while b"north" not in read:
                read += events.readline()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(DEADLINE_S) == 0
