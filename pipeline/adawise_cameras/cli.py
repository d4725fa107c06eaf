"""The command `cameras`, which publishes the frames of cameras, devices and videos until it is stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import BROKER, Command, all_but
from adawise.settings.group import Location


class CamerasCommand(Command):
    """Read cameras until stopped, and send their frames to the topic: RTSP, HTTP, devices and videos.

    A file names the cameras. Each is read by a separate process, which connects again when the stream breaks, stalls
    or is refused. SIGHUP reads the file again: cameras that did not change go on. SIGTERM or Ctrl-C sends the remaining
    frames and ends.
    """

    name = "cameras"
    groups = (*BROKER, "kafka.topic", "decode.max_message_bytes", *all_but("http", "max_streams", "max_cameras"), "log")
    examples = (
        ("try each camera once, and exit", "cameras cameras.toml --check"),
        ("read the cameras until stopped", "cameras cameras.toml"),
        ("send to a topic that is created if there is none", "cameras cameras.toml --kafka.topic yard --create-topic"),
    )

    file: CliPositionalArg[Location] = Field(description="TOML file with a table [camera.NAME] for each camera")
    check: CliToggleFlag[bool] = Field(default=False, description="try each camera once, print the result, and exit")
    create_topic: CliToggleFlag[bool] = Field(default=False, description="create the topic if there is none")
    partitions: int = Field(default=4, ge=1, le=10_000, description="partitions of a topic that is created")

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield options that would have no effect."""
        if "partitions" in options and "create_topic" not in options:
            yield "partitions", "it needs --create-topic; add that, or leave this out"
        if "create_topic" in options and "check" in options:
            yield "create_topic", "--check only tries cameras and sends nothing; leave one of them out"

    @override
    def call(self) -> int:
        """Read the cameras until stopped, or only try each of them."""
        from adawise.app.signals import INTERRUPTED, ended_at_once

        if self.check:
            with ended_at_once(INTERRUPTED):
                from adawise_cameras.check import check
            return check(self.settings, self.file)
        from adawise_cameras.app import read_until_stopped

        return read_until_stopped(self.settings, self.file, create_topic=self.create_topic, partitions=self.partitions)
