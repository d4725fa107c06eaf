"""Both pairs in one table: is what is served by default at least as good as the better endpoint, on either of them?

    python -m tools.method.pairs [--real DATA] [--domains val_clean,val_mix] [--seeds 5] [--json]

The real pair's test domains (`DATA/logits`, all but val*), and the demo's validation and test cameras. `warm (auto)`
takes the objective that a card recommends: of the real pair one made of `val_mix`, of the demo one made of clear days
of its validation cameras and judged by their other conditions. Neither defaults nor cards were chosen on test domains.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from adawise.adapt.objective import DEFAULT
from adawise.adapt.strategies.warm import Exploration
from adawise.app.machine import usable_cores
from adawise.card.advice import AUTO, OWN, chosen, evaluate_conditions
from adawise.card.card import Card, Condition, make_card
from adawise.console import Progress, print_json, progress
from adawise_lab.evaluate import references as ref
from adawise_lab.evaluate.assessment import assess as result_of
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import parse
from adawise_lab.evaluate.result import Row
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.tables import LogitTable, read_table, read_tables
from tools.demo_pair import table as demo
from tools.method.choose import demo_tables
from tools.method.development import DATA

KINDS, ORDERS = ("long", "short"), ("iid", "runs")
CALIBRATED_ON = "val_mix"
CLEAR = "clear"
ENTROPY = "entropy"  # the paper's words
GRID, WARM, WARM_ENTROPY, WARM_AUTO = "grid", "warm", "warm (entropy)", "warm (auto)"
GROUPS = {  # kinds of domain by what theta_1 saw of them
    **{"id": "known classes", "base": "known classes", "val": "known classes"},
    **{"new": "new classes", "pacs": "other styles"},
    **dict.fromkeys(("clear", "dirty", "motion", "sensor", "low"), "camera faults that theta_1 saw"),
    **dict.fromkeys(("dusk", "night", "fog", "rain", "glare"), "light and weather that it did not"),
}
COLUMNS = {
    ref.ZERO_SHOT: "zero-shot",
    ref.FINE_TUNED: "fine-tuned",
    ref.MIDDLE: ".5",
    ref.BEST_FIXED: "best fixed",
    ref.DOMAIN_ORACLE: "oracle",
    ref.SPLIT_HALF_ORACLE: "split-half",
    GRID: "grid",
    WARM_ENTROPY: WARM_ENTROPY,
    WARM_AUTO: WARM_AUTO,
}


@dataclass(frozen=True)
class PairBlock:
    """Domains of one pair, and the card of the pair."""

    name: str
    tables: tuple[LogitTable, ...]
    card: Card


@dataclass(frozen=True)
class PairServed:
    """Accuracy, mean over domains, at so many forwards an image; by group of domains as well."""

    accuracy: float
    fe: float
    groups: Mapping[str, float]


@dataclass(frozen=True)
class PairLine:
    """A block on one kind and order of streams. `served` has the keys of `COLUMNS`; `objective` is that of `auto`.

    `over_endpoint` is what `warm (auto)` serves less the better endpoint; `worst_domain_gap` the same on the domain
    where it is least.
    """

    block: str
    stream: str
    order: str
    objective: str
    best_fixed_alpha: float
    served: Mapping[str, PairServed]
    over_endpoint: float
    worst_domain: str
    worst_domain_gap: float


def blocks(real: Path | None, domains: Sequence[str] | None) -> Iterator[PairBlock]:
    """The real pair, unless its tables are not here, and the demo's pair twice."""
    if real is not None:
        logits = real / "logits"
        yield PairBlock("real", read_tables(logits, domains), card_of(read_table(logits / f"{CALIBRATED_ON}.npz"), ()))
    validation = demo_tables()
    (clear,) = (table for table in validation if table.name == CLEAR)
    card = card_of(clear, [table for table in validation if table is not clear])
    yield PairBlock("demo, validation cameras", validation, card)
    yield PairBlock("demo, test cameras", demo_tables(demo.TEST_SEED, demo.TESTED), card)


def card_of(own: LogitTable, shifted: Sequence[LogitTable]) -> Card:
    """What `adawise card make` would make of the images of `own` and those of `shifted`."""
    home, others = condition(own, OWN), [condition(table, table.name) for table in shifted]
    identity = {"table": own.name}
    card = make_card(home.logits, home.labels, others, alphas=own.alphas, identity=identity, created_at="")
    return replace(card, judged=evaluate_conditions(home, others, card))


def condition(table: LogitTable, name: str) -> Condition:
    """A table as cards are made of."""
    logits = torch.from_numpy(table.logits).float()
    return Condition(name, logits.__getitem__, torch.from_numpy(table.labels))


def measured(block: PairBlock, *, seeds: int, processes: int, bar: Progress) -> Iterator[PairLine]:
    """The block on each kind and order of streams."""
    objective = chosen(AUTO, block.card)
    text = f"{GRID},{WARM}" + (f",{WARM}@{objective}" if objective != DEFAULT else "") + f",{WARM}@{ENTROPY}"
    candidates = parse(text, objective=DEFAULT, alpha=0.5, exploration=Exploration())
    bench = Bench(block.tables, block.card.temperature, GROUPS)
    plan = Plan(candidates, KINDS, ORDERS, seeds)
    runs = run(bench, plan, block.card, processes=processes, done=bar.advance)
    result = result_of(bench, plan, block.card, runs, calibration="of the card")
    for kind in KINDS:
        for order in ORDERS:
            rows = {row.strategy: row for row in result.rows if (row.stream, row.order) == (kind, order)}
            yield line(block.name, objective, rows)


def line(block: str, objective: str, rows: Mapping[str, Row]) -> PairLine:
    """From the rows of one kind and order of streams, by name."""
    auto = rows[WARM if objective == DEFAULT else f"{WARM}@{objective}"]
    named = {**rows, WARM_ENTROPY: rows[f"{WARM}@{ENTROPY}"], WARM_AUTO: auto}
    fixed = rows[ref.BEST_FIXED].alpha
    assert fixed is not None
    return PairLine(
        block=block,
        stream=auto.stream,
        order=auto.order,
        objective=objective,
        best_fixed_alpha=fixed,
        served={
            name: PairServed(row.accuracy, row.fe, {group: part.accuracy for group, part in row.groups.items()})
            for name, row in named.items()
            if name in COLUMNS
        },
        over_endpoint=auto.accuracy - max(rows[ref.ZERO_SHOT].accuracy, rows[ref.FINE_TUNED].accuracy),
        worst_domain=auto.worst_domain,
        worst_domain_gap=auto.worst_domain_gap,
    )


def markdown(lines: Sequence[PairLine]) -> Iterator[str]:
    """A table of the means, and one by group of domains; for accuracy at more than one forward the cost."""
    ends = ("auto is", "over better endpoint", "worst domain")
    yield _row(("pair", "stream", *COLUMNS.values(), *ends))
    yield "|" + "---|" * (len(COLUMNS) + 5)
    for one in lines:
        cells = [_cell(one, name, one.served[name].accuracy) for name in COLUMNS]
        verdict = f"{100 * one.over_endpoint:+.1f} {'yes' if one.over_endpoint >= 0 else 'NO'}"
        worst = f"{100 * one.worst_domain_gap:+.1f} {one.worst_domain}"
        yield _row((one.block, f"{one.stream} {one.order}", *cells, one.objective, verdict, worst))
    yield ""
    yield _row(("pair", "stream", "domains", *COLUMNS.values()))
    yield "|" + "---|" * (len(COLUMNS) + 3)
    for one in lines:
        for group in one.served[WARM_AUTO].groups:
            cells = [_cell(one, name, one.served[name].groups[group]) for name in COLUMNS]
            yield _row((one.block, f"{one.stream} {one.order}", group, *cells))


def _cell(one: PairLine, name: str, accuracy: float) -> str:
    text = f"{accuracy:.3f}".removeprefix("0")
    if name == ref.BEST_FIXED:
        return f"{text} ({one.best_fixed_alpha:g})"
    fe = one.served[name].fe
    return text if fe == 1.0 else f"{text} at {fe:.3g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run both pairs and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.pairs", description=main.__doc__)
    parser.add_argument(
        "--real", type=Path, default=DATA, help="folder with logits/*.npz; left out where there is none"
    )
    parser.add_argument("--domains", help="of the real pair, separated by commas; none: all but val*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    real = arguments.real if (arguments.real / "logits").is_dir() else None
    domains = arguments.domains.split(",") if arguments.domains else None
    lines: list[PairLine] = []
    with progress("evaluated", unit="runs") as bar:
        for block in blocks(real, domains):
            bar.note(block.name)
            lines += measured(block, seeds=arguments.seeds, processes=arguments.processes, bar=bar)
    if arguments.as_json:
        print_json([asdict(one) for one in lines])
    else:
        print("\n".join(markdown(lines)))


if __name__ == "__main__":
    main()
