"""A camera beside one that sends pictures that take long: on a real worker, it is served before their backlog is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from adawise.decode import cost
from adawise.store.store import LocalStore
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder
from tests.sink.footers import read_segment_footers
from tests.worker.cameras import IMAGES, Output, Shot, Topic, settings_for, single
from tests.worker.process import Plan, WorkerProcess, wait_until
from tools.fuzz.extremes import FAMILIES

BYTES, COSTLY = 16_000, 60
SIDE = int((0.98 * cost.allowed_ns(BYTES) / 12.0) ** 0.5)  # px, at 12 ns a pixel: as much as the bytes may ask for


@pytest.mark.check("kills")
@pytest.mark.parametrize("names", [1, COSTLY])
def test_a_good_camera_is_served_before_the_backlog_of_costly_neighbours_that_lies_before_it_in_the_log(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, names: int
) -> None:
    rng = random.Random(7)
    mixed = Topic(broker, topic(1))
    mixed.produce(single(rng, 0, 1) for _ in range(IMAGES))
    output = Output(root)
    with WorkerProcess(Plan(settings_for(mixed, pair, root, fresh_name("neighbours")), root.with_suffix(".log"))) as w:
        wait_until(lambda: output.rows >= IMAGES, w)  # the good camera has a committed batch
        value = FAMILIES["WebP lossless"](SIDE, SIDE)
        costly = [Shot(0, b"bad-%d" % (n % names), value + bytes(BYTES - len(value))) for n in range(COSTLY)]
        mixed.produce([*costly, *(single(rng, 0, 1) for _ in range(IMAGES))])
        wait_until(lambda: output.rows >= mixed.rows, w)
        w.stop()
    assert output.faults(mixed) == []
    footers = [footer for _, footer in read_segment_footers(LocalStore(root))]
    first = next(footer for footer in footers if footer.next == IMAGES + COSTLY + IMAGES and has_good(footer))
    waiting = [offset for offset in first.pending if IMAGES <= offset < IMAGES + COSTLY]
    assert len(waiting) > COSTLY // 3, f"only {len(waiting)} of {COSTLY} costly messages were left"


def has_good(footer: object) -> bool:
    """Whether the segment ends a batch of the good camera that began after the costly messages."""
    return any(
        row["stream_id"] == "camera-0" and row["first_offset"] >= IMAGES + COSTLY
        for row in footer.trace.to_pylist()  # type: ignore[attr-defined]
    )
