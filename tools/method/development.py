"""The development pair: images on which the defaults of the search are chosen, so that no test image is looked at.

The real pair's test domains contain classes that theta_1 never saw; its validation images do not, so that a default
chosen on them would only ever see one half of the problem. Here theta_0 is fine-tuned again on every second class of
`train_base`. `validation_base` then splits into known and new classes, corrupted in a few ways of our own (not the test
domains' code), and becomes one table of logits per domain, in the format of `shared/data/logits`.

    python -m tools.method.development FOLDER
    python -m tools.method.development SECOND --second

The second pair is one that no choice was made on, to confirm what was chosen on the first: the other classes, fewer
epochs, other noise.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from adawise.adapt.names import GRID
from adawise.adapt.rows import all_rows
from adawise.clip.classifier import PairClassifier
from adawise.clip.device import Plain
from adawise.clip.load import load_checkpoints
from adawise.decode.statistics import statistics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # timm and torchvision announce their deprecations on import
    import open_clip

DATA = Path(os.environ.get("ADAWISE_REAL_DATA", str(Path(__file__).parents[2] / ".." / "shared" / "data")))
SIDE, CORRUPTED_SIDE = 70, 98  # px: what the model sees, and at which size an image is corrupted
BATCH, RATE = 60, 1e-5
CLASSES = 100  # names; the images are of 50
SOURCES = {"known": "validation_base", "new": "validation_base"}  # group -> file of images
IMAGES = 200  # a domain
TEMPLATES = (
    *("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "a small photo of a {}."),
    *("a close-up photo of a {}.", "a blurry photo of a {}.", "a bright photo of a {}.", "a dark photo of a {}."),
    *("a cropped photo of the {}.", "a photo of the {}.", "a low resolution photo of a {}.", "{}"),
)
Pixels = npt.NDArray[np.float64]  # [98, 98, 3] in [0, 1]
Corruption = Callable[[Pixels, np.random.Generator], Pixels]


@dataclass(frozen=True)
class DevelopmentRecipe:
    """theta_1 is tuned on the classes whose index has this `parity`; for `step` see `write_tables`."""

    parity: int
    epochs: int
    seed: int  # of the images and their corruptions
    step: int


FIRST = DevelopmentRecipe(parity=0, epochs=6, seed=0, step=1)
SECOND = DevelopmentRecipe(parity=1, epochs=2, seed=5, step=2)


def clean(x: Pixels, rng: np.random.Generator) -> Pixels:
    """As it is."""
    del rng
    return x


def noise(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Sensor noise."""
    return x + rng.normal(0.0, 0.12, x.shape)


def jpeg(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Compressed hard."""
    del rng
    buffer = io.BytesIO()
    _picture(x).save(buffer, "JPEG", quality=9)
    return _pixels(Image.open(buffer))


def fog(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Smooth patches of white."""
    coarse = Image.fromarray(rng.uniform(0, 255, (4, 4)).astype(np.uint8)).resize(x.shape[:2], Image.Resampling.BICUBIC)
    veil = 0.35 + 0.4 * np.asarray(coarse, dtype=np.float64)[..., None] / 255
    return x * (1 - veil) + 0.9 * veil


def dark(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Under-exposed, with the noise of a high gain."""
    return 0.22 * x**1.3 + rng.normal(0.0, 0.025, x.shape)


def motion(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Smeared along a line."""
    angle = rng.uniform(0, math.pi)
    steps = [(round(k * math.cos(angle)), round(k * math.sin(angle))) for k in range(-5, 6)]
    padded = np.pad(x, ((5, 5), (5, 5), (0, 0)), mode="edge")
    side = len(x)
    smeared: Pixels = np.mean([padded[5 + b : 5 + b + side, 5 + a : 5 + a + side] for a, b in steps], axis=0)
    return smeared


def contrast(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Washed out."""
    del rng
    mean = x.mean((0, 1))
    washed: Pixels = mean + 0.25 * (x - mean)
    return washed


def poster(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Another style: few flat colours, smoothed before."""
    del rng
    small = _picture(x).resize((40, 40), Image.Resampling.BILINEAR).resize((98, 98), Image.Resampling.BICUBIC)
    return _pixels(ImageOps.posterize(small, 2))


KNOWN: tuple[Corruption, ...] = (clean, noise, jpeg, fog, dark, motion, contrast)
NEW: tuple[Corruption, ...] = (clean, noise, fog, jpeg, poster)


def _picture(x: Pixels) -> Image.Image:
    return Image.fromarray((x.clip(0, 1) * 255).round().astype(np.uint8))


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def read_images(name: str) -> tuple[list[Pixels], npt.NDArray[np.int64], tuple[str, ...]]:
    """Images at 98 px, labels, class names of one file of `shared/data/images`."""
    table = pq.read_table(DATA / "images" / f"{name}.parquet")
    metadata: Mapping[bytes, bytes] = table.schema.metadata
    size = (CORRUPTED_SIDE, CORRUPTED_SIDE)
    images = [
        _pixels(Image.open(io.BytesIO(content)).convert("RGB").resize(size, Image.Resampling.BICUBIC))
        for content in table["image"].to_pylist()
    ]
    return images, np.array(table["label"].to_pylist()), tuple(json.loads(metadata[b"class_names"]))


def for_the_model(images: list[Pixels]) -> Tensor:
    """uint8 `[N, 3, 70, 70]`."""
    small = [_picture(x).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for x in images]
    return torch.from_numpy(np.stack([np.asarray(x) for x in small])).permute(0, 3, 1, 2).contiguous()


def fine_tune(recipe: DevelopmentRecipe, out: Path) -> None:
    """Write theta_0, fine-tuned on every second class, as an open_clip folder; both towers learn."""
    torch.manual_seed(0)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{DATA / 'pair' / 'theta0'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{DATA / 'pair' / 'theta0'}")
    images, labels, classes = read_images("train_base")
    known = np.flatnonzero(labels % 2 == recipe.parity)
    pixels, targets = for_the_model([images[i] for i in known]), torch.from_numpy(labels[known])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.1)
    steps = recipe.epochs * len(known) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
    model.train()
    for step in range(steps):
        rows = torch.randperm(len(known))[:BATCH]
        x = pixels[rows].float()
        x = x.flip(3) if torch.rand(()) < 0.5 else x
        template = TEMPLATES[int(torch.randint(len(TEMPLATES), ()))]
        loss = _loss(model, x, targets[rows], tokenizer([template.replace("{}", name) for name in classes]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 10 == 9:
            print(f"step {step + 1}/{steps}: loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    config = (DATA / "pair" / "theta0" / "open_clip_config.json").read_bytes()
    (out / "open_clip_config.json").write_bytes(config)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "open_clip_model.safetensors")


def _loss(model: Any, pixels: Tensor, targets: Tensor, prompts: Tensor) -> Tensor:
    """Cross-entropy over the captions of all classes, in bfloat16."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.autocast("cpu", torch.bfloat16):
        features = model.encode_image((pixels / 255 - mean) / std, normalize=True)
        head = model.encode_text(prompts, normalize=True)
    return cross_entropy(model.logit_scale.exp() * features.float() @ head.float().T, targets)


def write_tables(
    theta_1: Path,
    known: Set[int],
    out: Path,
    *,
    seed: int,
    step: int,
    images_each: int = IMAGES,
    sources: Mapping[str, str] = SOURCES,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """One npz of logits at 21 alphas for each domain; `known` are the classes that theta_1 was tuned on.

    Logits are made at every `step`th alpha, and those between lie on straight lines. Layers that both models share are
    computed once an image (`PairRound`). `sources` names the file of images of each group, and `photographs` in a table
    are the numbers of its images in that file: a photograph may be in several domains.
    """
    pair = load_checkpoints(None, f"local-dir:{DATA / 'pair' / 'theta0'}", f"local-dir:{theta_1}")
    read = {name: read_images(name) for name in sources.values()}
    *_, classes = next(iter(read.values()))
    classifier = PairClassifier(
        pair,
        classes=classes,
        templates=TEMPLATES,
        chunk_rows=64,
        dtype=dtype,
        device=Plain(torch.device("cpu")),
        bank_bytes=2**28,
        head="text",
    )
    rng = np.random.default_rng(seed)
    domains: dict[str, tuple[Tensor, npt.NDArray[np.int64]]] = {}
    photographs = {}
    for group, corruptions in (("known", KNOWN), ("new", NEW)):
        images, labels, _ = read[sources[group]]
        members = np.flatnonzero(np.isin(labels, sorted(known)) == (group == "known"))
        for corrupt in corruptions:
            rows = rng.choice(members, min(images_each, len(members)), replace=False)
            pixels = for_the_model([corrupt(images[i], rng) for i in rows])
            domains[f"{group}_{corrupt.__name__}"] = (pixels, labels[rows])
            photographs[f"{group}_{corrupt.__name__}"] = rows
    batches = [pixels for pixels, _ in domains.values()]
    opened = classifier.open(batches)

    def logits_at(j: int) -> Tensor:
        return opened.evaluate({j: all_rows(batches)})[j]

    made = {j: _at(logits_at, j, out / f"alpha_{j:02}.pt") for j in range(0, len(GRID), step)}
    logits = torch.stack([_on_line(made, j, step) for j in range(len(GRID))])
    parts = torch.split(logits, [len(pixels) for pixels, _ in domains.values()], dim=1)
    zero, one = pair.log_scales
    scale = np.exp([(1 - a) * zero + a * one for a in GRID]).astype(np.float32)
    for (name, (pixels, targets)), part in zip(domains.items(), parts, strict=True):
        np.savez_compressed(
            out / f"{name}.npz",
            logits=part.numpy(),
            labels=targets.astype(np.int16),
            alphas=np.array(GRID, dtype=np.float32),
            logit_scale=scale,
            class_names=np.array(classes),
            domain=np.array(name),
            photographs=photographs[name],
            pixels=np.stack([statistics(image) for image in pixels.numpy()]),
        )


def _at(logits_at: Callable[[int], Tensor], j: int, kept: Path) -> Tensor:
    """float16 `[N, C]` at one alpha, row maximum taken out; kept in a file, so that an interrupted run goes on."""
    if kept.exists():
        stored: Tensor = torch.load(kept, weights_only=True)
        return stored
    started = time.perf_counter()
    z = logits_at(j)
    z = (z - z.max(dim=-1, keepdim=True).values).to(torch.float16)
    part = kept.with_suffix(".part")
    torch.save(z, part)
    part.rename(kept)
    print(f"alpha {GRID[j]:.2f}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return z


def _on_line(made: Mapping[int, Tensor], j: int, step: int) -> Tensor:
    low, beyond = j // step * step, j % step
    return made[j] if not beyond else torch.lerp(made[low].float(), made[low + step].float(), beyond / step).half()


def main() -> None:
    """Fine-tune and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.development", description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder for the tables and, below it, the fine-tuned model")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more than free cores is slower")
    parser.add_argument("--second", action="store_true", help="make the pair that confirms")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = SECOND if arguments.second else FIRST
    if not (arguments.out / "theta1" / "open_clip_model.safetensors").exists():
        fine_tune(recipe, arguments.out / "theta1")
    known = {c for c in range(CLASSES) if c % 2 == recipe.parity}
    write_tables(arguments.out / "theta1", known, arguments.out, seed=recipe.seed, step=recipe.step)


if __name__ == "__main__":
    main()
