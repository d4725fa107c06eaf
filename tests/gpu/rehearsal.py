"""`torch.cuda` on the processor, in so far as `clip.cuda` uses it: queues that run late, and in any order they may.

What is enqueued is not done until somebody waits for it, or by chance. Until then its result is nonsense, so a missing
wait between two queues, between a queue and the host, or between two uses of a buffer shows as wrong numbers. Tensors
lie in the processor's memory; those made with `device=CARD`, and what is computed from them, are the card's.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

CARD = torch.device("cpu", 0)  # torch takes it for the processor; here the number tells
PROPERTIES = SimpleNamespace(name="rehearsed", major=9, minor=0, multi_processor_count=132, total_memory=80 * 2**30)

_Work = Callable[[], object]


class HiddenWait(Exception):
    """The host asked for a value of the card in the middle of things."""


class Stuck(Exception):
    """Somebody waits for what will never come."""


class Mark:
    """Of which each `record` is a version. A `deaf` one lets every wait pass: a mistake that tests plant."""

    def __init__(self, rehearsal: Rehearsal, blocking: bool = False) -> None:
        self._rehearsal, self.deaf = rehearsal, False
        self.recorded = self.done = 0
        self.queue: Queue | None = None

    def record(self, stream: Queue | None = None) -> None:
        self.queue = stream or self._rehearsal.current_stream()
        self.recorded += 1
        version = self.recorded
        self._rehearsal.enqueue(self.queue, lambda: setattr(self, "done", version))

    def synchronize(self) -> None:
        if self.queue is self._rehearsal.compute:
            self._rehearsal.waits += 1
        if not self.deaf:
            self._rehearsal.run_until(lambda: self.done >= self.recorded)


class Queue:
    """A queue of work; what waits for an event waits at its head."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self.items: deque[tuple[_Work, Callable[[], bool]]] = deque()

    def wait_event(self, event: Mark) -> None:
        version = event.recorded
        assert version, "a wait for what was never recorded is none on a card"
        if not event.deaf:
            self.items.append((lambda: None, lambda: event.done >= version))


class Graph:
    """Work that was recorded, and not done then."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal, self.work = rehearsal, list[_Work]()

    def replay(self) -> None:
        for work in self.work:
            self._rehearsal.enqueue(self._rehearsal.current_stream(), work)


class Rehearsal(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The module `torch.cuda`, and the mode within which tensors of the card are late.

    Args:
        seed: of the order in which things happen.
        refuses_capture: as towers do that ask for values.

    `fault`, if set, is raised by each wait, as by a lost card.
    """

    def __init__(self, seed: int, *, refuses_capture: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._random, self._refuses_capture = random.Random(seed), refuses_capture
        self.fault: Exception | None = None
        self.properties: SimpleNamespace | Exception = PROPERTIES
        self._copies: int | None = None
        self._copy_elements = 0
        self._storages: dict[int, Any] = {}  # of the card, by address, alive so that no address comes again
        self._capturing: Graph | None = None
        self._running = False
        self.compute = Queue(self)
        self._streams, self._current = [self.compute], [self.compute]
        self.waits = self.captures = self.freed = 0

    def memory(self, *, copies: int, elements: int) -> None:
        """From now on there is memory for that many more buffers of `elements`."""
        self._copies, self._copy_elements = copies, elements

    # -- torch.cuda's names

    def set_device(self, device: torch.device) -> None:
        assert device == CARD

    def get_device_properties(self, device: torch.device) -> SimpleNamespace:
        assert device == CARD
        if isinstance(self.properties, Exception):
            raise self.properties
        return self.properties

    def Stream(self) -> Queue:  # noqa: N802 - theirs
        self._streams.append(Queue(self))
        return self._streams[-1]

    def Event(self, blocking: bool = False) -> Mark:  # noqa: N802
        return Mark(self, blocking)

    def CUDAGraph(self) -> Graph:  # noqa: N802
        return Graph(self)

    def current_stream(self) -> Queue:
        return self._current[-1]

    def graph_pool_handle(self) -> object:
        return object()

    def empty_cache(self) -> None:
        self.freed += 1

    @contextmanager
    def stream(self, stream: Queue) -> Iterator[None]:
        self._current.append(stream)
        try:
            yield
        finally:
            self._current.pop()

    @contextmanager
    def graph(self, graph: Graph, *, pool: object, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode in {"global", "thread_local", "relaxed"}
        self.run_until(lambda: not any(stream.items for stream in self._streams))  # torch synchronises here
        if self._refuses_capture:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors ...")
        self._capturing = graph
        self.captures += 1
        try:
            yield
        finally:
            self._capturing = None

    # -- what is late

    def enqueue(self, stream: Queue, work: _Work) -> None:
        stream.items.append((work, lambda: True))
        while self._random.random() < 0.4:  # the card has a speed of its own
            self._one()

    def run_until(self, reached: Callable[[], bool]) -> None:
        if self.fault is not None:
            raise self.fault
        while not reached():
            if not self._one():
                raise Stuck

    def _one(self) -> bool:
        able = [stream for stream in self._streams if stream.items and stream.items[0][1]()]
        if not able:
            return False
        work, _ = self._random.choice(able).items.popleft()
        before, self._running = self._running, True
        try:
            with torch.inference_mode():
                work()
        finally:
            self._running = before
        return True

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        if self._running:
            return func(*args, **kwargs)
        if kwargs.get("device") == CARD:
            made = self._created(func, args, kwargs)
            if made is not None:
                return made
        given = [t for t in _pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not any(self._is_late(t) for t in given):
            return func(*args, **kwargs)
        return self._deferred(func, args, kwargs, given)

    def _created(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        if any(isinstance(t, Tensor) for t in _pytree.tree_leaves(args)):
            return None
        size = args[0] if args and isinstance(args[0], Sequence) else []
        if self._copies is not None and list(size) == [self._copy_elements]:
            if self._copies == 0:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a copy.\nSee the documentation")
            self._copies -= 1
        made: Tensor = func(*args, **kwargs)
        self._mark(made)
        return made

    def _deferred(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        if func._schema.name in {"aten::_local_scalar_dense", "aten::equal"}:
            raise HiddenWait(func._schema.name)
        if func._schema.is_mutable:
            written = kwargs.get("out", args[0])
            self._queue(lambda: func(*args, **kwargs))
            return written
        result = func(*args, **kwargs)
        tensors = [t for t in _pytree.tree_leaves(result) if isinstance(t, Tensor)]
        own = [t for t in tensors if not any(_address(t) == _address(g) for g in given)]  # others are views
        if not own:
            return result
        for t in own:
            self._mark(t)
            t.fill_(torch.nan if t.is_floating_point() else 77)

        def compute() -> None:
            again = [t for t in _pytree.tree_leaves(func(*args, **kwargs)) if isinstance(t, Tensor)]
            for late, now in zip(tensors, again, strict=True):
                late.copy_(now)

        self._queue(compute)
        return result

    def _queue(self, work: _Work) -> None:
        if self._capturing is not None:
            self._capturing.work.append(work)
        else:
            self.enqueue(self.current_stream(), work)

    def _is_late(self, t: Tensor) -> bool:
        return _address(t) in self._storages

    def _mark(self, t: Tensor) -> None:
        self._storages[_address(t)] = t.untyped_storage()


def _address(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()
