"""The options of `adawise run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from adawise.cli.command import WORKER_GROUPS, Command


class RunCommand(Command):
    """Classify images from Kafka until stopped: read, adapt alpha for each camera, predict, write Parquet, commit.

    Start up to as many workers as there are partitions, with one sink.root; they share the work. SIGTERM or Ctrl-C
    writes what is complete and ends. A root belongs to one topic and one group: to see what other settings would have
    served, use `adawise replay` instead of a second group.
    """

    name = "run"
    groups = WORKER_GROUPS
    examples = (
        ("read another topic than the file of settings names", "run --kafka.topic yard --sink.root s3://bucket/yard"),
        (
            "serve zero-shot only, beside a live worker",
            "run --search.strategy fixed --search.alpha 0 --kafka.group plain --sink.root runs/plain "
            "--no-kafka.dead-letters",
        ),
    )

    @classmethod
    @override
    def is_service(cls, options: Mapping[str, Any]) -> bool:
        """Return True: a worker runs until it is stopped."""
        del options
        return True

    @override
    def call(self) -> int:
        """Run the worker."""
        import structlog

        from adawise.app.signals import ended_at_once

        structlog.get_logger("worker").info("start_requested", note="loading libraries first takes some seconds")

        with ended_at_once():
            from adawise.cli.run.checks import check_places

            check_places(self.settings)
            from adawise.cli.run.run import run_worker

        return run_worker(self.settings)
