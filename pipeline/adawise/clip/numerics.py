"""The properties of this machine and its libraries that decide the bits of a matrix product."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

# Environment variables that choose kernels, by prefix.
_SETS_KERNELS = ("ATEN_", "DNNL_", "MKL_", "NVIDIA_", "ONEDNN_", "TORCH_")


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
