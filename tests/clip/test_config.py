"""What a pair's folder may say: shapes, and nothing that fetches or runs."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants as hub

from adawise.clip.config import check_config, check_size
from adawise.clip.load import _TABLES, _hub_is_offline, load_checkpoints, load_starting_model
from adawise.errors import CheckpointError
from tests.models import CONFIG, PairFolder

Model = dict[str, Any]


def changed(folder: Path, pair_folder: PairFolder, **parts: Any) -> str:
    """A copy of theta_0 whose config has these, by table and name (`vision_cfg__layers`) or by name."""
    shutil.copytree(pair_folder.theta_0.removeprefix("local-dir:"), folder)
    config = json.loads(json.dumps(CONFIG))
    for name, value in parts.items():
        *table, key = name.split("__")
        (config["model_cfg"][table[0]] if table else config["model_cfg"])[key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sockets cannot be made, and nobody tried to, whatever became of the error."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


@pytest.mark.parametrize("name", sorted(set(open_clip.list_models())))
def test_each_config_of_open_clips_own_is_allowed(name: str) -> None:
    check_config(open_clip.get_model_config(name), name, tables=_TABLES)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"vision_cfg__timm_model_name": "hf-hub:someone/model"}, r"vision_cfg\.timm_model_name is 'hf-hub:"),
        ({"vision_cfg__timm_model_name": "local-dir:/tmp/model"}, r"vision_cfg\.timm_model_name is 'local-dir:"),
        ({"vision_cfg__timm_model_name": "someone/model"}, r"vision_cfg\.timm_model_name"),
        ({"text_cfg__hf_model_name": "someone/model"}, r"text_cfg\.hf_model_name .* a folder on this machine"),
        ({"text_cfg__tokenizer_kwargs": {"trust_remote_code": True}}, r"text_cfg\.tokenizer_kwargs"),
        ({"text_cfg__tokenizer_kwargs": {"cache_dir": "/tmp"}}, r"text_cfg\.tokenizer_kwargs"),
        ({"text_cfg__tokenizer_kwargs": ["clean"]}, r"text_cfg\.tokenizer_kwargs"),
        ({"vision_cfg__norm_kwargs": {"device": "cuda"}}, r"vision_cfg\.norm_kwargs"),
        ({"vision_cfg__act_kwargs": {"inplace": True}}, r"vision_cfg\.act_kwargs"),
        ({"vision_cfg__surprise": 1}, r"vision_cfg\.surprise is 1, expected one that open_clip knows: .*layers"),
        ({"surprise": 1}, r"surprise is 1, expected one of .*embed_dim"),
        ({"cast_dtype": "float16"}, "cast_dtype"),
        ({"vision_cfg__layers": 100_000_000}, r"vision_cfg\.layers is 100000000, expected up to 512"),
        ({"vision_cfg__layers": [3, 4, 10**6, 3]}, r"vision_cfg\.layers"),
        ({"vision_cfg__image_size": 10**5}, r"vision_cfg\.image_size is 100000, expected 1 to 2048"),
        ({"vision_cfg__patch_size": 0}, r"vision_cfg\.patch_size is 0, expected 1 to 256"),
        ({"vision_cfg__mlp_ratio": 1000}, r"vision_cfg\.mlp_ratio is 1000, expected 0 to 64"),
        ({"text_cfg__context_length": 10**6}, r"text_cfg\.context_length is 1000000, expected 1 to 4096"),
        ({"vision_cfg__patch_size": 10**12}, r"vision_cfg\.patch_size"),
        ({"vision_cfg__mlp_ratio": 1e300}, r"vision_cfg\.mlp_ratio"),
        ({"vision_cfg__pool_type": {"a": 1}}, r"vision_cfg\.pool_type"),
        ({"vision_cfg__pool_type": "x" * 1000}, r"vision_cfg\.pool_type is 'xxx"),
        ({"vision_cfg__pool_type": "__import__('os')"}, r"vision_cfg\.pool_type"),
        ({"text_cfg": None}, "text_cfg is None, expected a table"),
        ({"text_cfg": [1]}, r"model_cfg or preprocess_cfg is not a table"),
        ({"embed_dim": [1, 2, 3, 4, 5]}, "embed_dim"),
    ],
)
def test_a_folder_whose_config_says_more_is_refused_by_name(
    parts: dict[str, Any], expected: str, pair_folder: PairFolder, tmp_path: Path, no_network: None
) -> None:
    hostile = changed(tmp_path / "hostile", pair_folder, **parts)
    for pair in ((hostile, pair_folder.theta_1), (pair_folder.theta_0, hostile)):
        with pytest.raises(CheckpointError, match=rf"hostile/open_clip_config\.json.*{expected}"):
            load_checkpoints(None, *pair)
    with pytest.raises(CheckpointError, match=expected):
        load_starting_model("ViT-B-32", hostile)


@pytest.mark.parametrize(
    "parts",
    [
        {"vision_cfg__width": 10**6},
        {"vision_cfg__layers": 512, "vision_cfg__width": 4_096},
        {"text_cfg__vocab_size": 10**7, "text_cfg__width": 512},
        {"embed_dim": 10**7},
    ],
)
def test_a_config_that_makes_far_more_than_the_file_has_is_refused_before_it_is_made(
    parts: dict[str, Any], pair_folder: PairFolder, tmp_path: Path
) -> None:
    hostile = changed(tmp_path / "hostile", pair_folder, **parts)
    with pytest.raises(CheckpointError, match=r"hostile: its config makes a model of .* million weights, but the file"):
        load_checkpoints(None, hostile, pair_folder.theta_1)


@pytest.mark.parametrize("name", sorted(set(open_clip.list_models())))
def test_the_size_of_each_model_of_open_clips_own_fits_its_file(name: str) -> None:
    """As half precision, of which a file may be: by the least that the towers can have."""
    config = open_clip.get_model_config(name)
    vision = config["vision_cfg"]
    if "timm_model_name" in vision or isinstance(vision["layers"], list) or "hf_model_name" in config["text_cfg"]:
        return
    with torch.device("meta"):
        model = open_clip.create_model(name, load_weights=False, device="meta")
    weights = sum(parameter.numel() for parameter in model.parameters())
    check_size(config, name, 2 * weights)


def test_a_name_of_a_model_hub_is_refused_and_not_asked_for(pair_folder: PairFolder, no_network: None) -> None:
    files = (str(pair_folder.weights(0)), str(pair_folder.weights(1)))
    for offline in (True, False):
        with pytest.raises(CheckpointError, match=r"model\.architecture is 'hf-hub:someone', expected a name"):
            load_checkpoints("hf-hub:someone", *files, offline=offline)


def test_the_hub_is_offline_until_the_last_of_several_loads_ends() -> None:
    first, second = _hub_is_offline(), _hub_is_offline()
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert hub.HF_HUB_OFFLINE
    second.__exit__()
    assert not hub.HF_HUB_OFFLINE


def test_a_pair_of_folders_loads_without_a_network(pair_folder: PairFolder, no_network: None) -> None:
    assert load_checkpoints(None, pair_folder.theta_0, pair_folder.theta_1).hashes
    files = (str(pair_folder.weights(0)), str(pair_folder.weights(1)))
    assert load_checkpoints(pair_folder.theta_0, *files).hashes
    assert not hub.HF_HUB_OFFLINE, "what the operator names may be fetched afterwards"


def test_offline_a_tag_that_is_not_in_the_cache_is_refused_and_nothing_is_fetched(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for architecture, tag in (("ViT-B-32", "openai"), ("ViT-B-32", "laion2b_s34b_b79k"), ("RN50", "yfcc15m")):
        with pytest.raises(CheckpointError, match=rf"model\.theta_\d: {tag} "):
            load_checkpoints(architecture, tag, tag, offline=True)


class RecordingTokenizer:
    """A tokenizer of transformers that remembers how it was asked for."""

    calls: list[tuple[object, dict[str, Any], bool]]

    @classmethod
    def from_pretrained(cls, name: object, **settings: Any) -> RecordingTokenizer:
        cls.calls.append((name, settings, hub.HF_HUB_OFFLINE))
        return cls()


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> type[RecordingTokenizer]:
    """A stand-in for the package, of which a tokenizer is asked."""
    RecordingTokenizer.calls = []
    module = ModuleType("transformers")
    module.AutoTokenizer = RecordingTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    return RecordingTokenizer


def test_a_tokenizer_of_a_folder_is_asked_for_without_its_code_and_without_the_hub(
    pair_folder: PairFolder, tmp_path: Path, transformers: type[RecordingTokenizer]
) -> None:
    text = {"text_cfg__hf_tokenizer_name": "someone/words", "text_cfg__tokenizer_kwargs": {"clean": "canonicalize"}}
    pair = [changed(tmp_path / str(end), pair_folder, **text) for end in (0, 1)]
    shutil.copy(pair_folder.weights(1), tmp_path / "1" / "open_clip_model.safetensors")
    load_checkpoints(None, *pair)
    [(folder, settings, is_offline)] = transformers.calls
    assert (folder, settings["trust_remote_code"], is_offline) == (tmp_path / "0", False, True)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", null]}}', "asks to run Python"),
        ("[" * 100_000, "damaged"),
        ("", "damaged"),
        ("[]", "asks to run Python"),
    ],
    ids=["code", "nested", "empty", "no table"],
)
def test_a_folder_that_brings_code_is_refused(
    file: str,
    content: str,
    expected: str,
    pair_folder: PairFolder,
    tmp_path: Path,
    transformers: type[RecordingTokenizer],
) -> None:
    hostile = changed(tmp_path / "hostile", pair_folder, text_cfg__hf_tokenizer_name="x")
    (tmp_path / "hostile" / file).write_text(content)
    with pytest.raises(CheckpointError, match=rf"hostile/{file}: .*{expected}"):
        load_checkpoints(None, hostile, pair_folder.theta_1)
    assert transformers.calls == []


def test_a_config_that_is_replaced_while_it_loads_changes_nothing(
    pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once: what was checked is what is used."""
    pair = [tmp_path / str(end) for end in (0, 1)]
    for end, theta in enumerate((pair_folder.theta_0, pair_folder.theta_1)):
        shutil.copytree(theta.removeprefix("local-dir:"), pair[end])
    checked: list[str] = []

    def replace_after(check: Callable[..., None]) -> Callable[..., None]:
        def checks(model: Model, where: str, **rest: Any) -> None:
            check(model, where, **rest)
            checked.append(where)
            Path(where).write_text(json.dumps({"model_cfg": {"evil": 1}}))

        return checks

    monkeypatch.setattr("adawise.clip.load.check_config", replace_after(check_config))
    loaded = load_checkpoints(None, f"local-dir:{pair[0]}", f"local-dir:{pair[1]}")
    monkeypatch.undo()
    assert loaded.hashes == load_checkpoints(None, pair_folder.theta_0, pair_folder.theta_1).hashes
    assert checked == [str(folder / "open_clip_config.json") for folder in pair]
