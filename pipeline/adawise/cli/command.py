"""The base of all commands: the settings that a command reads, and options of its own that only flags can set.

A command is a pydantic-settings model that CliApp turns into a parser and calls. The settings are one of its fields.
Only the settings that the command reads, which `groups` names, have flags and are in its help. A command without groups
reads no settings file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, AliasChoices, Field, JsonValue, PrivateAttr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from adawise.cli.services import runs_until_stopped
from adawise.settings.group import PLACE, Location
from adawise.settings.tree import Settings

if TYPE_CHECKING:
    from adawise.settings.reading import Reading

FOUND = 3
"""The exit code of a command that found something to see to."""

ALL_GROUPS = tuple(Settings.model_fields)
WORKER_GROUPS = tuple(name for name in ALL_GROUPS if name != "finetune")
BROKER = ("kafka.bootstrap_servers", "kafka.client_id", "kafka.security")
"""The settings of a command that only queries the broker, or publishes to it."""
LOG_READING = (
    *("kafka.max_partition_fetch_bytes", "kafka.max_batch_bytes", "kafka.max_batch_records"),
    *BROKER,
)
"""The settings of a command that reads the log of a topic by offset."""
READING = (*LOG_READING, "kafka.topic", "kafka.max_poll_records", "kafka.on_unreadable")
"""The settings of a command that polls a topic as a worker does, without a group."""
OFTEN = frozenset(
    {
        *("kafka.bootstrap_servers", "kafka.topic", "kafka.group"),
        *("model.architecture", "model.theta_0", "model.theta_1", "model.classes", "model.card"),
        *("search.strategy", "sink.root", "log.level"),
    }
)
"""The settings that are in the short help."""


def all_but(group: str, *names: str) -> tuple[str, ...]:
    """Return the full names of the settings of a group, except `names`."""
    fields = type(getattr(Settings(), group)).model_fields
    assert set(names) <= set(fields), names
    return tuple(f"{group}.{name}" for name in fields if name not in names)


def json_flag(description: str) -> Any:
    """Return the field `as_json`, which the flag `--json` sets."""
    return Field(default=False, validation_alias=AliasChoices("json"), description=description)


def optional(description: str, *names: str, **schema: JsonValue) -> Any:
    """Return the field of an option that may be left out.

    Args:
        description: what the option does.
        names: the option's name and its aliases; without any, the field's name.
        schema: the option's `metavar`, and `expected`, which describes a valid value.
    """
    alias = AliasChoices(*names) if names else None
    return Field(default=None, validation_alias=alias, description=description, json_schema_extra=schema or None)


def _each_once(roots: tuple[str, ...]) -> tuple[str, ...]:
    places = [root.rstrip("/") if "://" in root else str(Path(root).resolve()) for root in roots]
    for root, place in zip(roots, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{root} is there twice")
    return roots


Roots = Annotated[tuple[Location, ...], Field(min_length=1), AfterValidator(_each_once), PLACE]
"""The type of one or more different outputs; its Field needs json_schema_extra=ROOTS_SCHEMA."""

ROOTS_SCHEMA: dict[str, JsonValue] = {"expected": "folders or URLs, each once"}
LABELS: Any = optional(
    "labels that came later: a CSV or Parquet file with label, and row_id or stream_id and captured_at, or the folder "
    "of `adawise sample`; none: the labels under the root and those from the producer",
    metavar="FILE",
)
LABEL_WITHIN: Any = Field(
    default=0.0,
    ge=0,
    le=3600,
    description="largest difference, in seconds, of a label's captured_at to its frame's; 0: the exact time",
)


class Command(BaseSettings):
    """The base of every command. The docstring of a subclass heads its help."""

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

    name: ClassVar[str]  # the words that call the command, such as `pair stage`
    groups: ClassVar[tuple[str, ...]] = ("log",)  # groups of settings, or single ones such as `kafka.topic`
    shorthands: ClassVar[Mapping[str, str]] = {}  # another flag of a setting -> the setting
    finds: ClassVar[bool] = False  # it may end with the code FOUND
    examples: ClassVar[tuple[tuple[str, str], ...]] = ()  # (purpose, command line after `adawise`)

    config: str | None = Field(
        default=None,
        description="file of settings; none: adawise.toml in the current folder, if there is one",
        json_schema_extra={"metavar": "FILE", "expected": "a TOML file"},
    )
    settings: Settings = Settings()

    _exit_code: int = PrivateAttr(default=0)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *weaker: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the passed values alone: `settings.read` has merged file, environment and flags before."""
        del settings_cls, weaker, named
        return (init_settings,)

    @classmethod
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups of settings whose requirements must be met, given the options that flags set."""
        del options
        return frozenset(name.partition(".")[0] for name in cls.groups)

    @classmethod
    def is_service(cls, options: Mapping[str, Any]) -> bool:
        """Return True if the command runs until it is stopped, so that its error output is a log."""
        return runs_until_stopped(cls.name, options)

    @classmethod
    def takes(cls, setting: str) -> bool:
        """Return True if the command reads this setting."""
        return any(setting == name or setting.startswith(f"{name}.") for name in cls.groups)

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (option, problem and remedy) for options that are valid alone but not together."""
        del options
        yield from ()

    @classmethod
    def without_effect(cls, options: Mapping[str, Any]) -> Sequence[str]:
        """Return the settings, and groups of them, that have no effect with these options. Their flags are refused."""
        del options
        return ()

    @classmethod
    def call_with_mistakes(cls, reading: Reading, options: Mapping[str, Any]) -> int | None:
        """Do the work of a command that is about the settings themselves, valid or not.

        Args:
            reading: the settings with their origins, and the mistakes in them.
            options: the options that flags set, without mistakes.

        Returns:
            The exit code; None for a command that needs valid settings, whose work `call` does.
        """
        del reading, options
        return None

    @property
    def exit_code(self) -> int:
        """The exit code that `call` returned."""
        return self._exit_code

    def written_out(self) -> list[str]:
        """Return the arguments that would do the same, with settings from the environment and the file among them."""
        words = self.name.split()
        for name, field in type(self).model_fields.items():
            if name in self.model_fields_set and name not in {"config", "settings"}:
                alias, value = field.validation_alias, getattr(self, name)
                flag = str(alias.choices[0]) if isinstance(alias, AliasChoices) else name
                words += _words(value) if _is_positional(field) else _flag(flag, value)
        for group, chosen in self.settings.model_dump(mode="json", exclude_defaults=True).items():
            for name, value in chosen.items():
                if self.takes(f"{group}.{name}"):
                    words += _flag(f"{group}.{name}", value)
        return words

    def call(self) -> int:
        """Do the work and return the exit code: 0 done, 1 failed, 3 something was found."""
        raise NotImplementedError(f"the command {self.name} has no call")

    def cli_cmd(self) -> None:
        """Run the command. CliApp calls this."""
        self._exit_code = self.call()


def _is_positional(field: FieldInfo) -> bool:
    # pydantic-settings marks positional arguments by a private class.
    return any(getattr(mark, "__name__", type(mark).__name__) == "_CliPositionalArg" for mark in field.metadata)


def _words(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]


def _flag(name: str, value: object) -> list[str]:
    """Return an option as words of a command line, repeated for each of several values."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if isinstance(value, (list, tuple)):
        return [word for each in value for word in _flag(name, each)]
    return [flag, str(value)]
