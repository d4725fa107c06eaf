"""The command line: choose the command, collect every mistake, and call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adawise import __version__
from adawise.cli import COMMANDS, PROGRAM, begins_at, command_of

if TYPE_CHECKING:
    from adawise.cli.command import Command
    from adawise.cli.parser import Parsed
    from adawise.settings.reading import Reading


def run_command(arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path) -> int:
    """Run the command line, and return its exit code: 0 done, 1 failed, 2 wrong settings, 3 something was found.

    Args:
        arguments: the arguments after the name of the program.
        environ: the environment.
        folder: the current folder.

    Raises:
        SettingsError: there are mistakes; it lists every one in flags, environment and file.
        SystemExit: the help of a command was printed.
    """
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        if len(arguments) < 2:
            print(_help())
            return 0
        arguments = [*arguments[1:], "--help"]
    if arguments[0] in {"-V", "--version"}:
        print(f"{PROGRAM} {__version__}")
        return 0
    if len(family := _family(arguments[0])) > 1 and arguments[1:2] in (["-h"], ["--help"]):
        print(_family_help(arguments[0], family))
        return 0
    from adawise.cli.older import translated

    for line in translated(arguments):
        if code := _execute(line, environ, folder):
            return code
    return 0


def _execute(arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> int:
    from adawise.cli.parser import parse
    from adawise.settings.mistakes import error_of
    from adawise.settings.reading import Reading, read
    from adawise.settings.tree import Settings

    name, rest = _choose(arguments)
    command = command_of(name)
    parsed = parse(command, rest)
    if not command.groups:  # it reads no settings, so mistakes in them do not matter
        if parsed.mistakes:
            raise error_of(parsed.mistakes)
        return _call(command, parsed, Reading(Settings(), {}, ()))
    reading = read(
        parsed.flags,
        environ=environ,
        folder=folder,
        config=parsed.config,
        uses=command.uses(parsed.options) if parsed.complete else frozenset(),
    )
    from adawise.logs import configure

    log = reading.settings.log
    configure(log.level, log.format, is_service=command.is_service(parsed.options))
    if not parsed.mistakes and (code := command.call_with_mistakes(reading, parsed.options)) is not None:
        return code
    if mistakes := [*parsed.mistakes, *reading.mistakes]:
        raise error_of(mistakes)
    return _call(command, parsed, reading)


def _call(command: type[Command], parsed: Parsed, reading: Reading) -> int:
    from pydantic_settings import CliApp

    source, settings = parsed.source, reading.settings
    called = CliApp.run(command, cli_args={}, cli_settings_source=source, settings=settings, **parsed.options)
    return called.exit_code


def _choose(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the command and the arguments that follow it; `--config FILE` may come before it.

    Raises:
        SettingsError: there is no such command.
    """
    start = begins_at(arguments)
    before, rest = [*arguments[:start]], [*arguments[start:]]
    for words in (2, 1):
        name = " ".join(rest[:words])
        if name in COMMANDS:
            return name, before + rest[words:]
    from adawise.settings.mistakes import Mistake, error_of, nearest

    word = rest[0] if rest else ""
    family = _family(word)
    second = rest[1] if family and len(rest) > 1 and not rest[1].startswith("-") else ""
    called = f"{word} {second}".rstrip()
    guess = nearest(called, family or COMMANDS, cutoff=0.6) if second or not family else None
    match = family[0] if len(family) == 1 else guess
    hint = f"did you mean `{PROGRAM} {match}`?" if match else f"there are {', '.join(family or COMMANDS)}"
    shown = "no command" if not word or word.startswith("-") else repr(called)
    raise error_of([Mistake(shown, "command line", f"expected a command; {hint}")])


def _family(word: str) -> list[str]:
    """Return the commands of two words that begin with this one."""
    return [name for name in COMMANDS if name.startswith(f"{word} ")]


def _family_help(word: str, names: Sequence[str]) -> str:
    lines = [f"usage: {PROGRAM} {word} COMMAND [options]", "", "commands:", *_listed(names), ""]
    return "\n".join([*lines, f"  {PROGRAM} {word} COMMAND -h   the most used options; --help: all options"])


def _listed(names: Sequence[str]) -> list[str]:
    width = max(map(len, names)) + 2
    return [f"  {name:<{width}}{COMMANDS[name][1]}" for name in names]


def _help() -> str:
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [options]",
            "",
            "Classify camera feeds with two CLIP models, mixed anew for each camera as light and weather change:",
            "images from Kafka, predictions and mixing coefficients to Parquet, exactly once.",
            "",
            "commands:",
            *_listed(list(COMMANDS)),
            "",
            f"  {PROGRAM} COMMAND -h       the most used options, with examples",
            f"  {PROGRAM} COMMAND --help   all options, with units and ranges",
            f"  {PROGRAM} --version",
            "",
            "Settings: flags over environment (ADAWISE_*) over adawise.toml (or --config FILE) over defaults.",
            "Exit codes: 0 done, 1 failed, 2 wrong settings or usage, 3 something was found, 130 interrupted.",
        ]
    )
