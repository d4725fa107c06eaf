"""Two workers in one group: one joins and leaves in the middle of the stream, and nothing is computed twice."""

from __future__ import annotations

from pathlib import Path

from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder
from tests.worker.cameras import Live, Output, Topic, run_to_the_end, settings_for
from tests.worker.process import Plan, WorkerProcess, wait_until

NEVER_BY_CLOCK = {"max_age_s": 3_000.0}
LONG_SEGMENTS = {"flush_rows": 100_000, "flush_age_s": 2.0}  # so that there is always work that is not written yet
PATIENT = {"session_timeout_ms": 30_000}  # nobody is expelled because the machine is busy


def test_a_worker_that_joins_and_leaves_in_the_middle_of_the_stream_costs_no_image_and_no_computation(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    live, group = Topic(broker, topic(4)), fresh_name("group")
    output = Output(root)
    settings = settings_for(live, pair, root, group, batch=NEVER_BY_CLOCK, sink=LONG_SEGMENTS, kafka=PATIENT)
    first_plan, second_plan = (Plan(settings, root.with_suffix(f".{name}.log")) for name in ("first", "second"))
    with WorkerProcess(first_plan) as first:
        with Live(live, cameras=8, partitions=4, every_s=0.03):
            first.wait_for("committed")
            with WorkerProcess(second_plan) as second:
                wait_until(lambda: len(second.committed) >= 2, first, second)
                second.stop()
            before = len(first.recovered)
            wait_until(lambda: len(first.recovered) >= before + 2, first)
        wait_until(lambda: output.rows >= live.rows, first)
        first.stop()
    assert len(second.committed) >= 2
    assert {event.tp for event in first.seen if event.what == "lost"} >= second.committed
    served = sum(event.rows for worker in (first, second) for event in worker.seen if event.what == "served")
    assert served == output.rows
    peace = run_to_the_end(live, pair, root.with_name("peace"), fresh_name("peace"), batch=NEVER_BY_CLOCK)
    assert output.faults(live, peace) == []
