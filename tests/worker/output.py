"""What worker processes wrote, read through the store that they wrote to, and all that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from adawise.adapt.state import StreamState
from adawise.output.verify.root import verify
from adawise.sink.files import segment_keys
from adawise.sink.layout import TRACES
from adawise.sink.schemas import PREDICTED_AT
from adawise.store.store import LocalStore, Store
from tests.sink.stored import read_predictions


class Sent(Protocol):
    """What the workers had to do."""

    @property
    def row_ids(self) -> list[str]:
        """Of all rows that they had to write, in the order of partition, offset and index."""


@dataclass(frozen=True)
class Output:
    """What workers wrote: in the folder `root`, or, where `bucket` is one, in that; `root` then only names it."""

    root: Path
    bucket: Store | None = None
    _counted: dict[str, int] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """To read it."""
        return self.bucket or LocalStore(self.root)

    @property
    def rows(self) -> int:
        """In segments so far."""
        for _, key in segment_keys(self.store):
            if key not in self._counted:  # a segment never changes
                self._counted[key] = pq.read_metadata(self._file(key)).num_rows
        return sum(self._counted.values())

    @property
    def predictions(self) -> pa.Table:
        """In the order of row ids, without what differs from run to run."""
        keys = [(name, "ascending") for name in ("partition", "offset", "index")]
        return read_predictions(self.store).drop_columns([PREDICTED_AT]).combine_chunks().sort_by(keys)

    @property
    def traces(self) -> list[dict[str, Any]]:
        """The traces dataset without what differs from run to run: durations, and where segments were cut."""
        keys = [key for key in self.store.list(TRACES) if key.endswith(".parquet")]
        found = [row for key in keys for row in pq.read_table(self._file(key)).to_pylist()]
        for row in found:
            del row["milliseconds"], row["segment"]
        return sorted(found, key=lambda row: (row["partition"], row["stream_id"], row["batch_number"]))

    def faults(self, sent: Sent, undisturbed: Output | None = None) -> list[str]:
        """All that is not as it must be: each image that was sent exactly once, chains and traces whole, and every
        alpha, trial, label and probability as in the output of an undisturbed run.
        """
        found = [str(fault) for fault in verify(self.store, read_state=StreamState.from_bytes)]
        predictions, expected = self.predictions, sent.row_ids
        ids = predictions["row_id"].to_pylist()
        if ids != expected:
            missing, foreign = sorted(set(expected) - set(ids)), sorted(set(ids) - set(expected))
            doubled = len(ids) - len(set(ids))
            found.append(f"missing {missing}, foreign {foreign}, doubled {doubled}")
        images = sum(row["images"] for row in self.traces)
        if images != predictions["status"].to_pylist().count("accepted"):
            found.append(f"the traces have {images} images")
        if undisturbed is not None:
            if not predictions.equals(undisturbed.predictions):
                found.append(f"predictions differ from the undisturbed run's: {_first_difference(self, undisturbed)}")
            if repr(self.traces) != repr(undisturbed.traces):  # nan equals nan
                found.append("traces differ from the undisturbed run's")
        return found

    def _file(self, key: str) -> Path | BytesIO:
        """What pyarrow can open; of a folder the path, for there only the footer is read."""
        if self.bucket is None:
            return self.root / key
        return BytesIO(self.bucket.get(key) or b"")


def _first_difference(one: Output, other: Output) -> str:
    for mine, theirs in zip(one.predictions.to_pylist(), other.predictions.to_pylist(), strict=False):
        if mine != theirs:
            return f"{mine} instead of {theirs}"
    return "in length"
