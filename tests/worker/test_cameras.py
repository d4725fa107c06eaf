from __future__ import annotations

import pytest

from tests.brokers import Broker, MakeTopic
from tests.worker.cameras import Shot, Topic, recorded


@pytest.mark.needs("end_offsets")
def test_a_message_of_which_no_acknowledgement_came_is_looked_for_in_the_topic(
    broker: Broker, topic: MakeTopic
) -> None:
    filled = Topic(broker, topic(2))
    filled.produce(recorded(3, cameras=3, each=12, partitions=2))
    sent = dict(filled.sent)
    never = Shot(0, b"camera-0", b"it did not get there")
    filled.lost = [never, *(filled.sent.pop(place) for place in list(sent)[::3])]
    filled.find_lost()
    assert filled.sent == sent
    assert filled.lost == [never]
