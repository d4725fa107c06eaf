"""What a card does: the bare tower, the classifier over it, which chunks would have been best, the worker as a whole.

`make gpu` writes it as a page with the card's name. Weights are random by seed, and so are class embeddings. Everything
runs on a processor as well, with little sizes: that is how it is tested where there is no card.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import cast

import torch
from torch import Tensor

from adawise.adapt.names import GRID
from adawise.adapt.rows import of_images
from adawise.app.model import chunk_rows_of
from adawise.app.worker import decode_threads
from adawise.bench.worker import jpegs
from adawise.clip.classifier import PairClassifier, _features, _prepared
from adawise.clip.device import Forward
from adawise.clip.layers import multiply_patches, pack_attention
from adawise.clip.load import CheckpointPair
from adawise.clip.preprocessing import Preprocessing
from adawise.decode.preprocess import Preprocess
from adawise.ports import Round
from adawise.records import Message, Selection
from adawise.settings import ModelSettings, Settings
from tests.adapt.curves import ImagesRound
from tools.bench import chunks, host
from tools.bench.card_page import table
from tools.bench.chunks import Batches, Step
from tools.bench.place import Place, why_no_card

MIDDLE = 10  # of the grid: alpha .5
WAYS = {"kernel by kernel": False, "captured": True}
NEARLY = 0.7  # of the time: what is busy less is not the limit by itself
MERGED = (3, 7, 13)  # of the grid, in turns: a bank of two, which holds MIDDLE at first, never has the next one
COPIED = 2**26  # bytes to the card at once

Rates = dict[int, float]
"""Rows of a chunk -> images/s."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured: by default what takes a card some minutes."""

    chunk_rows: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    slow_s: float = 2.0  # a forward that would take longer is left out
    cameras: tuple[int, ...] = (8, 32, 128)
    batches: int = 12  # of each camera, in the simulation of rounds
    rounds_s: float = 3.0
    frame: tuple[int, int] = (640, 480)
    decode_s: float = 1.5
    ready: tuple[int, int] = (24_576, 64)  # images, cameras
    decoded: tuple[int, int] = (12_288, 32)


@dataclass
class Page:
    """A page that grows section by section. One that fails says so, and the others are measured all the same."""

    text: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def section(self, title: str, write: Callable[[], Iterable[str]]) -> None:
        """Add what `write` gives, paragraph by paragraph."""
        print(f"{datetime.now(UTC):%H:%M:%S} {title}", file=sys.stderr)
        self.text.append(f"## {title}")
        try:
            self.text.extend(write())
        except Exception as error:  # noqa: BLE001 - time on a card is rare: what else there is, is measured
            traceback.print_exc()
            self.failed.append(title)
            self.text.append(f"**Failed**: {type(error).__name__}: {first_line(error)}")


def main(output: Path | None = None, architectures: Sequence[str] = ("ViT-B-32",)) -> int:
    """Print the page, or write it: to `output`, or into that folder under the card's name. 1 if there is no card."""
    if reason := why_no_card():
        print(f"No card, so nothing was measured: {reason}")
        return 1
    logging.getLogger().setLevel(logging.ERROR)
    place = Place(torch.device("cuda:0"))
    page = report(place, {name: partial(random_pair, name) for name in architectures}, Sizes())
    text = "\n\n".join(page.text) + "\n"
    if output is None:
        print(text)
    else:
        path = output / file_name(place.facts()["card"]) if output.is_dir() else output
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")
    if page.failed:
        print(f"failed: {', '.join(page.failed)}; the errors are above")
    return 1 if page.failed else 0


def first_line(error: Exception) -> str:
    """Of what it says."""
    return (str(error).strip() or "no reason given").splitlines()[0]


def file_name(card: str) -> str:
    """`NVIDIA L4` -> `gpu-nvidia-l4.md`."""
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', card.lower()).strip('-')}.md"


def report(place: Place, pairs: Mapping[str, Callable[[], CheckpointPair]], sizes: Sizes) -> Page:
    """All sections. Decoding and the worker as a whole are of the first pair alone."""
    page = Page()
    facts = place.facts()
    page.text.append(f"# Measured: {facts['card']}")
    page.text.append(f"By `python -m tools.bench gpu`, {datetime.now(UTC):%Y-%m-%d}. Medians; warm-up apart.")
    page.text.append(table(["what", "which"], facts.items()))
    with host.one_thread():
        batches = chunks.simulate(max(sizes.cameras), sizes.batches)
        for number, (name, make) in enumerate(pairs.items()):
            bench = GpuBench(place, sizes, make, batches)
            page.section(f"{name}: the bare tower", bench.bare_tower)
            page.section(f"{name}: the classifier", bench.classifier)
            page.section(f"{name}: rows of a chunk", bench.best_rows)
            if number == 0:
                page.section("Decoding", bench.decoding)
                page.section(f"{name}: the worker, from memory", bench.worker)
            del bench  # before the next pair takes its memory
    return page


def random_pair(architecture: str) -> CheckpointPair:
    """A tower with random weights by seed, and the same a little further on. Its text tower is never run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip

        torch.manual_seed(0)
        model = open_clip.create_model(architecture, load_weights=False).float().eval().requires_grad_(False)
    pack_attention(model)
    multiply_patches(model)
    tower = model.visual
    theta_0 = {name: p.detach() for name, p in tower.named_parameters()}
    size = tower.image_size if isinstance(tower.image_size, int) else tower.image_size[0]
    return CheckpointPair(
        tower=tower,
        theta_0=theta_0,
        theta_1={name: p + 0.1 * p.std() * torch.randn_like(p) if p.ndim > 1 else p for name, p in theta_0.items()},
        preprocess=Preprocess(size),
        mean=(0.48, 0.46, 0.41),
        std=(0.27, 0.26, 0.28),
        preparation=Preprocessing({}, {}),
        log_scales=(4.6, 4.6),
        hashes=("random 0", "random 1"),
        config="as it is made",
        _models=(model, model),
        _tokenizer=None,
    )


class GpuBench:
    """The sections of one pair on one place; each gives its paragraphs."""

    def __init__(self, place: Place, sizes: Sizes, make: Callable[[], CheckpointPair], batches: Batches) -> None:
        self.place, self.sizes, self.batches, self._make = place, sizes, batches, make
        self.rates: Rates = {}  # as the worker runs: `auto`, captured

    @cached_property
    def pair(self) -> CheckpointPair:
        """Made at first use, so that what cannot be made fails in a section."""
        return self._make()

    @cached_property
    def rows(self) -> int:
        """Of a chunk, as the worker chooses them."""
        return chunk_rows_of(ModelSettings(), self.place.where, self.pair, self.place.dtype("auto"))

    @cached_property
    def images(self) -> Tensor:
        """Noise by seed."""
        shape = max(self.sizes.chunk_rows), 3, self.pair.preprocess.size, self.pair.preprocess.size
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(5))

    def open(self, precision: str = "auto", *, graphs: bool = True, bank_mib: int = 0) -> PairClassifier:
        """The worker's classifier, with class embeddings by seed in place of encoded prompts."""
        subject = PairClassifier(
            self.pair,
            classes=[f"thing {number}" for number in range(host.CLASSES)],
            templates=["{}"],
            chunk_rows=self.rows,
            dtype=self.place.dtype(precision),
            device=self.place.open(precision, graphs=graphs),
            bank_bytes=bank_mib * 2**20,
            head="text",
        )
        shape = len(subject.encoded_alphas), cast(int, self.pair.tower.output_dim), host.CLASSES
        embeddings = torch.randn(shape, generator=torch.Generator().manual_seed(6))
        subject.use_embeddings(torch.nn.functional.normalize(embeddings, dim=1), "random")
        return subject

    @property
    def rate(self) -> float:
        """Images/s of the bare tower as the worker runs it; nan if that could not be measured."""
        return self.rates.get(self.rows, math.nan)

    # -- the tower

    def bare_tower(self) -> Iterator[str]:
        """Images/s by number format, way of launching and rows of a chunk."""
        lines, notes = [], list[str]()
        auto = self.place.dtype("auto")
        for precision in self.place.precisions():
            for way, graphs in WAYS.items():
                rates: Rates = {}
                try:
                    self.tower_rates(precision, graphs, rates)
                except RuntimeError as error:  # too little memory, or what else a card says of one shape
                    notes.append(f"- {precision}, {way}, after {len(rates)} sizes: {first_line(error)}")
                if graphs and precision != "tf32" and self.place.dtype(precision) == auto:
                    self.rates = rates
                cells = (f"{rates[rows]:,.0f}" if rows in rates else "-" for rows in self.sizes.chunk_rows)
                lines.append([precision, way, *cells])
        yield "Images/s from bytes on the device to features, by rows of a chunk:"
        yield table(["format", "launched", *map(str, self.sizes.chunk_rows)], lines)
        if notes:
            yield "\n".join(notes)
        yield f"The worker takes {str(auto).removeprefix('torch.')}, captured, in chunks of {self.rows}."

    def tower_rates(self, precision: str, graphs: bool, rates: Rates) -> None:
        """Fill `rates` for each size that is not too slow. Raises RuntimeError: also if it cannot be captured."""
        forward = _forward(self.open(precision))
        with torch.inference_mode():
            for rows in self.sizes.chunk_rows:
                if rates and rows / list(rates.values())[-1] > self.sizes.slow_s:
                    break
                chunk = self.images[:rows].to(self.place.where)
                device = self.place.open(precision, graphs=graphs)  # one for each: memory of old graphs is not taken on
                launched = device.capture(forward, chunk)
                if graphs and not getattr(device, "_graphs", True):
                    raise RuntimeError("the forward cannot be captured: see the log")
                rates[rows] = rows / self.place.seconds(partial(launched, chunk))
                del launched
                device.free()

    # -- the classifier

    def classifier(self) -> Iterator[str]:
        """Rounds as the worker makes them, then what they are made of."""
        yield from self._rounds()
        yield table(["part", "takes"], self._parts())

    def _rounds(self) -> Iterator[str]:
        subject = self.open(bank_mib=ModelSettings().bank_mib)
        started = time.perf_counter()
        warm(subject, self.images)
        self.place.wait()
        warm_s = time.perf_counter() - started
        lines = []
        for cameras in self.sizes.cameras:
            served, passed, rows, seconds, merges = self._timed(subject, cameras)
            share = rows / seconds / self.rate
            figures = f"{served / seconds:,.0f}", f"{passed / served:.2f}", f"{rows / served:.2f}", f"{share:.2f}"
            lines.append([str(cameras), *figures, str(merges)])
        yield (
            f"Rounds of batches of {chunks.BATCH}, with looks of 8 images and more, in chunks of {self.rows}. "
            "The ratio is of rows/s to the bare tower's:"
        )
        yield table(["cameras", "served/s", "FE", "rows/images", "ratio", "merges"], lines)
        bank = subject.bank
        captured = sum(made.forward is not None for made in bank._copies.values())
        memory = self.place.reserved_mib()
        held = f" torch holds {memory:,.0f} MiB of the card." if memory is not None else ""
        yield (
            f"{captured} forwards captured, one for each of {bank.capacity} merged copies at most; "
            f"the first image at each of {len(GRID)} alphas, one after the other, took {warm_s:.2f} s in all.{held}"
        )

    def _timed(self, subject: PairClassifier, cameras: int) -> tuple[int, int, int, float, int]:
        """Images served, images and rows passed, seconds, merges."""
        images, rows, merges, served = subject.images, subject.rows, subject.bank.merges, 0
        started = time.perf_counter()
        for one in chunks.rounds(self.batches, cameras, self.rows):
            for step in one.steps:
                subject.evaluate(self._requested(step))
            served += one.images
            if time.perf_counter() - started > self.sizes.rounds_s:
                break
        seconds = time.perf_counter() - started
        return served, subject.images - images, subject.rows - rows, seconds, subject.bank.merges - merges

    def _requested(self, step: Step) -> dict[int, list[Tensor]]:
        """Images in place of numbers; the parts of an alpha begin at different ones, as far as there are."""
        starts = range(0, len(self.images) - chunks.BATCH + 1, 4)
        return {
            index: [self.images[starts[k % len(starts)] :][:n] for k, n in enumerate(parts)]
            for index, parts in step.items()
        }

    def _parts(self) -> Iterator[tuple[str, str]]:
        place, subject = self.place, self.open()
        bank, device, forward = subject.bank, subject.device, _forward(subject)
        chunk = self.images[: self.rows].to(place.where)
        with torch.inference_mode():
            made, captures = list[Forward](), list[float]()  # kept: the last graph takes the memory of all with it
            for _ in range(3):
                captures.append(_timed(place, lambda: made.append(device.capture(forward, chunk))))
            stage_s = place.seconds(partial(device.stage, [self.images[: self.rows]], self.rows))
            fetch_s = place.seconds(partial(device.fetch, [torch.zeros(self.rows, host.CLASSES, device=place.where)]))
        turns = cycle(MERGED)
        merge_s = place.seconds(lambda: bank.copy(next(turns)))
        merged = bank._layout.numel * (4 + 4 + subject.dtype.itemsize)
        yield "a merge, in a bank of two", f"{1e3 * merge_s:.3g} ms, {merged / merge_s / 1e9:.3g} GB/s"
        yield "a capture, with the forward before it", f"{1e3 * median(captures):.3g} ms"
        yield f"a chunk of {self.rows} to the device", f"{1e3 * stage_s:.3g} ms"
        yield "the wait of a step, when nothing is left to do", f"{1e6 * fetch_s:.3g} us"
        for size in (chunk.numel(), COPIED):
            source, target = place.pinned(size), torch.empty(size, dtype=torch.uint8, device=place.where)
            copy_s = place.seconds(partial(target.copy_, source, non_blocking=True))
            yield f"{size / 2**20:.3g} MiB to the device, pinned", f"{size / copy_s / 1e9:.3g} GB/s"

    # -- what follows

    def best_rows(self) -> Iterator[str]:
        """What each size of a chunk would serve, by how full it is with so many cameras."""
        lines, words = [], []
        for cameras in self.sizes.cameras:
            fills = {rows: chunks.fill(self.batches, cameras, rows).rows for rows in self.rates}
            served = {rows: rate / fills[rows] for rows, rate in self.rates.items()}
            best = max(served, key=lambda rows: served[rows])
            lines.append([str(cameras), *(f"{served[rows]:,.0f} ({fills[rows]:.2f})" for rows in served)])
            words.append(
                f"- {cameras} cameras: best {best}, chosen {self.rows}, "
                f"which serves {100 * served[self.rows] / served[best]:.0f} % of the best."
            )
        yield "Images/s served if the card were the only limit, and rows over images in brackets:"
        yield table(["cameras", *map(str, self.rates)], lines)
        yield "\n".join(words)

    def decoding(self) -> Iterator[str]:
        """Images/s by threads, up to the cores."""
        values, decode = jpegs(*self.sizes.frame), host.decoder(self.pair.preprocess)
        cores = decode_threads(Settings())
        counts = sorted({cores, *(2**k for k in range(cores.bit_length()) if 2**k <= cores)})
        messages = [Message("frames", 0, n, b"camera", value, timestamp_ms=0) for n, value in enumerate(values)]
        rates = []
        for threads in counts:
            with ThreadPoolExecutor(threads) as pool:
                decoded, started = 0, time.perf_counter()
                while time.perf_counter() - started < self.sizes.decode_s:
                    for one in pool.map(decode, messages * threads):
                        assert not one.dead
                    decoded += threads * len(messages)
                rates.append(decoded / (time.perf_counter() - started))
        width, height = self.sizes.frame
        yield f"JPEGs of {width}x{height}, images/s:"
        yield table(["threads", "images/s"], [[str(n), f"{rate:,.0f}"] for n, rate in zip(counts, rates, strict=True)])

    def worker(self) -> Iterator[str]:
        """The worker's loop with the classifier, and which stage is the limit."""
        values = jpegs(*self.sizes.frame)
        subject = self.open(bank_mib=ModelSettings().bank_mib)
        warm(subject, self.images)
        settled = Settled(subject)
        lines, words = [], []
        for name, decodes, load in (
            ("{}x{}".format(*self.sizes.frame), True, self.sizes.decoded),
            ("pixels ready", False, self.sizes.ready),
        ):
            case = host.Case(chunks.BATCH, self.rows, decodes)
            passed = host.run(values, case, settled, preprocess=self.pair.preprocess, load=load)
            shares = busy(passed, case, self.rate)
            figures = f"{passed.rate:,.0f}", f"{passed.forward_equivalents:.2f}", f"{passed.rows:.2f}"
            lines.append([name, str(load[1]), *figures, *(f"{100 * share:.0f} %" for share in shares.values())])
            words.append(f"- {name}: {limit(shares)}")
        yield (
            f"{decode_threads(Settings())} threads decode. The model's answers are replaced by a settled stream's. "
            "The device's share is rows times the bare tower's time for one:"
        )
        yield table(["frames", "cameras", "images/s", "FE", "rows/images", *shares], lines)
        yield "\n".join(words)


def _forward(subject: PairClassifier) -> Forward:
    """The tower at alpha .5, from bytes to features, as the classifier has it."""
    tower = partial(_prepared, subject.bank.copy(MIDDLE).tower, subject._mean, subject._std, subject.dtype)
    return partial(_features, tower)


def _timed(place: Place, run: Callable[[], object]) -> float:
    place.wait()
    started = time.perf_counter()
    run()
    place.wait()
    return time.perf_counter() - started


def warm(subject: PairClassifier, images: Tensor) -> None:
    """Merge and capture every alpha for which there is room, as a long run has."""
    for index in range(len(GRID)):
        subject.evaluate({index: [images[:1]]})


class Settled:
    """All the work of the classifier, with the answers of a settled stream: random weights would never settle."""

    alphas = GRID
    tail_share = 1.0

    def __init__(self, subject: PairClassifier) -> None:
        self._subject, self._curves, self.seconds = subject, host.FreeClassifier(1), 0.0

    @property
    def rows(self) -> int:
        """That were passed through the tower."""
        return self._subject.rows

    def open(self, batches: Sequence[Tensor]) -> Round:
        """See `ports.Classifier`."""
        worked, answered = self._subject.open(batches), of_images(batches, self._curves.answers)

        def evaluate(requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
            started = time.thread_time()
            worked.evaluate(requested)
            self.seconds += time.thread_time() - started
            return answered(requested)

        return ImagesRound(evaluate)


def busy(passed: host.WorkerPass, case: host.Case, rows_per_s: float) -> dict[str, float]:
    """Shares of the time in which each stage worked."""
    threads = decode_threads(Settings())
    return {
        "device": passed.rows * passed.rate / rows_per_s,
        "main thread": passed.main_ms / 1e3 * passed.rate / case.batch,
        "decode threads": (passed.all_ms - passed.main_ms / case.batch) / 1e3 * passed.rate / threads,
    }


def limit(shares: Mapping[str, float]) -> str:
    """Which stage is the limit, in a sentence."""
    name, share = max(shares.items(), key=lambda item: item[1])
    if share < NEARLY:
        return f"no stage is busy for {100 * NEARLY:.0f} % of the time: they wait for each other, or for Python's lock."
    return f"the limit is the {name}, busy for {100 * share:.0f} % of the time."
