"""`make bench`: `adawise bench` on a ViT-B-32 pair; `--all` or names: the benches of this repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from adawise.clip.device import processor
from tools.bench import (
    cameras,
    card_page,
    changes,
    chunks,
    commits,
    compact,
    decision,
    drift_page,
    drift_read,
    estimates,
    events,
    finetune,
    gpu,
    host,
    http,
    kills,
    latency,
    names,
    neighbours,
    nights,
    pairs,
    pixels,
    recording,
    recovery,
    restart,
    results,
    scene,
    shards,
    soak,
    spans,
    spread,
    start,
    states,
    status,
    streams,
    together,
    trunk,
    worker,
)

BENCHES = {
    "decision": decision.main,
    "drift_page": drift_page.main,
    "host": host.main,
    "http": http.main,
    "pixels": pixels.main,
    "chunks": chunks.main,
    "commits": commits.main,
    "recovery": recovery.main,
    "compact": compact.main,
    "kills": kills.main,
    "latency": latency.main,
    "results": results.main,
    "neighbours": neighbours.main,
    "pairs": pairs.main,
    "restart": restart.main,
    "scene": scene.main,
    "shards": shards.main,
    "start": start.main,
    "states": states.main,
    "spans": spans.main,
    "spread": spread.main,
    "status": status.main,
    "streams": streams.main,
    "names": names.main,
    "recording": recording.main,
    "changes": changes.main,
    "estimates": estimates.main,
    "events": events.main,
    "finetune": finetune.main,
    "nights": nights.main,
    "together": together.main,
    "trunk": trunk.main,
}


def machine() -> str:
    """What the figures were measured on."""
    model, flags = processor()
    wanted = sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {torch.get_num_threads()} threads, {' '.join(wanted)}, {card}, torch {torch.__version__}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(BENCHES)}, worker, soak, drift_read, cameras, cards, gpu; none: worker",
    )
    parser.add_argument("--all", action="store_true", help="all but soak, drift_read, cameras, cards and gpu")
    parser.add_argument("--seconds", type=float, default=270.0, help="of worker; default: %(default)g")
    parser.add_argument("--json", action="store_true", help="of worker, alone: its document")
    parser.add_argument("--minutes", type=float, default=60.0, help="of soak; default: %(default)g")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="of cards and gpu: where the page goes, for gpu a folder, too; none: printed",
    )
    parser.add_argument(
        "--cameras", nargs="+", type=int, default=[1_000, 5_000], help="of cameras; default: %(default)s"
    )
    parser.add_argument(
        "--eager", action="store_true", help="of cameras: everything is decoded as it comes, as before 0.3"
    )
    parser.add_argument(
        "--architectures", nargs="+", default=["ViT-B-32"], help="of gpu: open_clip's names; default: %(default)s"
    )
    arguments = parser.parse_args()
    given = [f"--seconds={arguments.seconds}", *(["--json"] if arguments.json else [])]
    benches: dict[str, Callable[[], object]] = {
        "worker": partial(worker.main, given),
        **BENCHES,
        "soak": partial(soak.main, arguments.minutes),
        "drift_read": drift_read.main,
        "cameras": partial(cameras.main, arguments.cameras, holds=not arguments.eager),
        "cards": partial(card_page.main, arguments.output),
        "gpu": partial(gpu.main, arguments.output, arguments.architectures),
    }
    chosen = arguments.names or (["worker", *BENCHES] if arguments.all else ["worker"])
    if unknown := set(chosen) - benches.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if chosen == ["worker"]:
        return worker.main(given)  # nothing else is printed: a program may read the document
    print(f"# {machine()}")
    codes = []
    for name in chosen:
        print(f"\n## {name}")
        codes.append(benches[name]())
    return max((code for code in codes if isinstance(code, int)), default=0)


if __name__ == "__main__":
    sys.exit(main())
