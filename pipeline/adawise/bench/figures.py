"""The figures of the bench over its turns, as the document that `--json` prints, and as tables on the terminal.

Figures are images a second (those of `PARTS`), milliseconds an image (`..._ms`), or a count an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table

from adawise.bench.verdict import ImageCost, Verdict, verdict
from adawise.console import paper
from adawise.text import NOTHING, counted

PARTS = ("forward", "worker", "plain", "naive")
STAGES = {
    "decoding": "a decode thread; its limit: Pillow's pixels alone",
    "writing": "commits; their limit: one Parquet file and one fsync",
    "search": "choosing alpha, within the worker's thread",
    "host": "the worker's thread beside forwards",
    "processor": "all threads together",
}
"""Name -> what it is."""
LIMITS = ("decoding", "writing")
"""The stages whose library alone is measured, too."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of a figure over the turns in which it was measured, with the lowest and the highest."""

    median: float
    low: float
    high: float
    turns: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the spread of values; None for no value."""
        found = sorted(values)
        return cls(median(found), found[0], found[-1], len(found)) if found else None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The figures of all turns.

    Attributes:
        machine: where it was measured and with what, as the document has it.
        turns: figures by name; only `naive` may be absent.
        seconds: how long it took.
    """

    machine: Mapping[str, Any]
    turns: Sequence[Mapping[str, float]]
    seconds: float

    def spread(self, name: str) -> Spread | None:
        """Return the spread of a figure; None if no turn has it."""
        return Spread.of(turn[name] for turn in self.turns if name in turn)

    @property
    def ratios(self) -> dict[str, Spread | None]:
        """The worker over each other part of the same turn; over `forward`, in forwards instead of images."""

        def over(part: str, of: Callable[[Mapping[str, float]], float]) -> Spread | None:
            return Spread.of(of(turn) / turn[part] for turn in self.turns if part in turn)

        found = {part: over(part, lambda turn: turn["worker"]) for part in ("plain", "naive")}
        return {"forward": over("forward", lambda turn: turn["worker"] * turn["forward_cost"]), **found}

    @property
    def verdict(self) -> Verdict:
        """The verdict, by medians."""
        middle = {name: median(turn[name] for turn in self.turns) for name in self.turns[0] if name != "naive"}
        of_bare = self.ratios["forward"]
        assert of_bare is not None, "each turn has forwards"

        def part_s(name: str) -> float:
            # By shares of the same turn: where turns differ much, medians of milliseconds exceed the whole.
            return median(turn[f"{name}_ms"] * turn["worker"] / 1e3 for turn in self.turns) / middle["worker"]

        return verdict(
            ImageCost(
                whole_s=1.0 / middle["worker"],
                slowest_s=1.0 / min(turn["worker"] for turn in self.turns),
                forwards_s=part_s("forwards"),
                host_s=part_s("host"),
                writing_s=part_s("writing"),
                decode_s=middle["decoding_ms"] / 1e3,
                processor_s=middle["processor_ms"] / 1e3,
                forward_cost=middle["forward_cost"],
                of_bare=of_bare.median,
                threads=self.machine["decode_threads"],
                cores=self.machine["cores"],
                on_card=self.machine["device"] != "cpu",
            )
        )

    def document(self) -> dict[str, Any]:
        """Return the document."""

        def table(spread: Spread | None) -> dict[str, Any] | None:
            return None if spread is None else asdict(spread)

        return {
            "machine": dict(self.machine),
            "seconds": self.seconds,
            "images_per_s": {name: table(self.spread(name)) for name in PARTS},
            "worker_over": {name: table(spread) for name, spread in self.ratios.items()},
            "forward_equivalents": table(self.spread("forward_equivalents")),
            "forward_cost": table(self.spread("forward_cost")),
            "ms_per_image": {name: table(self.spread(f"{name}_ms")) for name in ("forwards", *STAGES)},
            "limit_ms_per_image": {name: table(self.spread(f"{name}_limit_ms")) for name in LIMITS},
            "verdict": asdict(self.verdict),
        }


def print_report(report: BenchReport) -> None:
    """Print the machine, images a second, milliseconds an image by stage, and the verdict."""
    machine, console = report.machine, paper()
    console.soft_wrap = True
    own = f"{machine['forward_precision']}, {machine['forward_rows']} images"
    parts = {
        "forward": f"open_clip's image tower alone, {own}",
        "worker": f"broker to durable Parquet, {machine['precision']}",
        "plain": f"Pillow and open_clip, zero-shot, {machine['forward_precision']}",
        "naive": f"left out: {why}" if (why := machine["naive_left_out"]) else "each batch from scratch, fp32",
    }
    rates = _table("part", "images/s", "worker/part", "what")
    for name in PARTS:
        ratio = "" if name == "worker" else _text(report.ratios[name], ".2f")
        rates.add_row(name, _text(report.spread(name)), ratio, parts[name])
    stages = _table("stage", "ms an image", "limit", "what")
    for name, what in STAGES.items():
        limit = _text(report.spread(f"{name}_limit_ms"), ".2f")
        stages.add_row(name, _text(report.spread(f"{name}_ms"), ".2f"), limit, what)
    console.print(
        f"{machine['processor']}, {counted(machine['cores'], 'core')}, {machine['device']}, torch {machine['torch']}; "
        f"load {machine['load']:.1f}; {counted(len(report.turns), 'turn')} in {report.seconds:.0f} s\n"
        f"theta_0 {machine['theta_0']}, theta_1 {machine['theta_1']}\n"
        f"FE {_text(report.spread('forward_equivalents'), '.2f')}; {machine['shared_layers']}\n"
    )
    for table in (rates, stages):
        console.print(table)
        console.print()
    console.print(report.verdict.text)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number in {1, 2} else "left")
    return table


def _text(spread: Spread | None, form: str = "") -> str:
    """Return the text of a spread, with four significant digits unless `form` says otherwise."""
    if spread is None:
        return NOTHING
    # Without a form of its own, 12,345 would be written as 1.234e+04.
    form = form or (",.0f" if spread.high >= 1_000 else ".4g")
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
