"""Where the bench of a card runs: the card, or the processor in its place. All that CUDA alone has is here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from adawise.app.model import number_format, open_device
from adawise.clip.device import Device, processor
from adawise.settings import ModelSettings

_CASE_BLOCKS = (3, 15)  # the least and the most of a figure's repeats
_BLOCK_S = 0.02


@dataclass(frozen=True)
class Place:
    """A device, and how long a figure may take to measure, in seconds."""

    where: torch.device
    case_s: float = 0.4

    @property
    def is_card(self) -> bool:
        """Whether it has queues to wait for."""
        return self.where.type == "cuda"

    def open(self, precision: str, *, graphs: bool = True) -> Device:
        """As the worker does."""
        settings = ModelSettings(device=str(self.where), precision=precision, cuda_graphs=graphs)  # type: ignore[arg-type]
        return open_device(settings)

    def dtype(self, precision: str) -> torch.dtype:
        """The number format of a setting of `model.precision`."""
        return number_format(ModelSettings(precision=precision), self.open("auto"))  # type: ignore[arg-type]

    def precisions(self) -> tuple[str, ...]:
        """Number formats that the place has instructions for."""
        if not self.is_card:
            return "fp32", "bf16"
        return ("bf16", "fp16", "fp32", "tf32") if self.open("auto").has_bfloat16 else ("fp16", "fp32")

    def wait(self) -> None:
        """Until all that was enqueued is over."""
        if self.is_card:
            torch.cuda.synchronize(self.where)

    def pinned(self, size: int) -> Tensor:
        """uint8 `[size]` on the processor, from which a card copies by itself."""
        return torch.zeros(size, dtype=torch.uint8, pin_memory=self.is_card)

    def reserved_mib(self) -> float | None:
        """Memory that torch holds on the card now."""
        return torch.cuda.memory_reserved(self.where) / 2**20 if self.is_card else None

    def seconds(self, run: Callable[[], object]) -> float:
        """Of one call: the median of blocks of calls, each waited for to its end; warm-up apart."""
        self._block(run, 1)
        once = self._block(run, 1)
        calls = max(1, min(200, int(_BLOCK_S / once)))
        least, most = _CASE_BLOCKS
        blocks = max(least, min(most, int(self.case_s / (calls * once))))
        return median(self._block(run, calls) for _ in range(blocks)) / calls

    def _block(self, run: Callable[[], object], calls: int) -> float:
        self.wait()
        started = time.perf_counter()
        for _ in range(calls):
            run()
        self.wait()
        return time.perf_counter() - started

    def facts(self) -> dict[str, str]:
        """What the figures belong to."""
        model, _ = processor()
        facts = {
            "host": f"{model}, {len(os.sched_getaffinity(0))} cores",
            "torch": torch.__version__,
            "CUDA of torch": str(torch.version.cuda),
        }
        if not self.is_card:
            return {"card": "none: the processor in its place", **facts}
        card, (free, _) = card_of(self.where), torch.cuda.mem_get_info(self.where)
        return {
            "card": card.name,
            "compute capability": f"{card.major}.{card.minor}",
            "multiprocessors": str(card.multi_processor_count),
            "memory": f"{card.total_memory / 2**30:.1f} GiB, {free / 2**30:.1f} free at the start",
            "driver": driver(),
            **facts,
            "cuDNN": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }


def card_of(where: torch.device) -> torch._C._CudaDeviceProperties:
    """What torch says of a card."""
    return torch.cuda.get_device_properties(where)


def why_no_card() -> str | None:
    """A sentence that says why there is nothing to measure, or None if torch has a card."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA."
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"torch says: {str(error).strip().splitlines()[0].rstrip('.')}."
    return f"torch sees {torch.cuda.device_count()} CUDA devices."


def driver() -> str:
    """Version of the card's driver: nvidia-smi's word, or the kernel's."""
    try:
        arguments = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=True)
        return answer.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        pass
    try:
        return Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return "unknown: no nvidia-smi"
