"""The options of `adawise config show` and `adawise config init`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import ALL_GROUPS, Command, json_flag
from adawise.settings.group import FilePath
from adawise.settings.mistakes import Mistake, error_of
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
    def judge(cls, reading: Reading, mistakes: Sequence[Mistake], options: Mapping[str, Any]) -> int:
        """Print the settings. With --json, mistakes are printed too; without it, they are raised instead."""
        from adawise.cli.config.run import as_json_text, as_table

        if "json" in options:
            print(as_json_text(reading, mistakes))
            return 2 if mistakes else 0
        if mistakes:
            raise error_of(mistakes)
        print(as_table(reading))
        return 0


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
        """Write the file."""
        from adawise.cli.config.run import write_template

        return write_template(self.file)
