from __future__ import annotations

import math
import signal
import subprocess
import sys

import pytest

from adawise.app.signals import ended_at_once, stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_told_once(number: signal.Signals) -> None:
    received: list[int] = []
    before = signal.getsignal(number)
    with stop_signals(lambda: received.append(1)) as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
    assert received == [1]
    assert signal.getsignal(number) == before


def test_a_wait_ends_at_its_time_or_with_a_signal() -> None:
    with stop_signals() as stop:
        assert not stop.wait_until(-math.inf)
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait_until(math.inf)


def test_a_signal_interrupts_what_may_be_interrupted_and_nothing_after_it() -> None:
    with stop_signals() as stop:
        with pytest.raises(KeyboardInterrupt), stop.interrupts():
            signal.raise_signal(signal.SIGTERM)
        assert stop()


def test_what_may_be_interrupted_is_not_begun_after_a_signal() -> None:
    begun = False
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), stop.interrupts():
            begun = True
    assert not begun


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_modules_are_loaded_a_signal_ends_the_process_with_0_and_later_it_does_what_it_did(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with ended_at_once(0):
        pass
    assert signal.getsignal(number) == before
    code = (
        "import signal; from adawise.app.signals import ended_at_once\n"
        f"with ended_at_once(0): signal.raise_signal({int(number)})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
