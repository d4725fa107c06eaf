from __future__ import annotations

from typing import Any

import pytest
from kafka import errors

from adawise.errors import BrokerUnavailable
from adawise.kafka.topic import KafkaTopics
from adawise.records import TopicPartition
from tests.brokers import Broker, MakeTopic


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
