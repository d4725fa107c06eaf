"""The commands on a camera's page: the program accepts them, and a name from strangers is one word of them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest

from adawise.app.http import hint_places
from adawise.cli import command_of
from adawise.cli.parser import parse
from adawise.settings import Settings
from adawise.watch.details import HintPlaces, RecordingPlace, shell_word

NAMES = [
    *(
        "gate-01",
        "Tor 3 süd",
        "a'b\"c`d$(e)",
        "[x]*?",
        "-rf",
        "--help",
        "<b>&amp;",
        "null",
        '{"a": 1}',
        '["a"]',
        "\\n",
        "#1",
    ),
    *("x" * 249, "a,b", "a\nb", "\x15rm -rf ~\n", "\u202eabc", "=a", "~", "!!"),
]
STREET = HintPlaces("runs/street", "street", dead_letters="street.dlq")
RECORDED = replace(STREET, recording=RecordingPlace("s3://yard/recording", lambda name: name != "left out"))


def commands(places: HintPlaces, name: str) -> list[str]:
    return [command for hint in places.hints(name, rejected=1) for _, command in hint.steps if command]


def sentences(places: HintPlaces, name: str = "gate-01") -> str:
    return "\n".join(words for hint in places.hints(name, rejected=1) for words, _ in hint.steps)


@pytest.mark.parametrize("places", [STREET, RECORDED, replace(STREET, knows_settings=False)])
def test_the_program_accepts_every_command_and_finds_the_camera_in_it(places: HintPlaces) -> None:
    found = commands(places, "gate-01")
    assert len(found) >= 4
    for command in found:
        program, *words = shlex.split(command)
        assert program == "adawise"
        name = " ".join(words[:2]) if words[0] == "dlq" else words[0]
        parsed = parse(command_of(name), words[len(name.split()) :])
        assert not parsed.mistakes, command
        assert "gate-01" in {parsed.options.get("streams"), parsed.options.get("stream")}, command


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_any_name_as_one_word_and_nothing_of_it_acts_on_a_terminal(name: str) -> None:
    word = shell_word(name)
    assert word.isprintable()
    output = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert output == name.encode()
    for command in [*commands(STREET, name), *commands(RECORDED, name)]:
        assert command.isprintable()


@pytest.mark.parametrize("name", [name for name in NAMES if name.isprintable()])
def test_the_commands_choose_the_camera_whatever_its_name_is(name: str) -> None:
    for command in [*commands(STREET, name), *commands(RECORDED, name)]:
        _, kind, *words = shlex.split(command)
        chosen = [word.partition("=")[2] for word in words if word.startswith("--stream")]
        if kind == "drift":
            assert chosen == ([name] if "," not in name else []), "commas separate the names that drift takes"
        elif kind == "dlq":
            assert chosen == [name]
        else:
            (pattern,) = chosen
            assert "," not in pattern
            assert fnmatchcase(name, pattern)
            assert not fnmatchcase(f"{name}2", pattern)
    assert ("of all cameras" in sentences(STREET, name)) == ("," in name)


def test_frames_are_where_the_recording_is_and_else_it_says_how_to_keep_them() -> None:
    assert "adawise drift runs/street --streams=gate-01 --since 1d --recording s3://yard/recording -o camera.html" in (
        commands(RECORDED, "gate-01")
    )
    assert "This page keeps no images" in sentences(RECORDED)
    assert "keeps no images" not in sentences(replace(RECORDED, keeps_pictures=True))
    day = RecordingPlace("recordings/yard", lambda _: True, images_for_s=86_400.0)
    assert "recorded in recordings/yard, and their images for 24 h" in sentences(replace(STREET, recording=day))
    assert "(record.enabled is off)" in sentences(STREET)
    assert "(record.streams leaves this camera out)" in sentences(RECORDED, "left out")
    for places, name in ((STREET, "gate-01"), (RECORDED, "left out")):
        kept, again, *_ = commands(places, name)
        assert kept.startswith("adawise record -o recordings/camera --kafka.topic street --streams=")
        assert again.startswith("adawise replay --topic street --from-time 1h -o runs/again --streams=")


def test_rejected_messages_are_named_where_there_are_some() -> None:
    assert [hint.heading for hint in STREET.hints("gate-01", rejected=0)] == ["Frames", "Accuracy"]
    assert "street.dlq" in sentences(STREET)
    assert "kafka.dead_letters is off" in sentences(replace(STREET, dead_letters=None))
    assert "kafka.dead_letters" not in sentences(replace(STREET, dead_letters=None, knows_settings=False))


def settings(**groups: object) -> Settings:
    return Settings.model_validate({"sink": {"root": "runs/yard"}, "kafka": {"topic": "yard"}, **groups})


@pytest.mark.parametrize(
    ("groups", "holds"),
    [
        ({}, lambda p: (p.root, p.topic, p.recording, p.dead_letters) == ("runs/yard", "yard", None, "yard.dlq")),
        ({"http": {"thumbnails": True}}, lambda p: p.keeps_pictures),
        ({"record": {"enabled": True, "root": "r", "streams": "a*"}}, lambda p: p.recording.root == "r"),
        ({"record": {"enabled": True, "streams": "a*"}}, lambda p: p.recording.has("ab") and not p.recording.has("b")),
        ({"record": {"enabled": True, "forget_images_after": "1h"}}, lambda p: p.recording.images_for_s == 3_600.0),
        ({"kafka": {"topic": "yard", "dead_letters": False}}, lambda p: p.dead_letters is None),
    ],
)
def test_the_places_are_those_of_the_settings(groups: dict[str, object], holds: Callable[[HintPlaces], bool]) -> None:
    assert holds(hint_places(settings(**groups)))
