from __future__ import annotations

import json

from adawise.publish.results.alert import CLEARED, RAISED, message_of_alert
from adawise.publish.results.message import Envelope
from adawise.records import Alert, RowId
from tests.publish.results.topic import VALIDATOR

ENVELOPE = Envelope("frames.results", "/adawise/roots/r")
ROW = RowId("frames", 0, 17, 2)
LABEL = Alert("forklift", "label", True, "gate/1", ROW, "seen", ROW, 1_800_000_000_000_000, "forklift", 0.875)


def test_an_alert_is_a_message_of_its_camera_whose_id_knows_no_attempt() -> None:
    raised = message_of_alert(LABEL, "a1", ENVELOPE)
    headers = dict(raised.headers)
    assert (raised.topic, raised.key, headers["ce_type"]) == ("frames.results", b"gate/1", RAISED.encode())
    assert headers["ce_id"] == dict(message_of_alert(LABEL, "a2", ENVELOPE).headers)["ce_id"]
    assert headers["ce_id"] == b"forklift:frames/0/17/2:gate/1:raised"
    document = json.loads(raised.value)
    VALIDATOR.validate(document)
    assert document == {
        "alert_id": "forklift:frames/0/17/2:gate/1",
        "rule": "forklift",
        "kind": "label",
        "state": "raised",
        "cause": "seen",
        "stream_id": "gate/1",
        "row_id": "frames/0/17/2",
        "at_row_id": "frames/0/17/2",
        "label": "forklift",
        "confidence": 0.875,
        "changed_at": "2027-01-15T08:00:00.000000Z",
        "attempt": "a1",
    }
    assert raised.smaller() == ()


def test_what_clears_it_has_its_identity_and_another_id() -> None:
    cleared = Alert("dark", "silence", False, "gate/1", ROW, "rule_changed")
    message = message_of_alert(cleared, "a1", ENVELOPE)
    headers = dict(message.headers)
    assert (headers["ce_type"], headers["ce_id"]) == (CLEARED.encode(), b"dark:frames/0/17/2:gate/1:cleared")
    assert "ce_time" not in headers
    document = json.loads(message.value)
    VALIDATOR.validate(document)
    assert (document["label"], document["confidence"], document["at_row_id"], document["changed_at"]) == (None,) * 4
