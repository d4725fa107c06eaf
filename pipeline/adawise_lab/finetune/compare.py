"""The comparison of how many blocks are trained: a run of fine-tuning for each number, with otherwise equal settings.

Each run has a folder of its own, as `finetune` would make it, and is resumed there. What comes of them is in
`comparison`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from adawise.clip.load import stated_blocks
from adawise.errors import DivergedError, SettingsError, TrainingError
from adawise.settings import FinetuneSettings
from adawise_lab.evaluate.served import ServedImages, read_served
from adawise_lab.evaluate.show import can_write_page
from adawise_lab.finetune.comparison import PAGE, RESULT, BlocksComparison, BlocksRun, choose
from adawise_lab.finetune.finetune import Finetuned, FinetuneRequest, finetune
from adawise_lab.finetune.folder import Folder, write_bytes
from adawise_lab.finetune.learner import image_blocks
from adawise_lab.finetune.training import starting_model

BLOCKS = (None, 8, 6, 4, 2)
"""The numbers of blocks that are compared; None: all, and what comes before them."""

_log = structlog.get_logger("finetune")


def compare_blocks(request: FinetuneRequest) -> BlocksComparison | None:
    """Run the fine-tuning of a request for each number of blocks, below its folder. Return None if it was stopped.

    Raises:
        SettingsError: the settings name a number of blocks, the tower has too few, or as of `finetune`.
        TrainingError: as of `finetune`; a run that diverges is listed, and the others go on.
    """
    numbers = _numbers(request)
    _check_folders(request, numbers)
    request.output.mkdir(parents=True, exist_ok=True)
    seconds = _seconds(request.output) if request.resume else {}
    runs, held_out = list[BlocksRun](), 0
    whole: ServedImages | None = None  # of the run that trains all blocks, the first one
    for blocks in numbers:
        name = folder_name(blocks)
        _log.info("run_of_comparison_began", blocks=blocks, folder=name)
        failed, made = "", None
        if request.resume or blocks is not numbers[0]:
            request = _at_rate_of(request, numbers)
        with _timed(_request(request, blocks), seconds) as of_run:
            try:
                made = finetune(of_run)
            except DivergedError as error:
                failed = str(error)
        minutes = seconds[name] / 60.0 if name in seconds else None
        if failed:
            runs.append(BlocksRun(blocks, name, minutes=minutes, failed=failed))
            continue
        if made is None:
            return None
        held_out = made.record["images"]["held_out"]
        served = _served(made)
        whole = served if blocks is None else whole
        over = served.over(whole) if served is not None and whole is not None and blocks is not None else None
        runs.append(replace(_run(blocks, made, minutes), versus_all=over))
    comparison = BlocksComparison(tuple(runs), *choose(runs), held_out, request.output)
    content = {**comparison.as_json(), "seconds": seconds}
    write_bytes(request.output / RESULT, json.dumps(content, indent=1).encode())
    if can_write_page(request.output, PAGE):
        from adawise_lab.finetune.compare_page import page

        write_bytes(request.output / PAGE, page(comparison, request.command).encode())
    return comparison


def folder_name(blocks: int | None) -> str:
    """Return the name of a run's folder."""
    return "all" if blocks is None else f"blocks-{blocks}"


def _numbers(request: FinetuneRequest) -> Sequence[int | None]:
    settings = request.settings
    if settings.finetune.blocks != "auto":
        raise SettingsError(
            f"finetune.blocks is {settings.finetune.blocks}, and --compare-blocks trains several numbers of blocks: "
            "leave one of them out"
        )
    model = settings.model
    assert model.theta_0 is not None  # the command line has checked it
    there = stated_blocks(model.architecture, model.theta_0)
    if there is None:
        there = image_blocks(name for name, _ in starting_model(settings).model.named_parameters())
    numbers = [blocks for blocks in BLOCKS if blocks is None or blocks < there]
    if len(numbers) < 2:
        raise SettingsError(
            f"--compare-blocks: {there} blocks are recognised in this image tower, expected 3 or more. Use "
            "--finetune.blocks all instead, which trains all layers"
        )
    return numbers


def _check_folders(request: FinetuneRequest, numbers: Sequence[int | None]) -> None:
    """Raise SettingsError before the first run if one of the folders is in use, or there is nothing to resume."""
    Folder(request.output).check(resume=False, overwrite=True)  # it is no file
    folders = [Folder(request.output / folder_name(blocks)) for blocks in numbers]
    if request.resume and not any(map(_can_resume, folders)):
        raise SettingsError(
            f"--output {request.output}: there is no run of a comparison to resume. Leave --resume out to start one."
        )
    for folder in folders if not request.resume else ():
        folder.check(resume=False, overwrite=request.overwrite)


def _at_rate_of(request: FinetuneRequest, numbers: Sequence[int | None]) -> FinetuneRequest:
    """Return the request with the learning rate of the runs that were begun, where it is `auto`: runs have one rate.

    What `auto` means depends on the epochs, and on the version.
    """
    if request.settings.finetune.learning_rate != "auto":
        return request
    for blocks in numbers:
        folder = Folder(request.output / folder_name(blocks))
        recorded = folder.recorded() or folder.rejected.recorded()
        with suppress(KeyError, ValueError):  # there is no such run, or resuming it names what is damaged
            recipe = request.settings.finetune.model_dump() | {"learning_rate": recorded["finetune.learning_rate"]}
            settings = request.settings.model_copy(update={"finetune": FinetuneSettings.model_validate(recipe)})
            return replace(request, settings=settings)
    return request


def _clear(output: Path) -> None:
    """Remove what an earlier comparison left.

    If only the runs that are reached replaced theirs, --resume would go on with runs of both comparisons.
    """
    for blocks in BLOCKS:
        Folder(output / folder_name(blocks)).clear()
    for name in (RESULT, PAGE):
        (output / name).unlink(missing_ok=True)


def _can_resume(folder: Folder) -> bool:
    return folder.checkpoint.exists() or folder.record.exists() or folder.rejected.record.exists()


def _request(request: FinetuneRequest, blocks: int | None) -> FinetuneRequest:
    """Return the request of one run. A run of which a kill left nothing to resume is started anew."""
    folder = Folder(request.output / folder_name(blocks))
    recipe = request.settings.finetune.model_copy(update={"blocks": blocks or "all"})
    resume = request.resume and (folder.checkpoint.exists() or folder.record.exists())
    return replace(
        request,
        settings=request.settings.model_copy(update={"finetune": recipe}),
        output=folder.path,
        resume=resume,
        overwrite=request.overwrite or (request.resume and not resume),
        begins=partial(_clear, request.output) if request.overwrite and blocks is BLOCKS[0] else None,
    )


@contextmanager
def _timed(request: FinetuneRequest, seconds: dict[str, float]) -> Iterator[FinetuneRequest]:
    """Yield the request, and add the time of the block to that of its run, which is kept in a file.

    Nothing is added to a run that had ended before, or if an error comes before a new run begins. The time of a run
    that is started anew replaces that of the one before it.
    """
    folder, name, has_begun = Folder(request.output), request.output.name, request.resume
    if not request.resume:
        seconds.pop(name, None)
    # A run that is made anew removes the one before it.
    ending, began = _ending(folder) if request.resume else None, time.monotonic()

    def begins() -> None:
        nonlocal has_begun
        has_begun = True
        if request.begins is not None:
            request.begins()

    def note() -> None:
        now = _ending(folder)
        if now is not None and now == ending:
            return
        if ending is None or name in seconds:
            seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began
        write_bytes(folder.path.parent / RESULT, json.dumps({"seconds": seconds}, indent=1).encode())

    try:
        yield replace(request, begins=begins)
    except SettingsError:  # a mistake in the command, most likely: what an earlier comparison left stays
        raise
    except BaseException:
        if has_begun:
            with suppress(TrainingError):  # there may be no room, which the error of the run says
                note()
        raise
    note()


def _ending(folder: Folder) -> int | None:
    """Return when the record of a run that ended was written, in nanoseconds; None if there is no such run."""
    if folder.checkpoint.exists() or not folder.record.exists():
        return None
    return folder.record.stat().st_mtime_ns


def _seconds(output: Path) -> dict[str, float]:
    """Return the time that each run has taken so far, by its folder's name; nothing if that is not known."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        known = json.loads((output / RESULT).read_text(encoding="utf-8"))["seconds"]
        return {str(name): float(value) for name, value in known.items()}
    return {}


def _run(blocks: int | None, made: Finetuned, minutes: float | None) -> BlocksRun:
    record = made.record
    run = BlocksRun(
        blocks,
        folder_name(blocks),
        theta_1=record["best"]["accuracy"],
        tail_share=record.get("tail_share", 1.0) if made.rejected is None else None,
        minutes=minutes,
        failed="" if made.rejected is None else f"the pair must not serve: {record['ruin']}",
    )
    if (verdict := record.get("verdict")) is None:
        return run
    alpha = verdict["recommended"]["alpha"]
    column = "adapted" if alpha is None else "zero_shot" if alpha == 0.0 else "best_fixed"
    adapts = alpha is None
    return replace(
        run,
        served=verdict["recommended"]["served"],
        alpha=alpha,
        groups={group["group"]: group[column] for group in verdict["groups"]},
        fe=verdict.get("fe") if adapts else 1.0,
        forward_cost=verdict.get("forward_cost") if adapts else 1.0,
    )


def _served(made: Finetuned) -> ServedImages | None:
    """Return what each image of the verdict was served; None if there is no verdict, or it was not kept."""
    if made.rejected is not None:
        return None
    return read_served(made.folder.served, made.record["theta_1"]["hash"])
