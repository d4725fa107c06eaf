"""A setting that a command takes is one that it reads: a trap in the settings says what was read while it ran.

Settings that only some ways of calling a command read are named here with the reason.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adawise.cli import command_of
from adawise.cli.command import Command
from adawise.settings.describe import GROUPS, SETTINGS, group_of
from adawise.settings.group import Group
from tests.brokers import fresh_name
from tests.replay.conftest import _own_process, recorded
from tests.replay.runs import Recorded, adawise

__all__ = ["_own_process", "recorded"]  # one live run

pytestmark = pytest.mark.broker

ALWAYS = {"log.level", "log.format"}  # read before a command begins
OF_ANOTHER_LOGIN = {name for name in SETTINGS if name.startswith("kafka.security.oauth_")}
NOT_ON_A_PROCESSOR = {"model.cuda_graphs"}
OF_A_RECORDING = {"decode.max_message_bytes", "decode.max_rows", "decode.max_pixels"}  # in place of a folder


class Trap:
    """What a command reads of its settings while it runs, `problems` and other checks before it left out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: set[str] = set()
        self._is_running = False
        prefixes = {group_of(field): name for name, field in GROUPS.items()}
        get, run, trap = Group.__getattribute__, Command.cli_cmd, self

        def trapped(group: Group, name: str) -> Any:
            setting = f"{prefixes.get(type(group), '')}.{name}"
            if trap._is_running and setting in SETTINGS:
                trap.read.add(setting)
            return get(group, name)

        def running(command: Command) -> None:
            trap._is_running = True
            try:
                run(command)
            finally:
                trap._is_running = False

        monkeypatch.setattr(Group, "__getattribute__", trapped)
        monkeypatch.setattr(Command, "cli_cmd", running)


pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Trap:
    return Trap(monkeypatch)


def taken(name: str) -> set[str]:
    return set(filter(command_of(name).takes, SETTINGS))


@pytest.fixture
def folder(recorded: Recorded, tmp_path: Path) -> Path:
    """With the settings of a live run, pictures by class and a second topic."""
    shutil.copy(recorded.folder / "adawise.toml", tmp_path)
    for number, name in enumerate(("car", "bus", "bicycle", "person", "empty street")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for shade in range(4):
            Image.new("RGB", (40, 40), (50 * number, 60 * shade, 90)).save(tmp_path / "images" / name / f"{shade}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ("produce images --create-topic --kafka.topic NEW", set()),
        ("record -o recording --max-messages 5", set()),
        ("labels LIVE --topic LETTERS", set()),
        ("verify LIVE --broker", set()),
        ("dlq list", set()),
        ("dlq show 0/0", set()),
        ("dlq replay --all", set()),
        ("card make --labelled images -o card.json", NOT_ON_A_PROCESSOR | OF_A_RECORDING),
        ("drift LIVE --recording RECORDED -o page.html", {"search.objective"}),  # of a card
        ("shortlists LIVE", set()),
    ],
)
def test_what_a_command_takes_it_reads(
    line: str, unread: set[str], recorded: Recorded, folder: Path, trap: Trap
) -> None:
    words = line.replace("LIVE", str(recorded.live)).replace("NEW", fresh_name("new"))
    words = words.replace("LETTERS", f"{recorded.topic}.dlq").replace("RECORDED", str(recorded.recording))
    adawise(folder, *words.split())
    name = next(name for name in (" ".join(line.split()[:2]), line.split()[0]) if name in _NAMES)
    assert trap.read, "it ran"
    assert taken(name) - trap.read - ALWAYS - OF_ANOTHER_LOGIN - unread == set()


_NAMES = {
    *("produce", "record", "labels", "verify", "dlq list", "dlq show", "dlq replay", "card make", "drift"),
    "shortlists",
}


def test_a_setting_that_a_command_does_not_read_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("produce images --kafka.group x", "record -o a --kafka.group x", "dlq list --kafka.origin latest"):
        assert adawise(folder, *line.split()) == 2
        assert "does not use it; leave it out" in capsys.readouterr().err
