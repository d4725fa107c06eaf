"""The comparison for the terminal: a sentence, settings that differ, totals, streams that differ, and classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.labels.compare.result import ByLabels, FirstBatch, RunDifference, SettingDifference, StreamDifference

_STREAMS, _CLASSES = 12, 12  # shown; the JSON has all of them
_LONGEST = 40  # characters of a name
_TRIALS = 6  # shown of a batch
_WORDS = {
    "last_offset": "where it ends",
    "previous_alpha": "alpha before",
    "posterior_mean": "posterior",
    "posterior_sd": "posterior",
    "audit_regret": "audit",
    "forward_equivalents": "FE",
}


def show(found: RunDifference, console: Console) -> None:
    """Print the comparison."""
    first, *more = sentences(found)
    console.print(first, soft_wrap=True)
    if found.settings:
        console.print(_settings(found.settings))
    elif unnoted := _unnoted(found):
        console.print(unnoted, soft_wrap=True)
    for line in more:
        console.print(line, soft_wrap=True)
    if not found.differs:
        return
    if found.by_labels.streams:
        console.print(_accuracies(found.by_labels))
    console.print(_totals(found))
    parted = [stream for stream in found.streams if stream.differs]
    console.print(_streams(parted))
    if found.totals.relabelled:
        console.print(_classes(found))


def sentences(found: RunDifference) -> Iterator[str]:
    """Yield what was found, in words."""
    a, b, totals = found.a.root, found.b.root, found.totals
    cameras = len({stream.stream_id for stream in found.streams if stream.images})
    if found.differs:
        parted = [stream for stream in found.streams if stream.differs]
        yield (
            f"{a} (A) and {b} (B) differ in {len(parted)} of {cameras} streams: {totals.differing} of "
            f"{totals.images} rows differ, {totals.relabelled} have another label"
        )
        if all(s.first_batch is not None and s.first_batch.last_of_its_run for s in parted):
            yield "  only in the last batches, which the end of one run cut short"
    else:
        yield (
            f"{a} (A) and {b} (B) are equal: {totals.images} rows of {cameras} streams in {totals.batches} batches, "
            "every alpha, trial, label and probability"
        )
    for name, other, alone, beyond in zip("AB", "BA", totals.alone, totals.beyond, strict=True):
        if alone:
            yield f"  {alone} rows are only in {name}, although {other} has read these messages"
        if beyond:
            yield f"  {beyond} more rows are only in {name}: {other} has not read these messages"
    if totals.given_differing:
        yield (
            f"  {totals.given_differing} rows differ in the image's time, label or id: check that these are the "
            "same messages"
        )
    if totals.renumbered:
        yield f"  {totals.renumbered} rows are of batches with another number, which is not a difference"
    runs = [(name, run.label_columns) for name, run in (("A", found.a), ("B", found.b))]
    if served := [(name, columns) for name, columns in runs if "scene_label" in columns]:
        names = " and ".join(f"a part of {name}" if len(columns) > 1 else name for name, columns in served)
        yield (
            f"  results of {names} had scene_label as label (scene.prior = served); labels and accuracies here are "
            "of the column label"
        )
    yield from _verdict(found)


def _verdict(found: RunDifference) -> Iterator[str]:
    """Yield which run is better, as far as the labels show it."""
    by_labels, of = found.by_labels, found.by_labels.whole
    if of is not None:
        (a, b), by = of.accuracy, of.difference
        better = ("by the labels neither is better", "B is better", "A is better")[by.sign]
        chance = f" (95 % interval {_signed(by.low)} to {_signed(by.high)})" if by.is_known else ""
        right = f"of {of.images} labelled images in {of.batches} batches A is right on {_three(a.value)}"
        text = f"{better}: {right}, B on {_three(b.value)}, B minus A {_signed(by.value)}{chance}"
        yield f"{text if found.differs else right + ', and so is B'}; labels from {by_labels.source}"
    if of is not None or found.differs:
        yield from (f"  {note}" for note in by_labels.notes)


def _accuracies(by_labels: ByLabels) -> Table:
    table = _table(
        "accuracy by camera, the largest differences first", "stream", "labels", "A", "B", "B minus A", "95 %"
    )
    ordered = sorted(by_labels.streams.items(), key=lambda item: (-abs(item[1].difference.value), item[0]))
    for name, of in ordered[:_STREAMS]:
        by = of.difference
        ends = f"{_signed(by.low)} to {_signed(by.high)}" if by.is_known else "-"
        accuracies = [_three(side.value) for side in of.accuracy]
        table.add_row(name, str(of.images), *accuracies, _signed(by.value), ends)
    if len(ordered) > _STREAMS:
        table.caption = f"and {len(ordered) - _STREAMS} more (--json has all of them)"
    return table


def _settings(settings: Sequence[SettingDifference]) -> Table:
    table = Table(title="settings that differ", title_justify="left", box=SIMPLE_HEAD)
    for header in ("", "A", "B"):
        table.add_column(header, overflow="fold")
    for each in settings:
        table.add_row(each.name, *(", then ".join(map(_setting, side)) for side in (each.a, each.b)))
    return table


def _setting(value: Any) -> str:
    return "-" if value is None or value == "" else json.dumps(value) if isinstance(value, bool) else str(value)


def _unnoted(found: RunDifference) -> str:
    """Return a note that the settings differ, if it is unknown which ones; else ""."""
    runs = {name: run for name, run in (("A", found.a), ("B", found.b)) if run.unnoted}
    if not runs or (found.a.settings, found.a.models) == (found.b.settings, found.b.models):
        return ""
    prints = " and ".join(f"{name} ({', '.join(run.unnoted)})" for name, run in runs.items())
    return f"  which settings differ is not known: an earlier version wrote {prints}, and recorded none"


def _totals(found: RunDifference) -> Table:
    totals = found.totals
    table = _table("", "", "A", "B")
    table.add_row("models", *_sides(found, "models"))
    table.add_row("settings", *_sides(found, "settings"))
    if totals.labelled:
        table.add_row(f"accuracy ({totals.labelled} labels)", *(_three(share) for share in totals.accuracy))
    table.add_row("forwards per image", *(_two(passed) for passed in totals.forward_equivalents))
    share = totals.relabelled / max(totals.images, 1)
    table.caption = (
        f"labels: {totals.relabelled} of {totals.images} changed ({share:.1%}), kappa {_three(totals.kappa)}"
    )
    if totals.alpha_max is not None:
        table.caption += (
            f"\nalpha: |A - B| {_three(totals.alpha_mean)} on average, {_three(totals.alpha_max)} at most; other in "
            f"{totals.batches_apart} of {totals.batches} batches ({totals.batches_apart / max(totals.batches, 1):.0%})"
        )
    return table


def _sides(found: RunDifference, name: str) -> list[str]:
    a, b = (", ".join(getattr(run, name)) for run in (found.a, found.b))
    return [a, "the same"] if a == b else [a, b]


def _streams(streams: list[StreamDifference]) -> Table:
    table = _table("where they differ: the first differing batch of each stream", "stream")
    table.add_column("first at", overflow="fold")
    table.add_column("what", overflow="fold")
    for name in ("A", "B", "labels\nchanged", "mean\n|Δ alpha|", "batches\ndiffering"):
        table.add_column(name, justify="right", overflow="fold")
    for stream in streams[:_STREAMS]:
        table.add_row(
            stream.stream_id or "(none)",
            *_first(stream),
            f"{stream.relabelled} of {stream.images}",
            _three(stream.alpha_mean),
            f"{stream.batches_differing} of {stream.batches}",
        )
    if len(streams) > _STREAMS:
        table.caption = f"and {len(streams) - _STREAMS} more (--json has all of them)"
    return table


def _first(stream: StreamDifference) -> tuple[str, str, str, str]:
    """Return (where, what differs first, its value in A, its value in B)."""
    batch, row = stream.first_batch, stream.first_row
    if batch is not None:
        side = batch.a or batch.b or {}
        where = f"{stream.topic}/{stream.partition}/{batch.first_offset}\nbatch {side['batch_number']}{_time(side)}"
        what, a, b = _what(batch)
        return where, what, a, b
    if row is None:
        return "", "", "", ""
    if row.only_in is not None:
        return row.row_id, "row", "there" if row.only_in == "a" else "-", "there" if row.only_in == "b" else "-"
    first = row.what[0]
    values = {"label": row.label, "confidence": row.confidence, "alpha": row.alpha}.get(first, ("", ""))
    return row.row_id, first, *_in_full(*values)


def _what(batch: FirstBatch) -> tuple[str, str, str]:
    if batch.a is None or batch.b is None:
        return "cut elsewhere", "-" if batch.a is None else "batch", "-" if batch.b is None else "batch"
    if not batch.what:
        return "", "", ""
    name = "images" if "images" in batch.what else batch.what[0]
    return _WORDS.get(name, name), *_in_full(batch.a[name], batch.b[name])


def _in_full(a: Any, b: Any) -> tuple[str, str]:
    """Format both values with as few digits as show that they differ."""
    for digits in _DIGITS:
        one, other = _value(a, digits), _value(b, digits)
        if one != other:
            break
    return one, other


_DIGITS = (3, 6, 9, 17)


def _value(value: Any, digits: int) -> str:
    if isinstance(value, list):  # trials: alpha, and the objective there
        lines = [f"{trial['alpha']:g} {trial['objective']:.{digits}g}" for trial in value]
        return "\n".join([*lines[:_TRIALS], *([f"and {len(lines) - _TRIALS} more"] if lines[_TRIALS:] else [])])
    if isinstance(value, dict):  # counts by class
        return "\n".join(f"{name} {count}" for name, count in sorted(value.items()))
    return f"{value:.{digits}g}" if isinstance(value, float) else "-" if value is None else str(value)


def _time(side: Mapping[str, Any]) -> str:
    moment = side["captured_at"] or side["kafka_timestamp"]
    return "" if moment is None else f"{moment:, %Y-%m-%d %H:%M:%S}"


def _classes(found: RunDifference) -> Table:
    table = _table("labels by class, least agreement first", "class", "A", "B", "both", "agreement")
    ordered = sorted(found.classes, key=lambda one: (one.agreement, -one.a - one.b))
    for one in ordered[:_CLASSES]:
        table.add_row(one.name, str(one.a), str(one.b), str(one.both), _three(one.agreement))
    table.caption = "agreement: both over either"
    if len(ordered) > _CLASSES:
        table.caption += f"; {len(ordered) - _CLASSES} more classes are in --json"
    return table


def _table(title: str, first: str, *headers: str) -> Table:
    table = Table(title=title or None, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    table.add_column(first, no_wrap=True, max_width=_LONGEST)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _signed(value: float) -> str:
    """Format a difference, such as +.012."""
    return f"{value:+.3f}".replace("0.", ".", 1)


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _three(value: float | None) -> str:
    """Format a share as papers do, such as .652."""
    if value is None:
        return "-"
    return f"{value:.3f}".removeprefix("0") if 0 < value < 1 else f"{value:g}"
