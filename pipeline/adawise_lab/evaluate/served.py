"""The record of what a strategy served on a stream: the path of alpha, and the quality of each prediction."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from adawise.adapt.search import Outcome
from adawise_lab.evaluate.bench import Bench, Quality, quality
from adawise_lab.evaluate.score import Score, joined, score
from adawise_lab.evaluate.streams import Ids

_AT_ONCE = 64  # batches whose quality is computed together


@dataclass
class AlphaPath:
    """The path of alpha, one entry per batch, over one or more streams.

    `stream` numbers the streams; `domain` is -1 if a batch mixes several.
    """

    stream: list[int] = field(default_factory=list)
    domain: list[int] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)
    forward_equivalents: list[float] = field(default_factory=list)
    trigger: list[str] = field(default_factory=list)
    reset: list[str | None] = field(default_factory=list)


class Served:
    """The batches that were served so far, and their quality."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._labels = torch.from_numpy(bench.labels)
        self._ids: list[Ids] = []
        self._worth: list[Quality] = []
        self._pending: list[tuple[Ids, torch.Tensor, int]] = []  # ids [n], logits [n, C], alpha index
        self.path = AlphaPath()

    def add(self, stream: int, ids: Ids, outcome: Outcome) -> None:
        """Add the next batch of a stream."""
        domains = self._bench.domain_of[ids]
        if len(self._pending) == _AT_ONCE or (
            self._pending and self._pending[-1][1].shape[1:] != outcome.logits.shape[1:]
        ):
            self._weigh()
        self._pending.append((ids, outcome.logits, outcome.index))
        path = self.path
        path.stream.append(stream)
        path.domain.append(int(domains[0]) if (domains == domains[0]).all() else -1)
        path.alpha.append(self._bench.alphas[outcome.index])
        path.forward_equivalents.append(outcome.forward_equivalents)
        path.trigger.append(outcome.trigger)
        path.reset.append(outcome.reset)

    def score(self) -> Score:
        """Return the score of all batches that were served."""
        self._weigh()
        forwards = np.repeat(self.path.forward_equivalents, [len(ids) for ids in self._ids])
        return score(self._bench, np.concatenate(self._ids), joined(self._worth), forwards)

    def _weigh(self) -> None:
        """Compute the quality of the pending batches together.

        Batch by batch, the softmax would take as long as the search.
        """
        ids = np.concatenate([ids for ids, _, _ in self._pending])
        T = torch.tensor([self._bench.temperatures[index] for ids, _, index in self._pending for _ in ids])
        logits = torch.cat([z for _, z, _ in self._pending])
        self._worth.append(quality(logits, self._labels[torch.from_numpy(ids)], T))
        self._ids += [ids for ids, _, _ in self._pending]
        self._pending.clear()
