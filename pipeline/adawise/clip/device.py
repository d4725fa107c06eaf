"""The port between the classifier and a device: the few operations that differ between a CPU and a GPU.

The rest of `clip` is plain torch on tensors that know their device. The implementation for CUDA is `clip/cuda.py`.
`numerics` describes what decides the bits of a matrix product on a CPU.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

# Environment variables that choose kernels, by prefix.
_SETS_KERNELS = ("ATEN_", "DNNL_", "MKL_", "NVIDIA_", "ONEDNN_", "TORCH_")

Forward = Callable[[Tensor], Tensor]
"""A forward on the device: uint8 images `[rows, 3, S, S]`, or activations `[rows, ...]` behind a trunk, to a tensor.

The result is float32 features `[rows, D]`, or activations.
"""


class Device(Protocol):
    """A device that runs the image tower. All calls come from one thread, in inference mode."""

    @property
    def where(self) -> torch.device:
        """The torch device of tensors."""

    @property
    def has_bfloat16(self) -> bool:
        """True if it has instructions for bfloat16; torch's own answer counts emulation, as on T4."""

    @property
    def auto_format(self) -> torch.dtype:
        """The number format of the setting `auto`: the fastest here, by a rule and not by a stopwatch.

        A busy moment at the start must not change the numbers, or a replay would differ.
        """

    @property
    def numerics(self) -> str:
        """The properties of the device that decide the bits of a forward; part of the model fingerprint."""

    def stage(self, images: Sequence[Tensor], rows: int) -> Tensor:
        """Return uint8 images `[n_i, 3, S, S]` on the CPU, together at most `rows`, as `[rows, 3, S, S]` on the device.

        Missing rows are zeros. The caller may change `images` at once. The result is valid for work that is enqueued
        before the next call of `stage`.
        """

    def upload(self, numbers: Tensor) -> Tensor:
        """Return integers `[N]` on the device; it waits for no work that is enqueued."""

    def capture(self, forward: Forward, chunk: Tensor) -> Forward:
        """Return the same forward, cheaper to launch, for chunks of the shape of `chunk`.

        Tensors that `forward` reads beside its argument must keep their memory, and may change in place. A result is
        valid for work that is enqueued before the next call of any captured forward.
        """

    def fetch(self, parts: Sequence[Tensor]) -> Tensor:
        """Return tensors `[n_i, C]` on the device as one `[N, C]` on the CPU; it waits for all enqueued work."""

    def guarded(self) -> AbstractContextManager[None]:
        """Return a context that raises failures of the device as DeviceError; out-of-memory errors keep their type."""

    def free(self) -> None:
        """Return unused memory, so that the next allocation can have it."""


class Plain:
    """A device without queues of its own: the CPU."""

    def __init__(self, where: torch.device) -> None:
        self.where = where
        self.numerics = where.type
        # torch 2.10 does not report them: there, the precision `auto` is fp32.
        has: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        self.has_bfloat16 = any(has.get(name) for name in _BFLOAT16)
        self.auto_format = processor_format(vendor(), {name for name in _BFLOAT16 if has.get(name)})

    @override
    def __str__(self) -> str:
        return str(self.where)

    def stage(self, images: Sequence[Tensor], rows: int) -> Tensor:
        """See `Device`."""
        chunk = torch.empty(rows, *images[0].shape[1:], dtype=torch.uint8)
        fill(chunk, images)
        return chunk.to(self.where)

    def upload(self, numbers: Tensor) -> Tensor:
        """See `Device`."""
        return numbers.to(self.where)

    def capture(self, forward: Forward, chunk: Tensor) -> Forward:
        """See `Device`."""
        del chunk
        return forward

    def fetch(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Device`."""
        return torch.cat(list(parts)).cpu()

    def guarded(self) -> AbstractContextManager[None]:
        """See `Device`."""
        return nullcontext()

    def free(self) -> None:
        """See `Device`."""


_BFLOAT16 = ("avx512_bf16", "amx_bf16")


def processor_format(vendor: str, has: Collection[str]) -> torch.dtype:
    """Return the faster number format for forwards on a processor.

    That is bfloat16 with AMX. With avx512_bf16 alone it is twice as fast as float32 on AMD's processors (Zen 4), and
    slower than float32 on Intel's (docs/decisions/device.md). Without either, bfloat16 is emulated.

    Args:
        vendor: as /proc/cpuinfo names it; "" if it is not known. An unknown vendor counts as AMD does.
        has: the instructions for bfloat16 that the processor has, of "avx512_bf16" and "amx_bf16".
    """
    is_fast = "amx_bf16" in has or ("avx512_bf16" in has and vendor != "GenuineIntel")
    return torch.bfloat16 if is_fast else torch.float32


def fill(chunk: Tensor, images: Iterable[Tensor]) -> None:
    """Write the images into the first rows of `chunk` and zeros into the others."""
    filled = 0
    for part in images:
        chunk[filled : filled + len(part)] = part
        filled += len(part)
    chunk[filled:] = 0


def chunks(images: Sequence[Tensor], rows: int) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield the images in chunks of at most `rows`, as (number of images, views); no chunk is empty."""
    chunk: list[Tensor] = []
    filled = 0
    for part in images:
        while len(part):
            taken = part[: rows - filled]
            chunk.append(taken)
            filled += len(taken)
            part = part[len(taken) :]
            if filled == rows:
                yield filled, chunk
                chunk, filled = [], 0
    if filled:
        yield filled, chunk


def tokens_of(tower: nn.Module) -> int:
    """Return the tokens of an image in the tower: patches and class token of a ViT; 196 if the tower does not say."""
    embedding = getattr(tower, "positional_embedding", None)
    return int(embedding.shape[0]) if isinstance(embedding, Tensor) and embedding.ndim == 2 else 196


def numerics() -> str:
    """Return text that, if equal in two processes on CPUs, makes equal products equal bit by bit.

    It contains the number of threads: how many share a product may decide where its sums are split.
    """
    chosen = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETS_KERNELS)}
    model, flags = processor()
    parts = {
        "torch": torch.__version__,
        "open_clip": version("open_clip_torch"),
        "build": torch.__config__.show(),
        "processor": f"{platform.machine()} {model} {' '.join(sorted(flags))}",
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "environment": chosen,
    }
    return "\n".join(f"{name}: {value}" for name, value in parts.items())


def processor() -> tuple[str, set[str]]:
    """Return name and flags of the CPU, as far as the system reports them."""
    facts = _facts()
    return facts.get("model name", platform.processor()), set(facts.get("flags", "").split())


def vendor() -> str:
    """Return the vendor of the CPU, such as "GenuineIntel" or "AuthenticAMD"; "" where the system does not report it.

    Only Linux on x86 does.
    """
    return _facts().get("vendor_id", "")


def _facts() -> dict[str, str]:
    """Return what the system reports of its last CPU, by name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
