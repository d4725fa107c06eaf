"""The pair, the server that workers are forked from, where they write: as for the worker's own tests."""

from __future__ import annotations

from tests.worker.conftest import fork_server, memory, pair, root

__all__ = ["fork_server", "memory", "pair", "root"]
