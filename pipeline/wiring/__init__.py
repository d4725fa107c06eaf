"""Settings -> running parts: the only place, beside the command line, that knows `Settings` and names concrete classes.

One function per command; each returns the exit code. `model` builds the pair and the method, `stream` the worker.
"""

from pipeline.wiring.checks import check
from pipeline.wiring.labelled import build_card, show_card
from pipeline.wiring.producing import produce
from pipeline.wiring.recordings import record, replay
from pipeline.wiring.stream import run_worker
from pipeline.wiring.verifying import verify

__all__ = ["build_card", "check", "produce", "record", "replay", "run_worker", "show_card", "verify"]
