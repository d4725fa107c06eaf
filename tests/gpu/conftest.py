from __future__ import annotations

import pytest

from pipeline.clip.load import ModelPair
from tests.models import PairFolder, load, write_pair


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def pair(pair_folder: PairFolder) -> ModelPair:
    return load(pair_folder)
