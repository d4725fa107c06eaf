"""A CUDA GPU: uploads overlap with forwards, each merged copy is one graph, and a round waits once.

Two streams of the GPU are used. The copy stream uploads chunks from two pinned buffers. The compute stream, torch's
current one, does everything else in order: merges, graphs and heads. Only this order makes it safe to overwrite a copy
that earlier forwards still read.
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

_SLOTS = 2  # chunks in flight: one is read while the next is uploaded
_TOKENS_PER_MULTIPROCESSOR = 12  # of a chunk: enough tiles of a product for each, by arithmetic
_ROWS = (8, 64)  # bounds of a chunk
_ACTIVATIONS = 6  # about as many values are alive at once for each unit of a token's widest layer
_MEMORY_SHARE = 8  # activations may take one part in so many of the GPU's memory


@dataclass
class _Slot:
    """Buffers for one chunk on both sides of the bus, and the events that must come before they are reused."""

    pinned: Tensor
    chunk: Tensor
    uploaded: Any  # event: the copy from `pinned` is complete
    consumed: Any  # event: all that reads `chunk` is complete


class Cuda:
    """An implementation of `clip.device.Device` on one GPU.

    Args:
        where: the GPU, with its number.
        tf32: round the inputs of float32 products to TF32 (10 bits of mantissa), in the tower only.
        graphs: capture forwards as CUDA graphs.
        cuda: torch's module; tests pass another one that runs streams on the CPU.

    Raises:
        DeviceError: the GPU cannot be used.
    """

    def __init__(self, where: torch.device, *, tf32: bool, graphs: bool, cuda: Any = torch.cuda) -> None:
        self.where, self._tf32, self._graphs, self._cuda = where, tf32, graphs, cuda
        try:
            cuda.set_device(where)
            card = cuda.get_device_properties(where)
            self._copies = cuda.Stream()
            self._pool = cuda.graph_pool_handle()
            self._fetched = cuda.Event(blocking=True)  # a waiting thread sleeps: the cores are for decoding
        except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
            raise DeviceError(
                f"{where} cannot be used: {_first_line(error)}. Check nvidia-smi; a container needs the GPU and "
                "the driver's compute libraries. model.device=cpu needs neither."
            ) from error
        self.numerics = (
            f"{card.name} {card.major}.{card.minor} cuda {torch.version.cuda} "
            f"cudnn {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
            f"{' tf32' if tf32 else ''}"
        )
        self.has_bfloat16 = bool(card.major >= 8)
        self.auto_format = torch.bfloat16 if self.has_bfloat16 else torch.float16
        self._slots: list[_Slot] = []
        self._staged = 0  # number of staged chunks so far
        # Graphs of one kind (a tower, its trunk, its tail) read and write the same buffers, by shape and dtype.
        self._inputs: dict[_Kind, Tensor] = {}
        self._outputs: dict[_Kind, Tensor] = {}
        _state_precision()

    @override
    def __str__(self) -> str:
        return f"{self.where} ({self.numerics})"

    def stage(self, images: Sequence[Tensor], rows: int) -> Tensor:
        """See `Device`. The host runs at most three chunks ahead of the GPU, enough to keep it busy."""
        shape = (rows, *images[0].shape[1:])
        if not self._slots or self._slots[0].chunk.shape != shape:
            self._slots = [self._slot(shape) for _ in range(_SLOTS)]
            for slot in self._slots:  # enqueued work may still use the memory that they reuse
                slot.consumed.record()
        if self._staged:  # everything that reads the previous chunk is enqueued by now
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

    def upload(self, numbers: Tensor) -> Tensor:
        """See `Device`."""
        pinned = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        pinned.copy_(numbers)
        return pinned.to(self.where, non_blocking=True)

    def capture(self, forward: Forward, chunk: Tensor) -> Forward:
        """See `Device`. A forward that cannot be captured runs as it is, with a warning."""

        def stated(chunk: Tensor) -> Tensor:
            with _products(tf32=self._tf32):
                return forward(chunk)

        if not self._graphs:
            return stated
        try:
            return self._captured(stated, chunk)
        except RuntimeError as error:  # some towers wait for values of the GPU, which a capture forbids
            if _is_out_of_memory(error):
                raise
            self._graphs = False
            _log.warning(
                "graph_refused",
                error=_first_line(error),
                remedy="forwards are launched kernel by kernel, which is slower, as with model.cuda_graphs=false",
            )
            return stated

    def _captured(self, forward: Forward, chunk: Tensor) -> Forward:
        """Return a function that replays `forward` as a graph on the shared input and output buffers."""
        cuda = self._cuda
        given = self._inputs.setdefault(_kind(chunk), torch.empty_like(chunk))
        # Run once before: libraries choose kernels and allocate workspaces, which must not happen within a capture.
        given.copy_(chunk)
        features = forward(given)
        result = self._outputs.setdefault(_kind(features), torch.empty_like(features))
        graph = cuda.CUDAGraph()
        with cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result.copy_(forward(given))

        def replay(chunk: Tensor, _kept: Forward = forward) -> Tensor:  # `_kept`: a graph has addresses only
            given.copy_(chunk)
            graph.replay()
            return result

        return replay

    def fetch(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Device`. This is the only wait for the compute stream."""
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
                f"{self.where} failed: {_first_line(error)}. Nothing is lost: offsets of unwritten rows are not "
                "committed. Check nvidia-smi and the kernel's log (Xid), then start again; if it always fails at "
                "once, try model.cuda_graphs=false and model.device=cpu, which distinguish a bug from a defective "
                "GPU."
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


_Kind = tuple[torch.Size, torch.dtype]


def _kind(tensor: Tensor) -> _Kind:
    return tensor.shape, tensor.dtype


def chunk_rows_for(card: Any, tower: nn.Module, dtype: torch.dtype) -> int:
    """Return the images of a forward on a GPU, a power of two from 8 to 64; it depends on the GPU model and tower only.

    It is the least number that fills the GPU, because trials at different alphas share no forward and padding is wasted
    (`python -m tools.bench chunks`). It is lower if activations would take more than an eighth of the GPU's memory. The
    number is derived from the multiprocessors and not measured: `make gpu` prints the rate of every size.

    Args:
        card: properties of the GPU as `torch.cuda.get_device_properties` returns them: `multi_processor_count`,
            `total_memory` in bytes.
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
    """Set IEEE products for float32, and sums in float32 for bfloat16 and float16 products, in this process.

    torch's defaults are TF32 for convolutions (so for the patches of a ViT) and reduced sums. Attention in float32
    computes three TF32 products for one, which differ from IEEE's by about 2^-22.
    """
    torch.backends.cuda.matmul.allow_tf32 = False  # the old names first: torch cannot read a mixture
    torch.backends.cudnn.allow_tf32 = False
    _fp32_products("ieee")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def _fp32_products(kind: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]


@contextmanager
def _products(*, tf32: bool) -> Iterator[None]:
    """Use TF32 for float32 products within the block, if requested.

    Heads always run outside of it, because a logit is 100 times a cosine.
    """
    if not tf32:
        yield
        return
    _fp32_products("tf32")
    try:
        yield
    finally:
        _fp32_products("ieee")


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return True for any form of out of memory: torch's error, or a message of the driver or a library.

    cuDNN finds no engine if no workspace fits.
    """
    words = ("out of memory", "ALLOC_FAILED", "unable to find an engine")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _is_cards(error: RuntimeError) -> bool:
    """Return True if the message names the GPU's software."""
    return any(name in str(error) for name in ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "cublas", "NVIDIA"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
