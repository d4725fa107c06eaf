"""The command `bench`, which measures a pair on this machine and says what limits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command, json_flag
from adawise.settings import Settings
from adawise.settings.mistakes import NOT_SET
from adawise.settings.reading import Reading
from adawise.settings.requirements import NEEDED


class BenchCommand(Command):
    """Measure the pair on this machine, in about five minutes: images a second, and what limits them.

    In turns: open_clip's bare image tower at its best batch and number format; the worker, from an embedded broker to
    durable Parquet in a temporary folder; the loop that a user writes for zero-shot alone; the method taken literally,
    each batch from scratch. Images are drawn, and nothing is left behind but class embeddings in model.cache. Without a
    pair in the settings it measures the demo's small one. Needs the extra `broker` (pip install 'adawise[broker]').
    """

    name = "bench"
    groups = ("model", "search", "batch", "decode", "predict", "limits", "sink.flush_rows", "sink.flush_age_s", "log")
    examples = (
        ("measure the pair of adawise.toml", "bench"),
        ("take less time, with fewer turns, and print JSON", "bench --seconds 90 --json"),
        ("measure without a GPU", "bench --model.device cpu"),
    )

    as_json: CliToggleFlag[bool] = json_flag("print JSON: the machine, every figure with its spread, and the verdict")
    seconds: float = Field(
        default=270.0,
        gt=0,
        le=86_400,
        description="seconds that it may take; one turn is always made",
    )

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete. `sink` has no requirements."""
        del options
        return frozenset({"model", "search"})

    @classmethod
    @override
    def call_with_mistakes(cls, reading: Reading, options: Mapping[str, Any]) -> int | None:
        """Measure the demo's pair if no part of a pair is set, and nothing else is wrong."""
        missing = {mistake.name for mistake in reading.mistakes if mistake.origin == NOT_SET}
        if len(missing) != len(reading.mistakes) or missing != NEEDED.keys():
            return None
        from adawise.demo.main import pair_settings

        given = reading.settings.model
        model = given.model_validate({**given.model_dump(exclude_unset=True), **pair_settings()})
        settings = reading.settings.model_copy(update={"model": model})
        return _measure(settings, options.get("seconds", cls.model_fields["seconds"].default), "json" in options)

    @override
    def call(self) -> int:
        """Measure the pair of the settings."""
        return _measure(self.settings, self.seconds, self.as_json)


def _measure(settings: Settings, seconds: float, as_json: bool) -> int:
    from adawise.app.signals import stop_signals

    with stop_signals() as stop, stop.interrupts():
        from adawise.bench.figures import print_report
        from adawise.bench.measure import measure
        from adawise.console import print_json, progress

        with progress("measured", None, "turns") as shown:
            report = measure(settings, seconds=float(seconds), progress=shown)
        if as_json:
            print_json(report.document())
        else:
            print_report(report)
    return 0
