"""Negative controls as pictures: does the search stay calm where they change, and nothing does that alpha follows?

    python -m tools.method.controls [--cameras 3] [--batches 48]
    python -m tools.method.controls --photographs FILE --pair FOLDER [--templates FILE] [--cameras 3] [--batches 48]

The cameras of `adawise demo --scenes controls` with other seeds, or photographs (a Parquet file with `image` and
`label`, and `class_names` in its footer) that are drawn at random for each frame and changed likewise: exposure that
jumps, slow light, single odd frames, a camera that pans (over three parts of the picture). Each is run with the control
and without it, by `warm` and by `warm` without pixels, memory, drift and alarm; batches have 32 images.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image

from adawise.adapt.strategies.warm import WarmSearch
from adawise.app.library import load_pair
from adawise.app.model import ModelPair, method
from adawise.decode.statistics import statistics
from adawise.demo.main import PAIR
from adawise.demo.scene import CLASSES, StreetCamera
from adawise.demo.script import CAMERAS_OF, CameraScript, Control
from adawise.records import Frame, ImageBatch, RowId
from adawise.settings.tree import SearchSettings
from adawise.worker.adaptation import Adaptation
from adawise_lab.evaluate.corrupt import corrupt, parse

BATCH = 32
_SEED = 11_101
_ODD = ("gaussian_noise", "defocus_blur", "fog", "contrast")  # of photographs
_WIDTH = 0.7  # of a picture that a camera which pans sees of it

Shown = Callable[[CameraScript, int], tuple[Image.Image, str]]  # frame of a camera: picture, label


@dataclass(frozen=True)
class Photographs:
    """Encoded pictures, their labels' indices, and the names of the classes."""

    images: list[bytes]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> Photographs:
        """Of such a file."""
        table = pq.read_table(file)
        names = json.loads((table.schema.metadata or {})[b"class_names"])
        return cls(table["image"].to_pylist(), table["label"].to_numpy().astype(np.int64), tuple(names))

    def shown(self, camera: CameraScript, number: int) -> tuple[Image.Image, str]:
        """One at random, changed as the camera's control changes frame `number`."""
        at = int(np.random.default_rng((camera.seed, number)).integers(len(self.images)))
        with Image.open(io.BytesIO(self.images[at])) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        return Image.fromarray(_changed(pixels, camera, number)), self.classes[self.labels[at]]


def _changed(pixels: npt.NDArray[np.uint8], camera: CameraScript, number: int) -> npt.NDArray[np.uint8]:
    moment = camera.moment(number)
    if moment.condition != "clear":
        (corruption,) = parse(f"{_ODD[number % len(_ODD)]}:3")
        return corrupt(pixels, corruption, seed=number)
    if camera.control == "pan":
        width = pixels.shape[1]
        left = round(width * (1.0 - _WIDTH) * moment.view / 2)
        return np.ascontiguousarray(pixels[:, left : left + round(width * _WIDTH)])
    exposed: npt.NDArray[np.uint8] = (np.clip(pixels * moment.exposure, 0, 255) + 0.5).astype(np.uint8)
    return exposed


@functools.cache
def _street(seed: int) -> StreetCamera:
    return StreetCamera("", seed, runs=True)


def street(camera: CameraScript, number: int) -> tuple[Image.Image, str]:
    """A frame of the demo's."""
    moment = camera.moment(number)
    jpeg, label = _street(camera.seed).jpeg(number, moment.weather, moment.view)
    return Image.open(io.BytesIO(jpeg)).convert("RGB"), label


def batches(camera: CameraScript, shown: Shown, pair: ModelPair) -> Iterator[tuple[ImageBatch, list[str]]]:
    """Of all its frames, with their labels."""
    for first in range(0, camera.frames, BATCH):
        pictures, labels = zip(*(shown(camera, number) for number in range(first, first + BATCH)), strict=True)
        pixels = torch.stack([pair.checkpoints.preprocess(picture) for picture in pictures])
        frames = tuple(
            Frame(RowId("", 0, first + n, 0), -1, "", statistics=statistics(image.numpy()))
            for n, image in enumerate(pixels)
        )
        yield ImageBatch("", frames, pixels), list(labels)


def served(adaptation: Adaptation, seen: list[tuple[ImageBatch, list[str]]], classes: tuple[str, ...]) -> list[float]:
    """Accuracy, FE and conditions of a stream."""
    state, right, forwards = adaptation.strategy.initial(), [], []
    for batch, labels in seen:
        (adapted,) = adaptation.run([batch], [state])
        state = adapted.state
        right += [
            classes[best] == label for best, label in zip(adapted.predictions.top_index[:, 0], labels, strict=True)
        ]
        forwards.append(adapted.trace.forward_equivalents)
    return [float(np.mean(right)), float(np.mean(forwards)), float(state.memory.condition_count)]


def _adaptations(pair: ModelPair) -> dict[str, Adaptation]:
    adaptation = method(SearchSettings(strategy="warm"), pair, top_k=1)
    assert isinstance(adaptation.strategy, WarmSearch)
    plain = replace(adaptation.strategy.policy, pixels=False, conditions=0, drifting=0.0, alarm=False)
    return {"warm": adaptation, "without": replace(adaptation, strategy=replace(adaptation.strategy, policy=plain))}


def _cameras(count: int, frames: int, *, photographs: bool) -> Iterator[tuple[Control, CameraScript]]:
    of = {camera.control: camera for camera in CAMERAS_OF["controls"]}
    for place, control in enumerate(get_args(Control)):
        for k in range(count):
            camera = replace(of[control], seed=_SEED + count * place + k, frames=frames)
            passages = CAMERAS_OF["controls"][0].passages if photographs else camera.passages  # they have their own
            yield control, replace(camera, passages=passages)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.controls", description=main.__doc__)
    parser.add_argument("--cameras", type=int, default=3, help="of each control")
    parser.add_argument("--batches", type=int, default=48)
    parser.add_argument("--photographs", type=Path, help="Parquet file; none: the demo's scenes")
    parser.add_argument("--pair", type=Path, help="folder with theta0 and theta1, for photographs")
    parser.add_argument("--templates", type=Path, help="for photographs; none: those of `adawise config init`")
    arguments = parser.parse_args()
    if (arguments.photographs is None) != (arguments.pair is None):
        parser.error("--photographs and --pair: expected both or neither")
    prompts = {} if arguments.templates is None else {"templates": arguments.templates.read_text().splitlines()}
    if arguments.photographs is None:
        shown, classes = street, CLASSES
        ends = [f"local-dir:{PAIR / name}" for name in ("theta_0", "theta_1")]
        prompts = {"templates": (PAIR / "templates.txt").read_text().splitlines()}
    else:
        photographs = Photographs.read(arguments.photographs)
        shown, classes = photographs.shown, photographs.classes
        ends = [f"local-dir:{arguments.pair / name}" for name in ("theta0", "theta1")]
    pair = load_pair(theta_0=ends[0], theta_1=ends[1], classes=classes, device="cpu", precision="fp32", **prompts)
    adaptations = _adaptations(pair)
    found: dict[tuple[Control, bool], list[list[list[float]]]] = {}
    cameras = _cameras(arguments.cameras, arguments.batches * BATCH, photographs=arguments.photographs is not None)
    for control, camera in cameras:
        for is_on in (False, True):
            seen = list(batches(camera if is_on else replace(camera, control=None), shown, pair))
            found.setdefault((control, is_on), []).append([served(a, seen, classes) for a in adaptations.values()])
    headers = ["control", "", *(f"{name}: accuracy, FE, conditions" for name in adaptations), "FE more"]
    print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}")
    for (control, is_on), each in found.items():
        means = np.mean(each, axis=0)
        cells = [f"{accuracy:.3f} {forwards:.3f} {conditions:.1f}" for accuracy, forwards, conditions in means]
        more = means[0, 1] - means[1, 1]
        print(f"| {control} | {'on' if is_on else 'off'} | {' | '.join(cells)} | {more:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
