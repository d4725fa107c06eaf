"""The live page of a whole fleet, with the same rows that a worker's page has for its own cameras."""

from __future__ import annotations

from datetime import datetime

from adawise.records import TopicPartition
from adawise.text import as_duration
from adawise.watch.backlog import backlog_facts
from adawise.watch.row import STEPS, CameraRow, CameraState, LiveView, rates
from adawise.watch.status.facts import CameraStatus, FleetStatus

_NOTICES = 20  # at most
_OF_CAMERAS = {"camera_silent", "camera_rejected"}  # troubles that the rows of cameras show already


class FleetPage:
    """An `adawise.watch.row.Provider` that shows the last status. Another thread may replace `found`."""

    def __init__(self, found: FleetStatus) -> None:
        self.found = found

    def view(self) -> LiveView:
        """See `Provider`."""
        found = self.found
        lags = {(each.topic, each.partition): each.lag for each in found.partitions}
        waits = backlog_facts([each.backlog for each in found.partitions])
        ages = [each.commit_age_s for each in found.partitions if each.commit_age_s is not None]
        rows = [
            _row(each, lags.get((each.topic, each.partition)))
            for each in found.cameras
            if each.state != CameraState.GONE
        ]
        facts = [
            ("workers" if found.group_state is not None else "wrote last", str(len(found.members))),
            *rates(rows),
            *([] if "lag" in dict(waits) else [("lag", "not known")]),
            *waits,
            ("partitions", str(len(found.partitions))),
            *([("method", "; ".join(methods))] if (methods := found.methods) else []),
            *([("last segment", f"{as_duration(min(ages))} ago")] if ages else []),
        ]
        if gone := found.camera_states[CameraState.GONE]:
            facts.append(("gone for a day", str(gone)))
        return LiveView(
            title=f"{found.topic} in {found.root}",
            now_s=_unix_s(found.at),
            rows=rows,
            facts=facts,
            notices=[
                (f"{each.where}: " if each.where else "") + f"{each.what.rstrip('.')}; {each.remedy}"
                for each in found.troubles
                if each.kind not in _OF_CAMERAS
            ][:_NOTICES],
            over=f"the last {as_duration(found.window_s)}",
        )

    def picture(self, key: str) -> bytes | None:
        """Return None: an output has no pictures. See `Provider`."""
        del key
        return None


def _row(camera: CameraStatus, lag: int | None) -> CameraRow:
    alphas = dict(zip(camera.alpha_steps, camera.alphas, strict=True))
    last = max(alphas, default=0)
    first = max(min(alphas, default=0), last - STEPS + 1)
    return CameraRow(
        stream_id=camera.stream_id,
        partition=str(TopicPartition(camera.topic, camera.partition)),
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
        lag=lag,
        last_seen_s=None if camera.last_seen is None else _unix_s(camera.last_seen),
    )


def _unix_s(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
