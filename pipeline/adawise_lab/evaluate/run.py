"""Run candidates over streams: the worker's own search on looked-up logits, in several processes.

A task is one candidate on one kind and order of streams with one seed. It is a pure function of these, so the result
does not depend on how many processes share the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from tempfile import gettempdir
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
import torch
from joblib import Parallel, delayed

from adawise.adapt import search
from adawise.adapt.objective import Values
from adawise.adapt.predict import predict
from adawise.adapt.prior import ClassPrior
from adawise.adapt.prior import continued as prior_continued
from adawise.adapt.rows import of_images
from adawise.adapt.search import Outcome
from adawise.adapt.shortlist import digest_of
from adawise.adapt.smoothing import Corrected, Smoothing, corrected
from adawise.adapt.smoothing import continued as smoothing_continued
from adawise.card.card import Card
from adawise.errors import FatalError
from adawise.records import Predictions
from adawise_lab.evaluate.bench import Bench, Quality, Replayed, joined, quality
from adawise_lab.evaluate.camera import ALL, shown
from adawise_lab.evaluate.candidates import SLOW, Candidate, objective_named
from adawise_lab.evaluate.score import Score, score
from adawise_lab.evaluate.streams import BATCH, Ids, Smooth, Stream, appearance_shifts, make_streams

_AT_ONCE = 64  # batches whose quality is computed together


@dataclass(frozen=True)
class Task:
    """One candidate (by its index in the plan's list) on one kind and order of streams with one seed."""

    candidate: int
    kind: str
    order: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """The plan of an evaluation: every candidate on every kind and order of streams with every seed.

    `shows` is what cameras show of the classes; with `prior`, a class prior runs beside every candidate, and with
    `smooths` neighbouring frames correct too.
    """

    candidates: tuple[Candidate, ...]
    kinds: tuple[str, ...]
    orders: tuple[str, ...]
    seeds: int = 5
    smooth: Smooth | None = None  # indices of the bench's domains
    batch: int = BATCH
    shows: str = ALL
    prior: bool = False
    smooths: bool = False

    @property
    def tasks(self) -> list[Task]:
        """All tasks, candidate by candidate."""
        return [
            Task(candidate, kind, order, seed)
            for candidate in range(len(self.candidates))
            for kind in self.kinds
            for order in self.orders
            for seed in range(self.seeds)
        ]

    def streams(self, bench: Bench, kind: str, order: str, seed: int) -> tuple[Stream, ...]:
        """Return the streams of a task; they are the same for all candidates."""
        streams = make_streams(kind, order, bench.domains, seed=seed, smooth=self.smooth, batch=self.batch)
        return shown(streams, self.shows, kind, order, bench.domains, seed=seed)


@dataclass(frozen=True)
class TaskResult:
    """The score and the path of a task, and the score of `scene_label` if a class prior ran beside it."""

    task: Task
    score: Score
    path: AlphaPath
    scene: Score | None = None


class Runner:
    """Runs tasks of a plan, and keeps the values of each objective on the bench from task to task."""

    def __init__(self, bench: Bench, plan: Plan, card: Card | None) -> None:
        self.bench, self._plan, self._card = bench, plan, card
        self._values: dict[str, tuple[Values, ...]] = {}
        self._digests = {v: digest_of(t.class_names) for v, t in zip(bench.vocabularies, bench.tables, strict=True)}
        # Tasks come seed by seed, and every candidate gets the same streams.
        self._streams = lru_cache(len(plan.kinds) * len(plan.orders))(partial(plan.streams, bench))

    def run(self, task: Task) -> TaskResult:
        """Run one task; the result is a pure function of the task."""
        bench, candidate = self.bench, self._plan.candidates[task.candidate]
        replayed = Replayed(bench.blocks, objective_named(candidate.objective, self._card), self._of(candidate))
        strategy = candidate.build(bench.alphas, replayed.objective, self._card)
        served = Served(bench)
        for number, stream in enumerate(self._streams(task.kind, task.order, task.seed)):
            state, scene = strategy.initial(), None
            shifts = appearance_shifts(task.kind, len(stream), seed=task.seed, stream=number)
            for k, ids in enumerate(stream):
                replayed.turn_to(bench.vocabularies[bench.domain_of[ids[0]]])
                rows = torch.from_numpy(bench.row_of[ids])
                appearance = bench.appearance(ids, 0.0 if shifts is None else shifts[k])
                (outcome,) = search.run(
                    [strategy.search(state, len(ids), appearance)], of_images([rows], replayed.evaluate)
                )
                served.add(number, ids, outcome)
                state = outcome.state
                if self._plan.prior:
                    digest = self._digests[bench.vocabularies[bench.domain_of[ids[0]]]]
                    known = (None, None) if scene is None else (scene.prior, scene.smoothing)
                    scene = correct(known, outcome, bench.temperatures, digest, smooths=self._plan.smooths)
                    served.add_scene(ids, scene)
        return TaskResult(task, served.score(), served.path, served.scene_score())

    def _of(self, candidate: Candidate) -> tuple[Values, ...]:
        if candidate.objective not in self._values:
            objective = objective_named(candidate.objective, self._card)
            self._values[candidate.objective] = self.bench.values(objective)
        return self._values[candidate.objective]


def correct(
    scene: tuple[ClassPrior | None, Smoothing | None],
    outcome: Outcome,
    temperatures: tuple[float, ...],
    digest: str,
    *,
    smooths: bool,
) -> Corrected:
    """Return what a stream's scene makes of a batch, as a worker does.

    Args:
        scene: the class prior and the smoothing after the batch before; None before the first.
        outcome: of the search on the batch.
        temperatures: one for each alpha.
        digest: of the class names.
        smooths: neighbouring frames correct, too.
    """
    logits, index = outcome.logits, outcome.index
    predictions = predict(logits, outcome.evaluated, index=index, temperatures=temperatures, top_k=1)
    C = logits.shape[-1]
    prior, smoothing = prior_continued(scene[0], digest, C), None
    if smooths:
        smoothing = smoothing_continued(scene[1], digest, C)
    return corrected(prior, smoothing, predictions, logits, temperatures[index], None)


def run(
    bench: Bench, plan: Plan, card: Card | None, *, processes: int, done: Callable[[int], object]
) -> list[TaskResult]:
    """Run all tasks of a plan in `processes` processes, and return the results in the order of `plan.tasks`.

    `done(1)` is called after each task.

    Raises:
        FatalError: a process was killed from outside.
    """
    runs: dict[Task, TaskResult] = {}
    for result in _results(bench, plan, card, processes):
        runs[result.task] = result
        done(1)
    return [runs[task] for task in plan.tasks]


def _results(bench: Bench, plan: Plan, card: Card | None, processes: int) -> Iterator[TaskResult]:
    """Yield the results, in any order."""
    # Strategies that fit a model for each batch come first, so that the run does not end with one of them alone. Within
    # them, and among the rest, tasks go seed by seed.
    tasks = sorted(plan.tasks, key=lambda task: (plan.candidates[task.candidate].strategy not in SLOW, task.seed))
    processes = min(processes, len(tasks))
    if processes <= 1:
        yield from map(Runner(bench, plan, card).run, tasks)
        return
    bare = tuple(replace(table, logits=np.empty((0, 0, 0), dtype=table.logits.dtype)) for table in bench.tables)
    shared = Shared(
        uuid4(), Bench(bare, bench.temperatures), [b.numpy() for b in bench.blocks], bench.quality, plan, card
    )
    # "c" (copy on write): torch warns of arrays that cannot be written, and no process writes to these. The arrays are
    # files on disk, since memory is what runs short.
    files = {"mmap_mode": "c", "max_nbytes": 0, "temp_folder": gettempdir()}
    pool = Parallel(processes, "loky", return_as="generator_unordered", **files)
    try:
        yield from pool(delayed(_run)(shared, task) for task in tasks)
    except BrokenProcessPool as error:
        raise FatalError(
            f"one of {processes} processes that run strategies was killed from outside, as the system does when "
            "memory is short. Run again with --processes 1, or fewer --domains."
        ) from error


@dataclass(frozen=True)
class Shared:
    """The data that the worker processes share.

    Arrays are files that all of them map, so that there is one copy of the logits.
    """

    id: UUID
    bench: Bench  # without logits
    blocks: list[npt.NDArray[np.float32]]
    quality: Quality
    plan: Plan
    card: Card | None


_runner: tuple[UUID, Runner] | None = None  # of this process, which may serve one plan after another


def _run(shared: Shared, task: Task) -> TaskResult:
    global _runner  # noqa: PLW0603 - joblib keeps nothing else between tasks of a process
    if _runner is None or _runner[0] != shared.id:
        torch.set_num_threads(1)
        blocks = tuple(torch.from_numpy(block) for block in shared.blocks)
        bench = shared.bench.knowing(blocks=blocks, quality=shared.quality)
        _runner = shared.id, Runner(bench, shared.plan, shared.card)
    return _runner[1].run(task)


@dataclass
class AlphaPath:
    """The path of alpha, one entry per batch, over one or more streams.

    `stream` numbers the streams; `domain` is -1 if a batch mixes several. `scene_gate` is empty without a class prior,
    `scene_smoothing` without smoothing.
    """

    stream: list[int] = field(default_factory=list)
    domain: list[int] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)
    forward_equivalents: list[float] = field(default_factory=list)
    trigger: list[str] = field(default_factory=list)
    reset: list[str | None] = field(default_factory=list)
    scene_gate: list[float] = field(default_factory=list)
    scene_smoothing: list[float] = field(default_factory=list)


class Served:
    """The batches that were served so far, and their quality."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._labels = torch.from_numpy(bench.labels)
        self._ids: list[Ids] = []
        self._worth: list[Quality] = []
        self._pending: list[tuple[Ids, torch.Tensor, int]] = []  # ids [n], logits [n, C], alpha index
        self._scenes: list[tuple[Ids, Predictions]] = []
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

    def add_scene(self, ids: Ids, scene: Corrected) -> None:
        """Add what the scene makes of the next batch."""
        self._scenes.append((ids, scene.predictions))
        self.path.scene_gate.append(scene.gate)
        if scene.weight is not None:
            self.path.scene_smoothing.append(scene.weight)

    def scene_score(self) -> Score | None:
        """Return the score of `scene_label`, without NLL and cost; None without a class prior."""
        if not self._scenes:
            return None
        ids = np.concatenate([ids for ids, _ in self._scenes])
        index, confidence = (
            np.concatenate([getattr(predictions, name) for _, predictions in self._scenes])
            for name in ("scene_index", "scene_confidence")
        )
        unknown = np.full(len(ids), np.nan)
        worth = Quality(index == self._bench.labels[ids], confidence.astype(np.float64), unknown)
        return score(self._bench, ids, worth, unknown)

    def score(self) -> Score:
        """Return the score of all batches that were served."""
        self._weigh()
        forwards = np.repeat(self.path.forward_equivalents, [len(ids) for ids in self._ids])
        return score(self._bench, np.concatenate(self._ids), joined(self._worth, np.concatenate), forwards)

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
