"""One live run for all tests of this folder: a street of cameras on the broker, classified, then recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import Broker, create_topic, fresh_name
from tests.models import write_pair
from tests.replay import runs, street


@pytest.fixture(autouse=True, scope="session")
def _own_process() -> Iterator[None]:
    """The commands that run in this process set the log, which is the process's."""
    level, handlers = logging.root.level, list(logging.root.handlers)
    yield
    logging.captureWarnings(capture=False)
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.fixture(scope="session")
def recorded(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> runs.Recorded:
    """The street, live and recorded. The second half is sent when the clock has closed all of the first."""
    folder = tmp_path_factory.mktemp("street")
    topic = fresh_name("street")
    # Kept for ever: by their stamps the messages are old, and half a minute after its start Kafka deletes what is.
    create_topic(broker, topic, street.PARTITIONS, {"retention.ms": "-1"})
    create_topic(broker, f"{topic}.dlq")
    runs.write_settings(folder, broker.bootstrap_servers, topic, write_pair(folder / "pair"))
    first, second = street.halves()
    street.send(broker.bootstrap_servers, topic, first)
    with runs.process(folder, "run") as worker:
        log = runs.events(worker.stderr)
        runs.wait_for_rows(log, sum(shot.rows for shot in first))
        street.send(broker.bootstrap_servers, topic, second)
        runs.wait_for_rows(log, sum(shot.rows for shot in second))
        code, _ = runs.end(worker)
        assert code == 0
    assert runs.adawise(folder, "record", "-o", "recording") == 0
    assert runs.recorded_messages(folder / "recording") == len(first) + len(second)
    return runs.Recorded(
        bootstrap_servers=broker.bootstrap_servers,
        topic=topic,
        folder=folder,
        live=folder / "live",
        recording=folder / "recording",
        messages=len(first) + len(second),
        rows=sum(shot.rows for shot in (*first, *second)),
    )


@pytest.fixture(scope="session")
def grid(recorded: runs.Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay of all of it with the strategy `grid`, which evaluates every alpha. Not to be changed by a test."""
    output = tmp_path_factory.mktemp("grid")
    assert runs.adawise(recorded.folder, "replay", "recording", "-o", str(output), "--search.strategy", "grid") == 0
    return output
