"""A report for people at a terminal: cameras, the farthest first, and what happened to each."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.labels.benefit.helped import Helped, Interval
from adawise.text import as_size, counted
from adawise.watch.status.facts import LACKING_REMEDY
from adawise_drift.changes.times import moment
from adawise_drift.events.severity import moved
from adawise_drift.events.together import incidents
from adawise_drift.report import Report
from adawise_drift.words import accuracies, alarms, conditions, sampled, short_cost

_CAMERAS = 25  # of the table; all are in the JSON and on the page
_INCIDENTS, _NEXT, _CALENDARS = 12, 3, 8  # likewise
_LACKING = 8  # classes that shortlists lack
_SAMPLED = 12  # cameras with sampled labels
_BEYOND = 10  # cameras beyond a limit that are named


def show(report: Report, console: Console, page: Path | None = None) -> None:
    """Print a report, as far as a terminal has room, and which page was written."""
    console.print(
        f"{report.root}: {len(report.cameras)} cameras, {report.batches} batches, {report.images} images, "
        f"{moment(report.since_us)} to {moment(report.until_us)}",
        soft_wrap=True,
    )
    console.print(f"cameras: {', '.join(f'{count} {name}' for name, count in report.fleet.items())}")
    if report.events:
        console.print(_incidents(report))
        for those in list(incidents(report.events).values())[:_NEXT]:
            console.print(f"look closer at {those[0].stream_id}: {those[0].next}", soft_wrap=True)
    console.print(_cameras(report))
    calendars = [f"{camera.stream_id}: {text}" for camera in report.cameras if (text := conditions(camera.calendar))]
    for line in calendars[:_CALENDARS]:
        console.print(line, soft_wrap=True, markup=False)
    raised = sorted(report.cameras, key=lambda camera: -camera.calendar.alarms)
    for camera in raised[:_CALENDARS]:
        if text := alarms(camera.calendar):
            console.print(f"{camera.stream_id}: {text}", soft_wrap=True, markup=False)
    if len(calendars) > _CALENDARS:
        console.print(f"and {len(calendars) - _CALENDARS} more cameras with several conditions")
    _lacking(report, console)
    if text := accuracies(report.accuracy, report.cameras):
        console.print(f"accuracy: {text[:1].lower()}{text[1:]}", soft_wrap=True)
    _sampled(report, console)
    for group in report.groups:
        names = ", ".join(group.stream_ids[:8]) + (", ..." if len(group.stream_ids) > 8 else "")
        console.print(f"{group.sentence} ({names})")
    if report.helped is not None:
        _helped(report.helped, console)
    for note in report.notes:
        console.print(f"note: {note}")
    for limit, cameras in report.beyond.items():
        named = ", ".join(f"{name} {value:.3g}" for name, value in list(cameras.items())[:_BEYOND])
        who = f"{counted(len(cameras), 'camera exceeds', 'cameras exceed')} it: {named}"
        console.print(f"{limit}: {who if cameras else 'no camera exceeds it'}", soft_wrap=True)
    if page is not None:
        console.print(f"page: {page} ({as_size(page.stat().st_size)})", soft_wrap=True, markup=False)


def _sampled(report: Report, console: Console) -> None:
    found = sorted(report.sampled, key=lambda each: (each.alarm_day is None, -each.evidence))
    for each in found[:_SAMPLED]:
        console.print(f"{each.stream_id}: {sampled(each)}", soft_wrap=True, markup=False)
    if len(found) > _SAMPLED:
        console.print(f"and {len(found) - _SAMPLED} more cameras with a sample")


def _lacking(report: Report, console: Console) -> None:
    found = [f"{camera.stream_id}: {sentence}" for camera in report.cameras for sentence in camera.lacking]
    for line in found[:_LACKING]:
        console.print(line, soft_wrap=True, markup=False)
    if len(found) > _LACKING:
        console.print(f"and {len(found) - _LACKING} more like it")
    if found:
        console.print(f"  -> {LACKING_REMEDY}", soft_wrap=True, markup=False)


def _cameras(report: Report) -> Table:
    title = f"alpha by camera (changes of {report.smallest:g} or more)"
    headers = ("drift", "changes", "alpha", "least", "most", "last", "FE", "images", "rejected", "silences")
    table = _table(title, "camera", headers)
    for camera in report.cameras[:_CAMERAS]:
        alphas = (camera.alpha, camera.alpha_low, camera.alpha_high, camera.alpha_last, camera.forward_equivalents)
        counts = (camera.images, camera.rejected, len(camera.silences))
        drift, changes = f"{camera.drift:.2f}", str(len(camera.changes))
        table.add_row(camera.stream_id, drift, changes, *(f"{alpha:.2f}" for alpha in alphas), *map(str, counts))
    if len(report.cameras) > _CAMERAS:
        table.caption = f"and {len(report.cameras) - _CAMERAS} cameras that drifted less"
    return table


def _incidents(report: Report) -> Table:
    table = Table(title="what happened, the worst first", title_justify="left", box=SIMPLE_HEAD)
    for header in ("", "camera", "when (UTC)", "what", "accuracy", "why"):
        table.add_column(header, overflow="fold")
    found = list(incidents(report.events).values())
    for those in found[:_INCIDENTS]:
        first = those[0]
        table.add_row(
            first.state,
            first.stream_id,
            moment(first.since_us) + ("" if first.until_us == first.since_us else f" to {moment(first.until_us)}"),
            "; ".join(moved(event) for event in those),
            short_cost(first.cost),
            "; ".join(cause.sentence for cause in first.causes if cause.kind != "incident"),
        )
    if len(found) > _INCIDENTS:
        table.caption = f"and {len(found) - _INCIDENTS} more"
    return table


def _between(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}" if interval.is_known else "one batch"


def _helped(helped: Helped, console: Console) -> None:
    if helped.arms:
        title = f"did it help? {helped.labelled} labelled images of {helped.accepted} ({helped.labels_from})"
        table = _table(title, "as served", ("images", "accuracy", "95 %", "ECE", "served minus this", "95 %"))
        for arm in helped.arms:
            gain = arm.gain
            differs = ("", "") if gain is None else (f"{gain.value:+.3f}", _between(gain, "+.3f"))
            accuracy = arm.accuracy
            table.add_row(
                arm.name,
                str(arm.images),
                f"{accuracy.value:.3f}",
                _between(accuracy, ".3f"),
                f"{arm.ece:.3f}",
                *differs,
            )
        console.print(table)
    for estimate in helped.estimates:
        console.print(f"estimate without labels: {estimate.name} {estimate.value:.3f} ({estimate.how})")
    for note in helped.notes:
        console.print(f"note: {note}")


def _table(title: str, name: str, headers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(name, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    return table
