"""What a second alpha costs where both models share their first layers: ViT-B-32, all blocks trained or the last few.

A round of 16 images is served at one alpha; 8 of them are probed at another one; a copy is merged; a round of 8 images
is evaluated at 21 alphas. The pairs take turns, and each figure is a ratio to the pair that shares nothing, in the same
turn. That pair is not evaluated at all alphas, which takes 21 forwards. Two cores need a minute and a half.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.interpolate import interpolate
from adawise.adapt.names import GRID
from adawise.adapt.rows import all_rows
from adawise.clip.classifier import PairClassifier
from adawise.clip.device import Plain
from adawise.clip.load import CheckpointPair
from adawise_lab.finetune.learner import frozen_names
from tools.bench.gpu import random_pair
from tools.bench.paired import in_turns, text

_IMAGES, _PROBED, _CHUNK = 16, 8, 8
_CLASSES = tuple(map(str, range(100)))
_BLOCKS = (6, 4, 2)
_SERVED, _PROBE = 10, 5  # indices of alphas
_RATIOS = ("served", "probed", "merged")
_TURNS = 3


@dataclass(frozen=True)
class Seconds:
    """Seconds of each part of the work of a round."""

    served: float
    probed: float
    merged: float
    grid: float


def sharing(pair: CheckpointPair, blocks: int) -> CheckpointPair:
    """The pair as if only its last blocks had been trained."""
    frozen = frozen_names([f"visual.{name}" for name in pair.theta_0], blocks)
    theta_1 = {name: pair.theta_0[name] if f"visual.{name}" in frozen else p for name, p in pair.theta_1.items()}
    return replace(pair, theta_1=theta_1)


def classifier(pair: CheckpointPair, bank_bytes: int = 2**34) -> PairClassifier:
    """A classifier with random heads; by default its bank has room for all copies."""
    device = Plain(torch.device("cpu"))
    made = PairClassifier(
        pair,
        classes=_CLASSES,
        templates=("{}",),
        chunk_rows=_CHUNK,
        dtype=device.auto_format,
        device=device,
        bank_bytes=bank_bytes,
        head="text",
    )
    generator = torch.Generator().manual_seed(0)
    heads = torch.nn.functional.normalize(torch.randn(len(GRID), 512, len(_CLASSES), generator=generator), dim=1)
    made.use_embeddings(heads[: len(made.encoded_alphas)], "random")
    return made


def measured(subject: PairClassifier, images: Tensor, *, grid: bool) -> Seconds:
    """One round, with all copies merged before; without `grid` the last figure is next to nothing."""
    indices = range(len(GRID)) if grid else ()
    for index in (_SERVED, _PROBE, *indices):
        subject.bank.copy(index)
    moments = [time.perf_counter()]
    opened, every = subject.open([images]), all_rows([images])
    opened.evaluate({_SERVED: every})
    moments.append(time.perf_counter())
    opened.evaluate({_PROBE: [(0, np.arange(_PROBED))]})
    moments.append(time.perf_counter())
    interpolate(*subject.bank._ends, GRID[_PROBE], out=subject.bank.copy(_PROBE).flat)
    moments.append(time.perf_counter())
    if grid:
        few = [images[:_PROBED]]
        subject.open(few).evaluate(dict.fromkeys(indices, all_rows(few)))
    moments.append(time.perf_counter())
    return Seconds(*np.diff(moments).tolist())


def main() -> None:
    """Print the table. Two pairs are in memory at a time."""
    pair = random_pair("ViT-B-32")
    images = torch.randint(0, 256, (_IMAGES, 3, 224, 224), dtype=torch.uint8)
    whole = classifier(pair)
    titles = ("blocks trained", "tail, counted", "MiB a copy", "served", "probe of 8", "grid, in forwards", "merge")
    print(f"| {' | '.join(titles)} |")
    print("|---" * len(titles) + "|")
    for blocks in _BLOCKS:
        subject = classifier(sharing(pair, blocks))
        ways = {
            "whole": partial(measured, whole, images, grid=False),
            "cut": partial(measured, subject, images, grid=True),
        }
        for each in (whole, subject):
            measured(each, images, grid=False)
        found = in_turns(ways, _TURNS)
        turns = list(zip(found["cut"], found["whole"], strict=True))
        served, probed, merged = ([getattr(a, n) / getattr(b, n) for a, b in turns] for n in _RATIOS)
        grid = text([a.grid / b.served * _IMAGES / _PROBED for a, b in turns], ".1f")
        shares = f"{subject.tail_share:.3f} | {subject.bank.copy_bytes / 2**20:.0f}"
        print(f"| {blocks} of 12 | {shares} | {text(served)} | {text(probed)} | {grid} | {text(merged)} |", flush=True)
        del subject, ways
    print(f"| all | 1 | {whole.bank.copy_bytes / 2**20:.0f} | 1 | 1 | 21 | 1 |")
