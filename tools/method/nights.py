"""Does a camera know its third night? The demo's cameras and pair, with three days one after the other.

    python -m tools.method.nights [--cameras 10] [--batches 24] [--seed 11001] [--conditions 16]

A day is clear, dusk, night and dawn; `batches` of 32 frames are a day. Told for each camera: alpha at the first batch
past half of each nightfall, alpha that the night settles at (the median of its second half), FE of each night, and how
many cameras are within one step of the grid on the third night.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np

from adawise.adapt.state import StreamState
from adawise.app.library import adapt_batch, load_pair
from adawise.demo.main import PAIR
from adawise.demo.scene import CLASSES, StreetCamera
from adawise.demo.script import CameraScript, Passage
from adawise.settings.tree import SearchSettings

BATCH, DAYS = 32, 3
_STEP = 0.05  # of the grid
_DAY = (("clear", 0.4, 0.1), ("dusk", 0.15, 0.7), ("night", 0.35, 0.3), ("dusk", 0.1, 0.7))


def days(camera_id: str, seed: int, frames: int) -> CameraScript:
    """Three of them."""
    passages = [Passage(condition, share / DAYS, fade) for _ in range(DAYS) for condition, share, fade in _DAY]
    return CameraScript(camera_id, seed, tuple(passages), frames)


def nights(script: CameraScript) -> list[range]:
    """The batches of each night: from the first one past half of nightfall to the last before half of dawn."""
    batches = script.frames // BATCH
    dark = [script.moment(BATCH * n).condition == "night" for n in range(batches)]
    falls = [n for n, (before, now) in enumerate(pairwise([False, *dark])) if now and not before]
    return [range(n, next((m for m in range(n, batches) if not dark[m]), batches)) for n in falls]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.nights", description=main.__doc__)
    parser.add_argument("--cameras", type=int, default=10)
    parser.add_argument("--batches", type=int, default=24, help="a day")
    parser.add_argument("--seed", type=int, default=11_001, help="of the first camera")
    parser.add_argument("--conditions", type=int, default=16, help="that a stream remembers")
    arguments = parser.parse_args()
    pair = load_pair(
        theta_0=f"local-dir:{PAIR / 'theta_0'}",
        theta_1=f"local-dir:{PAIR / 'theta_1'}",
        classes=CLASSES,
        templates=(PAIR / "templates.txt").read_text().splitlines(),
        device="cpu",
        precision="fp32",
    )
    search = SearchSettings(conditions=arguments.conditions)
    near = []
    headers = ["camera", *(f"night {n + 1}: first, settled, FE" for n in range(DAYS)), "accuracy"]
    print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}")
    for seed in range(arguments.seed, arguments.seed + arguments.cameras):
        script = days(f"camera-{seed}", seed, DAYS * arguments.batches * BATCH)
        camera = StreetCamera(script.camera_id, seed, runs=True)
        state: StreamState | None = None
        alphas, forwards, right = [], [], []
        for first in range(0, script.frames, BATCH):
            shown = [camera.jpeg(number, script.moment(number).weather) for number in range(first, first + BATCH)]
            step = adapt_batch(pair, [jpeg for jpeg, _ in shown], state, search=search)
            state = step.state
            alphas.append(step.alpha)
            forwards.append(step.forward_equivalents)
            right.append(np.mean([label == output for label, (_, output) in zip(step.labels, shown, strict=True)]))
        cells = []
        for night in nights(script):
            settled = float(np.median([alphas[n] for n in night[len(night) // 2 :]]))
            cells.append(f"{alphas[night[0]]:.2f}, {settled:.2f}, {np.mean([forwards[n] for n in night]):.2f}")
            is_near = abs(alphas[night[0]] - settled) <= _STEP + 1e-9
        near.append(is_near)
        print(f"| {script.camera_id} | {' | '.join(cells)} | {np.mean(right):.3f} |", flush=True)
    print(f"\nwithin one step of what the third night settles at: {sum(near)} of {len(near)}")


if __name__ == "__main__":
    main()
