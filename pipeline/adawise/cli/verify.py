"""The command `verify`, which proves that an output folder is whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing, nullcontext
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, LOG_READING, ROOTS_SCHEMA, Command, Roots, json_flag
from adawise.console import print_json, print_text, progress


class VerifyCommand(Command):
    """Read everything under an output folder and prove it whole: chains, rows, offsets, states, traces.

    With --broker it also compares the topics: every message that the broker still has must be in the output, up to the
    output's end. Changes nothing, and may run beside workers. If something is missing, duplicated or damaged, it names
    the first file of each chain to look at, with a remedy, and exits with code 3.
    """

    name = "verify"
    finds = True
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

    @override
    def call(self) -> int:
        """Verify each root and print what was found. Return 3 if one is not whole, or has messages never read."""
        from adawise.adapt.state import StreamState
        from adawise.app.kafka import kafka_log
        from adawise.output.near import no_output
        from adawise.output.shards import expanded
        from adawise.output.verify.findings import RootReport
        from adawise.output.verify.root import verify_root
        from adawise.output.verify.show import as_document, in_words
        from adawise.sink.claims import read_sink_id
        from adawise.sink.files import segment_keys
        from adawise.store.store import open_store

        kafka, segments = self.settings.kafka, dict[str, int]()
        stores = {root: open_store(root) for root in expanded(self.root)}
        for root, store in stores.items():
            segments[root] = len(segment_keys(store))
            # A root that has lost its `_sink.json` is verified all the same.
            if read_sink_id(store) is None and not segments[root]:
                raise no_output(root)
        reports = dict[str, RootReport]()
        fetch_bytes = kafka.max_partition_fetch_bytes
        with closing(kafka_log(kafka, max_partition_fetch_bytes=fetch_bytes)) if self.broker else nullcontext() as log:
            for root, store in stores.items():
                with progress("verified", segments[root], unit="segments") as shown:
                    reports[root] = verify_root(
                        store,
                        read_state=StreamState.from_bytes,
                        log=log,
                        expects_all=kafka.origin == "earliest" and kafka.origin_ms is None,
                        on_segment=shown.advance,
                        note=shown.note,
                    )
                if why := reports[root].commits_unknown:
                    print_text(why, sys.stderr)
                if not self.as_json:
                    print_text("\n".join(in_words(root, reports[root], self.broker)))
        harmed = [root for root, report in reports.items() if report.faults or report.unread]
        documents = [as_document(root, report, self.broker) for root, report in reports.items()]
        if self.as_json:
            whole = not any(report.faults for report in reports.values())
            print_json({"whole": whole, "roots": documents} if len(documents) > 1 else documents[0])
        elif len(documents) > 1:
            unproved = [root for root, report in reports.items() if report.unproved and root not in harmed]
            rows = sum(report.rows for root, report in reports.items() if root not in harmed)
            named = f"; look at {', '.join(harmed)}" if harmed else ""
            named += f"; whether all is there is not known of {', '.join(unproved)}" if unproved else ""
            are = "have no fault" if unproved else "are whole"
            print_text(f"{len(reports) - len(harmed)} of {len(reports)} outputs {are}, with {rows} rows{named}")
        return FOUND if harmed else 0
