"""The promises of a recording: its topic and streams, and how long it keeps data.

They are written once, as `_recording.json`, and every recorder of the folder agrees to them. A recorder may keep data
for a shorter time than promised, never for longer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from adawise.errors import SourceError
from adawise.ports import TopicIdentity
from adawise.recording.format import FORMAT, expect_format
from adawise.store.documents import Count, Document, Text, read_document

MANIFEST = "_recording.json"


@dataclass(frozen=True, slots=True)
class Retention:
    """The time for which a recording keeps data, in seconds; None for ever.

    Attributes:
        keep_s: counts from the newest Kafka timestamp of a file; then the whole file is removed.
        forget_images_after_s: counts from when the first message of a file was stored; then its values are removed. 0:
            they are never stored.
    """

    keep_s: float | None = None
    forget_images_after_s: float | None = None

    def within(self, promise: Retention, where: str) -> Retention:
        """Return this, with the promise where nothing is set; raise SourceError if it is longer than promised."""
        kept = {}
        for name, flag in (("keep_s", "keep"), ("forget_images_after_s", "forget-images-after")):
            requested, promised = getattr(self, name), getattr(promise, name)
            if requested is not None and promised is not None and requested > promised:
                raise SourceError(
                    f"{where}: this recording promises --{flag} {promised:g}s, but {requested:g}s was given. Give at "
                    "most that, or record into a new folder."
                )
            kept[name] = promised if requested is None else requested
        return Retention(**kept)


class Manifest(Document):
    """The identity of a recording and its promises. `streams` are the patterns of its streams, None for all."""

    topic: Text
    cluster_id: Text
    topic_id: Text
    partitions: Count
    format: Count = FORMAT
    streams: Text | None = None
    keep_s: float | None = None
    forget_images_after_s: float | None = None

    @property
    def identity(self) -> TopicIdentity:
        """The identity of the recorded topic, as it was when recording began."""
        return TopicIdentity(self.cluster_id, self.topic_id, self.partitions)

    @property
    def promise(self) -> Retention:
        """The longest time for which it keeps data."""
        return Retention(self.keep_s, self.forget_images_after_s)

    def encode(self) -> bytes:
        """Return it as JSON."""
        return (json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n").encode()

    def expect_same(self, mine: Manifest, where: str) -> None:
        """Raise SourceError unless `mine` is a recording of the same streams of the same topic.

        A topic can get more partitions, and remains the same.
        """
        names = ("topic", "cluster_id", "topic_id", "streams")
        theirs_, mine_ = ({name: getattr(each, name) for name in names} for each in (self, mine))
        if theirs_ != mine_ or mine.partitions < self.partitions:
            raise SourceError(
                f"{where}: expected a recording of {mine_} with {mine.partitions} partitions, but it is one of "
                f"{theirs_} with {self.partitions}. Record into a new folder."
            )


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Return a manifest; raise SourceError if the data is not one, or of a newer format."""
    try:
        manifest = read_document(Manifest, data)
        expect_format(manifest.format, where)
    except ValueError as error:
        raise SourceError(
            f"{where}: expected the description of a recording, but: {error}. Record again into a new folder."
        ) from error
    return manifest
