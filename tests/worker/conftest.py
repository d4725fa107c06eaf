"""The tiny pair that every worker process here loads, and the server that they are forked from."""

from __future__ import annotations

import pytest

from tests.models import PairFolder, write_pair
from tests.worker.process import start_server


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    start_server()
