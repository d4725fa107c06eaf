"""docs/gpu.md: what `cards` derives, in tables, with the words that belong to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.bench.cards import (
    ANCHORS,
    ARCHITECTURES,
    BANDWIDTH_SHARE,
    CARDS,
    COMPILED,
    DEFAULT_BANK_MIB,
    EAGER,
    FORWARD_EQUIVALENTS,
    FRAMES_PER_S,
    FULL_HD,
    GRID_ALPHAS,
    HD,
    HOST_CORES,
    L14,
    MAIN_ALONE_MS,
    MAIN_BESIDE_MS,
    NEARLY,
    PADDED,
    PROCESS_RATE,
    PROCESS_RATES,
    RESERVED_MIB,
    ROWS,
    ROWS_OF_16,
    USABLE_SHARE,
    VGA,
    Architecture,
    Card,
    Frames,
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


def by_card(header: Sequence[str], row: Callable[[Card, Architecture], Sequence[str]]) -> str:
    """A table with a row for each card and tower."""
    rows = ([card.name, tower.name, *row(card, tower)] for card in CARDS for tower in ARCHITECTURES)
    return table(["card", "tower", *header], rows)


def published() -> str:
    """The cards."""
    return table(
        ["card", "format", "dense TFLOP/s", "GB/s", "memory, GB", "W", "share of the peak", "after which forwards"],
        (
            [
                card.name,
                card.format,
                f"{card.tflops:g}",
                f"{card.gb_per_s:g}",
                f"{card.memory_gib:g}",
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


def forwards() -> str:
    """The card alone."""

    def row(card: Card, tower: Architecture) -> list[str]:
        rates = [1e3 / card.forward_ms(tower, way) for way in (EAGER, COMPILED)]
        return [span(rate / spent for rate in rates) for spent in (1.0, *FORWARD_EQUIVALENTS, PADDED)]

    served = (f"served/s, FE {spent:g}" for spent in FORWARD_EQUIVALENTS)
    return by_card(["forwards/s", *served, f"served/s, {PADDED:g} (chunks of 64 as they fill)"], row)


def one_process() -> str:
    """Served by one worker process, however many cores."""

    def row(card: Card, tower: Architecture) -> list[str]:
        cells = []
        for frames in (VGA, HD):
            both = loads(card, tower)
            cells.append(span(load.process_rate(frames) for load in both))
            cells.append(span(100.0 * load.process_rate(frames) / load.card_rate for load in both) + " %")
        return cells

    return by_card(["640x480: served/s", "of the card", "1280x720: served/s", "of the card"], row)


def hosts(frames: Frames) -> str:
    """Served with a host of sixteen cores, and what the limit is."""
    spends = (*FORWARD_EQUIVALENTS, PADDED)

    def row(card: Card, tower: Architecture) -> list[str]:
        ends = [[load.served(frames, HOST_CORES) for load in loads(card, tower, spent, spent)] for spent in spends]
        cells = [
            f"{span(rate for rate, _ in both)} ({' - '.join(dict.fromkeys(name for _, name in both))})" for both in ends
        ]
        return [*cells, *(span(rate / each for rate, _ in ends[1]) for each in FRAMES_PER_S)]

    served = (f"served/s, FE {spent:g}" for spent in FORWARD_EQUIVALENTS)
    cameras = (f"cameras at {each}/s" for each in FRAMES_PER_S)
    return by_card([*served, f"served/s, {PADDED:g}", *cameras], row)


def fed() -> str:
    """What it takes to keep the card busy, and what it carries then."""

    def row(card: Card, tower: Architecture) -> list[str]:
        both = loads(card, tower)
        rates = [load.card_rate for load in both]
        costs = (VGA.decode_ms, VGA.tensor_ms, HD.decode_ms, HD.tensor_ms)
        return [
            whole_span(load.processes(VGA) for load in both),
            *(whole_span(math.ceil(rate * ms / 1e3) for rate in rates) for ms in costs),
            *(span(rate / each for rate in rates) for each in FRAMES_PER_S),
        ]

    return by_card(
        [
            "processes",
            "decode cores, 640x480",
            "resize on a tensor",
            "decode cores, 1280x720",
            "resize on a tensor",
            *(f"cameras at {each}/s" for each in FRAMES_PER_S),
        ],
        row,
    )


def memory() -> str:
    """Merged copies that fit."""

    def row(card: Card, tower: Architecture) -> list[str]:
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
    rows = (
        [frames.name, f"{frames.decode_ms:g}", f"{frames.tensor_ms:g}", f"{frames.python_ms:g}"]
        for frames in (VGA, HD, FULL_HD)
    )
    return table(
        ["JPEG, quality 85", "today, ms", "resize on a tensor, ms", "today's without libjpeg and resize, ms"], rows
    )


def page() -> str:
    """docs/gpu.md."""
    (few, many), eager = FORWARD_EQUIVALENTS, EAGER
    rate, rate_of_32, (least, most) = PROCESS_RATE[16], PROCESS_RATE[32], PROCESS_RATES
    alone, alone_of_32 = MAIN_ALONE_MS[16], MAIN_ALONE_MS[32]
    hd, full_hd = HD.decode_ms / VGA.decode_ms, FULL_HD.decode_ms / VGA.decode_ms
    whole_bank = math.ceil(GRID_ALPHAS * L14.weights_mib(2) / 100) * 100
    towers = ", ".join(f"{tower.name} {tower.gflop:g} and {tower.parameters:g} M" for tower in ARCHITECTURES)
    return f"""# GPUs: which card carries which cameras

**What a card serves is derived on this page, nowhere measured.** No card was at hand. Forwards are scaled from
published figures of other programs; the host's share is this program's, measured on two cores. `make gpu` measures on
your card what is derived here, and writes a file with the card's name: believe that file instead.

This page is written by `python -m tests.bench cards -o docs/gpu.md`; a test holds it to the code.

## In short

- For ViT-B/32 a large card is not the limit. The Python thread of each worker process is, and behind it decoding on
  the processor. With {HOST_CORES} cores beside it an H100 serves no more than an A100.
- One worker process carries about {rounded(rate)} images/s of 640x480, whatever the card. Start several on one card.
- ViT-L/14 on frames of 640x480 is limited by the card everywhere, ViT-B/16 on L4 and T4.
- Publish frames at most 480 px high. A frame of 1280x720 costs {hd:.1f} times as much to decode, one of 1920x1080
  {full_hd:.1f} times, and the model sees 224 px of each.

## How to read the tables

A range goes from eager forwards, which the worker runs today, to compiled ones or a CUDA graph. Read the lower end
first; no more than its first digit is certain. FE is what adapting costs: images passed through the tower over images
served. A settled stream has about {few:g}, one that often changes {many:g}.

FE counts images, but a chunk of `model.chunk_rows` (64 on a card) takes its time full or not, and looks at other
alphas are small. So the card passes more rows than FE says: {ROWS:g} an image at FE 1.2 (measured with 64 cameras and
no card), more where few cameras share a round. The tables call that {PADDED:g}. With chunks of 16 it was
{ROWS_OF_16:g}; whether a card is as quick with those, only a card can tell. Where a table names no FE, its lower end
has {PADDED:g} and its upper end {few:g}.

## What the card could serve

If nothing else were a limit:

{forwards()}

## What one worker process serves

Its main thread decides, launches and waits for the card in turn, and Python runs in one thread at a time. More cores do
not raise this:

{one_process()}

## What a host of {HOST_CORES} cores serves

With as many processes as serve most. Each takes a core for its main thread; the others decode. The limit is in
brackets. Cameras are at FE {many:g}.

JPEGs of 640x480:

{hosts(VGA)}

JPEGs of 1280x720:

{hosts(HD)}

## What it takes to keep the card busy

Processes for {100 * NEARLY:.0f} % of what the card could serve, cores that decode (and one more for each process),
and the cameras that it carries then. A resize on a tensor is not in the worker: these columns say what it would save.

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
- T4: its rows are for fp16, and the worker has fp32 and bf16 only. A T4 computes bf16 in software, and torch calls
  that support (read in its source, not tried), so set `model.precision` to fp32. The peak is 8.1 TFLOP/s then, an
  eighth.

## What only a card can show

- The share of its peak that our towers reach, eager and compiled, by rows of a chunk.
- The host's time to launch a layer, and whether several processes on one card add up.
- What waiting for the card costs the decode threads.
- The least chunk that is as quick as 64 rows, and with it the true price of a look.
- That logits do not depend on an image's place in the chunk: the worker refuses to start where they do.

## Where the figures come from

A forward is taken to cost its arithmetic at a share of the card's peak, and after that the traffic of all that is no
matrix product, at {100 * BANDWIDTH_SHARE:.0f} % of the bandwidth: {eager.bytes_per_value:g} bytes a value and layer
in eager form, half of it in compiled form. In eager form a layer takes the main thread {eager.launch_ms:g} ms to
launch, in compiled form {COMPILED.launch_ms:g} (AITemplate's ViT example, one image).

{published()}

Peaks, bandwidths and watts are the maker's, without sparsity. GFLOP an image and parameters are from open_clip's
`docs/model_profile.csv`: {towers}.

Published forwards, and the range that the model gives for the same:

{anchors()}

The first ran without fused attention. No forward of these towers was found for an H100 or an L4: their rows are the
least certain. What was found for an L4 is SigLIP's tower of 428 M parameters, 28.6 ms an image of 384 px in fp16 (the
benchmarks of FORGE-Nano): 19 % of the peak.

**Measured** by `python -m tests.bench host` on two cores of an AMD EPYC (Zen 4) that other work used too (load 2.0 to
4.6), torch 2.15, Pillow 13.0. Medians of three runs, processor time of one thread:

{measured()}

The main thread takes {alone:g} ms a batch of 16 and {alone_of_32:g} ms a batch of 32 where pixels are ready: the upper
ends. A batch of 16 takes {MAIN_BESIDE_MS:g} ms while others decode on the same two cores and rounds are small: the
lower ends. That is everything from polling to the segment in a folder, but for the broker's client, which comes on top.
With pixels and forwards for nothing a process passed {rate} images/s ({least} to {most}). Another processor has other
figures: run it on yours.
"""


def main(output: Path | None = None) -> None:
    """Print the page, or write it."""
    if output is None:
        print(page())
    else:
        output.write_text(page(), encoding="utf-8")
