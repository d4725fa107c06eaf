"""The check of the number format: whether the other one is faster on this processor, by the pair's own tower."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TYPE_CHECKING

from adawise.doctor.known import Known
from adawise.doctor.result import CheckResult, ok, skip, warn

if TYPE_CHECKING:
    from adawise.clip.load import CheckpointPair

_SECONDS = 2.0
_LEAST_TURNS, _MOST_SECONDS = 3, 10.0  # a large tower takes longer than `_SECONDS`; no turn begins after these
_TOLERATED = 1.10  # the shared cores of two measurements differ by as much


def number_format(known: Known, clock: Callable[[], float] = time.perf_counter) -> CheckResult:
    """Measure fp32 and bf16, and compare the faster one with the format that a worker uses here.

    Args:
        known: the pair, and the format in which it was loaded.
        clock: returns seconds.
    """
    if known.model is None or known.precision is None:
        return skip("needs the pair")
    classifier, choice = known.model.classifier, known.precision
    if classifier.device.where.type != "cpu":
        return ok(f"{choice.chosen}; formats are compared on processors alone")
    rates = images_per_second(known.model.checkpoints, classifier.chunk_rows, clock)
    return verdict(rates, choice.chosen, choice.rule, is_set=known.settings.model.precision != "auto")


def verdict(rates: Mapping[str, float], chosen: str, rule: str, *, is_set: bool) -> CheckResult:
    """Return the result for measured rates.

    Args:
        rates: images a second by number format.
        chosen: the format that a worker uses here.
        rule: the format of `auto` on this processor for a new root.
        is_set: `chosen` is a setting, and not what the root or the rule says.
    """
    fastest, *others = sorted(rates, key=lambda name: -rates[name])
    source = "by model.precision" if is_set else "by the rule" if chosen == rule else "as this root is served"
    found = (
        f"{fastest} is the faster one here: {rates[fastest]:.3g} images/s, "
        f"{', '.join(f'{name} {rates[name]:.3g}' for name in others)}; the rule for this processor chooses {rule}, "
        f"and a worker uses {chosen} {source}"
    )
    if rates[fastest] <= _TOLERATED * rates[chosen]:
        return ok(found)
    return warn(
        f"{found}. Set model.precision to {fastest} for all workers of the group: it changes probabilities by rounding"
    )


def images_per_second(pair: CheckpointPair, chunk_rows: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the images a second of the pair's tower in both formats, measured in turns for about two seconds.

    A forward has `chunk_rows` images, as a worker's. The median counts, because other work may come between. The first
    forwards, which choose kernels, count only if there is no time for others: in bfloat16, a large tower takes a minute
    on a processor that emulates it.
    """
    import torch

    from adawise.clip.classifier import forward_in

    formats = {"fp32": torch.float32, "bf16": torch.bfloat16}
    where, size = torch.device("cpu"), pair.preprocess.size
    chunk = torch.zeros(chunk_rows, 3, size, size, dtype=torch.uint8)
    with torch.inference_mode():
        forwards = {name: forward_in(pair, dtype, where) for name, dtype in formats.items()}

        def turn() -> dict[str, float]:
            times_s = {}
            for name, forward in forwards.items():
                began_s = clock()
                forward(chunk)
                times_s[name] = clock() - began_s
            return times_s

        began_s, turns = clock(), list[dict[str, float]]()
        first = turn()
        while (passed_s := clock() - began_s) < _SECONDS or (len(turns) < _LEAST_TURNS and passed_s < _MOST_SECONDS):
            turns.append(turn())
    seconds = {name: median(times_s[name] for times_s in turns or [first]) for name in formats}
    return {name: len(chunk) / max(seconds[name], 1e-9) for name in formats}
