"""What is missing, doubled or wrong in the workers' output, by the topic itself and by a replay of it in peace.

The topic is read by a consumer of its own, recorded with `adawise record` and replayed with `adawise replay`, which
reads it as one sequence, undisturbed, and writes elsewhere. The two outputs must be equal in every column but durations
and names of segments. Where operators switched pairs, the replay switches at the same offsets. Results are held against
the rows, and in the end repair and retention must leave a whole root.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from adawise.errors import ChainError
from adawise.publish.dead_letters.record import OMITTED, ORIGIN, REPLAYS
from adawise.publish.results.message import BATCH, IMAGE
from adawise.records import TopicPartition
from adawise.sink import claims, layout, schemas, segment
from adawise.sink.files import compacted_names, read_bytes, segment_keys, segment_names
from adawise.store.store import Store
from tests.brokers import Broker
from tests.sink.footers import read_segment_footers
from tests.worker.cameras import Shot, everything
from tests.worker.output import Output
from tools.chaos.actor import Role, begin
from tools.chaos.operators import three_days_later

Integers = npt.NDArray[np.int64]
Row = dict[str, Any]
Recoveries = Mapping[tuple[int, int], int]  # by (process id, partition), how often it took that over
ResultKey = tuple[str, str]  # of a result: its row and the attempt that wrote it
Places = Mapping[tuple[int, int], Shot]  # by (partition, offset)
_SHOWN = 5  # of each kind of fault, in full
_KEPT = 2  # segments of a partition that retention never removes, the newest
_SHADOWED = {column.name for column in schemas.SHADOW}
_SAME = ("stream_id", "status", "reason", "label", "top_probabilities", "alpha", "model_fingerprint")
"""What a result and its row have in common, and is compared."""


@dataclass
class ChaosVerdict:
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
    dead_letters_missing: int = 0
    dead_letters_wrong: int = 0  # of a message that can be read, or with other bytes than it
    dead_letters_doubled: int = 0  # by a worker that had the message once
    sent_back_twice: int = 0
    never_sent_back: int = 0
    results_missing: int = 0
    results_wrong: int = 0  # another content than the row, or than a copy of the same attempt; or of no row
    results_doubled: int = 0  # more often than somebody took their partition over
    results_disordered: int = 0  # of a camera, one that never comes after the one before it
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
            "dead letters missing": self.dead_letters_missing,
            "wrong dead letters": self.dead_letters_wrong,
            "doubled dead letters": self.dead_letters_doubled,
            "dead letters sent back twice": self.sent_back_twice,
            "dead letters never sent back": self.never_sent_back,
            "results missing": self.results_missing,
            "wrong results": self.results_wrong,
            "doubled results": self.results_doubled,
            "results out of order": self.results_disordered,
        }


def assess(places: Places, acknowledged: Mapping[tuple[int, int], int], output: Output) -> ChaosVerdict:
    """By the topic alone: each of its messages' rows must be there once."""
    verdict = ChaosVerdict(
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


def crashes(folder: Path) -> Iterator[str]:
    """Return what says in a worker's log that the program, or a thread of it, failed by a fault of its own."""
    for log in sorted(folder.glob("worker-*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(("Traceback", "Fatal Python error")) or _THREAD_FAILED in line:
                yield f"{log.name}: {line[:_LINE]}"
                break


_THREAD_FAILED, _LINE = '"event": "thread_failed"', 500


def _keys(partition: Integers, offset: Integers, index: Integers) -> Integers:
    """One number for each row: partition, offset (below 2^40) and index (below 4,096)."""
    return (np.int64(2**52) * partition + np.int64(2**12) * offset + index).astype(np.int64)


def compare_with_replay(
    verdict: ChaosVerdict, role: Role, output: Output, folder: Path, *, pairs_of: str | None = None
) -> None:
    """Record the topic, replay it in peace (by commands in `role`), and add to the verdict whatever differs.

    With `pairs_of`, a root, each partition is served by the pairs that served it there.
    """
    recording, again = folder / "recording", Output(folder / "again")
    pairs = () if pairs_of is None else ("--pairs-of", pairs_of)
    for call in (("record", "--output", str(recording)), ("replay", str(recording), "-o", str(again.root), *pairs)):
        if code := begin(role, *call)():
            verdict.faults.append(f"adawise {call[0]} ended with code {code}; see {role.log}")
            return
    verdict.faults += verify(role, again)()
    rows, other_rows = output.predictions, again.predictions
    if not rows.equals(other_rows):
        verdict.wrong_rows = differing(verdict, ("row_id",), rows.to_pylist(), other_rows.to_pylist())
    batch = ("partition", "stream_id", "first_offset")
    verdict.wrong_batches = differing(verdict, batch, *(map(_without_shadow, of.traces) for of in (output, again)))


def _without_shadow(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace without what a staged pair had to say: in a replay none is staged."""
    return {name: value for name, value in trace.items() if name not in _SHADOWED}


def differing(verdict: ChaosVerdict, key: Sequence[str], mine: Iterable[Row], theirs: Iterable[Row]) -> int:
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
            result = [
                f"{name} {one[name]} instead of {other[name]}" for name in one if repr(one[name]) != repr(other[name])
            ]
            verdict.faults.append(f"{place}: {', '.join(result)}")
    return len(places)


def count_dead_letters(
    verdict: ChaosVerdict, broker: Broker, topic: str, places: Places, recovered: Recoveries | None
) -> None:
    """Hold the dead letters on a topic against the messages that nobody can read; see `compare_dead_letters`."""
    compare_dead_letters(verdict, places, everything(broker, topic), recovered)


def compare_dead_letters(
    verdict: ChaosVerdict, places: Places, records: Iterable[Any], recovered: Recoveries | None
) -> None:
    """Each message that nobody can read has a letter with its bytes, and no other message has one.

    A process sends a letter no more often than it took the partition over, by `recovered`; None where a producer may
    have sent again what a broker took and did not acknowledge.
    """
    copies = Counter[tuple[str, tuple[int, int]]]()
    for record in records:
        fields = dict(record.headers)
        if _OFFSET not in fields:  # it says that a letter was sent back
            continue
        place = int(fields[_PARTITION]), int(fields[_OFFSET])
        copies[fields["dlq.worker"].decode(), place] += 1
        shot = places.get(place)
        key, value = (None, None) if shot is None else (shot.key, shot.value)
        sent = record.key, record.value
        is_same = OMITTED in fields or sent == (key, b"" if key is None and value is None else value)
        verdict.dead_letters_wrong += shot is None or not shot.dead or not is_same
    sent_places = {place for _, place in copies}
    verdict.dead_letters_missing = len({place for place, shot in places.items() if shot.dead} - sent_places)
    if recovered is not None:
        for (worker, (partition, _)), count in copies.items():
            pid = int(worker.rpartition(":")[2])
            verdict.dead_letters_doubled += max(0, count - recovered.get((pid, partition), 0))


_PARTITION, _OFFSET = "__connect.errors.partition", "__connect.errors.offset"


def send_back(verdict: ChaosVerdict, role: Role, broker: Broker, topic: str, output: Output) -> None:
    """Send all dead letters back that were not sent back before, and hold what came against them."""
    sends = replace(role, log=output.root.with_suffix(".letters"))
    if code := begin(sends, "dlq", "replay", "--all")():
        verdict.faults.append(f"adawise dlq replay ended with code {code}; see {sends.log}")
    compare_returns(verdict, topic, everything(broker, topic), everything(broker, f"{topic}.dlq"))


def compare_returns(verdict: ChaosVerdict, topic: str, messages: Iterable[Any], dead_letters: Iterable[Any]) -> None:
    """Add the dead letters that came back twice, though a replay leaves out what was sent back, or that never did."""
    came = Counter[tuple[bytes, bytes]]()  # where it was first, and how often it was sent back
    for record in messages:
        fields = dict(record.headers)
        if ORIGIN in fields and REPLAYS in fields:
            came[fields[ORIGIN], fields[REPLAYS]] += 1
    verdict.sent_back_twice = sum(count - 1 for count in came.values())
    due = set[tuple[bytes, bytes]]()
    for record in dead_letters:
        fields = dict(record.headers)
        replays = int(fields.get(REPLAYS, b"0"))
        if _OFFSET in fields and OMITTED not in fields and replays < _MOST_REPLAYS:
            first = b"%s/%s/%s" % (topic.encode(), fields[_PARTITION], fields[_OFFSET])
            due.add((fields.get(ORIGIN, first), b"%d" % (replays + 1)))
    verdict.never_sent_back = len(due - came.keys())


_MOST_REPLAYS = 3  # `dlq replay --max-replays`


def count_results(
    verdict: ChaosVerdict, broker: Broker, topic: str, output: Output, when: str, recovered: Recoveries | None
) -> None:
    """Hold the results on a topic against the rows of the output; see `compare_results`."""
    rows: dict[ResultKey, Row] = {}
    for key, footer in read_segment_footers(output.store):
        for row in segment.read_rows(read_bytes(output.store, key), key).to_pylist():
            rows[row["row_id"], footer.attempt] = row
    compare_results(verdict, rows, _results_on(broker, topic), when, recovered)


def compare_results(
    verdict: ChaosVerdict,
    rows: Mapping[ResultKey, Row],
    results: Iterable[Row],
    when: str,
    recovered: Recoveries | None = None,
) -> None:
    """Hold results in the order of their topic against rows, each by the attempt that wrote it.

    Each row has one at least. A copy says the same. Of a camera's images each comes after the one before it at least
    once. Of results that are published once committed there are none beside; an early one may be of a worker that died.
    A row has as many copies at most as its partition had owners, by `recovered` (see `compare_dead_letters`).
    """
    found: dict[ResultKey, Row] = {}
    copies = Counter[ResultKey]()
    first, last = dict[ResultKey, int](), dict[ResultKey, int]()
    differ = 0
    for number, result in enumerate(results):
        place = result["row_id"], result["attempt"]
        differ += result != found.setdefault(place, result)
        copies[place] += 1
        first.setdefault(place, number)
        last[place] = number
    verdict.results_missing = len(rows.keys() - found.keys())
    strange = found.keys() - rows.keys()
    if when == "early":
        known = {row_id for row_id, _ in rows}
        strange = {place for place in strange if place[0] not in known}
    both = rows.keys() & found.keys()
    wrong = sorted(place for place in both if _common(found[place]) != _common(rows[place]))
    verdict.results_wrong = differ + len(strange) + len(wrong)
    verdict.faults += [f"result {place}: of no row" for place in sorted(strange)[:_SHOWN]]
    verdict.faults += [
        f"result {place}: {_common(found[place])} instead of {_common(rows[place])}" for place in wrong[:_SHOWN]
    ]
    if recovered is not None:
        owners = Counter[int]()
        for (_, partition), count in recovered.items():
            owners[partition] += count
        verdict.results_doubled = sum(max(0, copies[place] - owners[rows[place]["partition"]]) for place in both)
    cameras = defaultdict[tuple[str, str | None], list[tuple[int, ResultKey]]](list)
    for place in both:
        if rows[place]["status"] == "accepted":
            cameras[place[1], rows[place]["stream_id"]].append((rows[place]["offset"], place))
    for of_camera in cameras.values():
        for (offset, before), (later, after) in pairwise(sorted(of_camera)):
            if offset < later and first[before] > last[after]:  # images of one message have one offset
                verdict.results_disordered += 1


def _results_on(broker: Broker, topic: str) -> Iterator[Row]:
    for record in everything(broker, topic):
        kind = dict(record.headers)["ce_type"].decode()
        if kind in (IMAGE, BATCH):
            value = json.loads(record.value)
            yield from value["results"] if kind == BATCH else [value]


def _common(row: Row) -> str:
    return repr([row[name] for name in _SAME])


def mend(verdict: ChaosVerdict, role: Role, output: Output) -> bool:
    """Lose a segment and the traces of another one, let `adawise repair` mend that, and add what is not whole then, or
    not as it was before but for what the lost segment had. False if there are too few segments that are not compacted.
    """
    rows, traces, store = output.predictions, Counter(map(repr, output.traces)), output.store
    candidates = [key for tp in {tp for tp, _ in segment_keys(store)} for key in _not_compacted(store, tp)[1:-_KEPT]]
    if len(candidates) < 2:
        return False
    untraced, lost = sorted(candidates)[:2]
    gone = segment.read_rows(read_bytes(store, lost), lost)["row_id"].combine_chunks()
    batches = segment.read_footer(read_bytes(store, lost), lost).trace.num_rows
    for key in (layout.traces_key(untraced), layout.traces_key(lost), lost):
        store.delete(key)
    mends = replace(role, log=output.root.with_suffix(".repair"))
    if code := begin(mends, "repair", mends.settings.sink.root, "--yes")():
        verdict.faults.append(f"adawise repair ended with code {code}; see {mends.log}")
    verdict.faults += verify(role, output)()
    if not rows.filter(pc.invert(pc.is_in(rows["row_id"], gone))).equals(output.predictions):
        verdict.faults.append(f"rows are not as they were before a repair, but for the {len(gone)} of {lost}")
    left = Counter(map(repr, output.traces))
    if left - traces or (traces - left).total() != batches:
        verdict.faults.append(f"traces are not as they were before a repair, but for the {batches} of {lost}")
    return True


def _not_compacted(store: Store, tp: TopicPartition) -> list[str]:
    covers = compacted_names(store, layout.PREDICTIONS, tp)
    names = segment_names(store, tp)
    return [layout.segment_key(tp, name) for name in names if not covers or name >= covers[-1].until]


def retire(verdict: ChaosVerdict, role: Role, output: Output) -> None:
    """Remove what is old by a clock that is ahead, and add what is not whole then, or not as it was before."""
    rows, root, store = output.predictions, role.settings.sink.root, output.store
    chains = groupby(segment_keys(store), key=itemgetter(0))
    newest = {key for _, keys in chains for _, key in list(keys)[-_KEPT:]}
    ahead = replace(role, prepare=three_days_later, log=output.root.with_suffix(".retain"))
    if code := begin(ahead, "retain", root, "--keep", "1d", "--yes")():
        verdict.faults.append(f"adawise retain ended with code {code}; see {ahead.log}")
        return
    verdict.faults += verify(role, output)()
    if gone := newest - {key for _, key in segment_keys(store)}:
        verdict.faults.append(f"retain removed {min(gone)}, which is among the newest of its partition")
    left = output.predictions
    cuts = [claims.read_beginning(store, tp) for tp in {tp for tp, _ in segment_keys(store)}]
    removed = sum(cut[1].rows for cut in cuts if cut is not None)
    if not removed:
        verdict.faults.append("retain with a clock that is ahead removed nothing")
    if len(left) != len(rows) - removed:
        verdict.faults.append(f"retain says that it removed {removed} of {len(rows)} rows, and left {len(left)}")
    kept = rows.filter(pc.is_in(rows["row_id"], left["row_id"].combine_chunks()))
    if not kept.equals(left):
        verdict.faults.append("rows that retain left are not as they were")
