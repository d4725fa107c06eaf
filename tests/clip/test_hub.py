"""Models whose tokenizer or text tower is of the package transformers, the extra `hf`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
from open_clip import factory

from adawise.clip.load import load_checkpoints, load_starting_model
from adawise.errors import CheckpointError
from tests.models import CONFIG, PairFolder, load


def of_hub(pair_folder: PairFolder, folder: Path, **text: object) -> tuple[str, str]:
    """The pair with configs whose text tower has these."""
    for end, theta in enumerate((pair_folder.theta_0, pair_folder.theta_1)):
        shutil.copytree(theta.removeprefix("local-dir:"), folder / str(end))
        config = json.loads(json.dumps(CONFIG))
        config["model_cfg"]["text_cfg"] |= text
        (folder / str(end) / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder / '0'}", f"local-dir:{folder / '1'}"


@pytest.mark.parametrize("name", ["hf_tokenizer_name", "hf_model_name"])
def test_without_the_extra_it_is_named_in_one_sentence(
    pair_folder: PairFolder, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    pair = of_hub(pair_folder, tmp_path, **{name: str(tmp_path)})
    found = (
        r"local-dir:.*0 has a .* of the package transformers, which is not installed\. .* pip install 'adawise\[hf\]'$"
    )
    with pytest.raises(CheckpointError, match=found):
        load_checkpoints(None, *pair)
    with pytest.raises(CheckpointError, match=found):
        load_starting_model("ViT-B-32", pair[0])


def test_a_tokenizer_that_cannot_be_had_is_told_with_the_way_out(
    pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to load the files.\nCheck your connection.")

    monkeypatch.setattr(open_clip, "get_tokenizer", out_of_reach)
    monkeypatch.setattr(open_clip, "SimpleTokenizer", out_of_reach)  # of a folder
    monkeypatch.setattr("adawise.clip.load._of_own_table", {})  # as in a new process
    with pytest.raises(
        CheckpointError, match=r"of local-dir:.* load the files\. Please put the tokenizer's files .* that"
    ):
        load(pair_folder)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", CONFIG["model_cfg"])
    files = [str(shutil.copy(pair_folder.weights(end), tmp_path / f"{end}.safetensors")) for end in (0, 1)]
    with pytest.raises(CheckpointError, match=r"tokenizer of tiny is not on .* Please start once .*local-dir:FOLDER"):
        load_checkpoints("tiny", *files)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "roberta-ViT-B-32", "nllb-clip-base-siglip"])
def test_with_the_extra_it_is_open_clips_own_model(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra hf")
    from tools.method.families import tried

    *_, differences = tried(name, tmp_path).split(" | ")
    assert max(map(float, differences.split(","))) < 1e-5
