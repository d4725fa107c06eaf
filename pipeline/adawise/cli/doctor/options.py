"""The options of `adawise doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import WORKER_GROUPS, Command, json_flag
from adawise.settings.mistakes import Mistake
from adawise.settings.reading import Reading


class DoctorCommand(Command):
    """Check whether a worker can work here: settings, broker, topic, stores, models and machine, one by one.

    Each check passes, warns or fails, with a remedy; a failure does not hide later checks. Nothing that it writes
    remains, and no worker is disturbed. Exits with 0 if a worker can start, 1 if not, 2 if settings are wrong.
    """

    name = "doctor"
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
    def judge(cls, reading: Reading, mistakes: Sequence[Mistake], options: Mapping[str, Any]) -> int:
        """Check all that can be checked, whatever is wrong with the settings."""
        from adawise.cli.doctor.run import doctor

        return doctor(reading.settings, mistakes, as_json="json" in options, strict="strict" in options)
