"""The page itself: a report put into the template, with the series of each camera beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from adawise.errors import SettingsError
from adawise.labels.benefit import queries
from adawise.page import Key, theme
from adawise.page.render import render
from adawise.text import counted, percent, two
from adawise_drift.changes.times import moment, shift_us, zone_name
from adawise_drift.events.calendar import hours
from adawise_drift.events.result import CameraGroup
from adawise_drift.events.severity import moved
from adawise_drift.page import helping
from adawise_drift.page.cameras import HEADERS, CameraShown, colour, overall, shown
from adawise_drift.page.happened import CARDS, advise, all_incidents, at_once, by_camera, marks, outline, timeline
from adawise_drift.page.panels import Panel, panels
from adawise_drift.page.plots import write_plots
from adawise_drift.page.series import HEIGHT, WIDTH, inert, packed, together, with_fewer_points
from adawise_drift.report import Report
from adawise_drift.words import axis, cost, happened, resolution, sampled, when

_SMALL_LEGEND = (
    Key("alpha, mean", "line", theme.INK),
    Key("lowest to highest", "band", theme.RANGE),
    Key("level", "thick", theme.LEVEL),
    Key("change up", "triangle-up", theme.LEVEL),
    Key("change down", "triangle-down", theme.LEVEL),
    Key("no images", "bar", theme.MUTED),
)
_EVENTS = 400  # of the table; each camera has its own in full
_ROWS = 24  # of a list, until the reader wants all
_LINES = 12  # cameras of a group that are drawn
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
    "zone": zone_name,
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
    report = with_fewer_points(report)
    kinds, incidents = panels(), all_incidents(report)
    cameras = shown(report, kinds, by_camera(incidents))
    of_fleet = at_once(report, incidents)
    folded = {each.lead.incident for of in of_fleet for each in of.incidents}
    advice, known = advise(report, incidents, of_fleet), {camera.name: camera for camera in cameras}
    groups = _groups(report, known)
    helped = (
        None
        if report.helped is None
        else helping.section(report.helped, {camera.name: camera.state for camera in cameras})
    )
    kept: dict[str, str] = {}

    def keep(name: str, html: str, of: tuple[Mapping[str, Any], bytes] = ({}, b"")) -> str:
        """Put it by, for the end of the page: what is drawn when it is opened."""
        head, values = of
        kept[name] = inert({"html": html, **head}, values)
        return ""

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
        cards=[each for each in incidents if each.matters and each.lead.incident not in folded][:CARDS],
        of_fleet=of_fleet,
        fallen=_fallen(report, known),
        gallery={kind: list(those) for kind, those in groupby(report.gallery, key=attrgetter("kind"))},
        heavy=sum(each.matters for each in incidents),
        events_shown=_EVENTS,
        rows=_ROWS,
        lines=_LINES,
        kept=kept,
        zone=report.clocks.zone,
        zones=_zones(report),
        overall=overall(report, kinds),
        panels=kinds,
        groups=groups,
        helped=helped,
        heats=() if report.helped is None else helping.heats(report.helped),
        small_legend=_SMALL_LEGEND,
        queries=_queries(report),
        resolution=resolution(report),
        data=_series(report, cameras),
        drawing=(_drawing(report, kinds, cameras), b""),
        specs={} if helped is None else {figure.anchor: figure.spec for figure in helped.figures},
        width=WIDTH,
        height=HEIGHT,
        texts={**_TEXTS, "keep": keep, "axis": partial(axis, us=report.until_us)},
    )


def _fallen(report: Report, known: Mapping[str, CameraShown]) -> list[tuple[str, str]]:
    """Return the cameras of which a sample shows a loss of accuracy, the surest first, each with its sentence."""
    return [(each.stream_id, sampled(each)) for each in report.fallen[:CARDS] if each.stream_id in known]


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
        ("words", "Words"),
    ]


def _zones(report: Report) -> str:
    """Return whose clocks the times are by, where it is not UTC for all."""
    clocks = report.clocks
    named = {"": clocks.zone, **clocks.of}
    if all(zone is UTC for zone in named.values()):
        return ""
    return "times by " + ", ".join(f"{zone}{f' ({pattern})' if pattern else ''}" for pattern, zone in named.items())


def _series(report: Report, cameras: Sequence[CameraShown]) -> dict[str, tuple[dict[str, Any], bytes]]:
    found = {"all": _local(packed(report.overall, report.bin_us, accuracy=report.accuracy), report.clocks.zone, report)}
    for each in cameras:
        of, happened = each.camera, marks(each.incidents, report)
        series = packed(of.series, report.bin_us, accuracy=of.accuracy, camera=of, marks=happened)
        found[each.anchor] = _local(series, each.zone, report)
    return found


def _local(of: tuple[dict[str, Any], bytes], zone: tzinfo, report: Report) -> tuple[dict[str, Any], bytes]:
    """Return a series with what the clocks of its figures are ahead of UTC, in milliseconds, and are called."""
    head, values = of
    at_us = report.until_us
    return {**head, "shift": shift_us(at_us, zone) / 1e3, "zone": zone_name(at_us, zone)}, values


def _drawing(report: Report, kinds: Sequence[Panel], cameras: Sequence[CameraShown]) -> dict[str, Any]:
    """Return what the script knows beside the series: the span, what each panel draws and says, where incidents are."""
    return {
        "incidents": {incident.anchor: camera.anchor for camera in cameras for incident in camera.incidents},
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
