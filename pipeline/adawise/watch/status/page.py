"""The live page of a whole fleet, with the same rows that a worker's page has for its own cameras."""

from __future__ import annotations

from datetime import datetime

from adawise.records import TopicPartition
from adawise.text import as_duration, shared_layers
from adawise.watch.backlog import backlog_facts
from adawise.watch.details import Facts, Groups, HintPlaces, number, rejected_words
from adawise.watch.row import STEPS, CameraRow, CameraState, CameraView, LiveView, rates
from adawise.watch.status.facts import LACKING_REMEDY, CameraStatus, FleetStatus, PartitionStatus

_NOTICES = 20  # at most
_OF_CAMERAS = {"camera_silent", "camera_rejected"}  # troubles that the rows of cameras show already


class FleetPage:
    """An `adawise.watch.row.Provider` that shows the last status. Another thread may replace `found`."""

    def __init__(self, found: FleetStatus) -> None:
        self.found = found

    def view(self) -> LiveView:
        """See `Provider`."""
        found = self.found
        waits = backlog_facts([each.backlog for each in found.partitions])
        ages = [each.commit_age_s for each in found.partitions if each.commit_age_s is not None]
        partitions = {(each.topic, each.partition): each for each in found.partitions}
        rows = [_row(each, partitions.get((each.topic, each.partition))) for each in _shown(found)]
        notices = [
            (f"{each.where}: " if each.where else "") + f"{each.what.rstrip('.')}; {each.remedy}"
            for each in found.troubles
            if each.kind not in _OF_CAMERAS
        ]
        notices += [f"{each.stream_id}: {what}; {LACKING_REMEDY}" for each in found.cameras for what in each.lacking]
        facts = [
            ("workers" if found.group_state is not None else "wrote last", str(len(found.members))),
            *rates(rows),
            *([] if "lag" in dict(waits) else [("lag", "not known")]),
            *waits,
            ("partitions", str(len(found.partitions))),
            *([("method", "; ".join(methods))] if (methods := found.methods) else []),
            *([("label of results", " and ".join(columns))] if (columns := found.label_columns) else []),
            *([("last segment", f"{as_duration(min(ages))} ago")] if ages else []),
        ]
        if gone := found.camera_states[CameraState.GONE]:
            facts.append(("gone for a day", str(gone)))
        return LiveView(
            title=_title(found),
            now_s=_unix_s(found.at),
            rows=rows,
            facts=facts,
            notices=notices[:_NOTICES],
            over=f"the last {as_duration(found.window_s)}",
        )

    def camera(self, key: str) -> CameraView | None:
        """See `Provider`."""
        found = self.found
        camera = next((each for each in _shown(found) if f"{_place(each)}/{each.stream_id}" == key), None)
        if camera is None:
            return None
        partition = next((each for each in found.partitions if each.called == str(_place(camera))), None)
        row = _row(camera, partition)
        facts = _details(camera, row, partition, f"The last {as_duration(found.window_s)}")
        places = HintPlaces(found.root, found.topic, knows_settings=False)
        hints = places.hints(camera.stream_id, rejected=camera.rejected)
        return CameraView(_title(found), _unix_s(found.at), row, facts, hints=hints)

    def picture(self, key: str) -> bytes | None:
        """Return None: an output has no pictures. See `Provider`."""
        del key
        return None


def _title(found: FleetStatus) -> str:
    return f"{found.topic} in {found.root}"


def _place(camera: CameraStatus) -> TopicPartition:
    return TopicPartition(camera.topic, camera.partition)


def _shown(found: FleetStatus) -> list[CameraStatus]:
    return [camera for camera in found.cameras if camera.state != CameraState.GONE]


def _details(camera: CameraStatus, row: CameraRow, partition: PartitionStatus | None, window: str) -> Groups:
    """Return what is known of a camera beside its row; `window` is the time that counts are of, in words."""
    served: Facts = [
        ("images/s", f"{row.images_per_s:.1f}"),
        *number("forwards per image (FE)", row.forward_equivalents, "{:.2f}"),
        *number("agreement", row.agreement, "{:.0%}"),
        ("served", f"{camera.images:,}"),
        ("rejected", rejected_words(camera.rejected, camera.reasons)),
    ]
    if partition is None:
        return [(window, served)]
    waits = backlog_facts([partition.backlog]) or [("lag", "not known")]
    writer = [("written by", partition.writer)] if partition.writer else []
    model = [("method", partition.method)] if partition.method else []
    model += [("label of results", partition.label_column)] if partition.label_column else []
    model += [("shared layers", shared_layers(partition.tail_share))] if partition.tail_share is not None else []
    of_model = [("Model", model)] if model else []
    return [(window, served), (f"Partition {partition.called}", [*waits, *writer]), *of_model]


def _row(camera: CameraStatus, partition: PartitionStatus | None) -> CameraRow:
    alphas = dict(zip(camera.alpha_steps, camera.alphas, strict=True))
    last = max(alphas, default=0)
    first = max(min(alphas, default=0), last - STEPS + 1)
    return CameraRow(
        stream_id=camera.stream_id,
        partition=str(_place(camera)),
        state=camera.state,
        why=camera.why,
        alpha=camera.alpha,
        first_step=first,
        alphas=tuple(alphas.get(step) for step in range(first, last + 1)) if alphas else (),
        condition=camera.condition,
        returns=camera.returns,
        classes=tuple(camera.top),
        images_per_s=0.0 if camera.state == CameraState.SILENT else camera.images_per_s or 0.0,
        images=camera.images,
        rejected=camera.rejected,
        forward_equivalents=camera.forward_equivalents,
        agreement=camera.agreement,
        lag=None if partition is None else partition.lag,
        last_seen_s=None if camera.last_seen is None else _unix_s(camera.last_seen),
    )


def _unix_s(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
