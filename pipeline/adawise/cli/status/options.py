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
    """Say how the fleet stands now: workers, partitions, lag, cameras, gaps and rejects; what is wrong comes first.

    Reads the newest segments of the output, however long its chains are, and asks the broker who is in the group and
    how far it has come. Topic and group are those that the output belongs to. Where root or broker cannot be asked it
    says so, and tells what the other knows. Changes nothing. Ends with code 3 if there is something to see to, so that
    a script can ask; cameras that changed, or are gone for a day, are none.
    """

    name = "status"
    runs = "adawise.cli.status.run:status"
    groups = (*LOG_READING, "kafka.topic", "kafka.group", "sink.root", "http", "log")
    shorthands: ClassVar[Mapping[str, str]] = {"root": "sink.root"}
    examples = (
        ("of the output that adawise.toml names", "status"),
        ("again every five seconds, until Ctrl-C", "status --root runs/yard --watch 5"),
        ("as a page in the browser", "status --root runs/yard --http"),
        ("for a script, without the broker", "status --root s3://bucket/yard --no-broker --json"),
    )

    broker: bool = Field(default=True, description="ask the broker at kafka.bootstrap_servers")
    window: Annotated[Duration, Field(ge=1)] | None = Field(
        default=None,
        description="how far back cameras, gaps and rejects are looked at; none: 1h",
        json_schema_extra=DURATION_SCHEMA,
    )
    every: float | None = Field(
        default=None,
        ge=0.2,
        le=86_400,
        validation_alias=AliasChoices("watch"),
        description="look again after so many seconds, until Ctrl-C; the exit code is the last look's",
        json_schema_extra={"metavar": "SECONDS"},
    )
    show_all: CliToggleFlag[bool] = Field(
        default=False, validation_alias=AliasChoices("all"), description="every camera, not those in trouble alone"
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
