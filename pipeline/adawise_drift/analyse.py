"""The analysis: a request -> a report, and what is written and sent of it. `drift` and `adawise.analyse` call it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from adawise.console import Lines, Progress
from adawise.labels.benefit.estimate import Among, OtherRun, estimate_benefit
from adawise.labels.join import label
from adawise.labels.sample.days import is_sample, read_days
from adawise.output.read.duckdb_rows import translated
from adawise.output.read.rows import read_predictions
from adawise.sink.served_by import ServedSettings, read_settings
from adawise.store.store import open_store
from adawise_drift import notes
from adawise_drift.baseline import History, write_baseline
from adawise_drift.cameras import analyse_cameras
from adawise_drift.collect import ALL, Collected, Tables
from adawise_drift.events.accuracy import over_time
from adawise_drift.events.known import KnownSpan, read_known
from adawise_drift.events.result import Example, GalleryFrame
from adawise_drift.events.sampled import SampledAccuracy, by_sample, collected
from adawise_drift.events.together import groups
from adawise_drift.queries import LISTED, written_out
from adawise_drift.report import Report
from adawise_drift.request import DriftRequest

if TYPE_CHECKING:  # with torch, and the recording's and the decoder's libraries, which most reports do without
    from adawise.card.card import Card
    from adawise_drift.example_frames import ExampleFrames

Steps = Callable[[str, int | None, str], AbstractContextManager[Progress]]
"""(what is done, how many there will be, what is counted) -> the progress of a step; `console.progress` is one."""

_PACKAGES = ("adawise", "numpy", "duckdb", "ruptures", "scipy")
_EXAMPLES = 3  # before something happened and after it
_EXPLAINED = 40  # incidents, in the order of the report, that get examples
_GALLERY = 8  # frames of a kind
_GALLERY_DAYS = 7  # the last that are recorded: rows are many


def _unshown(title: str, total: int | None, unit: str) -> AbstractContextManager[Progress]:
    """Return the progress of a step that is not shown."""
    return nullcontext(Lines(title, total, unit, write=lambda _: None))


def analyse(request: DriftRequest, steps: Steps = _unshown) -> Report:
    """Return what happened on these cameras, over all that is watched. Nothing is written.

    Args:
        request: what to analyse.
        steps: makes the progress of each step.

    Raises:
        SettingsError: no worker wrote there, nothing lies in that time, a camera is not known (with the nearest names),
            or a file cannot be used.
        CardError, SourceError, ChainError, StoreUnavailable: by the card, the recording, the roots.
    """
    normal = _normal(request)
    known = () if request.known is None else read_known(request.known)
    history = History(request)
    with (
        translated(*request.roots, *request.against),  # before the tables, whose making may read files
        closing(Tables(request.roots, request.streams, history.read_from, request.until, normal.levels)) as tables,
    ):
        tables.expect_streams()
        return _report(request, normal, known, history, tables, steps)


def _report(
    request: DriftRequest, normal: _Normal, known: Sequence[KnownSpan], history: History, tables: Tables, steps: Steps
) -> Report:
    labels = label(
        tables.connection,
        request.roots,
        file=request.labels,
        within_us=request.label_within // timedelta(microseconds=1),
        classes=request.classes,
    )
    with steps("read", None, "questions") as bar:
        found = history.collect(tables, bar.advance, is_labelled=labels.labelled > 0)
    examples = _Examples(tables, request.frames)
    with steps("analysed", len(found.facts), "cameras") as bar:
        cameras, events = analyse_cameras(
            found,
            request.roots,
            smallest=request.smallest,
            examples=examples,
            known=known,
            clocks=request.clocks,
            done=bar.advance,
        )
    query, gallery = examples.gallery()
    served = _served(request.roots, found)
    with steps("judged", None, "") as bar:
        among = Among(LISTED, request.shortlists, len(request.classes or ()))
        helped = estimate_benefit(tables.connection, labels, _replays(request), normal.card, among)
        bar.advance()
    sampled = _sampled(request)
    fallen = {each.stream_id for each in sampled if each.alarm_day is not None}
    widths = (found.bin_us, found.fine_us, found.wide_us, found.mix_us)
    queries = written_out(*widths, history.judged_us, is_labelled=labels.labelled > 0)
    return Report(
        root=" and ".join(request.roots),
        command=request.command,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        since_us=found.since_us,
        judged_us=found.judged_us,
        until_us=found.until_us,
        bin_us=found.bin_us,
        smallest=request.smallest,
        cameras=cameras,
        overall=found.overall,
        groups=groups({c.stream_id: c.changes for c in cameras}, (found.since_us, found.until_us), found.bin_us),
        events=events,
        models=found.models.get(ALL, ()),
        objective=normal.objective,
        reference=normal.source,
        recording="" if request.frames is None else request.frames.root,
        helped=helped,
        sampled=sampled,
        accuracy=over_time([*found.binned.values()]),
        calibration=notes.calibration(served, normal.card),
        gallery=gallery,
        queries=queries | ({"gallery": query} if gallery else {}),
        notes=(
            *history.notes,
            *notes.left_out(tables, found, cameras, request.clocks),
            *examples.notes(),
            *notes.fixed_alphas(served),
            *notes.labels_of_results(served),
            *notes.never_served(tables, request.roots, request.since, request.until),
        ),
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        clocks=request.clocks,
        baseline=history.updated(),
        beyond={str(limit): limit.exceeded(cameras, events, helped, fallen) for limit in request.limits},
    )


def finish(request: DriftRequest, report: Report, alertmanager: str | None = None) -> None:
    """Send the alerts of a report, if an Alertmanager is named, and then bring the request's baseline up to date.

    To be called once the report was printed: what the baseline knows is not reported again, and events whose alerts
    were not sent must stay unknown to the next run.

    Raises:
        AlertsNotSent: Alertmanager did not take the alerts; the baseline is not saved.
        SettingsError: the baseline cannot be written.
    """
    if alertmanager is not None:
        from adawise_drift.alertmanager import alerts, send

        assert request.since is not None  # `problems` requires --since with --alertmanager
        now = datetime.now(UTC)
        send(alertmanager, alerts(report, min(request.until or now, now) - request.since, now))
    if request.baseline is not None and report.baseline is not None:
        write_baseline(request.baseline, report.baseline)


@dataclass(frozen=True, slots=True)
class _Normal:
    """The card, its objective, the mean of that by alpha, and where it is from; empty where it is not known."""

    card: Card | None = None
    objective: str = ""
    levels: Mapping[float, float] = field(default_factory=dict)
    source: str = ""


def _normal(request: DriftRequest) -> _Normal:
    """Return what the request's card says; it has no level of an objective that came later than the card."""
    if request.card is None:
        return _Normal()
    from adawise.card import advice
    from adawise.card.card import read_card

    card = read_card(request.card)
    objective = advice.chosen(request.objective, card)
    levels = card.levels.get(objective)
    if levels is None:
        return _Normal(card, objective)
    source = f"{request.card}: mean {objective} on {card.images} labelled images"
    return _Normal(card, objective, dict(zip(card.alphas, levels, strict=True)), source)


def _served(roots: Sequence[str], found: Collected) -> list[ServedSettings]:
    """Return the settings that the roots note of the models that served."""
    models = {each.fingerprint for each in found.models.get(ALL, ())}
    noted = [each for root in roots for each in read_settings(open_store(root))]
    return [each for each in noted if each.model_fingerprint in models]


def _sampled(request: DriftRequest) -> tuple[SampledAccuracy, ...]:
    """Return the accuracy of the request's cameras by its sample; the level is of all cameras that were drawn."""
    if request.labels is None or not is_sample(request.labels):
        return ()
    found = by_sample(collected(read_days(Path(request.labels))), request.least_accuracy)
    return tuple(each for each in found if request.streams is None or each.stream_id in request.streams)


def _replays(request: DriftRequest) -> list[OtherRun]:
    columns = ("topic", "partition", "offset", "index", "label", "confidence", "alpha")
    return [
        OtherRun(root, read_predictions(root, request.streams, request.since, request.until, columns).relation)
        for root in request.against
    ]


class _Examples:
    """Frames of a recording, if there is one: on both sides of what happened, and of the gallery."""

    def __init__(self, tables: Tables, frames: ExampleFrames | None) -> None:
        self._tables, self._frames = tables, frames
        self._explained = self._missing = 0

    def __call__(
        self, stream_id: str, before_us: int, after_us: int, since_us: int, until_us: int
    ) -> tuple[Example, ...]:
        """Return the rows nearest to a moment that the recording has, with their pictures."""
        if self._frames is None or self._explained == _EXPLAINED:
            return ()
        self._explained += 1
        rows = self._tables.nearest(stream_id, before_us, after_us, since_us, until_us, count=_EXAMPLES)
        pictures = self._frames.pictures([row for row, _ in rows])
        self._missing += len(rows) - len(pictures)
        return tuple(replace(frame, image=pictures[row]) for row, frame in rows if row in pictures)

    def gallery(self) -> tuple[str, tuple[GalleryFrame, ...]]:
        """Return the query that chose the frames, and these; nothing where no recording has these batches."""
        if self._frames is None:
            return "", ()
        sql, rows = self._tables.gallery(self._frames.bounds, days=_GALLERY_DAYS, count=_GALLERY)
        pictures = self._frames.pictures([row for row, _ in rows])
        return sql, tuple(replace(frame, image=pictures[row]) for row, frame in rows if row in pictures)

    def notes(self) -> Iterator[str]:
        """Yield how many frames the recording lacks."""
        if self._missing:
            yield f"{self._missing} frames beside events are not in the recording, or their image was removed"
