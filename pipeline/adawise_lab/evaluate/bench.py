"""The bench that strategies run on: the logits of all domains in memory, and which predictions are right.

Images of all domains are numbered consecutively. Domains with the same class names share a vocabulary, and with it one
block of logits `[G, N, C]` (G alphas, N images, C classes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt.conditions import Appearance
from adawise.adapt.objective import Objective, Values
from adawise.adapt.shortlist import Shortlist
from adawise.card.calibration import sharing
from adawise_lab.evaluate.streams import Domain, Ids
from adawise_lab.evaluate.tables import LogitTable

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Quality:
    """The quality of predictions, one entry per image, of any shape.

    Attributes:
        correct: whether the prediction is right.
        confidence: probability of the predicted class.
        nll: negative log-likelihood of the label, nats; infinite where the label is not on the camera's shortlist.
        predicted: the class index of the prediction.
    """

    correct: npt.NDArray[np.bool_]
    confidence: Floats
    nll: Floats
    predicted: npt.NDArray[np.int32]

    def at(self, index: npt.NDArray[np.int64] | int, ids: Ids) -> Quality:
        """Return the quality of images `ids` at the alphas `index`; the first axis is alpha, the second the image."""
        return Quality(*(getattr(self, array.name)[index, ids] for array in fields(self)))


def joined(parts: Sequence[Quality], join: Callable[..., Any]) -> Quality:
    """Return the parts as one, each of their arrays joined by `join`."""
    return Quality(*(join([getattr(part, array.name) for part in parts]) for array in fields(Quality)))


def quality(logits: Tensor, labels: Tensor, temperatures: Tensor, columns: Tensor | None = None) -> Quality:
    """Return the quality of predictions among all classes, or among a shortlist.

    Args:
        logits: `[n, K]`; each row is divided by its own temperature.
        labels: class indices `[n]`.
        temperatures: `[n]`.
        columns: int64 `[K]`, the classes of the logits' columns; None: all C classes, so that K = C.
    """
    log_p = torch.log_softmax(logits / temperatures[:, None], dim=-1)
    best = log_p.max(dim=-1)
    if columns is None:
        predicted, of_label = best.indices, log_p.gather(1, labels[:, None])[:, 0]
    else:
        predicted = columns[best.indices]
        of_label = log_p.masked_fill(columns != labels[:, None], -torch.inf).amax(dim=-1)
    return Quality(
        correct=(predicted == labels).numpy(),
        confidence=best.values.exp().double().numpy(),
        nll=-of_label.double().numpy(),
        predicted=predicted.to(torch.int32).numpy(),
    )


@dataclass(frozen=True, eq=False)
class Bench:
    """Logit tables with one grid of alphas, and what follows from them.

    Attributes:
        tables: one table for each domain.
        temperatures: one for each alpha, applied to served logits: those of a card, or all 1.
        named_groups: other names for groups of domains; several groups may get one name. See `groups`.
        tail_share: what an image costs at a second alpha, as a share of a forward; 1 if the models share no layers.
    """

    tables: tuple[LogitTable, ...]
    temperatures: tuple[float, ...]
    named_groups: Mapping[str, str] = field(default_factory=dict)
    tail_share: float = 1.0

    @property
    def alphas(self) -> tuple[float, ...]:
        """The grid of alphas, from 0 to 1."""
        return self.tables[0].alphas

    @cached_property
    def starts(self) -> list[int]:
        """The id of the first image of each domain, followed by the total number of images."""
        return [0, *np.cumsum([len(table) for table in self.tables]).tolist()]

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each domain."""
        return tuple(self.named_groups.get(table.group, table.group) for table in self.tables)

    @cached_property
    def vocabularies(self) -> tuple[int, ...]:
        """The index of each domain's vocabulary."""
        names = list(dict.fromkeys(table.class_names for table in self.tables))
        return tuple(names.index(table.class_names) for table in self.tables)

    @cached_property
    def sharing(self) -> tuple[tuple[int, ...], ...]:
        """The domains in groups that share source images, as `calibration.sharing` finds them."""
        return sharing([table.labels for table in self.tables], self.vocabularies)

    @cached_property
    def domain_of(self) -> Ids:
        """The domain of each image, `[N]`."""
        return np.repeat(np.arange(len(self.tables)), [len(table) for table in self.tables])

    @cached_property
    def row_of(self) -> Ids:
        """The row of each image in the block of its vocabulary, `[N]`."""
        rows = np.empty(self.starts[-1], dtype=np.int64)
        vocabulary = np.asarray(self.vocabularies)[self.domain_of]
        for v in range(len(set(self.vocabularies))):
            mine = vocabulary == v
            rows[mine] = np.arange(mine.sum())
        return rows

    @cached_property
    def labels(self) -> Ids:
        """The class index of each image in its vocabulary, `[N]`."""
        return np.concatenate([table.labels for table in self.tables])

    @cached_property
    def pixels(self) -> Floats | None:
        """The appearance statistics of each image, `[N, 5]`; None if any table lacks them."""
        parts = [table.pixels for table in self.tables if table.pixels is not None]
        return np.concatenate(parts).astype(np.float64) if len(parts) == len(self.tables) else None

    def appearance(self, ids: Ids, shift: Floats | float = 0.0) -> Appearance | None:
        """Return the appearance of a batch of these images, with `shift` `[5]` added; None without statistics."""
        if self.pixels is None:
            return None
        pixels = self.pixels[ids] + shift
        return Appearance(pixels.mean(axis=0), pixels.var(axis=0), len(ids))

    @cached_property
    def blocks(self) -> tuple[Tensor, ...]:
        """The logits of each vocabulary, float32 `[G, N_v, C_v]`."""
        return tuple(
            torch.from_numpy(
                np.concatenate(
                    [
                        t.logits.astype(np.float32)
                        for t, mine in zip(self.tables, self.vocabularies, strict=True)
                        if mine == v
                    ],
                    axis=1,
                )
            )
            for v in range(len(set(self.vocabularies)))
        )

    @cached_property
    def quality(self) -> Quality:
        """The quality of every image at every fixed alpha, `[G, N]`."""
        parts = []
        for table in self.tables:
            labels = torch.from_numpy(table.labels)
            at_each = [
                quality(torch.from_numpy(z.astype(np.float32)), labels, torch.full((len(table),), T))
                for z, T in zip(table.logits, self.temperatures, strict=True)
            ]
            parts.append(joined(at_each, np.stack))
        return joined(parts, partial(np.concatenate, axis=1))

    @cached_property
    def accuracy(self) -> Floats:
        """The accuracy on each domain at each fixed alpha, `[D, G]`."""
        correct = self.quality.correct
        spans = zip(self.starts, self.starts[1:], strict=False)
        return np.stack([correct[:, first:last].mean(axis=1) for first, last in spans])

    @cached_property
    def domains(self) -> tuple[Domain, ...]:
        """The domains in the form that streams need, ranked by their best alpha."""
        return tuple(
            Domain(t.name, np.arange(first, first + len(t)), t.labels, v, float(best))
            for t, first, v, best in zip(
                self.tables, self.starts, self.vocabularies, self.accuracy.argmax(axis=1), strict=False
            )
        )

    def knowing(self, *, blocks: tuple[Tensor, ...], quality: Quality) -> Bench:
        """Return a copy of this bench that uses the given blocks and quality; its tables may then be without logits."""
        bench = replace(self)
        bench.__dict__.update(blocks=blocks, quality=quality)  # a cached property keeps its value in __dict__
        return bench

    def among(self, shortlists: Mapping[int, Shortlist]) -> Bench:
        """Return a bench whose predictions are among the shortlist of each vocabulary; others keep all classes."""
        blocks, qualities = list(self.blocks), []
        for v, shortlist in shortlists.items():
            blocks[v] = blocks[v].index_select(-1, shortlist.columns)
        for d, (table, v) in enumerate(zip(self.tables, self.vocabularies, strict=True)):
            rows = torch.from_numpy(self.row_of[self.starts[d] : self.starts[d + 1]])
            labels, columns = torch.from_numpy(table.labels), shortlists[v].columns if v in shortlists else None
            at_each = [
                quality(z.index_select(0, rows), labels, torch.full((len(table),), T), columns)
                for z, T in zip(blocks[v], self.temperatures, strict=True)
            ]
            qualities.append(joined(at_each, np.stack))
        return self.knowing(blocks=tuple(blocks), quality=joined(qualities, partial(np.concatenate, axis=1)))

    def values(self, objective: Objective) -> tuple[Values, ...]:
        """Return the objective of every image at every alpha: `[G, N_v]` for each vocabulary."""
        return tuple(np.stack([objective(z, j) for j, z in enumerate(block)]) for block in self.blocks)


class Replayed:
    """A stand-in for the classifier that looks up logits, and the objective of them.

    It recognises logits that it returned by their memory address, so views of them are looked up as well. The objective
    of any other logits (such as mixtures computed from them) is computed.
    """

    def __init__(self, blocks: Sequence[Tensor], objective: Objective, values: Sequence[Values]) -> None:
        self._blocks, self._objective, self._values = blocks, objective, values
        self._vocabulary = 0
        self._last: dict[int, tuple[Tensor, Ids]] = {}

    def turn_to(self, vocabulary: int) -> None:
        """Set the vocabulary of the next batch."""
        self._vocabulary = vocabulary
        self._last.clear()

    def evaluate(self, requested: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        """Implement `adapt.search.Evaluate` on rows of the vocabulary's block, int64 `[n]`, in place of images."""
        return {index: self.logits(index, *rows) for index, rows in requested.items()}

    def logits(self, index: int, /, *rows: Tensor) -> Tensor:
        """Return the logits of these rows at one alpha, `[n, C]`."""
        indices = rows[0] if len(rows) == 1 else torch.cat(rows)
        z = self._blocks[self._vocabulary][index].index_select(0, indices)
        self._last[index] = (z, indices.numpy())
        return z

    def objective(self, logits: Tensor, index: int) -> Values:
        """Implement `adapt.objective.Objective`; a looked-up value has the same bits as a computed one."""
        known = self._last.get(index)
        if known is not None and logits.is_contiguous() and logits.dtype == known[0].dtype:
            z, rows = known
            # Is this a view of whole rows of the logits that were returned last at this alpha?
            first, odd = divmod(logits.data_ptr() - z.data_ptr(), z.shape[1] * z.element_size())
            if not odd and first >= 0 and first + len(logits) <= len(rows) and logits.shape[1:] == z.shape[1:]:
                looked_up: Values = self._values[self._vocabulary][index][rows[first : first + len(logits)]]
                return looked_up
        return self._objective(logits, index)
