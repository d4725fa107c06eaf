"""The web application: probes, metrics, the page and its events, and a login. It is read-only.

`page_app` needs only a provider of rows, so that every command with such rows can show the page. A worker adds probes
and metrics.

Metrics are exposed by prometheus-client from a registry of their own: those that other code has put into the library's
global registry are not. The metrics of the process (CPU seconds, memory, file descriptors) come from the library.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import parse_qs, urlencode

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp
from typing_extensions import override

from adawise.watch.counts import Distribution
from adawise.watch.health import ProbeAnswer
from adawise.watch.metrics import MetricSpec
from adawise.watch.row import Provider
from adawise.watch.web.access import CAMERA_PATH, COOKIE, COOKIE_S, METRICS_PATH, PAGES, Access, Guard
from adawise.watch.web.feed import EventFeed, TooManyViewers, camera_document

Read = TypeVar("Read")


class TableCollector(Collector, Generic[Read]):
    """A collector that reads all samples at each scrape, within the context manager that provides their source."""

    def __init__(self, table: Sequence[MetricSpec[Read]], scrape: Callable[[], AbstractContextManager[Read]]) -> None:
        self._table, self._scrape = table, scrape

    @override
    def collect(self) -> list[Metric]:
        with self._scrape() as scrape:
            return [_family(spec, scrape) for spec in self._table]


def _family(spec: MetricSpec[Read], scrape: Read) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    if spec.kind == "histogram":
        family = HistogramMetricFamily(spec.name, spec.meaning, labels=spec.series.labels)
        for labels, value in spec.series.samples(scrape):
            assert isinstance(value, Distribution)
            family.add_metric(labels, [*value.cumulative()], value.total)
        return family
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    family = kind(spec.name, spec.meaning, labels=spec.series.labels)
    for labels, value in spec.series.samples(scrape):
        assert not isinstance(value, Distribution)
        family.add_metric(labels, value)
    return family


class Exposition:
    """The answers to scrapes.

    Args:
        table: the metrics.
        scrape: returns a context manager that yields the source of the samples, which does not change within it.
    """

    def __init__(self, table: Sequence[MetricSpec[Read]], scrape: Callable[[], AbstractContextManager[Read]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(TableCollector(table, scrape))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def answer(self, accept: str) -> tuple[bytes, str]:
        """Return (body, content type) in the format that the scraper's Accept header asks for."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # the header names a malformed version of a format
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type


_HERE = Path(__file__).parent
_FILES = {"/": "live.html", CAMERA_PATH: "camera.html"}
_ASSETS = ("live.css", "parts.js", "live.js", "camera.js", "icon.svg")
_COLOURS = _HERE.parents[1] / "page" / "colours.css"
_LONGEST_FORM = 4_096
_FORM_S = 5.0
_TURN_S = 0.5
_log = structlog.get_logger("http")

Probe = Callable[[], ProbeAnswer]


def page_app(
    feed: EventFeed,
    provider: Provider,
    access: Access,
    *,
    probes: Mapping[str, Probe] | None = None,
    exposition: Exposition | None = None,
    each_turn: Callable[[], object] = lambda: None,
) -> ASGIApp:
    """Return the ASGI application.

    Args:
        feed: events of the page.
        provider: source of the pictures.
        access: access rules.
        probes: functions that answer the probes, by path.
        exposition: answers /metrics; None if there are no metrics.
        each_turn: function that is called twice a second in the application's thread.
    """
    assets = _assets()

    @asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        turning = asyncio.ensure_future(_turn(each_turn))
        yield
        turning.cancel()

    def asset(request: Request) -> Response:
        body, kind, tag = assets[_FILES.get(request.url.path, request.url.path[1:])]
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    def metrics(request: Request) -> Response:
        if exposition is None:
            return PlainTextResponse("this port has no metrics\n", 404)
        body, kind = exposition.answer(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    def camera_page(request: Request) -> Response:
        if provider.camera(request.query_params.get("of", "")) is None:
            return Response(assets["unknown.html"][0], 404, media_type="text/html")
        return asset(request)

    def camera(request: Request) -> Response:
        found = provider.camera(request.query_params.get("of", ""))
        if found is None:
            return PlainTextResponse("this page knows no such camera now\n", 404)
        return Response(json.dumps(camera_document(found), separators=(",", ":")), media_type="application/json")

    def picture(request: Request) -> Response:
        found = provider.picture(request.query_params.get("of", ""))
        if found is None:
            return PlainTextResponse("there is no image of this camera\n", 404)
        return Response(found, media_type="image/jpeg")

    async def events(request: Request) -> Response:
        if request.method == "HEAD":  # answered at once: the stream itself never ends
            return Response(media_type="text/event-stream")
        try:
            queue = feed.enter()
        except TooManyViewers:
            return PlainTextResponse("too many browsers have this page open\n", 503, headers={"retry-after": "10"})
        return StreamingResponse(
            feed.events(queue),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},  # else nginx would buffer a response that never ends
        )

    def login(status: int) -> Response:
        return Response(assets["login.html"][0], status, media_type="text/html")

    async def log_in(request: Request) -> Response:
        given = await _form_token(request)
        if given is None or not access.is_token(given):
            return login(403)
        # The page that was asked for. The address is relative and its path ours, so that it leads nowhere else.
        of = urlencode({"of": request.query_params.get("of", "")})
        answer = RedirectResponse(f"camera?{of}" if request.url.path == CAMERA_PATH else "./", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, access.cookie(), max_age=COOKIE_S, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return answer

    routes = [
        *(Route(path, partial(_probed, probe)) for path, probe in (probes or {}).items()),
        Route(METRICS_PATH, _in_loop(metrics)),
        *(Route(f"/{name}", _in_loop(asset)) for name in ("", *_ASSETS)),
        Route(CAMERA_PATH, _in_loop(camera_page)),
        Route("/camera.json", _in_loop(camera)),
        Route("/events", events),
        Route("/picture", _in_loop(picture)),
        *(Route(path, log_in, methods=["POST"]) for path in PAGES if access.token is not None),
    ]
    return Guard(Starlette(routes=routes, lifespan=running), access, login)


async def _probed(probe: Probe, _request: Request) -> Response:
    answer = probe()
    body = {
        "status": answer.status,
        "phase": answer.phase.value,
        "phase_seconds": round(answer.phase_s, 1),
        "reasons": list(answer.reasons),
    }
    return JSONResponse(body, 200 if answer.ok else 503)


def _in_loop(answer: Callable[[Request], Response]) -> Callable[[Request], object]:
    """Make a handler run in the event loop's thread, which owns the state of the worker.

    Starlette runs plain functions in a thread pool, but coroutines in the loop.
    """

    async def answering(request: Request) -> Response:
        return answer(request)

    return answering


async def _turn(each_turn: Callable[[], object]) -> None:
    """Call `each_turn` twice a second; log its first failure alone."""
    failed = False
    while True:
        await asyncio.sleep(_TURN_S)
        try:
            each_turn()
        except Exception:  # noqa: BLE001 - a fault of the page must not affect the worker
            if not failed:
                _log.exception("page_fell_behind", note="logged once; the worker goes on")
            failed = True


async def _form_token(request: Request) -> str | None:
    """Return the field `token` of a form; None if it is missing, the form is too long or does not come in time."""
    body = b""
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > _LONGEST_FORM:
                    return None
            return next(iter(parse_qs(body.decode("utf-8", "replace")).get("token", [])), None)
    return None


@cache
def _assets() -> dict[str, tuple[bytes, str, str]]:
    """Return (body, media type, ETag) of each static file, by its name."""
    page = _HERE / "page"
    bodies = {
        "live.html": ((page / "live.html").read_bytes(), "text/html"),
        "camera.html": ((page / "camera.html").read_bytes(), "text/html"),
        "unknown.html": ((page / "unknown.html").read_bytes(), "text/html"),
        "login.html": ((page / "login.html").read_bytes(), "text/html"),
        **{name: ((page / name).read_bytes(), "text/javascript") for name in _ASSETS if name.endswith(".js")},
        "icon.svg": ((page / "icon.svg").read_bytes(), "image/svg+xml"),
        "live.css": (_COLOURS.read_bytes() + (page / "live.css").read_bytes(), "text/css"),
    }
    return {name: (body, kind, f'"{hashlib.sha256(body).hexdigest()[:16]}"') for name, (body, kind) in bodies.items()}
