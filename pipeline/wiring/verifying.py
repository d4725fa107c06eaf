"""Settings -> the proof that what a worker wrote is whole."""

from __future__ import annotations

from pipeline.console import print_json
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.sink.claims import read_sink_id
from pipeline.sink.read import read_segment_footers, segment_keys
from pipeline.sink.store import open_store
from pipeline.sink.verify import verify as faults_of

FOUND = 3


def verify(settings: Settings, *, root: str, as_json: bool) -> int:
    """Walk every chain under `root`; print what was found. 0 if all is whole, else 3."""
    del settings
    store = open_store(root)
    if read_sink_id(store) is None and not segment_keys(store):
        raise SettingsError(f"there is no output of a worker in {root}; name the folder that sink.root or -o named")
    faults = faults_of(store)
    segments = sum(1 for _ in read_segment_footers(store)) if not faults else None
    if as_json:
        print_json({"root": root, "whole": not faults, "segments": segments, "faults": [str(f) for f in faults]})
    elif faults:
        print(f"{len(faults)} faults under {root}; the first of each chain is where to look:")
        for fault in faults:
            print(f"  {fault}")
    else:
        print(f"{root} is whole: {segments} segments, every offset once, footers, rows, states and traces agree")
    return FOUND if faults else 0
