"""Run candidates over streams: the worker's own search on looked-up logits, in several processes.

A task is one candidate on one kind and order of streams with one seed. It is a pure function of these, so the result
does not depend on how many processes share the tasks.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import active_children, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import current_thread, main_thread

import numpy as np
import torch

from adawise.adapt import search
from adawise.adapt.card import Card
from adawise.adapt.objective import Values
from adawise.errors import FatalError
from adawise.evaluate.bench import Bench, Replayed
from adawise.evaluate.candidates import SLOW, Candidate, objective_named
from adawise.evaluate.score import Score
from adawise.evaluate.served import AlphaPath, Served
from adawise.evaluate.streams import BATCH, Smooth, Stream, make_streams


@dataclass(frozen=True)
class Task:
    """`candidate` is its place in the plan's list."""

    candidate: int
    kind: str
    order: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """All that is run: every candidate on every kind and order of streams with every seed."""

    candidates: tuple[Candidate, ...]
    kinds: tuple[str, ...]
    orders: tuple[str, ...]
    seeds: int = 5
    smooth: Smooth | None = None  # indices of the bench's domains
    batch: int = BATCH

    @property
    def tasks(self) -> list[Task]:
        """Of candidate after candidate."""
        return [
            Task(candidate, kind, order, seed)
            for candidate in range(len(self.candidates))
            for kind in self.kinds
            for order in self.orders
            for seed in range(self.seeds)
        ]

    def streams(self, bench: Bench, kind: str, order: str, seed: int) -> tuple[Stream, ...]:
        """The streams of a task: the same for all candidates."""
        return make_streams(kind, order, bench.domains, seed=seed, smooth=self.smooth, batch=self.batch)


@dataclass(frozen=True)
class TaskResult:
    """What came of a task."""

    task: Task
    score: Score
    path: AlphaPath


class Runner:
    """Runs tasks of a plan, and keeps the values of each objective on the bench between them."""

    def __init__(self, bench: Bench, plan: Plan, card: Card | None) -> None:
        self.bench, self._plan, self._card = bench, plan, card
        self._values: dict[str, tuple[Values, ...]] = {}
        # tasks come seed by seed, and every candidate sees the same streams
        self._streams = lru_cache(len(plan.kinds) * len(plan.orders))(partial(plan.streams, bench))

    def run(self, task: Task) -> TaskResult:
        """A pure function of the task."""
        bench, candidate = self.bench, self._plan.candidates[task.candidate]
        replayed = Replayed(bench.blocks, objective_named(candidate.objective, self._card), self._of(candidate))
        strategy = candidate.build(bench.alphas, replayed.objective, self._card)
        served = Served(bench)
        for number, stream in enumerate(self._streams(task.kind, task.order, task.seed)):
            state = strategy.initial()
            for ids in stream:
                replayed.turn_to(bench.vocabularies[bench.domain_of[ids[0]]])
                rows = torch.from_numpy(bench.row_of[ids])
                (outcome,) = search.run([strategy.search(state, len(ids))], [rows], replayed.evaluate)
                served.add(number, ids, outcome)
                state = outcome.state
        return TaskResult(task, served.score(), served.path)

    def _of(self, candidate: Candidate) -> tuple[Values, ...]:
        if candidate.objective not in self._values:
            objective = objective_named(candidate.objective, self._card)
            self._values[candidate.objective] = self.bench.values(objective)
        return self._values[candidate.objective]


def run(
    bench: Bench, plan: Plan, card: Card | None, *, processes: int, done: Callable[[int], object]
) -> list[TaskResult]:
    """Run all tasks of a plan in so many processes; `done(1)` is called after each. In order of `plan.tasks`."""
    runs: dict[Task, TaskResult] = {}
    for result in _results(bench, plan, card, processes):
        runs[result.task] = result
        done(1)
    return [runs[task] for task in plan.tasks]


def _results(bench: Bench, plan: Plan, card: Card | None, processes: int) -> Iterator[TaskResult]:
    """In any order."""
    processes = min(processes, len(plan.tasks))
    if processes <= 1:
        runner = Runner(bench, plan, card)
        yield from (runner.run(task) for task in sorted(plan.tasks, key=_slow_first(plan)))
        return
    with (
        TemporaryDirectory(prefix="adawise-") as folder,
        # spawn: a fork of a process in which torch has started its threads may hang
        ProcessPoolExecutor(processes, get_context("spawn"), initializer=_start, initargs=(folder,)) as pool,
    ):
        _hand_over(Path(folder), bench, plan, card)
        others = set(active_children())
        with _deaf_to_interrupts():
            futures = [pool.submit(_run, task) for task in sorted(plan.tasks, key=_slow_first(plan))]
        try:
            yield from (future.result() for future in as_completed(futures))
        except BrokenProcessPool as error:
            raise FatalError(
                f"one of {processes} processes that run strategies was ended from outside, as the system does when "
                "memory is short. Run again with --processes 1, or fewer --domains."
            ) from error
        except BaseException:  # Ctrl-C: nobody waits for a strategy that takes minutes
            for process in set(active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started in here ignore Ctrl-C, which a terminal sends to all; this one answers for them."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _slow_first(plan: Plan) -> Callable[[Task], tuple[bool, int]]:
    """So that no process is left alone at the end with the one strategy that fits a model a batch; seed by seed."""
    return lambda task: (plan.candidates[task.candidate].strategy not in SLOW, task.seed)


_runner: Runner | None = None  # of this process of the pool


def _hand_over(folder: Path, bench: Bench, plan: Plan, card: Card | None) -> None:
    """Leave what the processes need in files: a pipe would make this one wait while each of them loads torch.

    The logits are mapped into memory by all of them, so that there is one copy, however many they are.
    """
    for v, block in enumerate(bench.blocks):
        np.save(folder / f"{v}.npy", block.numpy())
    bare = tuple(replace(table, logits=np.empty((0, 0, 0), dtype=table.logits.dtype)) for table in bench.tables)
    parts = (bare, bench.temperatures, bench.quality, plan, card)
    (folder / "plan.pickle").write_bytes(pickle.dumps(parts))


def _start(folder: str) -> None:
    global _runner  # noqa: PLW0603 - an initializer of a pool can leave what it made nowhere else
    torch.set_num_threads(1)
    bare, temperatures, quality, plan, card = pickle.loads((Path(folder) / "plan.pickle").read_bytes())
    bench = Bench(bare, temperatures)
    files = (Path(folder) / f"{v}.npy" for v in range(len(set(bench.vocabularies))))
    # "c": nobody writes, and torch warns of what cannot be written
    blocks = tuple(torch.from_numpy(np.load(file, mmap_mode="c")) for file in files)
    _runner = Runner(bench.knowing(blocks=blocks, quality=quality), plan, card)


def _run(task: Task) -> TaskResult:
    assert _runner is not None
    return _runner.run(task)
