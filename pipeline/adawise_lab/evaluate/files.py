"""The result on disk: `result.json`, and `paths.parquet` with what was served for each batch."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adawise.errors import SettingsError
from adawise_lab.evaluate.result import PathRow, Result

RESULT, PATHS = "result.json", "paths.parquet"
PATH_SCHEMA = pa.schema(
    [
        pa.field("strategy", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("stream", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("order", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("domain", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("alpha", pa.float64()),  # null in files of 0.1.0 for strategies that mixed outputs
        pa.field("forward_equivalents", pa.float64(), nullable=False),
        pa.field("trigger", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("reset", pa.dictionary(pa.int32(), pa.string())),
        pa.field("best_alpha", pa.float64()),
    ]
)


def write_result(folder: Path, result: Result) -> None:
    """Write both files.

    Raises:
        SettingsError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain(result.as_json()), indent=1, allow_nan=False)
        (folder / RESULT).write_text(text + "\n", encoding="utf-8")
        pq.write_table(path_table(result), folder / PATHS)
    except OSError as error:
        raise SettingsError(
            f"-o {folder}: the result cannot be written ({error.strerror or error}). Name a folder that can be written."
        ) from error


def path_table(result: Result) -> pa.Table:
    """Return the alpha paths as a table."""
    columns: dict[str, list[Any]] = {f.name: [] for f in fields(PathRow)}
    for row in result.paths:
        for name, column in columns.items():
            column.append(getattr(row, name))
    return pa.table(columns, schema=PATH_SCHEMA)


def plain(value: Any) -> Any:
    """Return the value as lists, objects and finite numbers; nan and infinities become None, for JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
