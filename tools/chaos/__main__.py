"""`make chaos`: the long form, on an Apache Kafka of three brokers; prints what was survived and what was found."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from tests.brokers import ApacheKafka, broker_of
from tests.models import write_pair
from tools.chaos.run import Play, run
from tools.chaos.schedule import FAULTS, Kind, schedule


def main() -> int:
    """0 if nothing was found; 1 if something was; with --overwrite the other way round."""
    args = arguments().parse_args()
    kinds = [kind for kind in (Kind if args.operators else FAULTS) if kind is not Kind.BROKER or args.brokers == 3]
    play = Play(
        seed=args.seed,
        messages=args.messages,
        faults=schedule(args.seed, args.faults, kinds, in_folder=args.store == "folder"),
        rate=args.rate,
        replication=args.brokers,
        session_timeout_ms=args.session_ms,
        store=args.store,
        overwrites=args.overwrite,
        quiet_s=10.0 if args.overwrite else 120.0,
        operators=args.operators,
    )
    print(f"# seed {args.seed}: {args.messages} messages, {args.faults} faults, {args.brokers} broker(s)", flush=True)
    keep = nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory(prefix="adawise-chaos-")
    with ApacheKafka(args.brokers) as kafka, keep as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(
            play, broker_of(kafka), write_pair(folder / "pair"), folder, kafka, lambda found: print(found, flush=True)
        )
    print(report, flush=True)
    return int(report.is_clean == args.overwrite)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="at least (default: 200,000)")
    parser.add_argument("--faults", type=int, default=65, help="default: 65")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one, printed")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=3, help="default: 3, which may fall in turn")
    parser.add_argument(
        "--store",
        choices=("folder", "s3", "seaweedfs"),
        default="folder",
        help="s3, seaweedfs: a bucket whose requests fail, of moto or of a SeaweedFS (default: folder)",
    )
    parser.add_argument("--rate", type=float, default=10_000.0, help="messages a second at most (default: 10,000)")
    parser.add_argument("--session-ms", type=int, default=4_000, help="kafka.session_timeout_ms (default: 4000)")
    parser.add_argument(
        "--folder", help="an empty folder for outputs and logs, which is kept (default: one that is not)"
    )
    parser.add_argument(
        "--operators",
        action="store_true",
        help="half of the faults are commands: pairs staged, switched and taken back, compact, retain, repair, dlq",
    )
    parser.add_argument("--overwrite", action="store_true", help="the control: a store that replaces must be found out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
