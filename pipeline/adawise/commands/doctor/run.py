"""Settings, right or wrong -> what the doctor says of them, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adawise.commands.doctor.checks import check
from adawise.commands.doctor.verdict import Check, report, report_json
from adawise.settings import Settings
from adawise.settings.mistakes import NOT_SET, Mistake

_FAILED, _WRONG_SETTINGS, _FOUND = 1, 2, 3


def doctor(settings: Settings, mistakes: Sequence[Mistake], *, as_json: bool, strict: bool) -> int:
    """Look at everything and tell it; 0 if a worker can start, 1 if not, 2 if settings are wrong.

    Args:
        settings: those that are wrong are at their defaults.
        mistakes: in them.
        as_json: print JSON in place of lines.
        strict: 3 if there is a warning.
    """
    checks = (report_json if as_json else report)(_all(settings, mistakes))
    found = {each.status for each in checks}
    if mistakes:
        return _WRONG_SETTINGS
    return _FAILED if "fail" in found else _FOUND if strict and "warn" in found else 0


def _all(settings: Settings, mistakes: Sequence[Mistake]) -> Iterator[Check]:
    told = "\n".join(map(str, mistakes))
    yield Check("settings", "fail" if mistakes else "ok", told)
    yield from check(settings, not_known(mistakes))


def not_known(mistakes: Sequence[Mistake]) -> frozenset[str]:
    """The groups that cannot be judged by, and settings that are missing, or whose file is.

    Of a group whose value is wrong nothing is known; all of them, if what is wrong is the file or an unknown name.
    """
    known, found = frozenset(Settings.model_fields), set[str]()
    for mistake in mistakes:
        group = mistake.name.partition(".")[0]
        if mistake.origin == NOT_SET:
            found.add(mistake.name)
        elif group in known:
            found.add(group)
        else:
            found |= known
    return frozenset(found)
