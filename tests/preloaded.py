"""Imported by the server that commands are forked from: what the commands import only once they need it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb  # noqa: F401
import kafka  # noqa: F401
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import torch  # noqa: F401

import adawise.app.recording
import adawise.app.worker
import adawise.output.verify.show
import adawise.replay.replay
import adawise.watch.status.reader  # noqa: F401
from adawise.clip.load import _Configs, _tokenizer
from tests.models import CONFIG

# What a process keeps of open_clip's vocabulary, which takes .1 s of the processor for the first pair. open_clip logs
# by the functions of `logging`, which give the root a handler where it has none; a process that is started has none.
handlers = [*logging.root.handlers]
with TemporaryDirectory() as folder:
    (Path(folder) / "open_clip_config.json").write_text(json.dumps(CONFIG))
    _tokenizer(_Configs(), f"local-dir:{folder}")
logging.root.handlers[:] = handlers
pa.array(["first"])  # pyarrow imports pandas now, and not in each process that is forked
