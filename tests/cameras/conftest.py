from __future__ import annotations

import pytest

from tests.processes import start_server


@pytest.fixture(scope="session", autouse=True)
def _server_of_this_process() -> None:
    """A camera's process would start the server without what other tests of this process want of their forks."""
    start_server("adawise_cameras.reader")
