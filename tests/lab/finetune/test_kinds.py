"""Other kinds of models than plain CLIP, as open_clip builds them, and other ways to name theta_0."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from adawise.clip.load import load_checkpoints, load_starting_model
from tests.lab.evaluate.building import shorten_verdicts
from tests.models import CONFIG, PairFolder, write_checkpoint
from tests.replay.runs import adawise


def coca(config: dict[str, Any]) -> Any:
    """A caption decoder beside the towers, which no loss of ours trains."""
    model = config["model_cfg"]
    model["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
    model["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    model["multimodal_cfg"] = {"width": 32, "heads": 2, "layers": 1, "context_length": 16, "vocab_size": 49408}
    built = open_clip.CoCa(**model)
    torch.nn.init.normal_(built.text_decoder.text_projection, std=0.02)  # open_clip leaves there what the memory held
    model["custom_text"] = True
    return built


def siglip(config: dict[str, Any]) -> Any:
    """A text tower of its own, and a bias of the logits, which ours do not have."""
    built = open_clip.CustomTextCLIP(**config["model_cfg"], init_logit_bias=-10)
    config["model_cfg"] |= {"custom_text": True, "init_logit_bias": -10}
    return built


def quick_gelu(config: dict[str, Any]) -> Any:
    config["model_cfg"]["quick_gelu"] = True
    return open_clip.CLIP(**config["model_cfg"])


def resnet(config: dict[str, Any]) -> Any:
    """Its BatchNorms keep the statistics that they came with."""
    config["model_cfg"]["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
    built = open_clip.CLIP(**config["model_cfg"]).train()
    built.encode_image(torch.rand(8, 3, 32, 32))
    return built


def further(build: Callable[[dict[str, Any]], Any]) -> Any:
    return pytest.param(build, marks=pytest.mark.check("models"))


@pytest.mark.usefixtures("logs_of_this_process")
@pytest.mark.parametrize("build", [further(coca), siglip, further(quick_gelu), resnet])
@pytest.mark.cases("models", every=2)
def test_a_model_of_another_kind_makes_a_pair_too(
    build: Callable[[dict[str, Any]], Any], tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_verdicts(monkeypatch)
    config = copy.deepcopy(CONFIG)
    torch.manual_seed(0)
    name = write_checkpoint(tmp_path / "theta_0", build(config), config)
    flags = ["--finetune.epochs", "1", "--finetune.batch-images", "8", "--finetune.learning-rate", "1e-3"]
    flags += ["--finetune.loss", "flyp", "--model.theta-0", name, "--model.device", "cpu", "--model.threads", "1"]
    assert adawise(tmp_path, "finetune", "--labelled", str(shapes), "-o", "out", *flags) == 0
    pair = load_checkpoints(None, name, f"local-dir:{tmp_path / 'out' / 'theta_1'}")
    assert not pair.text_is_shared
    zero, one = (load_file(tmp_path / folder / "open_clip_model.safetensors") for folder in ("theta_0", "out/theta_1"))
    still = {key for key in zero if torch.equal(zero[key], one[key])}
    untrained = ("text_decoder.", "logit_bias"), (".running_mean", ".running_var", ".num_batches_tracked")
    still -= {"visual.attnpool.k_proj.bias"}  # no softmax depends on it: its gradient is rounding, and may be nothing
    assert still == {key for key in zero if key.startswith(untrained[0]) or key.endswith(untrained[1])}


def test_theta_0_may_be_a_file_with_an_architecture(pair_folder: PairFolder) -> None:
    by_folder = load_starting_model("ViT-B-32", pair_folder.theta_0)
    by_file = load_starting_model(pair_folder.theta_0, str(pair_folder.weights(0)))
    assert by_file.hash == by_folder.hash
    assert by_file.preprocess == by_folder.preprocess
    assert json.dumps(by_file.config) == json.dumps(by_folder.config)
