"""Messages of alerts on the topic of results, for raised and cleared ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from adawise.publish.results.message import (
    NUMBER,
    TEXT,
    TIME,
    Envelope,
    EventField,
    EventMessage,
    encoded,
    its,
    plain,
    text,
)
from adawise.records import Alert

RAISED, CLEARED = "adawise.alert.raised", "adawise.alert.cleared"
"""Types of events."""

CAUSES = ("seen", "gone", "silent", "heard", "forgotten", "rule_changed")


def alert_id(alert: Alert) -> str:
    """Return the id of the alert, the same from raised to cleared, whichever worker publishes it."""
    return f"{alert.rule}:{alert.row_id}:{alert.stream_id}"


FIELDS: Sequence[EventField[Alert]] = (
    EventField(
        "alert_id",
        TEXT,
        "rule, row_id and camera: the same when the alert is raised and cleared, and in every duplicate",
        lambda a, _: alert_id(a),
        False,
    ),
    EventField("rule", TEXT, "name of the rule in alerts.rules", its("rule"), False),
    EventField("kind", TEXT, "kind of the rule", its("kind"), False, ("label", "silence")),
    EventField(
        "state",
        TEXT,
        "raised, or cleared",
        lambda a, _: "raised" if a.raised else "cleared",
        False,
        ("raised", "cleared"),
    ),
    EventField(
        "cause",
        TEXT,
        "raised: `seen` or `silent`; cleared: `gone` (not seen any more), `heard` (the camera sends again), "
        "`forgotten` (the camera's state was dropped or starts anew), `rule_changed`",
        its("cause"),
        False,
        CAUSES,
    ),
    EventField("stream_id", TEXT, "the camera", its("stream_id"), False),
    EventField(
        "row_id",
        TEXT,
        "the image that raised the alert; for a silent camera its last message",
        lambda a, _: str(a.row_id),
        False,
    ),
    EventField(
        "at_row_id",
        TEXT,
        "the image or message that changed the alert; null if none did",
        lambda a, _: None if a.at is None else str(a.at),
    ),
    EventField(
        "label",
        TEXT,
        "class of the image that raised the alert: that of its result, or scene_label where the rule goes by that; "
        "null for a silent camera",
        its("label"),
    ),
    EventField("confidence", NUMBER, "probability of label; null for a silent camera", its("confidence")),
    EventField(
        "changed_at",
        TIME,
        "when the image was predicted or the change noticed, by the worker's clock; null if rules or partitions "
        "changed",
        its("at_us"),
    ),
    EventField(
        "attempt",
        TEXT,
        "the worker's attempt at the segment that contains the change",
        lambda _, attempt: attempt,
        False,
    ),
)


def message_of_alert(alert: Alert, attempt: str, envelope: Envelope) -> EventMessage:
    """Return the message of a change of an alert.

    Its id does not contain the attempt: it is the same event, whichever worker publishes it.
    """
    kind = RAISED if alert.raised else CLEARED
    headers = envelope.headers(kind, f"{alert_id(alert)}:{kind.rpartition('.')[2]}", alert.stream_id, alert.at_us)
    return EventMessage(envelope.topic, text(alert.stream_id), encoded(plain(FIELDS, alert, attempt)), headers)
