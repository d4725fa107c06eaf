"""The command `labels`, which stores labels that come later by Kafka."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import READING, Command, json_flag, optional
from adawise.settings.group import KAFKA_NAME_EXPECTED, KafkaName, Location

_SHOWN = 5  # problems


class LabelsCommand(Command):
    """Store labels from Kafka beside their predictions, so that `adawise drift` can measure accuracy.

    A message is {"row_id": "frames/0/17/0", "label": "car"}, or {"stream_id": "gate-01", "captured_at":
    "2026-05-01T12:00:00.25Z", "label": "car"}, or a JSON array of such, or an Arrow IPC stream with these columns.
    Without row_id and stream_id, the message's key is one of them. "labelled_at" is when the label was decided: the
    latest label of an image counts, and "label": null withdraws it. Each message is stored exactly once, also one that
    cannot be read. Several of these commands may run at once: they share the partitions.
    """

    name = "labels"
    groups = (
        *READING,
        *("kafka.group", "kafka.origin", "kafka.static_member", "kafka.session_timeout_ms"),
        *("kafka.max_poll_interval_ms", "kafka.on_gap", "log"),
    )
    examples = (
        ("store all labels until now from topic frames.labels", "labels runs/yard"),
        ("store labels as they come from another topic", "labels runs/yard --topic yard-truth --follow"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    topic: KafkaName | None = optional(
        "topic with the labels; none: the topic of the images with .labels",
        metavar="TOPIC",
        expected=KAFKA_NAME_EXPECTED,
    )
    follow: CliToggleFlag[bool] = Field(default=False, description="go on until stopped, storing labels as they come")
    as_json: CliToggleFlag[bool] = json_flag("print what was done as JSON")

    @override
    def call(self) -> int:
        """Return 0, or 130 if it was stopped without --follow."""
        from adawise.app.recording import record_labels
        from adawise.app.signals import INTERRUPTED, stop_signals
        from adawise.console import print_json, print_text, progress
        from adawise.labels.message import LabelColumns

        kafka, columns = self.settings.kafka, LabelColumns()
        topic = self.topic or f"{kafka.topic}.labels"
        kafka = kafka.model_copy(update={"topic": topic, "group": f"{kafka.group}.labels"})
        with progress("stored", total=None, unit="messages") as bar, stop_signals() as stop:
            runs = record_labels(kafka, self.root, columns, follows=self.follow, stop=stop, bar=bar)
            stopped = stop()
        folder, done = f"{self.root.rstrip('/')}/labels", runs.recorded
        counts = {"messages": done.messages, "files": done.files, "labels": columns.labels, "unread": columns.unread}
        if self.as_json:
            print_json({"topic": topic, "folder": folder, **counts, "problems": columns.problems})
        else:
            print_text(f"{columns.labels} labels of {done.messages} messages of topic {topic} added to {folder}")
            if columns.unread:
                print_text(f"{columns.unread} could not be read; they are kept with the reason, in the column labels:")
            for problem, count in sorted(columns.problems.items(), key=lambda item: -item[1])[:_SHOWN]:
                print_text(f"  {count} times: {problem}")
        return INTERRUPTED if stopped and not self.follow else 0
