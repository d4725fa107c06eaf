"""`adawise dlq` on a real broker: what lies there is listed, shown, saved, and sent back once."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adawise.app.kafka import kafka_source
from adawise.errors import FatalError, Reason
from adawise.kafka.client import Reach
from adawise.kafka.log import read_whole
from adawise.publish.dead_letters.reading import read_dead_letter
from adawise.publish.dead_letters.resend import DeadLetterReplay
from adawise.publish.dead_letters.sink import dead_letter_topics, open_dead_letters
from adawise.records import Frame, Message, RowId
from adawise.settings import KafkaSettings
from tests.brokers import Broker, MakeTopic
from tests.replay.runs import adawise

Headers = tuple[tuple[str, bytes | None], ...]
Captured = pytest.CaptureFixture[str]

JPEG = b"\xff\xd8\xff broken \x1b[31m"
BAD = (  # partition, offset, key, value, reason, milliseconds
    (0, 4, b"north", JPEG, Reason.UNDECODABLE_IMAGE, 1_700_000_000_000),
    (1, 9, b"south", b"\0\0\0\0\x07avro", Reason.SCHEMA_FRAMED, 1_750_000_000_000),
    (1, 12, b"so\x1bth", b"hello", Reason.UNSUPPORTED_FORMAT, 1_750_000_100_000),
)

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


class Dlq:
    """A topic of two partitions with letters, and the command in a folder that names it."""

    def __init__(self, broker: Broker, topic: str, folder: Path, captured: Captured) -> None:
        self.broker, self.topic, self.folder, self.captured = broker, topic, folder, captured
        self.reach: Reach = {"bootstrap_servers": broker.bootstrap_servers, "client_id": "test", "security": {}}
        (folder / "adawise.toml").write_text(
            f'[kafka]\nbootstrap_servers = "{broker.bootstrap_servers}"\ntopic = "{topic}"\n'
        )
        self.reject(*BAD)

    def reject(self, *bad: tuple[int, int, bytes, bytes, Reason, int], headers: Headers = ()) -> None:
        """Send the letters of a worker."""
        topics = dead_letter_topics(self.reach, retention_s=86_400, retention_bytes=2**30, max_message_bytes=1_000)
        dead_letters = open_dead_letters(
            topics,
            topic=None,
            worker="w",
            max_message_bytes=1_000,
            max_inflight_bytes=100_000,
            timeout_s=60.0,
        )
        for partition, offset, key, value, reason, at_ms in bad:
            frame = Frame(RowId(self.topic, partition, offset, 0), at_ms, None, reason=reason, detail="expected better")
            kept = (("content-type", b"x/y"), *headers)
            dead_letters.send(Message(self.topic, partition, offset, key, value, kept, at_ms), frame)
        dead_letters.close()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = adawise(self.folder, "dlq", *arguments)
        captured = self.captured.readouterr()
        assert "Traceback" not in captured.err
        assert "\x1b" not in captured.out, "a stranger's escape codes must not reach the terminal"
        return code, captured.out, captured.err

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        code, out, _ = self.run("list", "--json", *arguments)
        assert code == 0
        found: list[dict[str, Any]] = json.loads(out)
        return found

    def held(self, topic: str) -> list[Message]:
        kafka = KafkaSettings(bootstrap_servers=self.broker.bootstrap_servers, topic=topic)
        with closing(kafka_source(kafka, group=False, origin="earliest")) as source:
            return list(read_whole(source))

    def open(self) -> DeadLetterReplay:
        return DeadLetterReplay(
            **self.reach,
            dead_letter_topic=f"{self.topic}.dlq",
            partitions=2,
            max_message_bytes=10_000,
            timeout_s=30.0,
        )


@pytest.fixture
def dlq(broker: Broker, topic: MakeTopic, tmp_path: Path, capsys: Captured) -> Dlq:
    return Dlq(broker, topic(2, dead_letters=True), tmp_path, capsys)


def test_letters_are_listed_by_reason_time_and_stream(dlq: Dlq) -> None:
    everything = dlq.listed()
    assert [each["reason"] for each in everything] == ["undecodable_image", "schema_framed", "unsupported_format"]
    first = everything[0]
    assert first.pop("letter").endswith("/0")
    assert first == {
        "time": "2023-11-14T22:13:20Z",
        "reason": "undecodable_image",
        "detail": "expected better",
        "topic": dlq.topic,
        "partition": 0,
        "offset": 4,
        "stream": "north",
        "bytes": len(JPEG),
        "is_whole": True,
        "replays": 0,
        "replayed": False,
    }
    assert [each["stream"] for each in dlq.listed("--reason", "schema_framed")] == ["south"]
    assert [each["stream"] for each in dlq.listed("--stream", "north")] == ["north"]
    assert len(dlq.listed("--since", "2025-06-15T15:06:40Z")) == 2
    assert dlq.listed("--since", "1d") == []
    assert [each["stream"] for each in dlq.listed("--limit", "1")] == ["so\x1bth"]
    code, out, _ = dlq.run("list", "--limit", "2")
    assert code == 0
    assert "2 dead letters: 1 schema_framed, 1 unsupported_format; 1 older ones are not shown" in out
    assert "so\\x1bth" in out


def test_a_letter_is_shown_and_saved_byte_by_byte(dlq: Dlq) -> None:
    name = dlq.listed()[0]["letter"]
    code, out, _ = dlq.run("show", name, "--save", "broken.jpg")
    assert code == 0
    assert (dlq.folder / "broken.jpg").read_bytes() == JPEG
    assert f"from    {dlq.topic}/0/4" in out
    assert "header  content-type: b'x/y'" in out
    assert "ff d8 ff 20 62" in out
    code, _, err = dlq.run("show", name, "--save", "broken.jpg")
    assert code == 1, err
    assert "broken.jpg: File exists" in err
    code, _, err = dlq.run("show", "0/999")
    assert code == 2, err
    assert "no dead letter 0/999" in err
    assert dlq.run("show", "first")[0] == 2


def test_a_replay_sends_the_originals_back_once(dlq: Dlq) -> None:
    code, out, _ = dlq.run("replay", "--all", "--dry-run")
    assert (code, out.splitlines()[0][:29]) == (0, "3 messages would be sent back")
    assert dlq.held(dlq.topic) == []

    code, out, _ = dlq.run("replay", "--reason", "schema_framed")
    assert (code, out) == (0, f"1 messages sent back to {dlq.topic}: 1 schema_framed\n")
    (back,) = dlq.held(dlq.topic)
    assert (back.partition, back.key, back.value) == (1, b"south", b"\0\0\0\0\x07avro")
    assert back.headers == (
        ("content-type", b"x/y"),
        ("dlq.replays", b"1"),
        ("dlq.origin", f"{dlq.topic}/1/9".encode()),
    )
    assert [each["replayed"] for each in dlq.listed()] == [False, True, False]

    code, out, _ = dlq.run("replay", "--all")
    assert out.splitlines()[1:] == ["1 dead letters left out: sent back before (--again)"]
    assert sorted(message.key or b"" for message in dlq.held(dlq.topic)) == [b"north", b"so\x1bth", b"south"]
    dlq.run("replay", "--all")
    assert len(dlq.held(dlq.topic)) == 3, "never twice by accident"
    dlq.run("replay", "--stream", "north", "--again")
    assert len(dlq.held(dlq.topic)) == 4


def test_a_message_with_several_letters_is_sent_once(dlq: Dlq) -> None:
    """A worker that took a partition over reads again, and rejects again, what had no segment yet."""
    dlq.reject(*BAD)
    code, out, _ = dlq.run("replay", "--all")
    assert (code, out.splitlines()[0].partition(":")[0]) == (0, f"3 messages sent back to {dlq.topic}")
    assert out.splitlines()[1:] == ["3 dead letters left out: another dead letter of a message that is sent"]
    assert len(dlq.held(dlq.topic)) == 3
    assert {each["replayed"] for each in dlq.listed()} == {True}, "by whichever of its letters"
    code, out, _ = dlq.run("replay", "--all")
    assert out == f"0 messages sent back to {dlq.topic}\n6 dead letters left out: sent back before (--again)\n"
    code, out, _ = dlq.run("replay", "--all", "--again")
    assert len(dlq.held(dlq.topic)) == 6, "once again, and still once each"


def test_what_comes_back_again_and_again_is_left_out(dlq: Dlq) -> None:
    def came_back(times: bytes) -> Headers:
        return (("dlq.replays", times), ("dlq.origin", f"{dlq.topic}/0/4".encode()))

    dlq.reject((0, 7, b"west", JPEG, Reason.UNDECODABLE_IMAGE, 1_700_000_000_000), headers=came_back(b"2"))
    dlq.reject((0, 8, b"west", JPEG, Reason.UNDECODABLE_IMAGE, 1_700_000_000_000), headers=came_back(b"3"))
    dlq.reject((0, 9, b"west", JPEG, Reason.UNDECODABLE_IMAGE, 1_700_000_000_000), headers=(("dlq.replays", b"9"),))
    assert [each["replays"] for each in dlq.listed("--stream", "west")] == [2, 3, 0], "the last one was forged"
    code, out, _ = dlq.run("replay", "--stream", "west")
    assert code == 0
    assert out.splitlines()[1:] == ["1 dead letters left out: sent back 3 times or more (--max-replays)"]
    assert [dict(back.headers)["dlq.replays"] for back in dlq.held(dlq.topic)] == [b"3", b"1"]
    code, out, _ = dlq.run("replay", "--stream", "west", "--max-replays", "4")
    assert out.splitlines()[0] == f"1 messages sent back to {dlq.topic}: 1 undecodable_image"


@pytest.mark.needs("aborted_transactions")
def test_a_replay_that_is_cut_off_has_sent_nothing_of_what_it_did_not_commit(dlq: Dlq) -> None:
    dead_letters = [read_dead_letter(record) for record in dlq.held(f"{dlq.topic}.dlq")]
    with closing(dlq.open()) as replay:
        replay.send(dead_letters[0])
        replay.commit()
        replay.send(dead_letters[1])
    assert [message.key for message in dlq.held(dlq.topic)] == [dead_letters[0].record.key]
    assert [each["replayed"] for each in dlq.listed()] == [True, False, False]


@pytest.mark.needs("aborted_transactions")
def test_of_two_replays_at_once_the_earlier_one_gives_up(dlq: Dlq) -> None:
    dead_letters = [read_dead_letter(record) for record in dlq.held(f"{dlq.topic}.dlq")]
    with closing(dlq.open()) as earlier, closing(dlq.open()) as later:
        earlier.send(dead_letters[0])
        with pytest.raises(FatalError, match="another replay of the same dead letters began"):
            earlier.commit()
        later.send(dead_letters[0])
        later.commit()
    assert len(dlq.held(dlq.topic)) == 1


def test_letters_that_name_another_topic_are_not_sent_there(dlq: Dlq, topic: MakeTopic) -> None:
    other = topic()
    (dlq.folder / "adawise.toml").write_text(
        f'[kafka]\nbootstrap_servers = "{dlq.broker.bootstrap_servers}"\ntopic = "{other}"\n'
        f'dead_letter_topic = "{dlq.topic}.dlq"\n'
    )
    code, out, _ = dlq.run("replay", "--all")
    assert (code, out) == (0, f"0 messages sent back to {other}\n3 dead letters left out: not from {other}\n")
    assert dlq.held(dlq.topic) == []


def test_a_replay_must_say_which_and_no_topic_is_an_answer(dlq: Dlq) -> None:
    code, _, err = dlq.run("replay")
    assert code == 2, err
    assert "or --all" in err
    assert dlq.run("replay", "--all", "--stream", "north")[0] == 2
    assert dlq.run("list", "--since", "yesterday")[0] == 2
    assert dlq.run("list", "--reason", "ugly")[0] == 2
    code, _, err = dlq.run("list", "--kafka.topic", "nowhere")
    assert code == 1, err
    assert "there is no dead-letter topic 'nowhere.dlq'" in err
    assert "kafka.dead_letter_topic names the wrong topic" in err
