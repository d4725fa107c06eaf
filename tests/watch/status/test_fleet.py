"""From what root and broker tell to the status: states of cameras, lag, and every kind of trouble with its remedy."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console
from typing_extensions import override

from adawise.errors import Reason, StoreUnavailable
from adawise.kafka.group import GroupMember, Membership
from adawise.records import Gap, TopicPartition
from adawise.sink import layout
from adawise.watch.status import reader
from adawise.watch.status.broker import BrokerFacts
from adawise.watch.status.facts import LACKING_REMEDY, CameraStatus, FleetStatus, WorkerStatus
from adawise.watch.status.fleet import FleetQuestion, fleet_status, low_waters
from adawise.watch.status.page import FleetPage
from adawise.watch.status.root import RootFacts, RootReader
from adawise.watch.status.show import picture
from adawise.watch.status.troubles import KINDS
from tests.sink.building import DictStore
from tests.watch.status.yard import NOW_S, Yard

TP = TopicPartition("frames", 0)
QUESTION = FleetQuestion("runs/yard", "frames", "adawise", 3_600.0, wants_broker=True)


def broker_facts(
    *ends: int, start: int = 0, committed: int | None = None, members: int = 1, state: str = "Stable"
) -> BrokerFacts:
    tps = [TopicPartition("frames", number) for number in range(len(ends))]
    found = [GroupMember(f"worker-{n}", "adawise", "10.0.0.1", tps[n::members]) for n in range(members)]
    return BrokerFacts(
        "cluster",
        {tp: (start, end) for tp, end in zip(tps, ends, strict=True)},
        {tp: (end if committed is None else committed, "") for tp, end in zip(tps, ends, strict=True)},
        Membership(state, found),
    )


def status_of(
    yard: Yard | None, broker: BrokerFacts | None = None, not_asked: Mapping[str, str] | None = None
) -> FleetStatus:
    root = None if yard is None else RootReader(yard.store).read(NOW_S - 3_600)
    return fleet_status(QUESTION, root, broker, not_asked or {}, now_s=NOW_S)


def kinds(found: FleetStatus) -> list[str]:
    return [trouble.kind for trouble in found.troubles]


def camera(found: FleetStatus, name: str) -> CameraStatus:
    return next(each for each in found.cameras if each.stream_id == name)


def test_a_fleet_that_is_well_has_no_troubles_and_says_who_has_what() -> None:
    yard = Yard(DictStore())
    for number in (0, 1):
        yard.write(number, ago_s=20, batches=[(f"camera-{number}", 4, 0.25)])
        yard.write(number, ago_s=10, batches=[(f"camera-{number}", 8, 0.5)])
    found = status_of(yard, broker_facts(12, 12))
    assert found.is_well
    assert [(m.client_id, m.host, m.member, list(m.partitions)) for m in found.members] == [
        ("adawise", "10.0.0.1", "worker-0", [0, 1])
    ]
    first = found.partitions[0]
    assert (first.member, first.writer, first.log_end, first.next_offset) == ("worker-0", "host-a:41", 12, 12)
    assert (first.lag, first.lag_s, first.commit_age_s, first.streams, first.rows) == (0, 0.0, 10.0, 1, 12)
    assert first.committed_at == "2026-11-26T11:59:50.000Z"
    assert found.camera_states == {"failing": 0, "silent": 0, "rejected": 0, "changed": 0, "ok": 2, "gone": 0}
    row = camera(found, "camera-1")
    assert (row.state, row.age_s, row.alpha, list(row.alphas), row.images) == ("ok", 10.0, 0.5, [0.25, 0.5], 12)
    assert (row.images_per_s, row.forward_equivalents, row.agreement) == (0.8, 2.0, 0.0)
    assert row.top[0] == ("car", 5 / 12)


def test_a_camera_says_which_condition_it_is_in_and_how_often_it_came_back_into_it() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=30, batches=[("blind", 8, 0.5)])
    yard.write(ago_s=20, batches=[("gate", 8, 0.5)], condition=(3, 1))
    yard.write(ago_s=10, batches=[("yard", 8, 0.5)], condition=(0, 3))
    found = status_of(yard, broker_facts(24))
    rates = {each.stream_id: (each.condition, each.returns) for each in found.cameras}
    assert rates == {"blind": (None, 0), "gate": (3, 0), "yard": (0, 2)}


def test_states_of_cameras() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=100_000, batches=[("gone", 1, 0.5)])
    yard.write(ago_s=4_000, batches=[("quiet", 1, 0.5)])
    for ago_s in (300, 290, 280):
        yard.write(ago_s=ago_s, batches=[("dead", 2, 0.5)])
    for ago_s in (2_000, 1_400, 800):
        yard.write(ago_s=ago_s, batches=[("slow", 2, 0.5)])
    yard.write(ago_s=500, batches=[("turned", 2, 0.5)], reset="jump")
    for ago_s in (40, 5):
        yard.write(ago_s=ago_s, batches=[("well", 10, 0.5), ("turned", 2, 0.5), ("broken", 2, 0.5)])
    yard.write(ago_s=4, rejected={"broken": [Reason.UNDECODABLE_IMAGE] * 5, "well": [Reason.EMPTY]})
    found = status_of(yard, broker_facts(40, committed=40))
    assert {each.stream_id: each.state for each in found.cameras} == {
        "broken": "rejected",
        "dead": "silent",  # it came every ten seconds, and has not for 280
        "quiet": "silent",
        "turned": "changed",
        "slow": "ok",  # it comes every ten minutes
        "well": "ok",
        "gone": "gone",
    }
    assert [each.stream_id for each in found.cameras][:3] == ["dead", "quiet", "broken"]  # the worst first
    assert camera(found, "quiet").age_s == pytest.approx(4_000)
    assert camera(found, "gone").images == 0
    assert camera(found, "broken").reasons == {"undecodable_image": 5}
    assert kinds(found) == ["camera_silent", "camera_silent", "camera_rejected", "rejects"]
    assert [(each.reason, each.images, each.streams) for each in found.rejects] == [
        ("undecodable_image", 5, 1),
        ("empty", 1, 1),
    ]


def test_a_camera_that_shows_what_its_shortlist_lacks_is_named_with_the_class_and_the_remedy() -> None:
    yard = Yard(DictStore())
    for ago_s in (50, 40, 30):
        yard.write(ago_s=ago_s, batches=[("lacking", 40, 0.5)], shortlist=("a", {0: 3, 1: 4}))
        yard.write(ago_s=ago_s, batches=[("right", 200, 0.5)], shortlist=("b", {0: 4, 1: 4}))
        yard.write(ago_s=ago_s, batches=[("slow", 10, 0.5)], shortlist=("c", {1: 3}))
        yard.write(ago_s=ago_s, batches=[("every class", 40, 0.5)])
    found = status_of(yard, broker_facts(870))
    rows = {each.stream_id: (each.listed, each.off_list) for each in found.cameras}
    assert rows == {
        "lacking": (120, {"bus": 12, "car": 9}),
        "right": (600, {"car": 12, "bus": 12}),
        "slow": (30, {"bus": 9}),
        "every class": (0, {}),
    }
    assert {each.stream_id: each.lacking for each in found.cameras if each.lacking} == {
        "lacking": ["12 of 120 images surely show 'bus', which is not on its shortlist"]
    }
    assert found.is_well, "it is a note, and no trouble"
    (notice,) = FleetPage(found).view().notices
    assert notice == f"lacking: {camera(found, 'lacking').lacking[0]}; {LACKING_REMEDY}"


def test_the_terminal_names_few_of_the_cameras_that_show_what_their_shortlists_lack_and_the_remedy_once() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=30, batches=[(f"gate-{n}", 40, 0.5) for n in range(6)], shortlist=("a", {1: 12}))
    found = status_of(yard, broker_facts(240))

    def shown(*, show_all: bool) -> list[str]:
        console = Console(width=200, file=io.StringIO(), record=True)
        console.print(picture(found, show_all=show_all))
        return console.export_text().splitlines()

    few, whole = shown(show_all=False), shown(show_all=True)
    assert "all is well" in few[0]
    assert [sum("surely show 'bus'" in line for line in lines) for lines in (few, whole)] == [4, 6]
    assert few[-2:] == ["and 2 more like it (--all)", f"  -> {LACKING_REMEDY}"]
    assert whole[-1] == f"  -> {LACKING_REMEDY}"


def test_images_under_an_earlier_shortlist_do_not_count() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=50, batches=[("corrected", 80, 0.5), ("freed", 80, 0.5)], shortlist=("a", {1: 70}))
    yard.write(ago_s=40, batches=[("corrected", 80, 0.5)], shortlist=("b", {}))
    yard.write(ago_s=30, batches=[("freed", 80, 0.5)])
    yard.write(ago_s=20, rejected={"corrected": [Reason.EMPTY]})
    found = status_of(yard, broker_facts(321))
    assert (camera(found, "corrected").listed, camera(found, "corrected").off_list) == (80, {})
    assert (camera(found, "freed").listed, camera(found, "freed").off_list) == (0, {})
    assert not [each for each in found.cameras if each.lacking]


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_images_of_every_batch_under_the_newest_shortlist_count_in_one_segment_and_in_several(batches: int) -> None:
    yard = Yard(DictStore())
    shortlists = [("a", {1: 20}), ("b", {0: 30}), None, ("a", {0: 1, 1: 5})]
    for n in range(0, 4, batches):
        yard.write(ago_s=50 - n, batches=[("changed", 40, 0.5)] * batches, shortlists=shortlists[n : n + batches])
    found = camera(status_of(yard, broker_facts(160)), "changed")
    assert (found.listed, found.off_list) == (80, {"bus": 25, "car": 1})


def test_a_camera_whose_partition_is_behind_is_not_called_silent() -> None:
    yard = Yard(DictStore())
    for ago_s in (1_000, 990, 980):
        yard.write(ago_s=ago_s, batches=[("north", 2, 0.5)])
    assert camera(status_of(yard, broker_facts(6)), "north").state == "silent"
    stalled = camera(status_of(yard, broker_facts(90, committed=6)), "north")
    assert (stalled.state, stalled.why) == (
        "failing",
        "84 messages of its partition wait, and the last segment is 16 min old",
    )
    yard.write(ago_s=30, batches=[("south", 2, 0.5)])
    assert camera(status_of(yard, broker_facts(90, committed=8)), "north").state == "silent", (
        "the age of what waits is not known"
    )
    behind = replace(broker_facts(90, committed=8), waiting_ms={TP: round(1e3 * (NOW_S - 900))})
    assert camera(status_of(yard, behind), "north").state == "ok"


def test_a_camera_whose_images_wait_is_silent_only_if_none_of_it_came_before_the_oldest_that_waits() -> None:
    """A worker was away for an hour, and its first segments have other cameras: what waits came up to an hour ago."""
    yard = Yard(DictStore())
    for ago_s in (3_640, 3_630, 3_620):
        yard.write(ago_s=ago_s, batches=[("north", 2, 0.5), ("dead", 2, 0.5)])
    yard.write(ago_s=1, batches=[("south", 2, 0.5)])
    root = RootReader(yard.store).read(NOW_S - 7_200)
    question = replace(QUESTION, window_s=7_200.0)

    def states(oldest_s: float) -> dict[str, str]:
        waiting = replace(broker_facts(500, committed=14), waiting_ms={TP: round(1e3 * (NOW_S - oldest_s))})
        found = fleet_status(question, root, waiting, {}, now_s=NOW_S)
        return {each.stream_id: each.state for each in found.cameras}

    assert states(3_600.0) == {"north": "ok", "dead": "ok", "south": "ok"}
    assert states(3_000.0) == {"north": "silent", "dead": "silent", "south": "ok"}
    assert states(200_000.0)["dead"] == "silent", "the clock of a producer is wrong"


def test_a_camera_that_has_left_the_window_is_as_old_as_its_own_last_image_whatever_became_of_its_neighbours() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=40_000, batches=[("dead", 2, 0.5)])
    yard.write(ago_s=5, batches=[("north", 2, 0.5)])
    root = RootReader(yard.store).read(NOW_S - 60)
    del root.chains[TP].segments[:-1]
    states = root.chains[TP].segments[0].states
    received = {name: json.loads(data)["heard"] for name, data in states.items()}
    half = {
        "heard": [received["dead"][0], received["dead"][1], received["north"][2]]
    }  # where the partition's clock stands still
    stood = {**states, "dead": json.dumps({**json.loads(states["dead"]), **half}).encode()}
    root.chains[TP].segments[0] = replace(root.chains[TP].segments[0], states=stood)
    found = fleet_status(QUESTION, root, None, {"broker": "down"}, now_s=NOW_S)
    assert camera(found, "dead").state == "silent"
    assert camera(found, "dead").age_s == pytest.approx(40_000)


def report(worker: str, **fields: object) -> bytes:
    pairs: dict[str, object] = {"pairs": {}, "partitions": {}, "loads": {}}
    return json.dumps({"layout": 1, "worker": worker, "again_s": 10.0, **pairs, **fields}).encode()


def overloaded(yard: Yard) -> BrokerFacts:
    """Messages wait in two partitions: of one the last segment is old, of the other it is new."""
    yard.write(0, ago_s=300, batches=[("north", 2, 0.5)])
    yard.write(1, ago_s=5, batches=[("south", 2, 0.5)])
    waiting = {TopicPartition("frames", number): round(1e3 * (NOW_S - 290)) for number in (0, 1)}
    return replace(broker_facts(90, 90, committed=2), waiting_ms=waiting)


@pytest.mark.parametrize("by_report", [False, True])
def test_a_store_without_room_is_said_and_nobody_is_advised_to_start_another_worker(by_report: bool) -> None:
    store = DictStore()
    yard = Yard(store)
    broker, store.now = overloaded(yard), datetime.fromtimestamp(NOW_S - 20, UTC)
    if by_report:
        full = {
            "status": "ready",
            "reasons": ["the store is full"],
            "waits_for": {"store": {"seconds": 9, "full": True}},
        }
        store.put(layout.worker_key("a"), report("host-a:41", **full))
    root = RootReader(store).read(NOW_S - 3_600, NOW_S)
    root = root if by_report else replace(root, free_bytes=3 * 2**20)
    found = fleet_status(QUESTION, root, broker, {}, now_s=NOW_S)
    assert kinds(found) == ["store_full", "stalled", "behind"]
    full_, *waiting = found.troubles
    assert ("host-a:41" in full_.what, "3.0 MiB are free" in full_.what) == (by_report, not by_report)
    assert "adawise retain" in full_.remedy
    assert {trouble.remedy for trouble in waiting} == {
        "free space (store_full), and they are served; another worker could not write either"
    }
    assert {each.stream_id: each.state for each in found.cameras} == {"north": "failing", "south": "ok"}


@pytest.mark.parametrize(("root", "asks_the_worker"), [("s3://bucket/yard", True), ("runs/yard", False)])
def test_an_object_store_that_refuses_every_write_has_no_report_so_the_worker_is_to_be_asked(
    root: str, asks_the_worker: bool
) -> None:
    yard = Yard(DictStore())
    broker, facts = overloaded(yard), RootReader(yard.store).read(NOW_S - 3_600, NOW_S)
    found = fleet_status(replace(QUESTION, root=root), facts, broker, {}, now_s=NOW_S)
    [stalled] = [trouble for trouble in found.troubles if trouble.kind == "stalled"]
    assert "retry_scheduled" in stalled.remedy
    for word in ("/readyz", "adawise_store_full", "adawise_outage_seconds"):
        assert (word in stalled.remedy) == asks_the_worker


def test_a_worker_that_waits_for_something_is_named_with_it_and_so_is_why_its_partitions_wait() -> None:
    store = DictStore()
    yard = Yard(store)
    broker, store.now = overloaded(yard), datetime.fromtimestamp(NOW_S - 20, UTC)
    why = "the broker has not answered for 2 min: no route"
    ill = {"status": "ready", "reasons": [why]}
    store.put(layout.worker_key("a"), report("host-a:41", **ill, waits_for={"broker": {"seconds": 120.0}}))
    store.put(layout.worker_key("b"), report("host-b:7", status="joining", reasons=["the group is not joined"]))
    store.put(layout.worker_key("c"), report("host-c:9"))  # of an earlier version
    store.put(layout.worker_key("d"), b"{half")
    store.now = datetime.fromtimestamp(NOW_S - 31, UTC)
    store.put(layout.worker_key("e"), report("host-e:1", **ill))  # it was killed
    root = RootReader(store).read(NOW_S - 3_600, NOW_S)
    found = fleet_status(QUESTION, root, broker, {}, now_s=NOW_S)
    assert [(each.worker, each.age_s, each.status, each.waits_for) for each in found.workers] == [
        ("host-a:41", 20.0, "ready", {"broker": 120.0}),
        ("host-b:7", 20.0, "joining", {}),
    ]
    first, second, *waiting = found.troubles
    assert (first.kind, first.where, first.what) == ("worker_waits", "host-a:41", why)
    assert first.remedy.startswith("check the broker")
    assert second.remedy.startswith("read its log")
    assert [trouble.kind for trouble in waiting] == ["stalled", "behind"]
    assert {trouble.remedy for trouble in waiting} == {
        "see what its worker waits for (worker_waits); then they are served"
    }


def test_lag_counts_what_waits_at_the_broker_and_what_waits_for_its_batch_and_not_markers_behind_the_last_message() -> (
    None
):
    yard = Yard(DictStore())
    yard.write(ago_s=5, batches=[("north", 4, 0.5)], pending=3)
    broker = broker_facts(10, committed=4)
    assert low_waters(None, broker) == {TP: (4, 10)}
    root = RootReader(yard.store).read(0.0)
    assert low_waters(root, broker) == {TP: (4, 10)}
    waiting = replace(broker, waiting_ms={TP: round(1e3 * (NOW_S - 7))})
    assert [(each.lag, each.lag_s) for each in status_of(yard, waiting).partitions] == [(6, 7.0)]
    assert [(each.lag, each.lag_s) for each in status_of(yard, broker).partitions] == [(6, None)]
    whole = Yard(DictStore())
    whole.write(ago_s=5, batches=[("north", 4, 0.5)])
    assert [(each.lag, each.lag_s) for each in status_of(whole, broker_facts(6, committed=6)).partitions] == [(0, 0.0)]


def test_a_partition_that_was_claimed_at_the_log_s_end_has_no_lag_before() -> None:
    yard = Yard(DictStore())
    yard.begin(0, origin=70)
    assert [each.lag for each in status_of(yard, broker_facts(72, committed=0)).partitions] == [2]


def test_a_message_that_came_a_moment_ago_after_a_long_pause_stalls_nothing() -> None:
    yard = Yard(DictStore())
    for ago_s in (1_800, 1_200, 600):
        yard.write(ago_s=ago_s, batches=[("slow", 2, 0.5)])
    came = {TP: round(1e3 * (NOW_S - 3))}
    assert status_of(yard, replace(broker_facts(7, committed=6), waiting_ms=came)).is_well


def test_root_or_broker_alone_say_what_they_know() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=5, batches=[("north", 4, 0.5)])
    alone = status_of(yard, None, {"broker": "it is down"})
    assert kinds(alone) == ["broker_silent"]
    assert alone.troubles[0].what == "it is down"
    assert [(m.host, m.member, list(m.partitions)) for m in alone.members] == [("host-a", "host-a:41", [0])]
    assert [(each.lag, each.log_end, each.next_offset) for each in alone.partitions] == [(None, None, 4)]
    assert camera(alone, "north").state == "ok"
    other = status_of(None, broker_facts(9, committed=4), {"root": "the disk is gone"})
    assert kinds(other) == ["root_unreadable"]
    assert [(each.lag, each.next_offset, each.committed) for each in other.partitions] == [(5, None, 4)]


def test_every_kind_of_trouble_comes_with_what_to_do_about_it() -> None:
    yard = Yard(DictStore())
    keys = [yard.write(3, ago_s=50_000 - 10_000 * n, batches=[("north", 1, 0.5)]) for n in range(4)]
    yard.write(ago_s=300, batches=[("north", 2, 0.5), ("south", 2, 0.5)], gap=Gap(4, 6))
    yard.write(
        1,
        ago_s=5,
        batches=[("gate", 1, 0.5)],
        rejected={"yard": [Reason.EMPTY], "gate": [Reason.EMPTY], None: [Reason.MISSING_STREAM_ID]},
    )
    yard.store.delete(keys[1])
    damaged = yard.write(2, ago_s=5, batches=[("north", 1, 0.5)])
    yard.store.put(damaged, b"no Parquet")
    for n in range(4):
        yard.store.put(layout.start_key(TP, str(n)), b'{"layout": 1, "until": 99}')
    broker = broker_facts(30, 30, 1, 30, members=2)
    one = GroupMember("worker-0", "adawise", "10.0.0.1", [TP, TopicPartition("frames", 1)])
    broker = replace(
        broker,
        bounds={**broker.bounds, TopicPartition("frames", 1): (8, 30), TopicPartition("frames", 3): (0, 3)},
        committed=dict.fromkeys(broker.bounds, (0, "another")),
        cluster_id="elsewhere",
        waiting_ms={tp: round(1e3 * (NOW_S - 90)) for tp in broker.bounds},
        group=Membership("Stable", [one]),
    )
    found = status_of(yard, broker)
    empty = status_of(yard, replace(broker, group=Membership("Empty", ())))
    alone = status_of(yard, None, {"broker": "down", "root": "down"})
    ill = WorkerStatus("host-a:41", 1.0, "joining", (), {}, is_store_full=False)
    full = fleet_status(QUESTION, RootFacts("id", None, False, {}, [ill], 0), None, {}, now_s=NOW_S)
    seen = {trouble.kind: trouble for each in (found, empty, alone, full) for trouble in each.troubles}
    assert set(seen) == set(KINDS)
    assert all(trouble.remedy and trouble.what for trouble in seen.values())
    for each in (found, empty):
        order = [[*KINDS].index(kind) for kind in kinds(each)]
        assert order == sorted(order)
    assert seen["messages_lost"].where == "frames/1"
    assert "4 messages were deleted" in seen["messages_lost"].what
    assert seen["stalled"].where == "frames/0"
    assert {trouble.where for trouble in found.troubles if trouble.kind == "not_assigned"} == {"frames/2", "frames/3"}
    assert seen["gap"].what == "offsets 4 to 5 have no rows: deleted"


def test_nothing_is_said_of_a_group_that_is_being_divided_anew_or_whose_broker_does_not_tell() -> None:
    yard = Yard(DictStore())
    yard.write(ago_s=5, batches=[("north", 4, 0.5)])
    broker = broker_facts(4, 0)
    nobody = GroupMember("worker-0", "", "", ())
    for state, members in (("PreparingRebalance", broker.group.members), ("Unknown", [nobody])):
        assert status_of(yard, replace(broker, group=Membership(state, members))).is_well


def test_a_window_that_many_segments_do_not_fill_says_how_far_it_reaches() -> None:
    yard = Yard(DictStore())
    for ago_s in (5_000, 600, 5):
        yard.write(ago_s=ago_s, batches=[("north", 4, 0.5)])
    assert [(each.rows, each.reads_s) for each in status_of(yard).partitions] == [(8, 3_600.0)]
    root = RootReader(yard.store).read(NOW_S - 3_600)
    del root.chains[TP].segments[:-1]  # as if there were too many
    [partition] = fleet_status(QUESTION, root, None, {}, now_s=NOW_S).partitions
    assert (partition.rows, partition.reads_s) == (4, 5.0)


def test_what_comes_and_is_served_is_told_by_partition_with_the_time_to_catch_up() -> None:
    yard = Yard(DictStore())
    for ago_s in range(590, 0, -60):
        yard.write(ago_s=ago_s, batches=[("north", 30, 0.5)])
    waiting = {TP: round(1e3 * (NOW_S - 200))}

    def rates(end: int, came: int) -> tuple[float | None, float | None, float | None]:
        broker = replace(broker_facts(end, committed=300), waiting_ms=waiting, ended={TP: end - came})
        (found,) = status_of(yard, broker).partitions
        return found.arriving_per_s, found.served_per_s, found.catch_up_s

    assert rates(420, came=60) == (0.2, 0.5, 400.0)
    assert rates(900, came=300) == (1.0, 0.5, None)
    broker = replace(broker_facts(900, committed=300), waiting_ms=waiting, ended={TP: 600})
    (trouble,) = status_of(yard, broker).troubles
    assert trouble.what == (
        "600 messages wait, the oldest for 3 min; 1.0 arrive a second, 0.5 are served: it falls further behind"
    )
    assert status_of(yard, broker_facts(300)).partitions[0].arriving_per_s is None


def test_a_root_that_does_not_answer_is_waited_for_once_before_the_status_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[str]()

    class SilentStore(DictStore):
        @override
        def get(self, key: str) -> bytes | None:
            asked.append(key)
            raise StoreUnavailable("no route to the store")

    monkeypatch.setattr(reader, "open_store", lambda _: SilentStore())
    with reader.FleetReader("s3://bucket/yard", "frames", "adawise", 3_600.0, None) as fleet:
        found = fleet.read()
    assert asked == [layout.OWNER]
    assert "no route to the store" in json.dumps(found.document())


@pytest.mark.parametrize("key", [layout.OWNER, layout.SINK])
def test_a_root_with_a_damaged_claim_does_not_end_the_status(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    store = DictStore()
    store.objects[key] = b"{garbage"
    monkeypatch.setattr(reader, "open_store", lambda _: store)
    with reader.FleetReader("runs/yard", "frames", "adawise", 3_600.0, None) as fleet:
        assert fleet.has_begun() is (key == layout.SINK)
        found = fleet.read()
    assert f"{key}: expected a claim written by this program, but it is damaged" in json.dumps(found.document())


def test_a_root_whose_document_was_lost_is_named_and_not_called_new(monkeypatch: pytest.MonkeyPatch) -> None:
    store = DictStore()
    yard = Yard(store)
    yard.write(0, ago_s=10.0, batches=[("north", 4, 0.5)])
    store.delete(layout.SINK)
    monkeypatch.setattr(reader, "open_store", lambda _: store)
    with reader.FleetReader("runs/yard", "frames", "adawise", 3_600.0, None) as fleet:
        [trouble] = fleet.read().troubles
    assert trouble.kind == "root_unreadable"
    assert f"expected {layout.SINK} beside predictions/" in trouble.what
    assert "adawise repair" in trouble.what
