"""What every command says to somebody who is not let in, or may not do what it has to; nothing is lost meanwhile."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from adawise.errors import FatalError, SettingsError
from adawise.worker.events import Event, SegmentCommitted
from tests.brokers import create_topic
from tests.cli.secured import BAD, GOOD, Ending, Yard, called
from tests.hostile import picture
from tests.kafka.secured import Secured
from tests.models import PairFolder
from tests.worker.output import Output

pytestmark = pytest.mark.soak

Patch: TypeAlias = pytest.MonkeyPatch
Captured: TypeAlias = pytest.CaptureFixture[str]

COMMANDS = {
    "run": ("run",),
    "doctor": ("doctor",),
    "record": ("record", "--output", "recording"),
    "produce": ("produce", "images"),
    "labels": ("labels", "root"),
    "dlq list": ("dlq", "list"),
    "dlq replay": ("dlq", "replay", "--all"),
}


@pytest.fixture(scope="module")
def yard(secured_broker: Secured, pair_folder: PairFolder, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """What a worker wrote, and a user who has no right any more."""
    yard = Yard(secured_broker, pair_folder, tmp_path_factory.mktemp("yard"))
    images = yard.folder / "images"
    images.mkdir()
    (images / "one.jpg").write_bytes(picture(random.Random(2)))
    for suffix in (".dlq", ".labels"):
        create_topic(yard.plain, f"{yard.name}{suffix}")
    yard.kafka.allow(yard.user, *yard.worker_rules)
    assert yard.worker(Ending(GOOD + BAD)) == 0
    yard.kafka.forbid(yard.user, *yard.worker_rules)
    return yard


@pytest.mark.parametrize("command", ["run", "doctor", "record", "produce", "labels", "dlq list", "dlq replay"])
def test_a_wrong_password_is_told_as_that_by_every_command(
    command: str, yard: Yard, monkeypatch: Patch, capsys: Captured
) -> None:
    right = (yard.folder / "password").read_text()
    (yard.folder / "password").write_text("hunter2\n")
    try:
        code, out, err = called(yard, monkeypatch, capsys, *COMMANDS[command])
    finally:
        (yard.folder / "password").write_text(right)
    assert code == (1 if command == "doctor" else 2)
    output = out + err
    assert "Authentication failed during authentication due to invalid credentials" in output
    assert "Check the user (kafka.security.sasl_username and sasl_password" in output
    assert "hunter2" not in output
    assert "Check that the broker is running" not in output


@pytest.mark.parametrize(
    ("command", "topic", "remedy"),
    [
        ("run", "", "ACL READ on the topic"),
        ("doctor", "", "ACL READ on the topic"),
        ("record", "", "ACL READ on the topic"),
        ("produce", "", "ACL WRITE on the topic"),
        ("labels", ".labels", "ACL READ on the topic"),
        ("dlq list", ".dlq", "ACL READ on the topic"),
    ],
)
def test_who_may_do_nothing_is_told_which_right_is_missing(
    command: str, topic: str, remedy: str, yard: Yard, monkeypatch: Patch, capsys: Captured
) -> None:
    code, out, err = called(yard, monkeypatch, capsys, *COMMANDS[command])
    assert code == 1
    output = out + err
    if command == "run":  # a service, whose last line is an event
        last = json.loads(err.splitlines()[-1])
        output = f"{last['error']}. {last['remedy']}"
    assert f"topic '{yard.name}{topic}' at {yard.kafka.at('LOGIN')}: the broker does not allow it. " in output
    assert f"Give the user the {remedy}." in output


class Forbidding(Ending):
    """At the first commit there is more to do, and what was allowed is not any more."""

    def __init__(self, forbid: Callable[[], None]) -> None:
        super().__init__(10**6)
        self._forbid: Callable[[], None] | None = forbid

    def observe(self, event: Event) -> None:
        super().observe(event)
        if isinstance(event, SegmentCommitted) and self._forbid is not None:
            self._forbid()
            self._forbid = None


@pytest.mark.parametrize("right", ["--operation Read --topic frames", "--operation Read --group adawise"])
def test_a_right_that_is_taken_away_ends_a_worker_and_with_it_back_every_row_is_there_once(
    right: str, secured_broker: Secured, pair_folder: PairFolder, tmp_path: Path
) -> None:
    yard = Yard(secured_broker, pair_folder, tmp_path)
    create_topic(yard.plain, f"{yard.name}.dlq")
    yard.kafka.allow(yard.user, *yard.worker_rules)

    def forbid() -> None:
        yard.kafka.forbid(yard.user, yard.named(right))
        yard.produce()

    with pytest.raises(FatalError, match="Give the user the ACL READ on the"):
        yard.worker(Forbidding(forbid))
    yard.kafka.allow(yard.user, yard.named(right))
    assert yard.worker(Ending(yard.topic.rows - Output(yard.root).rows)) == 0
    assert Output(yard.root).faults(yard.topic) == []


def test_a_password_that_was_changed_ends_a_worker_once_it_has_to_log_in_again(
    secured_broker: Secured, pair_folder: PairFolder, tmp_path: Path
) -> None:
    yard = Yard(secured_broker, pair_folder, tmp_path)
    create_topic(yard.plain, f"{yard.name}.dlq")
    yard.kafka.allow(yard.user, *yard.worker_rules)

    def change() -> None:
        yard.produce()
        yard.kafka.add_user(yard.user, "another one")
        yard.kafka.kafka.restart(1)  # who is in stays in for as long as the connection does

    with pytest.raises(SettingsError, match=r"invalid credentials .* Check the user"):
        yard.worker(Forbidding(change))
    yard.kafka.add_user(yard.user)
    assert yard.worker(Ending(yard.topic.rows - Output(yard.root).rows)) == 0
    assert Output(yard.root).faults(yard.topic) == []


@pytest.mark.parametrize("suffix", [".dlq", ".results"])
def test_what_may_not_be_written_is_waited_for_until_it_may(
    suffix: str, secured_broker: Secured, pair_folder: PairFolder, tmp_path: Path
) -> None:
    """There is no such topic either, and rows that wait are not committed."""
    yard = Yard(secured_broker, pair_folder, tmp_path)
    other = f"{yard.name}{'.results' if suffix == '.dlq' else '.dlq'}"
    create_topic(yard.plain, other)
    yard.kafka.allow(yard.user, *yard.worker_rules[:2], f"--operation Write --topic {other}")
    missing = f"--operation Create --operation Write --topic {yard.name}{suffix}"
    worker = Ending(GOOD + BAD, mend=lambda: yard.kafka.allow(yard.user, missing))
    assert yard.worker(worker, results={"enabled": True}) == 0
    assert f"topic '{yard.name}{suffix}'" in worker.refused[0]
    assert "the broker does not allow it. Give the user the ACL CREATE on the topic, and WRITE" in worker.refused[0]
    assert Output(yard.root).faults(yard.topic) == []


GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "security.md"
# The command whose rules follow, by the words before them; how it is called; what one rule less makes of it
CALLS: dict[str, tuple[str, ...]] = {
    "`record`, and": ("record", "--output", "recording"),
    "`labels`, whose": ("labels", "root"),
    "`status`:": ("status",),
    "`dlq list` and": ("dlq", "list"),
    "`dlq replay`, which": ("dlq", "replay", "--all", "--again", "--max-replays", "99"),
    "A producer (": ("produce", "images"),
}


def rules_of(words: str) -> list[str]:
    """The rules of the guide after these words, those alone that are needed where every topic exists."""
    text = GUIDE.read_text().partition(f"\n{words}")[2].partition("```sh\n")[2].partition("```")[0]
    lines = [line.partition("#")[0].partition(" ")[2].partition(" ")[2].strip() for line in text.splitlines()]
    assert lines, f"the guide has no rules after {words!r}"
    return lines


def problem(command: tuple[str, ...], code: int, out: str, err: str) -> str:
    """What is wrong, by the exit code and the text."""
    output = out + err
    return output if code not in (0, 3) or "does not allow it" in output else ""


@pytest.mark.parametrize("words", CALLS)
def test_the_rules_of_the_guide_are_enough_and_each_is_needed(
    words: str, yard: Yard, monkeypatch: Patch, capsys: Captured
) -> None:
    lines = [line for line in rules_of(words) if "--operation Create" not in line]
    rules = [yard.named(line) for line in lines]
    command = CALLS[words]
    yard.kafka.allow(yard.user, *rules)
    try:
        assert problem(command, *called(yard, monkeypatch, capsys, *command)) == ""
        for rule in rules:
            yard.kafka.forbid(yard.user, rule)
            output = problem(command, *called(yard, monkeypatch, capsys, *command))
            assert "the broker does not allow it. Give the user the ACL" in output, (rule, output)
            yard.kafka.allow(yard.user, rule)
    finally:
        yard.kafka.forbid(yard.user, *rules)


def test_the_rules_of_a_worker_are_enough_and_each_is_needed(
    secured_broker: Secured, pair_folder: PairFolder, tmp_path: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    """Topics are created; then, by the check, which finds what a worker would wait for."""
    lines = rules_of("A worker (`run`)")
    yard = Yard(secured_broker, pair_folder, tmp_path)
    rules = [*map(yard.named, lines)]
    assert len(rules) == 6
    yard.kafka.allow(yard.user, *rules)
    for rule in rules:
        yard.kafka.forbid(yard.user, rule)
        code, out, _ = called(yard, monkeypatch, capsys, "doctor", "--results.enabled")
        assert code == 1, rule
        assert "the broker does not allow it. Give the user the ACL" in out
        yard.kafka.allow(yard.user, rule)
    assert called(yard, monkeypatch, capsys, "doctor", "--results.enabled")[0] == 0
    assert yard.worker(Ending(GOOD + BAD), results={"enabled": True}) == 0
    assert Output(yard.root).faults(yard.topic) == []
    yard.kafka.allow(yard.user, yard.named(*rules_of("topic that is compacted")))
    output = called(yard, monkeypatch, capsys, "doctor", "--results.enabled")
    assert output[0] == 0
    assert "DESCRIBE_CONFIGS" not in output[1]


def test_a_topic_is_created_by_whoever_may(
    secured_broker: Secured, pair_folder: PairFolder, tmp_path: Path, yard: Yard, monkeypatch: Patch, capsys: Captured
) -> None:
    ours = Yard(secured_broker, pair_folder, tmp_path)
    (ours.folder / "images").symlink_to(yard.folder / "images")
    ours.name += "-new"
    line = ("produce", "images", "--create-topic")
    code, _, err = called(ours, monkeypatch, capsys, *line)
    assert code == 1
    assert "Give the user the ACL CREATE on the topic, and WRITE, which is enough where it exists." in err
    ours.kafka.allow(ours.user, *map(ours.named, rules_of("A producer (")))
    assert called(ours, monkeypatch, capsys, *line)[0] == 0
