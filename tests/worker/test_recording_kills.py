"""Real workers that record, killed or taken over in the middle: the recording is the topic, its replay the output."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from adawise.app.model import load_model
from adawise.app.worker import WorkerParts, make_worker
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.recording.source import RecordingSource
from adawise.records import Message
from adawise.worker.observer import LogObserver
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder
from tests.worker import cameras
from tests.worker.cameras import Live, Topic, run_to_the_end, settings_for
from tests.worker.output import Output
from tests.worker.process import Plan, WorkerProcess, wait_until
from tests.worker.recordings import recorded

NEVER_BY_CLOCK = {"max_age_s": 3_000.0}
SIGKILLED = -signal.SIGKILL
pytestmark = pytest.mark.check("kills")
POINTS = ("recording.temp_written", "recording.linked", "worker.recorded")  # all of them: test_recording.py


def recording_of(root: Path) -> Path:
    return root.with_name("recording")


def recording(root: Path) -> dict[str, object]:
    return {"enabled": True, "root": str(recording_of(root))}


def without_times(message: Message) -> Message:
    return Message(*message.topic_partition, message.offset, message.key, message.value, message.headers)


def in_topic(topic: Topic) -> list[Message]:
    """Everything that was acknowledged."""
    return [
        Message(topic.name, partition, offset, shot.key, shot.value, shot.headers)
        for (partition, offset), shot in sorted(topic.sent.items())
    ]


def replay(topic: Topic, pair: PairFolder, root: Path) -> Output:
    """The worker on the recording, in this process, with another interleaving."""
    settings = settings_for(topic, pair, root.with_name("again"), "replay", batch=NEVER_BY_CLOCK)
    make_worker(
        settings,
        load_model(settings.model, settings.decode),
        WorkerParts(
            source=RecordingSource(str(recording_of(root)), order="shuffled", seed=3, max_poll_records=50),
            root=settings.sink.root,
            dead_letters=NoDeadLetters(),
            observer=LogObserver(),
            should_stop=lambda: False,
        ),
    ).run()
    return Output(root.with_name("again"))


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_while_it_records_leaves_a_recording_that_another_continues(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, point: str
) -> None:
    street, group = Topic(broker, topic(2, dead_letters=True)), fresh_name("killed")
    street.produce(cameras.recorded(1, cameras=4, each=16, partitions=2))
    settings = settings_for(street, pair, root, group, record=recording(root))
    with WorkerProcess(Plan(settings, root.with_suffix(".killed.log"), point=point, time=2)) as worker:
        worker.wait_for("at", point)
        assert worker.exit_code() == SIGKILLED
    output = run_to_the_end(street, pair, root, group, record=recording(root))
    assert output.faults(street) == []
    assert [without_times(message) for message in recorded(recording_of(root))] == in_topic(street)


def test_workers_that_come_and_are_killed_share_one_recording_whose_replay_is_their_output(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    live, group = Topic(broker, topic(4)), fresh_name("group")
    settings = settings_for(live, pair, root, group, batch=NEVER_BY_CLOCK, record=recording(root))
    plans = [Plan(settings, root.with_suffix(f".{name}.log")) for name in ("first", "second")]
    output = Output(root)
    with Live(live, cameras=8, partitions=4, every_s=0.01), WorkerProcess(plans[0]) as first:
        first.wait_for("committed")
        with WorkerProcess(plans[1]) as second:
            wait_until(lambda: len(second.committed) >= 2, first, second)
            first.send(signal.SIGKILL)
            assert first.exit_code() == SIGKILLED
            wait_until(lambda: len(second.committed) >= 4, second)
            second.stop()
    output = run_to_the_end(live, pair, root, group, batch=NEVER_BY_CLOCK, record=recording(root))
    assert [without_times(message) for message in recorded(recording_of(root))] == in_topic(live)
    assert output.faults(live, replay(live, pair, root)) == []
