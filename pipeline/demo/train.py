"""Rebuilds the demo's pair: `python -m pipeline.demo.train` (10 to 15 minutes on two cores, no download).

theta_0 is a small open_clip model trained from scratch, briefly, on all conditions at mixed severities: clear days are
a tenth of what it sees. theta_1 is theta_0 fine-tuned on clear days of other cameras, gently, with text tower and
logit scale locked. Both stages smooth the labels: an over-confident theta_1 would look best by entropy everywhere.

A vision transformer needs far more images than fit in ten minutes, unless it is told more per image: the scene knows
where the thing stands, so each patch is taught what it shows, by the same text head (`dense_weight`), and the patch
embedding starts from the principal components of patches.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, unfold

from pipeline.demo.dataset import NOTHING, Frames, SplitWeather, any_weather, clear_day, patch_labels, render
from pipeline.demo.scene import CLASSES
from pipeline.demo.table import measure_and_describe

PAIR = Path(__file__).parent / "pair"
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


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training: which frames, and how long and how fast it learns from them.

    `images` are shown in all, in batches of `batch`; `rate` is AdamW's highest learning rate, reached after a warm-up
    and brought down to 0; `dense_weight` weighs the loss of the patches.
    """

    frames: int
    cameras: int
    first_seed: int
    weather: SplitWeather
    images: int
    rate: float
    batch: int = 32
    decay: float = 0.05
    smoothing: float = 0.1
    dense_weight: float = 1.0


ZERO_SHOT = Stage(10_000, 100, 1000, any_weather, images=80_000, rate=2e-3)
FINE_TUNED = Stage(8_000, 100, 2000, clear_day, images=24_000, rate=3e-4)


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


def train(model: CLIP, frames: Frames, stage: Stage, head: Callable[[int], Tensor], log: Callable[[str], None]) -> None:
    """Trains all parameters that require a gradient; `head(step)` gives the class embeddings `[C, E]` of a step."""
    generator = torch.Generator().manual_seed(stage.first_seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": stage.decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, stage.rate, (0.9, 0.98))
    steps = stage.images // stage.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, stage.rate, total_steps=steps, pct_start=0.08, anneal_strategy="linear", cycle_momentum=False
    )
    started, seen = time.perf_counter(), torch.zeros(2)
    model.train()
    model.visual.output_tokens = True
    for step in range(steps):
        rows = torch.randint(len(frames), (stage.batch,), generator=generator)
        loss, right = _loss(model, frames, rows, stage, head(step), generator)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        seen += torch.stack([loss.detach(), right]) / 250
        if (step + 1) % 250 == 0:
            took = time.perf_counter() - started
            log(f"  {(step + 1) * stage.batch:>7} images  loss {seen[0]:.3f}  accuracy {seen[1]:.3f}  {took:.0f} s")
            seen.zero_()
    model.visual.output_tokens = False
    model.eval()


def _loss(
    model: CLIP, frames: Frames, rows: Tensor, stage: Stage, head: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The loss and the accuracy of a batch.

    Cross-entropy of the image over the classes' captions, plus that of each patch; an empty patch counts a fifth.
    """
    images, boxes = frames.crops(rows, generator)
    labels = frames.labels[rows]
    pooled, tokens = model.visual(images)
    scale = model.logit_scale.exp()
    logits = scale * normalize(pooled, dim=-1) @ head.T  # [B, C]
    loss = cross_entropy(logits, labels, label_smoothing=stage.smoothing)
    right = (logits.argmax(-1) == labels).to(torch.float32).mean()
    patch_logits = scale * normalize(tokens @ model.visual.proj, dim=-1) @ head.T  # [B, P, C]
    weights = torch.ones(len(CLASSES))
    weights[NOTHING] = 0.2
    shown = patch_labels(labels, boxes, SIZE, PATCH)
    # No smoothing here: with class weights torch would smooth the light class five times as much.
    dense = cross_entropy(patch_logits.flatten(0, 1), shown.flatten(), weights)
    return loss + stage.dense_weight * dense, right


def train_theta_0(stage: Stage, frames: Frames, log: Callable[[str], None]) -> CLIP:
    """The zero-shot model: first the text tower learns to tell the captions apart, then the image tower to meet it."""
    torch.manual_seed(SEED)
    model = new_model(frames)
    spread_captions(model)
    model.requires_grad_(False)
    model.visual.requires_grad_(True)
    model.logit_scale.requires_grad_(True)
    heads = caption_heads(model)
    train(model, frames, stage, lambda step: heads[step % len(heads)], log)
    return rounded(model)


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


def train_theta_1(theta_0: CLIP, stage: Stage, frames: Frames, log: Callable[[str], None]) -> CLIP:
    """The fine-tuned model: only the image tower learns, against theta_0's text head."""
    model = CLIP(**MODEL_CFG)
    model.load_state_dict(theta_0.state_dict())
    model.requires_grad_(False)
    model.visual.requires_grad_(True)
    head = text_head(model)
    train(model, frames, stage, lambda _: head, log)
    return rounded(model)


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


def main() -> None:
    """Trains, writes the pair's folder and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.demo.train", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=PAIR, help="folder to write (default: the demo's own)")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: all cores)")
    parser.add_argument("--measure-only", action="store_true", help="measure the pair in --out again, train nothing")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if not arguments.measure_only:
        build(arguments.out)
    theta_0, theta_1 = (load(arguments.out / name) for name in ("theta_0", "theta_1"))
    description = measure_and_describe(theta_0, theta_1, text_head(theta_0), SIZE)
    (arguments.out / "README.md").write_text(description, encoding="utf-8")
    print(description)


def build(out: Path) -> None:
    """Both stages, and the files of the pair."""
    print(f"rendering {ZERO_SHOT.frames} frames of {ZERO_SHOT.cameras} cameras in all conditions", flush=True)
    frames_0 = _render(ZERO_SHOT)
    theta_0 = train_theta_0(ZERO_SHOT, frames_0, _say)
    print(f"rendering {FINE_TUNED.frames} frames of {FINE_TUNED.cameras} other cameras on clear days", flush=True)
    theta_1 = train_theta_1(theta_0, FINE_TUNED, _render(FINE_TUNED), _say)
    save(theta_0, out / "theta_0")
    save(theta_1, out / "theta_1")
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    (out / "templates.txt").write_text("".join(f"{template}\n" for template in TEMPLATES), encoding="utf-8")


def load(folder: Path) -> CLIP:
    """A model of the pair, through open_clip's own loader, fp32, in eval mode."""
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval()


def _render(stage: Stage) -> Frames:
    return render(stage.frames, stage.cameras, stage.first_seed, stage.weather, SIZE)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
