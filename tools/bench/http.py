"""What the HTTP port costs a worker, and what 1,000 cameras cost the port.

The demo's pair, then ViT-B/32 with random weights, serve the same pictures of 100 cameras, from memory, again and
again, in turns: without a port; with one that nobody asks; with the page open and a scrape every 5 s, by another
process; and with results sent early besides, to an embedded broker. What is told is processor time an image of the
worker's process, all of its threads, against the first of the same turn. A busy machine makes that a noisy difference.
So the thread of the port is timed by its own clock too, and so is what the worker's thread does for it. `BENCH_TURNS`
is how many turns (10).

Then 1,000 cameras are made up: the time and size of a scrape, and first paint in headless Chromium, if there is one.
The longest frame is told by the clock, and as the processor time of the longest task of the page's main thread.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from adawise.app.http import worker_port
from adawise.app.model import load_model
from adawise.app.worker import WorkerParts, make_worker
from adawise.bench.worker import Tally, jpegs
from adawise.demo.main import demo_settings
from adawise.kafka.embedded import EmbeddedBroker
from adawise.records import BatchTrace, Frame, ImageBatch, Message, Predictions, RowId
from adawise.settings import Settings
from adawise.worker.events import BatchServed, ModelLoaded, Observers
from tools.bench.paired import Spent, in_turns, is_interrupted, serve, text, until_interrupted
from tools.bench.worker import write_pair

CAMERAS, PARTITIONS = 100, 4
TURNS = int(os.environ.get("BENCH_TURNS", "10"))
MODES = ("off", "on", "watched", "with results")
VIT = "ViT-B/32"
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
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    cost("the demo's pair", 1_600, MODES)
    if not is_interrupted():
        cost(VIT, 320, ("off", "with results"))
    with until_interrupted():
        if not is_interrupted():
            many()
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def cost(pair: str, images: int, modes: Sequence[str]) -> None:
    """Processor milliseconds an image by this pair in each mode, and the difference within the turns."""
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        own: dict[str, object] = {}
        if pair == VIT:
            write_pair(folder := Path(name))
            theta_0, theta_1 = (str(folder / f"theta_{number}.safetensors") for number in (0, 1))
            own = {"theta_0": theta_0, "theta_1": theta_1, "classes": str(folder / "classes.txt")}
        settings = settings_of("off", broker.bootstrap_servers, Path(name), own)
        model = load_model(settings.model, settings.decode)
        values = jpegs()
        messages = [
            Message(
                "frames",
                n % PARTITIONS,
                n // PARTITIONS,
                b"camera-%03d" % (n % CAMERAS),
                values[n % len(values)],
                (),
                n,
            )
            for n in range(images)
        ]
        lives = iter(range(1_000_000))

        def spent(mode: str) -> Spent:
            """By a worker of its own."""
            root = Path(name) / str(next(lives))
            chosen = settings_of(mode, broker.bootstrap_servers, root, own)
            with worker_port(chosen) as port, watching(port.url if mode not in {"off", "on"} else None):
                return serve(
                    lambda settings, **parts: make_worker(settings, model, WorkerParts(**parts)),
                    chosen,
                    messages,
                    root=root,
                    observer=Observers(Tally(images), port.observer),
                    partitions=PARTITIONS,
                    results_to="frames.results" if chosen.results.enabled else None,
                )

        spent("off")  # heads are encoded, weights merged
        found = in_turns({mode: partial(spent, mode) for mode in modes}, TURNS)
    off = found["off"]
    print(f"{pair}: processor time an image without a port: {text([1e3 * each.whole for each in off], '.3f')} ms")
    for mode in modes[1:]:
        more = [100 * (each.whole / without.whole - 1) for each, without in zip(found[mode], off, strict=True)]
        port = [100 * each.port / each.whole for each in found[mode]]
        results = [100 * each.results / each.whole for each in found[mode]]
        print(
            f"  {mode:13s} {text(more, '+.1f')} % more; the port's thread has {text(port, '.2f')} %, "
            f"threads that tell results {text(results, '.1f')} %",
            flush=True,
        )


def settings_of(mode: str, bootstrap_servers: str, root: Path, pair: dict[str, object]) -> Settings:
    """The demo's, by this pair if it is any."""
    settings = demo_settings(bootstrap_servers, root)
    changed = settings.model_dump(mode="json", exclude_unset=True)
    changed["http"] = {"enabled": mode != "off", "port": 0}
    changed["results"] = {"enabled": mode == "with results"}
    if pair:
        changed["model"] = pair
    return Settings.model_validate(changed)


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
    from adawise.watch.observer import LiveObserver

    assert isinstance(observer, LiveObserver)
    observer.observe(ModelLoaded([f"class {n}" for n in range(10)], {"fingerprint": "made-up"}))
    rng, chance = np.random.default_rng(0), random.Random(0)
    put_s = 0.0
    for _ in range(20):
        batches = [a_batch(camera, rng) for camera in chance.sample(range(MANY), MANY)]
        began = time.thread_time()
        for batch in batches:
            observer.observe(batch)
        put_s += time.thread_time() - began
        while observer.waiting > MANY:
            time.sleep(0.01)  # the port takes them up twice a second
    print(f"the worker's thread pays {1e6 * put_s / 20 / MANY:.1f} microseconds a batch of 32")


def a_batch(camera: int, rng: np.random.Generator) -> BatchServed:
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
    predictions = Predictions(top, sure, sure[:, 0], ends, sure[:2])
    return BatchServed(trace, predictions, [now_ms] * 32, ImageBatch(name, frames, torch.zeros(0)))


def paint(url: str) -> None:
    """First paint, and until rows are drawn, of the page in headless Chromium; median of five."""
    from playwright.sync_api import Error, sync_playwright

    first, drawn, longest, tasks = [], [], [], []
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
                chromium.start_tracing(page=page, categories=["toplevel"])
                longest.append(page.evaluate(_LONGEST))
                tasks.append(longest_task_ms(json.loads(chromium.stop_tracing())["traceEvents"]))
                context.close()
            chromium.close()
    except Error as error:
        print(f"no browser: {str(error).splitlines()[0]}")
        return
    print(f"{MANY} cameras: first paint {text(first, '.0f')} ms, rows drawn {text(drawn, '.0f')} ms after the call")
    print(
        f"while it filters and scrolls: longest frame {text(longest, '.0f')} ms; "
        f"longest task {text(tasks, '.0f')} ms of processor"
    )


def longest_task_ms(events: list[dict[str, object]]) -> float:
    """Of the page's main thread, by its own clock."""
    main = {
        event["tid"] for event in events if event["name"] == "thread_name" and "CrRendererMain" in str(event["args"])
    }
    return max(
        (float(str(event["tdur"])) / 1e3 for event in events if event["tid"] in main and event.get("tdur")), default=0.0
    )


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
