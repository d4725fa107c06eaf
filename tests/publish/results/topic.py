"""Results on a real topic, and what a consumer finds there: each message held to the JSON Schema of the reference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema

from adawise.kafka.client import Reach
from adawise.publish.results.message import BATCH, IMAGE
from adawise.publish.results.sink import KafkaResults, open_results, result_topics
from tests.brokers import Broker
from tests.sink.building import CLASSES
from tests.worker.cameras import everything
from tools.results_schema import json_schema

VALIDATOR = jsonschema.Draft202012Validator(json_schema(), format_checker=jsonschema.FormatChecker())


def on_kafka(broker: Broker, topic: str, *, partitions: int = 2, **changes: Any) -> KafkaResults:
    """What tells results on the topic, which is created with the first."""
    arguments: dict[str, Any] = {
        "topic": topic,
        "source": lambda: "/adawise/roots/test",
        "classes": CLASSES,
        "model_fingerprint": "model",
        "when": "early",
        "per": "image",
        "form": "json",
        "timeout_s": 20.0,
    }
    reach: Reach = {"bootstrap_servers": broker.bootstrap_servers, "client_id": "test", "security": {}}
    return open_results(result_topics(reach, partitions=partitions, retention_s=86_400), **(arguments | changes))


@dataclass(frozen=True)
class Event:
    """A message: its headers, its partition, and what its value says."""

    headers: dict[str, str]
    key: str | None
    partition: int
    timestamp_ms: int
    value: dict[str, Any]


@dataclass(frozen=True)
class OnTopic:
    """All messages of a topic, those of a partition in order."""

    events: list[Event]

    @property
    def results(self) -> Iterator[dict[str, Any]]:
        """Of images, whether they came alone or as a batch."""
        for event in self.events:
            if event.headers["ce_type"] == BATCH:
                yield from event.value["results"]
            elif event.headers["ce_type"] == IMAGE:
                yield event.value

    @property
    def row_ids(self) -> dict[str | None, list[str]]:
        """By camera."""
        found: dict[str | None, list[str]] = {}
        for result in self.results:
            found.setdefault(result["stream_id"], []).append(result["row_id"])
        return found


def published_on(broker: Broker, topic: str) -> OnTopic:
    """What is on the topic; every message is valid, and every event a CloudEvent whose key is its camera."""
    return OnTopic(list(_events(everything(broker, topic))))


def _events(records: Iterable[Any]) -> Iterator[Event]:
    for record in records:
        headers = {name: value.decode() for name, value in record.headers}
        assert headers["content-type"] == "application/json"
        assert headers["ce_specversion"] == "1.0"
        assert headers["ce_id"]
        assert headers["ce_source"]
        value, key = json.loads(record.value), None if record.key is None else record.key.decode()
        VALIDATOR.validate(value)
        assert key == headers.get("ce_subject")
        yield Event(headers, key, record.partition, record.timestamp, value)
