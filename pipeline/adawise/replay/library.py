"""The library's functions over replays: a plan of shards, and a replay of a recording or of one of its shards.

They run the code of the command `replay`, with settings from a mapping or a file, and without the environment.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from adawise.app.model import ModelPair
    from adawise.settings import DecodeSettings, ModelSettings

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
    keep_pair: bool = False,
    progress: Callable[[float], object] | None = None,
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
        keep_pair: keep the pair loaded for the next call with the same `model.*` and `decode.*`.
        progress: called now and then with how much of the messages this call has done, from 0 to 1.

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
    request = ReplayRequest(chosen, os.fspath(output), os.fspath(recording), shard=shard)
    if not keep_pair:
        _KEPT.forget()
    with _quiet():
        return replay(
            request,
            shown=lambda total: nullcontext(_Reported(total, progress or (lambda _: None))),
            load=_KEPT.load if keep_pair else None,
        )


class _KeptPair:
    """The pair of the call before, for as long as it is the one that is asked for."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let go of the pair."""
        self._of: tuple[ModelSettings, DecodeSettings] | None = None
        self._pair: ModelPair | None = None

    def load(self, model: ModelSettings, decode: DecodeSettings) -> ModelPair:
        """Return the pair of these settings, and load it if it is another one."""
        from adawise.app.model import load_model

        if self._pair is None or self._of != (model, decode):
            self.forget()  # there may be no room for two
            self._pair = load_model(model, decode)
            self._of = (model, decode)
        return self._pair


_KEPT = _KeptPair()


class _Reported:
    """A progress that is reported as a part of the whole."""

    def __init__(self, total: int, report: Callable[[float], object]) -> None:
        self._done, self._total, self._report = 0, max(1, total), report

    def advance(self, count: int = 1) -> None:
        """Count, and report."""
        self._done += count
        self._report(min(1.0, self._done / self._total))

    def note(self, text: str) -> None:
        """Ignore the text."""


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
