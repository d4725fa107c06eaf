"""Settings -> the HTTP port of a worker, or of any other process that has rows to show."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from adawise.errors import SettingsError
from adawise.recording.recorder import Streams
from adawise.settings import HttpSettings, Settings
from adawise.settings.http import PORT
from adawise.watch.board import SourceBoard
from adawise.watch.details import HintPlaces, RecordingPlace
from adawise.watch.health import Health, ProbeAnswer
from adawise.watch.metrics import CAMERA_METRICS, METRICS, Scrape, SourceScrape, worker_counters
from adawise.watch.observer import LiveObserver, steady
from adawise.watch.row import Provider
from adawise.watch.sources import LiveSources
from adawise.watch.web.access import Access
from adawise.watch.web.app import Exposition, page_app
from adawise.watch.web.feed import EventFeed
from adawise.watch.web.server import App, HttpThread, listen
from adawise.watch.worker import LiveBounds, LiveWorker
from adawise.worker.events import Observer, Observers

_log = structlog.get_logger("http")
_PROBES: Mapping[str, Callable[[Health, float], ProbeAnswer]] = {
    "/livez": Health.alive,
    "/readyz": Health.ready,
    "/startupz": Health.started,
}
_WRITE_WITHIN = 3.0  # times sink.flush_age_s
_WRITE_WITHIN_LEAST_S = 60.0


@dataclass(frozen=True, slots=True)
class WorkerPort:
    """The port of a worker: the observer that it reports to, and its URL.

    Without a port the observer does nothing, and the URL is None.
    """

    observer: Observer
    url: str | None = None

    def knows_group(self, is_member: Callable[[], bool], partitions: Callable[[], int]) -> None:
        """Set how to find out whether the worker is in its group, and how many partitions the group shares.

        Called from the worker's thread.
        """
        if isinstance(self.observer, LiveObserver):
            self.observer.is_member, self.observer.partitions = is_member, partitions


@contextmanager
def worker_port(settings: Settings) -> Iterator[WorkerPort]:
    """Serve probes, metrics and the page of a worker that runs meanwhile, if the settings enable it.

    Raises:
        SettingsError: the port cannot be opened.
    """
    http = settings.http
    if not http.enabled:
        yield WorkerPort(Observers())
        return
    clock = steady()
    flush_s = settings.sink.flush_age_s
    worker = LiveWorker(
        f"{settings.kafka.topic} by {socket.gethostname()}:{os.getpid()}",
        clock(),
        LiveBounds(
            max_cameras=http.max_cameras,
            silent_after_s=http.silent_after_s,
            write_within_s=max(_WRITE_WITHIN_LEAST_S, _WRITE_WITHIN * flush_s),
            stuck_after_s=http.stuck_after_s,
        ),
        hint_places(settings),
    )
    observer = LiveObserver(worker, worker_counters(), keeps_pictures=http.thumbnails, clock=clock)
    feed = EventFeed(observer)

    def probe(respond: Callable[[Health, float], ProbeAnswer]) -> Callable[[], ProbeAnswer]:
        def answer() -> ProbeAnswer:
            now = observer.catch_up()
            return respond(now.health, now.now_s)

        return answer

    @contextmanager
    def scrape() -> Iterator[Scrape]:
        now, dropped = observer.catch_up(), observer.dropped
        yield Scrape(now, observer.counters, version("adawise"), http.max_streams, feed.viewers, dropped, time.time())

    probes = {path: probe(respond) for path, respond in _PROBES.items()}
    app = page_app(
        feed, observer, access(http), probes=probes, exposition=Exposition(METRICS, scrape), each_turn=observer.catch_up
    )
    with _serving(http, app, feed, has_probes=True) as thread:
        closed = http.token is None and not http.is_loopback
        note = "the page needs http.token, since other machines can reach the port" if closed else None
        probes_at = {"probes": thread.probes_url} if thread.probes_url else {}
        _log.info("http_started", url=thread.url, **probes_at, **({"note": note} if note else {}))
        yield WorkerPort(observer, thread.url)


def hint_places(settings: Settings) -> HintPlaces:
    """Return the places that the commands on a camera's page name, by the settings of a worker."""
    record, kafka = settings.record, settings.kafka
    recording = RecordingPlace(str(record.root), Streams(record.streams).has_stream, record.forget_images_after)
    return HintPlaces(
        root=str(settings.sink.root),
        topic=kafka.topic,
        recording=recording if record.enabled else None,
        dead_letters=kafka.dead_letters_to if kafka.dead_letters else None,
        keeps_pictures=settings.http.thumbnails,
    )


@contextmanager
def cameras_port(http: HttpSettings, title: str) -> Iterator[SourceBoard]:
    """Yield the board of a process that reads cameras, with probes, metrics and page if the settings enable them.

    Raises:
        SettingsError: the port cannot be opened.
    """
    clock = steady()
    sources = LiveSources(title, clock(), http.silent_after_s, http.stuck_after_s, keeps_pictures=http.thumbnails)
    board = SourceBoard(sources, clock)
    if not http.enabled:
        yield board
        return
    feed = EventFeed(board)

    def probe(respond: Callable[[Health, float], ProbeAnswer]) -> Callable[[], ProbeAnswer]:
        def answer() -> ProbeAnswer:
            with board.locked() as now:
                return respond(now.health, now.now_s)

        return answer

    probes = {path: probe(respond) for path, respond in _PROBES.items()}

    @contextmanager
    def scrape() -> Iterator[SourceScrape]:
        with board.locked() as now:
            yield SourceScrape(now, version("adawise"), feed.viewers)

    exposition = Exposition(CAMERA_METRICS, scrape)
    app = page_app(feed, board, access(http), probes=probes, exposition=exposition)
    with _serving(http, app, feed, has_probes=True):
        yield board


@contextmanager
def rows_port(http: HttpSettings, provider: Provider) -> Iterator[str]:
    """Serve the live page with the rows of a provider, and neither probes nor metrics; yield the page's URL.

    Raises:
        SettingsError: the port cannot be opened.
    """
    feed = EventFeed(provider)
    with _serving(http, page_app(feed, provider, access(http)), feed) as thread:
        yield thread.url


@contextmanager
def _serving(http: HttpSettings, app: App, feed: EventFeed, *, has_probes: bool = False) -> Iterator[HttpThread]:
    probes = None
    if has_probes and http.probes_port is not None:  # before the other, which may take any free port
        probes = listen(http.listen, http.probes_port, PORT, name="http.probes_port")
    try:
        bound = listen(http.listen, http.port, PORT)
    except SettingsError:
        if probes is not None:
            probes.close()
        raise
    thread = HttpThread(app, bound, feed.close, probes=probes)
    try:
        thread.start()
        yield thread
    finally:
        thread.close()


def access(http: HttpSettings) -> Access:
    """Return who may see what, by the settings."""
    return Access(
        token=http.token.get_secret_value() if http.token else None,
        hosts=frozenset(http.hosts.split(",") if http.hosts else ()),
        is_local=http.is_loopback,
        clock=steady(),
    )
