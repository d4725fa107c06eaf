"""What came of a run: is everything there, how good was what was served, and what else could have been served."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.demo.script import CameraScript

_BLOCKS = "▁▂▃▄▅▆▇█"
COLUMNS = ["partition", "offset", "frame_id", "status", "label", "true_label", "meta", "alpha"]
"""Of the predictions, what a summary needs."""


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracies in [0, 1] on the images of one condition, and the mean alpha that they were served with."""

    condition: str
    images: int
    served: float
    zero_shot: float
    fine_tuned: float
    middle: float
    alpha: float


def missing(rows: pa.Table, cameras: Sequence[CameraScript], acknowledged: Sequence[int]) -> list[str]:
    """What is not exactly once in the output, in words; [] if the acknowledged images are what the rows are.

    Args:
        rows: the predictions.
        cameras: by partition.
        acknowledged: how many images of each the broker has.
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
        problems.append(f"{rejected} images were rejected, and none of them should be")
    return problems


def scores(rows: pa.Table, fixed: Mapping[tuple[int, int], tuple[str, ...]]) -> list[Score]:
    """Of each condition, in the order of their first images, and of all of them under the name `all`.

    `fixed` are the labels at alpha 0, 1 and .5 by (partition, offset).
    """
    groups: dict[str, list[tuple[bool, bool, bool, bool, float]]] = {}
    for row in rows.to_pylist():
        labels = fixed.get((row["partition"], row["offset"]))
        if row["status"] != "accepted" or labels is None:
            continue  # then `missing` has something to say
        zero_shot, fine_tuned, middle = (label == row["true_label"] for label in labels)
        hit = (row["label"] == row["true_label"], zero_shot, fine_tuned, middle, row["alpha"])
        groups.setdefault(dict(row["meta"])["condition"], []).append(hit)
    groups["all"] = [hit for hits in groups.values() for hit in hits]
    return [
        Score(condition, len(hits), *(sum(column) / len(hits) for column in zip(*hits, strict=True)))
        for condition, hits in groups.items()
        if hits
    ]


def sparkline(values: Sequence[float], width: int) -> str:
    """Values in [0, 1] as blocks, at most `width` of them; each block is the mean of its share of the values."""
    width = min(width, len(values))
    edges = [round(i * len(values) / width) for i in range(width + 1)] if width else []
    means = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    return "".join(_BLOCKS[round(mean * (len(_BLOCKS) - 1))] for mean in means)


def passages(camera: CameraScript, width: int) -> str:
    """The names of the conditions where they begin on a line of `width` characters, cut where the next one begins."""
    names = [camera.moment(int((i + 0.5) * camera.frames / width)).condition for i in range(width)]
    starts = [i for i in range(width) if i == 0 or names[i] != names[i - 1]]
    cells = [names[a][: b - a - 1].ljust(b - a) for a, b in zip(starts, [*starts[1:], width + 1], strict=True)]
    return "".join(cells).rstrip()


def duckdb_line(root: Path) -> str:
    """A command for a shell that asks DuckDB about the output."""
    files = f"{root}/predictions/*/*/*.parquet".replace('"', '""')
    sql = (
        "select stream_id, count(*) as images, round(avg((label = true_label)::int), 3) as accuracy, "
        f'min(alpha), round(avg(alpha), 2) as mean, max(alpha) from "{files}" group by stream_id order by stream_id'
    )
    program = f'import duckdb; print(duckdb.sql(r"""{sql}"""))'
    return f"{shlex.quote(python())} -c {shlex.quote(program)}"


def python() -> str:
    """The running interpreter as it is called from the current folder."""
    interpreter = Path(sys.executable)
    here = Path.cwd()
    return str(interpreter.relative_to(here) if interpreter.is_relative_to(here) else interpreter)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole run. `seconds` is from when the worker was ready to the last served batch."""

    images_in: int
    rows_out: int
    problems: tuple[str, ...]
    seconds: float
    forward_equivalents: float
    objective: str
    scores: tuple[Score, ...]



def tell(
    outcome: Outcome,
    cameras: Sequence[CameraScript],
    paths: Sequence[tuple[Sequence[int], Sequence[float]]],
    root: Path,
    picture: Path | None,
    stream: TextIO | None = None,
) -> None:
    """Print the summary on the output proper, in place of which `stream` may be given.

    `paths` are of each camera the numbers of its batches' last frames and their alphas.
    """
    console = Console(file=stream if stream is not None else sys.stdout, highlight=False, soft_wrap=True)
    console.print()
    if outcome.problems:
        console.print(f"NOT every image is in the output once: {outcome.images_in} in, {outcome.rows_out} rows out.")
        for problem in outcome.problems:
            console.print(f"  {problem}", markup=False)
    else:
        console.print(f"images in = rows out = {outcome.rows_out}, each exactly once (chains, rows and traces verified)")
    rate = outcome.rows_out / outcome.seconds if outcome.seconds > 0 else 0.0
    console.print(
        f"{rate:.0f} images/s over {outcome.seconds:.1f} s, drawing included; "
        f"{outcome.forward_equivalents:.2f} forward equivalents (FE) an image; objective {outcome.objective}"
    )
    console.print()
    _print_scores(console, outcome.scores)
    console.print("\nalpha of each camera over time (▁ 0 zero-shot, █ 1 fine-tuned)")
    indent = max(len(camera.camera_id) for camera in cameras)
    for camera, (_, alphas) in zip(cameras, paths, strict=True):
        console.print(f"  {camera.camera_id:<{indent}}  {sparkline(_stretched(alphas), WIDTH)}", markup=False)
        console.print(f"  {'':<{indent}}  {passages(camera, WIDTH)}", markup=False, style="dim")
    _print_how_to_go_on(console, root, picture)


def _print_scores(console: Console, scores: Sequence[Score]) -> None:
    table = Table(title="accuracy: what was served, and the same images at fixed alphas", title_justify="left")
    table.add_column("condition")
    for name in ("images", "served", "zero-shot", "fine-tuned", "fixed 0.5", "mean alpha"):
        table.add_column(name, justify="right")
    for score in scores:
        accuracies = (score.served, score.zero_shot, score.fine_tuned, score.middle)
        cells = [f"{value:.3f}" for value in accuracies]
        last = score is scores[-1]
        table.add_row(
            score.condition, str(score.images), *cells, f"{score.alpha:.2f}", style="bold" if last else "", end_section=score is scores[-2]
        )
    console.print(table)
