"""The parser of a command and its help, made by pydantic-settings, and the parsing of arguments into values.

pydantic-settings walks the models and adds the arguments. Its hooks are used to give each argument a name without
`settings.`, a help that says what is allowed, and no default (only what was given may count). All that argparse would
refuse one by one is collected.
"""

from __future__ import annotations

import shutil
from argparse import SUPPRESS, Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from typing import Any, NoReturn

from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import CliSettingsSource
from typing_extensions import override

from adawise.cli import PROGRAM
from adawise.cli.command import OFTEN, Command
from adawise.settings.describe import (
    GROUPS,
    SETTINGS,
    environment_name,
    expected,
    flag_name,
    is_secret,
    metavar,
    shown,
    takes_tables,
)
from adawise.settings.mistakes import Mistake, nearest
from adawise.settings.reading import as_given, reason_of
from adawise.settings.sources import Given, Origin, ways_to_set

_PREFIX = "settings."
_PASSWORD = "kafka.security.sasl_password"
_VISIBLE = "every user of the machine can see it there (ps), and the shell stores it"
_OFTEN_TITLE = "most used settings"
# Values that the help need not describe.
_PLAIN = {"a path", "text that is not empty", "text, kept secret", "true or false"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """The result of parsing: the command's own options, flags of settings, and every mistake in them."""

    source: CliSettingsSource[Any]
    options: Mapping[str, Any]
    flags: Sequence[Given]
    mistakes: Sequence[Mistake]
    complete: bool = True  # False if parsing ended at a mistake: what follows it is not known

    @property
    def config(self) -> str | None:
        """The file named by `--config`, if any."""
        value = self.options.get("config")
        return value if isinstance(value, str) else None


class _Nothing:
    """The value of a flag that was given without one."""

    @override
    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


class _Refused(Exception):
    """A mistake after which argparse cannot go on."""


class _Parser(ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


class _Formatter(RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size((100, 24)).columns
        super().__init__(prog, max_help_position=34, width=max(60, min(columns, 110)) - 2)


def own_fields(command: type[Command]) -> dict[str, FieldInfo]:
    """Return the command's own options by the name of the flag, with `_` for `-`."""
    fields = {}
    for name, field in command.model_fields.items():
        if name != "settings" and (name != "config" or command.groups):
            alias = field.validation_alias
            fields[str(alias.choices[0]) if isinstance(alias, AliasChoices) else name] = field
    return fields


def takes_several(field: FieldInfo) -> bool:
    """Return True for a positional argument that takes several values."""
    return _is_positional(field) and takes_tables(field)


def _is_positional(field: FieldInfo) -> bool:
    return any(getattr(item, "__name__", "") == "_CliPositionalArg" for item in field.metadata)


class _ShortHelp(Action):
    """The action of `-h`, which prints usage, purpose, own options, the settings that are used most, and examples."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, command: type[Command], help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=SUPPRESS, help=help)
        self._command = command

    @override
    def __call__(self, *_: object) -> NoReturn:
        print(short_help(self._command), end="")
        raise SystemExit(0)


def short_help(command: type[Command]) -> str:
    """Return what `-h` prints."""
    text: str = parser_source(command, is_short=True).root_parser.format_help()
    return text


@cache
def parser_source(command: type[Command], *, is_short: bool = False) -> CliSettingsSource[Any]:
    """Return the parser of a command (`.root_parser`), as CliApp takes it.

    It is made once, for a process that runs several commands. It keeps nothing of what it parsed.

    Args:
        command: the class of the command.
        is_short: True for only those settings that are used most.
    """
    parser = _Parser(
        prog=f"{PROGRAM} {command.name}",
        usage=_usage(command),
        description=cleandoc(command.__doc__ or ""),
        epilog=_short_epilog(command) if is_short else _epilog(command),
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", action=_ShortHelp, command=command, help="show the most used options, and exit")
    parser.add_argument("--help", action="help", default=SUPPRESS, help="show all options, and exit")
    own = own_fields(command)

    def add_argument(container: Any, *names: str, **kwargs: Any) -> None:
        dest = kwargs.get("dest", names[0])
        setting = dest.removeprefix(_PREFIX)
        if dest == setting and dest not in own:  # the settings as a whole, and `--config` for a command that reads none
            return
        # The last term is true in the short help for a setting that is not used most.
        if dest != setting and (setting in GROUPS or not command.takes(setting) or is_short > (setting in OFTEN)):
            return
        field = own[dest] if dest == setting else SETTINGS[setting]
        if dest != setting and takes_tables(field):
            kwargs.pop("action")  # all tables in one value, as in the environment
        if takes_several(field) and dest == setting:
            kwargs |= {"metavar": names[0].upper(), "nargs": "*"}
        elif "action" not in kwargs:
            kwargs["metavar"] = metavar(field) if "dest" in kwargs else names[0].upper()
            kwargs |= {"nargs": "?", "const": _NOTHING}  # a missing value is reported together with all other mistakes
        names += tuple(f"--{short}" for short, name in command.shorthands.items() if dest == f"{_PREFIX}{name}")
        kwargs |= {"default": SUPPRESS, "help": _help(field).replace("%", "%%")}
        container.add_argument(*(name.replace(f"--{_PREFIX}", "--", 1) for name in names), **kwargs)

    def add_group(root: ArgumentParser, *, title: str, description: str | None) -> Any:
        name = title.removesuffix(" options").removeprefix(_PREFIX)
        visible = name in GROUPS and any(map(command.takes, _settings_of(name)))
        if is_short:  # one heading for all of them
            settings = next((group for group in root._action_groups if group.title == _OFTEN_TITLE), None)
            return (settings or root.add_argument_group(_OFTEN_TITLE)) if visible else root.add_argument_group(None)
        return root.add_argument_group(f"{name} ({description})" if visible else None)

    return CliSettingsSource(
        command, root_parser=parser, add_argument_method=add_argument, add_argument_group_method=add_group
    )


def _settings_of(group: str) -> list[str]:
    """Return the settings of a group, without those of the groups in it."""
    return [name for name in SETTINGS if name.rpartition(".")[0] == group]


def _usage(command: type[Command]) -> str:
    own = sorted(own_fields(command).items(), key=lambda item: not _is_positional(item[1]))
    needed = []
    for name, field in own:
        if _is_positional(field):
            several = "..." if takes_several(field) else ""
            needed.append(f"{name.upper()}{several}" if field.is_required() else f"[{name.upper()}]")
        elif field.is_required():
            needed.append(f"{flag_name(name)} {metavar(field)}")
    return " ".join([PROGRAM, command.name, *needed, "[options]"])


def _help(field: FieldInfo) -> str:
    if is_secret(field):
        return f"{field.description} [environment or file only]"
    words = (
        [] if expected(field) in _PLAIN else [expected(field).removeprefix("a whole number ").removeprefix("a number ")]
    )
    if not field.is_required() and field.default is not None and field.default is not False:
        words.append(f"default {shown(field, field.default)}")
    return f"{field.description} [{'; '.join(words)}]" if words else str(field.description)


def _examples(command: type[Command]) -> str:
    return "\n".join(["examples:", *(f"  {PROGRAM} {line}\n      {purpose}" for purpose, line in command.examples)])


def _short_epilog(command: type[Command]) -> str:
    if not command.groups:
        return _examples(command)
    count = sum(map(command.takes, SETTINGS))
    return f"{_examples(command)}\n\n  {PROGRAM} {command.name} --help: all {count} settings that it reads"


def _epilog(command: type[Command]) -> str:
    if not command.groups:
        return _examples(command)
    rule = (
        "Every setting can also be set in the environment or in adawise.toml; flags win over environment over "
        'file:\n  --log.level debug  =  ADAWISE_LOG__LEVEL=debug  =  level = "debug" under [log]'
    )
    secret = (
        f"\nPasswords come from the environment ({environment_name(_PASSWORD)}, ...; with _FILE\nafter it, from the "
        "file that it names) or the file of settings; as flags they are refused: every user\nof the machine could see "
        "them."
        if command.takes(_PASSWORD)
        else ""
    )
    return f"{_examples(command)}\n\n{rule}{secret}"


def parse(command: type[Command], arguments: Sequence[str]) -> Parsed:
    """Return the values and the mistakes of the arguments.

    Raises:
        SystemExit: --help or -h was given; the help is printed.
    """
    source = parser_source(command)
    try:
        namespace, extra = source.root_parser.parse_known_args(list(_with_hyphens(arguments)))
    except _Refused as error:
        message = str(error).replace("ignored explicit argument", "takes no value, but has one")
        mistake = Mistake(f"{PROGRAM} {command.name}", "flags", f"{message}; see `{PROGRAM} {command.name} --help`")
        return Parsed(source, {}, (), [mistake], complete=False)
    given = vars(namespace)
    settings = {dest.removeprefix(_PREFIX): value for dest, value in given.items() if dest.startswith(_PREFIX)}
    secrets = [name for name in settings if is_secret(SETTINGS[name])]
    flags = [
        Given(name, value, Origin("flag", flag_name(name))) for name, value in settings.items() if name not in secrets
    ]
    options = {dest: value for dest, value in given.items() if not dest.startswith(_PREFIX)}
    unknown = [argument.split("=")[0] for argument in extra if argument.startswith("-")]
    if several := [name for name, field in own_fields(command).items() if takes_several(field)]:
        # Argparse takes one run of adjacent values, which may be an empty one before the first flag; `extra` has the
        # rest.
        given_anywhere = [*options.get(several[0], ()), *(each for each in extra if not each.startswith("-"))]
        options |= {several[0]: given_anywhere} if given_anywhere else {}
        extra = [each for each in extra if each.startswith("-")]
    # What follows an unknown flag may be its value, a path or a password: positional arguments are not judged.
    if unknown:
        options = {dest: value for dest, value in options.items() if not _is_positional(own_fields(command)[dest])}
        mistakes = [_unknown_flag(command, flag) for flag in unknown]
    else:
        # The part of a URL after its scheme may have a password.
        names = [argument.partition("://") for argument in extra]
        mistakes = [Mistake(repr(a + b), "argument", f"not expected; {_usage(command)}") for a, b, _ in names]
    mistakes += [Mistake(flag_name(name), "flag", f"{_VISIBLE}; set {ways_to_set(name)} instead") for name in secrets]
    mistakes += _option_mistakes(command, options, arguments_missing=not unknown)
    idle = command.without_effect(options)
    mistakes += [
        Mistake(flag_name(given.name), "flag", "it has no effect with these options; leave it out")
        for given in flags
        if any(given.name == name or given.name.startswith(f"{name}.") for name in idle)
    ]
    return Parsed(source, options, flags, mistakes)


def _with_hyphens(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments with `-` for `_` in flags: `--model.theta_0` is as good as `--model.theta-0`."""
    options = True
    for argument in arguments:
        options = options and argument != "--"
        name, equals, value = argument.partition("=")
        yield name.replace("_", "-") + equals + value if options and name.startswith("--") else argument


def _unknown_flag(command: type[Command], flag: str) -> Mistake:
    name = flag.lstrip("-").replace("-", "_")
    if name in SETTINGS:
        return Mistake(flag, "flag", f"`{command.name}` does not use it; leave it out")
    if name in GROUPS:
        return Mistake(flag, "flag", "it is a group of settings, not a setting; see --help")
    known = [*own_fields(command), *filter(command.takes, SETTINGS)]
    match = nearest(name, known)
    if match is not None and match not in SETTINGS and _is_positional(own_fields(command)[match]):
        return Mistake(flag, "flag", f"there is no such flag, but an argument {match.upper()}; {_usage(command)}")
    hint = f"did you mean {flag_name(match)}?" if match else f"see `{PROGRAM} {command.name} --help`"
    return Mistake(flag, "flag", f"there is no such flag; {hint}")


def _option_mistakes(command: type[Command], options: Mapping[str, Any], arguments_missing: bool) -> list[Mistake]:
    fields = own_fields(command)
    mistakes = []
    try:
        command(**options)
    except ValidationError as error:
        reasons: dict[str, str] = {}
        for item in error.errors(include_input=False, include_url=False):
            name = str(item["loc"][0])
            reasons[name] = reasons.get(name) or reason_of(item)
        for name, reason in reasons.items():
            if name in options:
                why = f": {reason}" if reason and options[name] is not _NOTHING else ""
                problem = f"expected {expected(fields[name])}{why}"
                mistakes.append(Mistake(_called(name, fields), "flag", problem, as_given(fields[name], options[name])))
            elif arguments_missing or not _is_positional(fields[name]):
                problem = f"expected a {fields[name].description}; {_usage(command)}"
                mistakes.append(Mistake(_called(name, fields), "not given", problem))
    for name, problem in command.problems(options):
        if not arguments_missing and _is_positional(fields[name]):
            continue
        mistakes.append(Mistake(_called(name, fields), "flag" if name in options else "not given", problem))
    return mistakes


def _called(name: str, fields: Mapping[str, FieldInfo]) -> str:
    return name.upper() if _is_positional(fields[name]) else flag_name(name)
