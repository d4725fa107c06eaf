"""A command in whose process a function of a test patches something first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests import processes
from tests.processes import Command


class Prepared(Command):
    """`adawise ARGUMENTS` in a process of its own, after `before()` was called there.

    Args:
        before: a function of a module, which the process imports.
        arguments: and the streams as for `Command`.
    """

    def __init__(self, before: Callable[[], object], *arguments: str, **streams: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processes, "_become", partial(_become_prepared, before))
            super().__init__(*arguments, **streams)


def _become_prepared(before: Callable[[], object], *given: Any) -> None:
    before()
    processes._become(*given)
