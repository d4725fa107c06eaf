"""The completion scripts of shells, made by shtab from one parser of all commands."""

from __future__ import annotations

from argparse import Action, ArgumentParser, _SubParsersAction
from typing import Literal, get_args, get_origin

import shtab
from pydantic.fields import FieldInfo

from adawise.cli import COMMANDS, PROGRAM, command_of
from adawise.cli.parser import own_fields, parser_source
from adawise.settings.describe import SETTINGS, is_path, members

_OF_SETTINGS = "settings."


def script(shell: str) -> str:
    """Return the completion script for a shell that shtab knows."""
    return shtab.complete(program_parser(), shell=shell)


def program_parser() -> ArgumentParser:
    """Return a parser of every command with its options, and with their possible values where these are known."""
    root = ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    root.add_argument("-h", "--help", action="store_true", help="list the commands")
    root.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    families: dict[str, _SubParsersAction[ArgumentParser]] = {}
    for name, (_, summary) in COMMANDS.items():
        first, _, second = name.partition(" ")
        where = commands
        if second and first not in families:
            families[first] = commands.add_parser(first, add_help=False, help=_of_family(first)).add_subparsers()
        if second:
            where = families[first]
        parser = parser_source.__wrapped__(command_of(name)).root_parser  # not the cached parser: this one is changed
        _say_values(parser, {**own_fields(command_of(name)), **{_OF_SETTINGS + n: f for n, f in SETTINGS.items()}})
        where.add_parser(second or first, parents=[parser], add_help=False, help=summary)
    return root


def _of_family(word: str) -> str:
    return ", ".join(name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{word} "))


def _say_values(parser: ArgumentParser, fields: dict[str, FieldInfo]) -> None:
    for action in parser._actions:
        field = fields.get(action.dest)
        if field is None or action.nargs == 0:
            continue
        action.metavar = action.metavar or action.dest.upper()
        if choices := _choices(field):
            action.choices = choices
        elif is_path(field):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # the attribute that shtab reads
        _of_one_value(action)


def _of_one_value(action: Action) -> None:
    """Make an option expect a value. Our parser lets it be missing, to report that with all other mistakes."""
    if action.option_strings:
        action.nargs = None


def _choices(field: FieldInfo) -> list[str]:
    kinds = members(field.annotation)[0]
    return [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
