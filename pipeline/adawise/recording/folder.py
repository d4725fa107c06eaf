"""Writes to the folder of a recording: each file is created once, whole, and named by the end of the one before.

So of two recorders of one partition, one finds the name taken, and no lock is needed. A recorder that was suspended
could create again what retention has removed meanwhile. So after each creation the recorder checks that the name still
counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from adawise.errors import SettingsError, SourceError, StoreUnavailable, Vanished
from adawise.ports import TopicIdentity
from adawise.recording import format as layout
from adawise.recording.buffer import Draft
from adawise.recording.files import RecordedFile, listing_of
from adawise.recording.format import MANIFEST, Manifest, Retention, decode_manifest
from adawise.records import TopicPartition
from adawise.store.answers import AlreadyExists
from adawise.store.store import Failpoint, Store, open_store

_TRIES = 5  # attempts to list a folder from which retention is removing files


@dataclass(frozen=True, slots=True)
class Created:
    """The outcome of a draft: `won` is False if another recorder wrote there; the recording goes on at `next`."""

    next: int
    won: bool
    size_bytes: int = 0


class RecordingFolder:
    """The files of one topic's recording, for recorders. It is safe for use by several threads.

    Args:
        root: the folder, or the URL of one.
        topic: the topic.
        identity: the topic's identity, from the source.
        streams: patterns of the streams that are recorded; None for all.
        retention: how long data is kept; None in it means the folder's promise.
        beside: further columns of the files.
        store: the store of the folder, if it does not follow from `root`.
        failpoint: called at each point where a recorder can die, for tests that kill there.

    Raises:
        SourceError: the folder holds a recording of something else, or promises less.
        StoreUnavailable, SettingsError: as the store raises them; it must refuse to create what exists.
    """

    def __init__(
        self,
        root: str,
        *,
        topic: str,
        identity: TopicIdentity,
        streams: str | None = None,
        retention: Retention = Retention(),  # noqa: B008 - frozen
        beside: layout.Beside | None = None,
        store: Store | None = None,
        failpoint: Failpoint = lambda _: None,
    ) -> None:
        self.root = root
        self.failpoint = failpoint
        self._beside = beside
        self.store = store or open_store(
            root, failpoint=lambda point: failpoint(f"recording.{point.partition('.')[2]}")
        )
        manifest = Manifest(
            topic=topic,
            cluster_id=identity.cluster_id,
            topic_id=identity.topic_id,
            partitions=identity.partitions,
            streams=streams,
            keep_s=retention.keep_s,
            forget_images_after_s=retention.forget_images_after_s,
        )
        self._manifest = self._claim(manifest)
        self.retention = retention.within(self._manifest.promise, f"{root}/{MANIFEST}")
        self._identity = identity

    @property
    def keeps_images(self) -> bool:
        """False if no image may ever be stored."""
        return self.retention.forget_images_after_s != 0

    def next_offset(self, tp: TopicPartition) -> int | None:
        """Return where a partition's recording ends, None if there is none yet; raise SourceError if it is damaged."""
        for _ in range(_TRIES):
            listing = listing_of(self.root, self.store, tp)
            if not listing.files:
                return listing.start if listing.start is not None else self._origin(tp)
            try:
                return max(listing.files[-1].footer().next, listing.start or 0)
            except Vanished:
                continue
        raise StoreUnavailable(
            f"{self.root}: the files of {tp} disappeared {_TRIES} times while they were read; {StoreUnavailable.REMEDY}"
        )

    def begin(self, tp: TopicPartition, offset: int) -> int:
        """Return where a partition's recording goes on: its end, or `offset` unless another began it meanwhile."""
        known = self.next_offset(tp)
        if known is not None:
            return known
        key = layout.origin_key_of(tp)
        try:
            self.store.create(key, f"{offset}\n".encode())
        except AlreadyExists:
            claimed = self.next_offset(tp)
            if claimed is None:
                raise StoreUnavailable(
                    f"{self.root}/{key} exists but cannot be read back; {StoreUnavailable.REMEDY}"
                ) from None
            return claimed
        return offset

    def create(self, draft: Draft) -> Created:
        """Write a file. After StoreUnavailable, the same draft may be tried again."""
        key = layout.key_of(draft.tp, draft.buffer.first)
        if self.store.get(MANIFEST) is None:
            raise StoreUnavailable(
                f"{self.root}: expected the recording that was there, but {MANIFEST} is gone; is the disk mounted?"
            )
        data = layout.encode_file(draft.buffer.messages, self._footer(draft), self._beside)
        self.failpoint("recording.encoded")
        try:
            self.store.create(key, data)
        except AlreadyExists:
            if self._attempt_at(key) != draft.attempt:
                return self._lost(draft)
        self.failpoint("recording.created")
        listing = listing_of(self.root, self.store, draft.tp)
        # Retention has removed this range: the draft does not follow the recording's end any more.
        if key in listing.voids:
            self.store.delete(key)
            return self._lost(draft)
        return Created(draft.buffer.next, won=True, size_bytes=len(data))

    def _footer(self, draft: Draft) -> layout.Footer:
        known, buffer = self._identity, draft.buffer
        return layout.Footer(
            *draft.tp,
            buffer.first,
            buffer.next,
            known.cluster_id,
            known.topic_id,
            known.partitions,
            images=self.keeps_images,
            attempt=draft.attempt,
            newest_ms=buffer.newest_ms,
            begun_ms=buffer.begun_ms if buffer.messages else draft.closed_ms,
            closed_ms=draft.closed_ms,
            gaps=buffer.gaps,
        )

    def _attempt_at(self, key: str) -> str | None:
        """Return the attempt that wrote the existing file; None if it was removed meanwhile."""
        try:
            return RecordedFile(self.root, self.store, key, 0).footer().attempt
        except Vanished:
            return None

    def _lost(self, draft: Draft) -> Created:
        following = self.next_offset(draft.tp)
        if following is None or following <= draft.buffer.first:
            raise StoreUnavailable(
                f"{self.root}: the file of {draft.tp} at {draft.buffer.first} cannot be read back; "
                f"{StoreUnavailable.REMEDY}"
            )
        return Created(following, won=False)

    def _origin(self, tp: TopicPartition) -> int | None:
        key = layout.origin_key_of(tp)
        data = self.store.get(key)
        try:
            return None if data is None else int(data)
        except ValueError:
            raise SourceError(
                f"{self.root}/{key}: expected an offset, found {data!r}. Restore it, or record into a new folder."
            ) from None

    def _claim(self, mine: Manifest) -> Manifest:
        where = f"{self.root}/{MANIFEST}"
        for _ in range(2):  # the second attempt proves that the store refuses what exists
            try:
                self.store.create(MANIFEST, mine.encode())
            except AlreadyExists:
                theirs = decode_manifest(self.store.get(MANIFEST) or b"", where)
                theirs.expect_same(mine, where)
                return theirs
        raise SettingsError(
            f"{where}: expected a store that refuses to create a key that exists, but it overwrote one: two recorders "
            "would destroy each other's files. Record into a local folder, or a store with conditional writes."
        )
