"""Did it help, as a figure for a paper: accuracies, and what is served less each arm."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adawise.drift.judge.helped import Arm, Helped

PAGE = 7.1
"""Inches: both columns."""

_INK, _MUTED = "#1a1d21", "#5b636d"
_ARMS = {
    "served": ("s", _INK),
    "zero-shot": ("<", "#0072b2"),
    "fine-tuned": (">", "#c24e00"),
    "alpha 0.5": ("o", _MUTED),
    "best fixed alpha": ("D", "#00795a"),
}


def plain(name: str) -> str:
    """A name on one line."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def helped_figure(helped: Helped) -> Figure:
    """Accuracies, and beside them what is served less each arm."""
    arms = helped.arms
    rivals = [arm for arm in arms if arm.gain is not None]
    figure = Figure(figsize=(PAGE, 0.55 + 0.2 * len(arms)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _dots(left, arms, [(a.accuracy.value, a.accuracy.low, a.accuracy.high) for a in arms], "accuracy")
    gains = [(100 * a.gain.value, 100 * a.gain.low, 100 * a.gain.high) for a in rivals if a.gain is not None]
    _dots(right, rivals, gains, "served less this, points")
    right.axvline(0, color=_MUTED, linestyle=":", linewidth=0.7)
    return figure


def _dots(axes: Axes, arms: Sequence[Arm], values: Sequence[tuple[float, float, float]], title: str) -> None:
    for row, (arm, (value, low, high)) in enumerate(zip(arms, values, strict=True)):
        marker, colour = _ARMS.get(arm.name, ("P", "#9c4f86"))
        axes.hlines(row, low, high, color=colour, linewidth=1)
        axes.plot([value], [row], marker, color=colour, markersize=4)
    axes.set_yticks(range(len(arms)), [plain(arm.name) for arm in arms], parse_math=False)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlabel(title)
