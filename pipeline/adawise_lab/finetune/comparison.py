"""The result of a comparison of trained blocks: its runs, which of them would be chosen, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from adawise.console import paper, print_json
from adawise.errors import TrainingError
from adawise.settings import ModelSettings
from adawise.text import NOTHING, listed, points, points_between, shared_layers, small, three, two
from adawise_lab.evaluate.result import Difference
from adawise_lab.finetune.folder import Folder
from adawise_lab.finetune.report import settings_lines, within_points

RESULT, PAGE = "comparison.json", "comparison.html"
GROUPS = {"home": "known", "shifted": "known, shifted", "new": "unseen"}
"""Groups of conditions in a verdict, as they are called here."""
_LOSS = 0.005  # served accuracy: fewer blocks are preferred if they cost no more
HEADERS = (*GROUPS.values(), "mean", "served by", "theta_1", "FE", "forward cost", "second alpha", "minutes")


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
        "Each number was trained once, with the same seed. Intervals (95 %) are of the images that judge both runs; "
        "another seed may differ by more."
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
    table.caption = f"Accuracies are those of served predictions. {caution(comparison)}"
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
