"""Camera traps as cameras: order, times, labels, what is left out, and documents that are hostile."""

from __future__ import annotations

import json
import os
import random
import re
from copy import deepcopy
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.errors import SettingsError
from adawise.produce.camera_traps import TrapSite, read_site, time_of
from adawise.produce.files import Shot
from adawise.produce.produce import ROOM_BYTES, Gathering, open_site, produce
from tests.produce.test_produce import Clock, Sent
from tests.produce.traps import CATEGORIES, document, image, with_pictures, written


def site(folder: Path, content: object, *locations: str) -> TrapSite:
    path = written(folder, content)
    return read_site(path, folder / "images", locations or None)


def shots(found: TrapSite, **options: Any) -> list[Shot]:
    return list(open_site(found, max_message_bytes=ROOM_BYTES + 10_000, **options))


def test_locations_are_cameras_and_images_come_by_time_over_all_of_them(tmp_path: Path) -> None:
    images = [
        image(5, id="e", location=7),
        image(3, id="d", location="wood", seq_id="s2", frame_num=1),
        image(3, id="c", location="wood", seq_id="s1", frame_num=10, file_name="deep/b.jpg"),
        image(3, id="b", location="wood", seq_id="s1", frame_num=2, file_name="deep/a.jpg"),
        image(3, id="a", location="gate"),
    ]
    expected = [
        ("gate", "3.jpg", 3),
        ("wood", "deep/a.jpg", 3),
        ("wood", "deep/b.jpg", 3),
        ("wood", "3.jpg", 3),
        ("7", "5.jpg", 5),
    ]
    noon = time_of("2011-05-13 12:00:00")
    assert noon is not None
    for seed in range(3):
        random.Random(seed).shuffle(images)
        found = site(tmp_path, document(images, {}))
        assert [(f.stream_id, f.name, f.captured_at_us) for f in found] == [
            (camera, name, noon + minute * 60_000_000) for camera, name, minute in expected
        ]
    assert found.locations == ("7", "gate", "wood")


def test_the_label_is_the_one_category_of_an_image(tmp_path: Path) -> None:
    images = [image(n) for n in range(6)]
    categories = [*CATEGORIES, {"id": 3, "name": " fox\n".strip("\n")}]
    labels = {"i0": [1], "i1": [1, 1], "i2": [0], "i3": [1, 2], "i4": [2, 3], "elsewhere": [1]}
    found = site(tmp_path, document(images, labels, categories=categories))
    assert [file.label for file in found] == ["deer", "deer", "empty", None, "fox", None]
    assert (found.several, found.unlabelled, found.foreign, found.categories) == (1, 1, 1, 4)
    assert found.summary() == (
        "6 images of 1 camera, 4 categories, from 2011-05-13 12:00 to 2011-05-13 12:05 UTC; "
        "1 without a label, of several categories; 1 without a label, of no category; 1 annotated but not listed"
    )


def test_lists_may_come_in_any_order(tmp_path: Path) -> None:
    whole = document([image(0)], {"i0": [1]})
    found = site(tmp_path, {name: whole[name] for name in reversed(whole)})
    assert [file.label for file in found] == ["deer"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2011-05-13 23:43:18", "2011-05-13T23:43:18Z"),
        ("2011-05-13T23:43:18", "2011-05-13T23:43:18Z"),
        ("2011-05-13T23:43:18z", "2011-05-13T23:43:18Z"),
        ("2011-05-13T23:43:18+02:00", "2011-05-13T21:43:18Z"),
        ("2011-05-13 23:43:18-0530", "2011-05-14T05:13:18Z"),
        ("2011-05-13 23:43:18+02", "2011-05-13T21:43:18Z"),
        ("2012-02-29 09:52:50.0", "2012-02-29T09:52:50Z"),
        ("2012-02-29 09:52:50.1234567", "2012-02-29T09:52:50.123456Z"),
        ("2014:05:13 10:10:10", "2014-05-13T10:10:10Z"),
        (" 2014-05-13 10:10 ", "2014-05-13T10:10:00Z"),
    ],
)
def test_times_of_data_sets_are_read_without_a_zone_as_utc(text: str, same: str) -> None:
    assert time_of(text) == time_of(same) is not None


@pytest.mark.parametrize(
    "text",
    [
        *("", "0000-00-00 00:00:00", "2011-02-29 09:00:00", "2011-13-01 00:00:00", "2011-05-13 25:00:00"),
        *("2011-05-13", "5/13/2011 23:43", "1969-12-31 23:59:59", "2200-01-01 00:00:00", "unknown", "1305330198"),
        *(
            "2011-05-13 23:43:18 PM",
            "2011-05-13 23:43:18+99:00",
            "٢٠١١-05-13 23:43:18",
            "2011-05-13 23:43:18." + "1" * 90,
        ),
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert time_of(text) is None


@given(st.text(max_size=40))
def test_no_text_breaks_the_reader_of_times(text: str) -> None:
    found = time_of(text)
    assert found is None or found >= 0


def test_images_without_a_time_or_a_location_are_named_with_the_reason(tmp_path: Path) -> None:
    images = [
        image(0),
        image(1, datetime="0000-00-00 00:00:00"),
        image(2, datetime=None),
        image(3, datetime=""),
        image(4, location=None),
        image(5, location=""),
        image(6, datetime=None, date_captured="2011-05-13 12:06:00"),
        image(7, datetime="0000-00-00 00:00:00", date_captured="2011-05-13 12:07:00"),
        image(8, date_captured="2011-05-13 11:00:00"),
        image(9, file_name="6.jpg", datetime=""),
    ]
    del images[4]["location"], images[2]["datetime"]
    found = site(tmp_path, document(images, {"i1": [1]}))
    assert [file.name for file in found] == ["0.jpg", "6.jpg", "7.jpg", "8.jpg"]
    assert found.left_out == {
        "1.jpg": "its datetime is '0000-00-00 00:00:00'",
        "2.jpg": "no datetime",
        "3.jpg": "no datetime",
        "4.jpg": "no location",
        "5.jpg": "no location",
    }
    assert found.foreign == 0
    assert "; 6 left out" in found.summary(), "of the image 6.jpg only one entry has a time"


def test_whole_numbers_may_have_a_point(tmp_path: Path) -> None:
    content = document([image(0, id=1.0, frame_num=3.0), image(1, id=2, frame_num=1)], {})
    content["annotations"] = [{"image_id": 1, "category_id": 2.0}]
    assert [file.label for file in site(tmp_path, content)] == ["fox", None]


def test_a_folder_without_the_files_is_no_list_of_images(tmp_path: Path) -> None:
    found = site(tmp_path, document([image(0)], {}))
    with pytest.raises(SettingsError, match=r"No such file.*name the folder as SOURCE that each file_name"):
        list(open_site(found, max_message_bytes=ROOM_BYTES + 10_000))


def test_files_are_read_below_the_folder_and_the_missing_are_named(tmp_path: Path) -> None:
    images = [image(0, file_name="S1/0.jpg"), image(1), image(2, datetime="")]
    found = site(tmp_path, document(images, {"i0": [1]}))
    folder = with_pictures(tmp_path / "cameratraps.json", "S1/0.jpg")
    opened = open_site(found, max_message_bytes=ROOM_BYTES + 10_000)
    (shot,) = opened
    assert (shot.data, shot.label, shot.stream_id) == ((folder / "S1/0.jpg").read_bytes(), "deer", "gate")
    assert (shot.frame_id, shot.captured_at_us) == ("S1/0.jpg", time_of("2011-05-13 12:00:00"))
    assert opened.skipped == {"1.jpg": "No such file or directory", "2.jpg": "no datetime"}


def test_a_link_may_not_lead_out_of_the_folder_but_the_folder_may_be_a_link(tmp_path: Path) -> None:
    path = written(tmp_path, document([image(n) for n in range(4)], {}))
    folder = with_pictures(path, "0.jpg", "deep/real.jpg", "../secret.jpg", "../imagesofothers/3.jpg")
    (folder / "1.jpg").symlink_to("deep/real.jpg")
    (folder / "2.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "3.jpg").symlink_to(tmp_path / "imagesofothers" / "3.jpg")
    link = tmp_path / "link"
    link.symlink_to(folder)
    opened = open_site(read_site(path, link), max_message_bytes=ROOM_BYTES + 10_000)
    assert [shot.frame_id for shot in opened] == ["0.jpg", "1.jpg"]
    assert opened.skipped == dict.fromkeys(["2.jpg", "3.jpg"], "a link in its path leads out of the folder")


def test_paths_that_no_file_system_has_are_named_and_end_nothing(tmp_path: Path) -> None:
    names = ["n" * 300, ".", "deep", "loop", "pipe", "0.jpg/1.jpg", "ä\u2028.jpg"]
    images = [image(n, file_name=name) for n, name in enumerate(names)] + [image(9)]
    path = written(tmp_path, document(images, {}))
    folder = with_pictures(path, "9.jpg", "0.jpg", "deep/1.jpg")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    opened = open_site(read_site(path, folder), max_message_bytes=ROOM_BYTES + 10_000)
    assert [shot.frame_id for shot in opened] == ["9.jpg"]
    assert opened.skipped.keys() == set(names)


def test_only_the_locations_that_are_wanted_are_sent(tmp_path: Path) -> None:
    images = [image(0), image(1, location=12), image(2, location="wood"), image(3, location=" bad")]
    found = site(tmp_path, document(images, {}), "gate", "12")
    assert [file.stream_id for file in found] == ["gate", "12"]
    with pytest.raises(SettingsError, match=r"has no location 'woods'.*such as wood"):
        site(tmp_path, document(images, {}), "gate", "woods")


def test_without_an_image_that_can_be_sent_the_reasons_are_named(tmp_path: Path) -> None:
    found = site(tmp_path, document([image(0, datetime="never"), image(1)], {}))
    with pytest.raises(SettingsError, match=r"got 1 files.*0.jpg: its datetime is 'never'; 1.jpg: No such file"):
        shots(found)


HOSTILE: dict[str, tuple[object, str]] = {
    "no object": ([], "expected an object, got a list"),
    "no images": (document([], {}), "it lists no images"),
    "truncated": (json.dumps(document([image(0)], {})).encode()[:-20], "premature EOF, after entry 1 of images"),
    "not json": (b"id,file_name\n", "invalid char in json text"),
    "an entry that is none": (document([image(0), []], {}), "entry 2 of images: expected an object"),  # type: ignore[list-item]
    "no id": ({"images": [{"file_name": "a"}]}, "entry 1 of images, id: it is not there"),
    "no name": ({"images": [{"id": 1}]}, "entry 1 of images, file_name: it is not there"),
    "an id twice": (document([image(0), image(0)], {}), "entry 2 of images: the id 'i0' is there twice"),
    "an id that is true": (document([image(0, id=True)], {}), "images, id: expected text of one line or a whole"),
    "an id that is large": (document([image(0, id=1 << 63)], {}), "integer overflow"),
    "an id that is a list": (document([image(0, id=["a"])], {}), "images, id: expected text"),
    "a location that is no number": (document([image(0, location=1.5)], {}), "images, location: expected text"),
    "not a number": (document([image(0, location=float("nan"))], {}), "invalid char in json text"),
    "a name over two lines": (document([image(0, file_name="a\nb")], {}), "file_name: expected text of one line"),
    "a name with a null": (document([image(0, file_name="a\0b")], {}), "file_name: expected text of one line"),
    "a name that is long": (document([image(0, file_name="a" * 5_000)], {}), "file_name: string should have at most"),
    "a time that is a number": (document([image(0, datetime=1305330198)], {}), "datetime: input should be a valid"),
    "a path from the root": (document([image(0, file_name="/etc/passwd")], {}), "leaves the folder of the images"),
    "a path to above": (document([image(0, file_name="a/../../b")], {}), "'a/../../b' leaves the folder"),
    "a category twice": (document([image(0)], {}, categories=[CATEGORIES[0]] * 2), "the id 0 is there twice"),
    "a category without a name": (
        document([image(0)], {}, categories=[{"id": 1, "name": "  "}]),
        "entry 1 of categories, name: string should have at least 1",
    ),
    "a category of a long name": (
        document([image(0)], {}, categories=[{"id": 1, "name": "ä" * 513}]),
        "entry 1 of categories: a name has at most 1,024 bytes",
    ),
    "an unknown category": (document([image(0)], {"i0": [9]}), "the category_id 9, which no category has"),
    "an annotation of nothing": (document([image(0)], {}, annotations=[{"id": 1}]), "annotations, image_id: it is not"),
    "a location with spaces": (document([image(0, location=" a")], {}), "location ' a' cannot be the name of a camera"),
    "a location that is long": (document([image(0, location="l" * 250)], {}), "Rename it in the document"),
    "a location of two types": (
        document([image(0, location=1), image(1, location="1")], {}),
        "entry 2 of images: the location '1' is there as a number and as text",
    ),
    "nested": (b'{"info": ' + b"[" * 99_999, "more than 64 levels are nested"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_document_is_refused_in_one_sentence_with_place_and_remedy(kind: str, tmp_path: Path) -> None:
    content, why = HOSTILE[kind]
    with pytest.raises(SettingsError, match=re.escape(why)) as raised:
        site(tmp_path, content)
    assert str(raised.value).startswith(str(tmp_path / "cameratraps.json"))
    assert raised.value.cause_and_remedy[1]
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


ANY: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just([]) | st.just({"a": []})
)


@given(st.data())
def test_no_value_of_any_field_breaks_the_reader(data: st.DataObject) -> None:
    images = [image(0), image(1, location=3, seq_id="s", frame_num=1)]
    content: Any = deepcopy(document(images, {"i0": [1], "i1": [0]}))
    for _ in range(data.draw(st.integers(1, 3))):
        entries = content[data.draw(st.sampled_from(["images", "annotations", "categories"]))]
        entry = entries[data.draw(st.integers(0, len(entries) - 1))]
        entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(ANY)
    with TemporaryDirectory() as folder:
        try:
            found = site(Path(folder), content)
        except SettingsError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return
        assert len(list(found)) + len(found.left_out) <= 2
        assert all(file.captured_at_us is not None and file.stream_id for file in found)


def test_an_image_of_many_categories_costs_no_more_than_another(tmp_path: Path) -> None:
    categories = [{"id": n, "name": "fox" if n < 20 else f"kind {n}"} for n in range(2_000)]
    found = site(tmp_path, document([image(0)], {"i0": range(2_000)}, categories=categories))
    assert [(file.label, found.several) for file in found] == [(None, 1)]


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_memory_is_bounded_by_the_number_of_entries(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = document([image(n) for n in range(4)], {f"i{n}": [1] for n in range(4)})
    many["categories"] = [{"id": n, "name": f"kind {n}"} for n in range(4)]
    monkeypatch.setattr("adawise.produce.camera_traps.MOST_ENTRIES", 4)
    assert len(site(tmp_path, many)) == 4
    monkeypatch.setattr("adawise.produce.camera_traps.MOST_ENTRIES", 3)
    with pytest.raises(SettingsError, match=rf"entry 4 of {name}: at most 3 entries can be read"):
        site(tmp_path, {name: many[name]})


def test_a_document_or_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, document([image(0)], {}))
    for missing, folder, why in (
        (tmp_path / "none.json", tmp_path, r"could not read .*none.json: No such file.*Correct the path"),
        (tmp_path, tmp_path, r"could not read .*: Is a directory"),
        (path, path, r"SOURCE is no folder. Name the folder of the images of .*cameratraps.json"),
    ):
        with pytest.raises(SettingsError, match=why):
            read_site(missing, folder)


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, b"{")
    os.truncate(path, (1 << 33) + 1)  # a file with a hole: it takes no space
    with pytest.raises(SettingsError, match=r"it has 8,589,934,593 bytes, and at most 8,589,934,592 are read"):
        read_site(path, tmp_path)


@pytest.mark.parametrize(("speed", "sent_at"), [(60.0, [0.0, 1.0, 4.0]), (None, [0.0, 0.0, 0.0])])
def test_a_site_is_sent_at_a_multiple_of_its_own_pace(
    speed: float | None, sent_at: list[float], tmp_path: Path
) -> None:
    path = written(tmp_path, document([image(n) for n in (0, 1, 2, 5)], {}))
    with_pictures(path, "1.jpg", "2.jpg", "5.jpg")
    clock, times = Clock(), []

    class Timed(Sent):
        def send(self, parcel: Any) -> None:
            super().send(parcel)
            times.append(clock.now - 1_000.0)

    sent = Timed()
    opened = open_site(read_site(path, tmp_path / "images"), max_message_bytes=ROOM_BYTES + 10_000)
    gather = Gathering(batch=1, max_message_bytes=ROOM_BYTES + 10_000, max_held_bytes=10**6)
    produce(opened, sent, streams=["unused"], gathering=gather, speed=speed, stop=clock, clock=clock)
    assert times == sent_at
    noon = time_of("2011-05-13 12:00:00") or 0
    assert [p.captured_at_us[0] - noon for p in sent.parcels] == [60_000_000 * n for n in (1, 2, 5)]
    assert {p.stream_id for p in sent.parcels} == {"gate"}


def test_a_loop_has_the_same_times_again_and_goes_on_at_the_same_pace(tmp_path: Path) -> None:
    path = written(tmp_path, document([image(n) for n in (1, 2)], {}))
    with_pictures(path, "1.jpg", "2.jpg")
    opened = open_site(read_site(path, tmp_path / "images"), max_message_bytes=ROOM_BYTES + 10_000, loop=True)
    found = list(islice(opened, 5))
    assert [shot.at_s for shot in found] == [0.0, 60.0, 61.0, 121.0, 122.0]
    first, second = found[0].captured_at_us, found[1].captured_at_us
    assert [shot.captured_at_us for shot in found] == [first, second, first, second, first]
