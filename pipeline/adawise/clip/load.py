"""Loading: two open_clip checkpoints become a checked pair. No other module imports open_clip."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from adawise.adapt.interpolate import check_finite, check_pair, check_shapes, freeze_statistics
from adawise.clip.archive import check_unpacked_size, is_archive, read_archive
from adawise.clip.compiler import postponed
from adawise.clip.config import check_alike, check_config, check_size, config_digest, used_config
from adawise.clip.layers import multiply_patches, pack_attention
from adawise.clip.preprocessing import (
    CONFIG_NAME,
    Preprocessing,
    StatedValues,
    beside,
    in_words,
    is_same,
    of_architecture,
    of_config,
    of_tag,
    read_config,
    settle,
)
from adawise.clip.prompts import Prompts, text_parameters
from adawise.clip.trunk import NoTrunkError, Trunk, has_equal_bits, shared_trunk
from adawise.decode.preprocess import Preprocess
from adawise.errors import CheckpointError
from adawise.text import shared_layers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # timm and torchvision warn of deprecations on import
    with suppress(ImportError, AttributeError), postponed():
        import open_clip
    import open_clip  # again, with the compiler: another release may need more of it than `postponed` has
    from huggingface_hub import constants as hub
    from open_clip.coca_model import MultimodalCfg
    from open_clip.factory import load_checkpoint
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from open_clip.transform import PreprocessCfg, image_transform_v2

_LOCAL = "local-dir:"
_KINDS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
_TABLES = {table: frozenset(field.name for field in fields(kind)) for table, kind in _KINDS.items()}
_DEFAULTS = {table: json.loads(json.dumps(asdict(kind()))) for table, kind in _KINDS.items()}
_WEIGHTS = {".safetensors": 0, ".bin": 1, ".pth": 1}  # suffix -> its place in the order of preference
_PREFERRED = [
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
]
_log = structlog.get_logger("model")
_of_own_table: dict[tuple[str, str], Any] = {}
"""Tokenizers of open_clip's own table, by what decides them: to parse it takes longer than to load a small pair."""


@dataclass(frozen=True, eq=False)
class CheckpointPair:
    """A checked pair.

    Attributes:
        tower: the image tower's module.
        theta_0: its zero-shot parameters by name, float32 on the CPU. A parameter with two names is there by both.
        theta_1: its fine-tuned parameters, likewise.
        preprocess: how images are resized.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        preparation: the settled preprocessing, with the source of each value.
        log_scales: the two logit scales in log space.
        hashes: of the weights, and of settings that change their meaning, for each checkpoint.
        config: a hash of `used_config`.
        used_config: the config of both, with mean, std and GELU as they are used.
    """

    tower: nn.Module = field(repr=False)
    theta_0: Mapping[str, Tensor] = field(repr=False)
    theta_1: Mapping[str, Tensor] = field(repr=False)
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    preparation: Preprocessing
    log_scales: tuple[float, float]
    hashes: tuple[str, str]
    config: str
    _models: tuple[Any, Any] = field(repr=False)  # of open_clip's classes, which have no types
    _tokenizer: Any = field(repr=False)
    used_config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def text_is_shared(self) -> bool:
        """True if both text towers are equal, so that one head serves every alpha."""
        zero, one = (text_parameters(model) for model in self._models)
        return all(torch.equal(zero[name], one[name]) for name in zero)

    @cached_property
    def trunk(self) -> Trunk | NoTrunkError:
        """The image tower, cut behind the layers that both models share, or the reason why it is not."""
        size = self.preprocess.size
        try:
            return shared_trunk(self.tower, self.theta_0, self.theta_1, (3, size, size))
        except NoTrunkError as reason:
            return NoTrunkError(str(reason))  # the traceback of the raised one would keep this pair in memory

    def share_memory(self, theta_0: Mapping[str, Tensor], theta_1: Mapping[str, Tensor]) -> None:
        """Let both image towers use these tensors, which are equal to their own, and free their own.

        Args:
            theta_0: parameters of the zero-shot tower by name, all or some, float32 on the CPU.
            theta_1: the same parameters of the fine-tuned tower.
        """
        for model, own, given in zip(self._models, (self.theta_0, self.theta_1), (theta_0, theta_1), strict=True):
            parameters = dict(model.visual.named_parameters())
            for name, tensor in given.items():
                if name in parameters and own[name].data_ptr() == parameters[name].data_ptr():
                    own[name].set_(tensor)  # type: ignore[call-overload]
                    parameters[name].data = tensor

    @property
    def tail_share(self) -> float:
        """The cost of an image at a second alpha, as a share of a forward, in (0, 1]; 1 if the tower is not cut."""
        return self.trunk.tail_share if isinstance(self.trunk, Trunk) else 1.0

    @property
    def shared_layers(self) -> str:
        """The layers that the two image towers share, in words."""
        return shared_layers(self.tail_share, "" if isinstance(self.trunk, Trunk) else str(self.trunk))

    def prompts(self, classes: Sequence[str], templates: Sequence[str]) -> Prompts:
        """Return the prompts for the text tower: each class name in each template."""
        texts = [template.replace("{}", name) for name in classes for template in templates]
        return Prompts(self._models, self._tokenizer(texts), len(classes))


def load_checkpoints(
    architecture: str | None,
    theta_0: str,
    theta_1: str,
    *,
    wanted: Mapping[str, Any] | None = None,
    offline: bool = False,
) -> CheckpointPair:
    """Load and check both checkpoints.

    Args:
        architecture: an open_clip name such as `ViT-B-32`, or `local-dir:FOLDER`; not needed if both checkpoints are
            `local-dir:` folders.
        theta_0: the zero-shot checkpoint: a file (safetensors preferred), `local-dir:FOLDER`, or a pretrained tag.
        theta_1: the fine-tuned one, likewise.
        wanted: values of `preprocessing.KEYS` that both are to have, whatever their configs say.
        offline: take a pretrained tag from the cache of this machine or not at all. Folders never cause a download.

    Raises:
        CheckpointError: one cannot be loaded, or they are no pair; the message names the file or key and the remedy.
    """
    configs, thetas = _Configs(), {"theta_0": theta_0, "theta_1": theta_1}
    with _hub_is_offline() if offline or _are_here(architecture, theta_0, theta_1) else nullcontext():
        prepared = _settled(configs, architecture, thetas, wanted or {})
        return _load_checkpoints(configs, architecture, prepared, (theta_0, theta_1))


def _load_checkpoints(
    configs: _Configs, architecture: str | None, prepared: Preprocessing, thetas: tuple[str, str]
) -> CheckpointPair:
    theta_0, _ = thetas
    with ThreadPoolExecutor(2) as both, _open_clip_silenced():
        zero, one = both.map(partial(_load, configs, architecture, prepared), thetas, ("theta_0", "theta_1"))
    models = zero, one
    named = [configs.model(_named(architecture, theta)) for theta in thetas]
    check_shapes(*models)
    # Before `check_pair`, which would find the effect of another config in buffers and modules, and not name its key.
    check_alike(*named, defaults=_DEFAULTS)
    check_pair(*models)
    settings = [_preprocess_cfg(model, prepared) for model in models]
    # The fill colour matters only if pictures are padded.
    padding = {"fill_color"} if settings[0]["resize_mode"] != "longest" else set[str]()
    for key in (settings[0].keys() | settings[1].keys()) - padding:
        if settings[0].get(key) != settings[1].get(key):
            raise CheckpointError(
                f"theta_0 and theta_1 need different preprocessing: '{key}' is {settings[0].get(key)} and "
                f"{settings[1].get(key)}. Give both the preprocess_cfg that theta_1 was fine-tuned with."
            )
    for model in models:
        pack_attention(model)
        multiply_patches(model)
    tower = models[0].visual
    with ThreadPoolExecutor(2) as both, _open_clip_silenced():
        hashing = both.map(partial(_hash, prepared), models, named)
        tokenizer = _tokenizer(configs, _named(architecture, theta_0))
        hash_0, hash_1 = hashing
    _share_equal(*models)
    config = used_config(named[0], prepared.values, defaults=_DEFAULTS)
    return CheckpointPair(
        tower=tower,
        theta_0=_named_parameters(tower),
        theta_1=_named_parameters(models[1].visual),
        preprocess=_preprocess(settings[0]),
        mean=prepared.values["mean"],
        std=prepared.values["std"],
        preparation=prepared,
        log_scales=(float(models[0].logit_scale.detach()), float(models[1].logit_scale.detach())),
        hashes=(hash_0, hash_1),
        config=config_digest(config),
        _models=models,
        _tokenizer=tokenizer,
        used_config=config,
    )


def _share_equal(zero: nn.Module, one: nn.Module) -> None:
    """Let the second model use the first one's memory for parameters that are equal bit for bit, and free its own."""
    of_zero = dict(zero.named_parameters(remove_duplicate=False))
    for name, parameter in one.named_parameters(remove_duplicate=False):
        if has_equal_bits(of_zero[name], parameter):
            parameter.data = of_zero[name].data


def _named_parameters(tower: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in tower.named_parameters(remove_duplicate=False)}


@dataclass(frozen=True, eq=False)
class StartingModel:
    """theta_0 alone, float32 on the CPU, for fine-tuning; `config` is the content of `open_clip_config.json` for it."""

    model: Any
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    config: Mapping[str, Any]
    hash: str
    tokenizer: Any


def load_starting_model(architecture: str, theta_0: str, *, wanted: Mapping[str, Any] | None = None) -> StartingModel:
    """Load theta_0 for fine-tuning; arguments and errors are those of `load_checkpoints`."""
    configs, name = _Configs(), _named(architecture, theta_0)
    model, prepared, tokenizer = _load_alone(configs, architecture, theta_0, wanted)
    freeze_statistics(model)
    check_finite(model, "theta_0")
    settings = _preprocess_cfg(model, prepared)
    config = {**configs.model(name), "quick_gelu": prepared.values["quick_gelu"]}
    pack_attention(model)
    multiply_patches(model)
    return StartingModel(
        model=model,
        preprocess=_preprocess(settings),
        mean=prepared.values["mean"],
        std=prepared.values["std"],
        config={"model_cfg": config, "preprocess_cfg": settings},
        hash=_hash(prepared, model, configs.model(name)),
        tokenizer=tokenizer,
    )


@dataclass(frozen=True, eq=False)
class OpenClipModel:
    """One checkpoint as open_clip itself runs it, float32 on the CPU; the bench compares the program with it.

    `transform` makes a Pillow image a tensor `[3, S, S]`, and `tokenizer` makes prompts tokens `[N, L]`.
    """

    model: Any
    transform: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[Sequence[str]], Tensor]


def load_open_clip(
    architecture: str | None, checkpoint: str, *, wanted: Mapping[str, Any] | None = None
) -> OpenClipModel:
    """Load a checkpoint with open_clip's own modules and preprocessing; see `load_checkpoints`."""
    model, prepared, tokenizer = _load_alone(_Configs(), architecture, checkpoint, wanted)
    transform = image_transform_v2(PreprocessCfg(**_preprocess_cfg(model, prepared)), is_train=False)
    return OpenClipModel(model, transform, tokenizer)


def _load_alone(
    configs: _Configs, architecture: str | None, checkpoint: str, wanted: Mapping[str, Any] | None
) -> tuple[Any, Preprocessing, Any]:
    """Return the model of one checkpoint, its settled preprocessing and its tokenizer."""
    with _hub_is_offline() if _are_here(architecture, checkpoint) else nullcontext():
        prepared = _settled(configs, architecture, {"theta_0": checkpoint}, wanted or {})
        with _open_clip_silenced():
            model = _load(configs, architecture, prepared, checkpoint, "theta_0")
            return model, prepared, _tokenizer(configs, _named(architecture, checkpoint))


class _Configs:
    """open_clip's configs of the models of one load, each read and checked once, so that the checked one is used."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, Any]] = {}

    def whole(self, name: str) -> dict[str, Any]:
        """Return the config of a `local-dir:` folder; empty if there is none.

        Raises:
            CheckpointError: the config is refused.
        """
        if name not in self._read:
            path = Path(name.removeprefix(_LOCAL)) / CONFIG_NAME
            config = read_config(path) if path.is_file() else {}
            check_config(config.get("model_cfg") or {}, str(path), tables=_TABLES, folder=path.parent)
            self._read[name] = config
        return deepcopy(self._read[name])

    def model(self, name: str) -> dict[str, Any]:
        """Return the `model_cfg` of a folder or of a name of open_clip's; empty if there is none.

        Raises:
            CheckpointError: the name is that of a model hub, or the config is refused.
        """
        if name.startswith(_LOCAL):
            return dict(self.whole(name).get("model_cfg") or {})
        if ":" in name:
            raise CheckpointError(
                f"model.architecture is {name[:80]!r}, expected a name that open_clip knows, or local-dir:FOLDER. "
                "Load a model of a hub from a folder that has all of its files."
            )
        return open_clip.get_model_config(name) or {}


def stated_blocks(architecture: str, checkpoint: str) -> int | None:
    """Return the number of blocks of an image tower by its config, without its weights; None if that does not say it.

    Raises:
        CheckpointError: the config is refused.
    """
    vision = _Configs().model(_named(architecture, checkpoint)).get("vision_cfg")
    if not vision or vision.get("timm_model_name"):
        return None
    layers = vision.get("layers", _DEFAULTS["vision_cfg"]["layers"])
    return layers if isinstance(layers, int) else None  # a ResNet has a list of stages


def _are_here(architecture: str | None, *checkpoints: str) -> bool:
    """Return True if nothing is to be downloaded: folders, or files with an architecture that is a folder.

    A file with an architecture by name does not count, because its tokenizer may be on a model hub.
    """
    is_folder = (architecture or "").startswith(_LOCAL)
    return all(each.startswith(_LOCAL) or (is_folder and Path(each).is_file()) for each in checkpoints)


class _Hub:
    """A lock that keeps huggingface_hub, and so transformers and timm, offline while any load of this process is."""

    def __init__(self) -> None:
        self._lock, self._loads, self._before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._loads:
                self._before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, True
            self._loads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._loads -= 1
            if not self._loads:
                hub.HF_HUB_OFFLINE = self._before


_HUB = _Hub()


def _hub_is_offline() -> _Hub:
    """Return a context within which nothing is downloaded; only the hub's cache is used."""
    return _HUB


def _settled(
    configs: _Configs, architecture: str | None, checkpoints: Mapping[str, str], wanted: Mapping[str, Any]
) -> Preprocessing:
    """Return the preprocessing of these checkpoints, by their roles; guessed values are logged."""
    stated = {role: _known(configs, architecture, checkpoint) for role, checkpoint in checkpoints.items()}
    name = _named(architecture, "") if not all(name.startswith(_LOCAL) for name in checkpoints.values()) else ""
    config = {} if name.startswith(_LOCAL) else configs.model(name)
    tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    agreed = of_architecture([of_tag(tag, config, "") for tag in tags], config, name)
    prepared = settle(wanted, stated, agreed, {**asdict(PreprocessCfg()), "quick_gelu": False})
    if prepared.guessed:
        values = {key: in_words(value) for key, value in prepared.guessed.items()}
        _log.warning("preprocessing_guessed", **values, remedy=prepared.advice)
    return prepared


def _known(configs: _Configs, architecture: str | None, checkpoint: str) -> StatedValues | None:
    """Return what is known of the preprocessing of one checkpoint; None if nothing is."""
    name = _named(architecture, checkpoint)
    if name.startswith(_LOCAL):
        path = Path(name.removeprefix(_LOCAL)) / CONFIG_NAME
        config = configs.whole(name)
        return of_config(config, str(path)) if config else None  # the error of loading it says more
    if is_archive(checkpoint, of_openai=True):
        return StatedValues({**asdict(PreprocessCfg()), "quick_gelu": True}, f"OpenAI's archive {checkpoint}")
    config, parts = configs.model(name), Path(checkpoint).parts
    if tag := open_clip.get_pretrained_cfg(name, checkpoint):
        return of_tag(tag, config, f"open_clip's tag {checkpoint}")
    for tag in open_clip.list_pretrained_tags_by_model(name):
        known = open_clip.get_pretrained_cfg(name, tag)
        files = known["url"].rpartition("/")[2], f"models--{known['hf_hub'].strip('/').replace('/', '--')}"
        # A file with the name of a published one is taken for that one.
        if any(file in parts for file in files):  # its name as downloaded, or its folder in the hub's cache
            return of_tag(known, config, f"open_clip's tag {tag}")
    return beside(checkpoint, config)


def _named(architecture: str | None, checkpoint: str) -> str:
    """Return the name by which open_clip knows the model: a folder, or an architecture in open_clip's spelling."""
    folders = (name for name in (checkpoint, architecture or "") if name.startswith(_LOCAL))
    return next(folders, (architecture or "").replace("/", "-"))


def _tokenizer(configs: _Configs, name: str) -> Any:
    """Return a model's tokenizer; those of open_clip's own table are kept.

    Raises:
        CheckpointError: as of `_new_tokenizer`.
    """
    text = configs.model(name).get("text_cfg") or {}
    key = "" if name.startswith(_LOCAL) else name, json.dumps(text, sort_keys=True)
    if key in _of_own_table:
        return _of_own_table[key]
    made = _new_tokenizer(name, text)
    if isinstance(made, open_clip.SimpleTokenizer):
        _of_own_table[key] = made
    return made


def _new_tokenizer(name: str, text: Mapping[str, Any]) -> Any:
    """Return a new tokenizer of a model.

    Raises:
        CheckpointError: it needs the extra `hf`, or is on a model hub that does not answer.
    """
    try:
        return _of_folder(name, text) if name.startswith(_LOCAL) else open_clip.get_tokenizer(name)
    except ImportError as error:
        raise _without_transformers(name) from error
    except (OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), "").rstrip(".")
        if name.startswith(_LOCAL):
            remedy = "put the tokenizer's files (tokenizer.json and the files beside it) into that folder"
        else:
            remedy = (
                "start once where the model hub can be reached, or put the tokenizer's files into a folder with the "
                "model's open_clip_config.json, and set model.architecture to local-dir:FOLDER"
            )
        raise CheckpointError(
            f"the tokenizer of {name} is not on this machine: {first[:200]}. Please {remedy}."
        ) from error


def _of_folder(name: str, text: Mapping[str, Any]) -> Any:
    """Return the tokenizer of a folder as open_clip makes it, by the checked config."""
    length, settings = text.get("context_length", 77), dict(text.get("tokenizer_kwargs") or {})
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(context_length=length, **settings)
    return open_clip.tokenizer.HFTokenizer(
        Path(name.removeprefix(_LOCAL)),
        context_length=length,
        tokenizer_mode=text.get("tokenizer_mode"),
        trust_remote_code=False,
        **settings,
    )


def _without_transformers(name: str) -> CheckpointError:
    return CheckpointError(
        f"{name} has a text tower or tokenizer of the package transformers, which is not installed. Install the extra: "
        "pip install 'adawise[hf]'"
    )


def _preprocess_cfg(model: Any, prepared: Preprocessing) -> dict[str, Any]:
    """Return open_clip's preprocessing of a model, with the settled values."""
    stated = {key: value for key, value in prepared.values.items() if key != "quick_gelu"}
    settings = {**open_clip.get_model_preprocess_cfg(model), **stated}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def _load(configs: _Configs, architecture: str | None, prepared: Preprocessing, checkpoint: str, role: str) -> Any:
    """Return the model with the weights of a checkpoint, in float32 and eval mode, without gradients.

    Raises:
        CheckpointError: it cannot be loaded; the message names its role, the cause and the remedy.
    """
    folder = checkpoint.removeprefix(_LOCAL)
    if checkpoint.startswith(_LOCAL) and not (Path(folder) / "open_clip_config.json").is_file():
        raise CheckpointError(
            f"model.{role}: no open_clip_config.json in the folder {folder}. "
            f"Give a folder that open_clip's local-dir: schema can load, or a checkpoint file and model.architecture."
        )
    if architecture is None and not checkpoint.startswith(_LOCAL):
        raise CheckpointError(
            f"model.{role} is {checkpoint}: a file or a tag does not name its architecture. Set model.architecture."
        )
    name = _named(architecture, checkpoint)
    if "hf_model_name" in configs.model(name).get("text_cfg", {}) and find_spec("transformers") is None:
        raise _without_transformers(name)
    quick = {"quick_gelu": prepared.values["quick_gelu"]}
    try:
        weights = _weights_in(Path(folder)) if checkpoint.startswith(_LOCAL) else checkpoint
        check_unpacked_size(weights)
        with _Unfilled():
            if name.startswith(_LOCAL):
                check_size(configs.model(name), name, Path(weights).stat().st_size)
                model = _created(configs.whole(name), quick)
                _fill(model, weights)
            elif is_archive(checkpoint) or (
                Path(checkpoint).is_file() and not open_clip.get_pretrained_cfg(name, checkpoint)
            ):
                model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False, **quick)
                _fill(model, checkpoint)
            else:
                model = open_clip.create_model(
                    architecture, checkpoint, require_pretrained=True, weights_only=True, **quick
                )
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"model.{role}: {checkpoint} is a pickle with more than tensors, which is not safe to load. Save its "
            "state_dict as safetensors (whole-module pickles of WiSE-FT and FLYP need that once, offline)."
        ) from error
    except Exception as error:  # for a bad file open_clip, torch and safetensors raise many kinds of errors
        first = (str(error).strip() or repr(error)).splitlines()
        reason = " ".join(line.strip() for line in first[:3])[:400].rstrip(". ")
        raise CheckpointError(
            f"model.{role}: {checkpoint} does not load as {architecture or 'its own config'}: {reason}. "
            "Check the path and that model.architecture is the one that it was trained with."
        ) from error
    return model.float().eval().requires_grad_(False)  # open_clip returns models in train mode


def _created(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """Return a model without weights from a checked config: open_clip reads a private copy, not the folder again."""
    if "model_cfg" not in config:
        raise ValueError(f"its {CONFIG_NAME} has no model_cfg")
    with TemporaryDirectory(prefix="adawise-") as private:
        Path(private, CONFIG_NAME).write_text(json.dumps(config), encoding="utf-8")
        return open_clip.create_model(f"{_LOCAL}{private}", load_weights=False, pretrained_text=False, **changes)


def _weights_in(folder: Path) -> str:
    """Return the file of weights that open_clip would take from a folder; raise FileNotFoundError if there is none."""
    found = [path for path in folder.iterdir() if path.suffix in _WEIGHTS]
    if not found:
        raise FileNotFoundError(f"there is no file of weights in {folder}: {', '.join(_WEIGHTS)}")

    def order(path: Path) -> tuple[int, int, Path]:
        place = _PREFERRED.index(path.name) if path.name in _PREFERRED else len(_PREFERRED)
        return place, _WEIGHTS[path.suffix], path

    return str(min(found, key=order))


def _fill(model: Any, checkpoint: str) -> None:
    """Load the weights of a checkpoint into the model, from a TorchScript archive or any other format.

    Raises:
        CheckpointError: weights are whole numbers.
        Exception: as open_clip, torch and safetensors raise.
    """
    own = model.state_dict()

    def refuse_whole_numbers(_: Any, state: Mapping[str, Any], *__: Any) -> None:
        for name, tensor in own.items():  # torch would convert them, and load a quantized matrix without its scale
            dtype = getattr(state.get(name), "dtype", tensor.dtype)
            if tensor.is_floating_point() and not dtype.is_floating_point:
                raise CheckpointError(
                    f"{checkpoint}: '{name}' is {str(dtype).removeprefix('torch.')}, expected weights of a "
                    "floating-point type. Give the checkpoint as it was before it was quantized."
                )

    hook = model.register_load_state_dict_pre_hook(refuse_whole_numbers)
    if is_archive(checkpoint):
        tensors = read_archive(checkpoint)
        model.load_state_dict({name: tensor for name, tensor in tensors.items() if name in own})
    else:
        load_checkpoint(model, checkpoint, weights_only=True)
    hook.remove()


class _Unfilled(TorchFunctionMode):
    """A mode without random initialisation, which takes two thirds of a load: a checkpoint fills every parameter."""

    _DRAWS = frozenset(
        {
            *(Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.trunc_normal_, nn.init.uniform_),
            *(nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.xavier_normal_, nn.init.xavier_uniform_),
        }
    )

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def _open_clip_silenced() -> Iterator[None]:
    """Hide open_clip's log within the block: it logs errors that it also raises, and that an empty model is empty."""
    root = logging.getLogger()
    root.addFilter(_is_not_open_clips)
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)  # it logs every retry
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_is_not_open_clips)
        hub.setLevel(level)


def _is_not_open_clips(record: logging.LogRecord) -> bool:
    return f"{os.sep}open_clip{os.sep}" not in record.pathname


def _preprocess(settings: Mapping[str, Any]) -> Preprocess:
    """Return how images are resized, by open_clip's settings; raise CheckpointError if the input is not square RGB."""
    size = settings["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1 or settings["mode"] != "RGB":
        raise CheckpointError(f"expected a square RGB input, got size {size}, mode {settings['mode']}: not supported")
    fill = settings["fill_color"]
    return Preprocess(
        size=sides.pop(),
        resize_mode=settings["resize_mode"] or "shortest",
        interpolation=settings["interpolation"],
        fill_color=fill if isinstance(fill, int) else int(fill[0]),
    )


def _hash(prepared: Preprocessing, model: Any, config: Mapping[str, Any]) -> str:
    """Return `hash_weights`, or a hash of it and of settings that differ from what open_clip itself would use.

    So earlier cards, heads and states stay valid as long as nothing differs.
    """
    own = {"quick_gelu": False, **config, **open_clip.get_model_preprocess_cfg(model)}
    values = {key: prepared.values[key] for key in ("mean", "std", "quick_gelu")}
    otherwise = {key: value for key, value in values.items() if not is_same(value, own[key])}
    weights = hash_weights(model)
    return hashlib.sha256(f"{weights} {otherwise}".encode()).hexdigest()[:16] if otherwise else weights


def hash_weights(model: nn.Module) -> str:
    """Return 16 hex digits of the sha256 over names, shapes and values of the state, whatever the file's format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
