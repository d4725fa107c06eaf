"""The study of a camera's scene: what it prints is of the streams that `evaluate` draws."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from adawise.adapt.prior import Array
from tests.lab.evaluate.building import a_table
from tools.method.frames import frames_of
from tools.method.scene import ALTERNATING, CONDITIONS, STREAMS, ServedCamera, figures

MADE = a_table("a", 0.5, images=400, classes=40)
TABLE = replace(MADE, logits=2 * MADE.logits)  # the gates are closed where a model is unsure of most images
ALIKE = ("control", "few25", CONDITIONS)


def judged(stream: str, batch: int = 16, temperature: float = 1.0, made: bool = False) -> tuple[Array, Array]:
    """The figures `[served, prior and both, 5]`, and the two gates."""
    tables = [MADE if made else TABLE, TABLE] if stream == CONDITIONS else [MADE if made else TABLE]
    camera = ServedCamera(tables, temperature)
    found = figures(camera, partial(camera.stream, stream), batch, 2)
    return found[:-2].reshape(3, 5), found[-2:]


@pytest.mark.parametrize("stream", [*STREAMS, ALTERNATING, CONDITIONS])
def test_few_classes_and_runs_gain_and_other_streams_do_not(stream: str) -> None:
    (served, prior, both), (gate, weight) = judged(stream)
    if stream in ALIKE:
        assert prior[0] == served[0]
        assert gate == 0.0
    else:
        assert prior[0] > served[0]
        assert gate > 0.0
    if "runs" in stream:
        assert both[0] > prior[0]
        assert both[3] < served[3]  # the label changes less often
        assert weight > 0.2
    elif stream != "few1":
        assert both[0] == pytest.approx(prior[0], abs=0.005)
        assert weight < 0.05
    assert np.isnan(both[4]) == (stream != "rare")


def test_batches_are_as_long_as_they_are_to_be_and_a_surer_model_opens_the_gate_further() -> None:
    found = [judged("few5", batch)[0] for batch in (16, 16, 48)]
    assert (found[0][:, :3] == found[1][:, :3]).all()
    assert (found[0][:, :3] != found[2][:, :3]).any()
    assert judged("few5", made=True)[1][0] < judged("few5", made=True, temperature=0.5)[1][0]


def test_frames_of_a_photograph_follow_one_another() -> None:
    camera = ServedCamera([TABLE], 1.0)
    rows, _ = camera.frames("all", 8, seed=1)
    assert len(rows) == 640
    whole = (rows[4:-4].reshape(-1, 8) // 8).tolist()
    assert all(len({*photograph}) == 1 for photograph in whole)
    few, _ = camera.frames("few5", 8, seed=1)
    assert len(np.unique(camera.labels[few // 8 * 8])) <= 5


def test_frames_are_made_of_each_photograph_and_differ() -> None:
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(2):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(jpeg := io.BytesIO(), "JPEG")
        jpegs.append(jpeg.getvalue())
    photographs = pa.table({"image": jpegs, "label": pa.array([3, 5], pa.int16())}).replace_schema_metadata({"a": "b"})
    made = frames_of(photographs, 4, rng)
    assert made["label"].to_pylist() == [3] * 4 + [5] * 4
    assert made.schema.metadata == {b"a": b"b"}
    assert made.schema.field("label").type == pa.int16()
    assert len({*made["image"].to_pylist()}) == 8
    assert {Image.open(io.BytesIO(image)).size for image in made["image"].to_pylist()} == {(60, 40)}
