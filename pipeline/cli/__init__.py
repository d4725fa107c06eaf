"""The command line: choose the command, collect every mistake, call.

Nothing heavy is imported here: `--help` must answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic_settings import CliApp

from pipeline import __version__
from pipeline.cli.command import Command
from pipeline.cli.offline import Broker, Card, ConfigShow, Demo, Verify
from pipeline.cli.online import Produce, Record, Replay, Run
from pipeline.cli.parser import PROGRAM, Parsed, parse
from pipeline.settings.mistakes import Mistake, error_of, nearest
from pipeline.settings.reading import Reading, read

COMMANDS: tuple[type[Command], ...] = (Demo, Run, Produce, Record, Replay, Card, Verify, Broker, ConfigShow)


def run(arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path) -> int:
    """Run the command line.

    Args:
        arguments: What follows the name of the program.
        environ: The environment.
        folder: The current folder.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong settings, 3 something was found.

    Raises:
        SettingsError: With every mistake in flags, environment and file.
        SystemExit: After the help of a command was printed.
    """
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        if len(arguments) < 2:
            print(_help())
            return 0
        arguments = [*arguments[1:], "--help"]
    if arguments[0] in {"-V", "--version"}:
        print(f"{PROGRAM} {__version__}")
        return 0
    command, rest = _choose(arguments)
    parsed = parse(command, rest)
    reading = read(
        parsed.flags,
        environ=environ,
        folder=folder,
        config=parsed.options.get("config"),
        uses=command.uses(parsed.options) if parsed.complete else frozenset(),
    )
    mistakes = [*parsed.mistakes, *reading.mistakes]
    if command is ConfigShow:
        return _show(reading, mistakes, as_json="json" in parsed.options)
    if mistakes:
        raise error_of(mistakes)
    return _call(command, parsed, reading)


def _call(command: type[Command], parsed: Parsed, reading: Reading) -> int:
    from pipeline.logs import configure

    settings = reading.settings
    configure(settings.log.level, settings.log.format)
    called = CliApp.run(command, cli_args={}, cli_settings_source=parsed.source, settings=settings, **parsed.options)
    return called.exit_code


def _choose(arguments: Sequence[str]) -> tuple[type[Command], list[str]]:
    """The command and what follows it; `--config FILE` may stand before it."""
    before: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("--config"):
        count = 1 if "=" in rest[0] else 2
        before, rest = before + rest[:count], rest[count:]
    names = {command.name: command for command in COMMANDS}
    for words in (2, 1):
        name = " ".join(rest[:words])
        if name in names:
            return names[name], before + rest[words:]
    word = rest[0] if rest else ""
    match = next((name for name in names if name.split()[0] == word), None) or nearest(word, names, cutoff=0.6)
    hint = f"did you mean `{PROGRAM} {match}`?" if match else f"there are {', '.join(names)}"
    shown = "no command" if not word or word.startswith("-") else repr(word)
    raise error_of([Mistake(shown, "command line", f"expected a command; {hint}")])


def _help() -> str:
    width = max(len(command.name) for command in COMMANDS) + 2
    lines = [f"  {command.name:<{width}}{command.summary}" for command in COMMANDS]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [options]",
            "",
            "Classify camera feeds with two CLIP models, mixed anew for each camera as light and weather change:",
            "images from Kafka, predictions and mixing coefficients to Parquet, exactly once.",
            "",
            "commands:",
            *lines,
            "",
            f"  {PROGRAM} COMMAND --help   options, with units, ranges and examples",
            f"  {PROGRAM} --version",
            "",
            "Settings: flags over environment (ADAWISE_*) over adawise.toml (or --config FILE) over defaults.",
            "Exit codes: 0 done, 1 failed, 2 wrong settings or usage, 3 something was found, 130 interrupted.",
        ]
    )


def _show(reading: Reading, mistakes: Sequence[Mistake], as_json: bool) -> int:
    from pipeline.cli.show import as_json_text, as_table

    if as_json:
        print(as_json_text(reading, mistakes))
        return 2 if mistakes else 0
    if mistakes:
        raise error_of(mistakes)
    print(as_table(reading))
    return 0
