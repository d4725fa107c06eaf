"""The work of `adawise retain`: print what of an output is old enough to be removed, or remove it."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from adawise.console import print_json, progress, say
from adawise.errors import ChainError
from adawise.output.compaction.delete import now_of
from adawise.output.near import no_output
from adawise.output.retention.retain import Removal, removal, remove, sweep
from adawise.output.verify.root import begun_partitions
from adawise.sink.claims import known_sink_id
from adawise.sink.walk import chains
from adawise.store.store import open_store
from adawise.text import as_size

if TYPE_CHECKING:
    from adawise.cli.retain.options import RetainCommand


def retain(asked: RetainCommand) -> int:
    """Print what of every partition is old enough to go, and remove it with --yes.

    Raises:
        SettingsError: no worker ever wrote there.
        ChainError: chains have a hole, or are damaged; the others are done.
        StoreUnavailable: the store does not answer.
    """
    root, does = asked.root, asked.yes
    store = open_store(root)
    if known_sink_id(store) is None:
        raise no_output(root)
    now = now_of(store)
    before = (now - timedelta(seconds=asked.keep)).astimezone(UTC).date()
    found: list[Removal] = []
    damaged: list[ChainError] = []
    with progress("removed" if does else "found", unit="files") as bar:
        for tp in sorted(chains(store).keys() | begun_partitions(store)):
            try:
                what = removal(store, tp, before=before, now=now)
                if what is not None:
                    found.append(what)
                if not does:
                    bar.advance(0 if what is None else what.files)
                    continue
                for _ in sweep(store, tp, now=now) if what is None else remove(store, what):
                    bar.advance()
            except ChainError as error:
                damaged.append(error)
    if asked.as_json:
        print_json({"root": root, "before": before, "removed": does, "partitions": [_as_json(what) for what in found]})
    else:
        _tell(root, before.isoformat(), found, does)
    if damaged:
        raise ChainError("; ".join(map(str, damaged)))
    return 0


def _as_json(what: Removal) -> dict[str, object]:
    return {
        "topic": what.tp.topic,
        "partition": what.tp.partition,
        "begins": what.name.first,
        "files": what.files,
        "rows": what.rows,
        "bytes": what.size_bytes,
        "since_day": what.since_day,
        "until_day": what.until_day,
    }


def _tell(root: str, before: str, found: list[Removal], does: bool) -> None:
    for what in found:
        say(
            f"{what.tp}: {what.files} files, {what.rows} rows, {as_size(what.size_bytes)}, committed "
            f"{what.since_day} to {what.until_day}; "
            f"it {'begins' if does else 'would begin'} at offset {what.name.first}"
        )
    if not found:
        say(f"{root}: nothing that was committed before {before} can be removed")
        return
    files, rows, size = (sum(getattr(what, name) for what in found) for name in ("files", "rows", "size_bytes"))
    told = f"{files} files of {len(found)} partitions, {rows} rows, {as_size(size)}, committed before {before}"
    if does:
        say(f"{root}: removed {told}")
    else:
        say(f"{root}: would remove {told}; nothing was changed; to remove it, add --yes")
