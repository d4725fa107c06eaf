"""Imported by the server that commands are forked from: what the commands import only once they need it."""

from __future__ import annotations

import duckdb  # noqa: F401
import kafka  # noqa: F401
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import torch  # noqa: F401

import adawise.commands.card.run
import adawise.commands.diff.run
import adawise.commands.dlq.run
import adawise.commands.evaluate.run
import adawise.commands.labels.run
import adawise.commands.record.run
import adawise.commands.replay.run
import adawise.commands.run.run
import adawise.commands.status.run
import adawise.commands.verify.run  # noqa: F401

pa.array(["first"])  # pyarrow imports pandas now, and not in each process that is forked
