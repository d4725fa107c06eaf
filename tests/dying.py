"""Work in processes of their own that are killed in the middle of it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable

from tests.deadlines import DEADLINE_S
from tests.processes import in_environment, start_server


def exit_code(work: Callable[..., object], *arguments: object) -> int | None:
    """Return how a process ended that did this, forked from the server of `tests.processes`: -9 where it was killed.

    It is 0 if it came to the end of its work, and None if it still ran at the deadline, and was killed then.
    """
    start_server()
    given = (work, dict(os.environ), *arguments)
    process = multiprocessing.get_context("forkserver").Process(target=in_environment, args=given)
    sys.audit("tests.fork")
    process.start()
    process.join(DEADLINE_S)
    try:
        return process.exitcode
    finally:
        process.kill()
        process.join()
