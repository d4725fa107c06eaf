"""The options of `adawise verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import LOG_READING, ROOTS_SCHEMA, Command, Roots, json_flag


class VerifyCommand(Command):
    """Read everything under an output folder and prove it whole: chains, rows, offsets, states, traces.

    With --broker it also compares the topics: every message that the broker still has must be in the output, up to the
    output's end. Changes nothing, and may run beside workers. If something is missing, duplicated or damaged, it names
    the first file of each chain to look at, with a remedy, and exits with code 3.
    """

    name = "verify"
    runs = "adawise.cli.verify.run:verify"
    groups = (*LOG_READING, "kafka.origin", "log")
    examples = (
        ("check a folder", "verify runs/output"),
        ("print JSON for another program", "verify s3://bucket/yard --json"),
        ("check several, one after the other", "verify runs/yard runs/gate"),
        (
            "compare with the topic, after an incident",
            "verify runs/output --broker --kafka.bootstrap-servers 127.0.0.1:9092",
        ),
    )

    root: CliPositionalArg[Roots] = Field(
        description="one or more output folders or s3://BUCKET/PREFIX of workers",
        json_schema_extra=ROOTS_SCHEMA,
    )
    broker: CliToggleFlag[bool] = Field(
        default=False, description="compare with the topics at kafka.bootstrap_servers too"
    )
    as_json: CliToggleFlag[bool] = json_flag("print the findings as JSON")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete: the broker's settings only if it is asked."""
        return frozenset({"kafka"} if options.get("broker") else ())
