"""The work of `adawise labels`: store labels from Kafka under the output whose images they are of."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import structlog

from adawise.app.kafka import kafka_source
from adawise.app.signals import INTERRUPTED, stop_signals
from adawise.app.waiting import again_and_again
from adawise.console import print_json, progress, say
from adawise.errors import AdawiseError, SettingsError, SourceError
from adawise.kafka.source import KafkaSource
from adawise.labels.columns import LabelColumns
from adawise.output.near import did_you_mean
from adawise.recording.recorder import FilePolicy, Recorder, RecordingProgress, Runs
from adawise.recording.run import Bounds
from adawise.recording.run import record as record_all
from adawise.sink.claims import read_sink_id
from adawise.store.store import open_store
from adawise.worker.observer import outage_event

if TYPE_CHECKING:
    from adawise.cli.labels.options import LabelsCommand

SUFFIX = ".labels"
"""The suffix of the topic's name, unless --topic is given, and of the group's name."""

_FILES = FilePolicy(max_messages=10_000, max_bytes=2 * 2**20, max_age_s=60.0)  # 0.3 million labels at most
_BUFFERED_BYTES = 64 * 2**20
_TOLD = 5  # problems that are printed


def collect_labels(asked: LabelsCommand) -> int:
    """Store the labels of a topic under a root until none is left, or with --follow until stopped.

    Members of one group share the partitions. Whichever process dies, each message is stored once: its file is created
    only if absent, under a name that says where the next one goes on. The group's offset is committed once the file is
    durable. With --follow, the command waits for a broker or a store that does not answer.

    Returns:
        0, or 130 if it was stopped without --follow.

    Raises:
        SettingsError: no worker wrote to the root.
        SourceError: there is no such topic, or the labels there are of another one.
        BrokerUnavailable, StoreUnavailable: the broker or the store does not answer, without --follow.
    """
    kafka, root, follow = asked.settings.kafka, asked.root, asked.follow
    topic = asked.topic or f"{kafka.topic}{SUFFIX}"
    columns, folder = LabelColumns(), f"{root.rstrip('/')}/labels"
    kafka = kafka.model_copy(update={"topic": topic, "group": f"{kafka.group}{SUFFIX}"})
    runs = Runs()
    log = structlog.get_logger("labels")
    with progress("stored", total=None, unit="messages") as bar, stop_signals() as stop:

        def collect() -> None:
            with ExitStack() as stack:
                with stop.interrupts():
                    _expect_output(root)
                    source = stack.enter_context(closing(kafka_source(kafka)))
                    recorder = stack.enter_context(runs.of(_recorder(source, folder, topic, columns)))
                told = 0

                def tell(recorded: RecordingProgress) -> None:
                    nonlocal told
                    bar.advance(recorded.messages - told)
                    told = recorded.messages

                record_all(
                    source,
                    recorder,
                    Bounds(until_drained=not follow),
                    on_progress=tell,
                    stop=stop,
                    skip_gaps=kafka.on_gap == "skip",
                )

        def failed(error: AdawiseError, wait_s: float) -> None:
            if not follow:
                raise error
            log.warning(outage_event(error, "labels_retried"), error=str(error), wait_s=wait_s)

        again_and_again(collect, failed, stop)
        stopped = stop()
    _tell(runs.recorded, columns, topic, folder, as_json=asked.as_json)
    return INTERRUPTED if stopped and not follow else 0


def _expect_output(root: str) -> None:
    if read_sink_id(open_store(root)) is None:
        raise SettingsError(
            f"{root}: expected the output of a worker, where labels are stored, but there is none; name the folder "
            f"or URL of sink.root or -o{did_you_mean(root)}"
        )


def _recorder(source: KafkaSource, folder: str, topic: str, columns: LabelColumns) -> Recorder:
    try:
        return Recorder(
            folder,
            topic=topic,
            identity=source.log.identity(topic),
            policy=_FILES,
            max_buffered_bytes=_BUFFERED_BYTES,
            beside=columns,
            on_race="adopt",
            check=source.log.check,
        )
    except SourceError as error:
        raise SourceError(
            f"{error} {folder} takes labels of one topic at a time: to store those of another, move its files into "
            f"a folder below it, such as {folder}/before, where reports still find them."
        ) from error


def _tell(done: RecordingProgress, columns: LabelColumns, topic: str, folder: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "topic": topic,
                "folder": folder,
                "messages": done.messages,
                "files": done.files,
                "labels": columns.labels,
                "unread": columns.unread,
                "problems": columns.problems,
            }
        )
        return
    say(f"{columns.labels} labels of {done.messages} messages of topic {topic} added to {folder}")
    if columns.unread:
        say(f"{columns.unread} could not be read; they are kept with the reason, in the column labels:")
        for problem, count in sorted(columns.problems.items(), key=lambda item: -item[1])[:_TOLD]:
            say(f"  {count} times: {problem}")
