"""The worker's page, its metric, `status` and its page say the same of a camera with the same history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from adawise.errors import Reason
from adawise.records import TopicPartition
from adawise.watch.camera import LiveCamera
from adawise.watch.row import CameraState
from adawise.watch.status.fleet import FleetQuestion, fleet_status
from adawise.watch.status.page import FleetPage
from adawise.watch.status.root import RootReader
from adawise.watch.worker import LiveWorker
from tests.sink.building import DictStore
from tests.watch.status.yard import NOW_S, Yard
from tests.watch.watched import BOUNDS

TP = TopicPartition("frames", 0)
QUESTION = FleetQuestion("runs/yard", "frames", "adawise", 3_600.0, wants_broker=False)


@dataclass(frozen=True)
class Moment:
    """What came of the camera so many seconds ago."""

    ago_s: float
    images: int = 0
    alpha: float = 0.5
    rejected: int = 0
    reset: str | None = None


REJECTED_THEN_SILENT = [*(Moment(250.0 - 4.0 * n, images=8) for n in range(40)), Moment(90.0, rejected=60)]
ALPHA_MOVED = [Moment(300.0 - 5.0 * n, images=8, alpha=0.2 if n < 49 else 0.6) for n in range(60)]
WENT_LESS_FAR = [Moment(60.0 - 5.0 * n, images=8, reset="alarm" if n == 6 else None) for n in range(12)]
MANY_REJECTED = [*(Moment(100.0 - 4.0 * n, images=8) for n in range(25)), Moment(2.0, rejected=30)]


def on_the_page_of_its_worker(history: Sequence[Moment]) -> tuple[CameraState, str, dict[str, int]]:
    worker = LiveWorker("test", NOW_S - 4_000.0, BOUNDS)
    camera = worker.cameras[TP, "north"] = LiveCamera("north", TP, NOW_S - history[0].ago_s)
    for each in history:
        if each.images:
            camera.served(
                NOW_S - each.ago_s,
                alpha=each.alpha,
                forward_equivalents=1.0,
                labels=[0] * each.images,
                confidence=0.5,
                compared=0,
                agreed=0,
                reset=each.reset,
            )
        for _ in range(each.rejected):
            camera.reject(NOW_S - each.ago_s, str(Reason.EMPTY))
    worker.now_s = NOW_S
    (row,) = worker.view().rows
    return row.state, row.why, {str(found): count for found, count in worker.states().items()}


def in_status(history: Sequence[Moment]) -> list[tuple[CameraState, str, dict[str, int]]]:
    yard = Yard(DictStore())
    for each in history:
        batches = [("north", each.images, each.alpha)] if each.images else []
        rejected: Mapping[str | None, Sequence[Reason]] = {"north": [Reason.EMPTY] * each.rejected}
        yard.write(ago_s=each.ago_s, batches=batches, rejected=rejected, reset=each.reset)
    root = RootReader(yard.store).read(NOW_S - 3_600.0)
    found = fleet_status(QUESTION, root, None, {"broker": "--no-broker"}, now_s=NOW_S)
    (camera,), (row,) = found.cameras, FleetPage(found).view().rows
    return [(camera.state, camera.why, found.camera_states), (row.state, row.why, found.camera_states)]


@pytest.mark.parametrize(
    ("history", "expected", "why"),
    [
        (REJECTED_THEN_SILENT, CameraState.SILENT, "no image for 90 s"),
        (ALPHA_MOVED, CameraState.CHANGED, "alpha went from 0.20 to 0.60"),
        (WENT_LESS_FAR, CameraState.CHANGED, "the fine-tuned model may be confident and wrong, so alpha is limited"),
        (MANY_REJECTED, CameraState.REJECTED, "30 of 230 images rejected in"),
    ],
)
def test_all_who_show_a_camera_agree_on_its_state(history: list[Moment], expected: CameraState, why: str) -> None:
    for state, each, states in (on_the_page_of_its_worker(history), *in_status(history)):
        assert state == expected
        assert each.startswith(why)
        assert {name: count for name, count in states.items() if count} == {str(expected): 1}
