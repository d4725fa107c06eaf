"""The demo's small open_clip model: its shape, its captions, how it starts, how it is stored and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize, unfold

from adawise import demo
from adawise.demo.scene import CLASSES
from tools.demo_pair.dataset import Frames

PAIR = Path(demo.__file__).parent / "pair"
SIZE, PATCH, WIDTH, CONTEXT, SEED = 72, 12, 128, 16, 0
TEMPLATES = (
    "a photo of a {}.",
    "a street camera picture of a {}.",
    "a {} in the street.",
    "a {} in bad weather.",
    "a {}.",
)
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": SIZE, "patch_size": PATCH, "width": WIDTH, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS_CFG = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}


def new_model(frames: Frames) -> CLIP:
    """An untrained model whose first layer and positions start from what is known about pictures.

    Rows of tokens that no caption uses are zero: they are never trained, and zeros compress.
    """
    model = CLIP(**MODEL_CFG)
    visual, grid, quarter = model.visual, SIZE // PATCH, WIDTH // 4
    patches = unfold(frames.centred()[:2000], PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    patches = patches - patches.mean(0)  # [n, 3 * PATCH^2]
    variance, components = torch.linalg.eigh(patches.T @ patches / len(patches))
    variance, components = variance[-WIDTH:].flip(0), components[:, -WIDTH:].flip(1)
    whitening = (components / (variance + 0.02 * variance.mean()).sqrt()).T
    steps = torch.arange(grid, dtype=torch.float32)
    y, x = (
        c.flatten()[:, None] / 50 ** (torch.arange(quarter) / quarter)
        for c in torch.meshgrid(steps, steps, indexing="ij")
    )
    used = torch.zeros(MODEL_CFG["text_cfg"]["vocab_size"], 1)
    used[caption_tokens().flatten()] = 1
    with torch.no_grad():
        visual.conv1.weight.copy_(whitening.reshape(WIDTH, 3, PATCH, PATCH))
        visual.positional_embedding[1:].copy_(0.4 * torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1))
        model.token_embedding.weight.mul_(used)
    return model


def caption_tokens() -> Tensor:
    """The tokens of all captions: int64 `[templates, classes, CONTEXT]`."""
    tokenize = open_clip.SimpleTokenizer(context_length=CONTEXT)
    return torch.stack([tokenize([template.format(name) for name in CLASSES]) for template in TEMPLATES])


def caption_heads(model: CLIP) -> Tensor:
    """The class embeddings of each template: unit length, `[templates, C, E]`."""
    with torch.no_grad():
        return torch.stack([model.encode_text(tokens, normalize=True) for tokens in caption_tokens()])


def text_head(model: CLIP) -> Tensor:
    """The class embeddings averaged over the templates: unit length, `[C, E]`."""
    return normalize(caption_heads(model).mean(0), dim=-1)


def spread_captions(model: CLIP, steps: int = 300) -> None:
    """Trains the text tower alone until captions of one class agree and those of different classes do not.

    A head whose classes start out alike (cosine .9 and more) teaches the image tower next to nothing for a long time.
    """
    tokens = caption_tokens()
    labels = torch.arange(len(CLASSES)).repeat(len(TEMPLATES))
    text = [p for name, p in model.named_parameters() if not name.startswith(("visual.", "logit_scale"))]
    optimizer = torch.optim.Adam(text, 3e-3)
    same = (labels[:, None] == labels[None, :]).to(torch.float32)
    for _ in range(steps):
        features = model.encode_text(tokens.flatten(0, 1), normalize=True)  # [T * C, E]
        loss = (features @ features.T - same).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def rounded(model: CLIP) -> CLIP:
    """The model with every weight rounded to fp16, as it is stored."""
    model.load_state_dict({key: value.half() for key, value in model.state_dict().items()})
    return model


def save(model: CLIP, folder: Path) -> None:
    """Writes an open_clip `local-dir:` folder: configuration and fp16 safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")


def load(folder: Path) -> CLIP:
    """A model of the pair, through open_clip's own loader, fp32, in eval mode."""
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval()
