"""Replay a recording in shards on a Ray cluster: docs/guide/machines.md.

    python replay.py RECORDING -o OUTPUT --plan N

An actor for each device keeps the pair loaded, and takes one shard after the other, the dearest first. What a lost
actor or node had begun goes on elsewhere after its last segment, and the same command goes on with all that is left.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import adawise
from adawise.console import progress
from adawise.errors import SettingsError

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130  # exit codes, as of the program
_WAIT_S = 1.0
_REPORTED = 0.005  # of a shard: what is reported at the least


class Board:
    """An actor that knows how much of each shard is done, for the one progress bar."""

    def __init__(self) -> None:
        self._parts: dict[int, float] = {}

    def report(self, shard: int, part: float) -> None:
        """Note how much of a shard is done, from 0 to 1; one that goes on elsewhere does not go back."""
        self._parts[shard] = max(part, self._parts.get(shard, 0.0))

    def parts(self) -> dict[int, float]:
        """Return how much of each shard is done."""
        return self._parts


class Replayer:
    """An actor that replays shards, each with the pair of the one before."""

    def __init__(self, recording: str, output: str, config: str, settings: Mapping[str, Any], board: Any) -> None:
        self._recording, self._output, self._settings, self._board = recording, output, settings, board
        self._file = tempfile.NamedTemporaryFile("w", suffix=".toml")  # noqa: SIM115  # for as long as the actor is
        self._file.write(config)
        self._file.flush()

    def begin(self) -> None:
        """Return once the actor has its place."""

    def replay(self, shard: int) -> int:
        """Replay a shard, or what is left of it, and return the number of images."""
        reported = 0.0

        def report(part: float) -> None:
            nonlocal reported
            if part - reported >= _REPORTED:
                reported = part
                self._board.report.remote(shard, part)

        return adawise.replay_recording(
            self._recording,
            self._output,
            shard=shard,
            settings=self._settings,
            config=self._file.name,
            keep_pair=True,
            progress=report,
        ).images


class Shards:
    """The shards that are left, the dearest first, and how often each has failed."""

    def __init__(self, costs: Sequence[float], retries: int) -> None:
        self._costs, self._retries = costs, retries
        self._failures: Counter[int] = Counter()
        self.left = sorted(range(len(costs)), key=lambda number: -costs[number])
        self.done: set[int] = set()
        self.given_up: dict[int, str] = {}

    def failed(self, shard: int, why: str) -> None:
        """Try a shard again, unless it has failed too often."""
        self._failures[shard] += 1
        if self._failures[shard] > self._retries:
            self.given_up[shard] = why
            return
        print(f"shard {shard} goes on elsewhere: {why}", file=sys.stderr)
        self.left = sorted([*self.left, shard], key=lambda number: -self._costs[number])


def replay(options: argparse.Namespace, stored: Any, config: str) -> int:
    """Replay all shards of a plan, and return the exit code.

    Raises:
        SettingsError: a setting is wrong, for every shard alike.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    planned = stored.plan.shards
    cluster = ray.cluster_resources()
    gpus = options.gpus if options.gpus is not None else float("GPU" in cluster)
    room = cluster.get("GPU", 0.0) / gpus if gpus else cluster.get("CPU", 0.0) / options.cpus
    count = min(len(planned), options.actors or max(1, int(room)))
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    given = (options.recording, options.output, config, _settings(config, gpus, options.cpus), board)
    kind = ray.remote(Replayer).options(
        num_cpus=options.cpus,
        num_gpus=gpus,
        resources={options.resource: 0.001} if options.resource else None,
        scheduling_strategy="SPREAD",
    )
    shards = Shards([each.cost for each in planned], options.retries)
    running: dict[Any, tuple[Any, int | None]] = {}  # what is waited for: the actor, and its shard if it has one

    def start() -> None:
        actor = kind.remote(*given)
        running[actor.begin.remote()] = actor, None

    for _ in range(count):
        start()
    images, shown = 0, 0
    with progress("replayed", sum(each.messages for each in planned), "messages") as bar:
        while shards.left or any(shard is not None for _, shard in running.values()):
            for finished in ray.wait([*running], timeout=_WAIT_S)[0]:
                actor, shard = running.pop(finished)
                try:
                    served = ray.get(finished)
                except RayActorError as error:  # it was killed, or its node was lost
                    if shard is not None:
                        shards.failed(shard, str(error).partition("\n")[0])
                    start()
                    continue
                except RayTaskError as error:
                    if isinstance(error.cause, SettingsError):
                        raise error.cause from None
                    if shard is None or not isinstance(error.cause, adawise.AdawiseError):
                        raise
                    shards.failed(shard, str(error.cause))
                else:
                    if shard is not None:
                        shards.done.add(shard)
                        images += served
                if shards.left:  # or else the actor ends here, and leaves its place to one for a shard that was lost
                    shard = shards.left.pop(0)
                    running[actor.replay.remote(shard)] = actor, shard
            parts = {**ray.get(board.parts.remote()), **dict.fromkeys(shards.done, 1.0)}
            at = int(sum(planned[shard].messages * part for shard, part in parts.items()))
            bar.advance(max(0, at - shown))
            shown = max(at, shown)
            at_work = sum(shard is not None for _, shard in running.values())
            bar.note(f"{len(shards.done)} of {len(planned)} shards, {at_work} at work")
    print(f"{images} images served by {len(shards.done)} of {len(planned)} shards: {options.output}")
    for shard, why in shards.given_up.items():
        print(f"shard {shard} failed {options.retries + 1} times, at last: {why}", file=sys.stderr)
    return _FAILED if shards.given_up else 0


def _settings(config: str, gpus: float, cpus: int) -> dict[str, Any]:
    """Return what follows from the device of an actor, where the file says nothing else."""
    groups = {name: each for name, each in tomllib.loads(config).items() if isinstance(each, dict)}
    found = {"model.device": "cuda" if gpus else "cpu", "model.threads": cpus, "decode.threads": cpus}
    in_file = {f"{group}.{name}" for group, values in groups.items() for name in values}
    return {name: value for name, value in found.items() if name not in in_file}


def _connect(address: str | None) -> None:
    """Connect to a cluster, or start one of this machine alone, of which every port is on loopback."""
    is_local = address is None and not os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or else Ray reports its use to its makers
    if is_local:  # on Linux Ray replaces 127.0.0.1 by the machine's own address, unless that is so when it is imported
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConnectionError(f"{error}; install it with: pip install 'adawise[ray]'") from error

    started = {"_node_ip_address": "127.0.0.1", "dashboard_host": "127.0.0.1"} if is_local else {}
    try:
        ray.init(address="local" if is_local else address, **started)
    except ray.exceptions.RayError as error:
        raise ConnectionError(f"Ray refused to connect: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the plan, and replay it."""
    parser = argparse.ArgumentParser(description="Replay a recording in shards on a Ray cluster.")
    parser.add_argument("recording", help="folder or URL of the recording, as all nodes reach it")
    parser.add_argument("-o", "--output", required=True, help="folder or URL for the plan and the shards, likewise")
    parser.add_argument("--plan", type=int, required=True, metavar="N", help="number of shards; some for each device")
    parser.add_argument("--config", default="adawise.toml", help="file of settings; it is sent to the nodes")
    parser.add_argument(
        "--address", help="of the cluster, or auto; none: RAY_ADDRESS, or else a new one here, on loopback"
    )
    parser.add_argument("--gpus", type=float, help="GPUs of an actor, such as .5; none: 1 where the cluster has any")
    parser.add_argument("--cpus", type=int, default=1, help="processor cores of an actor, which are its threads")
    parser.add_argument("--actors", type=int, help="their number; none: as many as the cluster has room for now")
    parser.add_argument("--resource", help="what nodes must have, such as accelerator_type:H100: bits need equal ones")
    parser.add_argument("--retries", type=int, default=3, help="how often a shard is begun again (default 3)")
    options = parser.parse_args(arguments)
    try:
        config = Path(options.config).read_text(encoding="utf-8")
        tomllib.loads(config)
    except (OSError, ValueError) as error:
        print(f"replay.py: --config {options.config}: expected a file of settings, but: {error}", file=sys.stderr)
        return _USAGE
    try:
        stored = adawise.plan_replay(options.recording, options.output, shards=options.plan)
        _connect(options.address)
        return replay(options, stored, config)
    except adawise.AdawiseError as error:
        print(f"replay.py: {error}", file=sys.stderr)
        return _USAGE if isinstance(error, SettingsError) else _FAILED
    except ConnectionError as error:
        print(f"replay.py: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("replay.py: stopped before the end; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
