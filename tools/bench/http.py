"""What the HTTP port costs a worker, and what 1,000 cameras cost the port.

The demo's pair serves the same 3,200 pictures of 100 cameras from an embedded broker again and again, in turns: without
a port; with one that nobody asks; with the page open and a scrape every 5 s, by another process; and with results sent
early besides. What is told is processor seconds an image of the worker's process, all of its threads, against the
first of the same turn. `BENCH_TURNS` is how often (10). A busy machine makes that a noisy difference, so the thread of
the port is timed by itself too, and so is what the worker's thread does for it.

Then 1,000 cameras are made up: the time and size of a scrape, and first paint in headless Chromium, if there is one.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
import torch
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from adawise.build.http import worker_port
from adawise.build.kafka import kafka_source
from adawise.build.model import ModelPair, load_model
from adawise.build.worker import make_worker
from adawise.dead_letters.sink import NoDeadLetters
from adawise.demo.main import demo_settings
from adawise.kafka.embedded import EmbeddedBroker
from adawise.records import BatchTrace, Frame, ImageBatch, Predictions, RowId
from adawise.settings import Settings
from adawise.worker.observer import Observers
from tools.bench.worker import Tally, pictures

IMAGES, CAMERAS, PARTITIONS = 3_200, 100, 4
TURNS = int(os.environ.get("BENCH_TURNS", "10"))
MODES = ("off", "on", "watched", "with results")
SCRAPE_S = 5.0
MANY = 1_000

_WATCH = """
import sys, threading, time, urllib.request
url = sys.argv[1]
def look():
    with urllib.request.urlopen(url + "events") as events:
        for _ in events:
            pass
threading.Thread(target=look, daemon=True).start()
while True:
    urllib.request.urlopen(url + "metrics").read()
    time.sleep(float(sys.argv[2]))
"""


def main() -> None:
    """Print both."""
    logging.getLogger().setLevel(logging.ERROR)
    cost()
    many()


def cost() -> None:
    """Processor milliseconds an image in each mode, and the difference within the turns."""
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        produce(broker.bootstrap_servers)
        model = None
        spent: dict[str, list[float]] = {mode: [] for mode in MODES}
        threads: dict[str, list[float]] = {mode: [] for mode in MODES}
        for turn in range(-1, TURNS):  # the first only warms up
            order = list(MODES) if turn % 2 else list(reversed(MODES))
            for mode in order:
                settings = settings_of(mode, broker.bootstrap_servers, Path(name) / f"{turn}-{mode}", f"{turn}-{mode}")
                model = model or load_model(settings.model, settings.decode)
                used, by_thread = serve(settings, model, watched=mode not in {"off", "on"})
                if turn >= 0:
                    spent[mode].append(1e3 * used / IMAGES)
                    threads[mode].append(by_thread / used)
            if turn >= 0:
                print(f"turn {turn}: " + ", ".join(f"{mode} {spent[mode][-1]:.3f}" for mode in MODES), flush=True)
    for mode in MODES:
        print(f"{mode}: {median(spent[mode]):.3f} ms of processor an image (median of {TURNS})")
    for mode in MODES[1:]:
        ratios = [with_ / without - 1.0 for with_, without in zip(spent[mode], spent["off"], strict=True)]
        error = stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
        share = f"the port's thread has {100 * median(threads[mode]):.2f} % of the processor time"
        print(f"{mode} against off: {100 * mean(ratios):+.2f} % (standard error {100 * error:.2f}); {share}")


def settings_of(mode: str, bootstrap_servers: str, root: Path, group: str) -> Settings:
    settings = demo_settings(bootstrap_servers, root)
    changed = settings.model_dump(mode="json", exclude_unset=True)
    changed["kafka"] |= {"group": group.replace(" ", "-"), "max_poll_records": 512}
    changed["http"] = {"enabled": mode != "off", "port": 0}
    changed["results"] = {"enabled": mode == "with results"}
    return Settings.model_validate(changed)


def serve(settings: Settings, model: ModelPair, *, watched: bool) -> tuple[float, float]:
    """Processor seconds of this process for all images, and those of the port's thread."""
    tally = Tally(IMAGES)
    with worker_port(settings) as port:
        source = kafka_source(settings.kafka)
        port.knows_member(lambda: source.is_member)
        worker = make_worker(
            settings,
            model,
            source=source,
            root=settings.sink.root,
            dead_letters=NoDeadLetters(),
            observer=Observers(tally, port.observer),
            should_stop=tally.done,
            results_to=settings.results.topic_of(settings.kafka.topic) if settings.results.enabled else None,
            partitions=PARTITIONS,
        )
        with watching(port.url if watched else None):
            before, thread_before = processor_s(), thread_s()
            worker.run()
            return processor_s() - before, thread_s() - thread_before


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def thread_s() -> float:
    """Processor seconds of the port's thread so far; 0 without one."""
    ids = [thread.native_id for thread in threading.enumerate() if thread.name == "http"]
    return sum(int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0]) / 1e9 for number in ids)


@contextmanager
def watching(url: str | None) -> Iterator[None]:
    """Another process has the page open and scrapes."""
    if url is None:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", _WATCH, url, str(SCRAPE_S)]) as process:
        try:
            yield
        finally:
            process.kill()


def produce(bootstrap_servers: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    admin.create_topics([NewTopic("frames", PARTITIONS, 1)])
    admin.close()
    values = pictures()
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    for number in range(IMAGES):
        camera = number % CAMERAS
        producer.send(
            "frames", values[number % len(values)], key=b"camera-%03d" % camera, partition=camera % PARTITIONS
        )
    producer.flush()
    producer.close()


def many() -> None:
    """A scrape and the page of 1,000 cameras that were served for ten minutes."""
    for max_streams in (100, MANY):
        settings = Settings.model_validate({"http": {"port": 0, "max_streams": max_streams}})
        with worker_port(settings) as port:
            assert port.url is not None
            make_up(port.observer)
            urllib.request.urlopen(port.url + "metrics").read()
            times, size = [], 0
            for _ in range(20):
                began = time.perf_counter()
                size = len(urllib.request.urlopen(port.url + "metrics").read())
                times.append(time.perf_counter() - began)
            series = f"{max_streams} streams with series"
            print(f"{MANY} cameras, {series}: scrape {1e3 * median(times):.0f} ms, {size / 1e3:.0f} kB")
            if max_streams == 100:
                paint(port.url)


def make_up(observer: object) -> None:
    """Each camera is served once more, in an order of its own."""
    from adawise.live.observer import LiveObserver

    assert isinstance(observer, LiveObserver)
    observer.model_loaded([f"class {n}" for n in range(10)], {"fingerprint": "made-up"})
    rng, chance = np.random.default_rng(0), random.Random(0)
    put_s = 0.0
    for _ in range(20):
        batches = [a_batch(camera, rng) for camera in chance.sample(range(MANY), MANY)]
        began = time.thread_time()
        for batch in batches:
            observer.batch_predicted(*batch)
        put_s += time.thread_time() - began
        while observer.waiting > MANY:
            time.sleep(0.01)  # the port takes them up twice a second
    print(f"the worker's thread pays {1e6 * put_s / 20 / MANY:.1f} microseconds a batch of 32")


def a_batch(camera: int, rng: np.random.Generator) -> tuple[ImageBatch, Predictions, BatchTrace]:
    name, now_ms = f"camera-{camera:04d}", int(time.time() * 1e3)
    frames = tuple(Frame(RowId("frames", camera % 8, n, 0), now_ms - 400, name) for n in range(32))
    top = rng.integers(0, 10, (32, 5)).astype(np.int32)
    sure = rng.random((32, 5)).astype(np.float32)
    ends = rng.integers(0, 10, (2, 32)).astype(np.int32)
    trace = BatchTrace(
        topic="frames",
        partition=camera % 8,
        first_offset=0,
        last_offset=31,
        stream_id=name,
        batch_number=1,
        captured_at_us=None,
        kafka_timestamp_ms=now_ms,
        images=32,
        alpha=float(rng.integers(0, 21)) / 20,
        previous_alpha=None,
        trials=(),
        objective=0.0,
        posterior_mean=0.0,
        posterior_sd=0.0,
        trigger="none",
        reset=None,
        forward_equivalents=1.0,
        milliseconds={"forward": 40.0, "search": 1.0},
        predicted_at_us=1_000 * now_ms,
    )
    return ImageBatch(name, frames, torch.zeros(0)), Predictions(top, sure, sure[:, 0], ends, sure[:2]), trace


def paint(url: str) -> None:
    """First paint, and until rows are drawn, of the page in headless Chromium; median of five."""
    from playwright.sync_api import Error, sync_playwright

    first, drawn, longest = [], [], 0.0
    try:
        with sync_playwright() as playwright:
            found = next((p for p in map(_which, ("chromium", "google-chrome")) if p), None)
            chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            for _ in range(5):
                context = chromium.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                page.goto(url)
                page.wait_for_selector("html[data-drawn]")
                drawn.append(page.evaluate("performance.now()"))
                first.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                longest = max(longest, page.evaluate(_LONGEST))
                context.close()
            chromium.close()
    except Error as error:
        print(f"no browser: {str(error).splitlines()[0]}")
        return
    print(f"{MANY} cameras: first paint {median(first):.0f} ms, rows drawn {median(drawn):.0f} ms after the call")
    print(f"longest frame while it filters and scrolls: {longest:.0f} ms")


def _which(name: str) -> str | None:
    from shutil import which

    return which(name)


_LONGEST = """async () => {
  let longest = 0, last = performance.now(), on = true;
  const frame = (now) => { longest = Math.max(longest, now - last); last = now; if (on) requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  const field = document.getElementById("filter");
  for (const text of ["c", "ca", "camera-01", "camera-0", ""]) {
    field.value = text;
    field.dispatchEvent(new Event("input"));
    await new Promise((done) => setTimeout(done, 120));
  }
  for (let n = 0; n < 10; n += 1) {
    scrollBy(0, 900);
    await new Promise((done) => setTimeout(done, 60));
  }
  on = false;
  return longest;
}"""
