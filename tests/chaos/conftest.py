"""The pair and where workers write: as for the worker's own tests."""

from __future__ import annotations

from tests.worker.conftest import memory, pair, root

__all__ = ["memory", "pair", "root"]
