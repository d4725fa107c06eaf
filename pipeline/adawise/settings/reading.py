"""Reading of all sources into one tree of settings, with the origin of each value and all mistakes.

Flags override the environment, which overrides the file, which overrides the defaults. Every value of every source is
checked, even if another source overrides it: otherwise its mistake would appear only once the other value is removed.
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
    """The result of reading. If there are mistakes, `settings` has the defaults in place of the wrong values."""

    settings: Settings
    origins: Mapping[str, Origin]
    mistakes: Sequence[Mistake]

    def checked(self) -> Settings:
        """Return the settings.

        Raises:
            SettingsError: there are mistakes; the error has all of them.
        """
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
        folder: the current folder, in which the file is looked for, and which relative paths refer to.
        config: the file named by `--config`.
        uses: groups that the command uses; their required settings and files must exist.
    """
    path, is_named = find_file(config, environ, folder)
    shown_as = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
    in_file, file_mistakes = from_file(path, shown_as, is_named, folder)
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
    # If the file could not be read, settings that seem to be missing may be in it.
    needs = () if any(mistake.name == CONFIG for mistake in file_mistakes) else unmet(settings, uses, folder)
    mistakes += [_mistake_at(name, problem, values) for name, problem in needs if name not in wrong]
    origins = {name: values[name].origin if name in values else DEFAULT for name in SETTINGS}
    return Reading(settings, origins, mistakes)


def changed(settings: Settings, given: Sequence[Given], *, folder: Path, uses: frozenset[str] = frozenset()) -> Reading:
    """Return settings with other values for some of them, checked as `read` does. For the arguments see there.

    Groups without a given value are kept as they are.
    """
    found = [(each.name, *check(each)) for each in given]
    if mistakes := [mistake for _, _, mistake in found if mistake is not None]:
        return Reading(settings, {}, mistakes)
    values = {each.name: Given(each.name, value, each.origin) for each, (_, value, _) in zip(given, found, strict=True)}
    groups: dict[str, BaseModel] = {}
    problems: list[tuple[str, str]] = []
    for name, table in _tree(values.values()).items():
        before = getattr(settings, name).model_dump(mode="json", exclude_unset=True)
        groups[name], between = _group(group_of(GROUPS[name]), _merged(before, table))
        problems += [(f"{name}.{field}", problem) for field, problem in between]
    new = settings.model_copy(update=groups)
    problems += [*new.problems(), *unmet(new, uses, folder)]
    origins = {name: each.origin for name, each in values.items()}
    return Reading(new, origins, [_mistake_at(name, problem, values) for name, problem in problems])


def _merged(before: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**before}
    for name, value in table.items():
        merged[name] = _merged(before.get(name) or {}, value) if isinstance(value, dict) else value
    return merged


def check(given: Given) -> tuple[Any, Mistake | None]:
    """Return the value, or None if it unsets the setting, and the mistake in the value alone, if there is one."""
    field = SETTINGS[given.name]
    value = given.value
    nothing = {""} if is_verbatim(field) else {"", NONE}
    if is_optional(field) and given.origin.source != "file" and value in nothing:
        return None, None
    table, _, key = given.name.rpartition(".")
    reasons = ["got true or false"] if isinstance(value, bool) and not takes_bool(field) else []
    if not reasons:
        reasons = [
            reason_of(error) for error in _errors(group_of(GROUPS[table]), {key: value}) if error["loc"][:1] == (key,)
        ]
    if not reasons:
        return value, None
    reason = next((f": {reason}" for reason in reasons if reason), "")
    return value, Mistake(given.name, str(given.origin), f"expected {expected(field)}{reason}", as_given(field, value))


def check_arguments(group: str, values: Mapping[str, Any], function: str) -> None:
    """Check those arguments of a function that are settings of a group.

    Args:
        group: name of the group.
        values: the arguments by the setting's name in the group.
        function: name of the function, as the origin of the values.

    Raises:
        SettingsError: with all mistakes.
    """
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
    """Return the message of one of our own validators; "" for pydantic's, which only repeat what is expected."""
    return str(error["ctx"]["error"]) if error["type"] == "value_error" else ""


def _together(values: Mapping[str, Given], wrong: set[str]) -> tuple[Settings, list[Mistake]]:
    """Return the settings, and the mistakes between values that are valid alone.

    Mistakes between the values of a group are not reported if a value of the group is wrong by itself: they may follow
    from the missing value.
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
    """Return a group made from its values, and the problems between them; an inconsistent table is left at defaults."""
    problems: list[tuple[str, str]] = []
    while True:
        try:
            return model.model_validate(table), problems
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                assert item["type"] == INCONSISTENT, item["type"]  # each value alone was checked before
                place = [str(part) for part in item["loc"]]
                problems += [(".".join([*place, name]), problem) for name, problem in item["ctx"]["problems"]]
                # Drop the inconsistent sub-group, or everything if the group itself is inconsistent; then try again.
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
    """Return the value as the user wrote it, cut to 80 characters; hidden if it is a secret."""
    if is_secret(field):
        return SECRET
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]}..."
