"""A report for people at a terminal: cameras, the farthest first, and what happened to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.labels.benefit.helped import Helped, Interval
from adawise.page.notation import LEVEL, two
from adawise.text import as_long_duration, counted
from adawise_drift.changes.times import moment
from adawise_drift.events.accuracy import AGREEMENT_ERROR, ESTIMATE_ERROR, NORMAL
from adawise_drift.events.calendar import hours
from adawise_drift.events.incidents import incidents
from adawise_drift.events.judge import moved
from adawise_drift.events.result import AccuracyCost, AccuracyOverTime, AccuracyPoint, Calendar, Camera, How
from adawise_drift.report import Report

_ALARMED = 0.05  # of the batches of a camera; of AdawiseOverConfident likewise
_CAMERAS = 25  # of the table; all are in the JSON and on the page
_INCIDENTS, _NEXT, _CALENDARS = 12, 3, 8  # likewise
_BEYOND = 10  # cameras beyond a limit that are named
_OF_HOURS, _FREQUENT = 3, 0.05  # conditions whose hours a sentence has, and their share


def show(report: Report, console: Console) -> None:
    """Print a report, as far as a terminal has room."""
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
    calendars = [f"{camera.stream_id}: {told}" for camera in report.cameras if (told := conditions(camera.calendar))]
    for line in calendars[:_CALENDARS]:
        console.print(line, soft_wrap=True, markup=False)
    raised = sorted(report.cameras, key=lambda camera: -camera.calendar.alarms)
    for camera in raised[:_CALENDARS]:
        if told := alarms(camera.calendar):
            console.print(f"{camera.stream_id}: {told}", soft_wrap=True, markup=False)
    if len(calendars) > _CALENDARS:
        console.print(f"and {len(calendars) - _CALENDARS} more cameras with several conditions")
    if told := accuracies(report.accuracy, report.cameras):
        console.print(f"accuracy: {told[:1].lower()}{told[1:]}", soft_wrap=True)
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


def _incidents(report: Report) -> Table:
    table = Table(title="what happened, the worst first", title_justify="left", box=SIMPLE_HEAD)
    for header in ("", "camera", "when (UTC)", "what", "accuracy", "why"):
        table.add_column(header, overflow="fold")
    told = list(incidents(report.events).values())
    for those in told[:_INCIDENTS]:
        first = those[0]
        table.add_row(
            first.state,
            first.stream_id,
            moment(first.since_us) + ("" if first.until_us == first.since_us else f" to {moment(first.until_us)}"),
            "; ".join(moved(event) for event in those),
            cost(first.cost),
            "; ".join(cause.sentence for cause in first.causes if cause.kind != "incident"),
        )
    if len(told) > _INCIDENTS:
        table.caption = f"and {len(told) - _INCIDENTS} more"
    return table


def cost(of: AccuracyCost | None) -> str:
    """Return a cost in words: -0.15 (-0.20 to -0.10, measured)."""
    if of is None:
        return ""
    doubt = ", labels contradict it" if of.is_doubted else ""
    return f"{of.accuracy:+.2f} ({of.low:+.2f} to {of.high:+.2f}, {of.how}{doubt})"


_ESTIMATED: Mapping[How, tuple[str, float]] = {
    "confidence": ("confidence", ESTIMATE_ERROR),
    "agreement": ("the agreement of the endpoints", AGREEMENT_ERROR),
}


def accuracies(of: AccuracyOverTime, cameras: Sequence[Camera] = ()) -> str:
    """Return how accuracy went, measured and estimated, with the errors; "" if nothing is known.

    Of several cameras it says how many of them have labels.
    """
    told = []
    if labelled := of.of("measured"):
        having = sum(bool(camera.accuracy.of("measured")) for camera in cameras)
        whose = f" of {having} of {len(cameras)} cameras" if cameras else ""
        told.append(f"Measured by {sum(point.images for point in labelled):,} labels{whose}: {_went(labelled)}.")
    guessed = [
        f"from {by} {_went(points, is_banded=False)} (off by {two(error)}, {LEVEL} within {two(NORMAL * error)})"
        for how, (by, error) in _ESTIMATED.items()
        if (points := of.of(how))
    ]
    if guessed:
        told.append(f"Estimated {'; '.join(guessed)}: root mean squares, on a pair whose labels are known.")
    if of.off is not None:
        off, way = of.off, "high" if of.off.value > 0 else "low"
        ends = sorted(abs(end) for end in (off.low, off.high))
        said = f"{two(abs(off.value))} too {way} ({LEVEL} {two(ends[0])} to {two(ends[1])})"
        if of.is_wrong and abs(off.value) <= ESTIMATE_ERROR:
            told.append(
                "Do not rely on confidence here: by the labels its estimate is sometimes too high and sometimes "
                "too low."
            )
        elif of.is_wrong:
            told.append(f"Do not rely on confidence here: by the labels its estimate is {said}.")
        elif off.sign:
            told.append(f"On the labelled images the estimate from confidence is {said}.")
        else:
            told.append("On the labelled images the estimate from confidence shows no error on average.")
    return " ".join(told)


def _went(points: Sequence[AccuracyPoint], *, is_banded: bool = True) -> str:
    """Return the first and the last point in words: .81 (95 % .78 to .84) first, .74 (95 % .70 to .78) last."""
    told = [
        two(point.accuracy) + (f" ({LEVEL} {two(point.low)} to {two(point.high)})" if is_banded else "")
        for point in (points[0], points[-1])
    ]
    return f"{told[0]} first, {told[1]} last" if len(points) > 1 else told[0]


def conditions(of: Calendar) -> str:
    """Return a calendar in words: 4 conditions and 2 brief or rare ones, 12 returns; condition 2 from 18 h to 6 h.

    "" of fewer than two conditions.
    """
    if of.count < 2:
        return ""
    frequent = [each for each in of.conditions if each.share >= _FREQUENT]
    told = [f"condition {each.name} {at}" for each in frequent if (at := hours(each))][:_OF_HOURS]
    returns = f"{of.returns:,} {'return' if of.returns == 1 else 'returns'}"
    count = f"{of.shown:,} condition{'s' * (of.shown > 1)}"
    if rest := of.count - of.shown:
        count += f" and {rest:,} brief or rare one{'s' * (rest > 1)}"
    return "; ".join([f"{count}, {returns}", *([", ".join(told)] if told else [])])


def alarms(of: Calendar) -> str:
    """Return where the fine-tuned model may be over-confident; "" where so few alarms may be chance."""
    if of.alarms < _ALARMED:
        return ""
    where = max(of.conditions, key=lambda each: each.share * each.alarms)
    most = f", most of them in condition {where.name}" if of.count > 1 else ""
    return (
        f"alarm in {of.alarms:.0%} of its batches{most}: the fine-tuned model may be over-confident there. Label "
        "some of those images; `adawise card --from-labels` corrects the card"
    )


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
    """Return what a point of a figure is: one point is 1 hour; the lowest and the highest alpha in it are kept."""
    return f"one point is {as_long_duration(report.bin_us / 1e6)}; the lowest and the highest alpha in it are kept"


def _table(title: str, name: str, headers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(name, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    return table
