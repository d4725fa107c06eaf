"""Quick checks, made before the model and its libraries are loaded, which takes many seconds."""

from __future__ import annotations

from contextlib import closing, suppress

from adawise.app.kafka import kafka_topics
from adawise.errors import RetryableError
from adawise.kafka.inquiry import expect_reachable
from adawise.settings import Settings
from adawise.sink.claims import known_sink_id
from adawise.sink.owner import Owner, check_commits, check_owner
from adawise.store.store import open_store

_CONNECT_MS = 2_000


def check_places(settings: Settings) -> None:
    """Raise what a start would raise about the topic and the root, alone and with the group. Nothing is written.

    A broker or a store that does not answer raises nothing: the worker waits for it.

    Raises:
        SourceError: there is no such topic.
        SettingsError: the root belongs to another group, or the group's output is another root.
        FatalError: this user may not query the broker.
        ChainError: a document of the root is damaged.
    """
    kafka, store = settings.kafka, open_store(settings.sink.root)
    with suppress(RetryableError):
        expect_reachable(kafka.bootstrap_servers)
        with closing(kafka_topics(kafka, connect_ms=_CONNECT_MS)) as topics:
            ours = Owner(topics.identity(kafka.topic).cluster_id, kafka.topic, kafka.group, "run")
            commits = topics.committed(kafka.group, kafka.topic)
        check_owner(store, ours)
        if not settings.sink.begin_anew:
            check_commits(store, ours, known_sink_id(store), commits)
