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
    """Show every setting with its value and where that comes from: flag, environment, file or default.

    Secrets are hidden. Ends with code 2 and the list of mistakes if something is wrong.
    """

    name = "config show"
    groups = ALL_GROUPS
    examples = (
        ("what would hold for `run --kafka.topic yard`", "config show --kafka.topic yard"),
        ("for another program", "config show --json"),
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
    """Write a file of settings to begin with: each with what it is, its range and its default, commented out.

    As it stands, the file changes nothing. A file that is there stays as it is.
    """

    name = "config init"
    groups = ()
    examples = (
        ("adawise.toml, which every command reads", "config init"),
        ("another file, for `--config`", "config init yard.toml"),
        ("to look at", "config init -"),
    )

    file: CliPositionalArg[FilePath] = Field(
        default=Path("adawise.toml"), description="file to write; - is the output proper"
    )

    @override
    def call(self) -> int:
        """Write the file."""
        from adawise.cli.config.run import write_template

        return write_template(self.file)
