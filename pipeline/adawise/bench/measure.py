"""`adawise bench`: every part in turns within a budget of seconds, so that what else the machine does falls on all.

Read `measure` first. A first trial decides how much a turn has to do. The verdict is in `verdict`.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch

from adawise.adapt.names import GRID
from adawise.adapt.objective import NO_CARD
from adawise.adapt.strategies import strategy
from adawise.app.machine import available_memory_bytes, usable_cores
from adawise.app.model import ModelPair, adaptation, load_model
from adawise.app.parts import exploration
from adawise.app.precision import RootPrecision, choose_precision
from adawise.app.prompts import prompt_templates
from adawise.app.worker import decode_threads
from adawise.bench.figures import BenchReport
from adawise.bench.loops import BareTower, NaiveLoop, PlainLoop
from adawise.bench.worker import WorkerBench, broker_settings, jpegs
from adawise.clip.device import processor
from adawise.clip.load import OpenClipModel, load_open_clip
from adawise.settings import Settings
from adawise.text import as_size

if TYPE_CHECKING:
    from adawise.console import Progress

_BATCH, _TRIALS = 16, 5  # images of a batch of both loops; trials of a batch of the naive one
_MOST_CAMERAS, _WARM_UP_BATCHES = 4, 2  # of each camera
_MOST_IMAGES = 1_536  # of a pass; the embedded broker keeps every image in memory
_TURNS, _MOST_TURNS = 3, 5  # for which the budget is divided; if they take less time than that
_FORMATS, _HEADS, _WARM_UP = 0.06, 0.2, 0.15  # shares of the budget before the turns
_NEW_STREAM = 2.0  # forwards an image, about, of the first batches of a stream
_BARE, _PLAIN = 0.08, 0.12  # shares of a turn
_EVERY_TURN, _EVER = 0.5, 2.0  # shares of a turn above which a naive batch is measured once, or not at all
_COPIES = 4  # weight sets in float32 that the naive loop takes
Part = Callable[[], float | dict[str, float]]
"""A part of a turn: it returns its images a second, or its figures by name."""


def measure(settings: Settings, *, seconds: float, progress: Progress) -> BenchReport:
    """Measure the parts in turns and return the report.

    Args:
        settings: those of a worker with a pair; broker and root are replaced by temporary ones.
        seconds: the budget: no turn begins that would take longer, by the longest time of each part so far. One turn
            is always made.
        progress: counts turns.

    Raises:
        CheckpointError, CardError, SettingsError, DeviceError: the pair cannot be loaded or served here, or the
            embedded broker is not installed.
        BrokerUnavailable: the embedded broker does not start.
    """
    began_s = time.perf_counter()

    def left_s() -> float:
        return began_s + seconds - time.perf_counter()

    progress.note("loading the pair")
    chosen = choose_precision(settings.model, RootPrecision(""))
    settings = settings.model_copy(update={"model": chosen.model})
    with broker_settings(settings) as (settings, check):
        model, values = load_model(settings.model, settings.decode), jpegs()
        own = _open_clip(settings, model, "theta_0")
        where, size = model.classifier.device.where, model.checkpoints.preprocess.size
        progress.note("trying batches and number formats")
        bare = BareTower(own, model.classifier.device, size=size, seconds=_FORMATS * seconds)
        progress.note("encoding the class names")
        prompts = [[each.replace("{}", name) for each in prompt_templates(settings.model)] for name in model.classes]
        before_s = time.perf_counter()
        plain = PlainLoop(own, prompts, where, bare.dtype)
        head_s = time.perf_counter() - before_s
        _prepare(settings, model, until=time.perf_counter() + _HEADS * seconds)
        progress.note("warming up the worker")
        batch = settings.batch.images
        most = pass_batches(bare.fastest / _NEW_STREAM, _WARM_UP * seconds, _WARM_UP_BATCHES * batch)
        worker = WorkerBench(settings, model, values, cameras := min(_MOST_CAMERAS, most), check)
        warm = worker.serve(_WARM_UP_BATCHES)  # new streams explore
        turn_s = max(left_s(), 0.0) / _TURNS
        naive_s = _TRIALS * (_BATCH / bare.float32_rate + (0.0 if model.checkpoints.text_is_shared else head_s))
        naive, why = None, "a batch would take too long; raise --seconds"
        if naive_s <= _EVER * turn_s:
            naive, why = _naive_loop(settings, model, own, prompts)
        in_every_turn = naive_s <= _EVERY_TURN * turn_s
        worker_s = (1.0 - _BARE - _PLAIN) * turn_s - naive_s * in_every_turn
        batches, images = pass_batches(warm["worker"], worker_s, cameras * batch), _batches(values)

        parts: dict[str, Part] = {
            "forward": partial(bare.rate, _BARE * turn_s),
            "plain": partial(_rate, plain.classify, images, _PLAIN * turn_s),
            "worker": partial(worker.serve, batches),
            "stages": worker.stages,
        }
        if naive is not None:
            parts["naive"] = partial(_rate, naive.classify, images, 0.0)
        turns = in_turns(parts, set() if in_every_turn else {"naive"}, left_s, progress)
        machine = {
            **_machine(settings, model),
            "cameras": cameras,
            "forward_precision": bare.precision,
            "forward_rows": bare.rows,
            "naive_left_out": why,
        }
        return BenchReport(machine, turns, time.perf_counter() - began_s)


def in_turns(
    parts: Mapping[str, Part], once: Collection[str], left_s: Callable[[], float], progress: Progress
) -> list[dict[str, float]]:
    """Return the figures of each turn, of which every other one goes backwards.

    Args:
        parts: what a turn measures, by name.
        once: parts that the first turn alone measures.
        left_s: returns the seconds that are left of the budget.
        progress: counts turns.
    """
    turns, longest_s, names = list[dict[str, float]](), dict.fromkeys(parts, 0.0), list(parts)
    while not turns or (len(turns) < _MOST_TURNS and left_s() > sum(longest_s[name] for name in names)):
        turns.append({})
        for name in names[:: -1 if len(turns) % 2 == 0 else 1]:
            progress.note(name)
            before_s = left_s()
            figures = parts[name]()
            longest_s[name] = max(longest_s[name], before_s - left_s())
            turns[-1] |= figures if isinstance(figures, dict) else {name: figures}
        progress.advance()
        names = [name for name in parts if name not in once]
    return turns


def pass_batches(rate: float, seconds: float, images: int) -> int:
    """Return how many times `images` are served in about so many seconds at so many images a second, at least once."""
    return max(1, int(min(rate * seconds, _MOST_IMAGES) / images))


def _open_clip(settings: Settings, model: ModelPair, role: str) -> OpenClipModel:
    """Return one checkpoint of the pair as open_clip itself runs it, with the pair's preprocessing."""
    named = settings.model
    return load_open_clip(named.architecture, getattr(named, role), wanted=model.checkpoints.preparation.values)


def _prepare(settings: Settings, model: ModelPair, until: float) -> None:
    """Encode the heads and merge the weights that a search may ask for, the likeliest first, as in a long run.

    It ends at the time `until`. The worker does what is left when it needs it.
    """
    classifier, reach = model.classifier, adaptation(settings, model).strategy.reach
    while time.perf_counter() < until and classifier.prepare(reach):
        pass
    for index in reach[: classifier.bank.capacity]:
        if time.perf_counter() < until:
            classifier.bank.copy(index)


def _naive_loop(
    settings: Settings, model: ModelPair, own: OpenClipModel, prompts: Sequence[Sequence[str]]
) -> tuple[NaiveLoop | None, str]:
    """Return the naive loop; or None, and why it is left out."""
    needed = _COPIES * sum(p.numel() * p.element_size() for p in own.model.parameters())
    free = available_memory_bytes()
    if free is not None and free < needed:
        return None, f"it needs {as_size(needed)} of memory, and {as_size(free)} are available"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BoTorch's libraries warn of deprecations on import
        search = strategy(
            "botorch",
            alphas=GRID,
            objective=NO_CARD["entropy"],
            context="bench",
            alpha=settings.search.alpha,
            exploration=replace(exploration(settings.search), budget=_TRIALS, min_images=1),
        )
    one, where = _open_clip(settings, model, "theta_1").model.state_dict(), model.classifier.device.where
    return NaiveLoop(own, one, prompts, where, search=search, shared_head=model.checkpoints.text_is_shared), ""


def _batches(values: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield batches of the images, again and again."""
    endless = cycle(values)
    while True:
        yield list(islice(endless, _BATCH))


def _rate(classify: Callable[[Sequence[bytes]], object], batches: Iterator[list[bytes]], seconds: float) -> float:
    """Return the images a second of a loop that runs for this long, for one batch at least."""
    began_s, images = time.perf_counter(), 0
    while not images or time.perf_counter() - began_s < seconds:
        classify(next(batches))
        images += _BATCH
    return images / (time.perf_counter() - began_s)


def _machine(settings: Settings, model: ModelPair) -> dict[str, Any]:
    where = model.classifier.device.where
    return {
        "processor": processor()[0],
        "cores": usable_cores(),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "decode_threads": decode_threads(settings),
        "load": os.getloadavg()[0],
        "theta_0": settings.model.theta_0,
        "theta_1": settings.model.theta_1,
        "shared_layers": model.checkpoints.shared_layers,
        "precision": settings.model.precision,
        "chunk_rows": model.classifier.chunk_rows,
        "batch": settings.batch.images,
    }
