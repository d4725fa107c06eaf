"""Settings -> the analysis of drift: of what a worker wrote, with what else is known of the images."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from adawise.adapt import advice
from adawise.adapt.card import Card, read_card
from adawise.build.prompts import read_lines
from adawise.commands.drift.example_frames import ExampleFrames
from adawise.commands.drift.options import DriftCommand, parts
from adawise.console import paper, print_json, progress
from adawise.drift.bins import DAY_US
from adawise.drift.limits import parse_limit
from adawise.drift.result import Camera, Example, GalleryFrame, Report
from adawise.errors import SettingsError
from adawise.page import NEEDS as PAGE_NEEDS
from adawise.records import told
from adawise.settings import Settings
from adawise.sink.served_settings import ServedSettings, read_settings
from adawise.store.store import open_store
from adawise.text import as_size, counted

if TYPE_CHECKING:  # with DuckDB, which an extra brings
    from adawise.drift.clocks import Clocks
    from adawise.drift.collect import Collected
    from adawise.drift.judge.helped import Helped
    from adawise.drift.tables import Tables
    from adawise.labels.join import Labels

FOUND = 3

_NEEDS = {"duckdb": "duckdb", "ruptures": "ruptures", "scipy": "scipy"}
_PACKAGES = ("adawise", "numpy", "duckdb", "ruptures", "scipy")
_LEVELS = 4  # that a camera must have had time for
_NAMED = 10  # cameras that a line names
_EXAMPLES = 3  # before something happened and after it
_EXPLAINED = 40  # incidents, in the order of the report, that get examples

_GALLERY = 8  # frames of a kind
_GALLERY_DAYS = 7  # the last that are recorded: rows are many


def drift(asked: DriftCommand) -> int:
    """Analyse, write the page and the figures, print a summary or JSON; 3 if a camera is beyond a limit, else 0.

    Raises:
        SettingsError: no worker wrote there, nothing lies in that time, or a package is missing.
        CardError, SourceError, ChainError, StoreUnavailable: by the card, the recording, the root.
        AlertsNotSent: Alertmanager did not take what happened; all else is told by then.
    """
    settings, page, plots = asked.settings, asked.output, asked.plots
    drawn = page is not None or plots is not None
    _need(_NEEDS | (PAGE_NEEDS if drawn else {}))
    card = None if settings.model.card is None else read_card(settings.model.card)
    report, keep = _report(settings, asked, card)
    if page is not None:
        from adawise.drift.page.write import write_page

        write_page(page, report)
    if plots is not None:
        from adawise.drift.page.plots import write_plots

        write_plots(plots, report)
    limits = map(parse_limit, parts(asked.fail_if) or ())
    beyond = {str(limit): dict(limit.exceeded(report)) for limit in limits}
    _tell(report, asked, beyond)
    if asked.alertmanager is not None:
        assert asked.since is not None  # it is asked for beside it
        from adawise.commands.drift.alertmanager import alerts, send

        now = datetime.now(UTC)
        send(asked.alertmanager, alerts(report, min(asked.until or now, now) - asked.since, now))
    keep()  # what is learned of a night goes into the baseline once somebody was told of it
    return FOUND if any(beyond.values()) else 0


def _report(settings: Settings, asked: DriftCommand, card: Card | None) -> tuple[Report, Callable[[], None]]:
    """And what brings the baseline up to date."""
    from adawise.drift.accuracy import over_time
    from adawise.drift.analyse import analyse
    from adawise.drift.baseline import History
    from adawise.drift.clocks import parse_clocks
    from adawise.drift.collect import ALL, collect
    from adawise.drift.events.known import read_known
    from adawise.drift.library import check_known
    from adawise.drift.queries import written_out
    from adawise.drift.tables import Tables
    from adawise.drift.together import groups
    from adawise.sink.read.duckdb_rows import translated

    objective = "" if card is None else advice.chosen(settings.search.objective, card)
    known = None if card is None else card.levels.get(objective)  # None: the objective came later than the card
    levels = {} if card is None or known is None else dict(zip(card.alphas, known, strict=True))
    normal = (
        ""
        if card is None or known is None
        else f"{settings.model.card}: mean {objective} on {card.images} labelled images"
    )
    frames = None if asked.recording is None else ExampleFrames(str(asked.recording), settings.decode)
    streams, against = parts(asked.streams), parts(asked.against) or ()
    known_already = () if asked.known is None else read_known(asked.known)
    clocks = parse_clocks(parts(asked.time_zone) or ())
    history = History(
        asked.root,
        since=asked.since,
        until=asked.until,
        reference_s=asked.reference,
        file=asked.baseline,
        streams=streams,
    )
    begin, end = history.read_from, asked.until
    with (
        translated(*asked.root, *against),  # before the tables, whose making may read files
        closing(Tables(asked.root, streams=streams, since=begin, until=end, levels=levels)) as tables,
    ):
        check_known(asked.root, tables.connection, streams)
        labels = _labels(settings, asked, tables)
        with progress("read", total=None, unit="questions") as bar:
            found = history.before(
                collect(
                    tables.connection,
                    done=bar.advance,
                    is_labelled=labels.labelled > 0,
                    judged_us=history.judged_us,
                    width_us=history.width_us,
                    silent_us=history.silent_us,
                    end_us=tables.end_us(),
                )
            )
        examples = _Examples(tables, frames)
        with progress("analysed", total=len(found.facts), unit="cameras") as bar:
            cameras, events = analyse(
                found,
                asked.root,
                smallest=asked.smallest,
                examples=examples,
                known=known_already,
                clocks=clocks,
                done=bar.advance,
            )
        chosen, gallery = _gallery(tables, frames)
        models = {each.fingerprint for each in found.models.get(ALL, ())}
        noted = [each for root in asked.root for each in read_settings(open_store(root))]
        noted = [each for each in noted if each.model_fingerprint in models]
        report = Report(
            root=" and ".join(asked.root),
            command=shlex.join(["adawise", *asked.written_out()]),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            since_us=found.since_us,
            judged_us=found.judged_us,
            until_us=found.until_us,
            bin_us=found.bin_us,
            smallest=asked.smallest,
            cameras=cameras,
            overall=found.overall,
            groups=groups({c.stream_id: c.changes for c in cameras}, (found.since_us, found.until_us), found.bin_us),
            events=events,
            models=found.models.get(ALL, ()),
            objective=objective,
            reference=normal,
            recording="" if asked.recording is None else str(asked.recording),
            helped=_helped(asked, labels, card, tables),
            accuracy=over_time(list(found.binned.values())),
            calibration=_calibration(noted, card),
            gallery=gallery,
            queries=written_out(
                *(found.bin_us, found.fine_us, found.wide_us, found.mix_us, history.judged_us),
                is_labelled=labels.labelled > 0,
            )
            | ({"gallery": chosen} if gallery else {}),
            notes=(
                *history.notes,
                *_notes(cameras, found, examples, tables, clocks),
                *_fixed(noted),
                *_never_served(asked, tables),
            ),
            versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        )
        return report, history.save


def _labels(settings: Settings, asked: DriftCommand, tables: Tables) -> Labels:
    from adawise.labels.join import label

    classes = settings.model.classes
    return label(
        tables.connection,
        asked.root,
        file=asked.labels,
        within_us=round(asked.label_within * 1e6),
        classes=None if classes is None else read_lines(classes, "model.classes", "class name"),
    )


def _helped(asked: DriftCommand, labels: Labels, card: Card | None, tables: Tables) -> Helped:
    from adawise.drift.judge.judge import OtherRun, judge
    from adawise.sink.read.rows import read_predictions

    streams, columns = parts(asked.streams), ("topic", "partition", "offset", "index", "label", "confidence", "alpha")
    runs = [
        OtherRun(root, read_predictions(root, streams, asked.since, asked.until, columns).relation)
        for root in parts(asked.against) or ()
    ]
    with progress("judged", total=None, unit="") as bar:
        found = judge(tables.connection, labels, runs, card)
        bar.advance()
    return found


def _fixed(noted: Sequence[ServedSettings]) -> Iterator[str]:
    """That alpha could not move, by what the roots note of the models that served."""
    fixed = [each.settings.get("search.alpha") for each in noted if each.settings.get("search.strategy") == "fixed"]
    if fixed:
        part = "" if len(fixed) == len(noted) else " for a part of it"
        yield (
            f"a fixed alpha of {' or '.join(dict.fromkeys(map(str, fixed)))} served{part}: that it stayed says nothing "
            "of the cameras, the other measures do"
        )


def _calibration(noted: Sequence[ServedSettings], card: Card | None) -> str:
    """At which temperature the confidence in the rows is, by what the roots note of the models that served."""
    cards = {str(each.settings.get("model.card", "")) for each in noted}
    if not cards:
        return "whether confidence is at a card's temperature was not noted"
    if cards == {""}:
        return "the workers had no card, so that confidence is at temperature 1"
    if "" in cards:
        return "the workers had a card for a part of it, and confidence may have moved by that alone"
    other = "" if card is None or card.digest in cards else ", which is not the one that is named"
    return f"confidence is at the temperature of the workers' card{other}"


class _Examples:
    """Frames on both sides of what happened: of the rows nearest to it that the recording has."""

    def __init__(self, tables: Tables, frames: ExampleFrames | None) -> None:
        self._tables, self._frames = tables, frames
        self._explained = self.missing = 0

    def __call__(
        self, stream_id: str, before_us: int, after_us: int, since_us: int, until_us: int
    ) -> tuple[Example, ...]:
        if self._frames is None or self._explained == _EXPLAINED:
            return ()
        self._explained += 1
        near = self._tables.nearest(stream_id, before_us, after_us, since_us, until_us, count=_EXAMPLES)
        pictures = self._frames.pictures([each.row for each in near])
        self.missing += len(near) - len(pictures)
        return tuple(each.example(pictures[each.row]) for each in near if each.row in pictures)


def _gallery(tables: Tables, frames: ExampleFrames | None) -> tuple[str, tuple[GalleryFrame, ...]]:
    """And the query that chose them; "" where there is no recording of these batches."""
    if frames is None:
        return "", ()
    sql, rows = tables.gallery(frames.bounds, days=_GALLERY_DAYS, count=_GALLERY)
    pictures = frames.pictures([row for row, _ in rows])
    return sql, tuple(replace(frame, image=pictures[row]) for row, frame in rows if row in pictures)


def _notes(
    cameras: Sequence[Camera], found: Collected, examples: _Examples, tables: Tables, clocks: Clocks
) -> tuple[str, ...]:
    from adawise.drift.changes.find import ALPHA

    notes, untimed = [*tables.notes], tables.untimed()
    short = [camera.stream_id for camera in cameras if camera.batches < _LEVELS * ALPHA.settle]
    if short:
        notes.append(
            f"{len(short)} of {len(cameras)} cameras have fewer than {_LEVELS * ALPHA.settle} batches: little can be "
            f"told of their changes, since a level has to hold for {ALPHA.settle} of them to count as one"
        )
    if untimed:
        notes.append(
            f"{untimed} batches are left out: nothing says when they were, neither captured-at nor a Kafka timestamp "
            "of 1970 to 2199"
        )
    if ahead := tables.ahead():
        notes.append(
            f"{sum(ahead.values())} batches are left out, because they are of a time to come: the clocks of "
            f"{', '.join(list(ahead)[:_NAMED])}{' and others' if len(ahead) > _NAMED else ''} are ahead"
        )
    if found.wide_us > DAY_US:
        notes.append(
            f"what lasts less than {found.wide_us // DAY_US} days is not seen, for this begins at "
            f"{told(found.since_us // 1000)}: name --since, if a clock was wrong then"
        )
    if not found.rows:
        notes.append(
            "there are no predictions of this time under the root, and an earlier version wrote its traces: classes "
            "and agreement are not known"
        )
    for pattern in clocks.unused([camera.stream_id for camera in cameras]):
        notes.append(f"--time-zone: no camera of this time is called {pattern}, and its zone is of no use")
    if examples.missing:
        notes.append(f"{examples.missing} frames beside events are not in the recording, or have no image any more")
    return tuple(notes)


def _never_served(asked: DriftCommand, tables: Tables) -> Iterator[str]:
    from adawise.drift.never_served import never_served
    from adawise.sink.read.rows import read_predictions

    columns = ("topic", "partition", "offset", "kafka_timestamp")
    since_us, until_us = (None if at is None else round(at.timestamp() * 1e6) for at in (asked.since, asked.until))
    outputs = (read_predictions(root, columns=columns) for root in asked.root)
    found = [each for rows in outputs for each in never_served(tables.connection, rows, since_us, until_us)]
    for each in found[:_NAMED]:
        gap = each.gap
        when = " and ".join(
            "an unknown time" if at is None else told(at // 1000) for at in (each.after_us, each.before_us)
        )
        yield (
            f"{gap.until - gap.first} messages of {each.tp} (offsets {gap.first} to {gap.until - 1}) were never "
            f"served, between {when}: {gap.reason}"
        )
    if len(found) > _NAMED:
        rest = sum(each.gap.until - each.gap.first for each in found[_NAMED:])
        yield f"{rest} more in {len(found) - _NAMED} other places: `adawise verify {' '.join(asked.root)}` lists them"


def _need(packages: Mapping[str, str]) -> None:
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise SettingsError(f"drift needs {', '.join(missing)}; install them with: pip install 'adawise[report]'")


def _tell(report: Report, asked: DriftCommand, beyond: Mapping[str, Mapping[str, float]]) -> None:
    page = asked.output
    if asked.as_json:
        print_json({**report.as_json(), "beyond": beyond, "page": None if page is None else str(page)})
        return
    from adawise.drift.show import show

    out = paper()
    show(report, out)
    for limit, cameras in beyond.items():
        named = ", ".join(f"{name} {value:.3g}" for name, value in list(cameras.items())[:_NAMED])
        who = (
            f"{counted(len(cameras), 'camera is', 'cameras are')} beyond it: {named}"
            if cameras
            else "no camera is beyond it"
        )
        out.print(f"{limit}: {who}", soft_wrap=True)
    if page is not None:
        print(f"page: {page} ({as_size(page.stat().st_size)})")
