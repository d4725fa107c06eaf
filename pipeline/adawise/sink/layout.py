"""Names of everything under the sink's root. Pure: a key is a function of what it names.

    _sink.json                                              what this root is; created once
    _owner.json                                             whose root it is (`owner`); created once
    _models/<number>.json                                   which pair serves from then on; each created once
    _pairs/<number>.json                                    what is asked about its pairs (`adawise.pairs`); likewise
    _workers/<start>.json                                   how far one worker is with that, and what it waits for
    _settings/<model>-<config>.json                         what the two fingerprints stand for (`served_settings`)
    _replay.json                                            of which part a replay is, if it is one's root; created once
    _topics/topic-<t>.json                                  the topic as it was when the first of its chains began
    _origin/topic-<t>/partition-<p>.json                    where the chain of a partition begins
    _starts/topic-<t>/partition-<p>/<start>.json            a worker that has the partition, or was killed (`starts`)
    predictions/topic-<t>/partition-<p>/<segment>.parquet   the chain
    traces/topic-<t>/partition-<p>/<segment>.parquet        derived from it
    compacted/plans/topic-<t>/partition-<p>/<first>.json    which segments the file that begins there is made of
    compacted/predictions/topic-<t>/partition-<p>/<day>_<first>-<until>.parquet   the rows of these segments again
    compacted/traces/topic-<t>/partition-<p>/<day>_<first>-<until>.parquet        and their batches
    _retained/topic-<t>/partition-<p>/<segment>.json        with which segment it begins since retention removed others
    views.sql                                               how DuckDB reads all of it

A segment is called `<first offset, 20 digits>`. One that moves no offset forward, because only images that were pending
before it became complete, leaves `next` where it was; its successor would want the same name again, so that one gets a
sequence: `<first>_<sequence, 6 digits>`. In either case the successor's name follows from the head alone, which is what
makes two workers collide that extend the same head; and names sort in the order of the chain ("." comes before "_").

A compacted file covers the segments from `first` until before `until`; its name says so, because a reader that lists
names must know at once which segments to leave out: those before the last `until` of their partition. The day is the
one (UTC) on which the segments were committed.

A chain that retention has cut begins with the last name under `_retained`. What lies before it is as good as removed:
names say so, too.

The folders are `topic-frames`, not Hive's `topic=frames`: topic and partition are columns of the files, and beside them
Hive keys make `pandas.read_parquet` fail (string against dictionary) and DuckDB read `partition` as text. The prefix
also keeps a topic that begins with "_" or "." from being taken for a hidden folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from typing_extensions import override

from adawise.records import TopicPartition
from adawise.store.store import DOCUMENT

SINK = DOCUMENT
OWNER = "_owner.json"
REPLAY = "_replay.json"
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

_LEGAL = (
    r"(?!\.{1,2}(?:/|$))[a-zA-Z0-9._-]{1,249}"  # what Kafka lets a topic be called; a folder may be called otherwise
)
_TOPIC = re.compile(_LEGAL)
_NAME = re.compile(r"(?P<first>[0-9]{20})(?:_(?P<sequence>[0-9]{6}))?\.parquet")
_STEM = r"[0-9]{20}(?:_[0-9]{6})?"
_COMPACTED = re.compile(rf"(?P<day>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})_(?P<first>{_STEM})-(?P<until>{_STEM})\.parquet")
_ORIGIN = re.compile(rf"{ORIGINS}/topic-(?P<topic>{_LEGAL})/partition-(?P<partition>[0-9]{{5,10}})\.json")
_RETAINED = re.compile(
    rf"{RETAINED}/topic-(?P<topic>{_LEGAL})/partition-(?P<partition>[0-9]{{5,10}})/(?P<stem>{_STEM})\.json"
)
_MODEL = re.compile(rf"{MODELS}/(?P<number>[0-9]{{6,9}})\.json")
_PAIR = re.compile(rf"{PAIRS}/(?P<number>[0-9]{{6,9}})\.json")
_SETTINGS = re.compile(rf"{SETTINGS}/(?P<model>[^/-]+)-(?P<config>[^/-]+)\.json")
_KEY = re.compile(rf"[a-z]+/topic-(?P<topic>{_LEGAL})/partition-(?P<partition>[0-9]{{5,10}})/(?P<name>[^/]+)")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """The place of a segment in its chain: the first offset that it may hold, and which of that offset it is."""

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
        """The name after this segment, if it ends at `next_offset` (>= first)."""
        return SegmentName(next_offset, self.sequence + 1 if next_offset == self.first else 0)

    @staticmethod
    def parse(name: str) -> SegmentName | None:
        """The segment of a file's name; None if no segment is called so."""
        match = _NAME.fullmatch(name)
        if match is None or match["sequence"] == "000000":
            return None
        return SegmentName(int(match["first"]), int(match["sequence"] or 0))


@dataclass(frozen=True, slots=True, order=True)
class CompactedName:
    """What a compacted file covers: the segments of [first, until). `day` is as 2026-11-25."""

    first: SegmentName
    until: SegmentName
    day: str

    @override
    def __str__(self) -> str:
        return f"{self.day}_{self.first.stem}-{self.until.stem}.parquet"

    @staticmethod
    def parse(name: str) -> CompactedName | None:
        """The compacted file of a name; None if none is called so."""
        match = _COMPACTED.fullmatch(name)
        ends = [SegmentName.parse(f"{match[end]}.parquet") for end in ("first", "until")] if match else []
        if match is None or ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
            return None
        return CompactedName(ends[0], ends[1], match["day"])


def folder(dataset: str, tp: TopicPartition) -> str:
    """The folder of one partition in a dataset, with the slash. Raises ValueError for what cannot be a topic."""
    if not _TOPIC.fullmatch(tp.topic):
        raise ValueError(
            f"a Kafka topic has 1 to 249 of the characters a-z A-Z 0-9 . _ -, but this one is called {tp.topic!r}"
        )
    return f"{dataset}/topic-{tp.topic}/partition-{tp.partition:05d}/"


def segment_key(tp: TopicPartition, name: SegmentName) -> str:
    """The key of a segment's predictions."""
    return f"{folder(PREDICTIONS, tp)}{name}"


def traces_key(segment: str) -> str:
    """The key of the traces that belong to the segment with this key."""
    return f"{TRACES}/{segment.removeprefix(PREDICTIONS + '/')}"


def compacted_folder(dataset: str, tp: TopicPartition) -> str:
    """The folder of a partition's compacted files of a dataset, with the slash."""
    return folder(f"{COMPACTED}/{dataset}", tp)


def compacted_key(dataset: str, tp: TopicPartition, name: CompactedName) -> str:
    """The key of a compacted file of predictions or of traces."""
    return f"{compacted_folder(dataset, tp)}{name}"


def plan_key(tp: TopicPartition, first: SegmentName) -> str:
    """The key of the claim that says what the compacted file that begins with the segment `first` covers."""
    return f"{compacted_folder('plans', tp)}{first.stem}.json"


def parse_compacted_key(key: str) -> tuple[TopicPartition, CompactedName] | None:
    """What a key of compacted predictions or traces names; None if it is not one of ours."""
    match = _KEY.fullmatch(key.removeprefix(f"{COMPACTED}/")) if key.startswith(f"{COMPACTED}/") else None
    name = CompactedName.parse(match["name"]) if match else None
    if match is None or name is None:
        return None
    return TopicPartition(match["topic"], int(match["partition"])), name


def topic_key(topic: str) -> str:
    """The key of the claim that says what the topic was when the first of its chains began."""
    return f"{TOPICS}/topic-{topic}.json"


def model_key(number: int) -> str:
    """The key of the claim that says which pair serves, the newest of which counts."""
    return f"{MODELS}/{number:06d}.json"


def parse_model_key(key: str) -> int | None:
    """The number of such a claim; None if it is none."""
    match = _MODEL.fullmatch(key)
    return int(match["number"]) if match else None


def pair_key(number: int) -> str:
    """The key of an order about pairs."""
    return f"{PAIRS}/{number:06d}.json"


def parse_pair_key(key: str) -> int | None:
    """The number of an order; None if it is none."""
    match = _PAIR.fullmatch(key)
    return int(match["number"]) if match else None


def settings_key(model_fingerprint: str, config_fingerprint: str) -> str:
    """The key of what these fingerprints stand for."""
    return f"{SETTINGS}/{model_fingerprint}-{config_fingerprint}.json"


def parse_settings_key(key: str) -> tuple[str, str] | None:
    """The fingerprints of the model and of the settings; None if it is no such key."""
    match = _SETTINGS.fullmatch(key)
    return (match["model"], match["config"]) if match else None


def worker_key(start: str) -> str:
    """The key of what one start of a worker says of itself."""
    return f"{WORKERS}/{start}.json"


def origin_key(tp: TopicPartition) -> str:
    """The key of the claim that says where the partition's chain begins."""
    return f"{folder(ORIGINS, tp).removesuffix('/')}.json"


def parse_origin_key(key: str) -> TopicPartition | None:
    """The partition whose chain the claim with this key is of; None if it is no such claim."""
    match = _ORIGIN.fullmatch(key)
    return TopicPartition(match["topic"], int(match["partition"])) if match else None


def retained_folder(tp: TopicPartition) -> str:
    """The folder of what says with which segment the partition's chain begins since retention cut it."""
    return folder(RETAINED, tp)


def retained_key(tp: TopicPartition, begins: SegmentName) -> str:
    """The key of the claim that the chain begins with the segment `begins`."""
    return f"{retained_folder(tp)}{begins.stem}.json"


def parse_retained_key(key: str) -> tuple[TopicPartition, SegmentName] | None:
    """What such a key names; None if it is none."""
    match = _RETAINED.fullmatch(key)
    name = SegmentName.parse(f"{match['stem']}.parquet") if match else None
    if match is None or name is None:
        return None
    return TopicPartition(match["topic"], int(match["partition"])), name


def starts_folder(tp: TopicPartition) -> str:
    """The folder of the marks of workers that have, or had, the partition."""
    return folder("_starts", tp)


def start_key(tp: TopicPartition, start: str) -> str:
    """The key of the mark of one of them."""
    return f"{starts_folder(tp)}{start}.json"


def parse_key(key: str) -> tuple[TopicPartition, SegmentName] | None:
    """What a key of predictions or traces names; None if it is not one of ours."""
    match = _KEY.fullmatch(key)
    name = SegmentName.parse(match["name"]) if match else None
    if match is None or name is None:
        return None
    return TopicPartition(match["topic"], int(match["partition"])), name
