"""The keeping of a recording's promises: old files are removed, and images are removed before them.

Every step may be seen half done by a recorder, a reader or another pass. A partition first gets a new start
(`<offset>.start`), then what lies before it is removed. A file without images is created beside the one with them and
counts from then on, then the other is removed. What a pass that died left behind is removed by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace

from typing_extensions import override

from adawise.errors import SourceError, Vanished
from adawise.recording import format as layout
from adawise.recording.buffer import wall_ms
from adawise.recording.files import Listing, RecordedFile, listing_of, partitions_of
from adawise.recording.format import MANIFEST, Retention, read_manifest
from adawise.records import TopicPartition
from adawise.store.answers import AlreadyExists
from adawise.store.store import Failpoint, Store, open_store
from adawise.worker.passes import Passes

EVERY_S = 60.0


@dataclass(slots=True)
class Tidied:
    """The outcome of a pass. `leftovers` counts keys that an earlier pass had left behind."""

    removed: int = 0
    forgotten: int = 0
    leftovers: int = 0
    errors: tuple[str, ...] = ()

    @override
    def __str__(self) -> str:
        return (
            f"{self.removed} files removed, {self.forgotten} without images now, "
            f"{self.leftovers} leftovers of an earlier pass removed"
        )


def prune(root: str, wanted: Retention) -> Tidied | None:
    """Remove from a recording what is older than it promises to keep, or than shorter times that are wanted.

    Returns:
        None if it keeps everything.

    Raises:
        SourceError: there is no recording, or it promises less.
        StoreUnavailable: the store failed; the next call goes on.
    """
    store = open_store(root)
    promise = read_manifest(store, root, "Correct --output.").promise
    retention = wanted.within(promise, f"{root}/{MANIFEST}")
    if retention == Retention():
        return None
    return RecordingRetention(root, store, retention).tidy(partitions_of(store))


class RecordingRetention:
    """Passes over partitions, one at a time; each file's footer is read once.

    Args:
        root: the folder of the recording, or the URL of one.
        store: the store of the folder.
        retention: what is kept for how long.
        failpoint: called at each point where a pass can die, for tests that kill there.
        now_ms: the time, in ms since the epoch.
    """

    def __init__(
        self,
        root: str,
        store: Store,
        retention: Retention,
        *,
        failpoint: Failpoint = lambda _: None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._root, self._store, self._retention = root, store, retention
        self._failpoint, self._now_ms = failpoint, now_ms
        self._footers: dict[str, layout.Footer] = {}

    def tidy(self, tps: Iterable[TopicPartition]) -> Tidied:
        """Remove the files and images that are old enough. A damaged file is reported, and never removed by `keep_s`.

        Raises:
            StoreUnavailable: the store failed; the next pass goes on.
        """
        done = Tidied()
        for tp in tps:
            try:
                self._tidy(tp, done)
            except Vanished:
                continue  # another pass is removing files of it
            except SourceError as error:
                done.errors += (str(error),)
        return done

    def _tidy(self, tp: TopicPartition, done: Tidied) -> None:
        listing = listing_of(self._root, self._store, tp)
        for key in listing.voids:
            self._store.delete(key)
            done.leftovers += 1
        kept = list(listing.files)
        if self._retention.keep_s is not None:
            kept = self._remove_old(tp, listing, done)
        if self._retention.forget_images_after_s is not None:
            for file in kept:
                self._forget_images(file, done)
        for key in self._footers.keys() - {file.key for file in kept}:
            if key.startswith(layout.folder(tp)):
                del self._footers[key]

    def _remove_old(self, tp: TopicPartition, listing: Listing, done: Tidied) -> list[RecordedFile]:
        """Remove the longest run of old files from the beginning; return the other files."""
        keep_ms = 1000 * (self._retention.keep_s or 0.0)
        count, start = 0, 0
        for file in listing.files:
            footer = self._footer(file)
            # A timestamp later than the recorder's clock cannot be trusted, and would keep the file for too long.
            newest_ms = footer.newest_ms if 0 <= footer.newest_ms < footer.closed_ms else footer.closed_ms
            if newest_ms < 0 or self._now_ms() - newest_ms <= keep_ms:
                break
            count, start = count + 1, footer.next
        if count:
            with suppress(AlreadyExists):
                self._store.create(layout.key_of(tp, start, "start"), b"")
            self._failpoint("recording.started")
            earlier = [] if listing.start is None else [layout.key_of(tp, listing.start, "start")]
            for key in (*(file.key for file in listing.files[:count]), *earlier):
                self._store.delete(key)
                self._failpoint("recording.removed")
            done.removed += count
        return list(listing.files[count:])

    def _forget_images(self, file: RecordedFile, done: Tidied) -> None:
        if file.redacted:
            return
        footer = self._footer(file)
        begun_ms = footer.begun_ms
        after_ms = 1000 * (self._retention.forget_images_after_s or 0.0)
        if not footer.images or (begun_ms >= 0 and self._now_ms() - begun_ms < after_ms):
            return
        messages = [message for message in file.messages(0) if message.missing is None]
        if not messages:  # an empty file only says that nothing was there, or wanted
            self._footers[file.key] = replace(footer, images=False)
            return
        data = layout.encode_file(messages, replace(footer, images=False))
        with suppress(AlreadyExists):  # another pass made the same
            self._store.create(layout.key_of(footer.tp, footer.first, "redacted"), data)
        self._failpoint("recording.redacted")
        self._store.delete(file.key)
        self._failpoint("recording.forgotten")
        done.forgotten += 1

    def _footer(self, file: RecordedFile) -> layout.Footer:
        if file.key not in self._footers:
            self._footers[file.key] = file.footer()
        return self._footers[file.key]


def tidying(
    retention: RecordingRetention,
    *,
    finished: Callable[[Tidied], None],
    failed: Callable[[str], None],
    pool: Executor | None = None,
) -> Passes[TopicPartition, Tidied]:
    """Return passes in a thread of their own, one every `EVERY_S` seconds; `finished` gets those that did something."""

    def report(done: Tidied) -> None:
        for text in done.errors:
            failed(text)
        if done.removed or done.forgotten or done.leftovers:
            finished(done)

    return Passes(
        lambda tps, _: retention.tidy(tps), finished=report, failed=failed, every_s=EVERY_S, name="retention", pool=pool
    )
