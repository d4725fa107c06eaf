"""The page of a run: its record in figures and tables."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from adawise.page import Cell, Figure, Key, Line, Section, Table, theme
from adawise.page.render import render
from adawise.text import counted, points, three
from adawise_lab.finetune.train import WrongImage

_HEIGHT = 240
_UNFOLDED = 30  # classes
_SERIES = {"theta_1": (theme.FINE_TUNED, "circle"), "alpha .5": (theme.SERVED, "square")}


def page(record: Mapping[str, Any], command: Sequence[str], mistakes: Sequence[WrongImage]) -> str:
    """Return the page as HTML, a function of its arguments alone; names of classes and images are escaped."""
    sections = (*_verdict(record), _curve(record), _classes(record), _confusions(record))
    contents = [(section.anchor, section.heading) for section in sections]
    return render(
        "adawise_lab.finetune",
        "finetune.html.j2",
        headline=_headline(record),
        sentences=_sentences(record),
        contents=[*contents, *([("mistakes", "Mistakes")] if mistakes else [])],
        command=shlex.join(["adawise", *command]),
        versions=record["versions"],
        sections=sections,
        specs={figure.anchor: figure.spec for section in sections for figure in section.figures},
        record=record,
        mistakes=[(m.name, m.own, m.taken_for, base64.b64encode(m.picture).decode()) for m in mistakes],
    )


def _headline(record: Mapping[str, Any]) -> str:
    """Return the headline: what is served if the recommendation is followed."""
    verdict = record.get("verdict")
    if verdict is None:
        zero, best = record["curve"][0]["accuracy"], record["best"]["accuracy"]
        return f"theta_1 has {three(best)} on held-out images, theta_0 {three(zero)}; the pair was not judged"
    alpha, served = verdict["recommended"]["alpha"], three(verdict["recommended"]["served"])
    if alpha == 0.0:
        return f"theta_0 alone serves {served}; the pair serves no better"
    return (
        f"{'Adapting' if alpha is None else f'Alpha {alpha:g}'} serves {served}, theta_0 {three(verdict['zero_shot'])}"
    )


def _sentences(record: Mapping[str, Any]) -> list[str]:
    best, zero = record["best"], record["curve"][0]
    skipped, gain = record["images"]["skipped"], best["accuracy"] - zero["accuracy"]
    verdict = record.get("verdict")
    return [
        *([verdict["told"]] if verdict is not None else []),
        f"theta_1 is epoch {best['epoch']} of {record['curve'][-1]['epoch']}: accuracy {three(best['accuracy'])} "
        f"on held-out images, {points(gain)} points over theta_0; half-way {three(best['accuracy_half'])}.",
        *record["notes"],
        *([f"{counted(skipped, 'file was', 'files were')} skipped; finetune.json names them."] if skipped else []),
    ]


_GROUPS = {
    "home": "held-out images",
    "shifted": "these, shifted",
    "new": "classes left out",
}


def _verdict(record: Mapping[str, Any]) -> tuple[Section, ...]:
    """Return the section on the pair; nothing if the pair was not judged, as in records of earlier versions."""
    verdict = record.get("verdict")
    if verdict is None:
        return ()
    rows = [*verdict["groups"], {**verdict, "group": "mean over conditions", "conditions": "", "images": ""}]
    lines = tuple(
        Line(
            _GROUPS.get(row["group"], row["group"]),
            (
                Cell(str(row["conditions"])),
                Cell(str(row["images"])),
                *(Cell(three(row[name])) for name in ("zero_shot", "fine_tuned", "best_fixed", "adapted")),
            ),
        )
        for row in rows
    )
    headers = ("conditions", "images", "theta_0", "theta_1", f"alpha {verdict['fixed_alpha']:g}", "adapted")
    return (
        Section(
            "pair",
            "What the pair serves",
            "The headline is from the last row. Shifts are synthetic; images of classes left out of a rehearsal "
            "are judged as they are and shifted.",
            tables=(Table("Accuracy on labelled images", "images", headers, lines),),
        ),
    )


def _curve(record: Mapping[str, Any]) -> Section:
    rows = record["curve"]
    accuracy = [
        {"epoch": row["epoch"], "value": row[key], "series": name}
        for row in rows
        for name, key in zip(_SERIES, ("accuracy", "accuracy_half"), strict=True)
    ]
    losses = [{"epoch": row["epoch"], "value": row["loss"], "series": "loss"} for row in rows[1:]]
    nll = [{"epoch": row["epoch"], "value": row["nll"], "series": "theta_1"} for row in rows]
    last = rows[-1]
    return Section(
        "curve",
        "Learning curve",
        "Epoch 0 is theta_0. Where accuracy half-way falls below both ends, the two models must not be interpolated.",
        tuple(Key(name, shape, colour) for name, (colour, shape) in _SERIES.items()),
        (
            Figure(
                "accuracy",
                "Accuracy of held-out images",
                f"The best epoch is {record['best']['epoch']}, with {three(record['best']['accuracy'])}.",
                _lines(accuracy, "accuracy"),
            ),
            Figure(
                "nll",
                "NLL of held-out images",
                f"It is {three(rows[0]['nll'])} nats an image before and {three(last['nll'])} after the last epoch.",
                _lines(nll, "nats"),
            ),
            Figure(
                "loss",
                "Loss of training",
                f"It is {three(losses[0]['value'])} in the first epoch and {three(losses[-1]['value'])} in the last.",
                _lines(losses, "nats"),
            ),
        ),
    )


def _lines(values: list[dict[str, Any]], title: str) -> dict[str, Any]:
    names = [name for name in _SERIES if any(value["series"] == name for value in values)] or ["loss"]
    colours = [_SERIES.get(name, (theme.INK, "circle"))[0] for name in names]
    base = alt.Chart(theme.rows(values)).encode(
        x=alt.X("epoch:Q", title="epoch").axis(grid=False, tickMinStep=1, format="d"),
        y=alt.Y("value:Q", title=title).scale(zero=False, padding=10),
        color=alt.Color("series:N").scale(domain=names, range=colours),
        shape=alt.Shape("series:N").scale(domain=names, range=["circle", "square"][: len(names)]),
        tooltip=[alt.Tooltip("epoch:Q"), alt.Tooltip("value:Q", title=title, format=".3f"), alt.Tooltip("series:N")],
    )
    return theme.spec(alt.layer(base.mark_line(), base.mark_point(filled=True, opacity=1)), height=_HEIGHT)


def _classes(record: Mapping[str, Any]) -> Section:
    known = [row for row in record["classes"] if row["held_out"]]
    lost = sum(row["fine_tuned"] < row["zero_shot"] for row in known)
    rows = sorted(record["classes"], key=lambda row: (row["fine_tuned"] is None, row["fine_tuned"] or 0.0))
    lines = tuple(
        Line(
            row["name"],
            (
                Cell(str(row["train"])),
                Cell(str(row["held_out"])),
                Cell(three(row["zero_shot"])),
                Cell(three(row["fine_tuned"])),
                Cell(points(row["fine_tuned"] - row["zero_shot"]) if row["held_out"] else points(None)),
            ),
        )
        for row in rows
    )
    headers = ("to learn from", "held out", "theta_0", "theta_1", "points")
    caption = "Accuracy of each class, lowest first"
    return Section(
        "classes",
        "Classes",
        f"Of {len(known)} classes with held-out images, theta_1 is worse than theta_0 on {lost}. "
        "Few images make uncertain accuracies: of 10, one image is 10 points.",
        tables=(Table(caption, "class", headers, lines, folded=len(lines) > _UNFOLDED),),
    )


def _confusions(record: Mapping[str, Any]) -> Section:
    lines = tuple(
        Line(
            row["class"],
            (Cell(row["taken_for"]), Cell(str(row["images"])), Cell(str(row["zero_shot"])), Cell(str(row["of"]))),
        )
        for row in record["confusions"]
    )
    headers = ("taken for", "images, theta_1", "images, theta_0", "of")
    return Section(
        "confusions",
        "Confusions",
        "Confusions of theta_1 on held-out images, the most frequent first."
        if lines
        else "No held-out image is wrong.",
        tables=(Table("Confused classes", "class", headers, lines),) if lines else (),
    )
