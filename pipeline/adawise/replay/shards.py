"""The shards of a planned replay: what one of them reads and writes, and the method that all of them share.

Each shard writes to a root of its own, so that shards meet only in two documents that are created once: the plan, and
the method of the first shard that began. Two processes of one shard are two workers on one root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adawise.decode.share import CameraShare
from adawise.errors import SettingsError
from adawise.records import TopicPartition
from adawise.replay.bounded import Range, Whole
from adawise.replay.plan import StoredPlan, read_plan
from adawise.sink import layout
from adawise.sink.claims import claim
from adawise.sink.served_by import Precision
from adawise.store.documents import Document, Text, parse
from adawise.store.store import Store, open_store
from adawise.text import counted, some

_NEW_FOLDER = "or make a plan in a new folder"


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a plan.

    Attributes:
        stored: the plan.
        number: the number of the shard, from 0.
        share: its cameras.
        parts: the offsets [from, until) of each partition that it reads.
    """

    stored: StoredPlan
    number: int
    share: CameraShare
    parts: Mapping[TopicPartition, Range]

    @property
    def root(self) -> str:
        """The root that it writes to."""
        return layout.shard_root(self.stored.output, self.number)

    def expect_same(self, whole: Whole) -> None:
        """Check that a recording is the one of the plan, in the part that the shard reads.

        Raises:
            SettingsError: it is of another topic.
            SourceError: its files are others than those that were there.
            StoreUnavailable: the store does not answer.
        """
        self.stored.expect_recording(whole.name, whole.topic, whole.identity, self.parts)


def open_shard(output: str, number: int) -> Shard:
    """Return a shard of the plan in a folder.

    Raises:
        SettingsError: there is no plan, or it has no such shard.
        ChainError: the plan cannot be read.
        StoreUnavailable: the store does not answer.
    """
    stored = read_plan(output)
    if stored is None:
        raise SettingsError(
            f"--shard {number}: there is no plan in {output}; make it once with `adawise replay RECORDING --plan N "
            f"-o {output}`"
        )
    count = len(stored.plan.shards)
    if not 0 <= number < count:
        raise SettingsError(
            f"--shard {number}: the plan in {output} has {counted(count, 'shard')}, with the numbers 0 to {count - 1}"
        )
    owners = {tp: each for tp, each in stored.plan.owners.items() if number in each.readers}
    parts = {tp: part for tp, part in stored.plan.parts.items() if tp in owners}
    return Shard(stored, number, CameraShare(number, owners), parts)


class Method(Document):
    """The models, settings and hardware of the first shard that began. Bits are equal only where all are the same.

    `batches` is as in `Claim`, `precision` the number format by its name in the settings, and `hardware` the facts of
    processor and device that round numbers, by name.
    """

    layout: Literal[1] = 1
    plan: Text
    model_fingerprint: Text
    config_fingerprint: Text
    batches: Text
    precision: Precision
    hardware: dict[Text, Text]


def read_method(store: Store) -> Method | None:
    """Return the method of the shards in a plan's folder; None if none has begun.

    Raises:
        ChainError: it cannot be read.
        StoreUnavailable: the store does not answer.
    """
    data = store.get(layout.SHARDS)
    return None if data is None else parse(Method, store, layout.SHARDS, data)


def claim_method(output: str, ours: Method) -> None:
    """Record the method of the first shard of a plan, or check that ours is the same.

    Raises:
        SettingsError: another shard began by another method.
        ChainError: the document cannot be read.
        StoreUnavailable: the store does not answer.
    """
    store = open_store(output)
    theirs = parse(Method, store, layout.SHARDS, claim(store, layout.SHARDS, ours.model_dump()))
    if theirs.plan != ours.plan:
        what = "of another plan; restore the plan that they were begun with"
    elif theirs.hardware != ours.hardware:
        names = sorted(theirs.hardware.keys() | ours.hardware.keys())
        differ = [name for name in names if theirs.hardware.get(name) != ours.hardware.get(name)]
        values = [f"{name} {theirs.hardware.get(name)} there and {ours.hardware.get(name)} here" for name in differ]
        what = (
            f"replayed on other hardware ({some(values)}), and only equal hardware gives equal bits; use such a machine"
        )
    elif theirs.model_fingerprint != ours.model_fingerprint:
        what = "replayed by other models, or with other settings for reading images (decode.*); give the same ones"
    elif theirs.config_fingerprint != ours.config_fingerprint:
        what = "replayed with other settings; give the same ones"
    elif theirs.batches != ours.batches:
        what = "replayed by other batches (--batches-of); give the same ones"
    else:
        return
    raise SettingsError(f"-o {output}: its shards are {what}, {_NEW_FOLDER}")
