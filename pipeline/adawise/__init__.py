"""AdaWiSE as a streaming system: adaptive weight-space ensembling of two CLIP models over camera feeds.

Use as a library (docs/library.md); each part is loaded when it is first used:

    rows = adawise.read_traces("runs/yard", streams=["camera-0"])
    pair = adawise.load_pair(theta_0="local-dir:pair/theta_0", theta_1="local-dir:pair/theta_1", classes=["car", "bus"])
    step = adawise.adapt_batch(pair, images)
"""

from __future__ import annotations

# Imports nothing: the program handles signals only once this module is loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from adawise.adapt.state import StreamState
    from adawise.app.library import Step, adapt_batch, load_pair
    from adawise.app.model import ModelPair
    from adawise.errors import AdawiseError
    from adawise.output.read.rows import Rows, read_predictions, read_traces
    from adawise.replay.library import plan_replay, replay_recording
    from adawise.settings import SearchSettings
    from adawise_drift.changes.find import Change, Sensitivity, find_changes
    from adawise_drift.library import Analysis, AnalysisTable, analyse

__version__ = "0.3.0"
__all__ = [
    "AdawiseError",
    "Analysis",
    "AnalysisTable",
    "Change",
    "ModelPair",
    "Rows",
    "SearchSettings",
    "Sensitivity",
    "Step",
    "StreamState",
    "adapt_batch",
    "analyse",
    "find_changes",
    "load_pair",
    "plan_replay",
    "read_predictions",
    "read_traces",
    "replay_recording",
]

if not TYPE_CHECKING:
    _NAMES = {
        "adawise.adapt.state": "StreamState",
        "adawise.app.model": "ModelPair",
        "adawise_drift.changes.find": "Change Sensitivity find_changes",
        "adawise_drift.library": "Analysis AnalysisTable analyse",
        "adawise.errors": "AdawiseError",
        "adawise.app.library": "Step adapt_batch load_pair",
        "adawise.settings": "SearchSettings",
        "adawise.output.read.rows": "Rows read_predictions read_traces",
        "adawise.replay.library": "plan_replay replay_recording",
    }

    def __getattr__(name):
        from importlib import import_module

        for module, names in _NAMES.items():
            if name in names.split():
                value = globals()[name] = getattr(import_module(module), name)
                return value
        raise AttributeError(f"module 'adawise' has no attribute {name!r}")

    def __dir__():
        return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])
