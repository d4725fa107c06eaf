"""The work of `adawise doctor`: check every part, with right or wrong settings, and choose the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adawise.doctor.checks import check
from adawise.doctor.verdict import Check, report, report_json
from adawise.settings import Settings
from adawise.settings.mistakes import NOT_SET, Mistake

_FAILED, _WRONG_SETTINGS, _FOUND = 1, 2, 3


def doctor(settings: Settings, mistakes: Sequence[Mistake], *, as_json: bool, strict: bool) -> int:
    """Check every part and report the results.

    Args:
        settings: the settings; wrong ones are at their defaults.
        mistakes: the mistakes in them.
        as_json: print JSON in place of lines.
        strict: return 3 if there is a warning.

    Returns:
        0 if a worker can start, 1 if not, 2 if settings are wrong.
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
    """Return the groups that cannot be judged, and single settings that are missing or whose file is missing.

    Nothing is known of a group with a wrong value. If the settings file or an unknown name is wrong, that holds for all
    groups.
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
