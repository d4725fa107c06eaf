"""Alert rules, and the alerts of one partition's cameras, frame by frame: each is raised once and cleared once.

Pure; time is an argument.

Label alerts follow from the images of a camera in their order, so a replay raises the same ones. The state is part of
the chain: a worker that continues from a segment neither raises an alert again nor forgets to clear it. So a change is
published only after the segment that contains it is committed. If a worker published it before and died, the alert
would be in no state, and no worker would ever clear it.

Silence is measured by the clock of the worker that owns the partition, from when it read the camera's last message. The
state keeps that time, so that a restart does not begin to measure anew. Messages that came after the state was written
count from when they reached the broker. The identity of an alert does not depend on the worker that publishes it: it is
the rule, the camera, and the image that raised it; for a silent camera, its last message.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any

import numpy as np

from adawise.ports import Served
from adawise.records import Alert, RowId, TopicPartition


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Raised when `frames` of a camera's last `of` images show one of `labels`, each with at least `confidence`.

    Cleared when that has not held for `clear_frames` images in a row. `streams` is a shell pattern of stream ids. With
    `by_scene`, classes and probabilities are those corrected by the camera's scene, where there are such.
    """

    name: str
    labels: frozenset[str]
    confidence: float
    frames: int
    of: int
    clear_frames: int
    streams: str = "*"
    by_scene: bool = False


@dataclass(frozen=True, slots=True)
class SilenceRule:
    """Raised when a camera has sent nothing for `silent_s` seconds by the worker's clock.

    Cleared when it sends again.
    """

    name: str
    silent_s: float
    streams: str = "*"


Rule = LabelRule | SilenceRule


def covers(rule: Rule, stream_id: str) -> bool:
    """Return True if the rule applies to this camera."""
    return fnmatchcase(stream_id, rule.streams)


def digest(rule: Rule) -> str:
    """Return a digest of the rule's definition; a rule whose definition changed begins with an empty state."""
    text = repr([sorted(value) if isinstance(value, frozenset) else value for value in _values(rule)])
    return hashlib.sha256(f"{type(rule).__name__} {text}".encode()).hexdigest()[:16]


def _values(rule: Rule) -> list[object]:
    # A rule that could be written before `by_scene` was there keeps its state.
    names = rule.__dataclass_fields__.keys() - ({"by_scene"} if not getattr(rule, "by_scene", False) else set())
    return [getattr(rule, name) for name in sorted(names)]


_GONE_MS = 86_400_000  # before the newest; a camera that was silent for longer was taken down


@dataclass(slots=True)
class _Window:
    """The state of one camera and label rule: which of its last images matched, the newest in the lowest bit."""

    window: int = 0
    quiet: int = 0  # consecutive images for which the rule did not hold, while raised
    raised: RowId | None = None
    label: str | None = None
    confidence: float | None = None

    def stored(self) -> list[Any]:
        return [self.window, self.quiet, self.raised and list(_place(self.raised)), self.label, self.confidence]

    @classmethod
    def of(cls, stored: Sequence[Any], topic: str) -> _Window:
        window, quiet, raised, label, confidence = stored
        return cls(window, quiet, RowId(topic, *raised) if raised else None, label, confidence)


@dataclass(slots=True)
class _Watch:
    """The state of a silence rule: when each camera was last seen, and at which offset.

    `raised` has the silent cameras.
    """

    watched: OrderedDict[str, tuple[int, int]]  # the camera that has been silent longest is first
    raised: dict[str, tuple[int, int]]

    def by_clock(self, now_ms: int) -> OrderedDict[str, tuple[int, int]]:
        """Return `watched` with no time later than now; the worker that wrote it may have had a clock that ran ahead.

        Such a camera would be called silent too late, and so would all after it.
        """
        ahead = list(takewhile(lambda item: item[1][0] > now_ms, reversed(self.watched.items())))
        self.watched.update((stream, (now_ms, offset)) for stream, (_, offset) in ahead)
        return self.watched


class PartitionAlerts:
    """The alerts of one partition.

    Args:
        tp: the partition.
        rules: with distinct names.
        classes: the class list that predictions index.
        stored: the result of `stored` in the segment before; empty if there is none.
        published: whether changes are published. While they are not and there are no rules, raised alerts stay raised:
            a worker that publishes again clears them.
        known: the Kafka timestamp and the offset of each camera's last message. A rule that the state does not have
            watches those of the last day from then on: one that has fallen silent before may never send again.
    """

    def __init__(
        self,
        tp: TopicPartition,
        rules: Sequence[Rule],
        classes: Sequence[str],
        stored: bytes,
        *,
        published: bool = True,
        known: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self._tp = tp
        self._rules = {rule.name: rule for rule in rules}
        self.count_by(classes)
        self._silences = [rule for rule in rules if isinstance(rule, SilenceRule)]
        self._windows: dict[str, dict[str, _Window]] = {rule.name: {} for rule, _ in self._labels}
        self._watches = {rule.name: _Watch(_watched(rule, known or {}), {}) for rule in self._silences}
        self.news: list[Alert] = []  # not in a segment yet
        self._unpublished = b"" if rules or published else _raised_by_no_rule(stored)
        parts: dict[str, Any] = json.loads(stored) if stored and not self._unpublished else {}
        self.written = [_alert(each, tp) for each in parts.get("events", ())]
        """Alerts in the segment before, to be published again: its worker may have died before it published them."""
        self.written_by: str = parts.get("attempt", "")
        for name, state in parts.get("state", {}).items():
            rule = self._rules.get(name)
            is_same = rule is not None and digest(rule) == state["digest"]
            if is_same:
                self._restore(name, state)
            else:
                self.news += self._dropped(name, state)

    # -- in

    def count_by(self, classes: Sequence[str]) -> None:
        """Use this class list for predictions from now on; matches of earlier images stay as they are."""
        self._classes = classes
        self._labels = [(rule, _indices(rule, classes)) for rule in self._rules.values() if isinstance(rule, LabelRule)]

    def served(self, served: Served, *, anew: bool) -> list[Alert]:
        """Process a batch of a camera, in its order, and return the changes.

        With `anew`, the camera's earlier label state is discarded first, and its raised label alerts are cleared.
        """
        batch, predictions, trace = served
        stream, changes = batch.stream_id, list[Alert]()
        if anew:
            changes += self._forget_labels(stream, trace.predicted_at_us)
        for rule, indices in self._labels:
            known = self._windows[rule.name]
            best, confidence = predictions.top_index[:, 0], predictions.top_probability[:, 0]
            if rule.by_scene and predictions.scene_index is not None and predictions.scene_confidence is not None:
                best, confidence = predictions.scene_index, predictions.scene_confidence
            matches = np.isin(best, indices) & (confidence >= rule.confidence)
            if (not matches.any() and stream not in known) or not covers(rule, stream):
                continue
            recent = known.setdefault(stream, _Window())
            for i, frame in enumerate(batch.frames):
                recent.window = (recent.window << 1 | int(matches[i])) & ((1 << rule.of) - 1)
                holds = recent.window.bit_count() >= rule.frames
                recent.quiet = 0 if holds else recent.quiet + 1
                if holds and recent.raised is None:
                    recent.raised, recent.label = frame.row_id, self._classes[int(best[i])]
                    recent.confidence = float(confidence[i])
                    changes.append(
                        self._label_alert(rule.name, stream, recent, "seen", frame.row_id, trace.predicted_at_us)
                    )
                elif recent.raised is not None and recent.quiet >= rule.clear_frames:
                    changes.append(
                        self._cleared(rule.name, stream, recent, "gone", frame.row_id, trace.predicted_at_us)
                    )
            # A camera without matches and alerts needs no state: most cameras and rules have none.
            if not recent.window and recent.raised is None:
                del known[stream]
        self.news += changes
        return changes

    def received(self, stream_id: str, offset: int, now_ms: int, came_ms: int | None = None) -> list[Alert]:
        """Process a message of the camera that was read at `now_ms` since the epoch, and return the changes.

        It must be called once for each message, in the order of offsets. `came_ms` is the Kafka timestamp of a message
        that was in the partition before this worker owned it. Another worker has read it, or would have. So the
        camera's silence began then, though not before the newest time that the state knows.
        """
        changes = []
        for rule in self._silences:
            if not covers(rule, stream_id):
                continue
            state = self._watches[rule.name]
            before = state.raised.pop(stream_id, None)
            if before is not None:
                at = RowId(*self._tp, offset, 0)
                changes.append(self._silence_alert(rule.name, stream_id, before, "heard", at, 1_000 * now_ms))
            watched = state.by_clock(now_ms)
            at_ms = now_ms
            if came_ms is not None:
                newest_ms = next(reversed(watched.values()))[0] if watched else now_ms
                at_ms = min(now_ms, max(newest_ms, came_ms))
            watched[stream_id] = at_ms, offset
            watched.move_to_end(stream_id)
        self.news += changes
        return changes

    def is_due(self, now_ms: int) -> bool:
        """Return True if a camera has been silent for as long as a rule says, provided that all messages were read."""
        return any(self._silent(rule, now_ms) for rule in self._silences)

    def silent(self, now_ms: int, *, has_place: Callable[[str], bool]) -> list[Alert]:
        """Raise the alerts that are due, once all messages were read, and return the changes.

        Alerts are raised for cameras that have a place; the others are no longer watched.
        """
        changes = []
        for rule in self._silences:
            state = self._watches[rule.name]
            while self._silent(rule, now_ms):
                stream, before = state.watched.popitem(last=False)
                if has_place(stream):
                    state.raised[stream] = before
                    changes.append(
                        self._silence_alert(rule.name, stream, before, "silent", None, 1_000 * now_ms, raised=True)
                    )
        self.news += changes
        return changes

    def forget(self, keeps: Callable[[str], bool]) -> list[Alert]:
        """Stop watching cameras that have left their place; return the alerts of theirs that this clears."""
        changes = []
        for stream in sorted(stream for stream in self._streams if not keeps(stream)):
            changes += self._forget_labels(stream, None)
            for name, state in self._watches.items():
                state.watched.pop(stream, None)
                if (before := state.raised.pop(stream, None)) is not None:
                    changes.append(self._silence_alert(name, stream, before, "forgotten", None, None))
        self.news += changes
        return changes

    # -- out

    def stored(self, attempt: str) -> bytes:
        """Return the state, with its new changes, for the segment of this attempt.

        Empty if there is nothing to store.
        """
        events, self.news = self.news, []
        if not (self._rules or events):
            return self._unpublished
        state: dict[str, dict[str, Any]] = {}
        for name, of_stream in self._windows.items():
            kept = {stream: recent.stored() for stream, recent in sorted(of_stream.items())}
            state[name] = {"digest": digest(self._rules[name]), "seen": kept}
        for name, watch in self._watches.items():
            state[name] = {"digest": digest(self._rules[name]), "watched": watch.watched, "raised": watch.raised}
        parts = {"attempt": attempt, "events": [_plain(event) for event in events], "state": state}
        return json.dumps(parts, separators=(",", ":")).encode()

    # -- within

    @property
    def _streams(self) -> set[str]:
        found = {stream for of_stream in self._windows.values() for stream in of_stream}
        for state in self._watches.values():
            found |= state.watched.keys() | state.raised.keys()
        return found

    def _silent(self, rule: SilenceRule, now_ms: int) -> bool:
        watched = self._watches[rule.name].by_clock(now_ms)
        return bool(watched) and next(iter(watched.values()))[0] + 1_000 * rule.silent_s <= now_ms

    def _forget_labels(self, stream: str, at_us: int | None) -> list[Alert]:
        changes = []
        for name, of_stream in self._windows.items():
            recent = of_stream.pop(stream, None)
            if recent is not None and recent.raised is not None:
                changes.append(self._cleared(name, stream, recent, "forgotten", None, at_us))
        return changes

    def _cleared(
        self, name: str, stream: str, recent: _Window, cause: str, at: RowId | None, at_us: int | None
    ) -> Alert:
        alert = self._label_alert(name, stream, recent, cause, at, at_us, raised=False)
        recent.raised = recent.label = recent.confidence = None
        return alert

    def _label_alert(
        self,
        name: str,
        stream: str,
        recent: _Window,
        cause: str,
        at: RowId | None,
        at_us: int | None,
        *,
        raised: bool = True,
    ) -> Alert:
        assert recent.raised is not None
        return Alert(name, "label", raised, stream, recent.raised, cause, at, at_us, recent.label, recent.confidence)

    def _silence_alert(
        self,
        name: str,
        stream: str,
        before: tuple[int, int],
        cause: str,
        at: RowId | None,
        at_us: int | None,
        *,
        raised: bool = False,
    ) -> Alert:
        return Alert(name, "silence", raised, stream, RowId(*self._tp, before[1], 0), cause, at, at_us)

    def _restore(self, name: str, state: Mapping[str, Any]) -> None:
        if "seen" in state:
            self._windows[name] = {stream: _Window.of(data, self._tp.topic) for stream, data in state["seen"].items()}
            return
        watched = sorted(state["watched"].items(), key=lambda item: item[1])
        raised = {stream: (at_ms, offset) for stream, (at_ms, offset) in state["raised"].items()}
        self._watches[name] = _Watch(
            OrderedDict((stream, (at_ms, offset)) for stream, (at_ms, offset) in watched), raised
        )

    def _dropped(self, name: str, state: Mapping[str, Any]) -> Iterable[Alert]:
        """Yield the clearing of alerts by rules that no longer exist or have changed."""
        cause = "rule_changed"
        for stream, data in sorted(state.get("seen", {}).items()):
            recent = _Window.of(data, self._tp.topic)
            if recent.raised is not None:
                yield self._label_alert(name, stream, recent, cause, None, None, raised=False)
        for stream, (at_ms, offset) in sorted(state.get("raised", {}).items()):
            yield self._silence_alert(name, stream, (at_ms, offset), cause, None, None)


def _watched(rule: Rule, known: Mapping[str, tuple[int, int]]) -> OrderedDict[str, tuple[int, int]]:
    """Return the cameras that a silence rule watches at first: those that were seen within a day of the newest."""
    newest_ms = max((at_ms for at_ms, _ in known.values()), default=0)
    lately = {name: place for name, place in known.items() if newest_ms - place[0] < _GONE_MS and covers(rule, name)}
    return OrderedDict(sorted(lately.items(), key=lambda item: item[1]))


def without_news(stored: bytes) -> bytes:
    """Return the state without its changes, for another chain that begins with it and must not publish them again."""
    if not stored:
        return stored
    return json.dumps({**json.loads(stored), "events": [], "attempt": ""}, separators=(",", ":")).encode()


def _raised_by_no_rule(stored: bytes) -> bytes:
    """Return the newest changes and the raised alerts, under no current rule; empty if there is neither."""
    parts: dict[str, Any] = json.loads(stored) if stored else {}
    state = {}
    for name, of_rule in parts.get("state", {}).items():
        windows = {stream: window for stream, window in of_rule.get("seen", {}).items() if window[2] is not None}
        if windows or of_rule.get("raised"):
            state[name] = {"digest": "", "seen": windows, "raised": of_rule.get("raised", {})}
    if not (state or parts.get("events")):
        return b""
    return json.dumps({**parts, "state": state}, separators=(",", ":")).encode()


def _indices(rule: LabelRule, classes: Sequence[str]) -> list[int]:
    return [index for index, name in enumerate(classes) if name in rule.labels]


def _place(row_id: RowId) -> tuple[int, int, int]:
    return row_id.partition, row_id.offset, row_id.index


def _plain(alert: Alert) -> list[Any]:
    at = alert.at and list(_place(alert.at))
    first = [alert.rule, alert.kind, alert.raised, alert.stream_id, list(_place(alert.row_id)), alert.cause]
    return [*first, at, alert.at_us, alert.label, alert.confidence]


def _alert(stored: Sequence[Any], tp: TopicPartition) -> Alert:
    rule, kind, raised, stream, row_id, cause, at, at_us, label, confidence = stored
    return Alert(
        rule,
        kind,
        raised,
        stream,
        RowId(tp.topic, *row_id),
        cause,
        RowId(tp.topic, *at) if at else None,
        at_us,
        label,
        confidence,
    )
