"""The owner of a root: one cluster, topic, consumer group and purpose, claimed by create-if-absent at the first start.

Workers of one group share the partitions, and detect each other by a lost race for a segment. A second group would own
the same partitions at the same time: the two would take each other's output over, segment by segment, and each chain
would still be whole. So a root has one owner, and any other is refused before it writes a row.

Conversely, a group writes to one root: each offset that the group commits carries the id of the root. A second worker
with another root would take partitions away, and each output would lack what is in the other. A root that is empty
although the group has committed offsets was unmounted or emptied.

Roots of version 0.1.0 have no such claim. The first worker that starts on one becomes its owner, if its topic is one
that the root was written from, and if its purpose is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from typing_extensions import override

from adawise.errors import SettingsError
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.store.documents import Document, Text, parse
from adawise.store.store import Store

Purpose = Literal["run", "replay"]


@dataclass(frozen=True, slots=True)
class Owner:
    """The cluster, topic, group and purpose that write to a root.

    `cluster_id` is "" where it is unknown; a replay has no group.
    """

    cluster_id: str
    topic: str
    group: str
    purpose: Purpose

    @override
    def __str__(self) -> str:
        who = f"the workers of group {self.group!r}" if self.purpose == "run" else "a replay"
        return f"{who} on topic {self.topic!r}" + (f" of cluster {self.cluster_id}" if self.cluster_id else "")

    def is_same(self, other: Owner) -> bool:
        """Return True unless something that is known of both differs."""
        same = (self.topic, self.group, self.purpose) == (other.topic, other.group, other.purpose)
        return same and (self.cluster_id == other.cluster_id or not (self.cluster_id and other.cluster_id))


def claim_owner(store: Store, ours: Owner) -> None:
    """Claim a root that has no owner.

    Raises:
        SettingsError: it belongs to another owner.
        ChainError: the claim cannot be read.
    """
    check_owner(store, ours)
    claimed = claims.claim(store, layout.OWNER, {"layout": claims.LAYOUT, **asdict(ours)})
    _expect(store, ours, _owner(store, claimed))


def check_owner(store: Store, ours: Owner) -> None:
    """Raise what `claim_owner` would raise; nothing is written."""
    theirs = read_owner(store) or _of_0_1_0(store, ours)
    if theirs is not None:
        _expect(store, ours, theirs)


def check_commits(
    store: Store, ours: Owner, root_id: str | None, commits: Mapping[TopicPartition, tuple[int, str]]
) -> None:
    """Raise SettingsError if the notes beside the group's committed offsets name another root.

    `root_id` is None for a root without any output. Offsets without a note are of version 0.1.0.
    """
    theirs = {note: tp for tp, (_, note) in sorted(commits.items()) if note not in ("", root_id)}
    anew = (
        "If you gave that output up and no worker writes to it, start once with --sink.begin-anew: from then on "
        "the group writes to this one"
    )
    if theirs:
        note, tp = next(iter(theirs.items()))
        raise SettingsError(
            f"group {ours.group!r} writes to the output with the id {note} ({tp} is committed for it), but "
            f"sink.root {store} {'is empty' if root_id is None else f'has the id {root_id}'}: workers of one group "
            "share the partitions, so each output would lack rows of the other. Set --sink.root to that output "
            f"(its id is in its {layout.SINK}), and mount it if needed; or, for a separate output, set "
            f"--kafka.group to another group. {anew}"
        )
    if root_id is None and commits:
        tp, (offset, _) = max(commits.items(), key=lambda item: item[1][0])
        raise SettingsError(
            f"sink.root {store} is empty, but group {ours.group!r} has committed offset {offset} of {tp}: it had "
            "an output. Check that the disk is mounted, and that the folder or bucket is right and was not "
            f"emptied. Restore it, or the whole topic is served again. {anew}, and begins where kafka.origin says"
        )


def read_owner(store: Store) -> Owner | None:
    """Return the owner of the root; None if it is unclaimed. Raises ChainError if the claim cannot be read."""
    data = store.get(layout.OWNER)
    return None if data is None else _owner(store, data)


def is_replay(store: Store, owner: Owner | None) -> bool:
    """Return True if the root is the output of a replay; `owner` is None if it is unclaimed, or not known."""
    return store.get(layout.REPLAY) is not None if owner is None else owner.purpose == "replay"


class _Owner(Document):
    cluster_id: Text
    topic: Text
    group: Text
    purpose: Purpose


def _owner(store: Store, data: bytes) -> Owner:
    return Owner(**parse(_Owner, store, layout.OWNER, data).model_dump())


def _of_0_1_0(store: Store, ours: Owner) -> Owner | None:
    """Return the owner of a root without the claim, as far as its other documents show it; None for a new root."""
    topics = [key.removeprefix(f"{layout.TOPICS}/topic-").removesuffix(".json") for key in store.list(layout.TOPICS)]
    topic = ours.topic if ours.topic in topics or not topics else topics[0]
    if is_replay(store, None):
        return Owner("", topic, "", "replay")
    return Owner("", topic, ours.group, "run") if topics else None


def _expect(store: Store, ours: Owner, theirs: Owner) -> None:
    if ours.is_same(theirs):
        return
    if ours.purpose == "replay":
        raise SettingsError(f"-o {store} belongs to {theirs}, not to {ours}; use a new folder")
    message = (
        f"sink.root {store} belongs to {theirs}, not to {ours}: in one root, each would continue the other's "
        "output. Set --sink.root to a separate folder; to see what other settings would serve, use no second "
        f"group but `adawise replay --topic {ours.topic} -o FOLDER`."
    )
    if replace(theirs, group=ours.group).is_same(ours):
        message += (
            f" If group {theirs.group!r} is gone for good, and this one should continue its output, remove "
            f"{layout.OWNER} from the root."
        )
    raise SettingsError(message)
