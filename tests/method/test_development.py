"""The tables of the development pair: logits of the whole tower, with shared layers computed once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from adawise.adapt.names import GRID
from adawise.clip.classifier import PairClassifier
from adawise.clip.load import CheckpointPair
from adawise.clip.trunk import NoTrunkError
from tests.models import CLASSES, SIZE, PairFolder, share_layers, write_pair
from tools.method import development
from tools.method.development import KNOWN, NEW, write_tables

pytestmark = pytest.mark.check("tools")
STEP = 10


def png(random: np.random.Generator) -> bytes:
    kept = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(kept, "PNG")
    return kept.getvalue()


@pytest.fixture
def pair_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PairFolder:
    """A tiny pair whose last block alone differs, and six images, where the development pair has its own."""
    pair = write_pair(tmp_path / "written")
    share_layers(pair, ("transformer.resblocks.2.", "ln_post.", "proj"))
    (tmp_path / "pair").mkdir()
    pair.weights(0).parent.rename(tmp_path / "pair" / "theta0")
    random = np.random.default_rng(0)
    labels = [0, 0, 0, 1, 1, 1]
    table = pa.table({"image": [png(random) for _ in labels], "label": labels})
    (tmp_path / "images").mkdir()
    names = {"class_names": json.dumps(CLASSES)}
    pq.write_table(table.replace_schema_metadata(names), tmp_path / "images" / "validation_base.parquet")
    monkeypatch.setattr(development, "DATA", tmp_path)
    monkeypatch.setattr(development, "SIDE", SIZE)
    return pair


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_layers_are_computed_once_an_image_with_the_bits_of_the_whole_tower(
    pair_folder: PairFolder, tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[int] = []
    activations = PairClassifier._activations

    def counted(classifier: PairClassifier, trunk: nn.Module, chunk: Tensor) -> Tensor:
        chunks.append(len(chunk))
        return activations(classifier, trunk, chunk)

    monkeypatch.setattr(PairClassifier, "_activations", counted)

    def written(name: str) -> dict[str, npt.NDArray[np.float16]]:
        (tmp_path / name).mkdir()
        theta_1 = pair_folder.weights(1).parent
        write_tables(theta_1, {0}, tmp_path / name, seed=3, step=STEP, dtype=dtype)
        return {path.stem: np.load(path)["logits"] for path in (tmp_path / name).glob("*.npz")}

    tables = written("cut")
    assert len(tables) == len(KNOWN) + len(NEW)
    assert {logits.shape for logits in tables.values()} == {(len(GRID), 3, len(CLASSES))}
    assert chunks == [64], "36 images are one chunk, and its activations serve all alphas"
    monkeypatch.setattr(CheckpointPair, "trunk", NoTrunkError("as a whole"))
    whole = written("whole")
    assert len(chunks) == 1
    assert whole.keys() == tables.keys()
    assert all(np.array_equal(logits, whole[name]) for name, logits in tables.items())
