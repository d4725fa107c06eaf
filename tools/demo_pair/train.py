"""Rebuilds the demo's pair: `python -m tools.demo_pair.train`, about 10 minutes on one free core, no download.

theta_0 is a small open_clip model trained from scratch, briefly, on all conditions at mixed severities: clear days are
a tenth of what it sees. theta_1 is theta_0 fine-tuned on clear days of other cameras, good and bad ones, gently, with
text tower and logit scale locked. Both stages smooth the labels: an over-confident theta_1 would look best by entropy
everywhere. For the same reason theta_1 is also shown faded pictures on which every class is equally right.

A vision transformer needs far more images than fit in ten minutes, unless it is told more per image: the scene knows
where the thing stands, so each patch is taught what it shows, by the same text head (`dense_weight`), and the patch
embedding starts from the principal components of patches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from adawise.demo.scene import CLASSES
from tools.demo_pair.dataset import NOTHING, Frames, SplitWeather, any_weather, clear_day, patch_labels, render
from tools.demo_pair.model import (
    MODEL_CFG,
    PAIR,
    PATCH,
    SEED,
    SIZE,
    TEMPLATES,
    caption_heads,
    load,
    new_model,
    rounded,
    save,
    spread_captions,
    text_head,
)
from tools.demo_pair.table import measure_and_describe


@dataclass(frozen=True, slots=True)
class TrainingStage:
    """One stage of training: which frames, and how long and how fast it learns from them.

    `images` are shown in all, in batches of `batch`; `rate` is AdamW's highest learning rate, reached after a warm-up
    and brought down to 0; `dense_weight` weighs the loss of the patches; `unreadable` is the share of each batch that
    is faded until little can be seen, with every class equally right.
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
    unreadable: float = 0.0


ZERO_SHOT = TrainingStage(10_000, 100, 1000, any_weather, images=80_000, rate=2e-3)
FINE_TUNED = TrainingStage(6_000, 100, 2000, clear_day, images=24_000, rate=4e-4, unreadable=0.25)


def train(
    model: CLIP, frames: Frames, stage: TrainingStage, head: Callable[[int], Tensor], log: Callable[[str], None]
) -> None:
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
    model: CLIP, frames: Frames, rows: Tensor, stage: TrainingStage, head: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The loss and the accuracy of a batch.

    Cross-entropy of the image over the classes' captions, plus that of each patch; an empty patch counts a fifth.
    """
    images, boxes = frames.crops(rows, generator)
    labels = frames.labels[rows]
    faded = round(stage.unreadable * len(rows))
    images[:faded] = fade(images[:faded], generator)
    targets = one_hot(labels, len(CLASSES)).to(torch.float32)
    targets[:faded] = 1 / len(CLASSES)
    pooled, tokens = model.visual(images)
    scale = model.logit_scale.exp()
    logits = scale * normalize(pooled, dim=-1) @ head.T  # [B, C]
    loss = cross_entropy(logits, targets, label_smoothing=stage.smoothing)
    right = (logits.argmax(-1) == labels)[faded:].to(torch.float32).mean()
    patch_logits = scale * normalize(tokens @ model.visual.proj, dim=-1) @ head.T  # [B, P, C]
    weights = torch.ones(len(CLASSES))
    weights[NOTHING] = 0.2
    shown = patch_labels(labels, boxes, SIZE, PATCH)
    shown[:faded] = -100
    # No smoothing here: with class weights torch would smooth the light class five times as much.
    dense = cross_entropy(patch_logits.flatten(0, 1), shown.flatten(), weights)
    return loss + stage.dense_weight * dense, right


def fade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images `[n, 3, S, S]` with 5 to 35 % of their contrast left, around a random grey: unreadable, as a rule.

    Without such examples (outlier exposure, arXiv 1812.04606) a model tuned on clear days takes whatever it cannot see
    for an empty street, and is sure of it.
    """
    contrast, grey = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    contrast, grey = 0.05 + 0.3 * contrast, 1.7 * grey - 0.95
    faded: Tensor = grey + contrast * (images - images.mean((1, 2, 3), keepdim=True))
    return faded


def train_theta_0(stage: TrainingStage, frames: Frames, log: Callable[[str], None]) -> CLIP:
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


def train_theta_1(theta_0: CLIP, stage: TrainingStage, frames: Frames, log: Callable[[str], None]) -> CLIP:
    """The fine-tuned model: only the image tower learns, against theta_0's text head."""
    model = CLIP(**MODEL_CFG)
    model.load_state_dict(theta_0.state_dict())
    model.requires_grad_(False)
    model.visual.requires_grad_(True)
    head = text_head(model)
    train(model, frames, stage, lambda _: head, log)
    return rounded(model)


def main() -> None:
    """Trains, writes the pair's folder and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_pair.train", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=PAIR, help="folder to write (default: the demo's own)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1: sums do not depend on it)")
    parser.add_argument("--measure-only", action="store_true", help="measure the pair in --out again, train nothing")
    arguments = parser.parse_args()
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
    theta_0 = train_theta_0(ZERO_SHOT, frames_0, _print)
    print(f"rendering {FINE_TUNED.frames} frames of {FINE_TUNED.cameras} other cameras on clear days", flush=True)
    theta_1 = train_theta_1(theta_0, FINE_TUNED, _render(FINE_TUNED), _print)
    save(theta_0, out / "theta_0")
    save(theta_1, out / "theta_1")
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    (out / "templates.txt").write_text("".join(f"{template}\n" for template in TEMPLATES), encoding="utf-8")


def _render(stage: TrainingStage) -> Frames:
    return render(stage.frames, stage.cameras, stage.first_seed, stage.weather, SIZE)


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
