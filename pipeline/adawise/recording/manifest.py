"""What a recording promises: of which topic it is, of which streams, and how long it keeps what.

Written once, as `_recording.json`; every recorder of the folder agrees to it. A promise may be kept better (for a
shorter time), never worse.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from adawise.errors import SourceError
from adawise.ports import TopicIdentity
from adawise.recording.format import FORMAT, expect_format
from adawise.store.documents import Count, Document, Text, read_document

MANIFEST = "_recording.json"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a recording keeps what, in seconds; None for ever.

    `keep_s` counts from the newest Kafka timestamp of a file, and all of it goes. `forget_images_after_s` counts from
    when the first message of a file was stored, and the values go; 0: they are never stored.
    """

    keep_s: float | None = None
    forget_images_after_s: float | None = None

    def within(self, promise: Retention, where: str) -> Retention:
        """This, where nothing is said as promised. Raises SourceError if it is longer than promised."""
        kept = {}
        for name, flag in (("keep_s", "keep"), ("forget_images_after_s", "forget-images-after")):
            asked, promised = getattr(self, name), getattr(promise, name)
            if asked is not None and promised is not None and asked > promised:
                raise SourceError(
                    f"{where}: this recording promises --{flag} {promised:g}s, asked for was {asked:g}s. Say at most "
                    "that, or record into a new folder."
                )
            kept[name] = promised if asked is None else asked
        return Retention(**kept)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a recording is of, and what it promises. `streams`: the patterns of those it has, None for all."""

    topic: str
    cluster_id: str
    topic_id: str
    partitions: int
    format: int = FORMAT
    streams: str | None = None
    keep_s: float | None = None
    forget_images_after_s: float | None = None

    @property
    def identity(self) -> TopicIdentity:
        """Of the topic that was recorded, as it was when recording began."""
        return TopicIdentity(self.cluster_id, self.topic_id, self.partitions)

    @property
    def promise(self) -> Retention:
        """How long it keeps what, at most."""
        return Retention(self.keep_s, self.forget_images_after_s)

    def encode(self) -> bytes:
        """As JSON."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

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


class _Manifest(Document):
    topic: Text
    cluster_id: Text
    topic_id: Text
    partitions: Count
    format: Count = FORMAT
    streams: Text | None = None
    keep_s: float | None = None
    forget_images_after_s: float | None = None


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Raises SourceError if it is none, or of a newer format."""
    try:
        manifest = Manifest(**read_document(_Manifest, data).model_dump())
        expect_format(manifest.format, where)
    except ValueError as error:
        raise SourceError(
            f"{where}: expected the description of a recording, but: {error}. Record again into a new folder."
        ) from error
    return manifest
