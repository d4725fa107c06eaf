"""Every call of a worker's loop that may fail does once, before or after its effect: each image is a row, once.

What fails raises the errors of its contract (`adawise.ports`, `adawise.store.store`). A source that raised in `poll`
has taken nothing; all else may have done what was asked and say that it did not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.errors import AdawiseError, BrokerUnavailable, StoreFull, StoreUnavailable
from adawise.ports import When
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.worker.loop import Bench, FakeDeadLetters, FakeResults, bad, images

Moment = Literal["before", "after"]

ROWS, CAMERAS = 36, ("north", "south", "east")
PORTS: Mapping[str, tuple[str, ...]] = {
    "source": ("poll", "check", "identity", "bounds", "origin", "offset_at"),
    "store": ("create", "put", "get", "list", "page", "open", "delete", "sizes", "modified", "sweep"),
    "letters": ("send", "flush"),
    "results": ("send", "settled"),
}
ERRORS: Mapping[str, tuple[AdawiseError, ...]] = {
    "source": (BrokerUnavailable("the broker did not answer"),),
    "store": (StoreUnavailable("the store did not answer"), StoreFull("no space")),
    "letters": (BrokerUnavailable("the letter was not acknowledged"),),
    "results": (BrokerUnavailable("the result was not acknowledged"),),
}
_ONLY_BEFORE = {("source", "poll")}


class Plan:
    """Counts calls, and has one of them fail.

    Args:
        port, method: which; "" for none.
        call: from 0.
        moment: before or after what it does.
        error: what is raised.
    """

    def __init__(
        self,
        port: str = "",
        method: str = "",
        call: int = 0,
        moment: Moment = "before",
        error: Exception | None = None,
    ) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self._place, self._call, self._moment, self._error = (port, method), call, moment, error
        self.has_failed = False

    @property
    def has_ended(self) -> bool:
        """True once nothing more will fail."""
        return self.has_failed or self._error is None

    def on(self, port: str, target: Any, methods: Sequence[str] = ()) -> Any:
        """What the worker is given for this port: calls of its methods are counted, those that it makes itself not."""
        names = methods or PORTS[port]
        return _Counted(target, {method: self._counted(port, method, getattr(target, method)) for method in names})

    def _counted(self, port: str, method: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            number, is_it = self.calls[port, method], (port, method) == self._place
            self.calls[port, method] += 1
            fails = is_it and number == self._call
            if fails and self._moment == "before":
                self._fail()
            found = real(*arguments, **named)
            if fails:
                self._fail()
            return found

        return call

    def _fail(self) -> None:
        assert self._error is not None
        self.has_failed = True
        raise self._error


class _Counted:
    """An object of which some methods are replaced."""

    def __init__(self, target: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
        self._target, self._methods = target, methods

    def __getattr__(self, name: str) -> Any:
        if name == "log":  # a fake source is its own
            return self
        return self._methods[name] if name in self._methods else getattr(self._target, name)

    def __str__(self) -> str:
        return str(self._target)


def run(plan: Plan, when: When) -> tuple[Bench, FakeDeadLetters, FakeResults]:
    """A worker over two partitions until all is written."""
    messages = MESSAGES
    source = plan.on("source", FakeSource(messages, partitions=2, max_poll_records=7))
    dead_letter_sink, results = plan.on("letters", FakeDeadLetters()), plan.on("results", FakeResults(when))
    store = plan.on("store", DictStore())
    calm: DictStore = store
    bench = Bench(source, store, dead_letters=dead_letter_sink, results=results)
    rows = len(messages)
    bench.run(lambda: _rows(calm) >= rows)
    return bench, dead_letter_sink, results


def _rows(store: DictStore) -> int:
    """Rows of the segments, without a call that is counted."""
    found = 0
    for key, data in store.objects.items():
        if key.startswith("predictions/"):
            found += pq.read_metadata(pa.BufferReader(data)).num_rows
    return found


MESSAGES = sorted(
    [
        *(message for n in range(2) for message in images(ROWS // 2, *CAMERAS, partition=n)),
        *(bad(ROWS // 2, partition=n) for n in range(2)),
    ],
    key=lambda message: (message.offset, message.partition),
)


def places(when: When) -> Iterator[tuple[str, str, int, Moment, AdawiseError]]:
    """Each call of a run in which nothing fails, with what it may raise."""
    calm = Plan()
    run(calm, when)
    for (port, method), count in sorted(calm.calls.items()):
        for call in range(count):
            for moment in ("before", "after"):
                if moment == "after" and (port, method) in _ONLY_BEFORE:
                    continue
                for error in ERRORS[port]:
                    yield port, method, call, moment, error


@pytest.mark.timeout(2_400)
@pytest.mark.parametrize("when", ["early", "committed"])
@pytest.mark.parametrize(
    "share", [0.02, pytest.param(0.15, marks=pytest.mark.check("damage")), pytest.param(1.0, marks=pytest.mark.soak)]
)
def test_a_call_that_fails_once_costs_no_row_and_doubles_none(when: When, share: float) -> None:
    undisturbed, _, _ = run(Plan(), when)
    draw, faults, seen = Random(7), list[str](), Counter[tuple[str, str]]()
    for place in places(when):
        port, method, call, moment, error = place
        if seen[port, method] and draw.random() >= share:
            continue
        seen[port, method] += 1
        plan = Plan(*place)
        try:
            bench, dead_letters, results = run(plan, when)
            assert plan.has_failed
            bench.check_against(MESSAGES, undisturbed)
            assert {message.topic_partition for message in dead_letters.sent} == {m.topic_partition for m in MESSAGES}
            assert {row for rows in results.row_ids.values() for row in rows} == set(bench.table["row_id"].to_pylist())
        except Exception as raised:  # noqa: BLE001
            faults.append(f"{port}.{method} call {call} {moment} {type(error).__name__}: {raised!r:.300}")
    assert not faults, "\n".join(faults)
    assert {port for port, _ in seen} == set(PORTS)
