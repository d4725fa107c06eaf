"""Drift offline: reading what workers wrote, and finding when, where and how far alpha moved.

As a library:

    from adawise.drift import read_traces

    traces = read_traces("out", streams=["camera-07"], since=datetime(2026, 11, 1, tzinfo=UTC))
    traces.table()      # Arrow
    traces.relation()   # DuckDB, lazily
"""

from __future__ import annotations

from adawise.sink.read.rows import Rows, read_predictions, read_traces

__all__ = ["Rows", "read_predictions", "read_traces"]
