"""`adawise run`: its options."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.commands.command import WORKER_GROUPS, Command


class RunCommand(Command):
    """Classify images from Kafka until stopped: read, adapt alpha for each camera, predict, write Parquet, commit.

    Start as many as there are partitions, with one sink.root; they share the work. SIGTERM or Ctrl-C writes what is
    finished and ends. A root belongs to one topic and one group: what other settings would have served is told without
    a second group by `adawise replay`.
    """

    name = "run"
    groups = WORKER_GROUPS
    examples = (
        ("look at everything, and start nothing", "run --check"),
        ("another topic than the file says", "run --kafka.topic yard --sink.root s3://bucket/yard"),
        (
            "zero-shot only, beside a live worker",
            "run --search.strategy fixed --search.alpha 0 --kafka.group plain --sink.root runs/plain "
            "--no-kafka.dead-letters",
        ),
    )

    check: CliToggleFlag[bool] = Field(default=False, description="as `adawise doctor`: look at everything, and end")

    @override
    def call(self) -> int:
        """Run the worker, or only the checks."""
        if self.check:
            from adawise.commands.doctor.run import doctor

            return doctor(self.settings, (), as_json=False, strict=False)
        from adawise.build.signals import ended_at_once

        with ended_at_once():
            from adawise.commands.run.run import run_worker

        return run_worker(self.settings)
