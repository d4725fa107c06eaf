"""What `adawise shortlists` prints is TOML that the settings take, and each table is of its camera alone."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from adawise.__main__ import main
from adawise.app.parts import shortlists
from adawise.labels import proposal
from adawise.settings import read, scene
from adawise.settings.scene import SceneSettings, ShortlistSettings
from tests.drift.answers import labels_csv, write
from tests.labels.test_proposal import OTHER, SURE, UNSURE, rows, traces
from tests.replay.cameras import run, write_recording
from tests.store.clouds import new_bucket, open_s3, s3_server

pytestmark = pytest.mark.usefixtures("logs_of_this_process")

Captured = pytest.CaptureFixture[str]
FIXTURES = Path(__file__).parents[1] / "fixtures"
BATCHES = 64
IMAGES = BATCHES * 16
STRANGE = ["hall[2]", "hall*", "hall?", 'say "hall"', "c:\\hall", " hall ", "héll ☃", "[!a]", "]["]
NAMELESS = ["two\nlines", "tab\there", "right\u202eleft", "null\x00"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def yard(root: Path, *streams: str, listed: Sequence[int] = (), **columns: Any) -> Path:
    """A root of these cameras, each of which shows two classes, and a third one a little."""
    top = [SURE] * (IMAGES - 2) + [UNSURE] * 2
    made = [rows(number, stream, top, **columns) for number, stream in enumerate(streams)]
    known = [traces(number, stream, BATCHES, listed) for number, stream in enumerate(streams)]
    return write(root, pa.concat_tables(made), pa.concat_tables(known))


def printed(capsys: Captured, *words: object) -> str:
    capsys.readouterr()
    assert main(["shortlists", *map(str, words)]) == 0
    return capsys.readouterr().out


def tables(text: str) -> tuple[ShortlistSettings, ...]:
    """The shortlists, as the settings read them from a file with this text."""
    return SceneSettings.model_validate(tomllib.loads(text).get("scene", {})).shortlists


def test_a_table_says_what_it_was_proposed_from_and_a_worker_starts_with_it(tmp_path: Path, capsys: Captured) -> None:
    text = printed(capsys, yard(tmp_path / "yard", "gate"))
    assert (
        f"""
# {IMAGES:,} images in {BATCHES} batches, 2026-06-01 00:00 UTC to 2026-06-01 00:17 UTC
# left out: 0.2% of these images, served as "boat" (2)
[[scene.shortlists]]
streams = "gate"
classes = [
    "car",  # 1,022 images
    "bus",  # 0 images
]
"""
        in text
    )
    (tmp_path / "adawise.toml").write_text(text, encoding="utf-8")
    settings = read(environ={}, folder=tmp_path).checked()
    found = shortlists(settings.scene, ["boat", "bus", "car", "dog"])
    (listed, other) = found.of("gate"), found.of("gate2")
    assert listed is not None
    assert (listed.columns.tolist(), other) == ([1, 2], None)


def test_each_table_matches_its_camera_alone_whatever_its_name(tmp_path: Path, capsys: Captured) -> None:
    root = yard(tmp_path / "yard", *STRANGE, *NAMELESS)
    text = printed(capsys, root)
    found = tables(text)
    assert len(found) == len(STRANGE)
    matched = [[name for name in (*STRANGE, *NAMELESS) if fnmatchcase(name, each.streams)] for each in found]
    assert matched == [[name] for name in sorted(STRANGE, key=str.encode)]
    assert text.count("scene.shortlists takes printable text alone") == len(NAMELESS)
    assert all(line.isprintable() for line in text.splitlines())
    assert '# "two\\u000Alines": no pattern can name it' in text
    document = json.loads(printed(capsys, root, "--json"))
    assert SceneSettings.model_validate({"shortlists": document["shortlists"]}).shortlists == found
    assert [each["stream_id"] for each in document["cameras"] if each["problem"]] == sorted(NAMELESS)


def test_names_of_classes_are_written_as_they_are(tmp_path: Path, capsys: Captured) -> None:
    names = ['a "quoted" one', "back\\slash", "zero\u200bwidth", "delete\x7f", "snow ☃", "two\nlines", "𝕒 \U000e0001"]
    top = [(names, [1 / len(names)] * len(names))] * IMAGES
    made = rows(0, "gate", top, confidence=[0.9] * IMAGES)
    text = printed(capsys, write(tmp_path / "yard", made, traces(0, "gate", BATCHES)))
    (found,) = tables(text)
    assert {*found.classes} == {*names}
    assert all(line.isprintable() for line in text.splitlines())


def test_an_output_without_an_encoding_gets_names_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, output = yard(tmp_path / "yard", "héll"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["shortlists", str(root)]) == 0
    assert 'streams = "héll"' in output.getvalue()


def test_a_camera_without_enough_evidence_has_a_comment_in_place_of_a_table(tmp_path: Path, capsys: Captured) -> None:
    some = [
        (rows(0, "few", [SURE] * 160), traces(0, "few", 10)),
        (rows(1, "listed", [SURE] * IMAGES), traces(1, "listed", BATCHES, range(BATCHES))),
        (rows(2, "unsure", [UNSURE] * IMAGES), traces(2, "unsure", BATCHES)),
        (rows(3, "whole", [SURE] * IMAGES), traces(3, "whole", BATCHES, [0])),
    ]
    root = write(tmp_path / "yard", pa.concat_tables(r for r, _ in some), pa.concat_tables(t for _, t in some))
    text = printed(capsys, root)
    assert [each.streams for each in tables(text)] == ["whole"]
    assert '\n# "few": 160 images are too few to propose a shortlist: 1,000 are needed\n' in text
    assert '\n# "listed": its 1,024 images were served under a shortlist, and are no evidence of others\n' in text
    assert '\n# "unsure": the mean confidence of its images is .500, and below .650 a shortlist may lack' in text
    assert "\n# no evidence: 16 images that a shortlist served\n" in text
    document = json.loads(printed(capsys, root, "--json", "--streams", "few,whole"))
    assert [(each["stream_id"], each["under_shortlist"]) for each in document["cameras"]] == [("few", 0), ("whole", 16)]
    assert document["shortlists"] == [{"streams": "whole", "classes": ["car", "bus"]}]
    (first, second) = (each["classes"] for each in document["cameras"])
    assert [(each["class"], each["listed"]) for each in first] == [("car", False)]
    assert second[1] == {"class": "bus", "images": 0, "weight": 63.0, "labelled": 0, "listed": True}


def test_what_a_label_names_is_listed_and_labels_that_fit_nothing_are_said(tmp_path: Path, capsys: Captured) -> None:
    root = yard(tmp_path / "yard", "gate")
    given = [{"row_id": "frames/0/3/0", "label": "boat"}, {"row_id": "frames/0/4/0", "label": "zebra"}]
    text = printed(capsys, root, "--labels", labels_csv(tmp_path / "labels.csv", given))
    (found,) = tables(text)
    assert found.classes == ("car", "bus", "boat")
    assert '"boat",  # 2 images, 1 label\n' in text
    assert "# 1 labels are of classes that are not served, and were left out: 'zebra' (1); correct them" in text
    assert "# 1 label of " in text
    assert ": their classes are listed.\n" in text
    assert "labels" not in printed(capsys, root).replace(str(root), "")


def test_a_label_is_listed_if_it_is_one_of_the_models_classes(tmp_path: Path, capsys: Captured) -> None:
    root = yard(tmp_path / "yard", "gate")
    given = [{"row_id": "frames/0/3/0", "label": "boat"}, {"row_id": "frames/0/4/0", "label": "zebra"}]
    labels = labels_csv(tmp_path / "labels.csv", given)
    (tmp_path / "classes.txt").write_text("bus\ncar\nlorry\nzebra\n", encoding="utf-8")
    text = printed(capsys, root, "--labels", labels, "--model.classes", "classes.txt")
    assert tables(text)[0].classes == ("car", "bus", "zebra")
    assert ": those of model.classes are listed.\n" in text


def test_labels_of_the_producer_that_cannot_be_used_are_said(tmp_path: Path, capsys: Captured) -> None:
    text = printed(capsys, yard(tmp_path / "yard", "gate", true_label=["zebra"] * IMAGES))
    assert "\n# 1024 labels are of classes that are not served, and were left out: 'zebra' (1024); correct" in text


def test_a_camera_that_shows_very_many_classes_gets_the_reason(tmp_path: Path, capsys: Captured) -> None:
    top = [([f"class {number % 150}", "bus"], [0.9, 0.1]) for number in range(IMAGES)]
    root = write(tmp_path / "yard", rows(0, "gate", top), traces(0, "gate", BATCHES))
    assert '\n# "gate": its classes below 0.75% of the weight have ' in printed(capsys, root)
    (camera,) = json.loads(printed(capsys, root, "--json"))["cameras"]
    assert len(camera["classes"]) == 20
    assert camera["more_classes"] == 130


def test_classes_that_the_model_does_not_have_are_left_out(tmp_path: Path, capsys: Captured) -> None:
    top = [SURE] * (IMAGES - 48) + [OTHER] * 48
    root = write(tmp_path / "yard", rows(0, "gate", top), traces(0, "gate", BATCHES))
    (tmp_path / "classes.txt").write_text("bus\ncar\nlorry\n", encoding="utf-8")
    assert {*tables(printed(capsys, root))[0].classes} == {"car", "bus", "dog"}
    text = printed(capsys, root, "--model.classes", "classes.txt")
    assert tables(text)[0].classes == ("car", "bus")
    assert '# left out: 4.7% of these images, served as "dog" (48)\n' in text
    (tmp_path / "classes.txt").write_text("bus\ncar\n", encoding="utf-8")
    assert '# "gate": it shows every class, and needs no shortlist' in printed(
        capsys, root, "--model.classes", "classes.txt"
    )


def test_a_camera_that_mostly_shows_what_the_model_does_not_have_gets_the_reason(
    tmp_path: Path, capsys: Captured
) -> None:
    top = [SURE] * (IMAGES // 2) + [OTHER] * (IMAGES // 2)
    root = write(tmp_path / "yard", rows(0, "gate", top), traces(0, "gate", BATCHES))
    (tmp_path / "classes.txt").write_text("bus\ncar\nlorry\n", encoding="utf-8")
    text = printed(capsys, root, "--model.classes", "classes.txt")
    assert '# "gate": classes that model.classes lacks have 61.5% of the weight, and above 10% ' in text
    assert "; it was served as 'dog' (512)\n" in text


@pytest.mark.parametrize("fixture", ["root_0_1_0", "version_0_2_0"])
def test_a_root_of_an_earlier_version_is_read(
    fixture: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal, "LEAST_IMAGES", 8)
    monkeypatch.setattr(proposal, "LEAST_CONFIDENCE", 0.5)
    root = shutil.copytree(FIXTURES / fixture / "root", tmp_path / "root")
    found = tables(printed(capsys, root))
    assert {"east", "north"} <= {each.streams for each in found}
    assert all(len(each.classes) >= 2 for each in found)


def test_a_worker_s_root_with_a_camera_under_a_shortlist(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal, "LEAST_IMAGES", 8)
    monkeypatch.setattr(proposal, "LEAST_CONFIDENCE", 0.0)
    recording = write_recording(tmp_path / "recording")
    root = run(recording, tmp_path / "listed", shortlists=[{"streams": "n*", "classes": ["car", "bus"]}])
    document = json.loads(printed(capsys, root, "--json"))
    north, south = document["cameras"]
    assert (north["stream_id"], north["images"], north["under_shortlist"], north["batches"]) == ("north", 0, 96, 0)
    assert (south["images"], south["under_shortlist"], south["batches"]) == (96, 0, 12)
    assert [each["streams"] for each in document["shortlists"]] == ["south"]


def test_a_root_in_an_object_store_is_read_as_the_same_folder(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = yard(tmp_path / "yard", "gate", "hall"), f"s3://{new_bucket()}/some/yard"
    store = open_s3(monkeypatch, s3_server(), url)
    for path in root.rglob("*"):
        if path.is_file():
            store.create(str(path.relative_to(root)), path.read_bytes())
    here, there = (json.loads(printed(capsys, each, "--json")) for each in (root, url))
    assert there == {**here, "root": url}
    assert len(here["shortlists"]) == 2


def test_an_output_without_rows_is_said_below_the_head(tmp_path: Path, capsys: Captured) -> None:
    root = write(tmp_path / "yard", rows(0, "gate", [SURE]).slice(0, 0))
    text = printed(capsys, root)
    assert tables(text) == ()
    assert all(line.startswith("# ") for line in text.splitlines())
    assert text.endswith("\n# there are no accepted images\n")
    assert json.loads(printed(capsys, root, "--json"))["cameras"] == []


def test_a_time_without_images_is_said(tmp_path: Path, capsys: Captured) -> None:
    root = yard(tmp_path / "yard", "gate")
    text = printed(capsys, root, "--since", "2026-07-01T00:00:00Z")
    assert text.endswith("\n# there are no accepted images of this time; correct --since or --until\n")
    assert tables(text) == ()
    assert json.loads(printed(capsys, root, "--json", "--until", "2026-05-01T00:00:00Z"))["cameras"] == []


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_more_shortlists_than_the_settings_take_are_said(
    form: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = yard(tmp_path / "yard", "gate", "hall", "yard")
    monkeypatch.setattr(scene, "MOST_SHORTLISTS", 3)
    assert main(["shortlists", str(root), *form]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(scene, "MOST_SHORTLISTS", 2)
    assert main(["shortlists", str(root), *form]) == 0
    assert "these are 3 shortlists, and scene.shortlists takes 2: replace" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_in_another_encoding_has_the_same_tables_in_ascii(
    encoding: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = [(["héron", "snow ☃ 𝕒"], [0.75, 0.25])] * IMAGES
    made = rows(0, "hall ☃", top, true_label=["zèbre"] * IMAGES)
    root = write(tmp_path / "yard", made, traces(0, "hall ☃", BATCHES))
    expected = tables(printed(capsys, root))
    out = io.BytesIO()
    with io.TextIOWrapper(out, encoding=encoding, newline="\n") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["shortlists", str(root)]) == 0
        stream.flush()
        text = out.getvalue().decode("ascii")
    assert tables(text) == expected
    assert (expected[0].streams, {*expected[0].classes}) == ("hall ☃", {"héron", "snow ☃ 𝕒"})
    assert "'z\\u00E8bre' (1024)" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nowhere", "there is no output of a worker in nowhere"),
        ("yard --streams gaet", "expected accepted images of camera 'gaet' under yard"),
        ("yard --streams gate,gate", "a name is empty or is there twice"),
        ("yard --since 2026-07-01T00:00:00Z --until 2026-06-01T00:00:00Z", "expected since before until"),
        ("yard --labels nowhere.csv", "nowhere.csv: expected a file of labels, but there is none"),
        ("yard --model.classes nowhere.txt", "nowhere.txt cannot be read"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(words: str, expected: str, tmp_path: Path, capsys: Captured) -> None:
    yard(tmp_path / "yard", "gate")
    assert main(["shortlists", *words.split()]) == 2
    output = capsys.readouterr()
    assert expected in output.err
    assert output.out == ""
