"""The library's functions over replays: a plan of shards, and a replay of a recording or of one of its shards.

They run the code of the command `replay`, with settings from a mapping or a file, and without the environment.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from adawise.errors import SettingsError
from adawise.replay.plan import PlanRequest, StoredPlan
from adawise.replay.plan import plan_replay as _plan_replay
from adawise.replay.replay import ReplayRequest, ReplayResult, replay
from adawise.settings.describe import SETTINGS
from adawise.settings.mistakes import nearest
from adawise.settings.reading import read
from adawise.settings.sources import Given, Origin
from adawise.settings.tree import REPLAY_GROUPS

Place = str | os.PathLike[str]


def plan_replay(
    recording: Place,
    output: Place,
    *,
    shards: int,
    from_time: datetime | None = None,
    until: datetime | None = None,
    streams: str | None = None,
    skip_forgotten: bool = False,
) -> StoredPlan:
    """Divide the cameras of a recording between shards by their cost, and write the plan. No image is read.

    The plan is created once: the same call returns it again, and one with other arguments is refused.

    Args:
        recording: the folder or URL of a recording.
        output: a new folder or URL for the plan and the output of the shards.
        shards: their number, at least 1 and at most that of the cameras.
        from_time: messages from this time on, by the broker's timestamps; None: all.
        until: messages before this time; None: all.
        streams: names of cameras, or patterns, separated by commas; None: all.
        skip_forgotten: leave out recorded messages whose images were removed.

    Returns:
        The plan: `plan.shards` has the messages and the cost of each shard, `plan.read_bytes` the bytes that it reads.

    Example:
        >>> stored = adawise.plan_replay("recordings/yard", "runs/planned", shards=2)
        >>> [shard.messages for shard in stored.plan.shards]
        [8, 8]

    Raises:
        SettingsError: the output holds something else, or there are fewer cameras than shards.
        SourceError: the recording cannot be read, or is not the one of the plan that is there.
        ChainError, StoreUnavailable: the output is damaged, or does not answer.
    """
    if shards < 1:
        raise SettingsError(f"shards: expected at least 1, got {shards}")
    request = PlanRequest(
        recording=os.fspath(recording),
        output=os.fspath(output),
        shards=shards,
        from_time=from_time,
        until=until,
        streams=streams,
        skip_forgotten=skip_forgotten,
    )
    return _plan_replay(request)


def replay_recording(
    recording: Place,
    output: Place,
    *,
    shard: int | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Place | None = None,
) -> ReplayResult:
    """Run the worker on a recording, or on one shard of a plan; a call that was stopped goes on where it was.

    All shards together have the rows and alphas that a replay of the whole has, bit for bit, on equal hardware.
    Warnings are written to the standard error output, unless structlog is configured.

    Args:
        recording: the folder or URL of a recording.
        output: a new folder or URL for the output; for a shard, that of the plan, in which it gets a root of its own.
        shard: the number of a shard of the plan, from 0; None: the whole recording.
        settings: settings by their full names, such as `search.strategy`; they override those of the file.
        config: file of settings; None: adawise.toml in the current folder, if there is one.

    Returns:
        What was served, and where it is (`output`).

    Example:
        >>> settings = {"model.theta_0": "local-dir:pair/theta_0", "model.theta_1": "local-dir:pair/theta_1"}
        >>> settings |= {"model.classes": "pair/classes.txt", "model.device": "cpu"}
        >>> stored = adawise.plan_replay("recordings/yard", "runs/planned", shards=2)
        >>> done = adawise.replay_recording("recordings/yard", "runs/planned", shard=1, settings=settings)
        >>> done.images, done.output
        (8, 'runs/planned/shard-00001')

    Raises:
        SettingsError: a setting is wrong, the output is of something else, or the shard does not fit to the others.
        SourceError: the recording cannot be read, or is not the one of the plan.
        ChainError, StoreUnavailable: the output is damaged, or does not answer.
        CheckpointError, CardError, DeviceError: as of `load_pair`.
    """
    given = settings or {}
    for name in given:
        if name not in SETTINGS:
            near = nearest(name, SETTINGS)
            raise SettingsError(
                f"settings: there is no setting {name!r}" + (f"; did you mean {near!r}?" if near else "")
            )
    origin = Origin("file", "replay_recording")
    chosen = read(
        [Given(name, value, origin) for name, value in given.items()],
        environ={},
        folder=Path.cwd(),
        config=None if config is None else os.fspath(config),
        uses=frozenset(REPLAY_GROUPS),
    ).checked()
    with _quiet():
        return replay(ReplayRequest(chosen, os.fspath(output), os.fspath(recording), shard=shard))


@contextmanager
def _quiet() -> Iterator[None]:
    """Write warnings to the standard error output, and nothing else, unless the program has configured structlog.

    By itself structlog would write every line to the standard output.
    """
    if structlog.is_configured():
        yield
        return
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
