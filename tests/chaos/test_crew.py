"""The workers of a run of chaos, as the crew counts their ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from adawise.settings import Settings
from tools.chaos.actor import Role
from tools.chaos.crew import Crew


def crew_of_one(folder: Path) -> Crew:
    return Crew(lambda number, seat: Role(Settings(), folder / f"{number}.log", folder / "outage"), (), size=1)


@pytest.mark.check("chaos")
def test_a_worker_that_is_dismissed_before_it_began_has_not_given_up(tmp_path: Path) -> None:
    with crew_of_one(tmp_path) as crew:
        crew.dismiss()
    assert crew.gave_up == []
    assert crew.toll == {"dismissed": 1, "ended before they began": 1}


@pytest.mark.parametrize(("number", "log"), [(signal.SIGTERM, "{}\n"), (signal.SIGSEGV, "")])
def test_any_other_end_by_a_signal_is_a_fault(tmp_path: Path, number: signal.Signals, log: str) -> None:
    with crew_of_one(tmp_path) as crew:
        (tmp_path / "0.log").write_text(log)
        os.kill(crew.members[0].pid, number)
        crew.members[0].wait()
        crew.dismiss()
    assert crew.gave_up == [f"dismissed, ended with exit code {-number}: {log.strip() or 'nothing'}"]
