"""The command line: help that is quick, options that reach one call, mistakes that are told together, exit codes."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise import __version__
from adawise.__main__ import main
from adawise.cli import COMMANDS, command_of
from adawise.cli.command import OFTEN, Command
from adawise.cli.parser import own_fields, parse, parser_source
from adawise.cli.verify import VerifyCommand
from adawise.demo.main import run as run_demo
from adawise.errors import BrokerUnavailable, ChainError, SettingsError
from adawise.kafka import embedded
from adawise.replay.replay import ReplayRequest
from adawise.settings import Settings, read
from adawise.settings.describe import GROUPS, SETTINGS, environment_name, flag_name, is_secret

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "pyarrow", "kafka", "open_clip", "botorch", "numpy", "structlog", "rich", "PIL"}
PAIR = ["--model.theta-0", "tag0", "--model.theta-1", "tag1", "--model.classes", "classes.txt"]

pytestmark = pytest.mark.usefixtures("logs_of_this_process")

Call = tuple[str, Settings, dict[str, Any]]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.upper().startswith("ADAWISE_")]:
        monkeypatch.delenv(variable)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Calls that reached the parts behind the command line, each a function that returns 0."""
    calls: list[Call] = []

    def call(requested: Command) -> int:
        given = {option: getattr(requested, option) for option in requested.model_fields_set - {"settings", "config"}}
        calls.append((requested.name, requested.settings, given))
        return 0

    for command in map(command_of, COMMANDS):
        monkeypatch.setattr(command, "call", call)
    return calls


def test_help_imports_nothing_heavy() -> None:
    program = f"""
import contextlib, io, sys
from adawise.__main__ import main
for command in {["", *COMMANDS]!r}:
  for flag in ("-h", "--help"):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            code = main([*command.split(), flag])
        except SystemExit as end:
            code = end.code
    heavy = sorted({HEAVY!r} & set(sys.modules))
    expected = f"usage: adawise {{command or 'COMMAND'}}"
    assert not heavy and code == 0 and text.getvalue().startswith(expected), (command, heavy, code, text.getvalue())
  print(command)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert not done.stderr
    assert done.stdout.splitlines() == ["", *COMMANDS]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("drift nowhere", "there is no output of a worker in nowhere"),
        ("drift . --against nowhere", "there is no output of a worker in ."),
        ("shortlists nowhere", "there is no output of a worker in nowhere"),
        ("verify nowhere", "there is no output of a worker in nowhere"),
        ("status --root nowhere --no-broker", "there is no output of a worker in nowhere"),
        ("status --root nowhere --kafka.bootstrap-servers 192.0.2.1:9092", "there is no output of a worker in nowhere"),
        ("run --model.theta-0 tag0 --model.theta-1 tag1 --model.classes twice.txt", "has the class 'cat' twice"),
        ("run --model.theta-0 tag0 --model.theta-1 tag1 --model.classes class.txt", "did you mean "),
    ],
)
@pytest.mark.cases("worker", every=4)
def test_a_mistake_that_a_glance_shows_is_told_before_anything_heavy_is_loaded(
    line: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    heavy = {"torch", "open_clip", "duckdb"}
    if line.startswith(("drift", "shortlists", "status")):
        heavy |= {"numpy", "pyarrow", "kafka"}
    program = f"""
import sys
from adawise.__main__ import main
code = main({line.split()!r})
print(code, sorted({heavy!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert expected in done.stderr
    assert done.stdout == "2 []\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_help_has_what_is_used_most_and_names_the_whole_one(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = command_of(name)
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "-h"])
    text = capsys.readouterr().out
    named = {setting for setting in SETTINGS if re.search(rf"^  {re.escape(flag_name(setting))} ", text, re.MULTILINE)}
    assert named == {setting for setting in OFTEN if command.takes(setting)}
    assert all(f"--{option.replace('_', '-')}" in text or option.upper() in text for option in own_fields(command))
    assert all(f"  adawise {line}" in text for _, line in command.examples)
    assert text.count("most used settings") == (1 if named else 0)
    count = sum(map(command.takes, SETTINGS))
    assert (f"adawise {name} --help: all {count} settings that it reads" in text) == bool(count)


def test_without_arguments_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


def test_no_command_is_also_the_first_word_of_another() -> None:
    """Its first argument would otherwise be read as the other command: `adawise labels sample` as a root or not."""
    assert not {name.partition(" ")[0] for name in COMMANDS if " " in name} & set(COMMANDS)


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"adawise {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_the_flags_of_its_groups_only_and_examples(name: str) -> None:
    command = command_of(name)
    assert command.name == name
    text = parser_source(command).root_parser.format_help()
    for setting in SETTINGS:
        flag = (
            f"{flag_name(setting)} "
            if SETTINGS[setting].annotation not in (bool, bool | None)
            else f"--no-{setting.replace('_', '-')}\n"
        )
        assert (f"  {flag}" in text or f", {flag}" in text) == command.takes(setting), setting
    assert "settings." not in text
    assert "examples:\n  adawise " in text


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in COMMANDS for _, line in command_of(name).examples])
def test_examples_in_the_help_are_valid(name: str, line: str) -> None:
    words = shlex.split(line)
    assert " ".join(words[: len(name.split())]) == name
    assert not parse(command_of(name), words[len(name.split()) :]).mistakes


TIME = datetime(2026, 11, 25, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "name", "options"),
    [
        ("run PAIR", "run", {}),
        ("replay rec -o out PAIR", "replay", {"recording": "rec", "output": "out"}),
        (
            "replay --topic yard -o out --from-time 2026-11-25T08:00:00Z --streams a,b --speed 10 --search grid PAIR",
            "replay",
            {"topic": "yard", "output": "out", "from_time": TIME, "streams": "a,b", "speed": 10.0},
        ),
        (
            "replay rec -o out --skip-forgotten PAIR",
            "replay",
            {"recording": "rec", "output": "out", "skip_forgotten": True},
        ),
        ("record --output new", "record", {"output": "new"}),
        (
            "record -o new --from latest --max-messages 5 --max-seconds 1.5 --max-bytes 7",
            "record",
            {"output": "new", "origin": "latest", "max_messages": 5, "max_seconds": 1.5, "max_bytes": 7},
        ),
        ("record -o new --follow", "record", {"output": "new", "follow": True}),
        (
            "record -o new --from-time 2026-11-25T08:00:00Z --streams a,b* --keep 7d --forget-images-after 0s",
            "record",
            {"output": "new", "from_time": TIME, "streams": "a,b*", "keep": 604_800.0, "forget_images_after": 0.0},
        ),
        (
            "produce images --stream-ids a,b --rate 2 --loop --batch 16 --create-topic --partitions 3 --limit 9",
            "produce",
            {
                **{"source": "images", "stream_ids": "a,b", "rate": 2.0, "loop": True, "batch": 16},
                **{"create_topic": True, "partitions": 3, "limit": 9},
            },
        ),
        (
            "produce images --coco traps.json --locations a,b --speed 86400",
            "produce",
            {"source": "images", "coco": Path("traps.json"), "locations": "a,b", "speed": 86_400.0},
        ),
        (
            "produce day.mp4 --fast --start 2026-11-25T08:00:00Z",
            "produce",
            {"source": "day.mp4", "fast": True, "start": TIME},
        ),
        (
            "card make --labelled imgs -o c.json --images 50 PAIR",
            "card make",
            {"labelled": Path("imgs"), "output": Path("c.json"), "images": 50},
        ),
        ("card show c.json --json", "card show", {"card": Path("c.json"), "as_json": True}),
        (
            "card fit c.json --recording yard --batches 30 PAIR",
            "card fit",
            {"card": Path("c.json"), "recording": Path("yard"), "batches": 30},
        ),
        (
            "card correct out --recording yard -o new.json --images 9 PAIR",
            "card correct",
            {"root": "out", "recording": "yard", "output": Path("new.json"), "images": 9},
        ),
        (
            "finetune --labelled imgs --validation others -o out --resume --model.theta-0 tag0",
            "finetune",
            {"labelled": Path("imgs"), "validation": Path("others"), "output": Path("out"), "resume": True},
        ),
        ("verify s3://b/p --broker --json", "verify", {"root": ("s3://b/p",), "broker": True, "as_json": True}),
        (
            "demo --broker kafka --scenes nights --seconds 20 -o d --keep",
            "demo",
            {"broker": "kafka", "scenes": "nights", "seconds": 20.0, "output": Path("d"), "keep": True},
        ),
    ],
)
def test_a_command_makes_one_call_with_its_options(
    line: str, name: str, options: dict[str, Any], calls: list[Call]
) -> None:
    assert main(shlex.split(line.replace("PAIR", shlex.join(PAIR)))) == 0
    ((called, settings, given),) = calls
    assert (called, given) == (name, options)
    assert type(settings) is Settings


def test_each_command_does_its_work_in_a_method_of_its_own() -> None:
    methods = ("call", "call_with_mistakes")
    without = {name for name in COMMANDS if not any(method in vars(command_of(name)) for method in methods)}
    assert not without


def test_what_a_command_calls_takes_all_of_its_options() -> None:
    """The fixture `calls` replaces the calls themselves, so these would be found by slow tests alone."""
    options = set(command_of("replay").model_fields) - {"config", "plan"}
    assert options == {field.name for field in fields(ReplayRequest)} - {"order", "seed"}
    options = set(command_of("demo").model_fields) - {"config", "settings"}
    assert options == set(inspect.signature(run_demo).parameters) - {"pair"}


def test_a_command_that_may_end_with_a_finding_says_so_in_the_reference() -> None:
    """By the text of its module, since its call may need a broker."""
    for name, (place, _) in COMMANDS.items():
        source = (ROOT / f"pipeline/{place.partition(':')[0].replace('.', '/')}.py").read_text(encoding="utf-8")
        used = any(isinstance(node, ast.Name) and node.id == "FOUND" for node in ast.walk(ast.parse(source)))
        assert command_of(name).finds == used, name


def test_a_command_gets_settings_of_all_sources(
    tmp_path: Path, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text("[kafka]\ntopic = 'yard'\n[sink]\nroot = 'there'\n")
    monkeypatch.setenv("ADAWISE_SEARCH__BUDGET", "7")
    assert main(["--config", "mine.toml", "run", *PAIR, "--model.bank_mib=9", "--no-kafka.dead-letters"]) == 0
    settings = calls[0][1]
    assert (settings.kafka.topic, settings.sink.root, settings.search.budget) == ("yard", "there", 7)
    assert (settings.model.bank_mib, settings.model.theta_0, settings.kafka.dead_letters) == (9, "tag0", False)


def test_the_exit_code_of_the_call_is_the_program_s(calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifyCommand, "call", lambda request: 3)
    assert main(["verify", "out"]) == 3


def test_the_broker_is_served_on_the_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ports: list[int] = []

    def serve(port: int, on_ready: Callable[[object], object]) -> None:
        ports.append(port)
        on_ready(SimpleNamespace(bootstrap_servers=f"127.0.0.1:{port}"))

    monkeypatch.setattr(embedded, "serve", serve)
    assert main(["broker", "--port", "19092"]) == 0
    assert ports == [19092]
    out = capsys.readouterr().out
    assert out.startswith("broker ready at 127.0.0.1:19092; Ctrl-C ends it")
    assert "kcat and other clients of librdkafka before 2.2 cannot connect; use Apache Kafka" in out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rum", ["did you mean `adawise run`?"]),
        ("config", ["there are config init, config show"]),
        ("dlq", ["'dlq'", "there are dlq list, dlq show, dlq replay"]),
        ("dlq --json", ["there are dlq list, dlq show, dlq replay"]),
        ("dlq shwo 0/1", ["'dlq shwo'", "did you mean `adawise dlq show`?"]),
        ("dlq list --since 2026-11-25T08:00", ["for that long ago: it has no time zone; add Z or an offset"]),
        ("--config", ["expected a command"]),
        ("bogus", ["there are demo, run, doctor"]),
        ("run", ["model.theta_0  (not set)", "model.theta_1  (not set)", "model.classes  (not set)"]),
        ("produce", ["SOURCE  (not given)"]),
        ("produce a b", ["'b'  (argument)"]),
        ("produce a --rate", ["--rate = nothing  (flag)\n      expected a number above 0"]),
        ("produce a --streams 1 --stream-ids b", ["leave one of them out"]),
        ("produce a.mp4 --rate 3 --speed 2", ["--speed", "--rate sets the speed too"]),
        ("produce a.mp4 --speed 2 --fast", ["--fast", "--speed sets the speed too"]),
        ("produce a --fast", ["--fast", "it needs a video, since images have no times"]),
        ("cameras a.toml --partitions 3", ["it needs --create-topic"]),
        ("cameras a.toml --check --create-topic", ["--check only tries cameras"]),
        (
            "produce a --coco b --streams 2",
            ["--streams", "for each location; leave one of them out"],
        ),
        ("produce a --coco b --stream-ids c", ["--stream-ids", "--coco has a camera for each location"]),
        ("produce a --coco b --shuffle", ["--shuffle", "--coco sends images in the order of their own times"]),
        ("produce a --coco b --start 2026-11-25T08:00:00Z", ["--start", "in the order of their own times"]),
        ("produce a --coco b --fast", ["--fast", "--coco sends as fast as possible without it"]),
        ("produce a --coco b --rate 3 --speed 2", ["--speed", "--rate sets the speed too"]),
        ("produce a --locations b", ["--locations", "it needs --coco; add that, or leave this out"]),
        ("produce a --coco b --locations c,,d", ["expected names separated by commas"]),
        ("produce a --partitions 3", ["it needs --create-topic"]),
        ("produce a --stream-ids b,,c", ["expected names separated by commas"]),
        ("produce a --kafka.topicc b", ["there is no such flag; did you mean --kafka.topic?"]),
        ("produce a --kafka.security.protocl SSL", ["did you mean --kafka.security.protocol?"]),
        ("produce a --model.card b", ["`produce` does not use it"]),
        ("produce a --kafka {}", ["it is a group of settings"]),
        (
            "pair list --root X",
            ["1 thing", "--root  (flag)", "no such flag, but an argument ROOT; adawise pair list [ROOT] [options]"],
        ),
        ("run --check", ["--check  (flag)", "there is no such flag"]),
        ("doctor --strict=yes", ["argument --strict: takes no value, but has one 'yes'"]),
        ("replay -o out --no-bogus PAIR", ["1 thing to correct", "--no-bogus  (flag)\n      there is no such flag"]),
        ("replay rec PAIR", ["--output  (not given)"]),
        ("replay -o out PAIR", ["RECORDING  (not given)", "a topic with --topic"]),
        ("replay rec --topic yard -o out PAIR", ["--topic", "expected either a recording or a topic"]),
        ("replay rec -o out --from-time 2h --state-of a@3h PAIR", ["--from-time", "--state-of sets where to begin"]),
        ("diff a", ["ROOT_B  (not given)"]),
        ("card", ["there are card make, card fit, card correct, card show"]),
        ("card make --labelled a PAIR", ["--output  (not given)"]),
        ("card make -o b PAIR", ["--labelled  (not given)"]),
        ("card make --labelled a -o b --search.budget 3 PAIR", ["`card make` does not use it"]),
        ("card fit --recording yard PAIR", ["CARD  (not given)"]),
        ("finetune --labelled a -o b", ["model.theta_0  (not set)"]),
        ("finetune -o b --model.theta-0 t", ["--labelled  (not given)"]),
        ("record -o a --from latest --from-time 2026-11-25T08:00:00Z", ["leave one of them out"]),
        ("record -o a --prune-only --streams b", ["--streams", "no effect with --prune-only"]),
        ("record -o a --prune-only --follow", ["--follow", "no effect with --prune-only"]),
        ("record -o a --follow --max-messages 3", ["--max-messages", "--follow does not end; leave one of them out"]),
        ("record -o a --keep 7", ["expected a duration such as 90s, 30m, 24h or 7d"]),
        ("finetune --labelled a -o b --resume --overwrite --model.theta-0 t", ["no effect with --overwrite"]),
        ("run --config", ["--config = nothing"]),
        (
            "produce --ratte 5 --batch 0 --kafka.security.protocol maybe",
            ["did you mean --rate?", "--batch = '0'", "kafka.security.protocol = 'maybe'", "3 things to correct"],
        ),
    ],
)
def test_mistakes_in_arguments_are_told_and_nothing_is_called(
    line: str, expected: list[str], calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(line.replace("PAIR", shlex.join(PAIR)))) == 2
    output = capsys.readouterr()
    assert not [text for text in expected if text not in output.err]
    assert not output.out
    assert not calls


@pytest.mark.parametrize(
    "arguments",
    [
        ["produce", "--kafka.security.sasl-pasword", "hunter2", "images"],
        ["produce", "images", "--kafka.security.sasl-pasword=hunter2"],
        ["produce", "images", "--kafka.security.sasl-password", "hunter2"],
        ["produce", "images", "rtsp://sasl:hunter2@camera/street"],
    ],
)
def test_what_may_be_a_password_is_not_repeated(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "sasl" in error or "rtsp:" in error
    assert "hunter2" not in error


@pytest.mark.parametrize("name", [name for name, field in SETTINGS.items() if is_secret(field)])
@pytest.mark.parametrize("line", ["run {} hunter2", "config show {}=hunter2", "dlq list {} none", "record {}"])
def test_a_password_by_flag_is_refused_for_the_environment_or_the_file(
    line: str, name: str, calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.format(flag_name(name)).split()) == 2
    output = capsys.readouterr()
    assert "hunter2" not in output.err + output.out
    assert not calls
    if not command_of(line.partition(" {}")[0]).takes(name):
        assert "does not use it" in output.err
        return
    assert flag_name(name) in output.err
    assert environment_name(name) in output.err
    table, _, key = name.rpartition(".")
    assert f"{key} under [{table}] in adawise.toml" in output.err


def test_config_show_has_every_value_with_its_origin_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "adawise.toml").write_text("[kafka.security]\nprotocol='SASL_SSL'\nsasl_mechanism='PLAIN'\n")
    monkeypatch.setenv("ADAWISE_KAFKA__SECURITY__SASL_PASSWORD", "hunter2")
    arguments = ["config", "show", "--kafka.security.sasl-username", "me"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    lines = [line.split() for line in table.splitlines()]
    assert ["sasl_password", "**********", "env", "ADAWISE_KAFKA__SECURITY__SASL_PASSWORD"] in lines
    assert ["sasl_username", "me", "flag", "--kafka.security.sasl-username"] in lines
    assert ["protocol", "SASL_SSL", "adawise.toml", "line", "2"] in lines
    assert ["theta_0", "none", "default"] in lines
    assert main([*arguments, "--json"]) == 0
    text = capsys.readouterr().out
    shown = json.loads(text)
    assert [setting["name"] for setting in shown["settings"]] == list(SETTINGS)
    assert shown["mistakes"] == []
    assert {"name": "batch.images", "value": 16, "source": "default", "place": "default"} in shown["settings"]
    assert "hunter2" not in table + text


def test_config_show_fails_with_the_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--search.alpha", "2"]) == 2
    assert "search.alpha = '2'" in capsys.readouterr().err
    assert main(["config", "show", "--search.alpha", "2", "--json"]) == 2
    (mistake,) = json.loads(capsys.readouterr().out)["mistakes"]
    assert mistake == {
        "name": "search.alpha",
        "origin": "flag --search.alpha",
        "problem": "expected a number from 0 to 1",
        "given": "'2'",
    }


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (SettingsError("wrong; correct it"), 2, "adawise: wrong; correct it\n"),
        (ChainError("damaged; restore it"), 1, "adawise: damaged; restore it\n"),
        (BrokerUnavailable("silent; start it"), 1, "adawise: silent; start it\n"),
        (KeyboardInterrupt(), 130, "adawise: interrupted\n"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), 1, "adawise: x.json: No such file or directory"),
    ],
)
def test_an_error_becomes_a_message_and_an_exit_code(
    error: BaseException,
    code: int,
    expected: str,
    calls: list[Call],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(requested: Command) -> int:
        raise error

    monkeypatch.setattr(VerifyCommand, "call", fail)
    assert main(["verify", "out"]) == code
    output = capsys.readouterr()
    assert output.err.startswith(expected)
    assert output.out == ""


@pytest.mark.parametrize("line", ["dlq --help", "dlq -h", "help dlq", "--help dlq"])
def test_a_word_that_begins_several_commands_has_help_that_lists_them(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: adawise dlq COMMAND")
    for name in ("dlq list", "dlq show", "dlq replay"):
        assert f"  {name}" in out
    assert "verify" not in out


@pytest.mark.parametrize("line", ["help config show", "config show -h", "--help config show"])
def test_the_help_of_a_command_of_two_words_is_found(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(line.split())
    assert capsys.readouterr().out.startswith("usage: adawise config show [options]\n")


def test_another_broken_pipe_is_not_hidden(calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(requested: Command) -> int:
        raise BrokenPipeError("a socket")

    monkeypatch.setattr(VerifyCommand, "call", fail)
    with pytest.raises(BrokenPipeError, match="a socket"):
        main(["verify", "out"])


def test_a_fault_of_ours_is_seen_in_full(calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(requested: Command) -> int:
        raise OSError("not about a file")

    monkeypatch.setattr(VerifyCommand, "call", fail)
    with pytest.raises(OSError, match="not about a file"):
        main(["verify", "out"])


_words = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["--", "-", "-o", "-x", "--config", "--json", "a=b", "{}", "--=", "--settings", "--settings.kafka"]
    ),
    st.sampled_from([flag_name(name) for name in [*SETTINGS, *GROUPS]]),
    st.sampled_from(["--rate", "--stream-ids", "--images=3", "--from", "--strict", "--no-kafka.dead-letters", "-1"]),
)


@given(name=st.sampled_from(sorted(COMMANDS)), words=st.lists(_words, max_size=6))
def test_any_arguments_give_values_or_mistakes(name: str, words: list[str]) -> None:
    parsed = parse(command_of(name), words)
    names = {flag.name for flag in parsed.flags}
    assert names <= set(SETTINGS)
    assert read(parsed.flags, environ={}, folder=Path("nowhere")).origins.keys() == SETTINGS.keys()
    if not parsed.mistakes:
        command_of(name)(**parsed.options)  # must not fail


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", ["--version", "run --help", "config show"])
def test_a_reader_that_goes_away_is_no_traceback(line: str, unbuffered: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "adawise", *line.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() in {0, 1}  # argparse prints its help without a look at the outcome
    assert errors == b""


@pytest.mark.parametrize(
    ("closed", "errors"), [(">&-", True), ("2>&-", False), (">&- 2>&-", False), ("<&- >&- 2>&-", False)]
)
@pytest.mark.parametrize(("line", "code"), [("--version", 0), ("verify nowhere", 2)])
@pytest.mark.cases("worker", every=3)
def test_standard_streams_that_are_closed_get_nothing_and_the_exit_code_is_the_same(
    line: str, code: int, closed: str, errors: bool
) -> None:
    command = ["sh", "-c", f'exec "$0" -m adawise "$@" {closed}', sys.executable, *line.split()]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    assert bool(ended.stderr) == (errors and code != 0)


def test_a_file_does_not_get_the_number_of_a_standard_stream_that_is_closed() -> None:
    program = """
import os, sys
from adawise.__main__ import _open_closed_streams
_open_closed_streams()
print("a name that is not UTF-8: \\udcff", flush=True)
sys.stderr.write(f"{os.readlink('/proc/self/fd/1')} {os.get_inheritable(1)} {open(os.devnull).fileno() > 2}")
"""
    command = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, program]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.stderr == "/dev/null True True"


@pytest.mark.parametrize(
    ("end", "code"), [("return 3", 3), ("raise SystemExit(0)", 0), ("raise RuntimeError('a fault of ours')", 1)]
)
def test_the_process_ends_after_its_exit_functions_and_before_its_interpreter_is_torn_down(end: str, code: int) -> None:
    """A native thread that still frees what Python owns would end an interpreter that is being torn down by SIGABRT."""
    program = f"""
import atexit, os, threading
from adawise import __main__

class Torn:
    def __del__(self, write=os.write): write(1, b"torn down")

kept_to_the_end = Torn()

def main():
    atexit.register(print, "the exit function")
    threading.Thread(target=print, args=["the thread"]).start()
    {end}

__main__.main = main
__main__.program()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (code, ["the exit function", "the thread"])
    assert ("a fault of ours" in done.stderr) == (code == 1)
