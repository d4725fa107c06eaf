"""The tiny pair that every worker process here loads, and where they write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import PairFolder, write_pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder of a file system in memory, where there is one: no test here cuts the power, and a busy disk takes its
    time for every fsync.
    """
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="adawise-test-", dir=shared if shared.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def root(memory: Path) -> Path:
    """Where the workers of one test write; their logs lie beside it."""
    folder = Path(tempfile.mkdtemp(dir=memory))
    return folder / "output"
