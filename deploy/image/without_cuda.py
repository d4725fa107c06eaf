"""Remove CUDA's libraries from an environment that runs on a processor. Called while the image is built.

The package index has PyTorch for Linux with CUDA only, and its libraries are linked to some of NVIDIA's: without these
`import torch` fails. The others are loaded on a card alone. So a process does what a worker does, and whatever of
NVIDIA's it did not map goes, with Triton, which writes programs for cards. Then the same has to work again. Of
PyTorch's own build for the processor nothing is removed. Standard library only.

    without_cuda.py /opt/adawise/bin/python
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

WORK = """
import site, sys
import torch, torchvision, open_clip, botorch, gpytorch
from adawise.app import worker
image = torch.rand(2, 3, 32, 32, requires_grad=True)
torch.nn.Conv2d(3, 8, 3)(image).float().softmax(1).sum().backward()
torch.linalg.eigh(torch.eye(4, dtype=torch.double))
assert not torch.cuda.is_available()
print(site.getsitepackages()[0])
print(*{line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/" in line}, sep="\\n")
"""


def main(python: str) -> None:
    """Remove, and prove that it works without."""
    packages, *lines = _work(python)
    mapped = {Path(line).resolve() for line in lines}
    freed = 0
    for path in sorted(Path(packages, "nvidia").rglob("*")):
        if path.is_file() and path.resolve() not in mapped:
            freed += path.stat().st_size
            path.unlink()
    triton = Path(packages, "triton")
    freed += sum(path.stat().st_size for path in triton.rglob("*") if path.is_file())
    shutil.rmtree(triton, ignore_errors=True)
    _work(python)
    print(f"removed {freed / 1e6:.0f} MB that only a card would load")


def _work(python: str) -> list[str]:
    return subprocess.run([python, "-c", WORK], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


if __name__ == "__main__":
    main(*sys.argv[1:])
