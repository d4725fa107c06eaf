"""Many damaged messages through the whole decode path, in several processes that are watched.

What counts as found: a process that dies, a message that takes more than a second of processor time, anything raised,
a result that breaks the contract of `DecodedMessage`, a rejection without a reason. Messages go to processes by number,
so what is found can be made again: `python -m tools.fuzz --seed S --first N --messages 1`.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from adawise.records import DecodedMessage, Message
from tools.fuzz.contract import EachMode, breach
from tools.fuzz.corpus import corpus
from tools.fuzz.ledger import Ledger
from tools.fuzz.messages import sent

HANG_S = 1.0
_BLOCK = 500  # messages between two reports
_FOUND_AT_MOST = 100  # then it is over
_QUICK_S = 0.005  # by the clock: not worth being timed


@dataclass(frozen=True)
class Found:
    """Something that must not be."""

    number: int
    what: str


@dataclass
class CampaignResult:
    """What came of a campaign. `rss_bytes`: of each process, after its first block, at most, and at the end."""

    messages: int = 0
    rows: Counter[str] = field(default_factory=Counter)  # by reason, "accepted" without one
    found: list[Found] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: int = -1
    rss_bytes: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def add(self, process: int, block: MessageBlock) -> None:
        """Take in a report."""
        self.messages += len(block.numbers)
        self.rows += block.rows
        self.found += block.found
        if block.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest = block.slowest_s, block.slowest
        first, most, _ = self.rss_bytes.get(process, (block.rss_bytes, 0, 0))
        self.rss_bytes[process] = (first, max(most, block.rss_bytes), block.rss_bytes)


@dataclass
class MessageBlock:
    """What one process says of some messages."""

    numbers: Sequence[int]
    rows: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: int = -1
    rss_bytes: int = 0


@dataclass(frozen=True)
class Patience:
    """How long a message may take: seconds of processor time, as the machine may be busy, and seconds in all.

    After the latter the process is killed; on a busy machine a process of low priority may stand still for minutes.
    """

    hang_s: float = HANG_S
    stuck_s: float = 900.0


Decode = Callable[[Message], DecodedMessage]


def examine(
    decode: Decode,
    seed: int,
    numbers: Sequence[int],
    *,
    hang_s: float = HANG_S,
    skip: frozenset[int] = frozenset(),
    current: Any = None,
    ledger: Ledger | None = None,
) -> Iterator[MessageBlock]:
    """Decode each number but those in `skip`, and tell after every block. `current.value` is the number in hand.

    What is decoded goes on into the `ledger`, which is read back at the end of every block.
    """
    values, me = corpus(), psutil.Process()
    for start in range(0, len(numbers), _BLOCK):
        block = MessageBlock(numbers[start : start + _BLOCK])
        for number in (each for each in block.numbers if each not in skip):
            if current is not None:
                current.value = number
            began_s = time.monotonic()
            try:
                for each in sent(seed, number, values):
                    if each.missing is not None:
                        block.rows[each.missing.reason] += 1
                        continue
                    decoded = decode(each)
                    block.rows.update(str(frame.reason or "accepted") for frame in decoded.frames)
                    for broken in (breach(decoded, each), ledger.take(decoded) if ledger is not None else None):
                        if broken is not None:
                            block.found.append(Found(number, broken))
            except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
                block.found.append(Found(number, f"raised {error!r}"[:300]))
                continue
            if time.monotonic() - began_s <= max(_QUICK_S, block.slowest_s):
                continue
            began_s = time.process_time()  # of a message that was slow, as asking for it takes a millisecond here
            for each in sent(seed, number, values):
                if each.missing is None:
                    decode(each)
            took_s = time.process_time() - began_s
            if took_s > block.slowest_s:
                block.slowest_s, block.slowest = took_s, number
            if took_s > hang_s:
                block.found.append(Found(number, f"took {took_s:.2f} s of the processor"))
        if ledger is not None and block.numbers:
            faults = [ledger.commit(), *(ledger.faults() if start + _BLOCK >= len(numbers) else ())]
            block.found += [Found(block.numbers[-1], fault) for fault in faults if fault is not None]
        block.rss_bytes = me.memory_info().rss
        yield block


def _live(pipe: Connection, decode: Decode, seed: int, numbers: range, **options: Any) -> None:
    """The life of one process. A warning is an error: it would go to the worker's log for every such message."""
    faulthandler.enable()
    warnings.simplefilter("error")
    with TemporaryDirectory(prefix="adawise-fuzz-") as folder:
        ledger = Ledger(Path(folder), decode.streams) if isinstance(decode, EachMode) else None
        for block in examine(decode, seed, numbers, ledger=ledger, **options):
            pipe.send(block)
    pipe.close()


class _Watched:
    """One process and its share of the numbers; started again behind a message that ended it."""

    def __init__(self, decode: Decode, seed: int, numbers: range, patience: Patience) -> None:
        self._decode, self._seed, self._numbers, self._patience = decode, seed, numbers, patience
        self._skip = frozenset[int]()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe(duplex=False)
        self._current = context.Value("q", -1, lock=False)
        self._process = context.Process(
            target=_live,
            args=(theirs, self._decode, self._seed, self._numbers),
            kwargs={"hang_s": self._patience.hang_s, "skip": self._skip, "current": self._current},
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._seen, self._seen_s = -1, time.monotonic()

    def take(self) -> MessageBlock | Found | None:
        """The next report, what ended the process, or None at its end. Raises RuntimeError if it cannot begin."""
        try:
            block: MessageBlock = self.pipe.recv()
        except EOFError:
            self._process.join()
            self.pipe.close()
            code, number = self._process.exitcode or 0, self._current.value
            if code and number == -1:
                raise RuntimeError(f"a process ended before its first message: {_ending(code)}") from None
            return Found(number, f"ended the process ({_ending(code)})") if code else None
        self._numbers = self._numbers[len(block.numbers) :]
        return block

    def kill_if_stuck(self) -> None:
        """End the process if it has the same message in hand for too long."""
        number, now_s = self._current.value, time.monotonic()
        if number != self._seen or number == -1:
            self._seen, self._seen_s = number, now_s
        elif now_s - self._seen_s > self._patience.stuck_s:
            self._process.kill()

    def kill(self) -> None:
        """Nobody wants to know more."""
        self._process.kill()

    def start_behind(self, number: int) -> None:
        """Go on from the last report, without the message that ended it."""
        self._skip |= {number}
        self._start()


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def campaign(
    *,
    seed: int,
    first: int,
    messages: int,
    processes: int,
    decode: Decode | None = None,
    patience: Patience | None = None,
) -> Iterator[CampaignResult]:
    """Examine message numbers [first, first + messages); yields the outcome so far after each report."""
    outcome, patience = CampaignResult(), patience or Patience()
    shares = [range(first + p, first + messages, processes) for p in range(min(processes, messages))]
    watched = {n: _Watched(decode or EachMode(), seed, share, patience) for n, share in enumerate(shares)}
    try:
        while watched and len(outcome.found) < _FOUND_AT_MOST:
            ready = wait([each.pipe for each in watched.values()], timeout=min(60.0, patience.stuck_s / 4))
            for number, each in list(watched.items()):
                if each.pipe not in ready:
                    each.kill_if_stuck()
                    continue
                report = each.take()
                if isinstance(report, MessageBlock):
                    outcome.add(number, report)
                elif report is None:
                    del watched[number]
                else:
                    outcome.found.append(report)
                    each.start_behind(report.number)
            yield outcome
    finally:
        for each in watched.values():
            each.kill()
