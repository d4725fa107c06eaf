"""What is missing, doubled or wrong in the workers' output, by the topic itself and by a replay of it in peace.

The topic is read by a consumer of its own, recorded with `adawise record` and replayed with `adawise replay`, which
reads it as one sequence, undisturbed, and writes elsewhere. The two outputs must be equal in every column but durations
and names of segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adawise.errors import ChainError
from tests.brokers import Broker
from tests.worker.cameras import Shot, everything
from tests.worker.output import Output
from tools.chaos.actor import Role, begin

Integers = npt.NDArray[np.int64]
Rows = list[dict[str, Any]]
Places = Mapping[tuple[int, int], Shot]  # by (partition, offset)
_SHOWN = 5  # of each kind of fault, in full


@dataclass
class Judgement:
    """Counts that must be zero, beside what they are counts of."""

    messages: int
    acknowledged: int
    rows: int
    lost_by_broker: int = 0  # acknowledged, and not in the topic
    missing: int = 0  # rows
    doubled: int = 0
    foreign: int = 0
    wrong_rows: int = 0  # another alpha, label or probability than in the replay
    wrong_batches: int = 0  # another alpha or other trials
    letters_missing: int = 0
    faults: list[str] = field(default_factory=list)  # found by verify, or by the judge

    @property
    def is_clean(self) -> bool:
        """True if nothing at all was found."""
        return not (self.faults or any(self.counts.values()))

    @property
    def counts(self) -> dict[str, int]:
        """Every count that must be zero."""
        return {
            "acknowledged, not in the topic": self.lost_by_broker,
            "missing": self.missing,
            "doubled": self.doubled,
            "foreign": self.foreign,
            "wrong rows": self.wrong_rows,
            "wrong batches": self.wrong_batches,
            "dead letters missing": self.letters_missing,
        }


def judge(places: Places, acknowledged: Mapping[tuple[int, int], int], output: Output) -> Judgement:
    """By the topic alone: each of its messages' rows must be there once."""
    verdict = Judgement(
        messages=len(places),
        acknowledged=len(acknowledged),
        rows=output.rows,
        lost_by_broker=len(acknowledged.keys() - places.keys()),
    )
    try:
        found = output.predictions.select(["partition", "offset", "index"])
    except ChainError as error:
        verdict.faults.append(str(error))
        return verdict
    have = _keys(*(found[name].to_numpy() for name in ("partition", "offset", "index")))
    expected = [(p, o, index) for (p, o), shot in places.items() for index in range(shot.rows)]
    must = _keys(*np.array(expected, np.int64).reshape(-1, 3).T)
    verdict.missing, verdict.foreign = (len(np.setdiff1d(*pair)) for pair in ((must, have), (have, must)))
    verdict.doubled = len(have) - len(np.unique(have))
    return verdict


def verify(role: Role, output: Output) -> Callable[[], list[str]]:
    """Begin `adawise verify`; what is returned waits for the faults that it finds, the last of them in full."""
    log = output.root.with_suffix(".verify")
    ended = begin(replace(role, log=log), "verify", str(output.store))

    def faults() -> list[str]:
        if code := ended():
            return [f"adawise verify ended with code {code}", *log.read_text().splitlines()[-_SHOWN:]]
        return []

    return faults


def _keys(partition: Integers, offset: Integers, index: Integers) -> Integers:
    """One number for each row: partition, offset (below 2^40) and index (below 4,096)."""
    return (np.int64(2**52) * partition + np.int64(2**12) * offset + index).astype(np.int64)


def compare_with_replay(verdict: Judgement, role: Role, output: Output, folder: Path) -> None:
    """Record the topic, replay it in peace (by commands in `role`), and add to the verdict whatever differs."""
    recording, again = folder / "recording", Output(folder / "again")
    for call in (("record", "--output", str(recording)), ("replay", str(recording), "-o", str(again.root))):
        if code := begin(role, *call)():
            verdict.faults.append(f"adawise {call[0]} ended with code {code}; see {role.log}")
            return
    verdict.faults += verify(role, again)()
    rows, other_rows = output.predictions, again.predictions
    if not rows.equals(other_rows):
        verdict.wrong_rows = differing(verdict, ("row_id",), rows.to_pylist(), other_rows.to_pylist())
    batch = ("partition", "stream_id", "first_offset")
    verdict.wrong_batches = differing(verdict, batch, output.traces, again.traces)


def differing(verdict: Judgement, key: Sequence[str], mine: Rows, theirs: Rows) -> int:
    """Rows that are not equal or have no counterpart; the first of them are told."""
    found, expected = ({tuple(row[name] for name in key): row for row in rows} for rows in (mine, theirs))
    places = sorted(
        place for place in found.keys() | expected.keys() if repr(found.get(place)) != repr(expected.get(place))
    )  # by repr: nan equals nan
    for place in places[:_SHOWN]:
        one, other = found.get(place), expected.get(place)
        if one is None or other is None:
            verdict.faults.append(f"{place}: only in the {'replay' if one is None else 'output'}")
        else:
            said = [
                f"{name} {one[name]} instead of {other[name]}" for name in one if repr(one[name]) != repr(other[name])
            ]
            verdict.faults.append(f"{place}: {', '.join(said)}")
    return len(places)


def count_letters(verdict: Judgement, broker: Broker, topic: str, places: Places) -> None:
    """Add the messages that nobody can read and that are not among the dead letters (where some may be twice)."""
    sent = set()
    for record in everything(broker, topic):
        said = {name: value for name, value in record.headers if name.startswith("__connect")}
        sent.add(tuple(int(said[f"__connect.errors.{name}"]) for name in ("partition", "offset")))
    verdict.letters_missing = len({place for place, shot in places.items() if shot.dead} - sent)
