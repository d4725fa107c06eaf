"""The fleet as the live page's rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from adawise.errors import Reason
from adawise.ports import ServedBy
from adawise.sink import layout
from adawise.sink.served_by import note_settings
from adawise.watch.row import CameraState
from adawise.watch.status.fleet import FleetQuestion, fleet_status
from adawise.watch.status.page import FleetPage
from adawise.watch.status.root import RootReader
from tests.sink.building import DictStore
from tests.watch.status.test_fleet import broker_facts
from tests.watch.status.yard import NOW_S, Yard

QUESTION = FleetQuestion("runs/yard", "frames", "adawise", 3_600.0, wants_broker=True)


def test_a_camera_of_the_output_is_a_row_of_the_page() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=200_000, batches=[("gone", 2, 0.5)])
    for ago_s, alpha in ((62, 0.25), (61, 0.75), (20, 0.5)):
        dead = [("dead", 1, 0.5)] if ago_s > 30 else []
        yard.write(ago_s=ago_s, batches=[("north", 2, alpha), *dead])
    yard.write(ago_s=5, rejected={"south": [Reason.EMPTY] * 3, None: [Reason.MISSING_STREAM_ID]})
    root = RootReader(yard.store).read(NOW_S - 3_600)
    page = FleetPage(fleet_status(QUESTION, root, broker_facts(14), {}, now_s=NOW_S + 40))
    view = page.view()
    assert view.title == "frames in runs/yard"
    assert view.now_s == NOW_S + 40
    assert ("workers", "1") in view.facts
    assert ("gone for a day", "1") in view.facts
    assert ("lag", "0") in view.facts
    assert view.over == "the last 60 min"
    rows = {row.stream_id: row for row in view.rows}
    assert {name: row.state for name, row in rows.items()} == {
        "south": CameraState.REJECTED,
        "dead": CameraState.SILENT,
        "north": CameraState.OK,
    }
    north = rows["north"]
    step = int((NOW_S - 65) / 5)
    assert (north.first_step - step, north.alphas) == (0, (0.5, *[None] * 8, 0.5))  # 62 s ago and 61 are one step
    assert (north.alpha, north.images, north.lag, north.last_seen_s) == (0.5, 6, 0, NOW_S - 20)
    assert rows["south"].why == "3 of 3 images rejected in 60 min: empty"
    assert rows["dead"].why == "no image for 101 s"
    [notice] = view.notices  # of cameras their rows say it
    assert "4 of 12 images were rejected" in notice
    assert page.picture(north.key) is None
    own = page.camera(rows["south"].key)
    assert own is not None
    assert (own.title, own.row) == (view.title, rows["south"])
    facts = {name: value for _, pairs in own.facts for name, value in pairs}
    assert facts["rejected"] == "3: empty 3"
    assert facts["written by"] == "host-a:41"
    assert [heading for heading, _ in own.facts][:2] == ["The last 60 min", "Partition frames/0"]
    assert [hint.heading for hint in own.hints] == ["Frames", "Accuracy", "Rejected messages"]
    assert "adawise drift runs/yard --streams=south --since 1d" in dict(own.hints[1].steps).values()
    assert [page.camera(key) for key in ("frames/0/gone", "frames/1/north", "")] == 3 * [None]


@pytest.mark.parametrize("noted", [True, False])
def test_how_alpha_is_chosen_is_told_where_the_root_notes_it_and_a_damaged_note_hides_nothing_else(noted: bool) -> None:
    yard = Yard(DictStore())
    for partition in (0, 1):
        yard.write(partition, ago_s=5, batches=[("north", 2, 0.5)])
    known = {"search.strategy": "warm", "scene.prior": "served"}
    by = ServedBy((), "model", "config", settings=known, method="adapts by tsallis", tail_share=0.25)
    note_settings(yard.store, by, now=datetime.fromtimestamp(NOW_S, UTC))
    if not noted:
        yard.store.put(layout.settings_key("model", "config"), b"{half")
    root = RootReader(yard.store).read(NOW_S - 3_600)
    found = fleet_status(QUESTION, root, broker_facts(14), {}, now_s=NOW_S)
    fields = dict(FleetPage(found).view().facts)
    assert [each.method for each in found.partitions] == 2 * ["adapts by tsallis" if noted else None]
    assert fields.get("method") == ("adapts by tsallis" if noted else None)
    assert fields["partitions"] == "2"
    assert fields.get("label of results") == ("scene_label" if noted else None)
    assert [each.label_column for each in found.partitions] == 2 * ["scene_label" if noted else None]
    assert [each.tail_share for each in found.partitions] == 2 * [0.25 if noted else None]
    own = FleetPage(found).camera("frames/0/north")
    assert own is not None
    text = "equal first layers: an image at a second alpha costs 0.25 of a forward"
    model = [("method", "adapts by tsallis"), ("label of results", "scene_label"), ("shared layers", text)]
    assert dict(own.facts).get("Model") == (model if noted else None)
    one, other = found.partitions
    differing = replace(found, partitions=[replace(one, method="a fixed alpha of 0.5, as search.alpha says"), other])
    assert differing.methods[0] == "frames/0: a fixed alpha of 0.5, as search.alpha says" or not noted
