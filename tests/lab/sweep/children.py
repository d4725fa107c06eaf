"""What runs in processes of its own: shards that do something else than a replay, and a sweep that is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from typing_extensions import override

from adawise.app.signals import StopRequest
from adawise.console import Lines
from adawise.replay.replay import ReplayRequest
from adawise_lab.sweep.run import SweepRequest, sweep


def run_shard(request: ReplayRequest, answer: Connection) -> None:
    """Note the start of a shard in a file named by its variant, and end as the name of its recording says."""
    with Path(request.output).open("a", encoding="utf-8") as log:
        log.write(f"{request.shard}\n")
    starts = len(Path(request.output).read_text(encoding="utf-8").split())
    if request.recording == "killed" or (request.recording == "killed once" and starts == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if request.recording == "ended once" and starts == 1:  # by SIGTERM, from somebody else
        answer.send(("stopped", ""))
    else:
        answer.send(("failed", "no such pair") if request.recording == "fails" else ("done", ""))


def sweep_until_killed(request: SweepRequest, shards: int) -> None:
    """Run a sweep, and kill this process once so many shards are done or failed; others may be running then."""

    class Killing(Lines):
        @override
        def advance(self, count: int = 1) -> None:
            super().advance(count)
            if self._done == shards:
                os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def shown(total: int) -> Iterator[Lines]:
        yield Killing("replayed", total, "shards", write=lambda _: None)

    sweep(request, stop=StopRequest(lambda: None), shown=shown)
