"""The options of `adawise verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import LOG_READING, ROOTS_SCHEMA, Command, Roots, json_flag


class VerifyCommand(Command):
    """Read back everything under an output folder and prove it whole: chains, rows, offsets, states, traces.

    With --broker the topics too: every message that the broker still has, up to where the output ends, must be in it.
    Changes nothing, and may run beside workers. Ends with code 3 if something is missing, twice or damaged, and names
    the first file of each chain to look at, and the remedy.
    """

    name = "verify"
    runs = "adawise.cli.verify.run:verify"
    groups = (*LOG_READING, "kafka.origin", "log")
    examples = (
        ("a folder", "verify runs/output"),
        ("for another program", "verify s3://bucket/yard --json"),
        ("several, one after the other", "verify runs/yard runs/gate"),
        ("beside the topic, after an incident", "verify runs/output --broker --kafka.bootstrap-servers 127.0.0.1:9092"),
    )

    root: CliPositionalArg[Roots] = Field(
        description="folder or s3://BUCKET/PREFIX that a worker wrote, or several, one after the other",
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
