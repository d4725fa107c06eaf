"""Labelled images of folders, tables and recordings, what is refused, and what is held out."""

from __future__ import annotations

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.errors import SettingsError, SourceError
from adawise.labels.folders.samples import Samples, Taken, contents_digest, split
from tests.damage.hostile_parquet import little_memory, more_rows_than_there_are
from tests.lab.finetune.shapes import CLASSES, png, write_parquet, write_shapes
from tests.labels.folders.places import Shot, write_recording, write_singles
from tests.labels.folders.reading import read


def refusal(path: Path, classes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        read(path, classes)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_folder_has_the_names_of_its_subfolders_as_labels(shapes: Path) -> None:
    samples = read(shapes)
    assert samples.classes == CLASSES
    assert len(samples) == 36
    number = samples.names.index("red disc/003.png")
    assert samples.labels[number] == "red disc"
    assert samples.read(number) == (shapes / "red disc" / "003.png").read_bytes()


def test_files_that_are_no_images_and_folders_without_one_are_named(tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "images", 2)
    for name in ("red disc/a.TIFF", "red disc/deep/b.heic", "blue bar/README", ".hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "zebra").mkdir()
    (folder / "elk").mkdir()
    (folder / "elk" / "photo.gif").touch()
    samples = read(folder)
    assert len(samples) == 6
    assert samples.empty == ("elk", "zebra")
    assert dict(samples.passed_over) == {
        "blue bar/README": "no suffix: not JPEG, PNG, WebP or BMP",
        "elk/photo.gif": ".gif: not JPEG, PNG, WebP or BMP",
        "red disc/a.TIFF": ".tiff: not JPEG, PNG, WebP or BMP",
        "red disc/deep/b.heic": ".heic: not JPEG, PNG, WebP or BMP",
    }


def test_the_parts_of_a_data_set_are_not_taken_for_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_shapes(tmp_path / "data" / part, 1)
    found = refusal(tmp_path / "data")
    assert "its subfolders, train, val, are parts of a data set, not classes" in found
    assert f"Name one, such as --labelled {tmp_path}/data/train." in found


def test_a_table_of_paths_without_bytes_is_refused_with_how_to_embed_them(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "a.jpg"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    fields = refusal(write_parquet(tmp_path / "a.parquet", {"image": images, "label": ["cat"]}))
    assert "no row of the column image has bytes, only paths of files. Embed them" in fields


def test_a_table_with_text_labels_is_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"1", b"22"], "label": ["dog", "cat"]})
    samples = read(path)
    assert samples.classes == ("cat", "dog")
    assert [(samples.names[i], samples.labels[i], samples.read(i)) for i in range(2)] == [
        ("row 1", "cat", b"22"),
        ("row 0", "dog", b"1"),
    ]


@pytest.mark.parametrize(
    ("metadata", "classes"),
    [
        ({"class_names": json.dumps(["dog", "cat"])}, None),
        ({"huggingface": json.dumps({"info": {"features": {"label": {"names": ["dog", "cat"]}}}})}, None),
        (None, ("dog", "cat")),
        ({"class_names": "not json"}, ("dog", "cat")),
    ],
)
def test_labels_that_are_numbers_get_names(
    tmp_path: Path, metadata: dict[str, str] | None, classes: tuple[str, ...] | None
) -> None:
    columns: dict[str, object] = {"image": [b"1", b"2", b"3"], "label": pa.array([1, 0, 1], pa.int16())}
    samples = read(write_parquet(tmp_path / "a.parquet", columns, metadata), classes)
    assert samples.labels == ["dog", "cat", "cat"]
    assert samples.classes == ("dog", "cat")


def test_images_in_a_struct_are_found(tmp_path: Path) -> None:
    images = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    samples = read(write_parquet(tmp_path / "a.parquet", {"image": images, "label": ["x", "y"]}))
    assert [samples.read(i) for i in range(2)] == [b"1", b""]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_files_and_streams_are_read(tmp_path: Path, kind: str) -> None:
    table = pa.table({"image": pa.array([b"1"], pa.large_binary()), "label": ["x"]})
    path = tmp_path / "a.arrow"
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table)
    assert read(path).read(0) == b"1"


@pytest.mark.parametrize(
    ("columns", "output"),
    [
        ({"picture": [b"1"], "label": ["x"]}, "there is no column 'image' among picture, label"),
        ({"image": [b"1"]}, "there is no column 'label'"),
        ({"image": ["1"], "label": ["x"]}, "expected encoded images (binary) in the column image, got string"),
        ({"image": [b"1", b"2"], "label": ["x", None]}, "row 1 has no label"),
        ({"image": [b"1"], "label": [1.5]}, "expected text or whole numbers"),
        ({"image": [b"1"], "label": [3]}, "the labels are numbers without names"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.string())}, "found no image"),
        ({"image": [b"1"], "label": [" x"]}, "without spaces around them, got ' x'"),
        ({"image": [b"1"], "label": ["x\ny"]}, "of one line"),
        ({"image": [b"1"], "label": [""]}, "got ''"),
    ],
)
def test_a_table_that_does_not_do_is_refused(tmp_path: Path, columns: dict[str, object], output: str) -> None:
    assert output in refusal(write_parquet(tmp_path / "a.parquet", columns))


def test_a_number_beyond_the_class_names_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"1", b"2"], "label": [0, 2]})
    assert "row 1 has label 2, expected 0 to 1" in refusal(path, ("x", "y"))


def test_a_table_that_states_too_many_rows_is_refused_before_memory_is_taken_for_them(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"1"] * 5, "label": ["x"] * 5})
    more_rows_than_there_are(path)
    with little_memory():
        assert "can be read (its footer states 268,435,456 rows" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"ARROW1\0\0junk", b"\xff" * 64])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert "not a Parquet or Arrow file that can be read" in refusal(path)


def test_labels_that_are_no_class_are_named(shapes: Path) -> None:
    message = refusal(shapes, ("red disc", "cat"))
    assert "the labels 'blue bar', 'green square' are not among the 2 class names of model.classes" in message


def test_images_without_a_subfolder_have_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("red disc"))
    assert "1 images have no label, such as a.png" in refusal(tmp_path)


def test_a_folder_without_images_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    assert "found no image" in refusal(tmp_path)
    assert "there is no such folder or file" in refusal(tmp_path / "nowhere")


def samples_of(labels: list[str]) -> Samples:
    return Samples("here", [str(i) for i in range(len(labels))], labels, (), lambda i: b"", "0")


def test_the_same_share_of_each_class_is_held_out() -> None:
    samples = samples_of(["a"] * 40 + ["b"] * 10 + ["c"] * 2)
    train, held_out = split(samples, 0.2, 0)
    assert sorted(train + held_out) == list(range(52))
    counts = [[samples.labels[i] for i in held_out].count(name) for name in "abc"]
    assert counts == [8, 2, 1]
    assert split(samples, 0.2, 0) == (train, held_out)
    assert split(samples, 0.2, 1) != (train, held_out)


def test_a_class_always_keeps_an_image_to_train_on() -> None:
    train, held_out = split(samples_of(["a", "a", "b", "b"]), 0.9, 0)
    assert (len(train), len(held_out)) == (2, 2)


def test_a_class_with_one_image_cannot_be_split() -> None:
    with pytest.raises(SettingsError, match=r"here: the class 'b' has one image, .* or give --validation"):
        split(samples_of(["a", "a", "b"]), 0.5, 0)


def test_a_part_of_samples_is_samples_of_its_own(shapes: Path) -> None:
    whole = read(shapes)
    broken = replace(whole, left_out={3: "broken"}, taken=[Taken("cam", i) for i in range(len(whole))], unlabelled=2)
    part = broken.part([5, 3, 0])
    assert part.names == [whole.names[i] for i in (5, 3, 0)]
    assert [part.read(n) for n in range(3)] == [whole.read(i) for i in (5, 3, 0)]
    assert part.usable == [0, 2]
    assert part.left_out == {1: "broken"}
    assert part.classes == (whole.labels[0],)
    assert part.taken == [Taken("cam", 5), Taken("cam", 3), Taken("cam", 0)]
    assert (part.unlabelled, part.captured_us) == (0, None)
    digests = {samples.digest for samples in (broken, part, broken.part([3, 5, 0]), broken.part([5, 3]))}
    assert len(digests) == 4
    assert part.digest == broken.part([5, 3, 0]).digest


def test_images_of_a_recording_have_their_camera_and_time_and_others_have_not(shapes: Path, tmp_path: Path) -> None:
    shots = [Shot(name, png(name)) for name in CLASSES] * 2
    write_recording(tmp_path / "recorded", shots)
    assert read(tmp_path / "recorded").taken == [Taken("cam", -1)] * 6
    assert read(shapes).taken is None


def test_the_digest_changes_with_the_images(shapes: Path, tmp_path: Path) -> None:
    first = write_parquet(tmp_path / "a.parquet", {"image": [b"1", b"2"], "label": ["x", "y"]})
    second = write_parquet(tmp_path / "b.parquet", {"image": [b"1", b"22"], "label": ["x", "y"]})
    digests = {read(path).digest for path in (shapes, first, second)}
    assert len(digests) == 3
    assert read(first).digest in digests


def test_images_beside_the_subfolders_are_counted_and_no_more(tmp_path: Path) -> None:
    write_shapes(tmp_path / "images", 2)
    (tmp_path / "images" / "sheet.png").write_bytes(png("red disc"))
    samples = read(tmp_path / "images")
    assert (len(samples), samples.unlabelled) == (6, 1)
    assert "sheet.png" not in samples.names


def test_a_class_may_be_a_link_to_a_folder_and_nothing_below_it(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "dot").symlink_to(shapes / "red disc")
    (tmp_path / "bar").mkdir()
    (tmp_path / "bar" / "more").symlink_to(shapes / "blue bar")
    (tmp_path / "bar" / "0.png").write_bytes(png("blue bar"))
    assert read(tmp_path).names == ["bar/0.png", *(f"dot/{number:03}.png" for number in range(12))]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_file_with_class_names_of_its_own_may_keep_them(tmp_path: Path, kind: str) -> None:
    table = pa.table({"image": [b"1", b"2"], "label": ["tram", "boat"]})
    table = table.replace_schema_metadata({"class_names": json.dumps(["tram", "boat", "kite"])})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    samples = read(path, ("car", "bus"), own_classes=True)
    assert (samples.classes, samples.declared) == (("tram", "boat"), ("tram", "boat", "kite"))
    assert "are not among the 2 class names" in refusal(path, ("car", "bus"))


def test_a_label_that_a_file_does_not_declare_is_refused_by_what_the_file_declares(tmp_path: Path) -> None:
    table = pa.table({"image": [png(CLASSES[0], 0)], "label": ["zeppelin"]})
    pq.write_table(
        table.replace_schema_metadata({"class_names": json.dumps(["car", "bus"])}), tmp_path / "declared.parquet"
    )
    for classes in (None, ("tram", "boat", "kite")):
        with pytest.raises(SettingsError) as refused:
            read(tmp_path / "declared.parquet", classes, own_classes=True)
        assert "'zeppelin' are not among the 2 class names that the file declares" in str(refused.value)
        assert "model.classes" not in str(refused.value)


SHOTS = [Shot(name, png(name, seed)) for seed, name in enumerate((*CLASSES[::-1], *CLASSES) * 3)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SHOTS as single images and as a batch, and one image without a label."""
    path = tmp_path_factory.mktemp("recording")
    write_recording(path, SHOTS)
    return path


def test_a_recording_has_the_labels_of_its_messages_in_the_order_of_their_offsets(recording: Path) -> None:
    samples = read(recording)
    assert samples.classes == CLASSES
    assert samples.labels == [shot.label for shot in SHOTS]
    assert samples.names[:3] == ["frames/0/0/0", "frames/0/1/0", "frames/0/2/0"]
    assert (samples.names[-1], samples.unlabelled, samples.left_out) == ("frames/0/2/15", 1, {})


def test_images_of_a_recording_are_read_in_any_order_by_many_threads(recording: Path) -> None:
    samples = read(recording)
    order = random.Random(0).sample(range(len(samples)), len(samples))
    with ThreadPoolExecutor(4) as pool:
        for i, data in zip(order, pool.map(samples.read, order), strict=True):
            assert data == SHOTS[i].png
    backwards = [samples.read(i) for i in reversed(range(len(samples)))]
    assert backwards == [shot.png for shot in reversed(SHOTS)]


def test_messages_that_lie_far_apart_are_sought(tmp_path: Path) -> None:
    label = ("label", b"x")
    write_singles(tmp_path, [(png("red disc", n), (label,) if n in (0, 5, 90, 99) else ()) for n in range(100)])
    samples = read(tmp_path)
    assert samples.names == [f"frames/0/{offset}/0" for offset in (0, 5, 90, 99)]
    for i, seed in ((0, 0), (2, 90), (1, 5), (3, 99), (0, 0)):
        assert samples.read(i) == png("red disc", seed)


def test_what_a_recording_has_that_is_of_no_use_is_left_out_and_told(tmp_path: Path) -> None:
    good = png("red disc")
    images = [
        (good, (("label", b"red disc"),)),
        (good, (("label", b"zeppelin"),)),
        (b"junk", (("label", b"red disc"),)),
        (good, (("label", b"red disc"), ("stream-id", b"another"))),
        (good, (("label", b" red disc"),)),
        (good, ()),
    ]
    write_singles(tmp_path, images)
    samples = read(tmp_path, CLASSES)
    assert (samples.usable, samples.classes, samples.unlabelled) == ([0], ("red disc",), 1)
    assert [samples.left_out[i].partition(":")[0] for i in (1, 2, 3)] == [
        "its label 'zeppelin' is not among the class names of model.classes",
        "unsupported_format",
        "stream_id_mismatch",
    ]
    anything = read(tmp_path)
    assert (anything.usable, anything.classes) == ([0, 1], ("red disc", "zeppelin"))
    assert "of one line" in anything.left_out[4]
    with pytest.raises(SettingsError, match="the class 'red disc' has one image"):
        split(anything, 0.5, 0)


def test_the_digest_of_the_contents_is_of_every_byte_and_each_file_is_read_once(tmp_path: Path) -> None:
    write_shapes(tmp_path / "images", 2)
    samples = read(tmp_path / "images")
    reads: list[int] = []
    rows = [*range(len(samples))]

    def counted(i: int) -> bytes:
        reads.append(i)
        return samples.read(i)

    before = contents_digest(replace(samples, read=counted), rows)
    assert sorted(reads) == rows
    assert contents_digest(samples, rows[::-1]) != before
    file = tmp_path / "images" / samples.names[0]
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    again = read(tmp_path / "images")
    assert again.digest == samples.digest, "names, labels and sizes are as they were"
    assert contents_digest(again, rows) != before
    file.unlink()
    assert contents_digest(again, rows) != before, "what cannot be read is said of by whoever decodes it"


def test_a_recording_of_which_nothing_can_be_used_is_refused(recording: Path, tmp_path: Path) -> None:
    assert "none of the 18 labelled images of this recording can be used" in refusal(recording, ("cat", "dog"))
    write_recording(tmp_path, SHOTS, labelled=False)
    assert "none of the 19 images of this recording has a label" in refusal(tmp_path)


def test_a_message_that_is_gone_since_it_was_listed_ends_it(recording: Path, tmp_path: Path) -> None:
    samples = read(Path(shutil.copytree(recording, tmp_path / "copy")))
    for file in (tmp_path / "copy").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(SourceError, match="Start again"):
        samples.read(0)


def test_digests_are_those_that_earlier_runs_of_finetune_kept(tmp_path: Path) -> None:
    images, labels = [b"1", b"22", b"333"], ["dog", "cat", "cat"]
    assert read(write_parquet(tmp_path / "a.parquet", {"image": images, "label": labels})).digest == "c4a04cc34821591d"
    for name, data in zip(("dog/a.png", "cat/b.png", "cat park/c.png"), images, strict=True):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(data)
    samples = read(tmp_path / "images")
    assert (samples.digest, samples.classes) == ("91fc0970b140cd25", ("cat park", "cat", "dog"))
