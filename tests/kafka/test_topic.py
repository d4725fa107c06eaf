from __future__ import annotations

from typing import Any

import pytest
from kafka import errors

from adawise.errors import BrokerUnavailable
from adawise.kafka.topic import KafkaTopics
from adawise.records import TopicPartition
from tests.brokers import Broker, MakeTopic, fresh_name


def test_after_a_question_that_nobody_answered_the_next_goes_to_a_new_client(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that stood still while a broker died and came back may ask in vain for ever (tools/chaos found it)."""
    tp = TopicPartition(topic(), 0)
    topics = KafkaTopics(bootstrap_servers=broker.bootstrap_servers, client_id="test", security={})
    try:
        assert topics.bounds(tp) == (0, 0)

        def in_vain(*_: Any) -> None:
            raise errors.KafkaTimeoutError("nobody answered")

        monkeypatch.setattr(topics._probe, "beginning_offsets", in_vain)
        with pytest.raises(BrokerUnavailable):
            topics.bounds(tp)
        assert topics.bounds(tp) == (0, 0)
    finally:
        topics.close()


def test_a_topic_that_workers_make_and_the_next_number_are_not_what_is_meant(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = KafkaTopics(bootstrap_servers=broker.bootstrap_servers, client_id="test", security={})
    try:
        known = ["frames.dlq", "frames.results", "yard", "yard.dlq", "camera-1", "__consumer_offsets"]
        monkeypatch.setattr(topics._admin, "list_topics", lambda: known)
        assert [topics._near(name) for name in ("frames", "frame", "camera-2", "hall.dlq")] == [""] * 4
        assert topics._near("yrad") == " (did you mean 'yard'?)"
        assert topics._near("frame.dlq") == " (did you mean 'frames.dlq'?)"
    finally:
        topics.close()


def test_the_first_group_of_a_cluster_is_waited_for(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = KafkaTopics(bootstrap_servers=broker.bootstrap_servers, client_id="test", security={})
    try:
        request, refused = topics._admin.list_group_offsets, [errors.CoordinatorNotAvailableError()] * 3

        def later(groups: list[str]) -> Any:
            if refused:
                raise refused.pop()
            return request(groups)

        monkeypatch.setattr(topics._admin, "list_group_offsets", later)
        assert topics.committed(fresh_name("group"), topic()) == {}
        assert not refused
    finally:
        topics.close()
