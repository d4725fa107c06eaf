"""Where the workers of a run write: a folder, or a bucket behind a proxy at which requests fail, some always, in an
outage all; and how everybody else reads it in peace.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tests.store.clouds import new_bucket, open_s3, s3_environment, s3_server, seaweedfs
from tests.store.faults import DONE, NOT_DONE, AtRandom, Fault, FaultyProxy, Request
from tests.worker.output import Output
from tools.chaos.actor import ANSWER_LOST, REFUSED

StoreName = Literal["folder", "s3", "seaweedfs"]
_EVERY, _WITHHELD = 40, 12  # one request of so many fails; of those so many are not answered at all
_PATIENCE = {"AWS_TIMEOUT": "2s", "AWS_CONNECT_TIMEOUT": "2s"}  # of the workers with a request


@dataclass(frozen=True)
class StorePlace:
    """A store.

    `root` as `sink.root` names it, with the environment of the workers, and that of those who are to be left in peace.
    While the file `outage` exists, the workers' store does as it says. `failed` counts what else became of requests.
    """

    root: str
    output: Output
    outage: Path
    workers: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    failed: Counter[Fault] = field(default_factory=Counter)


@contextmanager
def place(kind: StoreName, folder: Path, seed: int) -> Iterator[StorePlace]:
    """An empty store of this kind; what is a file of it lies in `folder`."""
    outage, name = folder / "outage", folder / "output"
    if kind == "folder":
        yield StorePlace(str(name), Output(name), outage)
        return
    server, bucket = (s3_server(), new_bucket()) if kind == "s3" else (seaweedfs().address, seaweedfs().new_bucket())
    url = f"s3://{bucket}/chaos"
    found = _RequestCount()
    with (
        FaultyProxy(server, ProxyWeather(seed, outage), seen=found) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        output = Output(name, open_s3(patch, server, url))
        workers = s3_environment(proxy.address) | _PATIENCE
        yield StorePlace(url, output, outage, workers, s3_environment(server), found.faults)


class ProxyWeather:
    """A script of the proxy: now and then a request fails; in an outage each does, in the way that the file says."""

    def __init__(self, seed: int, outage: Path) -> None:
        self._outage, self._rng = outage, random.Random(seed)
        self._otherwise = AtRandom(seed, every=_EVERY, withheld=_WITHHELD)

    def __call__(self, request: Request) -> Fault:
        try:
            output = self._outage.read_text()
        except FileNotFoundError:
            output = ""
        faults = {REFUSED: NOT_DONE, ANSWER_LOST: DONE}.get(output)  # its clients try again by themselves
        return self._otherwise(request) if faults is None else self._rng.choice(faults)


class _RequestCount(list[tuple[Request, Fault]]):
    """Takes the place of the proxy's list: a long run has more requests than memory should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: Counter[Fault] = Counter()

    def append(self, output: tuple[Request, Fault]) -> None:
        """Count it."""
        if output[1] is not Fault.NONE:
            self.faults[output[1]] += 1
