from __future__ import annotations

import torch

from adawise.adapt.state import StreamState
from adawise.ports import Head
from adawise.records import ImageBatch, TopicPartition
from adawise.worker.batching import BatchPolicy
from adawise.worker.loop import next_round
from adawise.worker.partition import PartitionPolicy, PartitionWork
from tests.frames import turn_of


def work(partition: int, *streams: str) -> PartitionWork:
    made = PartitionWork(
        TopicPartition("frames", partition),
        Head(0),
        PartitionPolicy(BatchPolicy(images=1, max_age_s=1.0), forget_after_s=1e9, max_streams=100),
        turn_of(lambda: StreamState("key", 3)),
    )
    made.ready.extend(ImageBatch(stream, (), torch.empty(0)) for stream in streams)
    return made


def test_a_round_has_the_first_ready_batch_of_each_stream_of_each_partition() -> None:
    works = [work(0, "north", "south", "north", "north"), work(1), work(2, "north", "east")]
    north, south, *rest = works[0].ready
    taken = next_round(works)
    assert [batch for _, batch in taken[:2]] == [north, south]
    assert [batch.stream_id for _, batch in taken[2:]] == ["north", "east"]
    assert [one for one, _ in taken] == [works[0], works[0], works[2], works[2]]
    assert [list(one.ready) for one in works] == [rest, [], []]


def test_a_round_of_nothing_is_empty() -> None:
    assert next_round([work(0)]) == []
