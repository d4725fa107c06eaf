"""The troubles of the fleet, the most urgent first, each with its remedy. Pure functions.

A trouble needs the operator's attention now. A camera that changed, or is gone for good, is not a trouble.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from adawise.errors import StoreFull
from adawise.output.finding import Finding
from adawise.text import as_duration
from adawise.watch.backlog import BEHIND_S
from adawise.watch.row import CameraState
from adawise.watch.status.facts import CameraStatus, FleetStatus, PartitionStatus

KINDS: dict[str, str] = {
    "root_unreadable": "the output could not be asked",
    "broker_silent": "the broker could not be asked; what only it knows is missing here",
    "store_full": "the output has no room, so nothing is written",
    "worker_waits": "a worker is not ready, or something that it needs fails",
    "other_cluster": "the broker's cluster is not the one that the output is of",
    "other_root": "the group commits its offsets for another output",
    "chain_broken": "a partition's newest segments cannot be read",
    "log_ends_early": "the broker's log ends before what was read from it",
    "messages_lost": "the broker deleted messages that nobody had read",
    "no_worker": "nobody is in the consumer group",
    "not_assigned": "a partition that no worker has",
    "stalled": "messages wait, and nothing was committed for two minutes",
    "behind": "the oldest message without a row is more than a minute old",
    "hole": "segments are missing from a chain",
    "gap": "offsets have no rows, and that is recorded",
    "unclean_starts": "workers that had a partition did not end in order, three times or more",
    "camera_silent": "a camera of which nothing comes",
    "camera_rejected": "a tenth of a camera's images or more were rejected",
    "rejects": "more than one image in a hundred was rejected",
}
"""The kinds of trouble, the most urgent first. The words are stable."""

LEAST_BYTES = 16 * 2**20
"""The free space below which a root counts as full, in bytes: one segment may need as much."""

_WAITS = {
    "store": "bring the store back; what is served meanwhile waits, and nothing is lost",
    "broker": "see to the broker; work goes on by itself when it answers",
    "topic": "create the topic that it names, or bring enough of its replicas back",
    "permission": "give the worker's user the right that it names; work goes on by itself then",
    "": "read its log; /readyz of its port has the same sentences",
}
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
    told = [
        *_unasked(found.not_asked, wanted_broker),
        *_others(others, root, found.group),
        *(
            Finding("chain_broken", where, what, f"see what else is: `adawise verify {root}`")
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
    return sorted(told, key=lambda trouble: order.index(trouble.kind))


def _unasked(not_asked: Mapping[str, str], wanted_broker: bool) -> Iterator[Finding]:
    if "root" in not_asked:
        yield Finding("root_unreadable", "", not_asked["root"], "bring the store back; workers wait for it meanwhile")
    if wanted_broker and "broker" in not_asked:
        yield Finding(
            "broker_silent",
            "",
            not_asked["broker"],
            "start it, or do what it says; workers wait for it meanwhile; --no-broker leaves it out",
        )


def _others(others: Mapping[str, str], root: str, group: str) -> Iterator[Finding]:
    if (cluster := others.get("other_cluster")) is not None:
        what = f"this broker's cluster is called {cluster}, and the output was written from another one"
        yield Finding("other_cluster", "", what, "set kafka.bootstrap_servers to the output's, or --root to its output")
    if (root_id := others.get("other_root")) is not None:
        what = f"what the group {group!r} commits is in the output with the id {root_id}, not in {root}"
        yield Finding("other_root", "", what, "set --root to that output (its id is in its _sink.json)")


def _is_full(found: FleetStatus) -> bool:
    """Return True if the file system has no room left, or a worker reports that the store has none, as by a quota."""
    has_no_space = found.free_bytes is not None and found.free_bytes < LEAST_BYTES
    return has_no_space or any(worker.is_store_full for worker in found.workers)


def _of_store(found: FleetStatus) -> Iterator[Finding]:
    if _is_full(found):
        free = "" if found.free_bytes is None else f": {found.free_bytes / 2**20:.1f} MiB are free"
        who = ", ".join(worker.worker for worker in found.workers if worker.is_store_full)
        said = f" (so says {who})" if who else ""
        yield Finding("store_full", "", f"{found.root} has no room{free}{said}; nothing is written", StoreFull.REMEDY)


def _of_workers(found: FleetStatus) -> Iterator[Finding]:
    for worker in found.workers:
        if not worker.is_store_full or worker.waits_for.keys() != {"store"}:
            party = next(iter(worker.waits_for), "")
            what = "; ".join(worker.reasons) or f"it is {worker.status}"
            yield Finding("worker_waits", worker.worker, what, _WAITS.get(party, _WAITS[""]))


def _blocked(found: FleetStatus, partition: PartitionStatus) -> str:
    """Return the remedy for messages that wait because the store is full or their worker waits; "" if neither is so."""
    if _is_full(found):
        return "make room (store_full): they are served then, and another worker could not write either"
    waits = any(worker.worker == partition.writer for worker in found.workers)
    return "see what its worker waits for (worker_waits): they are served then" if waits else ""


def _of_group(found: FleetStatus) -> Iterator[Finding]:
    if found.group_state is None:
        return
    if not found.members:
        waits = sum(partition.lag or 0 for partition in found.partitions)
        yield Finding(
            "no_worker",
            "",
            f"nobody is in the group {found.group!r}; {waits} messages of {found.topic!r} wait",
            "start a worker: `adawise run`; if one runs, its log says why it is not in the group",
        )
    elif found.group_state not in _UNSETTLED and any(member.partitions for member in found.members):
        ours = (each for each in found.partitions if each.topic == found.topic and each.log_end is not None)
        for partition in (each for each in ours if each.member is None):
            yield Finding(
                "not_assigned",
                partition.called,
                "no worker of the group has it",
                "it is assigned with the next rebalance: if it stays so, restart a worker and read its log",
            )


def _of_partition(partition: PartitionStatus, root: str, blocked: str) -> Iterator[Finding]:
    where, who = partition.called, partition.writer or "its worker"
    read_from = partition.next_offset if partition.next_offset is not None else partition.committed
    if partition.log_start is not None and read_from is not None and read_from < partition.log_start:
        yield Finding(
            "messages_lost",
            where,
            f"the broker has nothing before offset {partition.log_start}, and {read_from} comes next: "
            f"{partition.log_start - read_from} messages are gone that nobody read",
            "raise retention.ms of the topic; the worker stops there unless kafka.on_gap is skip, which records them",
        )
    lag, lag_s, age_s, until = partition.lag, partition.lag_s, partition.commit_age_s or 0.0, partition.next_offset or 0
    if partition.log_end is not None and until > partition.log_end and age_s > _SETTLED_S:
        yield Finding(
            "log_ends_early",
            where,
            f"the log ends at offset {partition.log_end}, and everything up to {until} was read from it",
            "the broker lost data, or the topic was made anew: restore it, or begin a new output (--sink.root)",
        )
    if partition.is_stalled:
        yield Finding(
            "stalled",
            where,
            f"{lag} messages wait, and the last segment is {as_duration(age_s)} old",
            blocked or f"look at the log of {who} for retry_scheduled or store_filled, which name what fails",
        )
    elif lag and lag_s is not None and lag_s > BEHIND_S:
        yield Finding(
            "behind",
            where,
            f"{lag} messages wait, the oldest for {as_duration(lag_s)}{_pace(partition)}",
            blocked
            or "if it grows, start another worker (as many as partitions help), or spend less: a higher search.price",
        )
    for hole in partition.holes:
        yield Finding(
            "hole",
            where,
            hole,
            f"restore it from a backup; `adawise verify {root}` says all that is missing, `adawise repair {root}` "
            "what can be done without one",
        )
    for gap in partition.gaps:
        yield Finding(
            "gap",
            where,
            f"offsets {gap['first']} to {gap['last']} have no rows: {gap['reason']}",
            "docs/reference/reasons.md says what the word means, and which setting bears on it",
        )
    if partition.unclean_starts >= _DEATHS:
        yield Finding(
            "unclean_starts",
            where,
            f"{partition.unclean_starts} workers that had it did not end in order",
            "was it the host, or out of memory? If a message does it, it is decoded apart, and rejected: see the log "
            "for decoding_set_apart",
        )


def _pace(partition: PartitionStatus) -> str:
    """Return in words the rates of arrival and service, and when it catches up; "" if the rates are not known."""
    arriving, served = partition.arriving_per_s, partition.served_per_s
    if arriving is None or served is None:
        return ""
    late_s = partition.catch_up_s
    until = "it falls behind further" if late_s is None else f"{as_duration(late_s)} to catch up"
    return f"; {arriving:.1f} come a second, {served:.1f} are served: {until}"


def _of_cameras(cameras: Sequence[CameraStatus]) -> Iterator[Finding]:
    for camera in cameras:
        if camera.state == CameraState.REJECTED:
            most = max(camera.reasons, key=lambda reason: camera.reasons[reason])
            yield Finding(
                "camera_rejected",
                camera.stream_id,
                f"{camera.rejected} images were rejected and {camera.images} accepted; most for {most}",
                "mend its producer: `adawise dlq list` shows what came, docs/reference/reasons.md what the word means",
            )
        elif camera.state == CameraState.SILENT:
            age = "" if camera.age_s is None else f" for {as_duration(camera.age_s)}"
            yield Finding(
                "camera_silent",
                camera.stream_id,
                f"nothing of it came{age}",
                "look at the camera, and at what sends its images",
            )


def _of_rejects(found: FleetStatus) -> Iterator[Finding]:
    # Rejects of cameras that are reported by themselves (`camera_rejected`) are not reported again here.
    cameras, rejects = found.cameras, found.rejects
    told = sum((sum(camera.reasons.values()) for camera in cameras if camera.state == CameraState.REJECTED), 0)
    images, rejected = sum(camera.images for camera in cameras), sum(reject.images for reject in rejects)
    if rejected - told > _OFTEN * (images + rejected):
        words = ", ".join(f"{reject.reason} {reject.images}" for reject in rejects)
        yield Finding(
            "rejects",
            "",
            f"{rejected} of {images + rejected} images were rejected: {words}",
            f"`adawise dlq list --kafka.topic {found.topic}` shows them, docs/reference/reasons.md says what the words "
            "mean",
        )
