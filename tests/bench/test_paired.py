"""Benches in turns: what was measured is told, also after Ctrl-C."""

from __future__ import annotations

import threading

import pytest

from tools.bench import paired
from tools.bench.paired import in_turns, is_interrupted, text, until_interrupted

pytestmark = pytest.mark.check("tools")


@pytest.fixture(autouse=True)
def not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "_interrupted", threading.Event())


def test_every_other_turn_goes_backwards() -> None:
    order: list[str] = []

    def way(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = in_turns({"a": lambda: way("a"), "b": lambda: way("b")}, 3)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert found == {"a": [2.0, 3.0, 6.0], "b": [1.0, 4.0, 5.0]}


def test_ctrl_c_leaves_the_turns_that_came_to_their_end(capsys: pytest.CaptureFixture[str]) -> None:
    left = iter([1.0, 2.0, 3.0])

    def way() -> float:
        for value in left:
            return value
        raise KeyboardInterrupt

    found = in_turns({"one": way, "other": way}, 9)
    assert found == {"one": [2.0], "other": [1.0]}
    assert is_interrupted()
    assert text(found["one"]) == "2.00 (2.00 to 2.00, 1 rounds)"
    assert "interrupted" in capsys.readouterr().out


def test_nothing_measured_is_told_as_such_and_other_faults_are_not_hidden() -> None:
    assert text([]) == "not measured"
    with pytest.raises(ValueError, match="odd"), until_interrupted():
        raise ValueError("odd")
    assert not is_interrupted()
