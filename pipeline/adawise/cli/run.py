"""The command `run`, which classifies images from Kafka until it is stopped."""

from __future__ import annotations

from contextlib import closing, suppress

from typing_extensions import override

from adawise.cli.command import WORKER_GROUPS, Command
from adawise.settings import Settings

_CONNECT_MS = 2_000


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

    @override
    def call(self) -> int:
        """Run the worker."""
        import structlog

        structlog.get_logger("worker").info("start_requested", note="loading libraries first takes some seconds")

        _check_places(self.settings)
        from adawise.app.worker import run_worker

        return run_worker(self.settings)


def _check_places(settings: Settings) -> None:
    """Raise what a start would raise about the topic and the root, before the model's libraries are loaded.

    Nothing is written. A broker or a store that does not answer raises nothing: the worker waits for it.

    Raises:
        SourceError: there is no such topic.
        SettingsError: the root belongs to another group, or the group's output is another root.
        FatalError: this user may not query the broker.
        ChainError: a document of the root is damaged.
    """
    from adawise.app.kafka import kafka_topics
    from adawise.errors import RetryableError
    from adawise.kafka.inquiry import expect_reachable
    from adawise.sink.claims import known_sink_id
    from adawise.sink.owner import Owner, check_commits, check_owner
    from adawise.store.store import open_store

    kafka, store = settings.kafka, open_store(settings.sink.root)
    with suppress(RetryableError):
        expect_reachable(kafka.bootstrap_servers)
        with closing(kafka_topics(kafka, connect_ms=_CONNECT_MS)) as topics:
            ours = Owner(topics.identity(kafka.topic).cluster_id, kafka.topic, kafka.group, "run")
            commits = topics.committed(kafka.group, kafka.topic)
        check_owner(store, ours)
        if not settings.sink.begin_anew:
            check_commits(store, ours, known_sink_id(store), commits)
