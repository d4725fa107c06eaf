"""The files of labels: a recording of their topic, where each message has the labels that were read from it.

So nothing of a message is lost, even if it could not be read, and DuckDB reads the labels directly:

    SELECT unnest(labels, recursive := true) FROM 'ROOT/labels/topic-*/*/*.parquet'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from adawise.labels.message import Label, read_labels
from adawise.records import Message, TopicPartition

_TIME = pa.timestamp("us", tz="UTC")
LABEL = pa.struct(
    [
        pa.field("row_id", pa.string()),
        pa.field("stream_id", pa.string()),
        pa.field("captured_at", _TIME),
        pa.field("label", pa.string()),  # null: an earlier label is withdrawn
        pa.field("labelled_at", _TIME),
        pa.field("problem", pa.string()),  # null: it could be read
    ]
)
FIELD = pa.field("labels", pa.list_(pa.field("element", LABEL, nullable=False)), nullable=False)


@dataclass(slots=True)
class LabelColumns:
    """The column `labels` of a file, with counts of the labels so far.

    A message counts once, even if its file is written again because the store did not accept it.
    """

    labels: int = 0
    unread: int = 0
    problems: dict[str, int] = field(default_factory=dict)

    fields: tuple[pa.Field, ...] = (FIELD,)
    _counted: dict[TopicPartition, int] = field(default_factory=dict)  # offsets below this one are counted

    def columns(self, messages: Sequence[Message]) -> list[pa.Array]:
        """Return one list of labels for each message; the messages of a partition are consecutive."""
        found = [read_labels(message) for message in messages]
        for message, labels in zip(messages, found, strict=True):
            if message.offset >= self._counted.get(message.topic_partition, 0):
                self._counted[message.topic_partition] = message.next_offset
                self._count(labels)
        return [pa.array([[_plain(label) for label in labels] for labels in found], FIELD.type)]

    def _count(self, labels: Sequence[Label]) -> None:
        for label in labels:
            self.labels += label.problem is None
            if label.problem is not None:
                self.unread += 1
                if label.problem in self.problems or len(self.problems) < _PROBLEMS:
                    self.problems[label.problem] = self.problems.get(label.problem, 0) + 1


_PROBLEMS = 20  # distinct ones that are counted separately


def _plain(label: Label) -> dict[str, object]:
    cells = asdict(label)
    return {name.removesuffix("_us"): value for name, value in cells.items()}
