"""The live page's events: all rows at first, then those that changed, to a bounded number of browsers.

One turn a second serves all of them, and none is made while nobody looks. A browser that does not keep up is let go: it
comes back by itself and begins with all rows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from adawise.live.row import STEP_S, STEPS, CameraRow, LiveView, Provider

MOST_VIEWERS = 32
PERIOD_S = 1.0
_WAITING = 8  # messages that a browser may be behind
_KEEP_ALIVE_S = 15.0
_RETRY_MS = 2_000


class TooManyViewers(Exception):
    """There is no place for another browser."""


class EventFeed:
    """What browsers are told.

    Args:
        provider: of the rows.
        period_s: between two turns.
    """

    def __init__(self, provider: Provider, *, period_s: float = PERIOD_S) -> None:
        self._provider, self._period_s = provider, period_s
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._known: dict[str, CameraRow] = {}
        self._seen: LiveView | None = None  # of the last turn
        self._turning: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """Browsers that look."""
        return len(self._viewers)

    def enter(self) -> asyncio.Queue[bytes | None]:
        """A place for a browser; its messages, None at their end. Raises TooManyViewers."""
        if len(self._viewers) >= MOST_VIEWERS:
            raise TooManyViewers
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        if not self._viewers or self._seen is None:
            self._seen = self._provider.view()
            self._known = {row.key: row for row in self._seen.rows}
        # Else as of the last turn, from which the next one goes on: a crowd that comes at once costs nobody a message.
        above = _above(self._seen)
        queue.put_nowait(_event("all", above + _list("rows", [_text(row) for row in self._known.values()])))
        self._viewers.add(queue)
        if self._turning is None or self._turning.done():
            self._turning = asyncio.ensure_future(self._run())
        return queue

    def leave(self, queue: asyncio.Queue[bytes | None]) -> None:
        """Its place is free."""
        self._viewers.discard(queue)

    async def events(self, queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        """What is written to a browser, until it leaves or is let go."""
        try:
            yield b"retry: %d\n\n" % _RETRY_MS
            while True:
                try:
                    message = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_S)
                except TimeoutError:
                    message = b": still here\n\n"
                if message is None:
                    return
                yield message
        finally:
            self.leave(queue)

    def close(self) -> None:
        """Let all browsers go."""
        for queue in list(self._viewers):
            self._let_go(queue)
        if self._turning is not None:
            self._turning.cancel()

    async def _run(self) -> None:
        while self._viewers:
            await asyncio.sleep(self._period_s)
            if self._viewers:
                self._tell(self._turn(self._provider.view()))

    def _turn(self, view: LiveView) -> bytes:
        """What is new since the last turn, as a message."""
        self._seen = view
        changed, gone = [], set(self._known)
        for row in view.rows:
            key = row.key
            gone.discard(key)
            known = self._known.get(key)
            if known is None or (known is not row and known != row):
                changed.append(_text(row, known))
            self._known[key] = row
        for key in gone:
            del self._known[key]
        lost = f',"gone":{json.dumps(sorted(gone))}' if gone else ""
        return _event("some", _above(view) + _list("rows", changed) + lost)

    def _tell(self, message: bytes) -> None:
        for queue in list(self._viewers):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self._let_go(queue)

    def _let_go(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._viewers.discard(queue)
        with suppress(asyncio.QueueEmpty):
            while True:
                queue.get_nowait()
        queue.put_nowait(None)


def _event(kind: str, fields: str) -> bytes:
    return f"event: {kind}\ndata: {{{fields}}}\n\n".encode()


def _above(view: LiveView) -> str:
    """What stands above the rows, as the inside of a JSON object."""
    above: dict[str, Any] = {
        "title": view.title,
        "now": round(view.now_s, 1),
        "facts": list(view.facts),
        "notices": list(view.notices),
        "over": view.over,
        "step": STEP_S,
        "steps": STEPS,
    }
    return json.dumps(above, separators=(",", ":"))[1:-1]


def _list(name: str, texts: list[str]) -> str:
    return f',"{name}":[{",".join(texts)}]'


def _text(row: CameraRow, known: CameraRow | None = None) -> str:
    """As JSON, short, since there may be thousands: shares in per cent, alpha in hundredths.

    Of `alphas` only what a browser that has the `known` row lacks, where that is their end: it keeps those from the
    step `keep` on.
    """
    first, alphas, keep = row.first_step, row.alphas, None
    if known is not None and known.alphas:
        passed = first - known.first_step
        same = known.alphas[passed:-1]
        if 0 <= passed < len(known.alphas) and same == alphas[: len(same)]:
            first, alphas, keep = first + len(same), alphas[len(same) :], first
    told: dict[str, Any] = {
        "key": row.key,
        "name": row.stream_id,
        "at": row.partition,
        "state": row.state.value,
        "why": row.why,
        "alpha": _rounded(row.alpha, 2),
        "condition": row.condition,
        "returns": row.returns,
        "first": first,
        "alphas": [None if alpha is None else round(100 * alpha) for alpha in alphas],
        "classes": [[name, round(100 * share)] for name, share in row.classes],
        "rate": round(row.images_per_s, 2),
        "images": row.images,
        "rejected": row.rejected,
        "fe": _rounded(row.forward_equivalents, 2),
        "agree": None if row.agreement is None else round(100 * row.agreement),
        "lag": row.lag,
        "seen": _rounded(row.seen_s, 1),
        "picture": row.picture,
    }
    if keep is not None:
        told["keep"] = keep
    return json.dumps(told, separators=(",", ":"))


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or value != value else round(value, digits)
