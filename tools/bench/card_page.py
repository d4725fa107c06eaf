"""docs/gpu.md: what `cards` derives, in tables, with the words that belong to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tools.bench.cards import (
    ANCHORS,
    ARCHITECTURES,
    B16,
    B32,
    BANDWIDTH_SHARE,
    CARDS,
    COMPILED,
    DEFAULT_BANK_MIB,
    EAGER,
    EAGER_LAYER_MS,
    FEW,
    FORWARD_EQUIVALENTS,
    FRAMES_PER_S,
    FULL_HD,
    GRID_ALPHAS,
    H100,
    HD,
    HOST_CORES,
    L14,
    LAYER_MS,
    MAIN_ALONE_MS,
    MAIN_BESIDE_MS,
    MANY,
    NEARLY,
    PADDING,
    PROCESS_RATE,
    PROCESS_RATES,
    RESERVED_MIB,
    USABLE_SHARE,
    VGA,
    Architecture,
    GpuCard,
    JpegSize,
    copies,
    loads,
)

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"


def rounded(value: float) -> str:
    """Two significant digits at most: more would be a promise."""
    return f"{round(value, 1 - math.floor(math.log10(value))):,.0f}" if value >= 10 else str(int(value))


def span(values: Iterable[float]) -> str:
    """`low - high`, or one figure where both round to the same."""
    low, high = (rounded(value) for value in sorted(values))
    return low if low == high else f"{low} - {high}"


def whole_span(values: Iterable[int]) -> str:
    """Likewise of counts."""
    low, high = sorted(values)
    return str(low) if low == high else f"{low} - {high}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_card(header: Sequence[str], row: Callable[[GpuCard, Architecture], Sequence[str]]) -> str:
    """A table with a row for each card and tower."""
    rows = ([card.name, tower.name, *row(card, tower)] for card in CARDS for tower in ARCHITECTURES)
    return table(["card", "tower", *header], rows)


def published() -> str:
    """The cards."""
    return table(
        [
            "card",
            "format",
            "dense TFLOP/s",
            "GB/s",
            "memory, GB",
            "multiprocessors",
            "W",
            "share of the peak",
            "after which forwards",
        ],
        (
            [
                card.name,
                card.format,
                f"{card.tflops:g}",
                f"{card.gb_per_s:g}",
                f"{card.memory_gib:g}",
                str(card.multiprocessors),
                str(card.watts),
                f"{card.shares[0]:g} - {card.shares[1]:g}",
                card.why,
            ]
            for card in CARDS
        ),
    )


def anchors() -> str:
    """What is published beside what the model says."""
    return table(
        ["published", "images/s", "how", "model", "where it was read"],
        (
            [
                f"{anchor.card.name}, {anchor.tower.name}",
                f"{anchor.images_per_s:,.0f}",
                anchor.way,
                span(1e3 / anchor.card.forward_ms(anchor.tower, way) for way in (EAGER, COMPILED)),
                anchor.source,
            ]
            for anchor in ANCHORS
        ),
    )


def padding() -> str:
    """What chunks that are not full cost."""
    cameras = list(next(iter(PADDING.values())))
    return table(
        ["rows of a chunk", "1 camera", *(f"{n} cameras" for n in cameras[1:])],
        ([str(rows), *(f"{by_cameras[n]:.2f}" for n in cameras)] for rows, by_cameras in PADDING.items()),
    )


def forwards() -> str:
    """The card alone."""

    def row(card: GpuCard, tower: Architecture) -> list[str]:
        ends = [loads(card, tower, spent, spent) for spent in FORWARD_EQUIVALENTS]
        rates = (span(load.card_rate for load in both) for both in ends)
        return [str(card.chunk_rows(tower)), span(1e3 / load.row_ms for load in ends[0]), *rates]

    served = (f"served/s, FE {spent:g}" for spent in FORWARD_EQUIVALENTS)
    return by_card(["rows of a chunk", "rows/s", *served], row)


def one_process() -> str:
    """Served by one worker process, however many cores."""

    def row(card: GpuCard, tower: Architecture) -> list[str]:
        cells = []
        for frames in (VGA, HD):
            both = loads(card, tower)
            cells.append(span(load.process_rate(frames) for load in both))
            cells.append(span(100.0 * load.process_rate(frames) / load.card_rate for load in both) + " %")
        return cells

    return by_card(["640x480: served/s", "of the card", "1280x720: served/s", "of the card"], row)


def hosts(frames: JpegSize) -> str:
    """Served with a host of sixteen cores, and what the limit is."""

    def row(card: GpuCard, tower: Architecture) -> list[str]:
        ends = [
            [load.served(frames, HOST_CORES) for load in loads(card, tower, spent, spent)]
            for spent in FORWARD_EQUIVALENTS
        ]
        cells = [
            f"{span(rate for rate, _ in both)} ({' - '.join(dict.fromkeys(name for _, name in both))})" for both in ends
        ]
        return [*cells, *(span(rate / each for rate, _ in ends[1]) for each in FRAMES_PER_S)]

    served = (f"served/s, FE {spent:g}" for spent in FORWARD_EQUIVALENTS)
    return by_card([*served, *(f"cameras at {each}/s" for each in FRAMES_PER_S)], row)


def fed() -> str:
    """What it takes to keep the card busy, and what it carries then."""

    def row(card: GpuCard, tower: Architecture) -> list[str]:
        both = loads(card, tower)
        costs = (VGA.decode_ms, HD.decode_ms)
        return [
            whole_span(load.processes(VGA) for load in both),
            *(whole_span(load.cores(ms) for load in both) for ms in costs),
            *(span(load.card_rate / each for load in both) for each in FRAMES_PER_S),
        ]

    return by_card(
        [
            "processes",
            "cores, 640x480",
            "cores, 1280x720",
            *(f"cameras at {each}/s" for each in FRAMES_PER_S),
        ],
        row,
    )


def memory() -> str:
    """Merged copies that fit."""

    def row(card: GpuCard, tower: Architecture) -> list[str]:
        processes = max(load.processes(VGA) for load in loads(card, tower))
        return [
            f"{2 * tower.weights_mib(4):,.0f}",
            f"{tower.weights_mib(2):,.0f}",
            f"{GRID_ALPHAS * tower.weights_mib(2):,.0f}",
            str(min(GRID_ALPHAS, int(DEFAULT_BANK_MIB / tower.weights_mib(2)))),
            str(copies(card, tower)),
            f"{copies(card, tower, processes)} in each of {processes}" if processes > 1 else "-",
        ]

    return by_card(
        ["masters, MiB", "a copy, MiB", "21 copies, MiB", "by default", "fit one process", "fit the processes above"],
        row,
    )


def measured() -> str:
    """The host's figures."""
    rows = ([frames.name, f"{frames.decode_ms:.2f}", f"{frames.python_ms:g}"] for frames in (VGA, HD, FULL_HD))
    return table(["JPEG, quality 85", "to pixels and statistics, ms", "without libjpeg and resize, ms"], rows)


def page() -> str:
    """docs/gpu.md."""
    few, many = FORWARD_EQUIVALENTS
    rate, rate_of_32, (least, most) = PROCESS_RATE[16], PROCESS_RATE[32], PROCESS_RATES
    alone, alone_of_32 = MAIN_ALONE_MS[16], MAIN_ALONE_MS[32]
    hd, full_hd = HD.decode_ms / VGA.decode_ms, FULL_HD.decode_ms / VGA.decode_ms
    whole_bank = math.ceil(GRID_ALPHAS * L14.weights_mib(2) / 100) * 100
    towers = ", ".join(f"{tower.name} {tower.gflop:g} and {tower.parameters:g} M" for tower in ARCHITECTURES)
    by_kernel = [H100.chunk_rows(tower) * 1e3 / (EAGER_LAYER_MS * tower.layers) for tower in (B32, B16)]
    return f"""# GPUs: which card carries which cameras

**What a card serves is derived on this page, nowhere measured.** No card was at hand. Forwards are scaled from
published figures of other programs; the host's share is this program's, measured on two cores.

`make gpu` tests and measures on your card what is derived here. It writes `docs/gpu-CARD.md`, with the card's name in
place of `CARD`: believe that file instead. Without a card it says why there is none, and fails. For other models:
`python -m tools.bench gpu -o docs --architectures ViT-B-32 ViT-B-16 ViT-L-14`.

This page is written by `python -m tools.bench cards -o docs/gpu.md`; a test holds it to the code.

## In short

- For ViT-B/32 an H100 is not the limit. The Python thread of each worker process is, and behind it decoding on the
  {HOST_CORES} cores beside it. An A100 is about as fast as these cores.
- One worker process carries about {rounded(rate)} images/s of 640x480, whatever the card. Start several on one card.
- ViT-L/14 on frames of 640x480 is limited by the card everywhere, ViT-B/16 on L4 and T4.
- Publish frames at most 480 px high. A frame of 1280x720 costs {hd:.1f} times as much to decode, one of 1920x1080
  {full_hd:.1f} times, and the model sees 224 px of each.

## How to read the tables

A range goes from the kernels of torch, which the worker launches as one CUDA graph, to the fused ones of a compiler,
which it has not got. Read the lower end first; no more than its first digit is certain. FE is what adapting costs:
images passed through the tower over images served. A settled stream has about {few:g}, one that often changes {many:g}.

A chunk takes its time full or not. The worker takes the least chunk that fills the card by arithmetic, from 8 to 64
rows (`model.chunk_rows`), and gathers 32 chunks a round. Rows that pass over images that pass, counted by
`python -m tools.bench chunks` under full load:

{padding()}

The lower end of a range has {FEW} cameras, the upper end {MANY}. Where a table names no FE, the lower end has {many:g}
and the upper end {few:g}. The shares of the peak are of large chunks: that small ones reach them is an assumption. A
card that waits for frames gets small rounds, and passes more rows an image; it has the time.

## What the card could serve

If nothing else were a limit:

{forwards()}

## What one worker process serves

Its main thread decides, launches and waits for the card in turn, and Python runs in one thread at a time. More cores do
not raise this:

{one_process()}

## What a host of {HOST_CORES} cores serves

With as many processes as help. Main threads sleep while they wait for the card, so all cores decode beside them. The
limit is in brackets. Cameras are at FE {many:g}.

JPEGs of 640x480:

{hosts(VGA)}

JPEGs of 1280x720:

{hosts(HD)}

## What it takes to keep the card busy

Processes and cores for {100 * NEARLY:.0f} % of what the card could serve, and the cameras that the whole card could
carry.

{fed()}

## Memory

Each process has its own masters (both endpoints in fp32), merged copies and activations of a chunk. `model.bank_mib` is
{DEFAULT_BANK_MIB} by default. An alpha without a copy is merged again when it is asked for.

{memory()}

Assumed: {100 * USABLE_SHARE:.0f} % of the memory can be used, and {RESERVED_MIB} MiB of it go to CUDA and its
libraries.

## Advice

- Frames: JPEG, 480 px high or less. It buys more than any card.
- Processes: as many workers on one card as the tables say, on a topic with at least that many partitions. A worker
  beyond the number of partitions waits in reserve.
- `decode.threads`: each process takes one for each core of the host. With several, share the cores out among them.
- `model.bank_mib`: {whole_bank} keeps all {GRID_ALPHAS} copies of ViT-L/14. With several processes, divide what the
  card has.
- Batches of 32 in place of 16 do not help the host: {rate_of_32} and {rate} images/s, measured.
- `model.precision`: `auto` in a new root is bf16 on cards that have it (compute capability 8.0 and above), and fp16 on
  others. A T4 is one of these, and its rows are for fp16. The worker refuses to start where logits are not finite: take
  `fp32` then, which has an eighth of the peak on a T4 (8.1 TFLOP/s). `tf32` keeps the range of fp32, with 10 bits of
  mantissa.
- `model.cuda_graphs`: leave it on. Kernel by kernel, a layer takes the main thread {EAGER_LAYER_MS:g} ms to launch:
  on an H100 at most {rounded(by_kernel[0])} rows/s of ViT-B/32, and {rounded(by_kernel[1])} of ViT-B/16.

## What only a card can show

Tests, in `tests/gpu/`:

- An image's logits are the same bits, whichever images share its chunk.
- They equal the processor's within bounds, in each number format.
- A replay on the same card is equal.
- A captured graph sees a merge that was made in place after its capture.
- Memory that runs out is answered by a smaller bank, and changes no result.
- A card that is lost ends the worker with exit code 1, and nothing is committed after it.
- Nothing waits for the card in secret (torch's sync debug mode).
- Two workers run on two cards.

Rates, by `make gpu`:

- The share of its peak that our towers reach, by rows of a chunk: whether the least chunk that fills the card by
  arithmetic is as quick as larger ones.
- What a merge, a capture, an upload and the wait of a step take.
- How busy card, main thread and decode threads are, and so which of them is the limit.

By hand: whether several processes on one card add up.

## Where the figures come from

A forward is taken to cost its arithmetic at a share of the card's peak, and after that the traffic of all that is no
matrix product, at {100 * BANDWIDTH_SHARE:.0f} % of the bandwidth: {EAGER.bytes_per_value:g} bytes a value and layer
by torch's kernels, half of it by fused ones. A layer takes {LAYER_MS:g} ms at least, however few the images
(AITemplate's ViT example: one image, fused, on an A100). That a captured graph comes as low is an assumption.

{published()}

Peaks, bandwidths and watts are the maker's, without sparsity. GFLOP an image and parameters are from open_clip's
`docs/model_profile.csv`: {towers}.

Published forwards, and the range that the model gives for the same:

{anchors()}

The first ran without fused attention. No forward of these towers was found for an H100 or an L4: their rows are the
least certain. What was found for an L4 is SigLIP's tower of 428 M parameters, 28.6 ms an image of 384 px in fp16 (the
benchmarks of FORGE-Nano): 19 % of the peak.

**Measured** by `python -m tools.bench host` on two cores of an AMD EPYC (Zen 4) with nothing beside it, torch 2.15,
Pillow 13.0, simplejpeg 1.9. Medians of three runs, processor time of one thread:

{measured()}

The main thread takes {alone:g} ms a batch of 16 and {alone_of_32:g} ms a batch of 32 where pixels are ready: the upper
ends. A batch of 16 takes {MAIN_BESIDE_MS:g} ms while others decode on the same two cores and rounds are small: the
lower ends. That is everything from polling to the segment in a folder, but for the broker's client, which comes on top.
On two cores decoding is the slower half, so the main thread takes more and smaller turns than beside sixteen.
With pixels and forwards for nothing a process passed {rate} images/s ({least} to {most}). Another processor has other
figures: run it on yours.
"""


def main(output: Path | None = None) -> None:
    """Print the page, or write it."""
    if output is None:
        print(page())
    else:
        output.write_text(page(), encoding="utf-8")
