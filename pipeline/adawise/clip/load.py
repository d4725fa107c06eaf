"""Two open_clip checkpoints -> a checked pair. The only importer of open_clip."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from adawise.adapt.interpolate import check_finite, check_pair, check_statistics
from adawise.clip.attention import pack_attention
from adawise.clip.compiler import postponed
from adawise.clip.patches import multiply_patches
from adawise.clip.prompts import Prompts, text_parameters
from adawise.decode.preprocess import Preprocess
from adawise.errors import CheckpointError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # timm and torchvision announce their deprecations on import
    with suppress(ImportError, AttributeError), postponed():
        import open_clip
    import open_clip  # whole, also where a release of theirs asks more of the compiler than `postponed` has
    from open_clip.factory import load_checkpoint

_LOCAL = "local-dir:"


@dataclass(frozen=True, eq=False)
class CheckpointPair:
    """A checked pair. `tower` is the image tower's module; `theta_*` its parameters by name, float32 on the CPU.

    `mean` and `std` are per channel, of pixels in [0, 1]. `log_scales` are the two logit scales in log space.
    """

    tower: nn.Module
    theta_0: Mapping[str, Tensor]
    theta_1: Mapping[str, Tensor]
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    log_scales: tuple[float, float]
    hashes: tuple[str, str]
    _models: tuple[Any, Any]  # open_clip's own classes, untyped
    _tokenizer: Any

    @cached_property
    def text_is_shared(self) -> bool:
        """True if both text towers are equal: then one head serves every alpha."""
        zero, one = (text_parameters(model) for model in self._models)
        return all(torch.equal(zero[name], one[name]) for name in zero)

    def prompts(self, classes: Sequence[str], templates: Sequence[str]) -> Prompts:
        """Each class's name in each template, for the text tower."""
        texts = [template.replace("{}", name) for name in classes for template in templates]
        return Prompts(self._models, self._tokenizer(texts), len(classes))


def load_checkpoints(architecture: str | None, theta_0: str, theta_1: str) -> CheckpointPair:
    """Load and check both checkpoints.

    Args:
        architecture: an open_clip name such as `ViT-B-32`, or `local-dir:FOLDER`; not needed where both checkpoints are
            `local-dir:` folders.
        theta_0: the zero-shot checkpoint: a file (safetensors preferred), `local-dir:FOLDER`, or a pretrained tag.
        theta_1: the fine-tuned one, likewise.

    Raises:
        CheckpointError: one cannot be loaded, or they are no pair; the message names the file or key and the remedy.
    """
    with ThreadPoolExecutor(2) as both, _open_clip_silenced():
        zero, one = both.map(partial(_load, architecture), (theta_0, theta_1), ("theta_0", "theta_1"))
    models = zero, one
    check_pair(*models)
    settings = [open_clip.get_model_preprocess_cfg(model) for model in models]
    for key in settings[0].keys() | settings[1].keys():
        if settings[0].get(key) != settings[1].get(key):
            raise CheckpointError(
                f"theta_0 and theta_1 want different preprocessing: '{key}' is {settings[0].get(key)} and "
                f"{settings[1].get(key)}. Give both the preprocess_cfg that theta_1 was fine-tuned with."
            )
    for model in models:
        pack_attention(model)
        multiply_patches(model)
    tower = models[0].visual
    with ThreadPoolExecutor(2) as both, _open_clip_silenced():
        hashing = both.map(hash_weights, models)
        tokenizer = open_clip.get_tokenizer(theta_0 if theta_0.startswith(_LOCAL) else architecture or "")
        hash_0, hash_1 = hashing
    return CheckpointPair(
        tower=tower,
        theta_0={name: p.detach() for name, p in tower.named_parameters()},
        theta_1={name: p.detach() for name, p in models[1].visual.named_parameters()},
        preprocess=_preprocess(settings[0]),
        mean=tuple(settings[0]["mean"]),
        std=tuple(settings[0]["std"]),
        log_scales=(float(models[0].logit_scale.detach()), float(models[1].logit_scale.detach())),
        hashes=(hash_0, hash_1),
        _models=models,
        _tokenizer=tokenizer,
    )


@dataclass(frozen=True, eq=False)
class StartingModel:
    """theta_0 alone, float32 on the CPU, to be fine-tuned; `config` is what `open_clip_config.json` holds for it."""

    model: Any
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    config: Mapping[str, Any]
    hash: str
    tokenizer: Any


def load_starting_model(architecture: str, theta_0: str) -> StartingModel:
    """Load theta_0 for fine-tuning; arguments and errors as in `load_checkpoints`."""
    with _open_clip_silenced():
        model = _load(architecture, theta_0, "theta_0")
    check_statistics(model)
    check_finite(model, "theta_0")
    settings = open_clip.get_model_preprocess_cfg(model)
    name = theta_0 if theta_0.startswith(_LOCAL) else architecture
    config = dict(open_clip.get_model_config(name))
    if any(type(module).__name__ == "QuickGELU" for module in model.modules()):
        config["quick_gelu"] = True  # a tag turns it on, a path does not
    pack_attention(model)
    multiply_patches(model)
    with _open_clip_silenced():
        tokenizer = open_clip.get_tokenizer(name)
    return StartingModel(
        model=model,
        preprocess=_preprocess(settings),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        config={"model_cfg": config, "preprocess_cfg": settings},
        hash=hash_weights(model),
        tokenizer=tokenizer,
    )


def _load(architecture: str | None, checkpoint: str, role: str) -> Any:
    folder = checkpoint.removeprefix(_LOCAL)
    if checkpoint.startswith(_LOCAL) and not (Path(folder) / "open_clip_config.json").is_file():
        raise CheckpointError(
            f"model.{role}: no open_clip_config.json in the folder {folder}. "
            f"Give a folder that open_clip's local-dir: schema can load, or a checkpoint file and model.architecture."
        )
    if architecture is None and not checkpoint.startswith(_LOCAL):
        raise CheckpointError(
            f"model.{role} is {checkpoint}: a file or a tag says nothing of its architecture. Set model.architecture."
        )
    try:
        with _Unfilled():
            if checkpoint.startswith(_LOCAL):
                model = open_clip.create_model(checkpoint, require_pretrained=True, weights_only=True)
            elif architecture and architecture.startswith(_LOCAL):
                model = open_clip.create_model(architecture, load_weights=False)
                load_checkpoint(model, checkpoint, weights_only=True)
            else:
                model = open_clip.create_model(architecture, checkpoint, require_pretrained=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"model.{role}: {checkpoint} is not a pickle of tensors alone, and running more than that is not safe. "
            "Save its state_dict as safetensors (whole-module pickles of WiSE-FT and FLYP need that once, offline)."
        ) from error
    except Exception as error:  # a bad file makes open_clip, torch, safetensors raise all sorts of things
        first = (str(error).strip() or repr(error)).splitlines()
        raise CheckpointError(
            f"model.{role}: {checkpoint} does not load as {architecture or 'its own config'}: "
            f"{' '.join(line.strip() for line in first[:3])[:400]}. "
            "Check the path and that model.architecture is the one that it was trained with."
        ) from error
    return model.float().eval().requires_grad_(False)  # open_clip returns models in train mode


class _Unfilled(TorchFunctionMode):
    """Parameters are not drawn at random where a checkpoint fills every one: two thirds of a load's time."""

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
    """open_clip tells the root logger what it also raises, and that a model without weights yet has none."""
    root = logging.getLogger()
    root.addFilter(_is_not_open_clips)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_is_not_open_clips)


def _is_not_open_clips(record: logging.LogRecord) -> bool:
    return f"{os.sep}open_clip{os.sep}" not in record.pathname


def _preprocess(settings: Mapping[str, Any]) -> Preprocess:
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


def hash_weights(model: nn.Module) -> str:
    """sha256 over names, shapes and values of the state, 16 hex digits; the file's format does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
