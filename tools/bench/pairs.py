"""Another pair beside the one that serves: what loading, shadow and switch cost, and what two pairs take.

A worker on 640 x 480 JPEGs of 8 cameras. A second pair is staged with a shadow on every batch, then switched to, and
switched back. BENCH_PAIR is `vit` (ViT-B-32, random weights by seed) or `demo`; BENCH_IMAGES says how many images.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file, save_file
from typing_extensions import override

from adawise.app.kafka import kafka_source
from adawise.app.machine import resident_bytes
from adawise.app.model import load_model
from adawise.app.pairs import begin_orders, document_of, live_pairs, starting_pair
from adawise.app.prompts import prompt_templates
from adawise.app.worker import WorkerParts, make_worker
from adawise.bench.worker import Tally
from adawise.kafka.embedded import EmbeddedBroker
from adawise.pairs.live import LivePairs
from adawise.pairs.orders import Orders, give_order, read_orders
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.records import BatchTrace
from adawise.settings import BatchSettings, KafkaSettings, ModelSettings, PairsSettings, Settings, SinkSettings
from adawise.store.store import Store, open_store
from adawise.worker.events import BatchServed, Event, PairServes
from tools.bench.worker import IMAGES, produce, write_pair

DEMO = Path(__file__).parents[2] / "pipeline" / "adawise" / "demo" / "pair"


class SwitchTally(Tally):
    """Which batch was served when and by which pair, and when partitions were switched."""

    def __init__(self, images: int) -> None:
        super().__init__(images)
        self.served: list[tuple[float, BatchTrace]] = []
        self.switches: list[tuple[float, str]] = []

    @override
    def observe(self, event: Event) -> None:
        super().observe(event)
        match event:
            case BatchServed():
                self.served.append((time.perf_counter(), event.trace))
            case PairServes() if event.switch is not None:
                self.switches.append((time.perf_counter(), event.by.pair))
            case _:
                pass


def main() -> None:
    """Print seconds and MiB of a load, milliseconds of a switch and of a look, and what the shadow cost."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder = Path(name)
        settings, other = _settings(folder, broker.bootstrap_servers)
        produce(broker.bootstrap_servers)
        second = load_model(other.model, other.decode)
        document = document_of(other, second, prompt_templates(other.model))
        del second
        begun = resident_bytes()
        start = starting_pair(settings, Orders())
        alone = resident_bytes() - begun
        tally, made = SwitchTally(IMAGES), list[LivePairs]()

        def pairs(store: Store, started: str) -> LivePairs:
            made.append(live_pairs(settings, start, store, begin_orders(store, start), started))
            return made[0]

        store, requests, seen = open_store(settings.sink.root), list[str](), list[tuple[int, int, float]]()

        def request() -> bool:
            done = sum(trace.images for trace in tally.traces) / IMAGES
            states = {number: state for number, (state, _) in made[0].progress().states.items()} if made else {}
            orders = read_orders(store) if made else Orders()
            if made and (run := made[0]._shadow) is not None:
                seen.append((run.images, run.late, run.seconds))
            if made and "stage" not in requests:
                requests.append("stage")
                give_order(store, orders, "stage", pair=document, by="bench", shadow=IMAGES)
            if done > 0.5 and "switch" not in requests and states.get("1") == "ready":
                requests.append("switch")
                give_order(store, orders, "switch", pair=1, by="bench")
            if done > 0.8 and "back" not in requests and "switch" in requests:
                requests.append("back")
                give_order(store, orders, "switch", pair=0, by="bench")
            return tally.done()

        worker = make_worker(
            settings,
            start.model,
            WorkerParts(
                source=kafka_source(settings.kafka),
                root=settings.sink.root,
                dead_letters=NoDeadLetters(),
                observer=tally,
                should_stop=request,
                pairs=pairs,
            ),
        )
        took: list[float] = []
        switch = worker._switch

        def timed(*given: object, **named: object) -> bool:
            began = time.perf_counter()
            did: bool = switch(*given, **named)  # type: ignore[arg-type]
            if did:
                took.append(time.perf_counter() - began)
            return did

        worker._switch = timed  # type: ignore[method-assign]
        worker.run()
        report, shadow = made[0]._pairs_report(), seen
        batch = median(sum(trace.milliseconds.values()) for _, trace in tally.served)
        after = [
            sum(next(trace for at, trace in tally.served if at > when).milliseconds.values())
            for when, _ in tally.switches
        ]
        learned = []
        for _ in range(50):
            began = time.perf_counter()
            read_orders(store, read_orders(store))
            learned.append(time.perf_counter() - began)
        print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
        print(f"a pair alone {alone / 2**20:.0f} MiB; beside it:")
        for pair, load in report.loads.items():
            print(f"  {pair}: loaded in {load.seconds:.1f} s, {load.bytes / 2**20:.0f} MiB more")
        print(f"a batch {batch:.1f} ms (median of {len(tally.served)})")
        print(f"switches of partitions: {', '.join(f'{1e3 * s:.2f}' for s in took)} ms")
        print(f"the first batch after each: {', '.join(f'{ms:.1f}' for ms in after)} ms")
        print(f"a look at the orders of a folder: {1e3 * median(learned) / 2:.2f} ms")
        images, late, seconds = max(shadow, default=(0, 0, 0.0))
        per_image = f", {1e3 * seconds / images:.1f} ms an image" if images else ""
        print(f"shadow until the first switch: {images} images, {late} batches too late{per_image}")


def _settings(folder: Path, broker: str) -> tuple[Settings, Settings]:
    kafka = KafkaSettings(bootstrap_servers=broker, session_timeout_ms=6000)
    if os.environ.get("BENCH_PAIR", "vit") == "demo":
        for end in ("theta_0", "theta_1"):
            shutil.copytree(DEMO / end, folder / end)
            shutil.copytree(DEMO / end, folder / f"other_{end}")
        _move(folder / "other_theta_1" / "open_clip_model.safetensors")
        shutil.copy(DEMO / "classes.txt", folder / "classes.txt")
        named, ends = "local-dir:{}", ("theta_0", "theta_1", "other_theta_1")
    else:
        write_pair(folder)
        shutil.copy(folder / "theta_1.safetensors", folder / "other_theta_1.safetensors")
        _move(folder / "other_theta_1.safetensors")
        named, ends = "{}.safetensors", ("theta_0", "theta_1", "other_theta_1")
    zero, one, other = (named.format(folder / end) for end in ends)
    architecture = zero if zero.startswith("local-dir:") else "ViT-B-32"
    model = ModelSettings(architecture=architecture, theta_0=zero, theta_1=one, classes=folder / "classes.txt")
    settings = Settings(
        kafka=kafka,
        model=model,
        batch=BatchSettings(max_age_s=0.5),
        pairs=PairsSettings(look_s=0.5),
        sink=SinkSettings(root=str(folder / "output"), flush_age_s=3.0),
    )
    return settings, settings.model_copy(update={"model": model.model_copy(update={"theta_1": other})})


def _move(path: Path) -> None:
    """Another pair: the same weights, a little further on."""
    state = {name: value * 1.001 if value.is_floating_point() else value for name, value in load_file(path).items()}
    save_file(state, path)


if __name__ == "__main__":
    main()
