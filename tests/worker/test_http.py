"""The HTTP port of a real worker on a real broker: as it starts, works, is in reserve, loses its broker, stops."""

from __future__ import annotations

import random
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adawise.settings import Settings
from adawise.watch.metrics import METRICS
from tests.brokers import Broker, MakeTopic, create_topic, embedded, fresh_name
from tests.deadlines import DEADLINE_S
from tests.models import PairFolder
from tests.watch.web.client import Listener, Reply, request
from tests.worker.cameras import IMAGES, Topic, settings_for, single
from tests.worker.process import Plan, WorkerProcess

CAMERAS = 3


def a_port() -> int:
    """Free now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


class Watched:
    """A worker process and its port.

    Args:
        settings: without a port.
        log: of the process.
    """

    def __init__(self, settings: Settings, log: Path, **http: Any) -> None:
        port = a_port()
        changed = settings.model_dump(mode="json", exclude_unset=True) | {"http": {"port": port, **http}}
        self.settings = settings.model_validate(changed)
        self.url = f"http://127.0.0.1:{port}/"
        self.process = WorkerProcess(Plan(self.settings, log))

    def until(self, path: str, holds: Callable[[Reply], bool]) -> list[Reply]:
        """Every reply until one holds, asked between the worker's events."""
        replies: list[Reply] = []
        give_up_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up_s:
            try:
                replies.append(request(self.url, path))
            except ConnectionError:
                self.process.listen(0.02)
                continue
            if holds(replies[-1]):
                return replies
            self.process.listen(0.02)
        raise AssertionError(f"{path} never came to that: {replies[-1:]}\n{self.process.diary}")


def samples(text: str) -> dict[str, float]:
    """Name and labels -> value."""
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def is_ok(reply: Reply) -> bool:
    return reply.status == 200


def test_a_worker_says_how_it_starts_what_it_serves_and_is_gone_when_it_stops(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    filled, rng = Topic(broker, topic(2)), random.Random(3)
    filled.produce(single(rng, camera, 2) for _ in range(3 * IMAGES) for camera in range(CAMERAS))
    settings = settings_for(filled, pair, root, fresh_name("watched"), sink={"flush_age_s": 0.5})
    watched = Watched(settings, root.with_name("log"))
    with watched.process as worker:
        started = watched.until("/startupz", is_ok)
        assert {reply.json["status"] for reply in started[:-1]} <= {"starting"}
        assert all(reply.json["reasons"] for reply in started[:-1])
        watched.until("/readyz", is_ok)
        assert request(watched.url, "/livez").json["status"] == "alive"
        images = 3 * IMAGES * CAMERAS
        # The lag is queried after a commit, so that it follows the rows.
        last = {"adawise_rows_total": images, 'adawise_lag_messages{partition="0"}': 0}
        replies = watched.until("/metrics", lambda reply: last.items() <= samples(reply.text).items())
        found = samples(replies[-1].text)
        assert found["adawise_images_total"] == images == sum(e.rows for e in worker.seen if e.what == "served")
        assert found["adawise_partitions"] == 2
        assert found["adawise_prediction_latency_seconds_count"] == images
        assert found["adawise_ready"] == 1
        assert found["process_cpu_seconds_total"] > 0
        assert {spec.name for spec in METRICS} <= set(re.findall(r"^# HELP (\w+)", replies[-1].text, re.MULTILINE))
        assert 'card="' in next(name for name in found if name.startswith("adawise_model_info"))
        with Listener(watched.url) as page:
            name, result = page.next()
            assert name == "all"
            assert {row["name"]: row["images"] for row in result["rows"]} == {
                f"camera-{n}": 3 * IMAGES for n in range(CAMERAS)
            }
            worker.send(signal.SIGTERM)
            worker.wait_for("ended")
            assert page.ended()
    with pytest.raises(ConnectionRefusedError):
        request(watched.url, "/livez")


def test_a_worker_in_reserve_is_ready_and_says_so(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    filled = Topic(broker, topic(1))
    settings = settings_for(filled, pair, root, fresh_name("reserve"))
    first, second = (Watched(settings, root.with_name(f"log{n}")) for n in range(2))
    with first.process:
        first.until("/readyz", is_ok)
        with second.process:
            reply = second.until("/readyz", is_ok)[-1]
            both = [*first.until("/readyz", is_ok)[-1].json["reasons"], *reply.json["reasons"]]
            assert both == ["in reserve: other workers have all partitions"]


def test_a_broker_that_goes_away_makes_a_worker_neither_dead_nor_unready(pair: PairFolder, root: Path) -> None:
    name, rng = fresh_name("gone"), random.Random(3)
    with embedded() as broker:
        create_topic(broker, name, 1)
        filled = Topic(broker, name)
        filled.produce(single(rng, 0, 1) for _ in range(IMAGES))
        watched = Watched(settings_for(filled, pair, root, name), root.with_name("log"))
        watched.process.__enter__()
        watched.until("/readyz", is_ok)
    try:
        found = watched.until("/readyz", lambda reply: "the broker has not answered" in reply.text)
        assert {reply.status for reply in found} == {200}
        assert request(watched.url, "/livez").status == 200
        assert "127.0.0.1" not in found[-1].text, "anybody may ask: no hosts"
        assert samples(request(watched.url, "/metrics").text)['adawise_retries_total{of="broker"}'] >= 1
    finally:
        watched.process.__exit__(None, None, None)


def test_a_port_that_is_taken_ends_a_worker_at_once_with_the_remedy(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    from adawise.app.worker import run_worker
    from adawise.errors import SettingsError

    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        settings = settings_for(Topic(broker, topic(1)), pair, root, fresh_name("taken"))
        http = settings.http.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(SettingsError, match=r"http.port: expected a free port.*is taken"):
            run_worker(settings.model_copy(update={"http": http}))
