"""The protocol from a recording to its result: cut time, train up to each interval, and serve the next one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import structlog
import torch

from adawise.app.parts import exploration, shortlists
from adawise.app.prompts import read_lines
from adawise.card.advice import of_all_classes
from adawise.console import finite
from adawise.errors import ImagesUnusable, SettingsError
from adawise.labels.folders.read import is_recording
from adawise.labels.folders.samples import Samples
from adawise.settings import Settings
from adawise_lab.chronological.intervals import CameraTimes, Cut, PairTraining, Train, timeline
from adawise_lab.chronological.pace import BatchPace
from adawise_lab.chronological.result import ChronologicalResult, Setting, Training, result_of
from adawise_lab.chronological.served import Ids, Scene, ServedCameras, ServedCell, candidates, unpaired
from adawise_lab.chronological.trained import Trained, Trainer, alone
from adawise_lab.evaluate.result import RESULT
from adawise_lab.evaluate.show import can_write_page
from adawise_lab.labelled import log_skipped, open_samples

_log = structlog.get_logger("evaluate")
_LISTS = "scene.shortlists"


@dataclass(frozen=True, slots=True)
class ChronologicalRequest:
    """A request to run the protocol.

    Args:
        settings: theta_0, the recipe, how alpha is searched, and the scene.
        recording: the labelled recording.
        cut: how time is cut.
        train: what a model is trained on.
        keeps: cameras keep what they learned when the pair changes.
        pace: when batches end.
        cache: the folder of trainings and tables.
        output: the folder for page and result; None for none.
        command: the arguments that the page names.
    """

    settings: Settings
    recording: Path
    cut: Cut
    train: Train = "all"
    keeps: bool = False
    pace: BatchPace = field(default_factory=BatchPace)
    cache: Path = Path("runs/tables")
    output: Path | None = None
    command: Sequence[str] = ()


def run_protocol(request: ChronologicalRequest) -> ChronologicalResult:
    """Run the protocol, and write the result to a folder if one is named.

    Raises:
        SettingsError: the request cannot be met.
        TrainingStopped: a training was stopped before its end.
        TrainingError: as of `finetune`.
    """
    if request.output is not None:
        _check(request.output)
    samples = _samples(request.settings, request.recording)
    times = times_of(samples, request.cut)
    cache = request.cache / "chronological"
    with alone(cache):
        return _run_alone(request, samples, times, cache)


def _run_alone(request: ChronologicalRequest, samples: Samples, times: CameraTimes, cache: Path) -> ChronologicalResult:
    trainer = Trainer.of(request.settings, samples, cache)
    scene, search = request.settings.scene, request.settings.search
    listed = shortlists(scene, trainer.classes)
    if any(shortlist for _, shortlist in listed.rules) and (why := of_all_classes(search.objective, None, _LISTS)):
        raise SettingsError(why)  # before anything is trained
    cameras = ServedCameras(
        candidates(search.objective, search.alpha, exploration(search)),
        Scene(scene.has_prior, scene.smooths),
        request.keeps,
        request.pace,
        listed,
    )
    cells, trainings, alphas = _run(trainer, times, cameras, request.train)
    if not cells:
        raise SettingsError(
            "--images: no image of an interval after a training can be decoded. Name another recording."
        )
    setting = Setting(
        cameras=times.cameras,
        edges_us=times.edges_us,
        images=tuple(times.images(k) for k in range(times.intervals)),
        alphas=alphas or (0.0, 1.0),  # where theta_0 alone served
        train=request.train,
        keeps=request.keeps,
        scene="prior and smoothing" if scene.smooths else "prior" if scene.has_prior else "off",
        trainings=tuple(trainings),
        without_time=times.without_time,
        pace=request.pace.name,
        shortlists={
            name: len(shortlist.columns) for name in times.cameras if (shortlist := listed.of(name)) is not None
        },
        classes=len(trainer.classes),
    )
    result = result_of(cells, setting)
    if request.output is not None:
        _write(request.output, result, request.command)
    return result


def _samples(settings: Settings, place: Path) -> Samples:
    if not is_recording(place):
        raise SettingsError(
            f"--images {place}: expected a recording, whose images have cameras and times. Make one of a topic with "
            "labels with `adawise record`, and name its folder."
        )
    named = settings.model.classes
    known = None if named is None else read_lines(named, "model.classes", "class name")
    samples = open_samples(settings.decode, place, "--images", known)
    if samples.left_out:
        log_skipped(str(place), {samples.names[i]: why for i, why in samples.left_out.items()})
    if len(samples.classes) < 2:
        raise SettingsError(
            f"--images {place}: all labelled images are of {samples.classes[0]!r}: there is nothing to distinguish."
        )
    return samples


def times_of(samples: Samples, cut: Cut) -> CameraTimes:
    """Return the images of a recording by camera and interval: by the time that they were captured, else came.

    Raises:
        SettingsError: as of `timeline`.
    """
    assert samples.taken is not None  # of a recording they are known
    assert samples.captured_us is not None
    broker = [None if taken.at_ms < 0 else 1000 * taken.at_ms for taken in samples.taken]
    at_us = [at if at is not None else came for at, came in zip(samples.captured_us, broker, strict=True)]
    return timeline([taken.camera for taken in samples.taken], at_us, samples.usable, cut)


def _run(
    trainer: Trainer, times: CameraTimes, cameras: ServedCameras, train: Train
) -> tuple[list[ServedCell], list[Training], tuple[float, ...]]:
    """Return the cells that were served, the trainings, and the grid of alphas."""
    cells: list[ServedCell] = []
    made: list[tuple[PairTraining, Trained]] = []
    alphas: tuple[float, ...] = ()
    trainings = times.trainings(train)
    for number, training in enumerate(trainings, 1):
        name = "all" if training.camera is None else times.cameras[training.camera]
        # No bar over all of them: a terminal shows one at a time, and each training has its own.
        _log.info(
            "training_of_protocol_began", number=number, of=len(trainings), camera=name, until=training.interval + 1
        )
        rows = times.until(training.interval, training.camera)
        trained = trainer.train(rows, f"{name}-{training.interval + 1:03d}")
        made.append((training, trained))
        if trained.settings is not None:
            served, grid = _served(trainer, times, cameras, training, trained)
            cells, alphas = cells + served, grid or alphas
    cells += _without_pair(trainer, times, made, cameras)
    return cells, [_named(times, training, trained) for training, trained in made], alphas


def _served(
    trainer: Trainer, times: CameraTimes, cameras: ServedCameras, training: PairTraining, trained: Trained
) -> tuple[list[ServedCell], tuple[float, ...]]:
    """Return what a pair serves in the interval after its training, and the grid of alphas; nothing if it has none."""
    tested = _tested(times, [training])
    try:
        # The table may be large: it is gone before the next training.
        table, kept, card = trainer.table(trained, _in_order(tested))
    except ImagesUnusable as error:
        _log.warning("interval_left_out", interval=training.interval + 2, error=str(error))
        return [], ()
    named = [(c, times.cameras[c], ids) for c, _, ids in _in_table(tested, kept)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the batches of a search are too small for more
    try:
        at_us = np.array([times.at_us[i] for i in kept], dtype=np.int64)
        return cameras.serve(trained.name, table, card, training.interval + 1, named, at_us), table.alphas
    finally:
        torch.set_num_threads(threads)


def _without_pair(
    trainer: Trainer, times: CameraTimes, made: Sequence[tuple[PairTraining, Trained]], cameras: ServedCameras
) -> list[ServedCell]:
    """Return what theta_0 alone serves, in the trainings of which no pair came.

    Raises:
        SettingsError: no pair came of any training.
    """
    pair = next((trained for _, trained in made if trained.settings is not None), None)
    if pair is None:
        whys = "; ".join(dict.fromkeys(trained.why for _, trained in made))
        first, last = _date(times.edges_us[0]), _date(times.edges_us[-1])
        raise SettingsError(
            f"--images: no pair could be trained on any interval ({whys}). The images are from {first} to {last}: see "
            "whether a clock was wrong, name longer or fewer --intervals, a longer recording, or --train all."
        )
    tested = _tested(times, [training for training, trained in made if trained.settings is None])
    if not tested:
        return []
    try:
        table, kept = trainer.zero_shot(pair, _in_order(tested))
    except ImagesUnusable as error:
        _log.warning("interval_left_out", interval="those without a pair", error=str(error))
        return []
    return [
        cell
        for c, k, ids in _in_table(tested, kept)
        for cell in unpaired(table, k, [(c, ids, cameras.shortlists.of(times.cameras[c]))], cameras.scene)
    ]


def _tested(times: CameraTimes, trainings: Sequence[PairTraining]) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return camera, interval and images of all cells that some trainings test."""
    return [
        (c, training.interval + 1, times.rows[c, training.interval + 1])
        for training in trainings
        for c in training.tested
    ]


def _in_order(cells: Sequence[tuple[int, int, Sequence[int]]]) -> list[int]:
    """Return the images of cells in the order of the recording, in which they are read fastest."""
    return sorted(i for _, _, own in cells for i in own)


def _in_table(rows: Sequence[tuple[int, int, Sequence[int]]], kept: Sequence[int]) -> list[tuple[int, int, Ids]]:
    """Return the same cells with rows of a table that has the images `kept`; cells without any are left out."""
    place = {i: row for row, i in enumerate(kept)}
    found = [(c, k, np.array([place[i] for i in own if i in place], dtype=np.int64)) for c, k, own in rows]
    return [cell for cell in found if len(cell[2])]


def _named(times: CameraTimes, training: PairTraining, trained: Trained) -> Training:
    camera = None if training.camera is None else times.cameras[training.camera]
    return Training(training.interval, camera, trained.name, trained.images, trained.settings is not None, trained.why)


def _date(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%d}"


def _check(folder: Path) -> None:
    """Create the folder of the result, before anything is trained.

    Raises:
        SettingsError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _not_written(folder, error) from error


def _not_written(folder: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"-o {folder}: the result cannot be written ({error.strerror or error}). Name a folder that can be written."
    )


def _write(folder: Path, result: ChronologicalResult, command: Sequence[str]) -> None:
    """Write result.json and page.html.

    Raises:
        SettingsError: the folder cannot be created or written.
    """
    try:
        text = json.dumps(finite(result.as_json()), indent=1, allow_nan=False)
        (folder / RESULT).write_text(text + "\n", encoding="utf-8")
        if can_write_page(folder, "page.html"):
            from adawise_lab.chronological.page import PAGE, page

            now = datetime.now(UTC).isoformat(timespec="seconds")
            (folder / PAGE).write_text(page(result, command, created_at=now), encoding="utf-8")
    except OSError as error:
        raise _not_written(folder, error) from error
