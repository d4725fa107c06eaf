"""The claim of a replay's output, made by its first run, so that only the same command goes on with it."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import StringConstraints

from adawise.errors import ChainError, SettingsError
from adawise.records import TopicPartition
from adawise.replay.bounded import Range
from adawise.sink import layout
from adawise.sink.files import segment_keys
from adawise.sink.owner import read_owner
from adawise.sink.walk import newest
from adawise.store.answers import AlreadyExists
from adawise.store.documents import Count, Document, Text, read_document
from adawise.store.store import Store, open_store

_LAYOUT = 1
_NEW_FOLDER = "use a new folder"


class Claim(Document):
    """The topic, offsets, first states, models and settings of a replay, or of one of its shards."""

    topic: Text
    cluster_id: Text
    topic_id: Text
    # by the partition's number, as JSON needs text
    ranges: dict[Annotated[Text, StringConstraints(pattern=r"^[0-9]{1,10}$")], tuple[Count, Count]]
    ends_streams: bool
    states_of: dict[Text, Text]  # names of segments
    streams: list[Text] | None
    model_fingerprint: Text = ""
    config_fingerprint: Text = ""
    batches: Text = ""  # digest of the ends of batches that --batches-of named
    plan: Text = ""  # digest of the plan, for a shard
    shard: Count | None = None
    shards: Count | None = None
    layout: int = _LAYOUT

    @property
    def part(self) -> dict[TopicPartition, Range]:
        """The offsets by partition."""
        return {TopicPartition(self.topic, int(number)): (a, b) for number, (a, b) in self.ranges.items()}


def claimed(store: Store, root: str) -> Claim | None:
    """Return the claim of an earlier run; None in a new folder.

    Raises:
        SettingsError: the folder has a worker's output, and not a replay's.
        ChainError: the claim cannot be read.
    """
    theirs = read_owner(store)
    if theirs is not None and theirs.purpose != "replay":
        raise SettingsError(f"-o {root} belongs to {theirs}, not to a replay; {_NEW_FOLDER}")
    data = store.get(layout.REPLAY)
    if data is not None:
        return _parsed(data, root)
    if segment_keys(store):
        raise SettingsError(f"-o {root} holds the output of a worker, not of a replay; {_NEW_FOLDER}")
    return None


def claim(store: Store, root: str, wanted: Claim) -> Claim:
    """Return the claim that holds: `wanted`, or the one of an earlier run of the same replay.

    Raises:
        SettingsError: the output is of another replay.
        ChainError: the claim cannot be read.
    """
    before = claimed(store, root)
    if before is None:
        try:
            document = wanted.model_dump(exclude=set() if wanted.plan else {"plan", "shard", "shards"})
            store.create(layout.REPLAY, json.dumps(document, indent=1).encode())
        except AlreadyExists:
            before = claimed(store, root)
    if before is None:
        return wanted
    if differs := [what for name, what in _DIFFERS.items() if getattr(before, name) != getattr(wanted, name)]:
        raise SettingsError(f"-o {root} holds a replay {differs[0]}; {_NEW_FOLDER}")
    return before


def is_finished(root: str) -> bool:
    """Return True if a replay has served all that it claimed, so that nothing is left to do.

    Raises:
        SettingsError: the folder has a worker's output, and not a replay's.
        ChainError: the claim or a chain's newest segment cannot be read.
        StoreUnavailable: the store does not answer.
    """
    store = open_store(root)
    if (ours := claimed(store, root)) is None:
        return False
    for tp, (begin, until) in ours.part.items():
        head = newest(store, tp)
        if begin < until and (head is None or head.next < until or (ours.ends_streams and head.pending)):
            return False
    return True


_DIFFERS = {
    "topic": "of another topic",
    "topic_id": "of another topic",
    "plan": "by another plan, or by none",
    "shard": "of another shard",
    "states_of": "that began with other states (--state-of)",
    "streams": "of other streams (--streams)",
    "model_fingerprint": "by other models, or with other settings for reading images (decode.*)",
    "config_fingerprint": "with other settings",
    "batches": "by other batches (--batches-of): another root, or this one before it had all of this part",
}


def _parsed(data: bytes, root: str) -> Claim:
    try:
        return read_document(Claim, data)
    except ValueError as error:
        raise ChainError(
            f"{root}/{layout.REPLAY}: expected the claim of a replay, but it is damaged; restore it, or {_NEW_FOLDER}"
        ) from error
