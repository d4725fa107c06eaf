"""Which label results have, by the pair that served them or by the publisher's own settings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from adawise.ports import Publication, ServedBy
from adawise.publish.outbox import Producer
from adawise.publish.results.sink import KafkaResults
from adawise.records import LabelColumn
from tests.publish.dead_letters.test_sink import FakeProducer
from tests.sink.building import CLASSES, frame, served


@pytest.mark.parametrize(
    ("own", "of_pair", "expected"),
    [
        (None, None, "label"),
        ("scene_label", None, "scene_label"),
        ("label", "served", "scene_label"),
        ("scene_label", "beside", "label"),
    ],
)
def test_results_have_the_label_of_the_settings_that_served_them(
    own: LabelColumn | None, of_pair: str | None, expected: str
) -> None:
    producer = FakeProducer()
    results = KafkaResults(
        connect=lambda: cast("Producer", producer),
        prepare=lambda _: None,
        where="broker:9092",
        topic="frames.results",
        source=lambda: "/adawise/roots/r",
        classes=CLASSES,
        model_fingerprint="model",
        column=own,
        when="early",
        per="batch",
        form="json",
        timeout_s=1.0,
    )
    images, predictions, trace = served([frame(offset) for offset in range(3)])
    index, confidence = np.full(3, 2, np.int32), np.full(3, 0.5, np.float32)
    corrected = images, replace(predictions, scene_index=index, scene_confidence=confidence), trace
    by = None if of_pair is None else ServedBy(CLASSES, "model", "config", "pair", {"scene.prior": of_pair})
    assert results.send(Publication("a", corrected, by), wait=True)
    rows = json.loads(producer.values()[0])["results"]
    assert [row["label_column"] for row in rows] == [expected] * 3
    assert [row["label"] for row in rows] == ([CLASSES[2]] * 3 if expected == "scene_label" else [*CLASSES])
