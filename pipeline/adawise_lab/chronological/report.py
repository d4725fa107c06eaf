"""The result for people: sentences for terminal and page, and the tables of the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.card.advice import AUTO
from adawise.text import LEVEL, counted, listed, points, points_between, three, two
from adawise_lab.chronological.result import BEST_EACH, ChronologicalResult, WayRow
from adawise_lab.chronological.served import WARM
from adawise_lab.evaluate.references import BEST_FIXED, FINE_TUNED, MIDDLE, ZERO_SHOT
from adawise_lab.evaluate.result import Difference, Interval

_FEW = 5  # cameras, below which intervals over cameras say little
NAMES = {
    ZERO_SHOT: "zero-shot",
    MIDDLE: "alpha .5",
    FINE_TUNED: "fine-tuned",
    WARM: "warm",
    AUTO: "auto",
    BEST_FIXED: "best fixed alpha",
    BEST_EACH: "best fixed, each",
}
"""The ways and references by the names that people read."""


def title(row: WayRow) -> str:
    """Return the name of a row, with the alpha of the best fixed one."""
    name = NAMES[row.name] + (f" {two(row.alpha)}" if row.alpha is not None else "")
    return f"{name} + scene" if row.scene else name


def headline(result: ChronologicalResult) -> str:
    """Return what is served on the interval after a training, in one line."""
    served = [f"{NAMES[name]} {three(result.row(name).accuracy)}" for name in (ZERO_SHOT, FINE_TUNED, AUTO)]
    return f"On the interval after a training: {', '.join(served)}"


def sentences(result: ChronologicalResult) -> Iterator[str]:
    """Yield what the result says."""
    for name in (FINE_TUNED, MIDDLE, WARM, AUTO):
        row = result.row(name)
        yield f"{NAMES[name].capitalize()} against zero-shot: {_difference(row.versus[ZERO_SHOT])} points."
    if result.tested < _FEW:
        yield f"{counted(result.tested, 'camera')} only: what holds for other cameras is hardly known from this."
    below = [f"{NAMES[n]} at {_share(result.row(n))}" for n in (FINE_TUNED, MIDDLE, WARM, AUTO)]
    yield f"Below zero-shot, of {counted(result.tested, 'camera')}: {listed(below)}."
    best, each = (result.row(WARM).versus[name] for name in (BEST_FIXED, BEST_EACH))
    alpha = two(result.row(BEST_FIXED).alpha)
    yield (
        f"Warm against the best fixed alpha in hindsight, {alpha}: {_difference(best)} points; against that of each "
        f"camera and interval: {_difference(each)}."
    )
    if any(row.scene for row in result.rows):
        gains = [
            f"{NAMES[n]} {_difference(result.row(n, scene=True).versus[n])}" for n in (ZERO_SHOT, FINE_TUNED, AUTO)
        ]
        yield f"The scene ({result.setting.scene}), scene_label against the label: {'; '.join(gains)} points."
    yield from _served(result)
    yield from _trainings(result)


def _served(result: ChronologicalResult) -> Iterator[str]:
    """Yield how images became batches, and which classes cameras could show, where that is not the default."""
    setting = result.setting
    if setting.pace == "live":
        images = int(result.counts.sum()) - result.unpaired
        mean = f", {images / result.batches:.1f} images each" if result.batches else ""
        yield (
            "Batches as live: they ended, and cameras started anew, by the images' own times "
            f"({counted(result.batches, 'batch', 'batches')}{mean})."
        )
    if setting.shortlists:
        least, most = min(setting.shortlists.values()), max(setting.shortlists.values())
        classes = f"{least}" if least == most else f"{least} to {most}"
        yield (
            f"Shortlists (scene.shortlists) in search and prediction: {len(setting.shortlists)} of "
            f"{counted(len(setting.cameras), 'camera')}, of {classes} of {setting.classes} classes. Every row "
            "is with them."
        )
        if any(math.isinf(row.nll) for row in result.rows if row.nll is not None):
            yield "An NLL is infinite where the list of a camera lacks a class that it shows."


def _trainings(result: ChronologicalResult) -> Iterator[str]:
    setting = result.setting
    of = "the images of all cameras" if setting.train == "all" else "the images of one camera"
    yield f"{counted(len(setting.trainings), 'training')}, each on {of} up to an interval."
    if missing := Counter(one.why for one in setting.trainings if not one.pair):
        whys = listed(f"{count} ({why})" for why, count in missing.most_common())
        yield (
            f"No pair came of {whys}: theta_0 alone served {result.unpaired:,} of {int(result.counts.sum()):,} tested "
            "images, without a scene."
        )
    if setting.without_time:
        yield f"{counted(setting.without_time, 'image was', 'images were')} left out, because nothing says when."


def show(result: ChronologicalResult, console: Console) -> None:
    """Print the tables of all ways, the one by interval, and the sentences."""
    console.print(_ways(result))
    console.print(_certainty(result))
    console.print(_by_interval(result))
    for sentence in sentences(result):
        console.print(sentence, soft_wrap=True)


def _ways(result: ChronologicalResult) -> Table:
    caption = f"means over {counted(result.tested, 'camera')}, points with {LEVEL} intervals over cameras"
    table = _table("accuracy on the interval after a training", "served", caption)
    for header in (
        "accuracy",
        "macro\nrecall",
        "over\nzero-shot",
        "cameras\nbelow it",
        "over best\nfixed",
        "ECE",
        "FE",
        "forward\ncost",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for row in result.rows:
        table.add_row(
            title(row),
            three(row.accuracy),
            "" if row.macro_recall is None else three(row.macro_recall),
            _short(row.versus.get(ZERO_SHOT)),
            f"{row.below_zero_shot:.0%}",
            _short(row.versus.get(BEST_FIXED)),
            "" if row.ece is None else three(row.ece),
            "" if row.forwards is None else two(row.forwards),
            "" if row.forward_cost is None else two(row.forward_cost),
            style="" if row.macro_recall is not None else "dim",
        )
    return table


def _certainty(result: ChronologicalResult) -> Table:
    caption = "flicker: of images with the class of the camera's image before them, those with another label than it"
    table = _table("NLL of the class, nats, and flicker", "served", caption)
    for header in ("NLL", "flicker"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in result.rows:
        if row.nll is not None:
            table.add_row(title(row), three(row.nll), "" if row.flicker is None else three(row.flicker))
    return table


def _by_interval(result: ChronologicalResult) -> Table:
    table = _table("accuracy by interval", "served", "")
    tested = result.tested_intervals
    for k in tested:
        table.add_column(str(k + 1), justify="right", no_wrap=True)
    for row in result.rows:
        table.add_row(title(row), *(three(row.by_interval[k]) for k in tested))
    table.add_row("images", *(f"{int(result.counts[:, k].sum()):,}" for k in tested), style="dim")
    return table


def _table(name: str, first: str, caption: str) -> Table:
    table = Table(title=name, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.caption = caption or None
    table.add_column(first, overflow="fold")
    return table


def _difference(difference: Difference) -> str:
    return f"{points(difference.difference)}{between(difference.ci)}"


def between(ci: Interval) -> str:
    """Format the interval of a difference, in points and in parentheses; nothing for one camera, which has none."""
    return "" if math.isnan(ci[0]) else f" ({points_between(ci)})"


def _short(difference: Difference | None) -> str:
    """Format a difference with half of its interval's width, in points."""
    if difference is None:
        return ""
    low, high = difference.ci
    return points(difference.difference) + ("" if math.isnan(low) else f" ±{50 * (high - low):.1f}")


def _share(row: WayRow) -> str:
    return f"{row.below_zero_shot:.0%}"
