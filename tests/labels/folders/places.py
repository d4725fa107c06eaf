"""Labelled images in every form that commands take: a folder, a file and a recording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message, TopicPartition

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Shot:
    label: str
    png: bytes


def write_folder(path: Path, shots: Sequence[Shot]) -> None:
    for i, shot in enumerate(shots):
        (path / shot.label).mkdir(parents=True, exist_ok=True)
        (path / shot.label / f"{i:02}.png").write_bytes(shot.png)


def write_parquet(path: Path, images: list[bytes], labels: list[Any], class_names: Sequence[str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": pa.array(images, pa.binary()), "label": labels})
    if class_names is not None:
        table = table.replace_schema_metadata({"class_names": json.dumps(list(class_names))})
    pq.write_table(table, path)


def write_recording(path: Path, shots: Sequence[Shot], *, labelled: bool = True) -> None:
    """Two single images, then a batch of the others; and a single one without a label."""
    label: dict[int, tuple[tuple[str, bytes], ...]] = {
        i: ((("label", shots[i].label.encode()),) if labelled else ()) for i in (0, 1)
    }
    batch = encode_batch([s.png for s in shots[2:]], labels=[s.label for s in shots[2:]] if labelled else None)
    messages = [
        *(Message("frames", 0, i, b"cam", shots[i].png, (("content-type", b"image/png"), *label[i])) for i in (0, 1)),
        Message("frames", 0, 2, b"cam", batch, (("content-type", ARROW_STREAM.encode()),)),
        Message("frames", 0, 3, b"cam", shots[0].png),
    ]
    write_messages(path, messages)


def write_singles(path: Path, images: Sequence[tuple[bytes, Headers]]) -> None:
    """A recording of single images with their headers, of one camera."""
    write_messages(
        path, [Message("frames", 0, i, b"cam", value, received) for i, (value, received) in enumerate(images)]
    )


def write_messages(path: Path, messages: Sequence[Message]) -> None:
    """A recording of one partition, three messages a file."""
    policy = FilePolicy(max_messages=3, max_bytes=1 << 40, max_age_s=1e9)
    identity = TopicIdentity("cluster", "topic-id", 1)
    recorder = Recorder(str(path), topic="frames", identity=identity, policy=policy, max_buffered_bytes=1 << 40)
    recorder.begin(TopicPartition("frames", 0), 0)
    recorder.append(messages, 0.0)
    recorder.flush()
