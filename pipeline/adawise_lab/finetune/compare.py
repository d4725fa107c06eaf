"""The comparison of how many blocks are trained: a run of fine-tuning for each number, with otherwise equal settings.

Each run has a folder of its own, as `finetune` would make it, and is resumed there. The comparison is a table of their
records and of the minutes that they took, with the number of blocks that it would choose. The choice is the user's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from rich.box import SIMPLE_HEAD
from rich.table import Table

from adawise.clip.load import stated_blocks
from adawise.console import paper, print_json
from adawise.errors import DivergedError, SettingsError, TrainingError
from adawise.settings import ModelSettings
from adawise.text import NOTHING, listed, points, points_between, shared_layers, small, three, two
from adawise_lab.evaluate.result import Difference
from adawise_lab.evaluate.served import ServedImages, read_served
from adawise_lab.evaluate.show import can_write_page
from adawise_lab.finetune.finetune import Finetuned, FinetuneRequest, finetune
from adawise_lab.finetune.folder import Folder, write_bytes
from adawise_lab.finetune.learner import image_blocks
from adawise_lab.finetune.report import settings_lines, within_points
from adawise_lab.finetune.training import starting_model

BLOCKS = (None, 8, 6, 4, 2)
"""The numbers of blocks that are compared; None: all, and what comes before them."""
RESULT, PAGE = "comparison.json", "comparison.html"
GROUPS = {"home": "known", "shifted": "known, shifted", "new": "unseen"}
"""Groups of conditions in a verdict, as they are called here."""
_LOSS = 0.005  # served accuracy: fewer blocks are preferred if they cost no more

_log = structlog.get_logger("finetune")


@dataclass(frozen=True)
class BlocksRun:
    """One run of a comparison.

    Attributes:
        blocks: how many blocks were trained; None: all.
        folder: the name of its folder.
        served: accuracy if the recommendation of the verdict is followed, mean over conditions; None without a verdict.
        alpha: the alpha that is recommended; None: adapting, or no verdict.
        groups: the same accuracy by group of conditions: `home`, `shifted` and `new`, as far as they were judged.
        theta_1: accuracy of theta_1 on held-out images.
        fe: evaluations over images; 1 for a fixed alpha, None without a verdict.
        forward_cost: the same in whole forwards.
        tail_share: what an image costs at a second alpha, as a share of a forward; None if the run failed.
        minutes: the time that the run took, in all sessions that ended in order; None if it was not recorded.
        failed: why the pair must not serve, or the training failed; "" if it did not.
        versus_all: `served` less that of the run that trains all blocks, on the same images. None for that run itself,
            and where one of both has no verdict, or was made by a version that did not keep what each image was served.
    """

    blocks: int | None
    folder: str
    served: float | None = None
    alpha: float | None = None
    groups: Mapping[str, float] | None = None
    theta_1: float | None = None
    fe: float | None = None
    forward_cost: float | None = None
    tail_share: float | None = None
    minutes: float | None = None
    failed: str = ""
    versus_all: Difference | None = None

    @property
    def name(self) -> str:
        """The number of blocks as a table has it."""
        return "all" if self.blocks is None else str(self.blocks)


@dataclass(frozen=True)
class BlocksComparison:
    """All runs, the one that would be chosen, and why; None if no pair was judged.

    `held_out` is the number of images that judge each run; 0 if every training failed.
    """

    runs: tuple[BlocksRun, ...]
    chosen: BlocksRun | None
    why: str
    held_out: int
    folder: Path

    @property
    def error(self) -> TrainingError | None:
        """The error that no pair may serve; None if one may."""
        if not all(run.failed for run in self.runs):
            return None
        return TrainingError(
            "no run made a pair that may serve. Lower finetune.learning_rate or finetune.epochs, and start with "
            "--overwrite."
        )

    @property
    def failures(self) -> list[str]:
        """The runs that made no pair that may serve, each with its reason."""
        return [f"{run.name}: {run.failed}" for run in self.runs if run.failed]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "runs": [asdict(run) for run in self.runs],
            "chosen": None if self.chosen is None else self.chosen.folder,
            "why": self.why,
            "held_out": self.held_out,
            "output": str(self.folder),
        }


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
    if settings.finetune.blocks is not None:
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
            f"--compare-blocks: {there} blocks are recognised in this image tower, expected 3 or more. Leave it out to "
            "train all layers"
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
    recipe = request.settings.finetune.model_copy(update={"blocks": blocks})
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


def choose(runs: Sequence[BlocksRun]) -> tuple[BlocksRun | None, str]:
    """Return the run that would be chosen, and why: the fewest blocks that serve nearly as much as the best run."""
    served = {run.name: run.served for run in runs if run.served is not None}
    if not served:
        return None, "No pair was judged, so that none can be recommended."
    best = max(served, key=lambda name: served[name])
    near = [run for run in runs if run.served is not None and run.served >= served[best] - _LOSS]
    chosen = min(near, key=lambda run: (run.blocks is None, run.blocks or 0))
    beside = "" if chosen.name == best else f" (the best, {best}: {three(served[best])})"
    took = "" if chosen.minutes is None else f" and took {chosen.minutes:.1f} minutes"
    shares = "" if chosen.tail_share is None else f"; {shared_layers(chosen.tail_share)}"
    return chosen, (
        f"Would choose {chosen.name}: of all that serve within {100 * _LOSS:g} points of the best, it trains the "
        f"fewest blocks. It serves {three(chosen.served)}{beside}{took}{shares}."
    )


def caution(comparison: BlocksComparison) -> str:
    """Return what the figures are worth."""
    held_out = comparison.held_out
    if not held_out:
        return "Every training failed."
    known = {run.name: run.versus_all.ci for run in comparison.runs if run.versus_all is not None}
    if not known:
        return (
            f"Each number was trained once, with the same seed, and {held_out} held-out images judge it: an accuracy "
            f"is known to within {within_points(held_out)} points, so a smaller difference may be chance."
        )
    text = (
        "Each number was trained once, with the same seed. Intervals (95 %) are of the images that judge the runs, "
        "which are the same for all; another seed may differ by more."
    )
    if unsure := [name for name, (low, high) in known.items() if low <= 0.0 <= high]:
        text += (
            f" These images are too few to distinguish {listed(unsure)} from all: raise finetune.judged_images, or "
            "give more with --validation."
        )
    return text


def cells(run: BlocksRun) -> list[str]:
    """Return the cells of a run in a table, as `HEADERS` names them."""
    groups = run.groups or {}
    how = "" if run.served is None else "adapting" if run.alpha is None else f"alpha {two(run.alpha)}"
    return [
        *(three(groups.get(group)) for group in GROUPS),
        three(run.served),
        how or ("failed" if run.failed else ""),
        three(run.theta_1),
        two(run.fe),
        two(run.forward_cost),
        NOTHING if run.tail_share is None else small(run.tail_share),
        NOTHING if run.minutes is None else f"{run.minutes:.1f}",
    ]


def over_all(run: BlocksRun) -> str:
    """Return the difference from the run that trains all blocks, in points, with its interval."""
    over = run.versus_all
    return NOTHING if over is None else f"{points(over.difference)} ({points_between(over.ci)})"


HEADERS = (*GROUPS.values(), "mean", "served by", "theta_1", "FE", "forward cost", "second alpha", "minutes")


def of_folders(comparison: BlocksComparison) -> str:
    """Return the sentence about the folders of the runs; "" if no run made a pair."""
    return "" if comparison.error else "Each run that did not fail has a pair with its card in its folder."


def show_comparison(comparison: BlocksComparison, model: ModelSettings, *, as_json: bool) -> None:
    """Print the comparison as JSON, or as a table with the choice, and the settings that use the chosen pair."""
    if as_json:
        print_json(comparison.as_json())
        return
    table = Table(box=SIMPLE_HEAD, caption_justify="left", padding=0, show_edge=False)  # 80 columns
    for header in ("blocks", *HEADERS):
        table.add_column(header.replace(" ", "\n"), no_wrap=True)
    for run in comparison.runs:
        table.add_row(run.name, *cells(run), style="bold" if run is comparison.chosen else "")
    table.caption = f"Accuracies are of what is served. {caution(comparison)}"
    paper().print(table)
    if any(run.versus_all for run in comparison.runs):
        paper().print(_differences(comparison))
    for failure in comparison.failures:
        paper().print(failure, soft_wrap=True)
    print(comparison.why)
    print(f"\n{comparison.folder / RESULT} has the same. {of_folders(comparison)}".rstrip())
    if comparison.chosen is not None:
        from adawise.card.card import read_card

        folder = Folder(comparison.folder / comparison.chosen.folder)
        print(f"The choice is yours. In adawise.toml, for {folder.path}:\n")
        print("\n".join(settings_lines(model, folder, read_card(folder.card).verdict)))


def _differences(comparison: BlocksComparison) -> Table:
    """Return the table of differences, which are too wide for a column of the first table."""
    table = Table("blocks", "mean against all, in points", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for run in comparison.runs:
        if run.versus_all is not None:
            table.add_row(run.name, over_all(run), style="bold" if run is comparison.chosen else "")
    return table
