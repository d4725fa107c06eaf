"""The troubles of the fleet, the most urgent first, each with its remedy. Pure functions.

A trouble needs the operator's attention now. A camera that changed, or is gone for good, is not a trouble.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from adawise.errors import StoreFull
from adawise.output.verify.findings import Finding
from adawise.text import as_duration
from adawise.watch.backlog import BEHIND_S
from adawise.watch.row import CameraState
from adawise.watch.status.facts import CameraStatus, FleetStatus, PartitionStatus

KINDS: dict[str, str] = {
    "root_unreadable": "the output did not answer",
    "broker_silent": "the broker did not answer; what only it knows is missing here",
    "store_full": "the output's storage is full, so nothing is written",
    "worker_waits": "a worker is not ready, or something that it needs fails",
    "other_cluster": "the broker's cluster is not that of the output",
    "other_root": "the group commits its offsets for another output",
    "chain_broken": "a partition's newest segments cannot be read",
    "log_ends_early": "the broker's log ends before offsets that were already read",
    "messages_lost": "the broker deleted messages before they were read",
    "no_worker": "the consumer group has no members",
    "not_assigned": "no worker has the partition",
    "stalled": "messages wait, and nothing was committed for two minutes",
    "behind": "the oldest message without a row is more than a minute old",
    "hole": "segments are missing from a chain",
    "gap": "offsets have no rows, which is recorded",
    "unclean_starts": "workers of a partition were killed three times or more",
    "camera_silent": "a camera sends no images",
    "camera_rejected": "a tenth of a camera's images or more were rejected",
    "rejects": "more than one image in a hundred was rejected",
}
"""The kinds of trouble, the most urgent first. The words are stable."""

LEAST_BYTES = 16 * 2**20
"""The free space below which a root counts as full, in bytes: one segment may need as much."""

_WAITS = {
    "store": "restore the store; rows wait meanwhile, and nothing is lost",
    "broker": "check the broker; work goes on by itself when it answers",
    "topic": "create the topic that the message names, or restore enough of its replicas",
    "permission": "give the worker's user the right that the message names; work then goes on by itself",
    "": "read its log; /readyz of its port says the same",
}
_UNREPORTED = (
    ". A store that refuses every write has no report of it here: ask the worker for /readyz, or for "
    "adawise_store_full and adawise_outage_seconds at /metrics"
)
_DEATHS = 3  # unclean starts of a partition that are reported; as in `sink.starts`
_OFTEN = 0.01  # share of rejected images above which they are reported
_SETTLED_S = 30.0  # a newer commit may seem to be beyond the log's end, which was asked for at about the same time
_UNSETTLED = {"PreparingRebalance", "CompletingRebalance"}  # group states in which partitions have no member yet


def troubles(
    found: FleetStatus, *, wanted_broker: bool, others: Mapping[str, str], faults: Mapping[str, str]
) -> list[Finding]:
    """Return all troubles, the most urgent first.

    Args:
        found: status of the fleet; its own `troubles` are ignored.
        wanted_broker: True if the broker was to be asked.
        others: ids of a cluster or root that is not ours, by kind of trouble.
        faults: why chains could not be read, by partition.
    """
    root = found.root
    findings = [
        *_unanswered(found.not_asked, wanted_broker),
        *_others(others, root, found.group),
        *(
            Finding("chain_broken", where, what, f"check the rest with `adawise verify {root}`")
            for where, what in faults.items()
        ),
        *_of_store(found),
        *_of_workers(found),
        *_of_group(found),
        *(
            trouble
            for partition in found.partitions
            for trouble in _of_partition(partition, root, _blocked(found, partition))
        ),
        *_of_cameras(found.cameras),
        *_of_rejects(found),
    ]
    order = list(KINDS)
    return sorted(findings, key=lambda trouble: order.index(trouble.kind))


def _unanswered(not_asked: Mapping[str, str], wanted_broker: bool) -> Iterator[Finding]:
    if "root" in not_asked:
        yield Finding("root_unreadable", "", not_asked["root"], "restore the store; workers wait for it")
    if wanted_broker and "broker" in not_asked:
        yield Finding(
            "broker_silent",
            "",
            not_asked["broker"],
            "start it, or do what the message says; workers wait for it; --no-broker leaves it out",
        )


def _others(others: Mapping[str, str], root: str, group: str) -> Iterator[Finding]:
    if (cluster := others.get("other_cluster")) is not None:
        what = f"this broker's cluster is {cluster}, but the output was written from another one"
        yield Finding("other_cluster", "", what, "set kafka.bootstrap_servers to the output's, or --root to its output")
    if (root_id := others.get("other_root")) is not None:
        what = f"the group {group!r} commits offsets for the output with the id {root_id}, not for {root}"
        yield Finding("other_root", "", what, "set --root to that output (its id is in its _sink.json)")


def _is_full(found: FleetStatus) -> bool:
    """Return True if the file system has no room left, or a worker reports that the store has none, as by a quota."""
    has_no_space = found.free_bytes is not None and found.free_bytes < LEAST_BYTES
    return has_no_space or any(worker.is_store_full for worker in found.workers)


def _of_store(found: FleetStatus) -> Iterator[Finding]:
    if _is_full(found):
        free = "" if found.free_bytes is None else f": {found.free_bytes / 2**20:.1f} MiB are free"
        who = ", ".join(worker.worker for worker in found.workers if worker.is_store_full)
        reported = f" (reported by {who})" if who else ""
        yield Finding("store_full", "", f"{found.root} is full{free}{reported}; nothing is written", StoreFull.REMEDY)


def _of_workers(found: FleetStatus) -> Iterator[Finding]:
    for worker in found.workers:
        if not worker.is_store_full or worker.waits_for.keys() != {"store"}:
            party = next(iter(worker.waits_for), "")
            what = "; ".join(worker.reasons) or f"it is {worker.status}"
            yield Finding("worker_waits", worker.worker, what, _WAITS.get(party, _WAITS[""]))


def _blocked(found: FleetStatus, partition: PartitionStatus) -> str:
    """Return the remedy for messages that wait because the store is full or their worker waits; "" if neither is so."""
    if _is_full(found):
        return "free space (store_full), and they are served; another worker could not write either"
    waits = any(worker.worker == partition.writer for worker in found.workers)
    return "see what its worker waits for (worker_waits); then they are served" if waits else ""


def _of_group(found: FleetStatus) -> Iterator[Finding]:
    if found.group_state is None:
        return
    if not found.members:
        waits = sum(partition.lag or 0 for partition in found.partitions)
        yield Finding(
            "no_worker",
            "",
            f"the group {found.group!r} has no members; {waits} messages of {found.topic!r} wait",
            "start a worker (`adawise run`); if one runs, its log says why it is not in the group",
        )
    elif found.group_state not in _UNSETTLED and any(member.partitions for member in found.members):
        ours = (each for each in found.partitions if each.topic == found.topic and each.log_end is not None)
        for partition in (each for each in ours if each.member is None):
            yield Finding(
                "not_assigned",
                partition.called,
                "no worker of the group has it",
                "it is assigned at the next rebalance; if this stays, restart a worker and read its log",
            )


def _of_partition(partition: PartitionStatus, root: str, blocked: str) -> Iterator[Finding]:
    where, who = partition.called, partition.writer or "its worker"
    # Workers write their reports into the root, and the free space of an object store is not known.
    unreported = _UNREPORTED if "://" in root else ""
    read_from = partition.next_offset if partition.next_offset is not None else partition.committed
    if partition.log_start is not None and read_from is not None and read_from < partition.log_start:
        yield Finding(
            "messages_lost",
            where,
            f"the broker's log begins at offset {partition.log_start}, but {read_from} comes next: "
            f"{partition.log_start - read_from} messages were deleted before they were read",
            "raise retention.ms of the topic; the worker stops there unless kafka.on_gap is skip, which records them",
        )
    lag, lag_s, age_s, until = partition.lag, partition.lag_s, partition.commit_age_s or 0.0, partition.next_offset or 0
    if partition.log_end is not None and until > partition.log_end and age_s > _SETTLED_S:
        yield Finding(
            "log_ends_early",
            where,
            f"the log ends at offset {partition.log_end}, but everything up to {until} was already read",
            "the broker lost data, or the topic was created again: restore it, or start a new output (--sink.root)",
        )
    if partition.is_stalled:
        yield Finding(
            "stalled",
            where,
            f"{lag} messages wait, and the last segment is {as_duration(age_s)} old",
            blocked
            or f"look in the log of {who} for retry_scheduled or store_filled, which name the failure{unreported}",
        )
    elif lag and lag_s is not None and lag_s > BEHIND_S:
        yield Finding(
            "behind",
            where,
            f"{lag} messages wait, the oldest for {as_duration(lag_s)}{_pace(partition)}",
            blocked
            or "if it grows, start another worker (up to the number of partitions), or raise search.price to spend "
            "less",
        )
    for hole in partition.holes:
        yield Finding(
            "hole",
            where,
            hole,
            f"restore it from a backup; `adawise verify {root}` lists all that is missing, `adawise repair {root}` "
            "what can be done without a backup",
        )
    for gap in partition.gaps:
        yield Finding(
            "gap",
            where,
            f"offsets {gap['first']} to {gap['last']} have no rows: {gap['reason']}",
            "docs/reference/reasons.md explains the word and names the setting",
        )
    if partition.unclean_starts >= _DEATHS:
        yield Finding(
            "unclean_starts",
            where,
            f"{partition.unclean_starts} workers that had it were killed",
            "check the host and its memory. A message that causes it is decoded in an isolated process and "
            "rejected: see decoding_set_apart in the log",
        )


def _pace(partition: PartitionStatus) -> str:
    """Return in words the rates of arrival and service, and when it catches up; "" if the rates are not known."""
    arriving, served = partition.arriving_per_s, partition.served_per_s
    if arriving is None or served is None:
        return ""
    late_s = partition.catch_up_s
    until = "it falls further behind" if late_s is None else f"{as_duration(late_s)} to catch up"
    return f"; {arriving:.1f} arrive a second, {served:.1f} are served: {until}"


def _of_cameras(cameras: Sequence[CameraStatus]) -> Iterator[Finding]:
    for camera in cameras:
        if camera.state == CameraState.REJECTED:
            most = max(camera.reasons, key=lambda reason: camera.reasons[reason])
            yield Finding(
                "camera_rejected",
                camera.stream_id,
                f"{camera.rejected} images were rejected and {camera.images} accepted; most for {most}",
                "fix its producer: `adawise dlq list` shows the messages, docs/reference/reasons.md explains the word",
            )
        elif camera.state == CameraState.SILENT:
            age = "" if camera.age_s is None else f" for {as_duration(camera.age_s)}"
            yield Finding(
                "camera_silent",
                camera.stream_id,
                f"no image came{age}",
                "check the camera and its producer",
            )


def _of_rejects(found: FleetStatus) -> Iterator[Finding]:
    # Rejects of cameras that are reported by themselves (`camera_rejected`) are not reported again here.
    cameras, rejects = found.cameras, found.rejects
    reported = sum((sum(camera.reasons.values()) for camera in cameras if camera.state == CameraState.REJECTED), 0)
    images, rejected = sum(camera.images for camera in cameras), sum(reject.images for reject in rejects)
    if rejected - reported > _OFTEN * (images + rejected):
        words = ", ".join(f"{reject.reason} {reject.images}" for reject in rejects)
        yield Finding(
            "rejects",
            "",
            f"{rejected} of {images + rejected} images were rejected: {words}",
            f"`adawise dlq list --kafka.topic {found.topic}` shows them, docs/reference/reasons.md explains the words",
        )
