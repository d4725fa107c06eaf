"""The command `doctor`, which checks part by part whether a worker could do its work here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, WORKER_GROUPS, Command, json_flag
from adawise.settings.reading import Reading


class DoctorCommand(Command):
    """Say whether a worker can do its work here: settings, broker, topic, stores, models, machine, part by part.

    Each part passes, has a warning, or fails, with the remedy; one that fails does not hide the next. Nothing is
    written that stays, and no worker is disturbed. Ends with 0 if a worker can start, with 1 if not, with 2 if settings
    are wrong.
    """

    name = "doctor"
    groups = WORKER_GROUPS
    examples = (
        ("with what adawise.toml and the environment say", "doctor"),
        ("before a start that is to fail rather than warn", "doctor --strict"),
        ("another topic, for another program", "doctor --kafka.topic yard --json"),
    )

    as_json: CliToggleFlag[bool] = json_flag("print JSON: a list `checks`")
    strict: CliToggleFlag[bool] = Field(default=False, description="end with 3 if there is a warning")

    @classmethod
    @override
    def call_with_mistakes(cls, reading: Reading, options: Mapping[str, Any]) -> int:
        """Check all that can be checked, whatever is wrong with the settings."""
        from adawise.doctor import checks
        from adawise.doctor.result import report, report_json

        found = (report_json if "json" in options else report)(checks.check_all(reading.settings, reading.mistakes))
        statuses = {each.status for each in found}
        if reading.mistakes:
            return 2
        return 1 if "fail" in statuses else FOUND if "strict" in options and "warn" in statuses else 0
