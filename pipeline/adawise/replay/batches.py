"""Where the batches of an earlier run ended, read from the traces of its root."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Mapping

from adawise.errors import SettingsError
from adawise.records import BatchEnds, TopicPartition
from adawise.sink.read.rows import read_traces


def read_batch_ends(root: str, ranges: Mapping[TopicPartition, tuple[int, int]]) -> BatchEnds:
    """Return where the batches of [begin, end) of these partitions ended in the run that wrote `root`.

    Takes eight bytes a batch.

    Raises:
        SettingsError: the root has no batches of any of these partitions.
        ChainError: a file of the root is damaged.
        StoreUnavailable: the store does not answer.
    """
    found: dict[TopicPartition, dict[str, array[int]]] = {tp: defaultdict(lambda: array("q")) for tp in ranges}
    for rows in read_traces(root, columns=["topic", "partition", "stream_id", "last_offset"]).batches():
        for topic, partition, stream, last in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            begin, end = ranges.get(TopicPartition(topic, partition), (0, 0))
            if last is not None and stream is not None and begin <= last < end:
                found[TopicPartition(topic, partition)][stream].append(last)
    if not any(found.values()):
        named = ", ".join(map(str, sorted(ranges)))
        raise SettingsError(
            f"--batches-of {root}: expected batches of {named}, but there are none; name the root that sink.root or -o "
            "named when these messages were classified"
        )
    return {tp: {name: array("q", sorted(ends)) for name, ends in streams.items()} for tp, streams in found.items()}
