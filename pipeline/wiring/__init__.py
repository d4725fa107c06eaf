"""Settings -> running parts: the only place, beside the command line, that knows `Settings` and names concrete classes.

One function per command; each returns the exit code. `model` builds the pair and the method, `stream` the worker. A
module is loaded when its function is asked for: torch takes seconds, and half of the commands do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.wiring.checks import check
    from pipeline.wiring.compacting import compact, files
    from pipeline.wiring.comparing import compare
    from pipeline.wiring.dead_letters import list_letters, replay_letters, show_letter
    from pipeline.wiring.evaluating import evaluate
    from pipeline.wiring.finetuning import finetune
    from pipeline.wiring.labelled import build_card, extend_card, show_card
    from pipeline.wiring.producing import produce
    from pipeline.wiring.recording import prune_recording, record
    from pipeline.wiring.repairing import repair
    from pipeline.wiring.replaying import replay
    from pipeline.wiring.stream import run_worker
    from pipeline.wiring.verifying import verify

__all__ = [
    "build_card",
    "check",
    "compact",
    "compare",
    "evaluate",
    "extend_card",
    "files",
    "finetune",
    "list_letters",
    "produce",
    "prune_recording",
    "record",
    "repair",
    "replay",
    "replay_letters",
    "run_worker",
    "show_card",
    "show_letter",
    "verify",
]

_MODULES = {
    "check": "checks",
    "compact": "compacting",
    "compare": "comparing",
    "files": "compacting",
    "build_card": "labelled",
    "evaluate": "evaluating",
    "finetune": "finetuning",
    "extend_card": "labelled",
    "show_card": "labelled",
    "produce": "producing",
    "prune_recording": "recording",
    "record": "recording",
    "repair": "repairing",
    "replay": "replaying",
    "list_letters": "dead_letters",
    "replay_letters": "dead_letters",
    "show_letter": "dead_letters",
    "run_worker": "stream",
    "verify": "verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
