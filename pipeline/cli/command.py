"""What a command is: the settings, and options of its own that only flags can give.

A command is a pydantic-settings model that CliApp turns into a parser and calls. The settings are one field of it; of
their groups, only those in `groups` have flags and are in the help of the command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.settings.tree import Settings

ALL_GROUPS = tuple(Settings.model_fields)
WORKER_GROUPS = tuple(name for name in ALL_GROUPS if name != "finetune")


class Command(BaseSettings):
    """The base of every command; its docstring heads its help."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    name: ClassVar[str]  # the words that call it
    groups: ClassVar[tuple[str, ...]] = ("log",)
    examples: ClassVar[tuple[tuple[str, str], ...]] = ()  # (what it does, command line after `adawise`)

    config: str | None = Field(
        default=None,
        description="file with settings; none: adawise.toml in the current folder, if there is one",
        json_schema_extra={"metavar": "FILE", "expected": "a TOML file"},
    )
    settings: Settings = Settings()

    _exit_code: int = PrivateAttr(default=0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *weaker: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `settings.read` has read file, environment and flags, with origins and mistakes."""
        del settings_cls, weaker, named
        return (init_settings,)

    @classmethod
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """The groups whose needs must be met, for these options as flags gave them."""
        del options
        return frozenset(cls.groups)

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Pairs of (option, what is wrong and the remedy) for options that are right alone but not together."""
        del options
        yield from ()

    @property
    def exit_code(self) -> int:
        """What the command returned."""
        return self._exit_code

    def call(self) -> int:
        """Do the work and return the exit code: 0 done, 1 failed, 3 something was found."""
        raise NotImplementedError

    def cli_cmd(self) -> None:
        """Where CliApp starts the command."""
        self._exit_code = self.call()
