"""Tables whose best alpha is known, for tests of what is done with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from adawise.adapt.strategies.warm import Exploration
from adawise.card.card import Card
from adawise_lab.evaluate import run as run_module
from adawise_lab.evaluate import streams
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import parse
from adawise_lab.evaluate.run import Plan, Shared, Task, TaskResult, run
from adawise_lab.evaluate.streams import Smooth
from adawise_lab.evaluate.tables import LogitTable, write_table

GRID = tuple(j / 20 for j in range(21))


def a_table(
    name: str,
    best: float = 0.5,
    *,
    images: int = 96,
    classes: int = 10,
    seed: int = 0,
    alphas: Sequence[float] = GRID,
    depth: float = 6.0,
) -> LogitTable:
    """Images that are told apart best, and with most confidence, at alpha `best`; worse with the square of the way."""
    rng = np.random.default_rng((seed, *name.encode()))
    labels = rng.integers(0, classes, size=images)
    noise = rng.normal(0.0, 1.0, size=(images, classes))
    own = rng.normal(0.0, 1.0, size=images)
    logits = np.empty((len(alphas), images, classes))
    for j, alpha in enumerate(alphas):
        logits[j] = noise
        logits[j, np.arange(images), labels] += 3.0 + own - depth * (alpha - best) ** 2
    names = tuple(f"class {c} of {classes}" for c in range(classes))
    return LogitTable(name, logits.astype(np.float32), labels, tuple(alphas), names)


def shorten_verdicts(patch: pytest.MonkeyPatch) -> None:
    """Let a command judge a pair on few and short streams: how long they are proves nothing of the command."""
    patch.setattr("adawise_lab.evaluate.assessment._SEEDS", 1)
    shorten_streams(patch)


def shorten_streams(patch: pytest.MonkeyPatch) -> None:
    """Make visits of few batches: for what is done with a run, not what it comes to."""
    for kind in ("short", "long", "mixed"):
        patch.setitem(streams._PERIOD, kind, 4)
    patch.setattr(streams, "_SMOOTH_BATCHES", 40)


def a_card(*, temperature: float) -> Card:
    """A card whose fine-tuned model needs this temperature; all else is of no matter."""
    ones = (1.0,) * len(GRID)
    return Card(
        identity={},
        alphas=GRID,
        temperature=(*ones[1:], temperature),
        reference_entropy=ones,
        threshold=ones,
        accuracy=ones,
        nll=ones,
        ece_raw=ones,
        ece=ones,
        levels={},
        images=1,
        created_at="2026-01-01",
    )


def a_bench(*tables: LogitTable, temperature: float = 1.0) -> Bench:
    return Bench(tables, (temperature,) * len(tables[0].alphas))


def a_plan(
    strategies: str = "grid",
    *,
    kinds: Sequence[str] = ("short",),
    orders: Sequence[str] = ("iid",),
    seeds: int = 1,
    smooth: Smooth | None = None,
) -> Plan:
    candidates = parse(strategies, objective="tsallis", alpha=0.5, exploration=Exploration())
    return Plan(candidates, tuple(kinds), tuple(orders), seeds, smooth)


def run_here(bench: Bench, plan: Plan, card: Card | None = None) -> list[TaskResult]:
    """In this process."""
    return run(bench, plan, card, processes=1, done=lambda count: None)


def write_tables(folder: Path, *tables: LogitTable) -> Path:
    folder.mkdir(exist_ok=True)
    for table in tables:
        write_table(folder / f"{table.name}.npz", table)
    return folder


def die(shared: Shared, task: Task) -> None:
    """In place of a task: what the system does to a process when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


_run_as_it_is = run_module._run


def run_mapped(shared: Shared, task: Task) -> TaskResult:
    """A task, in a process that has its logits from files."""
    ran = _run_as_it_is(shared, task)
    assert run_module._runner is not None
    bench = run_module._runner[1].bench
    assert all(mapped_file_at(block.data_ptr()) for block in bench.blocks)
    assert all(table.logits.size == 0 for table in bench.tables)
    return ran


def mapped_file_at(address: int) -> str:
    """The file that is mapped into this process's memory there; empty for memory of no file."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, *_, file = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last:
            return file if file.startswith("/") else ""
    return ""
