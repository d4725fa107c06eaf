"""The tables and the verdict of the bench on the terminal."""

from __future__ import annotations

from rich.table import Table

from adawise.bench.figures import PARTS, STAGES, BenchReport, Spread
from adawise.console import paper
from adawise.text import NOTHING, counted

_STAGES = {
    "decoding": "a decode thread; its limit: Pillow's pixels alone",
    "writing": "commits; their limit: one Parquet file and one fsync",
    "search": "choosing alpha, within the worker's thread",
    "host": "the worker's thread beside forwards",
    "processor": "all threads together",
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
    for name in STAGES:
        limit = _text(report.spread(f"{name}_limit_ms"), ".2f")
        stages.add_row(name, _text(report.spread(f"{name}_ms"), ".2f"), limit, _STAGES[name])
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
