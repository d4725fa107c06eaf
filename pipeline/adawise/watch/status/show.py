"""A status as text for a terminal: what is wrong first, then workers, partitions and cameras."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adawise.output.verify.findings import Finding
from adawise.text import as_duration, counted
from adawise.watch.backlog import caught_up_in
from adawise.watch.row import CameraState
from adawise.watch.status.facts import LACKING_REMEDY, CameraStatus, FleetStatus, PartitionStatus

_OF_A_KIND = 4  # troubles of a kind that are shown
_CAMERAS = 16  # up to so many cameras are all shown; of more, those in trouble
_PARTITIONS = 24
_WORKERS = 12
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {
    CameraState.FAILING: "red",
    CameraState.SILENT: "red",
    CameraState.REJECTED: "red",
    CameraState.CHANGED: "yellow",
    CameraState.OK: "green",
    CameraState.GONE: "dim",
}
_SUBJECTS = {"root_unreadable": "root", "broker_silent": "broker"}  # kind of trouble -> whom it is about
_NAME = 40  # characters of a camera's name


def picture(found: FleetStatus, *, show_all: bool, height: int | None = None) -> RenderableType:
    """Return all that there is to see. With `height`, in lines, tables are cut so that the troubles stay in sight."""
    room = None if height is None else max(4, height - 12 - 2 * min(len(found.troubles), 6))
    return Group(*_parts(found, show_all=show_all, room=room))


def _parts(found: FleetStatus, *, show_all: bool, room: int | None) -> Iterator[RenderableType]:
    yield _heading(found)
    silent = {_SUBJECTS.get(trouble.kind) for trouble in found.troubles}
    for whom, why in found.not_asked.items():
        if whom not in silent:  # else a trouble says why it could not be asked
            yield Text(f"{whom} was not asked: {plain(why)}", style="yellow")
    yield from _troubles(found.troubles, show_all=show_all)
    if found.members:
        yield _members(found, _WORKERS if not show_all else None, is_silent="broker" in silent)
    if found.partitions:
        yield _partitions(found.partitions, _PARTITIONS if room is None else min(room, _PARTITIONS), show_all=show_all)
    yield from (Text(f"method: {plain(method)}") for method in found.methods)
    if columns := found.label_columns:
        yield Text(f"label of results: {' and '.join(columns)}")
    if found.cameras:
        yield from _cameras(found, room, show_all=show_all)
        yield from _lacking(found.cameras, show_all=show_all)
    if found.rejects:
        words = ", ".join(f"{each.reason} {each.images} of {each.streams} cameras" for each in found.rejects)
        yield Text(f"rejected in the last {as_duration(found.window_s)}: {words}")


def _heading(found: FleetStatus) -> Text:
    state = "" if found.group_state in (None, "Stable", "Unknown") else f" ({found.group_state})"
    head = Text(f"{found.root}: ", style="bold")
    if found.is_well:
        head.append("all is well", style="bold green")
    else:
        kinds = len({trouble.kind for trouble in found.troubles})
        head.append(f"{counted(len(found.troubles), 'trouble')} of {counted(kinds, 'kind')}", style="bold red")
    head.append(f"; topic {found.topic}, group {plain(found.group)}{state}, {found.at}", style="not bold")
    return head


def _troubles(troubles: Sequence[Finding], *, show_all: bool) -> Iterator[Text]:
    for kind, grouped in groupby(troubles, key=lambda trouble: trouble.kind):
        alike = list(grouped)
        shown = alike if show_all else alike[:_OF_A_KIND]
        for trouble in shown:
            where = f"{plain(trouble.where)}: " if trouble.where else ""
            yield Text.assemble(("! ", "bold red"), (where, "bold"), plain(trouble.what), f" [{kind}]")
        if len(alike) > len(shown):
            yield Text(f"  and {len(alike) - len(shown)} more like it (--all)")
        yield Text(f"  -> {plain(alike[0].remedy)}", style="cyan")


def _members(found: FleetStatus, most: int | None, *, is_silent: bool) -> Table:
    is_known = found.group_state is not None
    why = "did not answer" if is_silent else "was not asked"
    table = _table("workers" if is_known else f"wrote last (the broker {why})", "host", ("partitions", "id"))
    for member in found.members[:most]:
        numbers = ", ".join(map(str, member.partitions)) if member.partitions else "unknown" if is_known else "none"
        table.add_row(plain(member.host or "unknown"), numbers, plain(member.member))
    return _cut(table, len(found.members), most)


def _partitions(partitions: Sequence[PartitionStatus], most: int, *, show_all: bool) -> Table:
    headers = (
        *("log", "committed", "head", "pending", "lag", "behind", "came/s", "served/s", "catch up"),
        *("last commit", "rows", "written by"),
    )
    table = _table("partitions", "partition", headers)
    # If not all partitions are shown, those with the largest lag come first.
    ordered = list(partitions)
    if not show_all and len(partitions) > most:
        ordered = sorted(partitions, key=lambda each: -(each.lag or 0))[:most]
    for each in ordered:
        log = "?" if each.log_end is None else f"{each.log_start}..{each.log_end}"
        table.add_row(
            each.called,
            log,
            *map(_or, (each.committed, each.next_offset, each.pending, each.lag)),
            "?" if each.lag_s is None else as_duration(each.lag_s),
            _or(each.arriving_per_s, ".1f"),
            _or(each.served_per_s, ".1f"),
            caught_up_in(each.backlog.catch_up_s) if each.backlog.catch_up_s else "",
            "never" if each.commit_age_s is None else f"{as_duration(each.commit_age_s)} ago",
            str(each.rows),
            plain(each.writer or "none yet"),
        )
    return _cut(table, len(partitions), len(ordered))


def _cameras(found: FleetStatus, room: int | None, *, show_all: bool) -> Iterator[RenderableType]:
    states = ", ".join(f"{count:,} {state}" for state, count in found.camera_states.items() if count)
    if show_all or len(found.cameras) <= _CAMERAS:
        shown = list(found.cameras)
    else:
        shown = [camera for camera in found.cameras if camera.state.is_trouble][: 2 * _CAMERAS]
    shown = shown if room is None or show_all else shown[:room]
    yield Text(f"{counted(len(found.cameras), 'camera')}: {states} (in the last {as_duration(found.window_s)})")
    if shown:
        headers = ("state", "seen", "alpha", "", "cond.", "images", "a second", "rejected", "FE", "agree")
        table = _table("", "camera", (*headers, "most served"))
        for camera in shown:
            table.add_row(*_camera(camera))
        for column in table.columns[:2]:  # name and state keep their width where there is little room
            column.min_width = max(len(str(cell)) for cell in column.cells)
        yield _cut(table, len(found.cameras), len(shown))
    elif not show_all:
        yield Text("no camera is in trouble; --all shows all of them")


def _lacking(cameras: Sequence[CameraStatus], *, show_all: bool) -> Iterator[Text]:
    found = [(camera.stream_id, what) for camera in cameras for what in camera.lacking]
    shown = found if show_all else found[:_OF_A_KIND]
    for name, what in shown:
        yield Text.assemble((f"{plain(name)}: ", "bold"), plain(what))
    if len(found) > len(shown):
        yield Text(f"and {len(found) - len(shown)} more like it (--all)")
    if found:
        yield Text(f"  -> {LACKING_REMEDY}", style="cyan")


def _camera(camera: CameraStatus) -> Iterator[RenderableType]:
    name = plain(camera.stream_id)
    yield name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."
    yield Text(camera.state, style=_STYLES[camera.state])
    yield "?" if camera.age_s is None else f"{as_duration(camera.age_s)} ago"
    yield _or(camera.alpha, ".2f")
    yield sparkline(camera.alphas[-24:])
    yield _or(camera.condition, otherwise="") + (f" (back {camera.returns}×)" if camera.returns else "")
    yield str(camera.images)
    yield _or(camera.images_per_s, ".3g", "")
    yield str(camera.rejected)
    yield _or(camera.forward_equivalents, ".2f", "")
    yield "" if camera.agreement is None else f"{100 * camera.agreement:.0f} %"
    yield ", ".join(f"{plain(label)} {100 * share:.0f} %" for label, share in camera.top[:2])


def sparkline(alphas: Sequence[float]) -> str:
    """Return a bar for each alpha in [0, 1]."""
    return "".join(_BARS[min(len(_BARS) - 1, int(alpha * len(_BARS)))] for alpha in alphas)


def plain(text: str) -> str:
    """Return the text without what could move a terminal's cursor: names come from strangers."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _or(value: float | None, form: str = "", otherwise: str = "?") -> str:
    return otherwise if value is None else format(value, form)


def _table(title: str, first: str, headers: Sequence[str]) -> Table:
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for header in headers:
        table.add_column(header, no_wrap=True, overflow="ellipsis")
    return table


def _cut(table: Table, of: int, shown: int | None) -> Table:
    if shown is not None and of > shown:
        table.caption, table.caption_justify = f"and {of - shown} more (--all)", "left"
    return table
