"""The reports of a run's curve to TensorBoard and MLflow, where they are asked for and installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import structlog

from adawise.errors import SettingsError
from adawise.settings import FinetuneSettings
from adawise_lab.finetune.folder import Folder
from adawise_lab.finetune.train import Epoch, FinetuneRun

WriteRow = Callable[[Epoch], object]
Close = Callable[[], object]
_SERVER = "MLFLOW_TRACKING_URI"
# By default it waits for minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_MOST_CHARACTERS = 500  # characters of a parameter's value that MLflow's oldest servers accept

_log = structlog.get_logger("finetune")


def check_trackers(settings: FinetuneSettings) -> None:
    """Check that the trackers that are asked for can be used.

    Raises:
        SettingsError: one is not installed, or the address of MLflow's server is not set.
    """
    for extra, module, wanted in (
        ("tensorboard", "tensorboardX", settings.tensorboard),
        ("mlflow", "mlflow", settings.mlflow),
    ):
        if wanted and find_spec(module) is None:
            raise SettingsError(
                f"finetune.{extra} needs {module}; install it with: pip install 'adawise[{extra}]', or leave it out."
            )
    if settings.mlflow and not os.environ.get(_SERVER):
        raise SettingsError(f"finetune.mlflow: {_SERVER} is not set. Set it to the server's address, or leave it out.")


@contextmanager
def trackers(settings: FinetuneSettings, folder: Folder, run: FinetuneRun) -> Iterator[WriteRow]:
    """Yield a function that reports a row of the curve to each tracker. The rows so far are reported at once."""
    options = [("tensorboard", settings.tensorboard, _tensorboard), ("mlflow", settings.mlflow, _mlflow)]
    each = [_Tracker(name, partial(opening, folder, run)) for name, is_wanted, opening in options if is_wanted]

    def write(row: Epoch) -> None:
        for tracker in each:
            tracker.write(row)

    for row in run.progress.curve:
        write(row)
    try:
        yield write
    finally:
        for tracker in each:
            tracker.close()


class _Tracker:
    """A tracker that ends no run: a failure is logged as a warning.

    Rows that could not be reported are tried again with the next row.
    """

    def __init__(self, name: str, opening: Callable[[], tuple[WriteRow, Close]]) -> None:
        self._name, self._opening = name, opening
        self._open: tuple[WriteRow, Close] | None = None
        self._pending: list[Epoch] = []

    def write(self, row: Epoch) -> None:
        self._pending.append(row)
        with self._warning():
            self._open = self._open or self._opening()
            while self._pending:
                self._open[0](self._pending[0])
                del self._pending[0]

    def close(self) -> None:
        if self._open is not None:
            with self._warning():
                self._open[1]()

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # the clients of the trackers document no closed set of errors
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            _log.warning("tracking_failed", tracker=self._name, error=first[:_MOST_CHARACTERS])


def _tensorboard(folder: Folder, _run: FinetuneRun) -> tuple[WriteRow, Close]:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder.events), purge_step=0)  # replaces what an interrupted run reported

    def write(row: Epoch) -> None:
        for name, value in _values(row).items():
            writer.add_scalar(name, value, row.epoch)
        writer.flush()

    return write, writer.close


def _mlflow(folder: Folder, run: FinetuneRun) -> tuple[WriteRow, Close]:
    """Start a run where the environment says (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME).

    The environment has the passwords as well.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow

    mlflow.start_run(run_name=folder.path.resolve().name)
    mlflow.log_params({name: value[:_MOST_CHARACTERS] for name, value in run.settings.items()})
    return lambda row: mlflow.log_metrics(_values(row), step=row.epoch), mlflow.end_run


def _values(row: Epoch) -> dict[str, float]:
    return {name: value for name, value in row.as_row().items() if name != "epoch" and value is not None}
