"""The port of a process that reads cameras: what is scraped is nobody else's meanwhile."""

from __future__ import annotations

import urllib.request
from dataclasses import replace

import pytest

from adawise.app import http
from adawise.settings import HttpSettings
from adawise.watch.board import SourceBoard
from adawise.watch.metrics import CAMERA_METRICS, Samples, SourceScrape
from adawise.watch.sources import LiveSources
from adawise.watch.web.server import HttpThread


def test_metrics_of_cameras_are_read_while_no_camera_can_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were read beside the threads of the cameras: `dictionary changed size during iteration`."""
    boards: list[SourceBoard] = []
    was_locked: list[bool] = []
    (spec, *_) = CAMERA_METRICS
    read = spec.series.samples

    def samples(scrape: SourceScrape) -> Samples:
        was_locked.append(boards[0]._lock.locked())
        return read(scrape)

    monkeypatch.setattr(http, "CAMERA_METRICS", (replace(spec, series=replace(spec.series, samples=samples)),))
    urls: list[str] = []
    start = HttpThread.start

    def started(thread: HttpThread) -> None:
        start(thread)
        urls.append(thread.url)

    monkeypatch.setattr(HttpThread, "start", started)
    with http.cameras_port(HttpSettings(port=0), "cameras") as board:
        boards.append(board)
        board.apply(LiveSources.add, "yard", "rtsp://camera/1", 300.0)
        with urllib.request.urlopen(f"{urls[0]}metrics") as answer:
            assert spec.name in answer.read().decode()
    assert was_locked == [True]
