"""`python -m tools.fuzz`: a million damaged messages through the decoder; exit code 1 if it falls over one.

`--costs` beside it: what the costliest sound images cost, which takes two minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from adawise.console import progress
from tools.fuzz.campaign import CampaignResult, campaign
from tools.fuzz.costliest import Cost, costs, table
from tools.fuzz.extremes import FAMILIES

MESSAGES = 1_000_000


def report(outcome: CampaignResult, seed: int, wall_s: float) -> str:
    """The outcome for people."""
    total = sum(outcome.rows.values())
    lines = [
        f"seed {seed}: {outcome.messages} messages in {wall_s:.0f} s, {total} rows; "
        f"found {len(outcome.found)}; slowest {1000 * outcome.slowest_s:.0f} ms of the processor ({outcome.slowest})"
    ]
    lines += [f"  {count:>9}  {reason}" for reason, count in sorted(outcome.rows.items(), key=lambda item: -item[1])]
    for process, figures in sorted(outcome.rss_bytes.items()):
        first, most, last = (figure / 2**20 for figure in figures)
        lines.append(f"process {process}: resident {first:.0f} MiB at first, {most:.0f} at most, {last:.0f} at the end")
    lines += [f"FOUND message {each.number}: {each.what}" for each in outcome.found]
    return "\n".join(lines)


def run(*, seed: int, first: int, messages: int, processes: int) -> CampaignResult:
    """The campaign with a bar; prints the report."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tools.fuzz.campaign"])
    began_s, outcome, found = time.monotonic(), CampaignResult(), 0
    with progress("examined", total=messages, unit="messages") as bar:
        for outcome in campaign(seed=seed, first=first, messages=messages, processes=processes):
            bar.advance(outcome.messages - found)
            found = outcome.messages
            bar.note(f"found {len(outcome.found)}, slowest {outcome.slowest_s:.2f} s")
    print(report(outcome, seed, time.monotonic() - began_s))
    return outcome


def show_costs(processes: int) -> None:
    """The costliest messages with a bar; prints the table."""
    found: list[Cost] = []
    with progress("measured", total=len(FAMILIES), unit="families") as bar:
        for each in costs(processes):
            found += each
            bar.advance(1)
    print(table(found))


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (default 0)")
    parser.add_argument("--seed", type=int, default=1, help="of all of them (default 1)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default 2)")
    parser.add_argument("--costs", action="store_true", help="first measure the costliest sound images")
    chosen = parser.parse_args()
    if chosen.costs:
        show_costs(max(1, chosen.processes))
    outcome = run(seed=chosen.seed, first=chosen.first, messages=chosen.messages, processes=max(1, chosen.processes))
    return 1 if outcome.found else 0


if __name__ == "__main__":
    sys.exit(main())
