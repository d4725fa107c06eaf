"""Flags over environment over file over defaults: one tree of settings, the origin of each, and every mistake.

Each value of each source is checked, also one that a stronger source replaces: it would bite on the day that the
stronger one goes away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from adawise.settings.describe import (
    GROUPS,
    NONE,
    SECRET,
    SETTINGS,
    expected,
    group_of,
    is_optional,
    is_secret,
    is_verbatim,
    takes_bool,
)
from adawise.settings.group import INCONSISTENT
from adawise.settings.mistakes import NOT_SET, Mistake, error_of
from adawise.settings.requirements import unmet
from adawise.settings.sources import CONFIG, Given, Origin, find_file, from_environment, from_file, ways_to_set
from adawise.settings.tree import BETWEEN_GROUPS, Settings

DEFAULT = Origin("default", "default")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read. `settings` is complete only if there are no mistakes: a wrong value is left at its default."""

    settings: Settings
    origins: Mapping[str, Origin]
    mistakes: Sequence[Mistake]

    def checked(self) -> Settings:
        """The settings. Raises SettingsError with every mistake if there is one."""
        if self.mistakes:
            raise error_of(self.mistakes)
        return self.settings


def read(
    flags: Sequence[Given] = (),
    *,
    environ: Mapping[str, str],
    folder: Path,
    config: str | None = None,
    uses: frozenset[str] = frozenset(),
) -> Reading:
    """Read every source.

    Args:
        flags: values given by flags.
        environ: the environment.
        folder: the current folder, where the file is looked for and other files are relative to.
        config: the file named by `--config`.
        uses: groups that the command uses: what they need beyond their defaults must be there.
    """
    path, asked_for = find_file(config, environ, folder)
    shown_as = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
    in_file, file_mistakes = from_file(path, shown_as, asked_for, folder)
    in_environment, environment_mistakes = from_environment(environ, folder)
    mistakes = [*file_mistakes, *environment_mistakes]
    values: dict[str, Given] = {}
    wrong: set[str] = set()
    for given in [*in_file, *in_environment, *flags]:  # the weakest first
        value, mistake = check(given)
        values[given.name] = Given(given.name, value, given.origin)
        if mistake is not None:
            mistakes.append(mistake)
            wrong.add(given.name)
    settings, together = _together({name: given for name, given in values.items() if name not in wrong}, wrong)
    mistakes += together
    # a file that could not be read may hold whatever seems to be missing
    needs = () if any(mistake.name == CONFIG for mistake in file_mistakes) else unmet(settings, uses, folder)
    mistakes += [_mistake_at(name, problem, values) for name, problem in needs if name not in wrong]
    origins = {name: values[name].origin if name in values else DEFAULT for name in SETTINGS}
    return Reading(settings, origins, mistakes)


def check(given: Given) -> tuple[Any, Mistake | None]:
    """The value as its group wants it, and what is wrong with it by itself."""
    field = SETTINGS[given.name]
    value = given.value
    nothing = {""} if is_verbatim(field) else {"", NONE}
    if is_optional(field) and given.origin.source != "file" and value in nothing:
        return None, None
    table, _, key = given.name.rpartition(".")
    reasons = ["it is a boolean"] if isinstance(value, bool) and not takes_bool(field) else []
    if not reasons:
        reasons = [
            reason_of(error) for error in _errors(group_of(GROUPS[table]), {key: value}) if error["loc"][:1] == (key,)
        ]
    if not reasons:
        return value, None
    reason = next((f": {reason}" for reason in reasons if reason), "")
    return value, Mistake(given.name, str(given.origin), f"expected {expected(field)}{reason}", as_given(field, value))


def check_arguments(group: str, values: Mapping[str, Any], function: str) -> None:
    """Check the arguments of a function that are settings of a group. Raises SettingsError with every mistake."""
    origin = Origin("file", function)
    mistakes = [check(Given(f"{group}.{name}", value, origin))[1] for name, value in values.items()]
    if found := [mistake for mistake in mistakes if mistake is not None]:
        raise error_of(found)


def _errors(model: type[BaseModel], values: Mapping[str, Any]) -> Sequence[Any]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return ()


def reason_of(error: Mapping[str, Any]) -> str:
    """Our own validators say more than what was expected; pydantic's would only repeat it."""
    return str(error["ctx"]["error"]) if error["type"] == "value_error" else ""


def _together(values: Mapping[str, Given], wrong: set[str]) -> tuple[Settings, list[Mistake]]:
    """The settings, and what is wrong between values that are right alone.

    Groups in which a value is wrong by itself are not judged as a whole: what they lack may be that value.
    """
    groups: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for name, table in _tree(values.values()).items():
        groups[name], found = _group(group_of(GROUPS[name]), table)
        problems += [(f"{name}.{field}", problem) for field, problem in found]
    settings = Settings.model_construct(**groups)
    damaged = {name.rpartition(".")[0] for name in wrong}
    mistakes = [_mistake_at(name, text, values) for name, text in problems if name.rpartition(".")[0] not in damaged]
    if not damaged & BETWEEN_GROUPS:
        mistakes += [_mistake_at(name, problem, values) for name, problem in settings.problems()]
    return settings, mistakes


def _group(model: type[BaseModel], table: dict[str, Any]) -> tuple[BaseModel, list[tuple[str, str]]]:
    """The group from its values, and what is wrong between them; what does not fit together is left at defaults."""
    problems: list[tuple[str, str]] = []
    while True:
        try:
            return model.model_validate(table), problems
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                assert item["type"] == INCONSISTENT, item["type"]  # single values were checked before
                place = [str(part) for part in item["loc"]]
                problems += [(".".join([*place, name]), problem) for name, problem in item["ctx"]["problems"]]
                table = {key: value for key, value in table.items() if place and key != place[0]}


def _tree(given: Iterable[Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for item in given:
        *tables, key = item.name.split(".")
        table = tree
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = item.value
    return tree


def _mistake_at(name: str, problem: str, values: Mapping[str, Given]) -> Mistake:
    given = values.get(name)
    if given is None or given.value is None:
        return Mistake(name, NOT_SET, f"{problem}; set it by {ways_to_set(name)}")
    return Mistake(name, str(given.origin), problem, as_given(SETTINGS[name], given.value))


def as_given(field: FieldInfo, value: object) -> str:
    """The value as the user wrote it, cut short; hidden if it is a secret."""
    if is_secret(field):
        return SECRET
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]}..."
