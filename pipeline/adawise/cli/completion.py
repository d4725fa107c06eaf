"""The command `completion`, which prints what a shell needs to complete commands, options and values."""

from __future__ import annotations

from argparse import ArgumentParser, _SubParsersAction
from typing import Literal, get_args, get_origin

import shtab
from pydantic import Field
from pydantic.fields import FieldInfo
from pydantic_settings import CliPositionalArg
from typing_extensions import override

from adawise.cli import COMMANDS, PROGRAM, command_of
from adawise.cli.command import Command
from adawise.cli.parser import own_fields, parser_source
from adawise.settings.describe import SETTINGS, is_path, members


class CompletionCommand(Command):
    """Print a script with which a shell completes commands, options, their values and file names.

    The script is for this version: load it again after an upgrade. It starts no program, so completion is fast.
    """

    name = "completion"
    groups = ()
    examples = (
        ("bash: write to ~/.adawise.bash, and source it in ~/.bashrc", "completion bash"),
        ("zsh: write to _adawise in a folder of $fpath", "completion zsh"),
        ("fish: write to ~/.config/fish/completions/adawise.fish", "completion fish"),
    )

    shell: CliPositionalArg[Literal["bash", "zsh", "fish"]] = Field(description="the shell to complete in")

    @override
    def call(self) -> int:
        """Print the completion script, which shtab makes."""
        print(shtab.complete(program_parser(), shell=self.shell))
        return 0


def program_parser() -> ArgumentParser:
    """Return a parser of every command with its options, and with their possible values where these are known."""
    root = ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    root.add_argument("-h", "--help", action="store_true", help="list the commands")
    root.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    families: dict[str, _SubParsersAction[ArgumentParser]] = {}
    for name, (_, summary) in COMMANDS.items():
        first, _, second = name.partition(" ")
        if second and first not in families:
            seconds = ", ".join(each.partition(" ")[2] for each in COMMANDS if each.startswith(f"{first} "))
            families[first] = commands.add_parser(first, add_help=False, help=seconds).add_subparsers()
        parser = parser_source.__wrapped__(command_of(name)).root_parser  # not the cached parser: this one is changed
        _add_values(parser, {**own_fields(command_of(name)), **{f"settings.{n}": f for n, f in SETTINGS.items()}})
        where = families[first] if second else commands
        where.add_parser(second or first, parents=[parser], add_help=False, help=summary)
    return root


def _add_values(parser: ArgumentParser, fields: dict[str, FieldInfo]) -> None:
    for action in parser._actions:
        field = fields.get(action.dest)
        if field is None or action.nargs == 0:
            continue
        action.metavar = action.metavar or action.dest.upper()
        kinds = members(field.annotation)[0]
        if choices := [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]:
            action.choices = choices
        elif is_path(field):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # the attribute that shtab reads
        if action.option_strings:  # our parser lets a value be missing, to report that with all other mistakes
            action.nargs = None
