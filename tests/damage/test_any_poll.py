"""Every call of a Kafka source that asks a broker fails once, before or after its effect: each message comes once, in
order, and each assignment once.

`tests.damage.test_any_call` has a source in memory, which cannot lose what it took from a client. Here it is Kafka's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError

from adawise.errors import BrokerUnavailable
from adawise.kafka import source as kafka_source
from adawise.records import TopicPartition
from tests.brokers import Broker, MakeTopic
from tests.damage.test_any_call import Moment, Plan
from tests.deadlines import scaled
from tests.kafka.sources import numbered, open_source, produce

EACH, PARTITIONS = 20, 2
POLLS = round(scaled(400))  # of 50 ms each; six bring all messages where nothing fails
_BUG = RuntimeError("a bug of the client")
CALLS: Mapping[str, Mapping[str, Sequence[Exception]]] = {
    "client": {
        "poll": [KafkaConnectionError("the connection is closed")],
        "position": [KafkaTimeoutError("the coordinator is away"), _BUG],
        "highwater": [_BUG],
    },
    "topics": {"ends": [BrokerUnavailable("no broker answers"), _BUG]},
    "log": {"check": [BrokerUnavailable("no broker answers")]},
}
_ONLY_BEFORE = {("client", "poll")}  # what it returns is lost if it raises, and it raises before it takes anything


def read(
    plan: Plan, broker: Broker, topic: str
) -> tuple[Mapping[TopicPartition, Sequence[int]], Counter[TopicPartition]]:
    """Offsets by partition as they come, and how often each was assigned; one fails as planned."""
    with closing(open_source(broker, topic, None, max_poll_records=7)) as source:
        source._consumer = plan.on("client", source._consumer, [*CALLS["client"]])
        source._topics = plan.on("topics", source._topics, [*CALLS["topics"]])
        source.log = plan.on("log", source.log, [*CALLS["log"]])
        offsets, assigned = defaultdict[TopicPartition, list[int]](list), Counter[TopicPartition]()
        for _ in range(POLLS):
            source._examined_at = 0.0  # looks for transactions once a second in life
            try:
                found = source.poll(0.05)
            except BrokerUnavailable:
                continue
            for message in found.messages:
                offsets[message.topic_partition].append(message.offset)
            for tp in found.assigned:
                assigned[tp] += 1
                source.seek(tp, 0)
            source.resume(found.assigned[:1])  # the others wait, so that the ends of their logs are asked for
            for tp in assigned:
                source.lag(tp)  # what a worker logs after each segment
            # Ends of logs are asked for only while a partition waits: until the planned call has come.
            if plan.has_ended and len(offsets) == 1 and EACH in map(len, offsets.values()):
                source.resume([*assigned])
            if sum(map(len, offsets.values())) >= EACH * PARTITIONS and plan.has_ended:
                break
        return offsets, assigned


def places(calls: Mapping[tuple[str, str], int], most: int) -> Iterator[tuple[str, str, int, Moment, Exception]]:
    """The first calls of each method, with what each may raise."""
    for (port, method), count in sorted(calls.items()):
        for call in range(min(count, most)):
            for error in CALLS[port][method]:
                yield port, method, call, "before", error
                if (port, method) not in _ONLY_BEFORE:
                    yield port, method, call, "after", error


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    "most", [pytest.param(8, marks=pytest.mark.check("damage")), pytest.param(40, marks=pytest.mark.soak)]
)
def test_a_call_of_a_source_that_fails_once_costs_no_message_and_no_assignment(
    most: int, broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CHECK_S", "_ENDS_S", "_ENDS_AGAIN_S"):
        monkeypatch.setattr(kafka_source, name, 0.0)  # each poll asks
    name, faults, unreached = topic(PARTITIONS), list[str](), list[str]()
    for partition in range(PARTITIONS):
        produce(broker, numbered(name, partition, EACH))
    calm = Plan()
    expected = read(calm, broker, name)
    assert expected[0] == {TopicPartition(name, partition): [*range(EACH)] for partition in range(PARTITIONS)}
    assert {port for port, _ in calm.calls} == set(CALLS)
    for place in places(calm.calls, most):
        plan = Plan(*place)
        found = read(plan, broker, name)
        if not plan.has_failed:
            unreached.append(str(place[:4]))
        if found != expected:
            faults.append(f"{place[:4]}: {found}")
    assert not faults, "\n".join(faults)
    assert not unreached
