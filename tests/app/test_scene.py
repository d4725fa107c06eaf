"""Shortlists of the settings: how they are written, checked against the classes, and what they do to fingerprints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adawise.app.parts import scene_digest, shortlists
from adawise.errors import SettingsError
from adawise.settings import SceneSettings, read
from adawise.settings.describe import SETTINGS, shown

CLASSES = ("car", "lorry", "bicycle", "boat")
FILE = """
[[scene.shortlists]]
streams = "yard-*"
classes = ["lorry", "car"]
[[scene.shortlists]]
streams = "*-gate"
exclude = ["boat"]
[[scene.shortlists]]
streams = "yard-harbour"
"""


def scene_in(folder: Path, file: str = "", environ: dict[str, str] | None = None) -> SceneSettings:
    (folder / "adawise.toml").write_text(file)
    return read((), environ=environ or {}, folder=folder).checked().scene


def columns(scene: SceneSettings, stream: str) -> list[int] | None:
    listed = shortlists(scene, CLASSES).of(stream)
    return None if listed is None else listed.columns.tolist()


def test_the_same_shortlists_are_written_as_tables_and_as_json(tmp_path: Path) -> None:
    scene = scene_in(tmp_path, FILE)
    assert columns(scene, "yard-1") == [0, 1]
    assert columns(scene, "yard-gate") == [0, 1, 2]  # the last one that matches
    assert columns(scene, "yard-harbour") is None
    assert columns(scene, "street") is None
    as_json = shown(SETTINGS["scene.shortlists"], scene.shortlists)
    assert json.loads(as_json)[1] == {"streams": "*-gate", "exclude": ["boat"]}
    assert scene_in(tmp_path, environ={"ADAWISE_SCENE__SHORTLISTS": as_json}) == scene
    in_full = json.dumps(scene.model_dump(mode="json")["shortlists"])  # as `config show --json` prints it
    assert (
        shortlists(scene_in(tmp_path, environ={"ADAWISE_SCENE__SHORTLISTS": in_full}), CLASSES).of("yard-harbour")
        is None
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('classes = ["car", "lory"]', r"shortlist of '\*': expected a class of model\.classes, got 'lory'.*'lorry'"),
        ('exclude = ["ship"]', "expected a class of model.classes, got 'ship'"),
        ('exclude = ["car", "lorry", "boat"]', "two or more classes to be left, got 1"),
        ('exclude = ["car", "lorry", "boat", "bicycle"]', "to be left, got 0"),
    ],
)
def test_names_that_are_no_classes_are_errors(tmp_path: Path, table: str, message: str) -> None:
    scene = scene_in(tmp_path, f'[[scene.shortlists]]\nstreams = "*"\n{table}\n')
    with pytest.raises(SettingsError, match=message):
        shortlists(scene, CLASSES)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('streams = "*"\nclasses = ["car"]', "two or more classes"),
        ('streams = "*"\nclasses = ["car", "car"]', "two or more classes"),
        ('streams = "*"\nclasses = ["car", "boat"]\nexclude = ["boat"]', "either classes or exclude"),
        ('streams = "*"\nclass = ["car", "boat"]', r"shortlist 1 \(\*\): class: there is no such field"),
        ('classes = ["car", "boat"]', "shortlist 1: streams: field required"),
        ('streams = "*"\nclasses = []', "classes: it is an empty list"),
        ('streams = "*"\nexclude = []', "exclude: it is an empty list"),
        ('streams = "a\\u001b[31m"\nexclude = ["boat"]', "expected printable text"),
        ('streams = ""\nclasses = ["car", "boat"]', "it is empty"),
    ],
)
def test_a_table_that_cannot_be_meant_is_an_error(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        scene_in(tmp_path, f"[[scene.shortlists]]\n{table}\n")


def test_a_message_names_a_few_of_many_wrong_names() -> None:
    tables = [{"streams": f"camera-{n}", "classes": ["car", f"name {n}"]} for n in range(1_000)]
    with pytest.raises(SettingsError, match=r"'name 4'.*; and 995 more\. Correct them") as refused:
        shortlists(SceneSettings.model_validate({"shortlists": tables}), CLASSES)
    assert len(str(refused.value)) < 1_000


def test_ten_thousand_shortlists_of_a_thousand_classes_are_checked() -> None:
    classes = [f"class {n}" for n in range(1_000)]
    tables = [{"streams": f"camera-{n}", "classes": classes[:10]} for n in range(10_000)]
    scene = SceneSettings.model_validate({"shortlists": tables})
    listed = shortlists(scene, classes).of("camera-9999")
    assert listed is not None
    assert listed.columns.tolist() == [*range(10)]
    with pytest.raises(ValueError, match="at most 10000 shortlists"):
        SceneSettings.model_validate({"shortlists": [*tables, tables[0]]})


def test_smoothing_without_a_class_prior_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "adawise.toml").write_text('[scene]\nsmoothing = "beside"\n')
    with pytest.raises(SettingsError, match=r"(?s)scene\.smoothing.*set scene\.prior to beside too"):
        read((), environ={}, folder=tmp_path).checked()
    both = scene_in(tmp_path, '[scene]\nsmoothing = "beside"\nprior = "beside"\n')
    assert (both.prior, both.smoothing) == ("beside", "beside")


@pytest.mark.parametrize(("prior", "smoothing"), [("served", "beside"), ("beside", "served"), ("off", "served")])
def test_the_prior_and_smoothing_are_served_together(tmp_path: Path, prior: str, smoothing: str) -> None:
    remedy = "set scene.prior to served too" if prior == "off" else f"set it to {prior} as scene.prior, or to off"
    with pytest.raises(SettingsError, match=rf"(?s)scene\.smoothing.*{remedy}"):
        scene_in(tmp_path, f'[scene]\nprior = "{prior}"\nsmoothing = "{smoothing}"\n')
    for alone in ("off", "served"):
        scene = scene_in(tmp_path, f'[scene]\nprior = "served"\nsmoothing = "{alone}"\n')
        assert (scene.is_served, scene.smooths) == (True, alone == "served")


def test_the_digest_of_a_scene_is_of_what_its_labels_depend_on(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return scene_digest(scene_in(tmp_path, f"[scene]\n{text}\n"))

    beside, listed = digest('prior = "beside"'), digest(f'prior = "beside"\n{FILE}')
    assert beside == digest('prior = "served"')
    both = digest('prior = "served"\nsmoothing = "served"')
    assert both == digest('prior = "beside"\nsmoothing = "beside"')
    assert len({beside, both, listed}) == 3
    assert listed == digest(f'prior = "beside"\n{FILE}'.replace('"lorry", "car"', '"car", "lorry"'))
