"""The verdict on measured figures: what limits the worker, and what other hardware would give. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from adawise.text import counted, two

Limit = Literal["forwards", "host", "writing", "decoding", "broker"]
"""What limits the worker: forwards of the model, its own thread beside them, the disk, decoding, or the broker."""

_BUSY = 0.7  # share of the time of all decode threads above which decoding is what the worker waits for
_LEAST_S = 1e-9  # of an image, where a coarse clock has seen nothing


@dataclass(frozen=True, slots=True)
class ImageCost:
    """The cost of an image to the worker on this machine, in seconds.

    Attributes:
        whole_s: by the clock; its inverse is images a second.
        slowest_s: the same in the slowest turn.
        forwards_s: of that, in the model's forwards.
        host_s: of that, in the worker's own thread beside forwards: search, rows, batches, polls.
        writing_s: in commits, by the clock. What a commit computes is in `host_s`, too.
        decode_s: processor time of a decode thread.
        processor_s: processor time of all threads.
        forward_cost: whole forwards of the image tower.
        of_bare: forwards a second of the worker over those of open_clip's bare tower at its best batch and number
            format; 1 if all but forwards were free.
        threads: decode threads.
        cores: cores that this process may use.
        on_card: forwards run on a GPU.
    """

    whole_s: float
    slowest_s: float
    forwards_s: float
    host_s: float
    writing_s: float
    decode_s: float
    processor_s: float
    forward_cost: float
    of_bare: float
    threads: int
    cores: int
    on_card: bool

    @property
    def idle_s(self) -> float:
        """Seconds for which the worker's thread computes nothing."""
        return max(0.0, self.whole_s - self.forwards_s - self.host_s)

    @property
    def disk_s(self) -> float:
        """Seconds of these for which it waits for a commit, at most."""
        return min(self.writing_s, self.idle_s)

    @property
    def waiting_s(self) -> float:
        """Seconds of these for which it waits for messages and their images."""
        return self.idle_s - self.disk_s


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict.

    Attributes:
        limit: what limits the worker.
        cameras: cameras that this machine carries at one image a second each, in full batches, by the slowest turn.
        with_one_more_core: images a second of a worker with one more core, estimated.
        with_one_more_card: the most images a second with one more GPU, estimated.
        text: the same in words.
    """

    limit: Limit
    cameras: int
    with_one_more_core: float
    with_one_more_card: float
    text: str


def verdict(cost: ImageCost) -> Verdict:
    """Return the verdict about a worker whose images cost this."""
    found, core, card = limit(cost), with_one_more_core(cost), with_one_more_card(cost)
    rate, cameras = 1.0 / cost.whole_s, math.floor(1.0 / cost.slowest_s)
    number = "first" if not cost.on_card else "second"
    text = (
        f"{_reason(found, cost)} One more core would give about {_number(core)} images a second in place of "
        f"{_number(rate)}, and a {number} GPU at most {_number(card)} (both estimated). This machine carries "
        f"{counted(cameras, 'camera')} at one image a second each, in full batches."
    )
    return Verdict(found, cameras, core, card, text)


def limit(cost: ImageCost) -> Limit:
    """Return what takes most of the worker's time.

    While it waits, that is decoding if its threads are busy. Where forwards share the cores with decode threads, that
    is the one of both that takes more of the processor's time.
    """
    parts: dict[Limit, float] = {"forwards": cost.forwards_s, "host": cost.host_s, "writing": cost.disk_s}
    parts["decoding" if _decode_load(cost) >= _BUSY else "broker"] = cost.waiting_s
    found = max(parts, key=lambda name: parts[name])
    in_forwards_s = cost.processor_s - cost.decode_s - cost.host_s
    return "decoding" if found == "forwards" and not cost.on_card and cost.decode_s > in_forwards_s else found


def with_one_more_core(cost: ImageCost) -> float:
    """Return images a second with one more core, if what runs on all cores takes so much less time."""
    share, found = cost.cores / (cost.cores + 1.0), limit(cost)
    forwards_s = cost.forwards_s * (1.0 if cost.on_card else share)
    waiting_s = cost.waiting_s * (share if found == "decoding" else 1.0)
    return 1.0 / min(cost.whole_s, forwards_s + cost.host_s + cost.disk_s + waiting_s)


def with_one_more_card(cost: ImageCost) -> float:
    """Return the most images a second with one more GPU, which the rest of the machine has to keep busy.

    A second GPU has a worker process of its own. On a first one forwards are taken to cost nothing.
    """
    decode_s, rate = max(cost.decode_s, _LEAST_S), 1.0 / cost.whole_s
    by_cores = cost.cores / (decode_s + cost.host_s)
    if cost.on_card:
        return max(rate, min(2.0 * rate, by_cores))
    thread_s = cost.host_s + cost.disk_s + (cost.waiting_s if limit(cost) == "broker" else 0.0)
    return max(rate, min(1.0 / max(thread_s, _LEAST_S), cost.threads / decode_s, by_cores))


def _decode_load(cost: ImageCost) -> float:
    """Return the share of the time of all decode threads in which they are busy."""
    return cost.decode_s / (cost.whole_s * min(cost.threads, cost.cores))


def _reason(found: Limit, cost: ImageCost) -> str:
    match found:
        case "forwards":
            return (
                f"Forwards of the model limit this worker: they take {cost.forwards_s / cost.whole_s:.0%} of its time, "
                f"and an image needs {two(cost.forward_cost)} of them. It runs {two(cost.of_bare)} of the forwards a "
                "second of open_clip's image tower alone."
            )
        case "host":
            return (
                f"The worker's own thread limits it: {1e3 * cost.host_s:.2f} ms an image for searches, rows and polls. "
                "A second worker process on the same topic uses other cores."
            )
        case "writing":
            return (
                f"Commits limit this worker: {1e3 * cost.writing_s:.2f} ms an image, of which most is waiting for the "
                "disk of the temporary folder. A faster disk, or a higher sink.flush_age_s, takes less."
            )
        case "decoding":
            return (
                f"Decoding limits this worker: {1e3 * cost.decode_s:.2f} ms an image, in "
                f"{counted(cost.threads, 'thread')}. Smaller images, or decode.reduced, take less."
            )
        case "broker":
            return (
                f"The broker limits this worker: its thread waits for messages for {cost.waiting_s / cost.whole_s:.0%} "
                f"of the time, and decode threads are busy for {_decode_load(cost):.0%} of it. More partitions, or "
                "another worker process, fetch more."
            )


def _number(rate: float) -> str:
    return f"{rate:,.3g}" if rate < 100.0 else f"{rate:,.0f}"
