"""How pictures are prepared for a pair, and which GELU it has, by whatever says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
from open_clip import factory, pretrained
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from structlog.testing import capture_logs

from adawise.clip.load import CheckpointPair, load_checkpoints, load_starting_model
from adawise.clip.preprocessing import CONFIG_NAME, QUICK
from adawise.errors import CheckpointError
from tests.models import CONFIG, PairFolder

SQUASH = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash", "interpolation": "bilinear"}


@pytest.fixture
def files(pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The pair as two files in folders of their own, of an architecture `tiny` that open_clip knows by name."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", CONFIG["model_cfg"])
    for end in (0, 1):
        (tmp_path / str(end)).mkdir()
        shutil.copy(pair_folder.weights(end), tmp_path / str(end) / "weights.safetensors")
    return str(tmp_path / "0/weights.safetensors"), str(tmp_path / "1/weights.safetensors")


def with_tags(monkeypatch: pytest.MonkeyPatch, **tags: dict[str, Any]) -> None:
    """Let open_clip have such weights of `tiny`."""
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {name: pretrained._pcfg(**tag) for name, tag in tags.items()})


def write_config(checkpoint: str, config: object) -> Path:
    path = Path(checkpoint).parent / CONFIG_NAME
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def is_quick(pair: CheckpointPair) -> bool:
    return "QuickGELU" in {type(module).__name__ for module in pair.tower.modules()}


def test_files_of_which_nothing_is_known_are_taken_for_openais_and_that_is_told(files: tuple[str, str]) -> None:
    with capture_logs() as logged:
        pair = load_checkpoints("tiny", *files)
    assert (pair.mean, pair.std) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    (line,) = logged
    assert line["event"] == "preprocessing_guessed"
    assert line["resize_mode"] == "shortest"
    assert line["remedy"].endswith(f"model.resize_mode and model.interpolation and model.quick_gelu ({QUICK})")
    assert not is_quick(pair)


def test_what_all_weights_of_the_architecture_have_is_known(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tags(monkeypatch, webli=SQUASH, openai={**SQUASH, "quick_gelu": True})
    with capture_logs() as logged:
        pair = load_checkpoints("tiny", *files)
    assert (pair.mean, pair.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (pair.preprocess.resize_mode, pair.preprocess.interpolation) == ("squash", "bilinear")
    assert pair.preparation.sources["mean"] == "all of open_clip's weights for tiny"
    assert [(line["event"], line.keys() & {"mean", "quick_gelu"}) for line in logged] == [
        ("preprocessing_guessed", {"quick_gelu"})
    ]


def test_weights_are_recognised_by_the_name_that_they_were_downloaded_under(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = {"url": "https://example.org/tiny-46683a32.pt", "hf_hub": "timm/tiny.own/", "quick_gelu": True}
    with_tags(monkeypatch, webli=SQUASH, own=own)
    cached = tmp_path / "models--timm--tiny.own" / "snapshots" / "open_clip_model.safetensors"
    cached.parent.mkdir(parents=True)
    shutil.copy(files[0], cached)
    with capture_logs() as logged:
        pair = load_checkpoints("tiny", str(cached), files[1])
    assert set(pair.preparation.sources.values()) == {"open_clip's tag own"}
    assert pair.preprocess.resize_mode == "shortest"
    assert is_quick(pair)
    assert logged == []


def test_a_tag_of_quickgelu_turns_it_on(monkeypatch: pytest.MonkeyPatch, files: tuple[str, str]) -> None:
    """open_clip 3 only warns that it should be."""
    with_tags(monkeypatch, openai={"quick_gelu": True}, laion={})
    monkeypatch.setattr(factory, "download_pretrained", lambda *_, **__: files[0])
    pair = load_checkpoints("tiny", "openai", files[1])
    assert is_quick(pair)
    assert pair.preparation.sources["quick_gelu"] == "open_clip's tag openai"


@pytest.mark.parametrize("end", [0, 1])
def test_the_config_beside_one_of_two_files_is_for_both(files: tuple[str, str], end: int) -> None:
    path = write_config(
        files[end], {"model_cfg": {**CONFIG["model_cfg"], "quick_gelu": True}, "preprocess_cfg": SQUASH}
    )
    with capture_logs() as logged:
        pair = load_checkpoints("tiny", *files)
    assert pair.mean == (0.5, 0.5, 0.5)
    assert pair.preprocess.id == "integer-bilinear-squash-32/2"
    assert is_quick(pair)
    assert set(pair.preparation.sources.values()) == {str(path)}
    assert logged == []


def test_settings_go_before_configs_and_settle_what_these_contradict(files: tuple[str, str]) -> None:
    for checkpoint, mode in zip(files, ("longest", "squash"), strict=True):
        write_config(checkpoint, {"preprocess_cfg": {**SQUASH, "resize_mode": mode, "fill_color": len(mode)}})
    with pytest.raises(
        CheckpointError, match=r"'resize_mode' is longest and squash.* Set model\.resize_mode to the value"
    ):
        load_checkpoints("tiny", *files)
    wanted = {"resize_mode": "shortest", "quick_gelu": True, "std": (0.1, 0.2, 0.3)}
    pair = load_checkpoints("tiny", *files, wanted=wanted)
    assert (pair.preprocess.resize_mode, pair.std, pair.mean) == ("shortest", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert pair.preparation.sources["std"] == "model.std"
    assert is_quick(pair)


def test_a_folder_goes_with_a_file_of_which_nothing_is_known(pair_folder: PairFolder, files: tuple[str, str]) -> None:
    """theta_1 of `finetune`, theta_0 by file: what theta_1 was trained with is for both."""
    with capture_logs() as logged:
        pair = load_checkpoints("tiny", files[0], pair_folder.theta_1)
    assert pair.mean == tuple(CONFIG["preprocess_cfg"]["mean"])
    assert logged == []


def test_the_architecture_says_nothing_of_two_folders(pair_folder: PairFolder, tmp_path: Path) -> None:
    folders = [str(shutil.copytree(pair_folder.weights(end).parent, tmp_path / str(end))) for end in (0, 1)]
    for folder in folders:
        write_config(f"{folder}/weights", {"model_cfg": CONFIG["model_cfg"], "preprocess_cfg": {"mean": 0.5}})
    pair = load_checkpoints("ViT-B-32", *(f"local-dir:{folder}" for folder in folders))
    assert pair.mean == (0.5, 0.5, 0.5)
    assert set(pair.preparation.guessed) == {"std", "resize_mode", "interpolation"}


def test_a_config_of_another_architecture_says_nothing_of_a_file(files: tuple[str, str]) -> None:
    other = {**CONFIG["model_cfg"], "vision_cfg": {**CONFIG["model_cfg"]["vision_cfg"], "layers": 12}}
    write_config(files[0], {"model_cfg": other, "preprocess_cfg": SQUASH})
    assert load_checkpoints("tiny", *files).mean == OPENAI_DATASET_MEAN


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"preprocess_cfg": ', r"open_clip_config\.json: expected a config of open_clip.*Expecting value"),
        ("[]", "its model_cfg or preprocess_cfg is not a table"),
        ({"model_cfg": {"vision_cfg": 3}}, "its model_cfg or preprocess_cfg is not a table"),
        ({"preprocess_cfg": {"std": 0}}, r"'std' is '0', expected three numbers.* above 0\. .* set model\.std"),
        ({"preprocess_cfg": {"mean": [0.5, 0.5]}}, r"'mean' is '\[0.5, 0.5\]', expected three numbers"),
        ({"preprocess_cfg": {"mean": [0.5, True, 0.5]}}, "expected three numbers"),
        ({"preprocess_cfg": {"std": [0.5, -1, 0.5]}}, "expected three numbers"),
        ({"preprocess_cfg": {"resize_mode": "crop"}}, "'crop', expected shortest or squash or longest"),
        ({"preprocess_cfg": {"interpolation": ["bicubic"]}}, "expected bicubic or bilinear"),
        ({"model_cfg": {"quick_gelu": "yes"}}, "'yes', expected true or false"),
    ],
)
def test_a_config_that_says_what_cannot_be_is_refused_by_its_path(
    files: tuple[str, str], config: object, expected: str
) -> None:
    write_config(files[1], config)
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoints("tiny", *files)


def test_hashes_are_of_before_unless_a_model_is_told_otherwise_than_open_clip_tells_it(
    pair_folder: PairFolder, pair: CheckpointPair, files: tuple[str, str]
) -> None:
    folders = pair_folder.theta_0, pair_folder.theta_1
    as_before = {"mean": (0.48, 0.45, 0.4), "quick_gelu": False, "resize_mode": "squash"}
    assert load_checkpoints(None, *folders, wanted=as_before).hashes == pair.hashes
    assert load_checkpoints("tiny", *files).hashes == pair.hashes
    otherwise = {
        load_checkpoints("tiny", *files, wanted=wanted).hashes
        for wanted in ({"quick_gelu": True}, {"mean": (0.5, 0.5, 0.5)}, {"mean": (0.5, 0.5, 0.50001)})
    }
    assert len(otherwise) == 3
    assert not {hash for hashes in otherwise for hash in hashes} & {*pair.hashes}


def test_what_a_model_is_fine_tuned_with_is_in_the_config_of_what_comes_of_it(files: tuple[str, str]) -> None:
    write_config(files[0], {"preprocess_cfg": SQUASH})
    start = load_starting_model("tiny", files[0], wanted={"quick_gelu": True, "interpolation": "bicubic"})
    assert start.mean == (0.5, 0.5, 0.5)
    assert start.preprocess.id == "integer-bicubic-squash-32/2"
    assert start.config["model_cfg"] == {**CONFIG["model_cfg"], "quick_gelu": True}
    written = write_config(files[1], dict(start.config))
    with capture_logs() as logged:
        pair = load_checkpoints("tiny", files[0], f"local-dir:{written.parent}", wanted={"interpolation": "bicubic"})
    assert (pair.preprocess, pair.mean, pair.hashes[0]) == (start.preprocess, start.mean, start.hash)
    assert is_quick(pair)
    assert logged == []


def test_open_clip_still_calls_its_weights_as_we_recognise_them() -> None:
    tags = [open_clip.get_pretrained_cfg(*name) for name in open_clip.list_pretrained()]
    assert all({"url", "hf_hub", "mean", "std", "interpolation", "resize_mode"} <= tag.keys() for tag in tags)
    assert sum(bool(tag["hf_hub"]) for tag in tags) > 100
