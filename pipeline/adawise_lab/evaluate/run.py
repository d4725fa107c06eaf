"""Run candidates over streams: the worker's own search on looked-up logits, in several processes.

A task is one candidate on one kind and order of streams with one seed. It is a pure function of these, so the result
does not depend on how many processes share the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from statistics import fmean
from tempfile import gettempdir
from typing import NamedTuple
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
from adawise.adapt.shortlist import Shortlist, digest_of, narrowed
from adawise.adapt.smoothing import Smoothing, correction, labelled
from adawise.adapt.smoothing import continued as smoothing_continued
from adawise.card.card import Card
from adawise.errors import FatalError
from adawise_lab.evaluate.bench import Bench, Quality, Replayed, joined, quality
from adawise_lab.evaluate.camera import ALL, shown
from adawise_lab.evaluate.candidates import SLOW, Candidate, objective_named
from adawise_lab.evaluate.lists import NONE, shortlists_of
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

    `shows` is what cameras show of the classes, and `lists` the shortlists that they have; with `prior`, a class prior
    runs beside every candidate, and with `smooths` neighbouring frames correct too.
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
    lists: str = NONE

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

    def shortlists(self, bench: Bench, streams: Sequence[Stream], seed: int) -> tuple[Mapping[int, Shortlist], ...]:
        """Return the shortlists of each stream of a task, by the index of the vocabulary; none for all classes."""
        return tuple(shortlists_of(stream, self.lists, bench, seed=seed) for stream in streams)


@dataclass(frozen=True)
class ListScores:
    """The scores of a search among all classes, beside one among a camera's shortlist.

    Attributes:
        predicted: its predictions among the shortlist.
        without: its predictions among all classes.
        names: mean number of classes among which an image was predicted with the shortlist.
    """

    predicted: Score
    without: Score
    names: float


@dataclass(frozen=True)
class TaskResult:
    """The score and the path of a task, with a shortlist if cameras have one.

    `scene` is the score of `scene_label` if a class prior ran beside it; `listed` is what shortlists are compared with.
    """

    task: Task
    score: Score
    path: AlphaPath
    scene: Score | None = None
    listed: ListScores | None = None


class Runner:
    """Runs tasks of a plan, and keeps the values of each objective on the bench from task to task."""

    def __init__(self, bench: Bench, plan: Plan, card: Card | None) -> None:
        self.bench, self._plan, self._card = bench, plan, card
        self._values: dict[str, tuple[Values, ...]] = {}
        self._digests = {v: digest_of(t.class_names) for v, t in zip(bench.vocabularies, bench.tables, strict=True)}
        # Tasks come seed by seed, and every candidate gets the same streams.
        self._streams = lru_cache(len(plan.kinds) * len(plan.orders))(partial(plan.streams, bench))
        self._shortlists = lru_cache(len(plan.kinds) * len(plan.orders))(self._shortlists_of)

    def run(self, task: Task) -> TaskResult:
        """Run one task; the result is a pure function of the task."""
        bench, plan = self.bench, self._plan
        shortlists = self._shortlists(task.kind, task.order, task.seed)
        served, scene, last = Served(bench), None, -1
        for number, ids, outcome in self._outcomes(task, shortlists):
            vocabulary = self._vocabulary(ids)
            shortlist = shortlists[number].get(vocabulary)
            served.add(number, ids, outcome, shortlist)
            if plan.prior:
                digest = shortlist.digest if shortlist else self._digests[vocabulary]
                known = (None, None) if scene is None or number != last else (scene.prior, scene.smoothing)
                labels = bench.labels[ids]
                scene = correct(
                    known, outcome, labels, bench.temperatures, digest, smooths=plan.smooths, shortlist=shortlist
                )
                served.add_scene(scene)
            last = number
        listed = None if plan.lists == NONE else self._listed(task, shortlists)
        return TaskResult(task, served.score(), served.path, served.scene_score(), listed)

    def _outcomes(
        self, task: Task, shortlists: Sequence[Mapping[int, Shortlist]] = ()
    ) -> Iterator[tuple[int, Ids, Outcome]]:
        """Yield the number of its stream, the images and the outcome of each batch, searched among its shortlist."""
        bench, candidate = self.bench, self._plan.candidates[task.candidate]
        replayed = Replayed(bench.blocks, objective_named(candidate.objective, self._card), self._of(candidate))
        strategy = candidate.build(bench.alphas, replayed.objective, self._card)
        for number, stream in enumerate(self._streams(task.kind, task.order, task.seed)):
            state = strategy.initial()
            shifts = appearance_shifts(task.kind, len(stream), seed=task.seed, stream=number)
            for k, ids in enumerate(stream):
                vocabulary = self._vocabulary(ids)
                replayed.turn_to(vocabulary)
                rows = torch.from_numpy(bench.row_of[ids])
                appearance = bench.appearance(ids, 0.0 if shifts is None else shifts[k])
                shortlist = shortlists[number].get(vocabulary) if shortlists else None
                searched = narrowed(strategy.search(state, len(ids), appearance), shortlist)
                (outcome,) = search.run([searched], of_images([rows], replayed.evaluate))
                yield number, ids, outcome
                state = outcome.state

    def _listed(self, task: Task, shortlists: Sequence[Mapping[int, Shortlist]]) -> ListScores:
        """Return what the same candidate serves if it searches among all classes."""
        without, predicted, names = Served(self.bench), Served(self.bench), []
        for number, ids, outcome in self._outcomes(task):
            without.add(number, ids, outcome)
            shortlist = shortlists[number].get(self._vocabulary(ids))
            if shortlist is not None:
                outcome = replace(outcome, logits=outcome.logits.index_select(-1, shortlist.columns))
            predicted.add(number, ids, outcome, shortlist)
            names += [outcome.logits.shape[-1]] * len(ids)
        return ListScores(predicted.score(), without.score(), fmean(names))

    def _shortlists_of(self, kind: str, order: str, seed: int) -> tuple[Mapping[int, Shortlist], ...]:
        return self._plan.shortlists(self.bench, self._streams(kind, order, seed), seed)

    def _vocabulary(self, ids: Ids) -> int:
        """Return the index of a batch's vocabulary."""
        return self.bench.vocabularies[int(self.bench.domain_of[ids[0]])]

    def _of(self, candidate: Candidate) -> tuple[Values, ...]:
        if candidate.objective not in self._values:
            objective = objective_named(candidate.objective, self._card)
            self._values[candidate.objective] = self.bench.values(objective)
        return self._values[candidate.objective]


class SceneBatch(NamedTuple):
    """A batch of n images as a scene corrects it, with the memory to go on with.

    Attributes:
        prior: the class prior after the batch.
        smoothing: the smoothing after it; None where nothing is smoothed.
        quality: of `scene_label` and `scene_confidence`, `[n]`; the NLL is that of the corrected probabilities.
        gate: how far the class prior corrects, from 0 to 1.
        weight: how far neighbouring frames do; None where nothing is smoothed.
    """

    prior: ClassPrior
    smoothing: Smoothing | None
    quality: Quality
    gate: float
    weight: float | None


def correct(
    scene: tuple[ClassPrior | None, Smoothing | None],
    outcome: Outcome,
    labels: Ids,
    temperatures: tuple[float, ...],
    digest: str,
    *,
    smooths: bool,
    shortlist: Shortlist | None = None,
) -> SceneBatch:
    """Return what a stream's scene makes of a batch, as a worker does.

    The NLL is minus the logarithm of the label's corrected probability (Guo et al., 2017, section 2).

    Args:
        scene: the class prior and the smoothing after the batch before; None before the first.
        outcome: of the search on the batch.
        labels: class indices `[n]`.
        temperatures: one for each alpha.
        digest: of the class names among which `outcome` has logits.
        smooths: neighbouring frames correct, too.
        shortlist: the camera's; None: all classes.
    """
    logits, index, columns = outcome.logits, outcome.index, shortlist.columns if shortlist else None
    predictions = predict(logits, outcome.evaluated, index=index, temperatures=temperatures, top_k=1, columns=columns)
    n, K = logits.shape
    prior = prior_continued(scene[0], digest, K)
    smoothing = smoothing_continued(scene[1], digest, K) if smooths else None
    found = correction(prior, smoothing, logits, temperatures[index])
    corrected = labelled(found, predictions, columns)
    predicted, confidence = corrected.predictions.scene_index, corrected.predictions.scene_confidence
    assert predicted is not None
    assert confidence is not None
    p = np.full((n, K), np.nan)
    p[found.finite] = found.p
    is_label = (np.arange(K) if columns is None else columns.numpy()) == labels[:, None]
    with np.errstate(divide="ignore"):  # a label that is not on the shortlist has no probability
        nll = -np.log(np.where(is_label, p, 0.0).sum(axis=1))
    quality = Quality(predicted == labels, confidence.astype(np.float64), nll, predicted)
    return SceneBatch(corrected.prior, corrected.smoothing, quality, corrected.gate, corrected.weight)


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
        self._pending: list[tuple[Ids, torch.Tensor, int]] = []  # ids [n], logits [n, K], alpha index
        self._shortlist: Shortlist | None = None  # of the pending batches
        self._scenes: list[Quality] = []
        self.path = AlphaPath()

    def add(self, stream: int, ids: Ids, outcome: Outcome, shortlist: Shortlist | None = None) -> None:
        """Add the next batch of a stream, with logits among its shortlist."""
        domains = self._bench.domain_of[ids]
        if self._pending and (
            len(self._pending) == _AT_ONCE
            or self._pending[-1][1].shape[1:] != outcome.logits.shape[1:]
            or self._shortlist is not shortlist
        ):
            self._weigh()
        self._pending.append((ids, outcome.logits, outcome.index))
        self._shortlist = shortlist
        path = self.path
        path.stream.append(stream)
        path.domain.append(int(domains[0]) if (domains == domains[0]).all() else -1)
        path.alpha.append(self._bench.alphas[outcome.index])
        path.forward_equivalents.append(outcome.forward_equivalents)
        path.trigger.append(outcome.trigger)
        path.reset.append(outcome.reset)

    def add_scene(self, scene: SceneBatch) -> None:
        """Add what the scene makes of the batch that was added last."""
        self._scenes.append(scene.quality)
        self.path.scene_gate.append(scene.gate)
        if scene.weight is not None:
            self.path.scene_smoothing.append(scene.weight)

    def scene_score(self) -> Score | None:
        """Return the score of `scene_label`, without cost; None without a class prior. It comes after `score`."""
        if not self._scenes:
            return None
        ids, follows = self._visits()
        worth = joined(self._scenes, np.concatenate)
        return score(self._bench, ids, worth, np.nan, follows)

    def score(self) -> Score:
        """Return the score of all batches that were served."""
        self._weigh()
        forwards = np.repeat(self.path.forward_equivalents, [len(ids) for ids in self._ids])
        ids, follows = self._visits()
        return score(self._bench, ids, joined(self._worth, np.concatenate), forwards, follows)

    def _visits(self) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Return the images of all batches `[V]`, and whether each followed the one before it in its stream."""
        stream = np.repeat(self.path.stream, [len(ids) for ids in self._ids])
        return np.concatenate(self._ids), np.diff(stream, prepend=-1) == 0

    def _weigh(self) -> None:
        """Compute the quality of the pending batches together.

        Batch by batch, the softmax would take as long as the search.
        """
        ids = np.concatenate([ids for ids, _, _ in self._pending])
        T = torch.tensor([self._bench.temperatures[index] for ids, _, index in self._pending for _ in ids])
        logits = torch.cat([z for _, z, _ in self._pending])
        columns = None if self._shortlist is None else self._shortlist.columns
        self._worth.append(quality(logits, self._labels[torch.from_numpy(ids)], T, columns))
        self._ids += [ids for ids, _, _ in self._pending]
        self._pending.clear()
