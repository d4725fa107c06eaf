"""What Evidently's preset says of each day of each camera against its first week: `evidently_days.py TRACES`.

Run by `python -m tools.bench events` with an interpreter that has the packages evidently (0.7) and pyarrow. Prints
[[camera, measure, since, until], ...] as JSON, the runs of days on which a column is said to have drifted.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.parquet as pq

_DAY_US = 86_400_000_000
_WEEK = 7
_LEAST = 8  # batches of a day that says something
_COLUMNS = {
    "alpha": "alpha",
    "objective": "objective",
    "mean_confidence": "confidence",
    "forward_equivalents": "forwards",
    "luminance_mean": "brightness",
    "contrast_mean": "contrast",
    "gradient_mean": "sharpness",
    "laplacian_mean": "noise",
    "colourfulness_mean": "colour",
}


def main(path: str) -> None:
    """Print the runs."""
    warnings.simplefilter("ignore")
    report = import_module("evidently").Report([import_module("evidently.presets").DataDriftPreset()])
    found: list[list[Any]] = []
    table = pq.read_table(path)
    rows = table.select([*_COLUMNS, "stream_id"]).to_pandas()
    rows["rejects"] = table["rejected"].to_pandas() / (table["rejected"].to_pandas() + table["images"].to_pandas())
    day = table["captured_at"].cast("int64").to_numpy() // _DAY_US
    for camera in sorted(set(rows["stream_id"])):
        of_it = (rows["stream_id"] == camera).to_numpy()
        days = np.unique(day[of_it])
        week = rows[of_it & (day < days[0] + _WEEK)].drop(columns="stream_id")
        drifted: dict[str, list[int]] = {}
        for today in days[days >= days[0] + _WEEK].tolist():
            current = rows[of_it & (day == today)].drop(columns="stream_id")
            if len(current) < _LEAST:
                continue
            for metric in report.run(current, week).dict()["metrics"]:
                config = metric["config"]
                if "column" in config and _is_beyond(metric["value"], config):
                    drifted.setdefault(_COLUMNS.get(config["column"], config["column"]), []).append(today)
        for measure, those in drifted.items():
            breaks = [0, *(np.flatnonzero(np.diff(those) > 1) + 1).tolist(), len(those)]
            for start, end in pairwise(breaks):
                found.append([camera, measure, those[start] * _DAY_US, (those[end - 1] + 1) * _DAY_US])
    json.dump(found, sys.stdout)


def _is_beyond(value: float, config: dict[str, Any]) -> bool:
    """A p value below its threshold, or a distance at or above it."""
    return bool(value < config["threshold"] if "p_value" in config["method"] else value >= config["threshold"])


if __name__ == "__main__":
    main(sys.argv[1])
