"""The command `status`, which says how the fleet is doing now: once, again and again, or as a page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AliasChoices, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, LOG_READING, Command, json_flag
from adawise.console import finite, paper, print_json
from adawise.settings.recording import DURATION_SCHEMA, Duration

if TYPE_CHECKING:
    from adawise.watch.status.facts import FleetStatus
    from adawise.watch.status.reader import Clients, FleetReader

_EVERY_S, _WINDOW_S = 5.0, 3_600.0
_CONNECT_MS = 4_000  # a broker that runs answers in a tenth of a second


class StatusCommand(Command):
    """Show the state of workers, partitions, lag, cameras, gaps and rejects; troubles come first.

    It reads only the newest segments of the output, and asks the broker for the group's members and offsets. Topic and
    group are those of the output. If root or broker does not answer, it says so and shows what the other knows. Changes
    nothing. Exits with code 3 if there is a trouble, for scripts; a camera that changed, or is gone for a day, is none.
    """

    name = "status"
    finds = True
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

    @override
    def call(self) -> int:
        """Print the status, or show it as a page until Ctrl-C. Return 3 if there is something to see to."""
        from adawise.output.near import NAME_ROOT, expect_begun

        kafka, root = self.settings.kafka, self.settings.sink.root
        if not self.serves:  # the page waits for the first worker
            expect_begun(root, NAME_ROOT)
        from adawise.watch.status.reader import FleetReader
        from adawise.watch.status.show import picture

        connect, window_s = self._connected if self.broker else None, self.window or _WINDOW_S
        with FleetReader(root, kafka.topic, kafka.group, window_s, connect) as fleet:
            if self.serves:
                found = self._serve(fleet)
            elif self.every is not None:
                found = self._watch(fleet, self.every)
            else:
                found = fleet.read()
                if self.as_json:
                    print_json(found.document())
                else:
                    paper().print(picture(found, show_all=self.show_all))
        return FOUND if found.troubles else 0

    @contextmanager
    def _connected(self) -> Iterator[Clients]:
        from adawise.app.kafka import kafka_log, kafka_topics

        kafka = self.settings.kafka
        with (
            closing(kafka_topics(kafka, connect_ms=_CONNECT_MS)) as topics,
            closing(kafka_log(kafka, max_partition_fetch_bytes=1, patience_s=2.0)) as log,
        ):
            yield topics, log

    def _watch(self, fleet: FleetReader, every_s: float) -> FleetStatus:
        """Print the status again and again until Ctrl-C or SIGTERM, and return the last one.

        The signal sets a flag, which is polled: an interrupt that is an exception may be raised within a library, and
        be lost there.
        """
        from rich.live import Live

        from adawise.app.signals import stop_signals
        from adawise.watch.status.show import picture

        console = paper()
        with stop_signals() as should_stop, ExitStack() as stack:
            is_screen = console.is_terminal and not self.as_json
            live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False)) if is_screen else None
            while True:
                again_s, found = time.monotonic() + every_s, fleet.read()
                if live is not None:
                    live.update(picture(found, show_all=self.show_all, height=console.height), refresh=True)
                elif self.as_json:
                    print(json.dumps(finite(found.document()), default=str), flush=True)
                else:
                    console.print(picture(found, show_all=self.show_all))
                    sys.stdout.flush()
                if should_stop.wait_until(again_s):
                    return found

    def _serve(self, fleet: FleetReader) -> FleetStatus:
        """Serve the page until Ctrl-C or SIGTERM, and return the last status. Wait for the first worker of the root.

        Raises:
            SettingsError: it was stopped before a worker had written to the root.
        """
        from adawise.app.http import rows_port
        from adawise.app.signals import stop_signals
        from adawise.output.near import no_output
        from adawise.watch.status.page import FleetPage

        root, every_s = self.settings.sink.root, self.every or _EVERY_S
        with ExitStack() as stack:
            should_stop = stack.enter_context(stop_signals())
            if not fleet.has_begun():
                print(no_output(root, "waiting for one, until Ctrl-C"), file=sys.stderr, flush=True)
            while not (fleet.has_begun() or should_stop.wait_until(time.monotonic() + every_s)):
                pass
            shown = FleetPage(fleet.read())
            url = stack.enter_context(rows_port(self.settings.http, shown))
            print(f"the fleet of {root} is shown at {url}, until Ctrl-C", file=sys.stderr, flush=True)
            while True:
                if should_stop.wait_until(time.monotonic() + every_s):
                    return shown.found
                shown.found = fleet.read()
