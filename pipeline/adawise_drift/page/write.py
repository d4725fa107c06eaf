"""The page itself: a report put into the template, with the series of each camera beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from adawise.errors import SettingsError
from adawise.labels.benefit import queries
from adawise.page import Key, theme
from adawise.page.render import render
from adawise.text import counted, two
from adawise_drift.changes.times import moment
from adawise_drift.events.calendar import hours
from adawise_drift.events.result import CameraGroup
from adawise_drift.events.severity import moved
from adawise_drift.page import helping
from adawise_drift.page.cameras import HEADERS, CameraShown, colour, overall, shown
from adawise_drift.page.happened import CARDS, advise, all_incidents, by_camera, marks, outline, timeline
from adawise_drift.page.panels import Panel, panels
from adawise_drift.page.plots import write_plots
from adawise_drift.page.series import HEIGHT, WIDTH, packed, together
from adawise_drift.report import Report
from adawise_drift.words import cost, happened, percent, resolution, when

_SMALL_LEGEND = (
    Key("alpha, mean", "line", theme.INK),
    Key("lowest to highest", "band", theme.RANGE),
    Key("level", "thick", theme.LEVEL),
    Key("change up", "triangle-up", theme.LEVEL),
    Key("change down", "triangle-down", theme.LEVEL),
    Key("no images", "bar", theme.MUTED),
)
_EVENTS = 400  # of the table; each camera has its own in full
_MADE = {  # query -> what it made
    "measures": "run it first, since others use it: the result of each batch, from its trace or else its rows",
    "series": "alpha, objective, cost, confidence, agreement and rejects over time, by camera and over all",
    "changes": "alpha, in which changes are looked for, and the gaps, in which silences are looked for",
    "calendar": "the conditions over time: a row for each stay in one",
    "events": "the measures in which events are looked for, and accuracy over time",
    "mixes": "the mixes of classes in which events are looked for",
    "cameras": "the numbers of each camera",
    "classes": "the mixes of classes",
    "rejects": "why images were rejected",
    "resets": "why the adaptation started anew",
    "gallery": "the frames of the gallery; `recorded` has topic, partition, first and until of the recorded offsets",
    "models": "which models served, and when",
}

_OF_ANSWERS = {
    "accuracy": (queries.KINDS, "accuracies and differences: `answers` has each labelled image and arm"),
    "calibration": (queries.CONFIDENCES, "calibration errors"),
    "confusion": (queries.CONFUSIONS, "which classes were confused"),
}
_TEXTS = {
    "moment": moment,
    "percent": percent,
    "two": two,
    "when": when,
    "cost": cost,
    "happened": happened,
    "moved": moved,
    "outline": outline,
    "counted": counted,
    "colour": colour,
    "hours": hours,
}


@dataclass(frozen=True)
class GroupShown:
    """`mean` is the path of the members' mean alpha."""

    group: CameraGroup
    members: tuple[CameraShown, ...]
    mean: str


def write_files(report: Report, page: Path | None, plots: Path | None) -> None:
    """Write the page and the figures that are wanted. Raises SettingsError if they cannot be written."""
    if page is not None:
        write_page(page, report)
    if plots is not None:
        write_plots(plots, report)


def write_page(path: Path, report: Report) -> None:
    """Write the page; a file that is there is replaced.

    Raises:
        SettingsError: it cannot be written.
    """
    text = page(report)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"-o {path}: the page cannot be written ({error.strerror or error}). Name a file in a folder that exists "
            "and can be written."
        ) from error


def page(report: Report) -> str:
    """Return the page as HTML, a function of the report alone. Names of cameras and classes are only shown."""
    kinds, incidents = panels(), all_incidents(report)
    cameras = shown(report, kinds, by_camera(incidents))
    advice, known = advise(report, incidents), {camera.name: camera for camera in cameras}
    groups = _groups(report, known)
    helped = None if report.helped is None else helping.section(report.helped)
    return render(
        "adawise_drift.page",
        "drift.html.j2",
        styles=("drift.css",),
        scripts=("drift.js", "reader.js"),
        headline=advice.headline,
        sentences=advice.sentences,
        contents=_contents(report),
        command=report.command,
        versions=report.versions,
        report=report,
        cameras=cameras,
        headers=HEADERS,
        fleet=report.fleet,
        known=known,
        timeline=timeline(report, incidents),
        incidents=incidents,
        cards=[each for each in incidents if each.matters][:CARDS],
        gallery={kind: list(those) for kind, those in groupby(report.gallery, key=attrgetter("kind"))},
        heavy=sum(each.matters for each in incidents),
        events_shown=_EVENTS,
        overall=overall(report, kinds),
        panels=kinds,
        groups=groups,
        helped=helped,
        heats=() if report.helped is None else helping.heats(report.helped),
        small_legend=_SMALL_LEGEND,
        queries=_queries(report),
        resolution=resolution(report),
        data={"all": packed(report.overall, report.bin_us, accuracy=report.accuracy), **_series(report, cameras)},
        drawing=_drawing(report, kinds),
        specs={} if helped is None else {figure.anchor: figure.spec for figure in helped.figures},
        width=WIDTH,
        height=HEIGHT,
        texts=_TEXTS,
    )


def _contents(report: Report) -> list[tuple[str, str]]:
    return [
        ("happened", "What happened"),
        ("first", "What matters first"),
        ("cameras", "Cameras side by side"),
        ("ranking", "Ranking"),
        ("events", "All events"),
        *([("gallery", "Gallery")] if report.gallery else []),
        *([("together", "Drift together")] if report.groups else []),
        *([("helped", "Did it help?")] if report.helped is not None else []),
        ("overall", "Over all cameras"),
        ("each", "Camera by camera"),
        *([("notes", "Notes")] if report.notes else []),
    ]


def _series(report: Report, cameras: Sequence[CameraShown]) -> dict[str, Any]:
    return {
        each.anchor: packed(
            each.camera.series,
            report.bin_us,
            accuracy=each.camera.accuracy,
            camera=each.camera,
            marks=marks(each.incidents, report),
        )
        for each in cameras
    }


def _drawing(report: Report, kinds: Sequence[Panel]) -> dict[str, Any]:
    """Return what the script knows beside the series: the span, and what each panel draws and says."""
    return {
        "since": report.since_us / 1e3,
        "until": (report.until_us + report.bin_us) / 1e3,
        "panels": {
            panel.name: {
                "spec": panel.spec,
                "measures": panel.measures,
                "columns": [[c.name, c.title, c.digits, c.until] for c in panel.columns],
            }
            for panel in kinds
        },
    }


def _queries(report: Report) -> dict[str, tuple[str, str]]:
    """Return each query by its name, and what it made."""
    found = {name: (sql, _MADE.get(name, "")) for name, sql in report.queries.items()}
    if report.helped is not None and report.queries:
        found |= _OF_ANSWERS if report.helped.arms else {}
    return {name: (sql.strip(), made) for name, (sql, made) in found.items()}


def _groups(report: Report, known: Mapping[str, CameraShown]) -> tuple[GroupShown, ...]:
    found = []
    for group in report.groups:
        members = tuple(known[name] for name in group.stream_ids if name in known)
        found.append(GroupShown(group, members, together([each.camera for each in members], report)))
    return tuple(found)
