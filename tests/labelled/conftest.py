"""Coloured shapes in a folder, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.finetune.shapes import write_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of each class. Not to be changed by a test."""
    return write_shapes(tmp_path_factory.mktemp("shapes") / "images", 12)
