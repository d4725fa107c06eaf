"""1,000 cameras whose alphas spread over the whole grid, against as many images of one camera at one alpha.

The tower is a ViT-B-32, once as if the last 4 of its 12 blocks had been trained, and once as if all had been, so that
its bank may have no room for a copy at each alpha. The bank has the default size. Rounds are as a worker gathers them
on a processor: 8 chunks of 8 images, with at most one batch of each camera. Every fourth batch probes two of its images
at the next alpha. Both ways take turns, and each ratio is of one turn. A free core needs two minutes. Other work on the
machine falls on wall time, and much less on processor time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from adawise.adapt import search
from adawise.adapt.names import GRID
from adawise.adapt.objective import NO_CARD
from adawise.adapt.search import BatchTrials, Outcome, Search, forward_cost
from adawise.adapt.state import StreamState
from adawise.clip.classifier import PairClassifier
from adawise.clip.load import CheckpointPair
from adawise.settings import ModelSettings
from tools.bench.gpu import MIDDLE, random_pair
from tools.bench.host import one_thread
from tools.bench.paired import in_turns, text
from tools.bench.trunk import classifier, sharing

_CAMERAS, _BLOCKS, _TURNS = 1_000, 4, 3
_ROUND = 64  # images: 8 chunks of 8
_SIZES = (8, 16)  # images of a batch
_PROBES_EVERY, _PROBED = 4, 2  # batches; images
_BANK_BYTES = ModelSettings().bank_mib * 2**20


@dataclass(frozen=True)
class TurnCost:
    """What a turn cost: images/s by wall time and by processor time, FE, and the copies that were merged."""

    wall: float
    processor: float
    fe: float
    merges: int


def served_at(index: int, images: int, *, probes: bool) -> Search:
    """Serve a batch at one alpha; with `probes`, evaluate two of its images at the next one."""
    trials = BatchTrials(images, NO_CARD["tsallis"])
    yield from trials.evaluate([index])
    if probes:
        yield from trials.evaluate([(index + 1) % len(GRID)], np.arange(_PROBED))
    records = trials.records(GRID)
    return Outcome(
        state=StreamState("bench", index),
        index=index,
        logits=trials.evaluated[index][1],
        evaluated=trials.evaluated,
        trials=records,
        objective=records[0].objective,
    )


def turn(subject: PairClassifier, batches: Sequence[Tensor], alphas: Iterator[int], cameras_each: int) -> TurnCost:
    """Serve these batches, each at the next of `alphas`, in rounds of so many cameras."""
    merges, began, began_processor = subject.bank.merges, time.perf_counter(), time.process_time()
    outcomes: list[Outcome] = []
    for start in range(0, len(batches), cameras_each):
        round_ = batches[start : start + cameras_each]
        searches = [
            served_at(next(alphas), len(batch), probes=n % _PROBES_EVERY == 0) for n, batch in enumerate(round_, start)
        ]
        outcomes += search.run(searches, subject.open(round_).evaluate)
    wall, processor = time.perf_counter() - began, time.process_time() - began_processor
    images = sum(map(len, batches))
    fe = sum(outcome.forward_equivalents * len(outcome.logits) for outcome in outcomes) / images
    return TurnCost(images / wall, images / processor, fe, subject.bank.merges - merges)


def rows(subject: PairClassifier, images: Tensor, size: int) -> Iterator[Sequence[str]]:
    """Yield the cells of 1,000 cameras and of one camera, with batches of `size` images."""
    batches = torch.split(images, size)
    random = np.random.default_rng(0)
    alphas = cycle((random.permutation(_CAMERAS) % len(GRID)).tolist())
    ways = {
        "1,000": partial(turn, subject, batches, alphas, len(batches)),
        "1": partial(turn, subject, batches, cycle([MIDDLE]), 1),
    }
    turn(subject, batches[:1], cycle([MIDDLE]), 1)  # allocations, and the choice of kernels
    for index in random.permutation(len(GRID)).tolist():  # the bank as many rounds leave it
        subject.bank.copy(index)
    found = in_turns(ways, _TURNS)
    for way, rates in found.items():
        if not rates:
            continue
        fe = rates[0].fe  # of all turns, and of both ways
        cost = forward_cost(fe, subject.tail_share)
        yield (
            way,
            f"{fe:.3f}",
            f"{cost:.3f}",
            *(text([factor * rate.wall for rate in rates], ".1f") for factor in (fe, cost)),
            text([fe * rate.processor for rate in rates], ".1f"),
            f"{np.mean([rate.merges for rate in rates]):.1f}",
            *(_ratio(rates, found["1"], clock) for clock in ("wall", "processor")),
        )


def _ratio(rates: Sequence[TurnCost], to: Sequence[TurnCost], clock: str) -> str:
    each = [getattr(a, clock) * a.fe / (getattr(b, clock) * b.fe) for a, b in zip(rates, to, strict=True)]
    return "1" if rates is to else text(each, ".3f")


_TITLES = (
    *("trained", "copies of 21", "batch", "cameras", "FE", "forward cost", "images/s x FE", "images/s x forward cost"),
    *("images x FE per processor second", "merges a round", "to 1 camera, wall", "to 1 camera, processor"),
)


def main() -> None:
    """Print the table; the whole tower is left out if its bank holds a copy at each alpha."""
    pair = random_pair("ViT-B-32")
    images = torch.randint(0, 256, (_ROUND, 3, 224, 224), dtype=torch.uint8)
    print(f"| {' | '.join(_TITLES)} |")
    print("|---" * len(_TITLES) + "|")
    cases: dict[str, tuple[CheckpointPair, Sequence[int]]] = {
        f"{_BLOCKS} of 12 blocks": (sharing(pair, _BLOCKS), _SIZES),
        "all": (pair, _SIZES[:1]),
    }
    with one_thread():
        for name, (each, sizes) in cases.items():
            subject = classifier(each, bank_bytes=_BANK_BYTES)
            capacity = subject.bank.capacity
            if name == "all" and capacity == len(GRID):
                print("The bank holds the whole tower at each alpha, too.")
                return
            for size in sizes:
                for cells in rows(subject, images, size):
                    print(f"| {name} | {capacity} | {size} | {' | '.join(cells)} |", flush=True)
            del subject
