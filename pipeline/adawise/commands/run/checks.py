"""Settings -> what `run --check` looks at: each part that a worker needs, alone, in seconds, writing no rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from adawise.console import Check
from adawise.errors import AdawiseError, ChainError, SettingsError
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.settings import Settings

if TYPE_CHECKING:
    from adawise.kafka.topic import KafkaTopics

_SHOWN = 3  # holes


def check(settings: Settings) -> Iterator[Check]:
    """Broker, topic, group, dead letters, codecs, stores, model pair and card, each as a worker will use it.

    A part that fails does not hide the next one's fault. Nothing is left behind.
    """
    yield (topic := _try("broker and topic", lambda: _topic(settings)))
    if topic.status == "ok":
        yield _try("consumer group", lambda: _group(settings))
        if settings.kafka.dead_letters:
            yield _try("dead letters", lambda: _letters(settings))
        if settings.results.enabled:
            yield _try("results", lambda: _results(settings))
    yield _try("codecs of batches", _codecs)
    yield (folder := _try("output folder", lambda: _store(settings, asks_broker=topic.status == "ok")))
    if folder.status == "ok":
        yield _try("chains", lambda: _chains(settings))
    if settings.record.enabled:
        yield _try("recording folder", lambda: _recording(settings))
    yield _try("model pair and card", lambda: _model(settings))


def _try(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", attempt())
    except AdawiseError as error:
        return Check(name, "fail", str(error))


def _topic(settings: Settings) -> str:
    kafka = settings.kafka
    partitions = _identity(settings).partitions
    if kafka.on_compacted == "fail":
        with _topics(settings) as topics:
            topics.expect_not_compacted(kafka.topic)
    return f"{kafka.topic} at {kafka.bootstrap_servers} has {partitions} partitions"


def _group(settings: Settings) -> str:
    from adawise.build.kafka import check_joining

    check_joining(settings.kafka)
    return f"{settings.kafka.group} can be joined"


def _letters(settings: Settings) -> str:
    from adawise.build.kafka import check_letters

    exists = check_letters(settings.kafka, settings.decode.max_message_bytes)
    return f"{settings.kafka.dead_letters_to} {'can be written' if exists else 'can be created, at the first letter'}"


def _results(settings: Settings) -> str:
    from adawise.build.kafka import check_results

    exists = check_results(settings)
    topic = settings.results.topic_of(settings.kafka.topic)
    return f"{topic} {'can be written' if exists else 'can be created, at the first result'}"


def _codecs() -> str:
    from adawise.kafka.unpack import NAMES, missing_codecs

    if missing := missing_codecs():
        raise SettingsError(
            f"expected {', '.join(NAMES.values())}, but this build of pyarrow lacks {', '.join(missing)}: a partition "
            "with a batch that is compressed so will stand. Install pyarrow of PyPI"
        )
    return f"none, {', '.join(NAMES.values())}"


def _identity(settings: Settings) -> TopicIdentity:
    with _topics(settings) as topics:
        return topics.identity(settings.kafka.topic)


def _commits(settings: Settings) -> dict[TopicPartition, tuple[int, str]]:
    with _topics(settings) as topics:
        return topics.committed(settings.kafka.group, settings.kafka.topic)


@contextmanager
def _topics(settings: Settings) -> Iterator[KafkaTopics]:
    from adawise.build.kafka import security
    from adawise.kafka.topic import KafkaTopics

    kafka = settings.kafka
    topics = KafkaTopics(bootstrap_servers=kafka.bootstrap_servers, client_id=kafka.client_id, security=security(kafka))
    with closing(topics):
        yield topics


def _recording(settings: Settings) -> str:
    from adawise.build.recording import recording_folder
    from adawise.build.store import prove_store
    from adawise.recording.manifest import MANIFEST
    from adawise.store.store import open_store

    root, identity = settings.record.root, _identity(settings)
    if open_store(root).get(MANIFEST) is None:
        prove_store(root)
        return f"{root} creates only what is absent, and can hold a recording of {settings.kafka.topic}"
    folder = recording_folder(settings, identity)
    return f"{folder.root} creates only what is absent, and is a recording of {settings.kafka.topic}"


def _store(settings: Settings, *, asks_broker: bool) -> str:
    from adawise.build.store import prove_store
    from adawise.sink.claims import known_sink_id, prove_create_if_absent, read_sink_id, sink_id
    from adawise.sink.owner import Owner, check_commits, check_owner
    from adawise.store.store import open_store

    store, kafka = open_store(settings.sink.root), settings.kafka
    ours = Owner(_identity(settings).cluster_id if asks_broker else "", kafka.topic, kafka.group, "run")
    if asks_broker and not settings.sink.begin_anew:
        check_commits(store, ours, known_sink_id(store), _commits(settings))
    if read_sink_id(store) is None:
        prove_store(settings.sink.root)
    else:
        sink_id(store, created_at=datetime.now(UTC).isoformat())
        prove_create_if_absent(store)
    check_owner(store, ours)
    return f"{store} creates only what is absent, and is nobody else's"


def _chains(settings: Settings) -> str:
    from adawise.sink.holes import of_root
    from adawise.store.store import open_store

    store = open_store(settings.sink.root)
    if found := [f"{tp}: {hole}" for tp, hole in of_root(store)]:
        told = "; ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        raise ChainError(
            f"expected every segment that the newest ones count, but {told}. A worker goes on at the ends all the "
            f"same. `adawise verify {settings.sink.root}` says all that is missing: restore it, or bridge it with "
            f"`adawise repair {settings.sink.root}`"
        )
    return "nothing is missing of what the newest segments count"


def _model(settings: Settings) -> str:
    from adawise.build.model import adaptation, load_model
    from adawise.build.worker import describe, identity_of, what_becomes_of_streams
    from adawise.sink.served_by import check_pair
    from adawise.store.store import open_store

    model = load_model(settings.model, settings.decode)
    adaptation(settings, model)
    changes = check_pair(open_store(settings.sink.root), identity_of(model), settings.model.on_change)
    facts = describe(settings, model)
    becomes = what_becomes_of_streams(settings.model.on_change)
    changed = f"; {', '.join(changes)} not as {settings.sink.root} was written with: {becomes}" if changes else ""
    card = f"card {facts['card']}" if model.card else "no card, temperature 1"
    return (
        f"{facts['classes']} classes on {facts['device']} in {facts['precision']}, {facts['bank']}, {card}, "
        f"objective {facts['objective']}{changed}"
    )
