"""A sweep: each variant of a grid is a replay of the same recording, in shards that are processes of their own.

The output has a folder for each variant, with the plan and the shards' roots as `adawise replay --plan` makes them.
What is finished is known from the chains, so that a sweep that was killed goes on without repeating a shard. A shard
that ends by a signal (for lack of memory, say) is tried again. One that fails with an error is not, and fails its
variant; the other variants go on.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import structlog

from adawise.app.machine import usable_cores
from adawise.app.signals import StopRequest, stop_signals
from adawise.console import Progress
from adawise.decode.child import end_with_parent
from adawise.errors import AdawiseError, SettingsError
from adawise.logs import configure
from adawise.replay.claim import is_finished
from adawise.replay.plan import PlanRequest, plan_replay
from adawise.replay.replay import ReplayRequest, replay
from adawise.settings import Settings
from adawise.settings.mistakes import error_of
from adawise.settings.reading import changed
from adawise.settings.sources import Given, Origin
from adawise.settings.tree import REPLAY_GROUPS
from adawise.sink import layout
from adawise.sink.claims import claim
from adawise.store.documents import Document, Text, parse
from adawise.store.store import open_store
from adawise.text import counted, some
from adawise_lab.sweep.grid import SWEPT, Variant, in_words

SWEEP = "_sweep.json"
MOST_STARTS = 3
"""The most times that a shard is started which ends by a signal."""

_NO_MATTER = frozenset({"model.threads", "model.cache", "model.bank_mib", "decode.threads"})
_FILES = ("model.classes", "model.templates", "model.card")
_LOOK_EVERY_S = 0.2

_Answer = Literal["done", "stopped", "failed", "killed"]

_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["adawise.app.worker", __name__]

_log = structlog.get_logger("sweep")


class SweepPlan(Document):
    """The document of a sweep, written by its first run, so that only the same sweep goes on in its folder.

    `threads` is the number of threads of forwards in each process, because bits depend on it. `settings` are those that
    all variants share, by full name, as JSON, with digests of the files that they name.
    """

    layout: Literal[1] = 1
    recording: Text
    shards: int
    threads: int
    variants: list[dict[Text, Text]]
    settings: dict[Text, Text]


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """A request for a sweep.

    Attributes:
        settings: the settings that all variants share.
        recording: the folder or URL of the recording.
        output: a new folder or URL; a sweep that was stopped goes on in its own.
        variants: the values by which variants differ; differences are to the first.
        shards: the shards of each variant.
        processes: how many shards are replayed at a time.
        streams: patterns of the streams to replay; None for all.
    """

    settings: Settings
    recording: str
    output: str
    variants: Sequence[Variant]
    shards: int = 1
    processes: int = 1
    streams: str | None = None


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        roots: the folder of each variant.
        failed: why a variant failed, by its number.
        stopped: True if it was stopped before the end: the same request goes on from there.
    """

    roots: Sequence[str]
    failed: Mapping[int, str]
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class _Task:
    variant: int
    request: ReplayRequest
    starts: int = 0


def sweep(
    request: SweepRequest, *, stop: StopRequest, shown: Callable[[int], AbstractContextManager[Progress]]
) -> SweepResult:
    """Replay the recording once for each variant.

    Args:
        request: what to try.
        stop: ends the sweep; shards that are running end in order.
        shown: takes the number of shards, and returns the progress that is advanced by them.

    Raises:
        SettingsError: a value of the grid is wrong, or the output is of something else.
        SourceError: the recording cannot be read, or is not the one of the plans.
        ChainError, StoreUnavailable: the output is damaged, or does not answer.
    """
    settings = settings_of(request.settings, request.variants)
    processes = min(request.processes, request.shards * len(settings))
    roots = [f"{request.output.rstrip('/')}/variant-{number:03}" for number in range(len(settings))]
    plans = [
        PlanRequest(request.recording, root, request.shards, streams=request.streams, live_root=own.sink.root)
        for root, own in zip(roots, settings, strict=True)
    ]
    _check_folder(request)
    if open_store(request.output).get(SWEEP) is None:
        plan_replay(plans[0])  # so that a recording that cannot be read claims nothing
    document = _claimed(request, request.settings.model.threads or max(1, usable_cores() // processes))
    tasks: deque[_Task] = deque()
    failed: dict[int, str] = {}
    for number, (own, root) in enumerate(zip(settings, roots, strict=True)):
        try:
            shards = plan_replay(plans[number]).plan.shards
        except AdawiseError as error:
            failed[number] = str(error)
            continue
        model = own.model.model_copy(update={"threads": own.model.threads or document.threads})
        own = own.model_copy(update={"model": model})
        dearest_first = sorted(range(len(shards)), key=lambda shard: -shards[shard].cost)
        tasks += [_Task(number, ReplayRequest(own, root, request.recording, shard=shard)) for shard in dearest_first]
    with shown(len(tasks)) as progress:
        failed |= dict(_failures(tasks, processes, stop, progress))
    return SweepResult(roots, failed, stop())


def settings_of(settings: Settings, variants: Sequence[Variant]) -> list[Settings]:
    """Return the settings of each variant. Raises SettingsError with all mistakes in their values."""
    origin = Origin("flag", "--grid")
    read = [
        changed(
            settings,
            [Given(name, value, origin) for name, value in variant.items()],
            folder=Path.cwd(),
            uses=frozenset(REPLAY_GROUPS),
        )
        for variant in variants
    ]
    if mistakes := dict.fromkeys(mistake for reading in read for mistake in reading.mistakes):
        raise error_of([*mistakes])
    return [reading.settings for reading in read]


def _check_folder(request: SweepRequest) -> None:
    """Raise SettingsError if the output is the recording, or holds something else."""
    store = open_store(request.output)
    if _place(request.output) == _place(request.recording):
        raise SettingsError(f"-o {request.output} is the recording; use a new folder")
    if any(store.get(key) is not None for key in (layout.PLAN, layout.OWNER, layout.SINK, layout.REPLAY)):
        raise SettingsError(f"-o {request.output} holds the output of a worker or a replay; use a new folder")


def _place(name: str) -> str:
    return name.rstrip("/") if "://" in name else str(Path(name).resolve())


def _claimed(request: SweepRequest, threads: int) -> SweepPlan:
    store = open_store(request.output)
    ours = SweepPlan(
        recording=_place(request.recording),
        shards=request.shards,
        threads=threads,
        variants=[dict(variant) for variant in request.variants],
        settings=_shared(request),
    )
    theirs = parse(SweepPlan, store, SWEEP, claim(store, SWEEP, ours.model_dump()))
    for name, what in {"recording": "of another recording", "shards": "with another number of shards"}.items():
        if getattr(theirs, name) != getattr(ours, name):
            raise SettingsError(f"-o {request.output} holds a sweep {what}; name the same one, or a new folder")
    if theirs.variants != ours.variants:
        grid = "; ".join(in_words(variant) for variant in theirs.variants[:3])
        raise SettingsError(
            f"-o {request.output} holds a sweep of another grid, which begins with {grid}; give the same one, or use "
            "a new folder"
        )
    names = sorted(theirs.settings.keys() | ours.settings.keys())
    if differ := [name for name in names if theirs.settings.get(name) != ours.settings.get(name)]:
        values = [f"{name} {theirs.settings.get(name)} there and {ours.settings.get(name)} here" for name in differ]
        raise SettingsError(
            f"-o {request.output} holds a sweep with other settings ({some(values)}); give the same ones, or use a new "
            "folder"
        )
    return theirs


def _shared(request: SweepRequest) -> dict[str, str]:
    """Return the settings on which rows depend and that the grid does not vary, as JSON, by full name."""
    tree = {group: getattr(request.settings, group).model_dump(mode="json") for group in SWEPT}
    found = {
        name: json.dumps(value, sort_keys=True)
        for group, table in tree.items()
        for key, value in table.items()
        if (name := f"{group}.{key}") not in _NO_MATTER and not any(name in variant for variant in request.variants)
    }
    for name in _FILES:
        group, key = name.split(".")
        path = getattr(getattr(request.settings, group), key)
        if name in found and path is not None and Path(path).is_file():
            found[name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    found["streams"] = json.dumps(request.streams)
    return found


def _failures(tasks: deque[_Task], processes: int, stop: StopRequest, progress: Progress) -> Iterator[tuple[int, str]]:
    """Run the tasks, and yield why a variant failed."""
    _FORKS.set_forkserver_preload(_PRELOADED)
    running: dict[BaseProcess, tuple[_Task, Connection]] = {}
    failed: set[int] = set()
    stopping: set[BaseProcess] = set()
    try:
        while running or (tasks and not stop()):
            while tasks and len(running) < processes and not stop():
                task = tasks.popleft()
                is_left, why = _is_left(task)
                if why and task.variant not in failed:
                    failed.add(task.variant)
                    yield task.variant, why
                if task.variant in failed or not is_left:
                    progress.advance()
                else:
                    child, answers = _started(task.request)
                    running[child] = replace(task, starts=task.starts + 1), answers
            if stop():
                for child in running.keys() - stopping:  # once: the second signal would end a shard at once
                    child.terminate()
                stopping |= running.keys()
            for child in _ended(running) if running else ():
                task, answers = running.pop(child)
                answer, error = _answer_of(child, answers)
                if answer == "done":
                    progress.advance()
                elif stop():
                    pass
                elif answer != "failed" and task.starts < MOST_STARTS:
                    number, code = task.request.shard, child.exitcode
                    _log.warning("shard_killed", variant=task.variant, shard=number, exit_code=code)
                    tasks.appendleft(task)
                elif task.variant not in failed:
                    failed.add(task.variant)
                    progress.advance()
                    ended = f"its process ended {counted(task.starts, 'time')}, the last one with {child.exitcode}"
                    yield task.variant, f"shard {task.request.shard}: {error or ended}"
    finally:
        for child in running:
            child.terminate()
        for child in running:
            child.join()


def _is_left(task: _Task) -> tuple[bool, str]:
    """Return True if a shard has something left to do, and why that cannot be known, or ""."""
    assert task.request.shard is not None
    try:
        return not is_finished(layout.shard_root(task.request.output, task.request.shard)), ""
    except AdawiseError as error:
        return True, f"shard {task.request.shard}: {error}"


def _started(request: ReplayRequest) -> tuple[BaseProcess, Connection]:
    """Start a process for a shard. It is forked from a process that has loaded torch, which takes seconds."""
    answers, answer = _FORKS.Pipe(duplex=False)
    child = _FORKS.Process(target=_replay_shard, args=(request, answer))
    # Ctrl-C is for this process, which passes it on: it would end the server while it loads, and shards in the middle.
    resource_tracker.ensure_running()  # where it is not, starting it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        child.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    answer.close()
    return child, answers


def _ended(running: Mapping[BaseProcess, object]) -> list[BaseProcess]:
    """Wait a moment for processes to end, and return those that have."""
    wait([child.sentinel for child in running], timeout=_LOOK_EVERY_S)
    return [child for child in running if child.exitcode is not None]


def _answer_of(child: BaseProcess, answers: Connection) -> tuple[_Answer, str]:
    """Return how a process ended, and its error."""
    child.join()
    try:
        return answers.recv() if answers.poll() else ("killed", "")
    except EOFError:
        return "killed", ""
    finally:
        answers.close()


def _replay_shard(request: ReplayRequest, answer: Connection) -> None:
    end_with_parent()
    configure("warning", request.settings.log.format, is_service=False)
    with stop_signals() as stop:
        try:
            done = replay(request, stop=stop)
        except KeyboardInterrupt:
            answer.send(("stopped", ""))
        except AdawiseError as error:
            answer.send(("failed", str(error) or type(error).__name__))
        except Exception as error:
            answer.send(("failed", f"{type(error).__name__}: {error}"))
            raise
        else:
            answer.send(("stopped" if done.stopped else "done", ""))
