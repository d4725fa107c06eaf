"""What a card would carry: derived from published figures and from what `host` measures. `card_page` writes it down.

No card was at hand. A forward is taken to cost its arithmetic at a share of the card's peak, and its traffic at a share
of the bandwidth, one after the other. The shares of both ends of a range come from published forwards, named in
`ANCHORS`. Rows of a chunk are the worker's own choice. The host's figures are constants with the command that printed
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn

from adawise.clip.cuda import chunk_rows_for

GRID_ALPHAS = 21  # pipeline/adawise/clip/classifier.py
DEFAULT_BANK_MIB = 4096  # model.bank_mib
FORWARD_EQUIVALENTS = (1.15, 1.25)
FEW, MANY = 8, 128  # cameras
FRAMES_PER_S = (1, 5, 25)
NEARLY = 0.9  # of what a card could serve: the last tenth would take a process more for little
HOST_CORES = 16
BANDWIDTH_SHARE = 0.8  # of the published one, which plain copies reach
USABLE_SHARE = 0.92  # of the memory on the label; error correction and the driver take the rest
RESERVED_MIB = 1536  # the CUDA context, the libraries' work space and what the allocator does not get back
ACTIVATION_COPIES = 12  # tensors of [rows, tokens, width] that are alive at once; the MLP's are four times as wide


# Measured: python -m tools.bench host, on two cores of an AMD EPYC (Zen 4) with nothing beside it, torch 2.15, Pillow
# 13.0, simplejpeg 1.9. Medians of three runs of the command; so are the figures of `JpegSize`.
PROCESS_RATE = {16: 1228, 32: 1140}  # images of a batch -> images/s of one process, pixels and forwards for nothing
PROCESS_RATES = (1016, 1298)  # the least and the most of all repeats, batches of 16
MAIN_ALONE_MS = {16: 3.2, 32: 6.0}  # images of a batch -> the main thread's milliseconds a batch there
MAIN_BESIDE_MS = 3.4  # a batch of 16, while other threads decode on the same two cores and rounds are small

# Counted: python -m tools.bench chunks. Rows of a chunk -> cameras -> rows that pass over images that pass.
PADDING = {
    8: {1: 1.00, FEW: 1.00, 32: 1.00, MANY: 1.00},
    16: {1: 1.14, FEW: 1.07, 32: 1.04, MANY: 1.04},
    32: {1: 2.29, FEW: 1.75, 32: 1.36, MANY: 1.19},
    64: {1: 4.57, FEW: 3.17, 32: 2.13, MANY: 1.28},
}


@dataclass(frozen=True)
class JpegSize:
    """A size of JPEG, and milliseconds a core that an image of it costs."""

    name: str
    decode_ms: float  # the worker's path
    python_ms: float  # of the path, without libjpeg and the resize: one thread of a process at a time


VGA = JpegSize("640x480", 1.40, 0.45)
HD = JpegSize("1280x720", 3.42, 0.66)
FULL_HD = JpegSize("1920x1080", 6.91, 1.08)


@dataclass(frozen=True)
class Architecture:
    """An image tower: open_clip's model_profile.csv has the first two figures, its configurations the rest."""

    name: str
    gflop: float  # an image
    parameters: float  # millions
    tokens: int
    width: int
    layers: int

    def traffic_mb(self, bytes_per_value: float) -> float:
        """Bytes an image that are no matrix product's: norms, attention, activation functions, residuals."""
        return bytes_per_value * self.width * self.tokens * self.layers / 1e6

    def weights_mib(self, bytes_per_parameter: int) -> float:
        """One copy of the tower."""
        return self.parameters * 1e6 * bytes_per_parameter / 2**20

    def module(self) -> nn.Module:
        """What `chunk_rows_for` looks at, without memory: tokens, and the bias of the widest layer."""
        module = nn.Module()
        for name, shape in (("positional_embedding", (self.tokens, self.width)), ("bias", (4 * self.width,))):
            module.register_parameter(name, nn.Parameter(torch.empty(shape, device="meta")))
        return module


B32 = Architecture("ViT-B/32", 8.82, 87.85, 50, 768, 12)
B16 = Architecture("ViT-B/16", 35.13, 86.19, 197, 768, 12)
L14 = Architecture("ViT-L/14", 162.03, 303.97, 257, 1024, 24)
L16 = Architecture("ViT-L/16", 123.11, 304.09, 197, 1024, 24)  # for one anchor
ARCHITECTURES = (B32, B16, L14)


LAYER_MS = 0.085  # the least time of a layer, however few the images: AITemplate's ViT, 1.02 ms of 12 layers, A100
EAGER_LAYER_MS = 0.41  # of torch 1.12 there, kernel by kernel: 4.95 ms of 12 layers, 9.88 of 24


@dataclass(frozen=True)
class Way:
    """One end of the ranges: bytes of traffic a value, and the main thread's time for an image.

    Traffic is 44 bytes a value where each operation reads and writes what it needs, half of it where they are fused.
    """

    name: str
    bytes_per_value: float
    main_ms: float


EAGER = Way("torch's kernels", 44.0, MAIN_BESIDE_MS / 16)  # the worker's, captured as a graph
COMPILED = Way("fused kernels", 22.0, MAIN_ALONE_MS[16] / 16)


@dataclass(frozen=True)
class GpuCard:
    """Published figures of a card, and the shares of its peak that its published forwards come to.

    `tflops` is of dense products in the format that the forwards take, without sparsity. `shares` of that peak: torch's
    kernels, fused ones.
    """

    name: str
    format: str
    tflops: float
    gb_per_s: float
    memory_gib: float
    multiprocessors: int
    watts: int
    shares: tuple[float, float]
    why: str

    def chunk_rows(self, tower: Architecture) -> int:
        """As the worker chooses them."""
        card = SimpleNamespace(multi_processor_count=self.multiprocessors, total_memory=self.memory_gib * 2**30)
        return chunk_rows_for(card, tower.module(), torch.float16)

    def forward_ms(self, tower: Architecture, way: Way) -> float:
        """Milliseconds an image in large batches."""
        share = self.shares[(EAGER, COMPILED).index(way)]
        arithmetic_ms = tower.gflop / (share * self.tflops)
        return arithmetic_ms + tower.traffic_mb(way.bytes_per_value) / (BANDWIDTH_SHARE * self.gb_per_s)


H100 = GpuCard(
    "H100 SXM",
    "bf16",
    989.0,
    3350.0,
    80.0,
    132,
    700,
    (0.35, 0.55),
    "none found: shares below those of the A100, because a larger card is harder to fill with products this narrow",
)
A100 = GpuCard(
    "A100 SXM 80 GB",
    "bf16",
    312.0,
    2039.0,
    80.0,
    108,
    400,
    (0.45, 0.7),
    "torchvision's ViT-B/16 in eager bf16 and AITemplate's in fp16",
)
L4 = GpuCard(
    "L4",
    "bf16",
    121.0,
    300.0,
    24.0,
    58,
    72,
    (0.25, 0.5),
    "one of a larger tower, in eager fp16 with one image; the upper end is a guess between T4 and larger cards",
)
T4 = GpuCard(
    "T4",
    "fp16",
    65.0,
    320.0,
    16.0,
    40,
    70,
    (0.12, 0.4),
    "a CLIP ViT-L/14 in eager fp16 with one image, and FasterTransformer's fused ViT in fp16",
)
CARDS = (H100, A100, L4, T4)


@dataclass(frozen=True)
class Anchor:
    """A published forward, to hold the model against."""

    card: GpuCard
    tower: Architecture
    images_per_s: float
    way: str
    source: str


ANCHORS = (
    Anchor(A100, B16, 2226, "eager fp16, torch 1.12, 256 images", "AITemplate's ViT example, on the 40 GB card"),
    Anchor(A100, B16, 3324, "eager bf16, 256 images", "torchvision's tower, an issue of meta-pytorch/superblock"),
    Anchor(A100, B16, 3187, "fused fp16, 32 images", "FasterTransformer's ViT guide"),
    Anchor(A100, B16, 5273, "compiled fp16, 256 images", "AITemplate's ViT example, on the 40 GB card"),
    Anchor(A100, L16, 1079, "fused fp16, 32 images", "FasterTransformer's ViT guide"),
    Anchor(T4, L14, 45, "eager fp16, one image", "the repository fast-clip-research"),
    Anchor(T4, B16, 559, "fused fp16, 32 images", "FasterTransformer's ViT guide"),
    Anchor(T4, L16, 186, "fused fp16, 32 images", "FasterTransformer's ViT guide"),
)


@dataclass(frozen=True)
class Load:
    """A card with a tower in one way of running it, at so many forward-equivalents and from so many cameras."""

    card: GpuCard
    tower: Architecture
    way: Way
    forward_equivalents: float
    cameras: int

    @property
    def chunk_rows(self) -> int:
        """Of a forward."""
        return self.card.chunk_rows(self.tower)

    @property
    def row_ms(self) -> float:
        """Milliseconds of the card for a row of a chunk."""
        return max(self.card.forward_ms(self.tower, self.way), LAYER_MS * self.tower.layers / self.chunk_rows)

    @property
    def card_ms(self) -> float:
        """Milliseconds of the card for an image that is served."""
        return self.forward_equivalents * PADDING[self.chunk_rows][self.cameras] * self.row_ms

    @property
    def card_rate(self) -> float:
        """Images/s served if nothing but the card were a limit."""
        return 1e3 / self.card_ms

    def process_rate(self, frames: JpegSize) -> float:
        """Images/s of one worker process with cores to spare for its decoding.

        Its main thread works and waits for the card in turn. Python runs in one thread at a time, so there is a rate
        that no number of cores raises, and larger frames lower it.
        """
        python_ms = 1e3 / PROCESS_RATE[16] + frames.python_ms - VGA.python_ms
        return 1e3 / max(self.way.main_ms + self.card_ms, python_ms)

    def processes(self, frames: JpegSize) -> int:
        """Worker processes that keep the card busy."""
        return math.ceil(NEARLY * self.card_rate / self.process_rate(frames))

    def cores(self, decode_ms: float) -> int:
        """That keep the card busy: for decoding, and for main threads, which sleep while they wait."""
        return math.ceil(NEARLY * self.card_rate * (decode_ms + self.way.main_ms) / 1e3)

    def served(self, frames: JpegSize, cores: int) -> tuple[float, str]:
        """Images/s on a host of so many cores with as many processes as help, and what the limit is."""
        return min(
            (self.card_rate, "card"),
            (cores * 1e3 / (frames.decode_ms + self.way.main_ms), "cores"),
            (cores * self.process_rate(frames), "card and host in turn"),
        )


def loads(
    card: GpuCard,
    tower: Architecture,
    worst: float = max(FORWARD_EQUIVALENTS),
    best: float = min(FORWARD_EQUIVALENTS),
) -> tuple[Load, Load]:
    """Both ends of a range: torch's kernels and few cameras, fused ones and many."""
    return Load(card, tower, EAGER, worst, FEW), Load(card, tower, COMPILED, best, MANY)


def copies(card: GpuCard, tower: Architecture, processes: int = 1) -> int:
    """Merged copies of the grid that fit beside the masters, for each of so many processes; never more than all."""
    mib = (
        USABLE_SHARE * card.memory_gib * 1024 / processes
        - RESERVED_MIB
        - 2 * tower.weights_mib(4)
        - activations_mib(tower, card.chunk_rows(tower))
    )
    return max(0, min(GRID_ALPHAS, int(mib / tower.weights_mib(2))))


def activations_mib(tower: Architecture, chunk_rows: int) -> float:
    """Of a chunk, in 16 bits."""
    return ACTIVATION_COPIES * 2 * chunk_rows * tower.tokens * tower.width / 2**20
