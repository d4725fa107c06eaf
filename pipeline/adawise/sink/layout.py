"""The names of everything under the sink's root. Pure: a key is a function of what it names.

    _sink.json                                              the root's id and layout; created once
    _owner.json                                             the owner of the root (`owner`); created once
    _numerics.json                                          the number format of its workers (`served_by`); created once
    _models/<number>.json                                   the pair that serves from then on; each created once
    _pairs/<number>.json                                    an order about its pairs (`adawise.pairs`); created once
    _workers/<start>.json                                   one worker's progress with the orders, and what it waits for
    _settings/<model>-<config>.json                         contents of the two fingerprints (`served_by`)
    _replay.json                                            in a replay's root, the part that it replays; created once
    _plan.json, _shards.json, shard-<number>/               in a folder that is no root: the plan of a replay in shards,
                                                            their method, and their roots (`adawise.replay`)
    _topics/topic-<t>.json                                  the topic as it was when the first of its chains began
    _origin/topic-<t>/partition-<p>.json                    the offset at which the chain of a partition begins
    _starts/topic-<t>/partition-<p>/<start>.json            a worker that has the partition, or was killed (`starts`)
    predictions/topic-<t>/partition-<p>/<segment>.parquet   the chain
    traces/topic-<t>/partition-<p>/<segment>.parquet        derived from the chain
    compacted/plans/topic-<t>/partition-<p>/<first>.json    the segments of the file that begins there
    compacted/predictions/topic-<t>/partition-<p>/<day>_<first>-<until>.parquet   the rows of these segments again
    compacted/traces/topic-<t>/partition-<p>/<day>_<first>-<until>.parquet        the traces of these segments again
    _retained/topic-<t>/partition-<p>/<segment>.json        the first segment since retention removed earlier ones
    views.sql                                               SQL with which DuckDB reads all of it

A segment is called `<first offset, 20 digits>`. One that moves no offset forward, because only images that were pending
before it became complete, leaves `next` where it was. Its successor would need the same name again, so that one gets a
sequence: `<first>_<sequence, 6 digits>`. In either case the successor's name follows from the head alone, so that two
workers that extend the same head collide; and names sort in the order of the chain ("." comes before "_").

A compacted file covers the segments from `first` until before `until`. Its name shows this, because a reader that lists
names must know at once which segments to leave out: those before the last `until` of their partition. The day is the
one (UTC) on which the segments were committed.

A chain that retention has cut begins with the last name under `_retained`. What comes before it counts as removed;
this, too, follows from names.

The folders are `topic-frames`, not Hive's `topic=frames`: topic and partition are columns of the files, and beside them
Hive keys make `pandas.read_parquet` fail (string against dictionary) and DuckDB read `partition` as text. The prefix
also keeps a topic that begins with "_" or "." from being taken for a hidden folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import override

from adawise.records import TopicPartition
from adawise.store.store import DOCUMENT

SINK = DOCUMENT
OWNER = "_owner.json"
NUMERICS = "_numerics.json"
REPLAY = "_replay.json"
PLAN = "_plan.json"
SHARDS = "_shards.json"
TOPICS = "_topics"
ORIGINS = "_origin"
RETAINED = "_retained"
MODELS = "_models"
PAIRS = "_pairs"
WORKERS = "_workers"
SETTINGS = "_settings"
PREDICTIONS = "predictions"
TRACES = "traces"
COMPACTED = "compacted"
VIEWS = "views.sql"

_LEGAL = r"(?!\.{1,2}(?:/|$))[a-zA-Z0-9._-]{1,249}"  # topics as Kafka allows them; other folders may have other names
_TOPIC = re.compile(_LEGAL)
_NAME = re.compile(r"(?P<first>[0-9]{20})(?:_(?P<sequence>[0-9]{6}))?\.parquet")
_STEM = r"[0-9]{20}(?:_[0-9]{6})?"
_COMPACTED = re.compile(rf"(?P<day>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})_(?P<first>{_STEM})-(?P<until>{_STEM})\.parquet")
_ORIGIN = re.compile(rf"{ORIGINS}/topic-(?P<topic>{_LEGAL})/partition-(?P<partition>[0-9]{{5,10}})\.json")
_RETAINED, _PLAN = (
    re.compile(rf"{place}/topic-(?P<topic>{_LEGAL})/partition-(?P<partition>[0-9]{{5,10}})/(?P<name>{_STEM})\.json")
    for place in (RETAINED, f"{COMPACTED}/plans")
)
_MODEL = re.compile(rf"{MODELS}/(?P<number>[0-9]{{6,9}})\.json")
_PAIR = re.compile(rf"{PAIRS}/(?P<number>[0-9]{{6,9}})\.json")
_SETTINGS = re.compile(rf"{SETTINGS}/(?P<model>[^/-]+)-(?P<config>[^/-]+)\.json")
_KEY = re.compile(rf"[a-z]+/topic-(?P<topic>{_LEGAL})/partition-(?P<partition>[0-9]{{5,10}})/(?P<name>[^/]+)")
_COMPACTED_KEY = re.compile(rf"{COMPACTED}/{_KEY.pattern}")

Name = TypeVar("Name", "SegmentName", "CompactedName")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """The place of a segment in its chain: the first offset that it may hold, and its number among those from there."""

    first: int
    sequence: int = 0

    @override
    def __str__(self) -> str:
        return f"{self.first:020d}.parquet" if self.sequence == 0 else f"{self.first:020d}_{self.sequence:06d}.parquet"

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return str(self).removesuffix(".parquet")

    def successor(self, next_offset: int) -> SegmentName:
        """Return the name after this segment, if it ends at `next_offset` (>= first)."""
        return SegmentName(next_offset, self.sequence + 1 if next_offset == self.first else 0)

    @staticmethod
    def parse(name: str) -> SegmentName | None:
        """Return the segment of a file's name; None if it is not a segment's name."""
        match = _NAME.fullmatch(name)
        if match is None or match["sequence"] == "000000":
            return None
        return SegmentName(int(match["first"]), int(match["sequence"] or 0))


@dataclass(frozen=True, slots=True, order=True)
class CompactedName:
    """The range of a compacted file: the segments of [first, until). `day` is written as 2026-11-25."""

    first: SegmentName
    until: SegmentName
    day: str

    @override
    def __str__(self) -> str:
        return f"{self.day}_{self.first.stem}-{self.until.stem}.parquet"

    @staticmethod
    def parse(name: str) -> CompactedName | None:
        """Return the compacted file of a name; None if it is not a compacted file's name."""
        match = _COMPACTED.fullmatch(name)
        ends = [SegmentName.parse(f"{match[end]}.parquet") for end in ("first", "until")] if match else []
        if match is None or ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
            return None
        return CompactedName(ends[0], ends[1], match["day"])


def shard_root(output: str, number: int) -> str:
    """Return the root of a shard in the folder or URL of its plan."""
    return f"{output.rstrip('/')}/shard-{number:05d}"


def folder(dataset: str, tp: TopicPartition) -> str:
    """Return the folder of a partition in a dataset, with the slash. Raises ValueError for what cannot be a topic."""
    if not _TOPIC.fullmatch(tp.topic):
        raise ValueError(
            f"a Kafka topic has 1 to 249 of the characters a-z A-Z 0-9 . _ -, but this one is {tp.topic!r}"
        )
    return f"{dataset}/topic-{tp.topic}/partition-{tp.partition:05d}/"


def segment_key(tp: TopicPartition, name: SegmentName) -> str:
    """Return the key of a segment's predictions."""
    return f"{folder(PREDICTIONS, tp)}{name}"


def traces_key(segment: str) -> str:
    """Return the key of the traces that belong to the segment with this key."""
    return f"{TRACES}/{segment.removeprefix(PREDICTIONS + '/')}"


def compacted_folder(dataset: str, tp: TopicPartition) -> str:
    """Return the folder of a partition's compacted files of a dataset, with the slash."""
    return folder(f"{COMPACTED}/{dataset}", tp)


def compacted_key(dataset: str, tp: TopicPartition, name: CompactedName) -> str:
    """Return the key of a compacted file of predictions or of traces."""
    return f"{compacted_folder(dataset, tp)}{name}"


def plan_key(tp: TopicPartition, first: SegmentName) -> str:
    """Return the key of the plan of the compacted file that begins with the segment `first`."""
    return f"{compacted_folder('plans', tp)}{first.stem}.json"


def parse_compacted_key(key: str) -> tuple[TopicPartition, CompactedName] | None:
    """Return the partition and file that a key of compacted predictions or traces names; None if it is another key."""
    return _named(_COMPACTED_KEY, key, CompactedName.parse)


def parse_plan_key(key: str) -> tuple[TopicPartition, SegmentName] | None:
    """Return the partition and first segment that the key of a plan names; None if it is another key."""
    return _named(_PLAN, key, lambda stem: SegmentName.parse(f"{stem}.parquet"))


def topic_key(topic: str) -> str:
    """Return the key of the claim that records the topic as it was when the first of its chains began."""
    return f"{TOPICS}/topic-{topic}.json"


def model_key(number: int) -> str:
    """Return the key of the claim of a pair that serves; the newest claim counts."""
    return f"{MODELS}/{number:06d}.json"


def parse_model_key(key: str) -> int | None:
    """Return the number of such a claim; None if the key is another."""
    match = _MODEL.fullmatch(key)
    return int(match["number"]) if match else None


def pair_key(number: int) -> str:
    """Return the key of an order about pairs."""
    return f"{PAIRS}/{number:06d}.json"


def parse_pair_key(key: str) -> int | None:
    """Return the number of an order; None if the key is another."""
    match = _PAIR.fullmatch(key)
    return int(match["number"]) if match else None


def settings_key(model_fingerprint: str, config_fingerprint: str) -> str:
    """Return the key of the settings that these fingerprints are of."""
    return f"{SETTINGS}/{model_fingerprint}-{config_fingerprint}.json"


def parse_settings_key(key: str) -> tuple[str, str] | None:
    """Return the fingerprints of the model and of the settings; None if the key is another."""
    match = _SETTINGS.fullmatch(key)
    return (match["model"], match["config"]) if match else None


def worker_key(start: str) -> str:
    """Return the key of the document that one start of a worker writes about itself."""
    return f"{WORKERS}/{start}.json"


def origin_key(tp: TopicPartition) -> str:
    """Return the key of the claim of the offset at which the partition's chain begins."""
    return f"{folder(ORIGINS, tp).removesuffix('/')}.json"


def parse_origin_key(key: str) -> TopicPartition | None:
    """Return the partition whose origin has this key; None if the key is another."""
    match = _ORIGIN.fullmatch(key)
    return TopicPartition(match["topic"], int(match["partition"])) if match else None


def retained_folder(tp: TopicPartition) -> str:
    """Return the folder of the claims of the segment with which the partition's chain begins since retention cut it."""
    return folder(RETAINED, tp)


def retained_key(tp: TopicPartition, begins: SegmentName) -> str:
    """Return the key of the claim that the chain begins with the segment `begins`."""
    return f"{retained_folder(tp)}{begins.stem}.json"


def parse_retained_key(key: str) -> tuple[TopicPartition, SegmentName] | None:
    """Return the partition and segment that such a key names; None if the key is another."""
    return _named(_RETAINED, key, lambda stem: SegmentName.parse(f"{stem}.parquet"))


def starts_folder(tp: TopicPartition) -> str:
    """Return the folder of the marks of workers that have, or had, the partition."""
    return folder("_starts", tp)


def start_key(tp: TopicPartition, start: str) -> str:
    """Return the key of the mark of one of them."""
    return f"{starts_folder(tp)}{start}.json"


def parse_key(key: str) -> tuple[TopicPartition, SegmentName] | None:
    """Return the partition and segment that a key of predictions or traces names; None if it is another key."""
    return _named(_KEY, key, SegmentName.parse)


def _named(
    pattern: re.Pattern[str], key: str, parse: Callable[[str], Name | None]
) -> tuple[TopicPartition, Name] | None:
    """Return the partition that a key names, and what its last part names; None if it is another key."""
    match = pattern.fullmatch(key)
    name = parse(match["name"]) if match else None
    return (TopicPartition(match["topic"], int(match["partition"])), name) if match and name else None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The segments from `since` on up to some place in the chain: how many, and a hash over their names in order.

    A segment names the one before it, but a worker that goes on from the head opens no other: only `verify` would find
    that rows in the middle of a chain were lost. With the lineage, which each footer carries, a start sees it from a
    listing of names. Segments that a compacted file replaces may have been deleted; the last of them never is. Segments
    of earlier versions have no lineage: counting begins with the first one that a later version follows.
    """

    since: SegmentName
    count: int = 0
    digest: str = ""

    def extended(self, name: SegmentName) -> Lineage:
        """Return the lineage with one segment more."""
        digest = hashlib.sha256(f"{self.digest} {name.stem}".encode()).hexdigest()
        return Lineage(self.since, self.count + 1, digest)

    def stored(self) -> bytes:
        """Return the bytes for a footer, with a checksum of their own.

        The footer's checksum, which earlier versions verify, is not over them.
        """
        text = json.dumps([self.since.stem, self.count, self.digest])
        return f"{hashlib.sha256(text.encode()).hexdigest()} {text}".encode()

    @classmethod
    def of(cls, stored: bytes) -> Lineage:
        """Return the lineage of these bytes. Raises ValueError if they are damaged."""
        checksum, _, text = stored.decode().partition(" ")
        try:
            since, count, digest = json.loads(text)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"it is not a list of three: {text[:80]}") from error
        name = SegmentName.parse(f"{since}.parquet")
        if not isinstance(count, int) or not isinstance(digest, str):
            raise ValueError(f"it counts no segments: {text[:80]}")
        if checksum != hashlib.sha256(text.encode()).hexdigest() or name is None:
            raise ValueError(f"its checksum differs: {text}")
        return cls(name, count, digest)
