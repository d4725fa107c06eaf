"""The JSON of the live page and of one camera's own page, and the server-sent events that carry it to browsers.

The events have first all rows, then the rows that changed, and go to a bounded number of browsers. One update per
second is computed for all browsers together, and none while no browser is connected. A browser that does not keep up is
disconnected. It reconnects by itself and receives all rows again. The pages insert all texts as text, never as markup.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from adawise.watch.row import STEP_S, STEPS, CameraRow, CameraView, LiveView, Provider

MOST_VIEWERS = 32
PERIOD_S = 1.0
_WAITING = 8  # messages that a browser may be behind
_KEEP_ALIVE_S = 15.0
_RETRY_MS = 2_000


class TooManyViewers(Exception):
    """The maximum number of browsers is connected."""


class EventFeed:
    """The events that are sent to all browsers.

    Args:
        provider: source of the rows.
        period_s: seconds between two updates.
    """

    def __init__(self, provider: Provider, *, period_s: float = PERIOD_S) -> None:
        self._provider, self._period_s = provider, period_s
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._known: dict[str, CameraRow] = {}
        self._view: LiveView | None = None  # the view of the last update
        self._turning: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """The number of connected browsers."""
        return len(self._viewers)

    def enter(self) -> asyncio.Queue[bytes | None]:
        """Add a browser and return the queue of its messages, which None ends.

        Raises:
            TooManyViewers: `MOST_VIEWERS` browsers are connected.
        """
        if len(self._viewers) >= MOST_VIEWERS:
            raise TooManyViewers
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        if not self._viewers or self._view is None:
            self._view = self._provider.view()
            self._known = {row.key: row for row in self._view.rows}
        # While other browsers are connected, a new one gets the rows of the last update, which the next update builds
        # on. A new view would have to be sent to all: many browsers connecting at once would fill their queues.
        above = _above(self._view)
        queue.put_nowait(_event("all", above + _list("rows", [_text(row) for row in self._known.values()])))
        self._viewers.add(queue)
        if self._turning is None or self._turning.done():
            self._turning = asyncio.ensure_future(self._run())
        return queue

    def leave(self, queue: asyncio.Queue[bytes | None]) -> None:
        """Remove a browser."""
        self._viewers.discard(queue)

    async def events(self, queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        """Yield the bytes to send to a browser, until it leaves or is disconnected."""
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
        """Disconnect all browsers."""
        for queue in list(self._viewers):
            self._let_go(queue)
        if self._turning is not None:
            self._turning.cancel()

    async def _run(self) -> None:
        while self._viewers:
            await asyncio.sleep(self._period_s)
            if self._viewers:
                self._send(self._turn(self._provider.view()))

    def _turn(self, view: LiveView) -> bytes:
        """Return a message with the changes since the last update."""
        self._view = view
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

    def _send(self, message: bytes) -> None:
        """Queue a message for all browsers, and disconnect those whose queue is full."""
        for queue in list(self._viewers):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self._let_go(queue)

    def _let_go(self, queue: asyncio.Queue[bytes | None]) -> None:
        """Disconnect a browser: replace its queued messages by None, the end."""
        self._viewers.discard(queue)
        with suppress(asyncio.QueueEmpty):
            while True:
                queue.get_nowait()
        queue.put_nowait(None)


def _event(kind: str, fields: str) -> bytes:
    return f"event: {kind}\ndata: {{{fields}}}\n\n".encode()


def _above(view: LiveView) -> str:
    """Return the page's content above the rows as JSON members, without the braces of the object."""
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
    """Return `row_document` as compact JSON, since there may be thousands of rows."""
    return json.dumps(row_document(row, known), separators=(",", ":"))


def row_document(row: CameraRow, known: CameraRow | None = None) -> dict[str, Any]:
    """Return a row as a JSON object, with shares in per cent and `alphas` in hundredths.

    If the browser has the row `known` and its alphas continue in the new row, only the new end of `alphas` is sent. The
    browser then keeps its alphas from the step `keep` on.
    """
    first, alphas, keep = row.first_step, row.alphas, None
    if known is not None and known.alphas:
        passed = first - known.first_step
        same = known.alphas[passed:-1]
        if 0 <= passed < len(known.alphas) and same == alphas[: len(same)]:
            first, alphas, keep = first + len(same), alphas[len(same) :], first
    cells: dict[str, Any] = {
        "key": row.key,
        "name": row.stream_id,
        "at": row.partition,
        "state": row.state.value,
        "why": row.why,
        "alpha": rounded(row.alpha, 2),
        "condition": row.condition,
        "returns": row.returns,
        "first": first,
        "alphas": [None if alpha is None else round(100 * alpha) for alpha in alphas],
        "classes": [[name, round(100 * share)] for name, share in row.classes],
        "rate": round(row.images_per_s, 2),
        "images": row.images,
        "rejected": row.rejected,
        "fe": rounded(row.forward_equivalents, 2),
        "agree": None if row.agreement is None else round(100 * row.agreement),
        "lag": row.lag,
        "seen": rounded(row.last_seen_s, 1),
        "picture": row.picture,
    }
    if keep is not None:
        cells["keep"] = keep
    return cells


def rounded(value: float | None, digits: int) -> float | None:
    """Return the value rounded; None if it is None or nan, which JSON cannot have."""
    return None if value is None or value != value else round(value, digits)


def camera_document(view: CameraView) -> dict[str, Any]:
    """Return the content of a camera's page as a JSON object; times are Unix seconds."""
    return {
        "title": view.title,
        "now": round(view.now_s, 1),
        "step": STEP_S,
        "steps": STEPS,
        "row": row_document(view.row),
        "facts": [[heading, [*map(list, facts)]] for heading, facts in view.facts],
        "conditions": [
            {
                "number": each.number,
                "alpha": rounded(each.alpha, 2),
                "seen": rounded(each.last_seen_s, 1),
                "returns": each.returns,
                "current": each.is_current,
            }
            for each in view.conditions
        ],
        "conditions_seen": view.conditions_seen,
        "hints": [{"heading": hint.heading, "steps": [*map(list, hint.steps)]} for hint in view.hints],
    }
