from __future__ import annotations

import json
import random

import pytest
import torch

from adawise.adapt.state import StreamState
from adawise.errors import ChainError
from adawise.records import ImageBatch
from adawise.worker.stream_table import StreamTable
from tests.frames import a_frame

LIMIT = 64  # of which 56 are safe


def table(limit: int = LIMIT, stored: bytes = b"") -> StreamTable:
    return StreamTable(limit, stored, {})


def a_batch(offset: int, stream: str) -> ImageBatch:
    return ImageBatch(stream, (a_frame(offset, stream),), torch.empty(0))


def streams(subject: StreamTable) -> set[str]:
    return set(json.loads(subject.stored(()))["heard"])


def test_as_many_streams_as_there_are_places_stay_and_none_begins_anew() -> None:
    subject = table()
    for offset in range(LIMIT):
        subject.receive(f"cam-{offset}", offset)
        assert not subject.begins_anew(a_batch(offset, f"cam-{offset}"))
    assert streams(subject) == {f"cam-{n}" for n in range(LIMIT)}
    assert subject.evicted == 0


@pytest.mark.parametrize("times", [1, 5])
def test_a_flood_of_names_takes_no_place_of_a_camera_that_was_heard_more_often(times: int) -> None:
    subject, offset = table(), 0
    cameras = [f"cam-{n}" for n in range(56)]
    for _ in range(times + 1):
        for camera in cameras:
            subject.receive(camera, offset := offset + 1)
    for name in range(5_000):
        for _ in range(times):
            subject.receive(f"flood-{name}", offset := offset + 1)
    assert set(cameras) <= streams(subject)
    assert len(streams(subject)) == LIMIT


def test_of_those_heard_least_the_one_that_was_heard_longest_ago_leaves() -> None:
    subject = table(limit=8)  # one place is contested
    for offset, stream in enumerate([*"aabbccddeeffgg", "new", "newer"]):
        subject.receive(stream, offset)
    assert streams(subject) == {*"abcdefg", "newer"}
    subject.receive("newest", 16)
    assert streams(subject) == {*"abcdefg", "newest"}


def test_new_cameras_come_in_among_strangers_and_in_the_end_to_safe_places() -> None:
    subject, draw, offset = table(), random.Random(1), 0
    for name in range(56):  # strangers were first, and were heard ten times each
        for _ in range(10):
            subject.receive(f"stranger-{name}", offset := offset + 1)
    for _ in range(400):  # four cameras, and a new name for each image of theirs
        camera = draw.choice(["cam-0", "cam-1", "cam-2", "cam-3"])
        subject.receive(camera, offset := offset + 1)
        subject.receive(f"flood-{offset}", offset := offset + 1)
    subject.served(a_batch(offset, "flood"))
    for name in range(100):
        subject.receive(f"more-{name}", offset := offset + 1)
    assert {"cam-0", "cam-1", "cam-2", "cam-3"} <= streams(subject)


def test_who_comes_when_all_places_are_taken_begins_anew_once() -> None:
    subject = table(limit=8)
    for offset, stream in enumerate("abcdefgh"):
        subject.receive(stream, offset)
    subject.receive("new", 8)
    subject.receive("new", 9)
    assert subject.begins_anew(a_batch(8, "new"))
    assert not subject.begins_anew(a_batch(8, "another"))  # of the same message
    subject.served(a_batch(8, "new"))
    assert not subject.begins_anew(a_batch(9, "new"))
    assert subject.evicted == 1


def test_what_is_stored_goes_on_as_it_was() -> None:
    draw, one, other = random.Random(3), table(limit=8), table(limit=8)
    pending: list[tuple[int, str]] = []
    for offset in range(2_000):
        stream = f"s{min(draw.randrange(30), draw.randrange(30))}"
        one.receive(stream, offset)
        other.receive(stream, offset)
        pending = [*pending[-5:], (offset, stream)]
        other = table(limit=8, stored=other.stored([stream for _, stream in pending]))
        assert [one.begins_anew(a_batch(*place)) for place in pending] == [
            other.begins_anew(a_batch(*place)) for place in pending
        ]
    assert streams(one) == streams(other)


def test_who_has_left_and_has_nothing_to_be_served_is_not_remembered() -> None:
    subject = table(limit=8)
    for offset in range(100):
        subject.receive(str(offset), offset)
    assert json.loads(subject.stored(["50"]))["entered"].keys() == {"50", *streams(subject)} - {
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
    }


def test_a_stream_whose_first_messages_are_rejected_begins_anew_with_the_first_that_is_not() -> None:
    subject = table(limit=8)
    for offset, stream in enumerate("abcdefgh"):
        subject.receive(stream, offset)
    for offset in (8, 9, 10):
        subject.receive("new", offset)
    subject = table(limit=8, stored=subject.stored(()))
    assert not subject.begins_anew(a_batch(7, "new"))  # of before it left, and served late
    assert subject.begins_anew(a_batch(10, "new"))


def test_a_batch_counts_what_was_rejected_up_to_its_last_image_whatever_was_decoded_before_it_was_served() -> None:
    subject = table()
    for offset in range(8):
        subject.receive("cam", offset)
    for offset in (0, 1, 4, 4, 6):
        subject.reject("cam", offset)
        if offset in (1, 4):
            subject.accept("cam", 3 if offset == 1 else offset)
    subject = table(stored=subject.stored(["cam"]))
    subject.reject("cam", 7)
    assert [subject.served(a_batch(last, "cam")) for last in (3, 4)] == [2, 2]
    subject = table(stored=subject.stored(()))
    assert subject.served(a_batch(8, "cam")) == 2
    assert subject.served(a_batch(9, "cam")) == 0


def test_a_camera_of_which_nothing_can_be_read_takes_no_more_room_with_every_image() -> None:
    subject, sizes = table(), list[int]()
    for offset in range(3_000):
        subject.receive("cam", offset)
        subject.reject("cam", offset)
        if offset % 1_000 == 999:
            subject = table(stored=subject.stored(()))
            sizes.append(len(subject.stored(())))
    assert max(sizes) - min(sizes) < 8
    assert subject.served(a_batch(3_000, "cam")) == 3_000


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_stream_that_takes_its_place_anew_counts_from_there(is_stored: bool) -> None:
    subject = table(limit=8)
    for offset, stream in enumerate(["cam", *"abcdefgh", "cam"]):
        subject.receive(stream, offset)
        if stream == "cam":
            subject.reject("cam", offset)
        if is_stored:
            subject = table(limit=8, stored=subject.stored(()))
    assert subject.served(a_batch(10, "cam")) == 1


def test_what_an_earlier_version_passed_over_is_not_known_until_the_streams_next_batch() -> None:
    older = table()
    for stream in ("cam", "other"):
        older.receive(stream, 1)
    parts = json.loads(older.stored(()))
    del parts["rejected"]
    for subject in (
        table(stored=json.dumps(parts).encode()),
        StreamTable(8, b"", {"cam": StreamState("k", 3).to_bytes()}),
    ):
        subject.reject("cam", 2)
        subject = table(stored=subject.stored(["cam"]))
        assert subject.served(a_batch(3, "cam")) is None
        subject.reject("cam", 4)
        assert subject.served(a_batch(5, "cam")) == 1
    assert table().served(a_batch(3, "new")) == 0


def test_without_a_table_batches_say_how_often_a_stream_was_heard_and_too_many_leave() -> None:
    states = {f"cam-{n}": StreamState("key", 3, batches=n).to_bytes() for n in range(20)}
    subject = StreamTable(8, b"", states)
    assert streams(subject) >= {f"cam-{n}" for n in range(13, 20)}
    assert len(streams(subject)) == 8


def test_a_state_that_is_none_is_damage() -> None:
    with pytest.raises(ChainError, match="not readable"):
        StreamTable(8, b"", {"north": b"nothing"})


def test_a_stream_that_another_worker_serves_takes_a_place_as_any_other_and_waits_for_no_batch() -> None:
    whole, share = table(8), table(8)
    rng = random.Random(0)
    for offset in range(400):
        name = f"cam-{rng.randrange(30)}"
        whole.receive(name, offset)
        share.receive(name, offset, is_served=name == "cam-0")
    stored = [json.loads(each.stored(())) for each in (whole, share)]
    assert stored[0]["heard"] == stored[1]["heard"]
    assert whole.evicted == share.evicted > 100
    assert {*stored[1]["entered"]} <= {"cam-0"} < {*stored[0]["entered"]} | {"cam-0"}
    batch = a_batch(400, "cam-0")
    assert whole.begins_anew(batch) == share.begins_anew(batch)
