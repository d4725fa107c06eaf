"""`adawise evaluate --images`: a folder, a file and a recording of the same images make the same tables."""

from __future__ import annotations

import json
import re
import shutil
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from adawise.__main__ import main
from adawise.app.model import ModelPair, load_model
from adawise.clip.classifier import digest
from adawise.errors import SettingsError
from adawise.settings import Settings, read
from adawise_lab.evaluate.places import domain_names, image_set, listed, tables_of_images
from adawise_lab.evaluate.tables import LogitTable, TableSources
from tests import models
from tests.clip.test_trunk import LATE
from tests.labels.folders.places import Shot, write_folder, write_parquet, write_recording, write_singles
from tests.models import CLASSES, PairFolder, random_images, share_layers, write_pair

PER_CLASS = 3
CUT_OFF = 4  # number of an image that ends too soon

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    """By class, as folders and files are read; one of them is broken."""
    labels = [label for label in sorted(CLASSES) for _ in range(PER_CLASS)]
    found = []
    for i, (label, pixels) in enumerate(zip(labels, random_images(len(labels)), strict=True)):
        buffer = BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
        found.append(Shot(label, buffer.getvalue()[: 200 if i == CUT_OFF else None]))
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shots: list[Shot]) -> Path:
    """A folder with adawise.toml, and the images as a folder, a Parquet file and a recording, all called yard."""
    home = tmp_path_factory.mktemp("home")
    pair = write_pair(home / "pair")
    lines = [f'{name} = "{getattr(pair, name)}"' for name in ("theta_0", "theta_1", "classes", "templates")]
    lines += [f'architecture = "{pair.theta_0}"', 'precision = "fp32"', 'device = "cpu"', "chunk_rows = 4"]
    (home / "adawise.toml").write_text("[model]\n" + "\n".join(lines) + "\n")
    write_folder(home / "folder" / "yard", shots)
    write_parquet(home / "file" / "yard.parquet", [shot.png for shot in shots], [shot.label for shot in shots])
    write_recording(home / "recording" / "yard", shots)
    return home


@pytest.fixture(scope="module")
def loaded(home: Path) -> ModelPair:
    """The pair by the program's own loader, once."""
    return load_model(settings(home).model, settings(home).decode)


@pytest.fixture
def once(loaded: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are made with the pair that was loaded once, whoever asks for it."""
    monkeypatch.setattr("adawise_lab.evaluate.places.load_model", lambda *_, **__: loaded)


def settings(home: Path) -> Settings:
    return read((), environ={}, folder=home, uses=frozenset()).checked()


def without_class_names(home: Path) -> Settings:
    model = settings(home).model.model_copy(update={"classes": None})
    return settings(home).model_copy(update={"model": model})


def tables(
    home: Path, cache: Path, *places: Path, corruptions: str | None = None, limit: int | None = None
) -> tuple[LogitTable, ...]:
    return tables_of_images(settings(home), TableSources(places, corruptions, cache, limit))[0]


PLACES = ("folder/yard", "file/yard.parquet", "recording/yard")


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("place", PLACES)
def test_a_table_of_every_kind_of_place_holds_the_models_own_logits(
    home: Path, shots: list[Shot], loaded: ModelPair, tmp_path: Path, place: str
) -> None:
    (table,) = tables(home, tmp_path, home / place)
    good = [shot for i, shot in enumerate(shots) if i != CUT_OFF]
    good.sort(key=lambda shot: CLASSES.index(shot.label))  # places differ in the order of classes, not within one
    order = table.labels.argsort(kind="stable")
    pixels = torch.stack([loaded.checkpoints.preprocess(Image.open(BytesIO(shot.png))) for shot in good])
    assert table.name == "yard_clean"
    assert table.class_names == CLASSES
    assert [CLASSES[label] for label in table.labels[order]] == [shot.label for shot in good]
    for j in (0, 7, 20):
        np.testing.assert_array_equal(table.logits[j][order], loaded.classifier.logits(j, pixels).numpy())


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("place", PLACES)
def test_an_image_that_cannot_be_decoded_is_left_out_and_told(
    home: Path, tmp_path: Path, place: str, capsys: Captured
) -> None:
    (table,) = tables(home, tmp_path, home / place)
    assert len(table) == len(CLASSES) * PER_CLASS - 1
    output = "".join(capsys.readouterr())
    assert "images_left_out" in output
    assert "png" in output.lower()
    (record,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(record["left_out"]) == 1


@pytest.mark.usefixtures("once")
def test_a_limit_takes_the_same_images_each_time(home: Path, tmp_path: Path) -> None:
    whole = tables(home, tmp_path / "whole", home / "folder/yard")[0]
    for place in PLACES:
        some = tables(home, tmp_path / "some", home / place, limit=6)[0]
        again = tables(home, tmp_path / "again", home / place, limit=6)[0]
        assert 5 <= len(some) <= 6  # the broken one may be among them
        np.testing.assert_array_equal(some.logits, again.logits)
        rows = {tuple(row) for row in whole.logits[3]}
        assert all(tuple(row) in rows for row in some.logits[3])


def test_a_file_with_class_names_of_its_own_is_classified_among_these(
    home: Path, shots: list[Shot], tmp_path: Path
) -> None:
    names = ("tram", "boat", "kite")
    good = [shot.png for i, shot in enumerate(shots) if i != CUT_OFF][:6]
    write_parquet(tmp_path / "harbour.parquet", good, [0, 0, 1, 1, 0, 1], names)
    ours, theirs = tables(home, tmp_path / "cache", home / "folder/yard", tmp_path / "harbour.parquet")
    assert (ours.name, theirs.name) == ("yard_clean", "harbour_clean")
    assert theirs.class_names == names
    assert theirs.logits.shape == (21, 6, 3)
    assert theirs.labels.tolist() == [0, 0, 0, 1, 1, 1]  # kite occurs nowhere, and is a class all the same


def test_without_a_file_of_class_names_they_are_those_of_the_images(
    home: Path, shots: list[Shot], loaded: ModelPair, tmp_path: Path
) -> None:
    unlisted = without_class_names(home)
    names = ("tram", "boat", "kite")
    write_parquet(tmp_path / "harbour.parquet", [shots[0].png, shots[1].png], [0, 1], names)
    places = home / "folder/yard", tmp_path / "harbour.parquet"
    each = tables_of_images(unlisted, TableSources(places, None, tmp_path / "cache", None))[0]
    for table in each:
        assert table.class_names == (*sorted(CLASSES), *names)
    (alone,) = tables_of_images(unlisted, TableSources(places[1:], None, tmp_path / "cache", None))[0]
    assert alone.class_names == names
    given = load_model(settings(home).model, settings(home).decode, classes=names)
    pixels = torch.stack([loaded.checkpoints.preprocess(Image.open(BytesIO(shot.png))) for shot in shots[:2]])
    np.testing.assert_array_equal(alone.logits[7], given.classifier.logits(7, pixels).numpy())


def test_images_of_one_label_need_a_file_of_class_names(home: Path, shots: list[Shot], tmp_path: Path) -> None:
    unlisted = without_class_names(home)
    write_folder(tmp_path / "cats", [Shot("cat", shots[0].png)])
    with pytest.raises(SettingsError, match=r"all images have the label 'cat'.*--model\.classes"):
        tables_of_images(unlisted, TableSources((tmp_path / "cats",), None, tmp_path / "cache", None))


@pytest.mark.parametrize("name", ["", "wet\nroad", " tram"])
def test_a_class_name_that_is_declared_and_is_none_is_refused(
    home: Path, shots: list[Shot], tmp_path: Path, name: str
) -> None:
    write_parquet(tmp_path / "harbour.parquet", [shots[0].png, shots[1].png], [0, 1], ("tram", "boat", name))
    with pytest.raises(SettingsError, match=rf"harbour\.parquet: .* the file declares {re.escape(repr(name))}\."):
        tables_of_images(
            without_class_names(home), TableSources((tmp_path / "harbour.parquet",), None, tmp_path / "cache", None)
        )


def test_a_card_of_other_class_names_than_those_of_the_images_is_a_mistake_of_the_settings(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card may be of this pair all the same: the folders are sorted, and model.classes was not."""
    unlisted, card = without_class_names(home), SimpleNamespace(identity={"classes": digest("\n".join(CLASSES))})
    monkeypatch.setattr("adawise_lab.evaluate.places.read_card", lambda _: card)
    with_card = unlisted.model_copy(update={"model": unlisted.model.model_copy(update={"card": Path("card.json")})})
    with pytest.raises(SettingsError, match=r"5 class names .* or their order, .* card\.json .* --model\.classes"):
        tables_of_images(with_card, TableSources((home / "folder/yard",), None, tmp_path / "cache", None))


def test_the_command_takes_the_class_names_of_a_file(
    home: Path, shots: list[Shot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    text = (home / "adawise.toml").read_text()
    (tmp_path / "adawise.toml").write_text("".join(line for line in text.splitlines(True) if "classes" not in line))
    write_parquet(tmp_path / "harbour.parquet", [shot.png for shot in shots[:2]], [0, 1], ("tram", "boat", "kite"))
    assert evaluate(tmp_path, monkeypatch, "--images", "harbour.parquet", *RUN) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["domains"]["harbour_clean"]["classes"] == 3
    assert "classes_taken_from_images" in found.err


@pytest.mark.usefixtures("once")
def test_other_pixels_under_the_same_name_make_another_table(home: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(home / "folder", tmp_path / "copy")) / "yard"
    before = tables(home, tmp_path / "cache", place)[0]
    files = sorted(place.glob("car/*.png"))
    shutil.copy(files[1], files[0])
    after = tables(home, tmp_path / "cache", place)[0]
    assert not np.array_equal(before.logits, after.logits)


def test_a_recording_without_labels_is_refused_with_what_to_send(home: Path, shots: list[Shot], tmp_path: Path) -> None:
    write_recording(tmp_path / "bare", shots, labelled=False)
    with pytest.raises(SettingsError, match=r"none of the 16 images .* `label`"):
        tables(home, tmp_path / "cache", tmp_path / "bare")


@pytest.mark.usefixtures("once")
def test_a_label_that_is_no_class_leaves_a_recorded_image_out(
    home: Path, shots: list[Shot], tmp_path: Path, capsys: Captured
) -> None:
    write_recording(tmp_path / "mixed", [Shot("zeppelin", shots[0].png), *shots[1:CUT_OFF]])
    (table,) = tables(home, tmp_path / "cache", tmp_path / "mixed")
    assert len(table) == CUT_OFF - 1
    assert "'zeppelin' is not among" in "".join(capsys.readouterr())


def test_domains_are_known_before_anything_is_read(home: Path, tmp_path: Path) -> None:
    wanted = TableSources((home / "folder/yard", home / "file"), "fog:2,jpeg", tmp_path, None)
    yard, file = ([f"{name}_{kind}" for kind in ("clean", "fog2", "jpeg3")] for name in ("yard", "file"))
    assert domain_names(wanted) == (*yard, *file)


def test_places_that_are_not_there_or_share_a_name_are_told(home: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--images .*nowhere: there is no such file"):
        domain_names(TableSources((home / "nowhere",), None, tmp_path, None))
    with pytest.raises(SettingsError, match=r"two places, and so their domains, have the name 'yard'"):
        domain_names(TableSources((home / "folder/yard", home / "file/yard.parquet"), None, tmp_path, None))


def evaluate(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(home)
    return main(["evaluate", *arguments])


RUN = ("--seeds", "1", "--strategies", "fixed", "--streams", "short", "--orders", "iid", "--processes", "1", "--json")


def test_the_command_judges_images_and_their_corruptions(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    images = ("--images", "folder/yard", "--corrupt", "fog:2,contrast:5", "--cache", str(tmp_path))
    assert evaluate(home, monkeypatch, *images, *RUN) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first["domains"]) == {"yard_clean", "yard_fog2", "yard_contrast5"}
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert evaluate(home, monkeypatch, *images, "--calibrate", "yard_clean", *RUN) == 0
    second = json.loads(capsys.readouterr().out)
    assert set(second["domains"]) == {"yard_fog2", "yard_contrast5"}  # not judged by what it was fitted on
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made


@pytest.mark.check("lab")
def test_the_grid_of_a_pair_with_shared_layers_costs_less_than_its_evaluations(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    theirs = Path(shutil.copytree(home, tmp_path / "home"))
    text = (theirs / "adawise.toml").read_text()
    (theirs / "adawise.toml").write_text(text.replace(str(home), str(theirs)))
    model = settings(theirs).model
    pair = PairFolder(str(model.theta_0), str(model.theta_1), Path(), Path())
    share_layers(pair, LATE)
    images, grid = ("--images", "folder/yard", "--cache", str(tmp_path / "cache")), ("--strategies", "grid,fixed")
    assert evaluate(theirs, monkeypatch, *images, *RUN[:2], *grid, *RUN[4:], "-o", str(tmp_path / "kept")) == 0
    result = json.loads(capsys.readouterr().out)
    share = models.load(pair).tail_share
    assert share < 0.5
    assert result["tail_share"] == share
    assert [row["fe"] for row in result["rows"][:2]] == [21.0, 1.0]
    assert [row["forward_cost"] for row in result["rows"][:2]] == [1.0 + share * 20.0, 1.0]
    page = (tmp_path / "kept" / "page.html").read_text()
    assert f"an image at a second alpha costs {share:.2f} of a forward" in page
    assert "forward cost" in page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--images", "folder/yard", "--corrupt", "fogg"), "'fogg'"),
        (("--images", "folder/yard", "--calibrate", "yard_fog2"), "'yard_fog2'"),
        (("--images", "folder/yard", "--domains", "yard"), "the images make yard_clean"),
        (("--images", "folder/yard", "--logits", "tables"), "not both"),
        (("--logits", "tables", "--limit", "3"), "it needs --images"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_models_are_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: tuple[str, ...], expected: str
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the models were loaded")

    monkeypatch.setattr("adawise_lab.evaluate.places.load_model", load)
    assert evaluate(home, monkeypatch, *arguments, *RUN) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "limit", "digest"),
    [
        ("folder/yard", None, "681f74d577994054b612f7198c97070f5252c85ca4f2e081da88584b337a109a"),
        ("folder/yard", 3, "727506f708854a468f8ef7d9b94827de99ab011963751101eb66b825ffb14f47"),
        ("file/yard.parquet", None, "8abe5931ae5d193bd77b933a9889e68bdf0f45c5d167f13de3112058a05efbed"),
        ("recording/yard", None, "c32bfe9f36c23c5f76fe00a1bd3684724cb2b731e5af298a94a74fd7aa3e631d None"),
        ("recording/yard", 3, "c32bfe9f36c23c5f76fe00a1bd3684724cb2b731e5af298a94a74fd7aa3e631d 3"),
    ],
)
def test_tables_that_earlier_versions_kept_are_found_by_the_same_digest(
    home: Path, loaded: ModelPair, tmp_path: Path, place: str, limit: int | None, digest: str
) -> None:
    grey = [Shot(label, _bmp(n)) for n, label in enumerate(["bus", "bus", "car", "car"])]
    write_folder(tmp_path / "folder" / "yard", grey)
    write_parquet(tmp_path / "file" / "yard.parquet", [shot.png for shot in grey], [shot.label for shot in grey])
    write_singles(tmp_path / "recording" / "yard", [(shot.png, (("label", shot.label.encode()),)) for shot in grey])
    samples = listed(settings(home), tmp_path / place, loaded.classes)
    images = image_set(settings(home), loaded, samples, "yard", limit)
    assert images.digest == digest


@pytest.mark.parametrize(
    ("place", "limits"),
    [
        ("folder/yard", {"max_pixels": 9}),
        ("file/yard.parquet", {"max_pixels": 9}),
        ("recording/yard", {"max_pixels": 9}),
        ("recording/yard", {"max_message_bytes": 2048}),
        ("recording/yard", {"max_rows": 1}),
    ],
)
def test_a_table_of_which_other_limits_left_images_out_is_not_taken_for_another(
    home: Path, loaded: ModelPair, place: str, limits: dict[str, int]
) -> None:
    whole = settings(home)
    other = whole.model_copy(update={"decode": whole.decode.model_copy(update=limits)})
    samples = listed(whole, home / place, loaded.classes)
    one, two = (image_set(each, loaded, samples, "yard", None) for each in (whole, other))
    assert one.digest != two.digest


def test_an_unknown_label_of_the_last_place_is_refused_before_anything_is_computed(
    home: Path, tmp_path: Path, shots: list[Shot], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    write_folder(tmp_path / "other", [*shots, Shot("zeppelin", shots[0].png)])
    monkeypatch.setattr("adawise_lab.evaluate.places.load_model", lambda *_: pytest.fail("the pair was loaded"))
    monkeypatch.chdir(home)
    assert main(["evaluate", "--images", f"folder/yard,{tmp_path / 'other'}", "--cache", str(tmp_path / "t")]) == 2
    assert "the labels 'zeppelin' are not among the 5 class names of model.classes" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def _bmp(level: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(buffer, "BMP")
    return buffer.getvalue()
