"""The summary of a demo: is the output complete, how accurate was it, and how accurate are fixed alphas?

It is printed with alpha over time, where everything is, and what to do next.
"""

from __future__ import annotations

import importlib.util
import shlex
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from adawise.console import paper
from adawise.demo.script import CameraScript
from adawise.store.store import as_pattern

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_LETTERS = string.ascii_lowercase

COLUMNS = ["partition", "offset", "frame_id", "status", "label", "true_label", "meta", "alpha"]
"""The columns of the predictions that a summary needs."""


@dataclass(slots=True)
class CameraPath:
    """Alpha over the batches of one camera, one entry per batch.

    Attributes:
        numbers: the number of the batch's last frame, ascending.
        alphas: the alpha that served the batch, in [0, 1].
        triggers: why other alphas were tried; None if none were.
        conditions: the number of the condition that the search recognised; None if it has none.
    """

    numbers: list[int] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    triggers: list[str | None] = field(default_factory=list)
    conditions: list[int | None] = field(default_factory=list)

    def add(self, number: int, alpha: float, trigger: str | None, condition: int | None = None) -> None:
        """Add a batch."""
        self.numbers.append(number)
        self.alphas.append(alpha)
        self.triggers.append(trigger)
        self.conditions.append(condition)


@dataclass(frozen=True, slots=True)
class ConditionScore:
    """Accuracies in [0, 1] on the images of one condition, and the mean alpha that served them."""

    condition: str
    images: int
    served: float
    zero_shot: float
    fine_tuned: float
    middle: float
    alpha: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A whole run. `seconds` is from when the worker was ready to the last served batch."""

    images_in: int
    rows_out: int
    problems: tuple[str, ...]
    seconds: float
    forward_equivalents: float
    objective: str
    scores: tuple[ConditionScore, ...]


def missing(rows: pa.Table, cameras: Sequence[CameraScript], acknowledged: Sequence[int]) -> list[str]:
    """Describe which images are not exactly once in the output; [] if the rows match the acknowledged images.

    Args:
        rows: the predictions.
        cameras: by partition.
        acknowledged: how many images of each camera the broker has.
    """
    expected = {
        camera.frame_id(number) for camera, count in zip(cameras, acknowledged, strict=True) for number in range(count)
    }
    found = rows["frame_id"].to_pylist()
    problems = []
    if lost := sorted(expected - set(found)):
        problems.append(f"{len(lost)} images are not in the output, the first is {lost[0]}")
    if len(found) != len(set(found)):
        problems.append(f"{len(found) - len(set(found))} rows are there more than once")
    if foreign := sorted(str(name) for name in set(found) - expected):
        problems.append(f"{len(foreign)} rows are of images that were not sent, the first is {foreign[0]}")
    if rejected := len(found) - rows["status"].to_pylist().count("accepted"):
        problems.append(f"{rejected} images were rejected, but none should be")
    return problems


def scores(rows: pa.Table, fixed: Mapping[tuple[int, int], tuple[str, ...]]) -> list[ConditionScore]:
    """Return the scores of each condition, in the order of their first images, and of all under the name `all`.

    `fixed` has the labels at alpha 0, 1 and .5 by (partition, offset).
    """
    groups: dict[str, list[tuple[bool, bool, bool, bool, float]]] = {}
    for row in rows.to_pylist():
        labels = fixed.get((row["partition"], row["offset"]))
        if row["status"] != "accepted" or labels is None:
            continue  # `missing` reports such a row
        zero_shot, fine_tuned, middle = (label == row["true_label"] for label in labels)
        hit = (row["label"] == row["true_label"], zero_shot, fine_tuned, middle, row["alpha"])
        groups.setdefault(dict(row["meta"])["condition"], []).append(hit)
    if groups:
        groups["all"] = [hit for hits in groups.values() for hit in hits]
    return [
        ConditionScore(condition, len(hits), *(sum(column) / len(hits) for column in zip(*hits, strict=True)))
        for condition, hits in groups.items()
    ]


def print_summary(
    outcome: RunSummary,
    cameras: Sequence[CameraScript],
    paths: Sequence[CameraPath],
    root: Path,
    picture: Path | None,
    stream: TextIO | None = None,
) -> None:
    """Print the summary to standard output, or to `stream` if given."""
    console = paper(stream)
    console.soft_wrap = True
    console.print()
    if outcome.problems:
        console.print(f"NOT every image is in the output once: {outcome.images_in} in, {outcome.rows_out} rows out.")
        for problem in outcome.problems:
            console.print(f"  {problem}")
    else:
        console.print(
            f"images in = rows out = {outcome.rows_out}, each exactly once (chains, rows and traces verified)"
        )
    rate = outcome.rows_out / outcome.seconds if outcome.seconds > 0 else 0.0
    console.print(
        f"{rate:.0f} images/s over {outcome.seconds:.1f} s, drawing included; "
        f"{outcome.forward_equivalents:.2f} forward equivalents (FE) an image; objective {outcome.objective}"
    )
    console.print()
    _print_scores(console, outcome.scores)
    console.print(
        "\nalpha of each camera over time (▁ 0 zero-shot, █ 1 fine-tuned), its weather, and the conditions\nthat "
        "it distinguished by itself, one character each; a condition that returned has the same character"
    )
    indent = max(len(camera.camera_id) for camera in cameras)
    for camera, path in zip(cameras, paths, strict=True):
        console.print(f"  {camera.camera_id:<{indent}}  {sparkline(path, _WIDTH)}")
        console.print(f"  {'':<{indent}}  {passages(camera, _WIDTH)}", style="dim")
        console.print(f"  {'':<{indent}}  {letters(path, _WIDTH)}", style="dim")
    _print_how_to_go_on(console, root, picture)


def _print_scores(console: Console, scores: Sequence[ConditionScore]) -> None:
    console.print("accuracy: as served, and of the same images at fixed alphas")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("condition", no_wrap=True)
    for name in ("images", "served", "zero-shot", "fine-tuned", "fixed 0.5", "mean alpha"):
        table.add_column(name, justify="right", no_wrap=True)
    if not scores:
        console.print("  no image was classified")
        return
    for index, score in enumerate(scores, 1):
        accuracies = (score.served, score.zero_shot, score.fine_tuned, score.middle)
        cells = [f"{value:.3f}" for value in accuracies]
        table.add_row(
            score.condition,
            str(score.images),
            *cells,
            f"{score.alpha:.2f}",
            style="bold" if index == len(scores) else "",
            end_section=index == len(scores) - 1,
        )
    console.print(table)
    whole = scores[-1]
    fixed = {"zero-shot": whole.zero_shot, "fine-tuned": whole.fine_tuned, "fixed 0.5": whole.middle}
    best = max(fixed, key=lambda name: fixed[name])
    console.print(
        f"served {whole.served:.3f}; the best of the three fixed alphas on these images, {best}, {fixed[best]:.3f} "
        f"({whole.served - fixed[best]:+.3f})"
    )


def sparkline(path: CameraPath, width: int) -> str:
    """Return alpha over the frames of a camera as `width` blocks, each the mean of its share of the frames."""
    if not path.alphas:
        return ""
    of_frames = np.repeat(np.asarray(path.alphas), np.diff([-1, *path.numbers]))
    means = np.repeat(of_frames, width).reshape(width, -1).mean(axis=1)
    return "".join(_BLOCKS[round(float(mean) * (len(_BLOCKS) - 1))] for mean in means)


def letters(path: CameraPath, width: int) -> str:
    """Return the conditions over the frames of a camera as `width` characters.

    Characters are assigned in the order in which conditions came; those after z are ·.
    """
    if not path.conditions:
        return ""
    names = dict(zip(dict.fromkeys(path.conditions), _LETTERS, strict=False))
    of_batches = np.array([names.get(condition, "·") for condition in path.conditions])
    of_frames = np.repeat(of_batches, np.diff([-1, *path.numbers]))
    return "".join(of_frames[((np.arange(width) + 0.5) * len(of_frames) / width).astype(np.int64)])


def _print_how_to_go_on(console: Console, root: Path, picture: Path | None) -> None:
    have_duckdb = importlib.util.find_spec("duckdb") is not None
    lines = [
        f"output: {root}/predictions, one row for each image; {root}/traces, one for each batch; {root}/summary.json",
        f"picture: {picture}"
        if picture
        else "picture: none, it needs the extra `report` (pip install 'adawise[report]')",
        "",
        "query it" + ("" if have_duckdb else " (needs the extra `report`: pip install 'adawise[report]')") + ":",
        f"  {duckdb_line(root)}",
        "check that it is complete:",
        f"  {program()} verify {shlex.quote(str(root))}",
        "see where alpha drifted, which conditions came when, and whether adapting helped:",
        f"  {program()} drift {shlex.quote(str(root))} -o drift.html",
        "start with your own pair of models and topic:",
        f"  {program()} config init",
    ]
    console.print()
    for line in lines:
        console.print(line)


def passages(camera: CameraScript, width: int) -> str:
    """Return a line of `width` characters with each condition's name where it begins, cut where the next one begins."""
    names = [camera.moment(int((i + 0.5) * camera.frames / width)).condition for i in range(width)]
    starts = [i for i in range(width) if i == 0 or names[i] != names[i - 1]]
    cells = [names[a][: b - a - 1].ljust(b - a) for a, b in zip(starts, [*starts[1:], width + 1], strict=True)]
    return "".join(cells).rstrip()


def duckdb_line(root: Path) -> str:
    """Return a shell command that queries the output with DuckDB."""
    files = f"{as_pattern(str(root))}/predictions/*/*/*.parquet".replace('"', '""')
    sql = (
        "select stream_id, count(*) as images, round(avg((label = true_label)::int), 3) as accuracy, "
        f'min(alpha), round(avg(alpha), 2) as mean, max(alpha) from "{files}" group by stream_id order by stream_id'
    )
    program = f'import duckdb; print(duckdb.sql(r"""{sql}"""))'
    return f"{shlex.quote(python())} -c {shlex.quote(program)}"


def python() -> str:
    """Return the path of the running interpreter, relative to the current folder if it is inside."""
    interpreter = Path(sys.executable)
    here = Path.cwd()
    return str(interpreter.relative_to(here) if interpreter.is_relative_to(here) else interpreter)


def program() -> str:
    """Return the command for the program: the script beside the interpreter if it exists, else `python -m adawise`."""
    script = Path(python()).with_name("adawise")
    return shlex.quote(str(script)) if script.exists() else f"{shlex.quote(python())} -m adawise"
