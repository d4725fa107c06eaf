"""The curve of a run, told to TensorBoard and MLflow as well, where they are asked for and installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TypeVar

import structlog

from adawise.errors import SettingsError
from adawise.finetune.folder import Folder
from adawise.finetune.run import Epoch, FinetuneRun
from adawise.settings import FinetuneSettings

T = TypeVar("T")
TellRow = Callable[[Epoch], object]
Close = Callable[[], object]
_MOST_LETTERS = 500  # of a parameter's value, as MLflow's oldest servers have it

_log = structlog.get_logger("finetune")


def check_trackers(settings: FinetuneSettings) -> None:
    """Raises SettingsError: one that is asked for is not installed."""
    for extra, module, wanted in (
        ("tensorboard", "tensorboardX", settings.tensorboard),
        ("mlflow", "mlflow", settings.mlflow),
    ):
        if wanted and find_spec(module) is None:
            raise SettingsError(
                f"finetune.{extra} needs {module}; install it with: pip install 'adawise[{extra}]', or leave it out."
            )


@contextmanager
def trackers(settings: FinetuneSettings, folder: Folder, run: FinetuneRun) -> Iterator[TellRow]:
    """What tells a row of the curve to each that is asked for; those so far are told at once."""
    asked = [("tensorboard", settings.tensorboard, _tensorboard), ("mlflow", settings.mlflow, _mlflow)]
    each = [_Tracker(name, partial(opening, folder, run)) for name, is_asked, opening in asked if is_asked]

    def tell(row: Epoch) -> None:
        for tracker in each:
            tracker.tell(row)

    for row in run.progress.curve:
        tell(row)
    try:
        yield tell
    finally:
        for tracker in each:
            tracker.close()


class _Tracker:
    """One that fails is told of in a warning and left out from then on: no run waits for it, or ends with it."""

    def __init__(self, name: str, opening: Callable[[], tuple[TellRow, Close]]) -> None:
        self._name = name
        self._open: tuple[TellRow, Close] | None = self._attempt(opening)

    def tell(self, row: Epoch) -> None:
        if self._open is not None:
            tell, close = self._open
            self._open = self._attempt(lambda: (tell(row), (tell, close))[1])

    def close(self) -> None:
        if self._open is not None:
            self._attempt(self._open[1])

    def _attempt(self, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except Exception as error:  # noqa: BLE001  their clients promise no closed set
            _log.warning("tracking_failed", tracker=self._name, error=str(error)[:_MOST_LETTERS])
            return None


def _tensorboard(folder: Folder, _run: FinetuneRun) -> tuple[TellRow, Close]:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder.events), purge_step=0)  # in place of what a run that was stopped told

    def tell(row: Epoch) -> None:
        for name, value in _values(row).items():
            writer.add_scalar(name, value, row.epoch)
        writer.flush()

    return tell, writer.close


def _mlflow(folder: Folder, run: FinetuneRun) -> tuple[TellRow, Close]:
    """Where the environment says (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME), which has the passwords as well."""
    import mlflow

    mlflow.start_run(run_name=folder.path.resolve().name)
    mlflow.log_params({name: value[:_MOST_LETTERS] for name, value in run.settings.items()})
    return lambda row: mlflow.log_metrics(_values(row), step=row.epoch), mlflow.end_run


def _values(row: Epoch) -> dict[str, float]:
    return {name: value for name, value in row.as_row().items() if name != "epoch" and value is not None}
