"""`adawise demo`: cameras, broker, worker and summary, end to end, on this machine and without a download.

Read `run` first. The worker is the one of `adawise run`; only its observer is the demo's. Modules that need torch are
imported when the cameras already draw.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from adawise.demo import brokers, report, script
from adawise.demo.live import Board, watching
from adawise.demo.producer import Cameras
from adawise.errors import SettingsError
from adawise.produce.sender import ensure_topic
from adawise.settings import Settings

if TYPE_CHECKING:
    from adawise.app.model import ModelPair

PAIR = Path(__file__).parent / "pair"
TOPIC = "frames"
AHEAD = 256
"""Images that the cameras may be ahead of the worker."""

FAILED = 1
_PICTURE = "alpha.png"


@dataclass(slots=True)
class Interruption:
    """The handler of SIGINT and SIGTERM: while `graceful`, the first signal only sets `requested`.

    Else KeyboardInterrupt.
    """

    graceful: bool = False
    requested: bool = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.graceful and not self.requested:
            self.requested = True
            return
        raise KeyboardInterrupt


def run(
    *,
    broker: Literal["embedded", "kafka"],
    scenes: str,
    seconds: float | None,
    images: int | None,
    output: Path | None,
    keep: bool,
    pair: Path = PAIR,
) -> int:
    """Run the demo and print its summary; return 1 if an image is not exactly once in the output, else 0.

    Args:
        broker: the kind to start.
        scenes: what the cameras see, a key of `script.CAMERAS_OF`.
        seconds: of camera time; None: no limit.
        images: of all cameras together; None: no limit. Without both limits, `script.IMAGES` of these scenes.
        output: folder to write, new or empty; None: a new one under `runs`.
        keep: leave the broker running until Ctrl-C.
        pair: folder with theta_0, theta_1, classes.txt and templates.txt.

    Raises:
        KeyboardInterrupt: stopped by a signal; classified images are written, broker and cameras have ended.
    """
    root = _output(output)
    cameras = script.scripts(script.images_of(seconds, images, scenes), scenes)
    with _interruptible() as interruption, brokers.broker(broker) as running:
        _print(f"{running.name} answers at {running.bootstrap_servers}; {len(cameras)} cameras start, the worker loads")
        settings = demo_settings(running.bootstrap_servers, root, pair)
        ensure_topic(
            bootstrap_servers=running.bootstrap_servers,
            client_id="demo",
            security={},
            topic=TOPIC,
            create=True,
            partitions=len(cameras),
            replication=1,
        )
        total = sum(camera.frames for camera in cameras)
        with Cameras(running.bootstrap_servers, TOPIC, total, scenes, AHEAD) as sending:
            model, board = _classify(settings, cameras, sending, running, interruption)
        if interruption.requested:
            _print(f"interrupted after {board.images} of {total} images; classified images are written to {root}")
            raise KeyboardInterrupt
        code = _conclude(settings, model, board, sending.acknowledged, root)
        if keep:
            _hold(interruption, running.bootstrap_servers)
    return code


def demo_settings(bootstrap_servers: str, root: Path, pair: Path = PAIR) -> Settings:
    """Return the settings of the demo's worker: those of `adawise run`, with shorter times because the run is short."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers, "topic": TOPIC, "group": "demo", "client_id": "demo"},
            "model": {
                **pair_settings(pair),
                "precision": "fp32",  # the same alphas on every processor
                "device": "cpu",
                "threads": 1,  # the other core draws; a tower this small does not profit from two
            },
            "batch": {"max_age_s": 5.0},
            "sink": {"root": str(root), "flush_age_s": 3.0},
        }
    )


def pair_settings(pair: Path = PAIR) -> dict[str, object]:
    """Return the settings of `model` that name the demo's pair."""
    return {
        "architecture": f"local-dir:{pair / 'theta_0'}",
        "theta_0": f"local-dir:{pair / 'theta_0'}",
        "theta_1": f"local-dir:{pair / 'theta_1'}",
        "classes": pair / "classes.txt",
        "templates": pair / "templates.txt",
    }


def _classify(
    settings: Settings,
    cameras: tuple[script.CameraScript, ...],
    sending: Cameras,
    running: brokers.Running,
    interruption: Interruption,
) -> tuple[ModelPair, Board]:
    """Run the worker until every frame is served and written, or until a signal."""
    from adawise.app.http import worker_port
    from adawise.app.worker import start_worker

    board = Board(cameras, lambda: sending.acknowledged, sending.served)
    with worker_port(settings) as port, watching(board, f"adawise demo, live at {port.url}") as draw:

        def should_stop() -> bool:
            draw()
            running.check()
            sending.check()
            return interruption.requested or (board.done and sending.complete)

        worker, model = start_worker(settings, port, board, should_stop)
        interruption.graceful = True
        worker.run()
        interruption.graceful = False
    return model, board


def _conclude(settings: Settings, model: ModelPair, board: Board, acknowledged: list[int], root: Path) -> int:
    """Check that the output is complete, compare with fixed alphas, draw the picture and print the summary."""
    from adawise.app.kafka import kafka_source
    from adawise.app.parts import open_decoder
    from adawise.demo.baselines import fixed_labels
    from adawise.output.read.rows import read_predictions
    from adawise.output.verify.root import verify
    from adawise.store.store import open_store

    store = open_store(str(root))
    rows = read_predictions(root, columns=report.COLUMNS).table()
    problems = [str(fault) for fault in verify(store, contiguous=True)]
    problems += report.missing(rows, board.cameras, acknowledged)
    _print("the same images at fixed alphas, to compare with")
    source = kafka_source(settings.kafka, group=False, origin="earliest")
    decoder = open_decoder(settings.decode, model.checkpoints.preprocess)
    try:
        fixed = fixed_labels(model, decoder, source, sum(acknowledged))
    finally:
        source.close()
    outcome = report.RunSummary(
        images_in=sum(acknowledged),
        rows_out=len(rows),
        problems=tuple(problems),
        seconds=board.seconds,
        forward_equivalents=board.forward_equivalents,
        objective=settings.search.objective,
        scores=tuple(report.scores(rows, fixed)),
    )
    (root / "summary.json").write_text(json.dumps(asdict(outcome), indent=2) + "\n", encoding="utf-8")
    paths = [progress.path for progress in board.progress]
    report.print_summary(outcome, board.cameras, paths, root, _drawn(root / _PICTURE, board, paths))
    return FAILED if problems else 0


def _drawn(path: Path, board: Board, paths: list[report.CameraPath]) -> Path | None:
    """Draw the picture and return its path; None if vl-convert is not installed."""
    if importlib.util.find_spec("vl_convert") is None:
        return None
    from adawise.demo.plot import draw

    draw(path, board.cameras, paths)
    return path


def _output(output: Path | None) -> Path:
    """Return the folder to write, created if absent.

    Raises:
        SettingsError: the folder is not empty.
    """
    root = output if output is not None else Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    root.mkdir(parents=True, exist_ok=True)
    if there := sorted(root.iterdir()):
        raise SettingsError(
            f"--output {root}: expected a new or an empty folder, found {there[0].name} in it: each demo has its "
            "own topic and cannot continue another one's output. Name another folder"
        )
    return root


def _hold(interruption: Interruption, bootstrap_servers: str) -> None:
    """Wait for Ctrl-C."""
    interruption.graceful = True
    print(f"\nThe broker keeps running at {bootstrap_servers} with the topic {TOPIC!r}; Ctrl-C ends it.", flush=True)
    never = threading.Event()
    while not interruption.requested:
        never.wait(0.2)


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    interruption = Interruption()
    before = {number: signal.signal(number, interruption) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
