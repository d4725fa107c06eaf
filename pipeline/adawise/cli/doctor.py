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
    """Check whether a worker can work here: settings, broker, topic, stores, models and machine, one by one.

    Each check passes, warns or fails, with a remedy; a failure does not hide later checks. Nothing that it writes
    remains, and no worker is disturbed. Exits with 0 if a worker can start, 1 if not, 2 if settings are wrong.
    """

    name = "doctor"
    finds = True
    groups = WORKER_GROUPS
    examples = (
        ("check the settings of adawise.toml and the environment", "doctor"),
        ("fail on warnings too, before a deployment", "doctor --strict"),
        ("check another topic, and print JSON", "doctor --kafka.topic yard --json"),
    )

    as_json: CliToggleFlag[bool] = json_flag("print JSON: a list `checks`")
    strict: CliToggleFlag[bool] = Field(default=False, description="exit with code 3 if there is a warning")

    @classmethod
    @override
    def call_with_mistakes(cls, reading: Reading, options: Mapping[str, Any]) -> int:
        """Check all that can be checked, whatever is wrong with the settings."""
        from adawise.doctor import checks
        from adawise.doctor.known import report, report_json

        found = (report_json if "json" in options else report)(checks.check_all(reading.settings, reading.mistakes))
        statuses = {each.status for each in found}
        if reading.mistakes:
            return 2
        return 1 if "fail" in statuses else FOUND if "strict" in options and "warn" in statuses else 0
