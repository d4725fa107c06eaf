from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adawise.clip.load import (
    _DEFAULTS,
    CheckpointPair,
    _Configs,
    _tokenizer,
    hash_weights,
    load_checkpoints,
    stated_blocks,
)
from adawise.errors import CheckpointError
from tests.models import CLASSES, CONFIG, SIZE, TEMPLATES, PairFolder, classifier, with_weights, write_checkpoint

COCA = {
    "model_cfg": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {
            **CONFIG["model_cfg"]["vision_cfg"],
            "attentional_pool": True,
            "attn_pooler_heads": 4,
            "output_tokens": True,
        },
        "text_cfg": {**CONFIG["model_cfg"]["text_cfg"], "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**CONFIG["model_cfg"]["text_cfg"]},
    },
    "preprocess_cfg": CONFIG["preprocess_cfg"],
}


def with_config(folder: Path, source: str, change: Callable[[dict[str, dict[str, object]]], None]) -> str:
    """A copy of a checkpoint folder with another config."""
    shutil.copytree(source.removeprefix("local-dir:"), folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    change(config)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def test_a_pair_of_folders_loads_with_its_preprocessing_scales_and_hashes(
    pair: CheckpointPair, pair_folder: PairFolder
) -> None:
    weights = [load_file(pair_folder.weights(end)) for end in (0, 1)]
    for theta, saved in zip((pair.theta_0, pair.theta_1), weights, strict=True):
        assert theta.keys() == {name.removeprefix("visual.") for name in saved if name.startswith("visual.")}
        assert all(torch.equal(tensor, saved[f"visual.{name}"]) for name, tensor in theta.items())
    assert pair.log_scales == tuple(float(saved["logit_scale"]) for saved in weights)
    assert pair.preprocess.id == f"integer-bicubic-shortest-{SIZE}/2"
    assert pair.mean == (0.48, 0.45, 0.4)
    assert pair.std == (0.27, 0.26, 0.28)
    assert pair.hashes[0] != pair.hashes[1]
    assert not pair.tower.training


@pytest.mark.parametrize("kind", ["safetensors", "state_dict", "checkpoint"])
def test_a_file_of_weights_loads_beside_an_architecture_and_has_the_hash_of_the_folder(
    pair: CheckpointPair, pair_folder: PairFolder, tmp_path: Path, kind: str
) -> None:
    path = pair_folder.weights(1)
    if kind != "safetensors":
        state = load_file(path)
        path = tmp_path / "theta_1.pt"
        torch.save(state if kind == "state_dict" else {"state_dict": state, "epoch": 3}, path)
    loaded = load_checkpoints(pair_folder.theta_0, pair_folder.theta_0, str(path))
    assert loaded.hashes == pair.hashes


def test_half_precision_weights_load_as_float32(pair_folder: PairFolder, tmp_path: Path) -> None:
    def halve(weights: dict[str, Tensor]) -> None:
        weights.update({name: tensor.half() for name, tensor in weights.items()})

    loaded = load_checkpoints(None, pair_folder.theta_0, with_weights(tmp_path / "half", pair_folder.theta_1, halve))
    saved = load_file(pair_folder.weights(1))
    for name, tensor in loaded.theta_1.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, saved[f"visual.{name}"].half().float())


@pytest.mark.parametrize("end", [0, 1])
def test_the_head_at_an_end_is_open_clips_zero_shot_classifier(
    pair_folder: PairFolder, pair: CheckpointPair, end: int
) -> None:
    model, _, _ = open_clip.create_model_and_transforms((pair_folder.theta_0, pair_folder.theta_1)[end])
    prompts = [lambda name, template=template: template.replace("{}", name) for template in TEMPLATES]
    expected = open_clip.build_zero_shot_classifier(
        model.eval(), open_clip.get_tokenizer(pair_folder.theta_0), list(CLASSES), prompts
    )
    head = pair.prompts(CLASSES, TEMPLATES).head(float(end))
    torch.testing.assert_close(head, expected, rtol=0, atol=1e-5)  # float32; attention sums in another order
    torch.testing.assert_close(head.norm(dim=0), torch.ones(len(CLASSES)))


def test_the_head_between_the_ends_comes_from_a_text_tower_with_interpolated_weights(
    pair: CheckpointPair, pair_folder: PairFolder, tmp_path: Path
) -> None:
    one = load_file(pair_folder.weights(1))

    def mix(weights: dict[str, Tensor]) -> None:
        weights.update({name: torch.lerp(tensor, one[name], 0.35) for name, tensor in weights.items()})

    middle = load_checkpoints(None, pair_folder.theta_0, with_weights(tmp_path / "mixed", pair_folder.theta_0, mix))
    expected = middle.prompts(CLASSES, TEMPLATES).head(1.0)
    assert torch.equal(pair.prompts(CLASSES, TEMPLATES).head(0.35), expected)
    assert not torch.allclose(expected, pair.prompts(CLASSES, TEMPLATES).head(0.0), atol=1e-2)


def test_a_text_tower_that_was_locked_is_seen_as_shared(
    pair: CheckpointPair, pair_folder: PairFolder, tmp_path: Path
) -> None:
    zero = load_file(pair_folder.weights(0))

    def lock(weights: dict[str, Tensor]) -> None:
        weights.update({name: tensor for name, tensor in zero.items() if not name.startswith("visual.")})

    locked = load_checkpoints(None, pair_folder.theta_0, with_weights(tmp_path / "locked", pair_folder.theta_1, lock))
    assert locked.text_is_shared
    assert not pair.text_is_shared


def test_a_coca_pair_loads_and_its_text_is_open_clips(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {name: value for name, value in COCA["model_cfg"].items() if name != "custom_text"}
    models = [open_clip.CoCa(**settings).eval() for _ in range(2)]
    for parameter in (p for model in models for p in model.parameters() if p.ndim):
        nn.init.normal_(parameter, std=0.1)  # open_clip leaves some of them as the memory was
    names = [write_checkpoint(tmp_path / f"theta_{end}", model, COCA) for end, model in enumerate(models)]
    pair = load_checkpoints(None, names[0], names[1])
    tokens = open_clip.get_tokenizer(names[0])(["a photo of a car."])
    with torch.inference_mode():
        expected = models[1].encode_text(tokens, normalize=True)
    torch.testing.assert_close(pair.prompts(["car"], ["a photo of a {}."]).head(1.0).T, expected, rtol=0, atol=1e-5)


def test_models_that_ask_for_the_same_words_share_a_tokenizer_and_others_have_their_own(
    pair_folder: PairFolder, tmp_path: Path
) -> None:
    def shorter(config: dict[str, dict[str, object]]) -> None:
        config["model_cfg"]["text_cfg"] = {**CONFIG["model_cfg"]["text_cfg"], "context_length": 12}

    other = with_config(tmp_path / "other", pair_folder.theta_0, shorter)
    first, again, gaps = (_tokenizer(_Configs(), name) for name in (pair_folder.theta_0, pair_folder.theta_1, other))
    assert first is again
    assert first(["a bus"]).shape == (1, 16)
    assert gaps(["a bus"]).shape == (1, 12)


def test_nothing_of_open_clips_own_chatter_reaches_the_log(
    pair_folder: PairFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        load_checkpoints(pair_folder.theta_0, pair_folder.theta_0, str(pair_folder.weights(1)))
        logging.getLogger().warning("ours")
    assert [record.message for record in caplog.records] == ["ours"]


def test_a_folder_that_is_missing_is_named_with_the_setting(pair_folder: PairFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.theta_1: no open_clip_config\.json in the folder .*nowhere"):
        load_checkpoints(None, pair_folder.theta_0, f"local-dir:{tmp_path / 'nowhere'}")


def test_a_folder_without_weights_is_refused(pair_folder: PairFolder, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(CheckpointError, match=r"model\.theta_0: local-dir:.*empty does not load as its own config"):
        load_checkpoints(None, f"local-dir:{folder}", pair_folder.theta_1)


def test_a_file_without_an_architecture_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.theta_0 is .*does not name its architecture\. Set model\.arch"):
        load_checkpoints(None, str(tmp_path / "none.pt"), str(tmp_path / "none.pt"))


def test_a_pickle_of_a_whole_module_is_refused_unread_with_the_way_out(pair_folder: PairFolder, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(
        CheckpointError, match=r"module\.pt is a pickle with more than tensors.*state_dict as safetensors"
    ):
        load_checkpoints(pair_folder.theta_0, pair_folder.theta_0, str(tmp_path / "module.pt"))


def damaged(folder: Path, pair_folder: PairFolder) -> dict[str, bytes]:
    torch.save(load_file(pair_folder.weights(1)), folder / "whole.pt")
    whole = (folder / "whole.pt").read_bytes()
    torch.save({}, folder / "nothing.pt")
    torch.save([1, 2], folder / "list.pt")
    return {
        "cut.safetensors": pair_folder.weights(1).read_bytes()[:1000],
        "noise.safetensors": b"\xff" * 64,
        "cut.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "text.pt": b"not a checkpoint\n" * 9,
        "nothing.pt": (folder / "nothing.pt").read_bytes(),
        "list.pt": (folder / "list.pt").read_bytes(),
        "zip.npz": b"PK",
    }


def test_damaged_files_are_refused_by_name_whatever_the_reader_raises(pair_folder: PairFolder, tmp_path: Path) -> None:
    for name, content in damaged(tmp_path, pair_folder).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"model\.theta_1: .*{name} (does not load as|is a pickle with)"):
            load_checkpoints(pair_folder.theta_0, pair_folder.theta_0, str(tmp_path / name))
    with pytest.raises(CheckpointError, match=r"absent\.pt does not load as .*No such file"):
        load_checkpoints(pair_folder.theta_0, pair_folder.theta_0, str(tmp_path / "absent.pt"))


@pytest.mark.parametrize("architecture", ["ViT-B-32", "ViT-Z-99"])
def test_weights_of_another_architecture_are_refused_with_both_names(
    pair_folder: PairFolder, architecture: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"safetensors does not load as {architecture}: .*model\.architecture"):
        load_checkpoints(architecture, str(pair_folder.weights(0)), str(pair_folder.weights(1)))


def test_a_checkpoint_that_lacks_a_key_is_refused_with_the_key(pair_folder: PairFolder, tmp_path: Path) -> None:
    def drop(weights: dict[str, Tensor]) -> None:
        del weights["visual.proj"]

    # one full stop
    with pytest.raises(CheckpointError, match=r'Missing key\(s\) in state_dict: "visual\.proj"\. Check the path'):
        load_checkpoints(None, pair_folder.theta_0, with_weights(tmp_path / "short", pair_folder.theta_1, drop))


@pytest.mark.parametrize("form", ["folder", "file", "state dict"])
def test_a_matrix_of_whole_numbers_is_refused_with_its_key(form: str, pair_folder: PairFolder, tmp_path: Path) -> None:
    def quantize(weights: dict[str, Tensor]) -> None:
        weights["visual.proj"] = (weights["visual.proj"] * 100).to(torch.int8)

    theta_1 = with_weights(tmp_path / "whole", pair_folder.theta_1, quantize)
    if form != "folder":
        theta_1 = theta_1.removeprefix("local-dir:") + "/open_clip_model.safetensors"
    if form == "state dict":
        torch.save(load_file(theta_1), tmp_path / "whole.pt")
        theta_1 = str(tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"whole.*: 'visual\.proj' is int8, expected weights of a floating-point"):
        load_checkpoints(pair_folder.theta_0, pair_folder.theta_0, theta_1)


@pytest.mark.parametrize(
    ("vision", "blocks"),
    [({}, 3), ({"layers": [2, 2, 2, 2]}, None), ({"timm_model_name": "vit_tiny_patch16_224"}, None)],
)
def test_the_blocks_of_a_tower_are_known_from_its_config(
    vision: dict[str, object], blocks: int | None, pair_folder: PairFolder, tmp_path: Path
) -> None:
    def change(config: dict[str, dict[str, object]]) -> None:
        config["model_cfg"]["vision_cfg"].update(vision)  # type: ignore[attr-defined]

    assert stated_blocks("", with_config(tmp_path / "other", pair_folder.theta_0, change)) == blocks
    assert stated_blocks("ViT-B-32", "laion2b_s34b_b79k") == 12
    assert stated_blocks("local-dir:none", str(tmp_path / "a.pt")) is None


def test_two_architectures_are_refused_with_the_first_key_that_differs(pair_folder: PairFolder, tmp_path: Path) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["model_cfg"]["vision_cfg"]["layers"] = 4
    other = write_checkpoint(tmp_path / "deep", open_clip.CLIP(**config["model_cfg"]), config)
    with pytest.raises(CheckpointError, match=r"'visual\.transformer\.resblocks\.3\..*' is in theta_1 only"):
        load_checkpoints(None, pair_folder.theta_0, other)


def test_quickgelu_in_one_of_the_two_is_refused(pair_folder: PairFolder, tmp_path: Path) -> None:
    def quick(config: dict[str, dict[str, object]]) -> None:
        config["model_cfg"]["quick_gelu"] = True

    with pytest.raises(CheckpointError, match=r"'quick_gelu' is false and true.*Set model\.quick_gelu"):
        load_checkpoints(None, pair_folder.theta_0, with_config(tmp_path / "quick", pair_folder.theta_1, quick))


def test_different_preprocessing_is_refused_with_what_differs(pair_folder: PairFolder, tmp_path: Path) -> None:
    def squash(config: dict[str, dict[str, object]]) -> None:
        config["preprocess_cfg"]["resize_mode"] = "squash"

    with pytest.raises(CheckpointError, match=r"'resize_mode' is shortest and squash"):
        load_checkpoints(None, pair_folder.theta_0, with_config(tmp_path / "squash", pair_folder.theta_1, squash))


def test_the_same_checkpoint_twice_is_refused(pair_folder: PairFolder) -> None:
    with pytest.raises(CheckpointError, match="same weights"):
        load_checkpoints(None, pair_folder.theta_0, pair_folder.theta_0)


def test_a_checkpoint_whose_training_diverged_is_refused(pair_folder: PairFolder, tmp_path: Path) -> None:
    def diverge(weights: dict[str, Tensor]) -> None:
        weights["visual.proj"][0, 0] = torch.nan

    with pytest.raises(CheckpointError, match=r"'visual\.proj' in theta_1 holds values that are not finite"):
        load_checkpoints(None, pair_folder.theta_0, with_weights(tmp_path / "nan", pair_folder.theta_1, diverge))


def test_a_hash_tells_values_names_and_shapes_apart() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(3, 3)
    before = hash_weights(linear)
    assert hash_weights(linear) == before
    with torch.no_grad():
        linear.weight[0, 0] += 1e-7
    assert hash_weights(linear) != before
    assert hash_weights(nn.Sequential(linear)) != hash_weights(linear)


def model_changed(folder: Path, pair: PairFolder, table: str, values: dict[str, object]) -> tuple[str, str]:
    """Both checkpoints with other values in a table of `model_cfg`, or in itself ("")."""

    def change(config: dict[str, dict[str, object]]) -> None:
        model = config["model_cfg"]
        (model[table] if table else model).update(values)  # type: ignore[attr-defined]

    return with_config(folder / "0", pair.theta_0, change), with_config(folder / "1", pair.theta_1, change)


INVISIBLE_IN_SHAPES: list[tuple[str, dict[str, object]]] = [
    ("vision_cfg", {"head_width": 32}),
    ("vision_cfg", {"pool_type": "avg"}),
    ("vision_cfg", {"norm_kwargs": {"eps": 1e-3}}),
    ("text_cfg", {"norm_kwargs": {"eps": 1e-3}}),
]


CHANGES_LOGITS: dict[str, object] = {
    "vision_cfg.head_width": 32,
    "vision_cfg.attn_pooler_queries": 512,
    "vision_cfg.attn_pooler_heads": 16,
    "vision_cfg.pos_embed_type": "sin_cos_2d",
    "vision_cfg.final_ln_after_pool": True,
    "vision_cfg.pool_type": "avg",
    "vision_cfg.output_tokens": True,
    "vision_cfg.act_kwargs": {"approximate": "tanh"},
    "vision_cfg.norm_kwargs": {"eps": 1e-3},
    "vision_cfg.block_type": "custom",
    "text_cfg.heads": 4,
    "text_cfg.pad_id": 3,
    "text_cfg.eos_id": 5,
    "text_cfg.no_causal_mask": True,
    "text_cfg.final_ln_after_pool": True,
    "text_cfg.pool_type": "last",
    "text_cfg.output_tokens": True,
    "text_cfg.act_kwargs": {"approximate": "tanh"},
    "text_cfg.norm_kwargs": {"eps": 1e-3},
    "text_cfg.block_type": "custom",
}
"""Another value of each key of a config that decides what given weights compute, though they have the same shapes."""

SHOWN_BY_WEIGHTS = {
    *("width", "layers", "mlp_ratio", "patch_size", "image_size", "context_length", "vocab_size", "ls_init_value"),
    *("attentional_pool", "no_ln_pre", "embed_cls", "proj_type", "proj_bias", "qk_norm", "scaled_cosine_attn"),
    *("scale_heads", "scale_attn", "scale_attn_inner", "scale_fc", "timm_model_name", "hf_model_name"),
}


def test_every_key_that_open_clip_knows_is_refused_by_weights_or_name_or_changes_no_logits() -> None:
    ours = {f"{table}.{key}" for table in ("vision_cfg", "text_cfg") for key in _DEFAULTS[table]}
    left = {name.partition(".")[2] for name in ours - CHANGES_LOGITS.keys()} - SHOWN_BY_WEIGHTS
    of_other_towers = {key for key in left if key.startswith(("timm_", "hf_"))}
    assert left - of_other_towers == {"patch_dropout", "tokenizer_mode", "tokenizer_kwargs"}


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("name", CHANGES_LOGITS)
def test_two_configs_that_differ_in_what_weights_do_not_show_are_refused_by_name_and_both_values(
    pair_folder: PairFolder, tmp_path: Path, name: str, end: int
) -> None:
    table, _, key = name.partition(".")
    changed = model_changed(tmp_path, pair_folder, table, {key: CHANGES_LOGITS[name]})
    before = CONFIG["model_cfg"][table].get(key, _DEFAULTS[table][key])
    values = (CHANGES_LOGITS[name], before) if end == 0 else (before, CHANGES_LOGITS[name])
    thetas = (changed[0], pair_folder.theta_1) if end == 0 else (pair_folder.theta_0, changed[1])
    expected = f"different models: {name} is {values[0]} and {values[1]} by their configs"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        load_checkpoints(None, *thetas)


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize(
    ("table", "values"), [("text_cfg", {"no_causal_mask": True}), ("multimodal_cfg", {"heads": 4})]
)
def test_a_captioner_of_another_config_is_refused_by_name(
    tmp_path: Path, table: str, values: dict[str, object], end: int
) -> None:
    configs = [json.loads(json.dumps(COCA)) for _ in range(2)]
    configs[end]["model_cfg"][table].update(values)
    thetas = []
    for place, config in enumerate(configs):
        model = open_clip.CoCa(**{name: value for name, value in COCA["model_cfg"].items() if name != "custom_text"})
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)  # open_clip leaves some of them as the memory was
        thetas.append(write_checkpoint(tmp_path / f"theta_{place}", model, config))
    with pytest.raises(
        CheckpointError, match=rf"different models: {table}\.{next(iter(values))} is .* by their configs"
    ):
        load_checkpoints(None, *thetas)


@pytest.mark.parametrize(("table", "values"), [*INVISIBLE_IN_SHAPES, ("", {"quick_gelu": True})])
def test_the_same_weights_with_another_config_are_another_identity_fingerprint_and_cache_of_heads(
    pair: CheckpointPair, pair_folder: PairFolder, tmp_path: Path, table: str, values: dict[str, object]
) -> None:
    other = load_checkpoints(None, *model_changed(tmp_path, pair_folder, table, values))
    assert other.hashes == pair.hashes, "what states and orders of earlier versions are tied to"
    ours, theirs = classifier(pair), classifier(other)
    assert ours.fingerprint != theirs.fingerprint
    assert {name for name in ours.identity if ours.identity[name] != theirs.identity[name]} == {"config"}
    for each in (ours, theirs):
        each.use_cache(tmp_path / "cache", 1 << 24)
        each.embeddings()
    again, found = classifier(other), classifier(pair)
    again.use_cache(tmp_path / "cache", 1 << 24)
    assert torch.equal(again.embeddings(), theirs.embeddings())
    found.use_cache(tmp_path / "cache", 1 << 24)
    assert torch.equal(found.embeddings(), ours.embeddings())


@pytest.mark.parametrize("key", ["mean", "std"])
def test_pixels_that_are_normalised_otherwise_are_another_identity(
    pair: CheckpointPair, pair_folder: PairFolder, tmp_path: Path, key: str
) -> None:
    def change(config: dict[str, dict[str, object]]) -> None:
        config["preprocess_cfg"][key] = [0.5, 0.5, 0.5]

    folders = [
        with_config(tmp_path / name, source, change)
        for name, source in (("0", pair_folder.theta_0), ("1", pair_folder.theta_1))
    ]
    assert load_checkpoints(None, *folders).config != pair.config


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (
            "vision_cfg",
            {"timm_drop": 0.1, "pool_type": "tok", "image_size": [SIZE, SIZE], "norm_kwargs": {"eps": 1e-5}},
        ),
        ("vision_cfg", {"timm_pool": "token", "act_kwargs": {}}),
        ("text_cfg", {"hf_model_pretrained": True, "pool_type": "argmax"}),
        ("", {"custom_text": False, "init_logit_scale": 4.0}),
    ],
)
def test_what_is_of_training_or_said_without_need_is_no_other_config(
    pair: CheckpointPair, pair_folder: PairFolder, tmp_path: Path, table: str, values: dict[str, object]
) -> None:
    zero, one = model_changed(tmp_path, pair_folder, table, values)
    assert load_checkpoints(None, zero, one).config == pair.config
    assert load_checkpoints(None, pair_folder.theta_0, one).config == pair.config
