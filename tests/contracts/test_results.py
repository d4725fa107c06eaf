"""What everything that is told results must do: a topic of Kafka, early and committed, and nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from adawise.errors import Reason
from adawise.ports import Publication, Results
from adawise.worker.commit import NoResults
from tests.brokers import Broker, fresh_name
from tests.publish.results.topic import on_kafka, published_on
from tests.sink.building import TP, frame, served
from tests.worker.loop import FakeResults

SERVED = Publication("a1", served([frame(offset) for offset in range(3)]))
REJECTED = Publication("a1", frame(3, reason=Reason.UNDECODABLE_IMAGE))
OTHER = Publication("a2", served([frame(offset, stream="south") for offset in range(4, 6)], number=1))


@dataclass(frozen=True)
class Kind:
    """An implementation, and what it was told: row ids, by camera."""

    results: Results
    row_ids: Callable[[], dict[str | None, list[str]]]


@pytest.fixture(
    params=[
        *(pytest.param(name, marks=pytest.mark.broker) for name in ("kafka-early", "kafka-committed", "kafka-batch")),
        *("fake", "none"),
    ]
)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    name: str = request.param
    if name == "none":
        yield Kind(NoResults(), dict)
    elif name == "fake":
        fake = FakeResults("early")
        yield Kind(fake, lambda: fake.row_ids)
    else:
        broker: Broker = request.getfixturevalue("broker")
        topic = fresh_name("results")
        when, per = ("early", "batch") if name == "kafka-batch" else (name.partition("-")[2], "image")
        with closing(on_kafka(broker, topic, when=when, per=per)) as results:
            yield Kind(results, lambda: published_on(broker, topic).row_ids)


def ids(*offsets: int) -> list[str]:
    return [f"{TP.topic}/{TP.partition}/{offset}/0" for offset in offsets]


def expected(kind: Kind, **streams: list[str]) -> dict[str, list[str]]:
    return {} if kind.results.when is None else streams


def test_what_was_taken_and_settled_was_told_in_the_order_of_each_camera(kind: Kind) -> None:
    for each in (SERVED, REJECTED, OTHER):
        assert kind.results.send(each, wait=True)
    assert (kind.results.in_flight_bytes > 0) == (kind.results.when is not None)
    assert kind.results.settled(wait=True)
    assert kind.results.in_flight_bytes == 0
    assert kind.row_ids() == expected(kind, north=ids(0, 1, 2, 3), south=ids(4, 5))


def test_without_a_wait_it_is_taken_at_once_where_there_is_room_and_settled_sooner_or_later(kind: Kind) -> None:
    assert kind.results.send(SERVED, wait=False)
    kind.results.settled(wait=False)
    kind.results.settled(wait=True)
    assert kind.results.settled(wait=False)
    assert kind.row_ids() == expected(kind, north=ids(0, 1, 2))


def test_rows_of_a_segment_are_told_as_those_that_were_served(kind: Kind) -> None:
    from adawise.publish.results.message import results_of_batch
    from tests.sink.building import CLASSES

    assert isinstance(SERVED.what, tuple)
    kind.results.send(Publication("a0", results_of_batch(SERVED.what, CLASSES, "model")), wait=True)
    kind.results.settled(wait=True)
    assert kind.row_ids() == expected(kind, north=ids(0, 1, 2))


def test_close_settles_and_closing_twice_is_closing_once(kind: Kind) -> None:
    kind.results.send(SERVED, wait=True)
    kind.results.close()
    kind.results.close()
    assert kind.row_ids() == expected(kind, north=ids(0, 1, 2))
