from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from adawise.errors import StoreUnavailable
from adawise.worker.passes import Passes


class AtOnce(Executor):
    """Does what it is given when it is given."""

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*arguments))
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreUnavailable("the store does not answer"), "the store does not answer"),
        (RecursionError("nested"), "RecursionError: nested"),
        (KeyError("identity"), "KeyError: 'identity'"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_a_pass_that_fails_by_any_error_is_reported_and_the_next_one_is_made(error: Exception, expected: str) -> None:
    passes, failed, done = 0, list[str](), list[int]()

    def do(_: list[int], ends: Callable[[], bool]) -> int:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise error
        return passes

    made = Passes(do, finished=done.append, failed=failed.append, every_s=1.0, name="test", pool=AtOnce())
    for now_s in (0.0, 0.5, 2.0, 2.5):
        made.turn([], now_s)
    made.close()
    assert [each.partition(" (test_passes.py:")[0] for each in failed] == [expected]
    assert done == [2]


def test_a_pass_that_no_thread_can_be_started_for_is_reported_and_the_next_one_is_made() -> None:
    class Full(AtOnce):
        tries = 0

        def submit(self, fn: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("can't start new thread")
            return super().submit(fn, *arguments)

    failed, done = list[str](), list[int]()
    made = Passes[int, int](
        lambda *_: 7, finished=done.append, failed=failed.append, every_s=1.0, name="test", pool=Full()
    )
    for now_s in (0.0, 0.5, 2.0, 2.5):
        made.turn([], now_s)
    made.close()
    assert (failed, done) == (["RuntimeError: can't start new thread"], [7])
