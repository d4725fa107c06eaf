"""The options of `adawise status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import LOG_READING, Command, json_flag
from adawise.settings.recording import DURATION_SCHEMA, Duration


class StatusCommand(Command):
    """Show the state of workers, partitions, lag, cameras, gaps and rejects; troubles come first.

    It reads only the newest segments of the output, and asks the broker for the group's members and offsets. Topic and
    group are those of the output. If root or broker does not answer, it says so and shows what the other knows. Changes
    nothing. Exits with code 3 if there is a trouble, for scripts; a camera that changed, or is gone for a day, is none.
    """

    name = "status"
    runs = "adawise.cli.status.run:status"
    groups = (*LOG_READING, "kafka.topic", "kafka.group", "sink.root", "http", "log")
    shorthands: ClassVar[Mapping[str, str]] = {"root": "sink.root"}
    examples = (
        ("show the output that adawise.toml names", "status"),
        ("repeat it every five seconds, until Ctrl-C", "status --root runs/yard --watch 5"),
        ("show it as a page in the browser", "status --root runs/yard --http"),
        ("print JSON for a script, without the broker", "status --root s3://bucket/yard --no-broker --json"),
    )

    broker: bool = Field(default=True, description="query the broker at kafka.bootstrap_servers")
    window: Annotated[Duration, Field(ge=1)] | None = Field(
        default=None,
        description="time span of cameras, gaps and rejects; none: 1h",
        json_schema_extra=DURATION_SCHEMA,
    )
    every: float | None = Field(
        default=None,
        ge=0.2,
        le=86_400,
        validation_alias=AliasChoices("watch"),
        description="repeat after this many seconds, until Ctrl-C; the exit code is that of the last time",
        json_schema_extra={"metavar": "SECONDS"},
    )
    show_all: CliToggleFlag[bool] = Field(
        default=False, validation_alias=AliasChoices("all"), description="show every camera, not only those in trouble"
    )
    as_json: CliToggleFlag[bool] = json_flag("print it as JSON; with --watch, an object a line")

    serves: CliToggleFlag[bool] = Field(
        default=False,
        validation_alias=AliasChoices("http"),
        description="serve the live page of the whole fleet at http.listen and http.port, until Ctrl-C",
    )

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete; the broker's settings only if it is asked."""
        return frozenset({"sink", *(() if options.get("broker") is False else ("kafka",))})
