"""A CUDA card: uploads hidden behind forwards, one graph a merged copy, one wait a round.

Two queues of the card are used. The copy queue brings chunks from two pinned buffers; the compute queue, torch's
current stream, does all else in order: merges, graphs, heads. Merging over a copy that earlier forwards still read is
safe for that reason alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from torch import Tensor, nn
from typing_extensions import override

from adawise.clip.device import Forward, fill, tokens_of
from adawise.errors import DeviceError

_log = structlog.get_logger("model")

_SLOTS = 2
_TOKENS_PER_MULTIPROCESSOR = 12  # of a chunk: enough tiles of a product for every multiprocessor, by arithmetic
_ROWS = (8, 64)  # the least and the most of a chunk
_ACTIVATIONS = 6  # values alive at once for each unit of a token's widest layer, about
_MEMORY_SHARE = 8  # of the card's memory, for activations, as a divisor


@dataclass
class _Slot:
    """A place for a chunk on both sides of the bus, and what has to be over before it is used again."""

    pinned: Tensor
    chunk: Tensor
    uploaded: Any  # event: the copy from `pinned` is over
    consumed: Any  # event: what read `chunk` is over


class Cuda:
    """Implements `clip.device.Device` on one card.

    Args:
        where: the card, with its number.
        tf32: round the inputs of float32 products to TF32 (10 bits of mantissa), in the tower alone.
        graphs: capture forwards as CUDA graphs.
        cuda: torch's module; tests rehearse with another that runs queues on the processor.
    """

    def __init__(self, where: torch.device, *, tf32: bool, graphs: bool, cuda: Any = torch.cuda) -> None:
        self.where, self._tf32, self._graphs, self._cuda = where, tf32, graphs, cuda
        try:
            cuda.set_device(where)
            card = cuda.get_device_properties(where)
            self._copies = cuda.Stream()
            self._pool = cuda.graph_pool_handle()
            self._fetched = cuda.Event(blocking=True)  # waits asleep: the cores belong to decoding
        except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
            raise DeviceError(
                f"{where} cannot be used: {_first_line(error)}. Look at nvidia-smi; a container needs the card and the "
                "driver's compute libraries. model.device=cpu does without."
            ) from error
        self.numerics = (
            f"{card.name} {card.major}.{card.minor} cuda {torch.version.cuda} "
            f"cudnn {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
            f"{' tf32' if tf32 else ''}"
        )
        self.has_bfloat16 = bool(card.major >= 8)
        self._slots: list[_Slot] = []
        self._staged = 0  # chunks so far
        self._input: Tensor | None = None  # of every graph
        self._output: Tensor | None = None
        _state_precision()

    @override
    def __str__(self) -> str:
        return f"{self.where} ({self.numerics})"

    def stage(self, images: Sequence[Tensor], rows: int) -> Tensor:
        """See `Device`. The host is at most three chunks ahead of the card, which is never idle for that."""
        shape = (rows, *images[0].shape[1:])
        if not self._slots or self._slots[0].chunk.shape != shape:
            self._slots = [self._slot(shape) for _ in range(_SLOTS)]
            for slot in self._slots:  # their memory may be what work that is enqueued still uses
                slot.consumed.record()
        if self._staged:  # all that reads the chunk before this one is enqueued by now
            self._slots[(self._staged - 1) % _SLOTS].consumed.record()
        slot = self._slots[self._staged % _SLOTS]
        self._staged += 1
        slot.uploaded.synchronize()
        fill(slot.pinned, images)
        with self._cuda.stream(self._copies):
            self._copies.wait_event(slot.consumed)
            slot.chunk.copy_(slot.pinned, non_blocking=True)
            slot.uploaded.record()
        self._cuda.current_stream().wait_event(slot.uploaded)
        return slot.chunk

    def capture(self, forward: Forward, chunk: Tensor) -> Forward:
        """See `Device`. A forward that cannot be captured is used as it is, and the log says so."""

        def stated(chunk: Tensor) -> Tensor:
            with _products(tf32=self._tf32):
                return forward(chunk)

        if not self._graphs:
            return stated
        try:
            return self._captured(stated, chunk)
        except RuntimeError as error:  # some towers ask the card for values on the way
            if _is_out_of_memory(error):
                raise
            self._graphs = False
            _log.warning(
                "graph_refused",
                error=_first_line(error),
                remedy="forwards are launched kernel by kernel, which is slower; so does model.cuda_graphs=false",
            )
            return stated

    def _captured(self, forward: Forward, chunk: Tensor) -> Forward:
        cuda = self._cuda
        if self._input is None or self._input.shape != chunk.shape:
            self._input, self._output = torch.empty_like(chunk), None
        given = self._input
        # Once outside: libraries choose kernels and take workspaces, which must not happen within a capture.
        given.copy_(chunk)
        features = forward(given)
        if self._output is None:
            self._output = torch.empty_like(features)
        result = self._output
        graph = cuda.CUDAGraph()
        with cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result.copy_(forward(given))

        def replay(chunk: Tensor, _kept: Forward = forward) -> Tensor:  # a graph knows addresses, and keeps nothing
            given.copy_(chunk)
            graph.replay()
            return result

        return replay

    def fetch(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Device`. The only wait for the compute queue."""
        joined = torch.cat(list(parts))
        pinned = torch.empty(joined.shape, dtype=joined.dtype, pin_memory=True)
        pinned.copy_(joined, non_blocking=True)
        self._fetched.record()
        self._fetched.synchronize()
        return pinned

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """See `Device`."""
        try:
            yield
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise torch.OutOfMemoryError(_first_line(error)) from error
            if not isinstance(error, torch.AcceleratorError) and not _is_cards(error):
                raise
            raise DeviceError(
                f"{self.where} failed: {_first_line(error)}. Nothing is lost: offsets of what was not written are not "
                "committed. Look at nvidia-smi and the kernel's log (Xid), then start again; if it fails at once and "
                "always, try model.cuda_graphs=false and model.device=cpu, which tell a fault of ours from the card's."
            ) from error

    def free(self) -> None:
        """See `Device`."""
        self._cuda.empty_cache()

    def _slot(self, shape: tuple[int, ...]) -> _Slot:
        return _Slot(
            pinned=torch.empty(shape, dtype=torch.uint8, pin_memory=True),
            chunk=torch.empty(shape, dtype=torch.uint8, device=self.where),
            uploaded=self._cuda.Event(blocking=True),
            consumed=self._cuda.Event(),
        )


def chunk_rows_for(card: Any, tower: nn.Module, dtype: torch.dtype) -> int:
    """Images of a forward on a card, a power of two from 8 to 64: a function of the kind of card and tower alone.

    The least that fills the card, because trials at different alphas share no forward and what is not filled is wasted
    (`python -m tools.bench chunks`); fewer where the activations would take more than an eighth of the card's memory.
    Derived from the number of multiprocessors, not measured: `make gpu` prints the rate of every size.

    Args:
        card: what `torch.cuda.get_device_properties` says: `multi_processor_count`, `total_memory` in bytes.
        tower: the image tower.
        dtype: of its activations.
    """
    tokens, widest = tokens_of(tower), max(p.shape[0] for p in tower.parameters() if p.ndim == 1)
    least, most = _ROWS
    rows = least
    while rows < most and rows * tokens < _TOKENS_PER_MULTIPROCESSOR * card.multi_processor_count:
        rows *= 2
    image_bytes = tokens * widest * _ACTIVATIONS * dtype.itemsize
    while rows > least and rows * image_bytes > card.total_memory // _MEMORY_SHARE:
        rows //= 2
    return rows


def _state_precision() -> None:
    """Products of float32 are IEEE's, and sums of bfloat16 and float16 products are kept in float32, in this process.

    torch's own choice is TF32 for convolutions (so for the patches of a ViT) and reduced sums. Attention in float32
    takes three TF32 products for one, which differ from IEEE's by about 2^-22.
    """
    torch.backends.cuda.matmul.allow_tf32 = False  # the old names first: torch's own readers refuse a mixture
    torch.backends.cudnn.allow_tf32 = False
    _fp32_products("ieee")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def _fp32_products(kind: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]


@contextmanager
def _products(*, tf32: bool) -> Iterator[None]:
    """Within it, float32 products are TF32's if asked for. Heads are always outside: a logit is 100 times a cosine."""
    if not tf32:
        yield
        return
    _fp32_products("tf32")
    try:
        yield
    finally:
        _fp32_products("ieee")


def _is_out_of_memory(error: RuntimeError) -> bool:
    """torch's own kind, and what the driver and libraries say; cuDNN finds no engine where no workspace fits."""
    words = ("out of memory", "ALLOC_FAILED", "unable to find an engine")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _is_cards(error: RuntimeError) -> bool:
    return any(name in str(error) for name in ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "cublas", "NVIDIA"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
