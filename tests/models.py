"""A tiny random open_clip pair on disk, for every test that needs a model: quick to load, with logits that differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adawise.adapt.interpolate import Layout
from adawise.adapt.names import GRID
from adawise.clip.classifier import PairClassifier
from adawise.clip.device import Plain
from adawise.clip.load import CheckpointPair, load_checkpoints

SIZE = 32  # px
CLASSES = ("car", "bus", "bicycle", "person", "empty street")
TEMPLATES = ("a photo of a {}.", "a dark photo of a {}.", "{}")
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": SIZE, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": [0.48, 0.45, 0.4],
        "std": [0.27, 0.26, 0.28],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


@dataclass(frozen=True)
class PairFolder:
    """Where a pair lies: checkpoints as `local-dir:` names, class names and prompts as text files, one a line."""

    theta_0: str
    theta_1: str
    classes: Path
    templates: Path

    def weights(self, end: int) -> Path:
        """The safetensors file of theta_0 (0) or theta_1 (1)."""
        return Path((self.theta_0, self.theta_1)[end].removeprefix("local-dir:")) / "open_clip_model.safetensors"


def write_pair(
    folder: Path, *, seed: int = 0, classes: Sequence[str] = CLASSES, templates: Sequence[str] = TEMPLATES
) -> PairFolder:
    """Write a pair of random weights; theta_1 is theta_0 plus noise in both towers and in the logit scale."""
    torch.manual_seed(seed)
    theta_0 = open_clip.CLIP(**CONFIG["model_cfg"])
    _sharpen(theta_0)
    theta_1 = open_clip.CLIP(**CONFIG["model_cfg"])
    with torch.no_grad():
        for p, q in zip(theta_0.parameters(), theta_1.parameters(), strict=True):
            if p.ndim:  # in proportion to the tensor's own values, and a little more for biases, which start at zero
                q.copy_(p + (0.5 * p.std() + 0.02) * torch.randn_like(p))
        theta_1.logit_scale.fill_(theta_0.logit_scale + 0.5)
    folder.mkdir(parents=True, exist_ok=True)
    pair = PairFolder(
        theta_0=write_checkpoint(folder / "theta_0", theta_0),
        theta_1=write_checkpoint(folder / "theta_1", theta_1),
        classes=folder / "classes.txt",
        templates=folder / "templates.txt",
    )
    pair.classes.write_text("\n".join(classes) + "\n", encoding="utf-8")
    pair.templates.write_text("\n".join(templates) + "\n", encoding="utf-8")
    return pair


def share_layers(pair: PairFolder, late: Sequence[str]) -> None:
    """Give theta_1's image tower the weights of theta_0, but for those whose names begin so."""
    zero, one = (load_file(pair.weights(end)) for end in (0, 1))
    own = tuple(f"visual.{name}" for name in late)
    shared = {name: zero[name] for name in one if name.startswith("visual.") and not name.startswith(own)}
    save_file({**one, **shared}, pair.weights(1))


def _sharpen(model: nn.Module) -> None:
    """Let images matter: at open_clip's own initialisation all of them look alike to the tower."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "embedding" not in name:
                p.mul_(2.5)
        model.get_parameter("visual.class_embedding").mul_(0.1)
        model.get_parameter("logit_scale").fill_(2.5)


def write_checkpoint(folder: Path, model: nn.Module, config: dict[str, Any] = CONFIG) -> str:
    """A folder that open_clip's `local-dir:` schema loads; its name with the schema."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def with_weights(folder: Path, source: str, change: Callable[[dict[str, Tensor]], None]) -> str:
    """A copy of a checkpoint folder with other weights."""
    shutil.copytree(source.removeprefix("local-dir:"), folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    change(weights)
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def load(folder: PairFolder) -> CheckpointPair:
    """The pair through the program's own loader."""
    return load_checkpoints(None, folder.theta_0, folder.theta_1)


def classifier(
    pair: CheckpointPair,
    *,
    dtype: torch.dtype = torch.float32,
    chunk_rows: int = 4,
    alphas: Sequence[float] = GRID,
    copies: int = 21,
    head: str = "text",
    classes: Sequence[str] = CLASSES,
    templates: Sequence[str] = TEMPLATES,
) -> PairClassifier:
    """A classifier over the pair on the processor, whose bank has room for `copies` merged copies."""
    return PairClassifier(
        pair,
        classes=classes,
        templates=templates,
        alphas=alphas,
        chunk_rows=chunk_rows,
        dtype=dtype,
        device=Plain(torch.device("cpu")),
        bank_bytes=copies * bank_bytes(pair, dtype),
        head=head,
    )


def bank_bytes(pair: CheckpointPair, dtype: torch.dtype) -> int:
    """Of one merged copy of the image tower."""
    return Layout.of(pair.theta_0).numel * dtype.itemsize


def random_images(n: int, *, seed: int = 0) -> Tensor:
    """uint8 `[n, 3, SIZE, SIZE]`: a random colour each, a gradient and noise, so that no two look alike."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.rand(n, 3, 1, 1, generator=generator) * 200.0
    slope = torch.linspace(-1.0, 1.0, SIZE).view(1, 1, 1, SIZE) * (torch.rand(n, 1, 1, 1, generator=generator) * 120.0)
    noise = torch.rand(n, 3, SIZE, SIZE, generator=generator) * 60.0
    return (colour + slope + noise).clamp(0.0, 255.0).to(torch.uint8)
