"""Messages that kill whoever decodes them: three workers die of one, the next one rejects it and goes on."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from adawise.decode.arrow_batch import encode_batch
from adawise.errors import Reason
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.starts import DEATHS
from adawise.store.store import LocalStore
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.hostile import picture
from tests.models import PairFolder
from tests.worker import poison
from tests.worker.cameras import Output, Shot, Topic, settings_for, single
from tests.worker.process import Plan, WorkerProcess, wait_until
from tests.worker.test_hostile import dead_letters


@pytest.mark.parametrize(
    ("marker", "code", "as_batch"),
    [
        pytest.param(poison.SEGFAULT, -signal.SIGSEGV, False, id="segfault"),
        pytest.param(poison.MEMORY, -signal.SIGKILL, False, id="memory", marks=pytest.mark.check("kills")),
        # without a key, so that it takes Arrow to know whose it is
        pytest.param(poison.SEGFAULT, -signal.SIGSEGV, True, id="batch", marks=pytest.mark.check("kills")),
    ],
)
def test_a_message_that_kills_workers_is_a_rejected_row_and_a_dead_letter_after_three_of_them(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, marker: bytes, code: int, as_batch: bool
) -> None:
    rng, reason = random.Random(9), str(Reason.KILLS_DECODER)
    value, stream = picture(rng) + marker, "camera-9"
    killing = Shot(0, stream.encode(), value, None, (), 1, reason, dead=True)
    if as_batch:
        killing = Shot(0, None, encode_batch([value], stream_id=stream), None, (), 1, reason, dead=True)
    mixed = Topic(broker, topic(2, dead_letters=True))
    mixed.produce([single(rng, n % 4, 2) for n in range(40)])
    mixed.produce([killing])
    mixed.produce([single(rng, n % 4, 2) for n in range(40)])
    output, log = Output(root), root.with_suffix(".log")
    plan = Plan(settings_for(mixed, pair, root, fresh_name("deaths")), log, poisoned=True)
    for _ in range(DEATHS):
        with WorkerProcess(plan) as worker:
            assert worker.exit_code() == code, worker.diary
    with WorkerProcess(plan) as worker:
        wait_until(lambda: output.rows >= mixed.rows, worker)
        worker.stop()
    assert output.faults(mixed) == []
    rejected = [row for row in output.predictions.to_pylist() if row["status"] == "rejected"]
    assert [(row["stream_id"], row["reason"]) for row in rejected] == [(None if as_batch else stream, reason)]
    [(place, fields, record)] = dead_letters(broker, f"{mixed.name}.dlq")
    assert (mixed.sent[place], fields["dlq.reason"], record.value) == (killing, reason, killing.value)
    assert log.read_text().count("decoding_set_apart") >= 1
    left = LocalStore(root).list(layout.starts_folder(TopicPartition(mixed.name, 0)))
    assert len(left) == DEATHS  # until the chain is beyond all that the dead may have read


def test_a_worker_that_ends_in_order_leaves_no_mark(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    rng = random.Random(10)
    mixed = Topic(broker, topic(1))
    mixed.produce([single(rng, 0, 1) for _ in range(8)])
    output = Output(root)
    with WorkerProcess(Plan(settings_for(mixed, pair, root, fresh_name("order")), root.with_suffix(".log"))) as worker:
        wait_until(lambda: output.rows >= mixed.rows, worker)
        folder = layout.starts_folder(TopicPartition(mixed.name, 0))
        assert len(LocalStore(root).list(folder)) == 1
        worker.stop()
    assert LocalStore(root).list(folder) == []
