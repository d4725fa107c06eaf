"""A report for people at a terminal: cameras, the farthest first, and what happened to each."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.drift.bins import spoken
from adawise.drift.judge.helped import Helped, Interval
from adawise.drift.result import Camera, CameraChange, Report

_CAMERAS = 25  # of the table; all are in the JSON and on the page
_CHANGES = 12  # of the list


def show(report: Report, console: Console) -> None:
    """Print what a terminal has room for."""
    console.print(
        f"{report.root}: {len(report.cameras)} cameras, {report.batches} batches, {report.images} images, "
        f"{moment(report.since_us)} to {moment(report.until_us)}",
        soft_wrap=True,
    )
    console.print(_cameras(report))
    changes = [(camera, change) for camera in report.cameras for change in camera.changes]
    if changes:
        console.print(_changes(changes))
    for group in report.groups:
        names = ", ".join(group.stream_ids[:8]) + (", ..." if len(group.stream_ids) > 8 else "")
        console.print(f"{group.sentence} ({names})")
    if report.helped is not None:
        _helped(report.helped, console)
    for note in report.notes:
        console.print(f"note: {note}")


def moment(us: int) -> str:
    """2026-11-25 08:00 UTC."""
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")


def _cameras(report: Report) -> Table:
    title = f"alpha by camera (changes of {report.smallest:g} or more)"
    headers = ("drift", "changes", "alpha", "least", "most", "last", "FE", "images", "rejected", "silences")
    table = _table(title, "camera", headers)
    for camera in report.cameras[:_CAMERAS]:
        table.add_row(camera.stream_id, *_numbers(camera))
    if len(report.cameras) > _CAMERAS:
        table.caption = f"and {len(report.cameras) - _CAMERAS} cameras that drifted less"
    return table


def _numbers(camera: Camera) -> list[str]:
    alphas = (camera.alpha, camera.alpha_low, camera.alpha_high, camera.alpha_last, camera.forward_equivalents)
    return [
        f"{camera.drift:.2f}",
        str(len(camera.changes)),
        *(f"{alpha:.2f}" for alpha in alphas),
        str(camera.images),
        str(camera.rejected),
        str(len(camera.silences)),
    ]


def _changes(changes: list[tuple[Camera, CameraChange]]) -> Table:
    table = Table(title="changes, the largest first", title_justify="left", box=SIMPLE_HEAD)
    for header in ("camera", "when (UTC)", "alpha", "what else changed"):
        table.add_column(header, overflow="fold")
    for camera, change in sorted(changes, key=lambda item: -abs(item[1].size))[:_CHANGES]:
        when = moment(change.time_us) + (f" to {moment(change.latest_us)}" if change.kind == "ramp" else "")
        why = "; ".join(cause.sentence for cause in change.causes) or "nothing that was looked at"
        table.add_row(camera.stream_id, when, f"{change.before:.2f} to {change.after:.2f}", why)
    if len(changes) > _CHANGES:
        table.caption = f"and {len(changes) - _CHANGES} smaller ones"
    return table


def _between(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}" if interval.is_known else "one batch"


def _helped(helped: Helped, console: Console) -> None:
    if helped.arms:
        title = f"did it help? {helped.labelled} labelled images of {helped.accepted} ({helped.labels_from})"
        table = _table(title, "what is served", ("images", "accuracy", "95 %", "ECE", "served less this", "95 %"))
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


def resolution(report: Report) -> str:
    """One point is 1 hour; the lowest and the highest alpha in it are kept."""
    return f"one point is {spoken(report.bin_us)}; the lowest and the highest alpha in it are kept"


def _table(title: str, name: str, headers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(name, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    return table
