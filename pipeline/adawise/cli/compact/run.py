"""The work of `adawise compact` and `adawise files`: compact an output, and list the files that readers need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from adawise.console import Progress, print_json, progress, say
from adawise.output.compaction import sql_views
from adawise.output.compaction.choice import FileLimits
from adawise.output.compaction.compact import CompactedFile, plans
from adawise.output.compaction.compact import compact as compact_partition
from adawise.output.compaction.delete import deletable, delete, now_of
from adawise.output.near import no_output
from adawise.output.read.several import check_apart
from adawise.records import TopicPartition
from adawise.sink.claims import known_sink_id
from adawise.sink.files import data_files, data_keys
from adawise.sink.walk import chains
from adawise.store.store import Store, open_store
from adawise.text import as_size

if TYPE_CHECKING:
    from adawise.cli.compact.options import CompactCommand, FilesCommand

_BYTES_A_ROW = 1024  # before compression; a file whose rows are longer (much metadata) has fewer of them


@dataclass(slots=True)
class _Done:
    """The totals over all partitions of what was done, or would be."""

    files: list[dict[str, object]] = field(default_factory=list)
    segments: int = 0
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    deleted: int = 0

    def add(self, tp: TopicPartition, name: object, segments: int, rows: int) -> None:
        self.files.append({"partition": str(tp), "file": str(name), "segments": segments, "rows": rows})
        self.segments += segments
        self.rows += rows


def compact(asked: CompactCommand) -> int:
    """Compact every partition under a root, delete what was compacted long enough ago, and print a summary.

    Raises:
        SettingsError: no worker ever wrote there.
        ChainError: a file is damaged or missing; partitions before it are done.
        StoreUnavailable: the store does not answer.
    """
    root, dry_run, max_rows, delete_after_s = asked.root, asked.dry_run, asked.max_rows, asked.delete_after
    store, done, now = _opened(root), _Done(), datetime.now(UTC)
    tps = sorted(chains(store))
    limits = FileLimits(max_rows=max_rows, max_bytes=max_rows * _BYTES_A_ROW, before=asked.before or now.date())
    with progress("compacted", unit="rows") as bar:
        for tp in tps:
            for made in _partition(store, tp, limits, dry_run):
                _note(done, made)
                bar.advance(made.rows)
                bar.note(f"{len(done.files)} files, {tp}")
    if delete_after_s is not None:
        # `now_of` asks the store's clock by writing a file, which a dry run must not do.
        made_before = (now if dry_run else now_of(store)) - timedelta(seconds=delete_after_s)
        with progress("deleted", unit="segments") as bar:
            for tp in tps:
                done.deleted += _delete(store, tp, made_before, bar, dry_run)
    if not dry_run:
        sql_views.write(store, _absolute(root))
    _tell(root, done, dry_run, asked.as_json, files=len(data_keys(store)))
    return 0


def files(asked: FilesCommand) -> int:
    """Print the files under one or several roots that together hold each row of a table once.

    Raises:
        SettingsError: no worker ever wrote to one of the roots, or two have the same rows.
        StoreUnavailable: the store does not answer.
    """
    for root in asked.root:
        _opened(root)
    check_apart(asked.root)
    names = [name for root in asked.root for name in data_files(root, asked.table)]
    if asked.as_json:
        print_json(names)
    else:
        print("\n".join(names))  # unescaped, for scripts: `layout` accepts only some characters in a key
    return 0


def _opened(root: str) -> Store:
    store = open_store(root)
    if known_sink_id(store) is None:
        raise no_output(root)
    return store


def _partition(store: Store, tp: TopicPartition, limits: FileLimits, dry_run: bool) -> Iterator[CompactedFile]:
    if not dry_run:
        return compact_partition(store, tp, limits)
    return (CompactedFile(tp, plan.name, plan.segments, plan.rows, 0, 0) for plan in plans(store, tp, limits))


def _note(done: _Done, made: CompactedFile) -> None:
    done.add(made.tp, made.name, made.segments, made.rows)
    done.bytes_before += made.bytes_before
    done.bytes_after += made.bytes_after


def _delete(store: Store, tp: TopicPartition, made_before: datetime, bar: Progress, dry_run: bool) -> int:
    deleted = 0
    for covered in deletable(store, tp, made_before=made_before):
        for _ in covered.keys if dry_run else delete(store, covered):
            bar.advance()
            deleted += 1
    return deleted


def _absolute(root: str) -> str:
    if "://" in root and not root.startswith("file://"):
        return root
    return str(Path(root.removeprefix("file://")).resolve())


def _tell(root: str, done: _Done, dry_run: bool, as_json: bool, files: int) -> None:
    if as_json:
        totals = {name: getattr(done, name) for name in ("segments", "rows", "bytes_before", "bytes_after", "deleted")}
        print_json({"root": root, "dry_run": dry_run, "made": done.files, **totals, "files_to_read": files})
        return
    for made in done.files if dry_run else []:
        say(f"{made['partition']}: {made['segments']} segments, {made['rows']} rows -> {made['file']}")
    would = "would make" if dry_run else "made"
    before, after = as_size(done.bytes_before), as_size(done.bytes_after)
    size = f" ({before} of segments -> {after} with traces)" if done.bytes_after else ""
    say(f"{root}: {would} {len(done.files)} files of {done.segments} segments, {done.rows} rows{size}")
    if done.deleted:
        say(f"{'would delete' if dry_run else 'deleted'} {done.deleted} segments that have been compacted")
    if not dry_run:
        say(
            f"readers need {files} files of predictions: list them with `adawise files {root}`, or use its "
            "views.sql in DuckDB"
        )
