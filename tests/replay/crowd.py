"""A small recording in which everything that shards divide occurs, and replays of it in shards; no broker.

Two partitions, in three files each. By partition: cameras of single images; Arrow batches without a key that mix these
cameras with one that only they name, with rows of no valid camera and images that are broken; more names than there are
places for states; tombstones, messages of no camera and offsets that could not be read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from adawise.decode.arrow_batch import ARROW_STREAM
from adawise.errors import Lost
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message, Missing
from adawise.replay.plan import PlanRequest, StoredPlan, plan_replay
from adawise.replay.replay import ReplayRequest, ReplayResult, replay
from adawise.settings import Settings
from tests.hostile import picture
from tests.models import PairFolder
from tests.replay import runs

TOPIC = "crowd"
IDENTITY = TopicIdentity("crowd-cluster", "crowd-id", 2)
CAMERAS = (("north", "east", "gate", "hall"), ("south", "west", "yard"))
HIDDEN = "hidden"  # only Arrow batches name it
PLACES = 8
COUNT = 70  # messages of a partition
_FIRST_MS, _EVERY_MS = 1_767_225_600_000, 60
_ARROW = (("content-type", ARROW_STREAM.encode()),)
_JPEG = (("content-type", b"image/jpeg"),)


def settings(pair: PairFolder, **changes: dict[str, object]) -> Settings:
    """Settings by which alphas move, segments are small and names are too many; `changes` are of whole groups."""
    tree: dict[str, dict[str, object]] = {
        "model": {
            "theta_0": pair.theta_0,
            "theta_1": pair.theta_1,
            "classes": str(pair.classes),
            "templates": str(pair.templates),
            "precision": "fp32",
            "device": "cpu",
            "chunk_rows": 4,
            "threads": 1,
        },
        "search": {"explore_images": 4, "explore_every": 2, "min_images": 3, "price": 0.0001},
        "batch": {"images": 4, "max_age_s": 1.0},
        "limits": {"streams": PLACES},
        "sink": {"root": "nowhere", "flush_rows": 16},
        "decode": {"threads": 1},
    }
    for group, values in changes.items():
        tree[group] = tree.get(group, {}) | values
    return Settings.model_validate(tree)


def messages(partition: int, count: int = COUNT, seed: int = 3) -> Iterator[Message]:
    """The messages of a partition, at offsets from 0 on."""
    rng = random.Random(f"{partition} {seed}")
    cameras = CAMERAS[partition]
    for offset in range(count):
        kind = rng.random()
        at_ms = _FIRST_MS + _EVERY_MS * offset

        def sent(
            key: str | None,
            value: bytes | None,
            headers: tuple[tuple[str, bytes], ...] = _JPEG,
            at: tuple[int, int] = (offset, at_ms),
        ) -> Message:
            named = None if key is None else key.encode()
            return Message(TOPIC, partition, at[0], named, value, headers, timestamp_ms=at[1])

        camera = rng.choice(cameras)
        if kind < 0.62:
            yield sent(camera, picture(rng))
        elif kind < 0.72:
            yield sent(None, _mixed(rng, cameras), _ARROW)
        elif kind < 0.82:
            yield sent(f"stranger-{rng.randrange(12)}", picture(rng))
        elif kind < 0.86:
            yield sent(camera, b"\xff\xd8\xff broken")
        elif kind < 0.90:
            yield sent(rng.choice((camera, f"stranger-{rng.randrange(12)}")), None)
        elif kind < 0.94:
            yield sent(None, picture(rng))
        elif kind < 0.97:
            yield sent(None, b"no arrow", _ARROW)
        else:
            missing = Missing(offset, Lost.BATCH_DAMAGED)
            yield Message(TOPIC, partition, offset, None, None, missing=missing)


def _mixed(rng: random.Random, cameras: tuple[str, ...]) -> bytes:
    names = [rng.choice((*cameras, HIDDEN, HIDDEN, " no camera ", "")) for _ in range(5)]
    images = [b"no image" if rng.random() < 0.15 else picture(rng) for _ in names]
    table = pa.table({"image": pa.array(images, pa.binary()), "stream_id": pa.array(names, pa.string())})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    encoded: bytes = out.getvalue().to_pybytes()
    return encoded


def at(offset: int) -> datetime:
    """When the message at an offset was sent."""
    return datetime.fromtimestamp((_FIRST_MS + _EVERY_MS * offset) / 1000, UTC)


def deletions(partition: int, count: int = COUNT, seed: int = 3) -> Iterator[Message]:
    """The messages of a partition in which many names take places, often by a message without a value."""
    rng = random.Random(f"{partition} {seed}")
    for offset in range(count):
        name = rng.choice(CAMERAS[partition]) if rng.random() < 0.5 else f"stranger-{rng.randrange(14)}"
        value = None if rng.random() < 0.3 else picture(rng)
        yield Message(TOPIC, partition, offset, name.encode(), value, _JPEG, _FIRST_MS + _EVERY_MS * offset)


def record(
    folder: Path,
    *,
    count: int = COUNT,
    seed: int = 3,
    identity: TopicIdentity = IDENTITY,
    of: Callable[[int, int, int], Iterator[Message]] = messages,
) -> Path:
    """Write the recording."""
    policy = FilePolicy(max_messages=25, max_bytes=1 << 60, max_age_s=1e9)
    recorder = Recorder(str(folder), topic=TOPIC, identity=identity, policy=policy, max_buffered_bytes=1 << 60)
    for partition in range(len(CAMERAS)):
        sent = list(of(partition, count, seed))
        recorder.begin(sent[0].topic_partition, recorder.folder.begin(sent[0].topic_partition, 0))
        recorder.append(sent, 0.0)
    recorder.flush()
    return folder


def planned(recording: Path, output: Path, shards: int) -> StoredPlan:
    """Plan the recording in shards."""
    return plan_replay(PlanRequest(str(recording), str(output), shards))


def replayed(chosen: Settings, recording: Path, output: Path, shard: int | None = None) -> ReplayResult:
    """Replay the recording, or a shard of it, in this process."""
    return replay(ReplayRequest(chosen, str(output), str(recording), shard=shard))


def rows_of(roots: Sequence[Path | str]) -> list[tuple[object, ...]]:
    """All rows of several roots by row id, as text where nan must equal nan."""
    table = pa.concat_tables([runs.predictions(root) for root in roots]).sort_by("row_id")
    return [*zip(*(map(repr, column.to_pylist()) for column in table.columns), strict=True)]


def traces_of(roots: list[Path]) -> list[str]:
    """All traces of several roots, in one order, without what two runs need not share."""
    return sorted(repr(trace) for root in roots for trace in runs.traces(root))
