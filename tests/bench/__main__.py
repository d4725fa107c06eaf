"""`make bench`: every benchmark, or those that are named; ratios against a bare forward pass, and the machine."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from tests.bench import (
    card_page,
    changes,
    commits,
    compact,
    decision,
    drift_read,
    forward,
    fuzz,
    host,
    kills,
    latency,
    recording,
    recovery,
    restart,
    soak,
    states,
    worker,
)

BENCHES = {
    "forward": forward.main,
    "decision": decision.main,
    "host": host.main,
    "commits": commits.main,
    "recovery": recovery.main,
    "compact": compact.main,
    "worker": worker.main,
    "kills": kills.main,
    "fuzz": fuzz.main,
    "latency": latency.main,
    "restart": restart.main,
    "states": states.main,
    "recording": recording.main,
    "changes": changes.main,
}


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor()
    flags: set[str] = set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    model = value.strip()
                if name.strip() == "flags":
                    flags = set(value.split())
    except OSError:
        pass
    wanted = sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {torch.get_num_threads()} threads, {' '.join(wanted)}, {card}, torch {torch.__version__}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(BENCHES)}, soak, drift_read, cards; none: all but these three",
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of soak; default: %(default)g")
    parser.add_argument("-o", "--output", type=Path, help="of cards: where the page goes; default: printed")
    arguments = parser.parse_args()
    benches: dict[str, Callable[[], object]] = {
        **BENCHES,
        "soak": partial(soak.main, arguments.minutes),
        "drift_read": drift_read.main,
        "cards": partial(card_page.main, arguments.output),
    }
    names = arguments.names or list(BENCHES)
    if unknown := set(names) - benches.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    print(f"# {machine()}")
    for name in names:
        print(f"\n## {name}")
        benches[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
