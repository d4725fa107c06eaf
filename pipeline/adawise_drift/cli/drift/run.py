"""The work of `adawise drift`: run the analysis, and write, print and send what it found.

The analysis is imported by the call, once the roots are known to be outputs: the import takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

from adawise.cli.command import separated
from adawise.console import paper, print_json, progress
from adawise.errors import SettingsError
from adawise.output.near import expect_outputs
from adawise.page import NEEDS as PAGE_NEEDS
from adawise.text import as_size
from adawise_drift.cli.drift.request import request_of

if TYPE_CHECKING:
    from adawise_drift.cli.drift.options import DriftCommand
    from adawise_drift.report import Report

FOUND = 3

_NEEDS = {"duckdb": "duckdb", "ruptures": "ruptures", "scipy": "scipy"}


def drift(options: DriftCommand) -> int:
    """Analyse, write the page and the figures, print a summary or JSON, and send alerts.

    Returns:
        3 if a camera is beyond a limit, else 0.

    Raises:
        SettingsError: no worker wrote there, nothing lies in that time, or a package is missing.
        CardError, SourceError, ChainError, StoreUnavailable: the card, the recording or the root cannot be read.
        AlertsNotSent: Alertmanager did not take the alerts. All else is done by then, but the baseline is not saved.
    """
    expect_outputs((*options.root, *(separated(options.against) or ())))
    _need(_NEEDS | (PAGE_NEEDS if options.output is not None or options.plots is not None else {}))
    from adawise_drift.analyse import analyse, save_baseline

    request = request_of(options)
    report = analyse(request, progress)
    if options.output is not None:
        from adawise_drift.page.write import write_page

        write_page(options.output, report)
    if options.plots is not None:
        from adawise_drift.page.plots import write_plots

        write_plots(options.plots, report)
    _print(report, options)
    if options.alertmanager is not None:
        from adawise_drift.alertmanager import alerts, send

        assert options.since is not None  # `problems` requires --since with --alertmanager
        now = datetime.now(UTC)
        send(options.alertmanager, alerts(report, min(options.until or now, now) - options.since, now))
    save_baseline(request, report)  # last: events whose alerts were not sent must stay unknown to the next run
    return FOUND if any(report.beyond.values()) else 0


def _need(packages: Mapping[str, str]) -> None:
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise SettingsError(f"drift needs {', '.join(missing)}; install them with: pip install 'adawise[report]'")


def _print(report: Report, options: DriftCommand) -> None:
    page = options.output
    if options.as_json:
        print_json({**report.as_json(), "page": None if page is None else str(page)})
        return
    from adawise_drift.show import show

    show(report, paper())
    if page is not None:
        print(f"page: {page} ({as_size(page.stat().st_size)})")
