"""The search protocol: a search chooses the alpha of one batch and never calls the model.

A search is a generator: it yields trials, is sent their logits, and returns the outcome. `run` advances the searches of
many streams in lock-step and groups their trials by alpha, so that one merged copy of the weights serves every camera
that needs it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.conditions import Appearance
from adawise.adapt.objective import Objective, Values, reliable
from adawise.adapt.rows import Evaluate
from adawise.adapt.state import StreamState
from adawise.adapt.state_key import state_key
from adawise.records import Rows, TrialRecord

NOISE_FLOOR = 1e-4  # nats^2: no mean of a few images is known more precisely
FAILED = "failed"
"""The trigger and the reset of a batch whose search was given up."""

_MOST_IDLE = 16  # steps without a new row after which a search counts as stuck in a cycle


@dataclass(frozen=True)
class Trial:
    """A request to evaluate `alphas[index]` on these rows `[m]` of the batch."""

    index: int
    rows: Rows


@dataclass(frozen=True)
class Outcome:
    """The result of a search for a batch of n images.

    Attributes:
        state: the state after the batch.
        index: index of the served alpha.
        logits: `[n, C]` at the served alpha.
        evaluated: alpha index -> (rows `[m]`, logits `[m, C]`) of every trial.
        trials: the trials for the trace.
        objective: of the batch at the served alpha, nats; nan if a strategy has none.
        trigger: why alternatives were tried, or "none".
        reset: why something learned was given up; None if nothing was.
        posterior_mean: at the served alpha, nats; nan if a strategy has none.
        posterior_sd: its standard deviation.
        regret: by how much an audit found another alpha to be lower, nats; nan without an audit.
        alarm: True if `adapt/alarm.py` keeps alpha from where the objective would have it; None if a strategy has no
            alarm.
        among_all: `[n, C]` at the served alpha among all classes, where `logits` are among a shortlist; else None.
        error: why the batch's own search was given up, in which case `Strategy.restart` served it; None if it was not.
    """

    state: StreamState
    index: int
    logits: Tensor
    evaluated: dict[int, tuple[Rows, Tensor]]
    trials: tuple[TrialRecord, ...]
    objective: float
    trigger: str = "none"
    reset: str | None = None
    posterior_mean: float = float("nan")
    posterior_sd: float = float("nan")
    regret: float = float("nan")
    alarm: bool | None = None
    among_all: Tensor | None = None
    error: Exception | None = None

    @property
    def forward_equivalents(self) -> float:
        """Images evaluated by the image tower over images in the batch; plain CLIP is 1."""
        return sum(t.images for t in self.trials) / len(self.logits)


def forward_cost(forward_equivalents: float, tail_share: float) -> float:
    """Return whole forwards per image: layers that both models share count once, all others for each evaluation.

    Args:
        forward_equivalents: evaluations per image, >= 1.
        tail_share: the cost of an image at a second alpha, as a share of a forward, in (0, 1].
    """
    return 1.0 + tail_share * (forward_equivalents - 1.0)


Search = Generator[list[Trial], list[Tensor], Outcome]


class Strategy(Protocol):
    """A way to choose alpha. To add one, see `adapt/strategies`."""

    @property
    def key(self) -> str:
        """The key that a state is tied to (`state_key`); a state made under another key is not continued."""

    def initial(self) -> StreamState:
        """Return the state of a new stream."""

    @property
    def reach(self) -> tuple[int, ...]:
        """Indices of the alphas that a search may ask for, the likeliest first; idle time may prepare their heads."""

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:
        """Choose the alpha of a batch of that many images; `appearance` is None if it was not measured.

        A pure function of (state, images, appearance, logits sent).
        """

    def restart(self, state: StreamState, images: int) -> Search:
        """Serve a batch whose search failed: at the alpha that streams start at, with a new state."""


@dataclass(frozen=True)
class OnGrid(ABC):
    """The common part of strategies.

    Attributes:
        alphas: the grid.
        objective: what is minimised.
        context: the context of `state_key`.
        start: index of the alpha at which a stream starts.
    """

    alphas: tuple[float, ...]
    objective: Objective
    context: str
    start: int

    @property
    @abstractmethod
    def key(self) -> str:
        """See `Strategy.key`."""

    def key_of(self, strategy: str, **settings: float) -> str:
        """Return the key of the strategy of that name with these `settings` of `state_key`."""
        return state_key(strategy, self.context, self.start, self.alphas, **settings)

    def initial(self) -> StreamState:
        """See `Strategy.initial`."""
        return StreamState(self.key, self.start)

    def restart(self, state: StreamState, images: int) -> Search:
        """See `Strategy.restart`."""
        trials = BatchTrials(images, self.objective)
        yield from trials.evaluate([self.start])
        records = trials.records(self.alphas)
        return Outcome(
            state=replace(self.initial(), batches=state.batches + 1),
            index=self.start,
            logits=trials.evaluated[self.start][1],
            evaluated=trials.evaluated,
            trials=records,
            objective=records[0].objective,
            trigger=FAILED,
            reset=FAILED,
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """See `Strategy.reach`: the start, then ends, middle and quarters of the grid, then ever finer parts."""
        last = len(self.alphas) - 1
        return (self.start, *sorted(set(range(last + 1)) - {self.start}, key=lambda j: (-math.gcd(j, last), j)))


@dataclass
class BatchTrials:
    """The trials of one batch so far.

    Attributes:
        images: n, the images of the batch.
        objective: what is minimised.
        evaluated: alpha index -> (rows `[m]`, logits `[m, C]`).
        values: alpha index -> `[n]`, nan where it was not evaluated.
    """

    images: int
    objective: Objective
    evaluated: dict[int, tuple[Rows, Tensor]] = field(default_factory=dict)
    values: dict[int, Values] = field(default_factory=dict)

    def evaluate(self, indices: Sequence[int], rows: Rows | None = None) -> Generator[list[Trial], list[Tensor], None]:
        """Ask for these alphas on `rows` (default: all) in one step, and keep the results beside the earlier ones."""
        rows = np.arange(self.images) if rows is None else rows
        logits = yield [Trial(index, rows) for index in indices]
        for index, z in zip(indices, logits, strict=True):
            values = self.values.setdefault(index, np.full(self.images, np.nan))
            values[rows] = self.objective(z, index)
            self.evaluated[index] = (rows, z) if index not in self.evaluated else self._joined(index, rows, z)

    def _joined(self, index: int, rows: Rows, logits: Tensor) -> tuple[Rows, Tensor]:
        """Return an alpha's earlier rows and the new ones with their logits, in the order of the batch."""
        seen, z = self.evaluated[index]
        rows = np.concatenate([seen, rows])
        order = np.argsort(rows)
        return rows[order], torch.cat([z, logits])[torch.from_numpy(order)]

    def objectives(self, minimum: int) -> dict[int, tuple[float, Values]]:
        """Return alpha index -> (mean, values `[m]`) over the reliable rows that every alpha so far has evaluated.

        An alpha with a value that is not finite has no objective (nan and no values), and takes no row from the others.
        """
        objectives = {index: (float("nan"), np.empty(0)) for index in self.values}
        finite = {i: v for i, v in self.values.items() if np.isfinite(v[self.evaluated[i][0]]).all()}
        if not finite:
            return objectives
        shared = ~np.isnan(np.stack(list(finite.values()))).any(axis=0)
        values = {index: v[shared] for index, v in finite.items()}
        classes = next(iter(self.evaluated.values()))[1].shape[-1]
        mask = reliable(list(values.values()), classes, minimum)
        objectives.update({index: (float(v[mask].mean()), v[mask]) for index, v in values.items()})
        return objectives

    def differences(self, base: int, minimum: int) -> list[tuple[int, float, float]]:
        """Return (alpha index, objective less that of `base`, noise variance of that) of alphas with an objective.

        In nats and nats^2, on the images that `objectives` compares. Empty if `base` has no objective.
        """
        objectives = self.objectives(minimum)
        base_mean, base_values = objectives[base]
        if not math.isfinite(base_mean):
            return []
        return [
            (index, mean - base_mean, max(NOISE_FLOOR, float((values - base_values).var()) / len(values)))
            for index, (mean, values) in objectives.items()
            if math.isfinite(mean)
        ]

    def records(self, alphas: Sequence[float]) -> tuple[TrialRecord, ...]:
        """Return the trials for the trace, in the order in which they were made, each over its own rows."""
        return tuple(
            TrialRecord(alphas[index], len(rows), float(self.values[index][rows].mean()))
            for index, (rows, _) in self.evaluated.items()
        )


@dataclass
class _Running:
    """One running search, and the search that replaces it if it fails.

    Attributes:
        search: the search.
        restart: makes the replacement; None if there is none, or it is running already.
        idle: steps in a row that asked for nothing new.
        seen: (alpha index, row) pairs that were asked for.
        error: why the first search was given up.
        outcome: the result, once there is one.
    """

    search: Search
    restart: Callable[[], Search] | None
    idle: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)
    error: Exception | None = None
    outcome: Outcome | None = None

    def advance(self, answers: list[Tensor] | None) -> list[Trial] | None:
        """Return the next trials, or None once there is an outcome; `answers` are the logits of the previous trials."""
        try:
            requested = next(self.search) if answers is None else self.search.send(answers)
            before = len(self.seen)
            self.seen |= {(trial.index, row) for trial in requested for row in trial.rows.tolist()}
            self.idle = self.idle + 1 if len(self.seen) == before else 0
            if self.idle > _MOST_IDLE:
                raise RuntimeError(f"the search requested known logits {self.idle} times and did not end")
            return requested
        except StopIteration as stop:
            outcome: Outcome = stop.value
            if outcome.state.is_finite() or self.restart is None:
                self.outcome = replace(outcome, error=self.error)
                return None
            failure: Exception = ArithmeticError("the search led to a state that is not finite")
        except Exception as error:
            if self.restart is None:
                raise
            failure = error
        # The replacement has no replacement of its own: if it fails, the error is raised.
        self.search, self.restart, self.idle, self.error = self.restart(), None, 0, failure
        self.seen.clear()
        return self.advance(None)


def run(
    searches: Sequence[Search],
    evaluate: Evaluate,
    restarts: Sequence[Callable[[], Search]] | None = None,
) -> list[Outcome]:
    """Drive the searches to their outcomes; `searches[s]` chooses the alpha of batch s of the round.

    `evaluate` is called once a step for everything that the searches then want; the rows of all streams that want one
    alpha go together. If `restarts` are given, a search that raises, or that asks again and again for what it has,
    costs only its own batch: `restarts[s]` makes the search that serves the batch instead. Errors of that search and of
    `evaluate` are always raised. The trials of an outcome leave out what a failed search had evaluated.
    """
    running = [_Running(search, restarts[s] if restarts else None) for s, search in enumerate(searches)]
    requested = {s: trials for s, each in enumerate(running) if (trials := each.advance(None)) is not None}
    while requested:
        answers = _answers(requested, evaluate)
        requested = {s: trials for s in requested if (trials := running[s].advance(answers[s])) is not None}
    return [each.outcome for each in running if each.outcome is not None]


def _answers(wanted: dict[int, list[Trial]], evaluate: Evaluate) -> dict[int, list[Tensor]]:
    """Evaluate the wanted trials, grouped by alpha, and return the logits of each stream's trials."""
    by_alpha: dict[int, list[tuple[int, int, Rows]]] = {}
    for s, trials in wanted.items():
        for k, trial in enumerate(trials):
            by_alpha.setdefault(trial.index, []).append((s, k, trial.rows))
    logits = evaluate({j: [(s, rows) for s, _, rows in by_alpha[j]] for j in sorted(by_alpha)})
    answers: dict[int, list[Tensor]] = {s: [torch.empty(0)] * len(trials) for s, trials in wanted.items()}
    for index, requested in by_alpha.items():
        parts = torch.split(logits[index], [len(rows) for _, _, rows in requested])
        for (s, k, _), part in zip(requested, parts, strict=True):
            answers[s][k] = part
    return answers
