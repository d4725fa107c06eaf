from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adawise.app import worker as build
from adawise.app.waiting import again_and_again, await_store, patiently
from adawise.errors import RetryableError, SettingsError, StoreUnavailable
from adawise.settings import Settings
from adawise.sink.chain import SegmentChain
from adawise.worker.attempts import STARTING
from tests.sink.building import DictStore, OverwritingStore, open_chain
from tests.worker.loop import Journal


class Time:
    """Moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Down(DictStore):
    """Does not answer until it was asked `tries` times."""

    def __init__(self, tries: int) -> None:
        super().__init__()
        self.tries = tries

    def get(self, key: str) -> bytes | None:
        if self.tries:
            self.tries -= 1
            raise StoreUnavailable("no answer")
        return super().get(key)


def awaited(chain: SegmentChain, should_stop: Callable[[], bool] = lambda: False) -> tuple[bool, Journal, Time]:
    journal, time = Journal(), Time()
    return await_store(chain.check, journal, should_stop, clock=lambda: time.now_s, sleep=time.sleep), journal, time


def test_a_store_that_answers_is_asked_once_and_not_waited_for() -> None:
    assert awaited(open_chain(DictStore()))[0] is True
    _, journal, time = awaited(open_chain(DictStore()))
    assert (journal.waits_s, journal.ended, time.now_s) == ([], [], 0.0)


def test_a_store_that_is_down_is_asked_again_with_longer_and_longer_waits_each_of_them_told() -> None:
    store = Down(tries=4)
    answered, journal, time = awaited(open_chain(store))
    assert answered
    assert journal.waits_s == [1.0, 2.0, 4.0, 8.0]
    assert journal.ended == [STARTING]
    assert time.now_s == pytest.approx(15.0, abs=1.0)
    assert store.tries == 0


def test_a_store_that_overwrites_ends_the_start_at_once() -> None:
    with pytest.raises(SettingsError, match="it overwrote one"):
        awaited(open_chain(OverwritingStore()))


def test_a_signal_ends_the_wait_between_two_tries() -> None:
    time = Time()
    journal = Journal()
    stopped = await_store(
        open_chain(Down(tries=1_000)).check,
        journal,
        lambda: time.now_s > 4.0,
        clock=lambda: time.now_s,
        sleep=time.sleep,
    )
    assert stopped is False
    assert journal.waits_s == [1.0, 2.0, 4.0]  # the last of which was not waited out
    assert time.now_s < 4.2


def test_a_signal_ends_the_wait_for_a_store_that_hangs() -> None:
    requested, never = threading.Event(), threading.Event()

    class Hanging(DictStore):
        def get(self, key: str) -> bytes | None:
            requested.set()
            never.wait(60.0)
            raise RetryableError("the test is over")

    answered, journal, _ = awaited(open_chain(Hanging()), requested.is_set)
    assert (answered, journal.waits_s) == (False, [])
    never.set()


@pytest.mark.parametrize("where", ["sink", "record"])
def test_a_url_without_what_it_needs_is_told_before_the_model_loads(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "adawise.store.object_store", raising=False)
    monkeypatch.delattr("adawise.store.object_store", raising=False)
    roots: dict[str, dict[str, Any]] = {
        "sink": {"root": str(tmp_path)},
        "record": {"enabled": True, "root": str(tmp_path)},
    }
    roots[where]["root"] = "s3://bucket/prefix"
    for name in ("starting_pair", "kafka_source"):
        monkeypatch.setattr(build, name, None)
    with pytest.raises(
        SettingsError, match=r"s3://bucket/prefix needs the package obstore.*pip install 'adawise\[s3\]'"
    ):
        build.run_worker(Settings.model_validate(roots))


def test_what_an_attempt_gives_is_given_back_and_what_no_waiting_mends_is_raised() -> None:
    answers: list[object] = [StoreUnavailable("no"), 7]

    def attempt() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    time, waits = Time(), list[float]()
    clocked: dict[str, Any] = {"clock": lambda: time.now_s, "sleep": time.sleep}
    assert patiently(attempt, lambda _, wait_s: waits.append(wait_s), lambda: False, **clocked) == 7
    assert waits == [1.0]
    answers.append(SettingsError("correct it"))
    with pytest.raises(SettingsError, match="correct it"):
        patiently(attempt, lambda *_: None, lambda: False, **clocked)
    with pytest.raises(KeyboardInterrupt):
        patiently(attempt, lambda *_: None, lambda: True, **clocked)


def test_work_is_begun_again_after_each_outage_and_the_waits_begin_anew_once_it_has_lasted() -> None:
    time, waits, lasted_s = Time(), list[float](), [0.0, 0.0, 100.0, 0.0]

    def attempt() -> str:
        if not lasted_s:
            return "done"
        time.now_s += lasted_s.pop(0)
        raise StoreUnavailable("gone")

    clocked: dict[str, Any] = {"clock": lambda: time.now_s, "sleep": time.sleep}
    done = again_and_again(attempt, lambda _, wait_s: waits.append(wait_s), lambda: False, **clocked)
    assert (done, waits) == ("done", [1.0, 2.0, 1.0, 2.0])


def test_work_that_is_told_to_stop_is_not_begun_again() -> None:
    time, waits = Time(), list[float]()

    def attempt() -> None:
        raise StoreUnavailable("gone")

    def stop() -> bool:
        return time.now_s > 0.5

    again_and_again(attempt, lambda _, wait_s: waits.append(wait_s), stop, clock=lambda: time.now_s, sleep=time.sleep)
    assert waits == [1.0]
    assert time.now_s < 0.7


def test_a_signal_while_work_is_opened_is_no_error() -> None:
    def attempt() -> None:
        raise KeyboardInterrupt

    again_and_again(attempt, lambda *_: None, lambda: False)
