"""The commands `config show`, for every setting and its origin, and `config init`, for a file to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import ALL_GROUPS, Command, json_flag
from adawise.console import print_json
from adawise.settings.describe import SECRET, SETTINGS, is_secret, shown
from adawise.settings.group import FilePath
from adawise.settings.reading import Reading


class ConfigShowCommand(Command):
    """Show every setting with its value and its source: flag, environment, file or default.

    Secrets are hidden. If there are mistakes, it lists them and exits with code 2.
    """

    name = "config show"
    groups = ALL_GROUPS
    examples = (
        ("show the settings of `run --kafka.topic yard`", "config show --kafka.topic yard"),
        ("print JSON for another program", "config show --json"),
    )

    as_json: CliToggleFlag[bool] = json_flag("print JSON, mistakes included")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return no group: nothing is started, and settings that are not set are shown as such."""
        return frozenset()

    @classmethod
    @override
    def call_with_mistakes(cls, reading: Reading, options: Mapping[str, Any]) -> int:
        """Print the settings. With --json, mistakes are printed too; without it, they are raised instead."""
        if "json" in options:
            print_json(
                {
                    "settings": [_plain(reading, name) for name in SETTINGS],
                    "mistakes": [mistake.as_json() for mistake in reading.mistakes],
                }
            )
            return 2 if reading.mistakes else 0
        values = attrgetter(*SETTINGS)(reading.checked())
        rows = [(name, shown(SETTINGS[name], value)) for name, value in zip(SETTINGS, values, strict=True)]
        name_width = max(len(name.rpartition(".")[2]) for name in SETTINGS)
        value_width = min(44, max(len(value) for _, value in rows))
        blocks = []
        for group, settings in groupby(rows, key=lambda row: row[0].rpartition(".")[0]):
            lines = (
                f"{name.rpartition('.')[2]:<{name_width}}  {value:<{value_width}}  {reading.origins[name]}"
                for name, value in settings
            )
            blocks.append("\n".join([f"[{group}]", *lines]))
        print("\n\n".join(blocks))
        return 0


def _plain(reading: Reading, name: str) -> dict[str, Any]:
    value, origin = attrgetter(name)(reading.settings), reading.origins[name]
    if is_secret(SETTINGS[name]) and value is not None:
        value = SECRET
    elif isinstance(value, tuple):
        value = [table.model_dump(mode="json") for table in value]
    return {"name": name, "value": value, "source": origin.source, "place": origin.place}


class ConfigInitCommand(Command):
    """Write a file of settings to start from: each with its meaning, range and default, commented out.

    The file as written changes nothing. An existing file is not overwritten.
    """

    name = "config init"
    groups = ()
    examples = (
        ("write adawise.toml, which every command reads", "config init"),
        ("write another file, for `--config`", "config init yard.toml"),
        ("print it", "config init -"),
    )

    file: CliPositionalArg[FilePath] = Field(
        default=Path("adawise.toml"), description="file to write; - is the standard output"
    )

    @override
    def call(self) -> int:
        """Write the file, or print it."""
        from adawise.settings.describe import template, write_template

        if str(self.file) == "-":
            print(template(), end="")
            return 0
        write_template(self.file)
        needed = "set model.theta_0, model.theta_1 and model.classes there"
        print(f"wrote {self.file}: {needed}, and what else differs from its default")
        return 0
