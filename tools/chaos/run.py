"""One run of the chaos suite: cameras, workers and faults, until everything is in the output; then the judge."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from adawise.errors import ChainError
from adawise.pairs.orders import read_orders
from adawise.pairs.planned import read_plan
from adawise.settings import Settings
from tests.brokers import Broker, create_topic, fresh_name
from tests.models import PairFolder, write_pair
from tests.worker.cameras import Topic, settings_for
from tests.worker.output import Output
from tools.chaos.actor import Role
from tools.chaos.crew import SEATS, SIZE, Crew
from tools.chaos.feed import LIMITS, MAX_AGE_S, MAX_BATCH_BYTES, Feed, Film
from tools.chaos.operators import (
    Operator,
    all_have_it,
    returns,
    served_too_early,
    wrong_orders,
    wrong_switches,
)
from tools.chaos.place import StoreName, StorePlace, place
from tools.chaos.schedule import OF_PAIRS, Kind, ScheduledFault
from tools.chaos.strikes import PATIENCE_S, Brokers, Stage, Strike, strike
from tools.chaos.verdict import (
    ChaosVerdict,
    Places,
    assess,
    compare_with_replay,
    count_dead_letters,
    count_results,
    crashes,
    mend,
    retire,
    send_back,
    verify,
)

AT_ONCE = 2  # faults
_ONE_AT_A_TIME = {Kind.BROKER, Kind.OUTAGE}  # of three brokers two must live; there is one store
_TOO_MANY = 100  # ends that nobody ordered, in a whole run
_TICK_S = 0.05
_REPORT_S = 60.0
_COUNT_S = 1.0  # how often the output is counted, at most
_SELDOM_ENOUGH = 10  # times as long as counting takes: a bucket lists all its keys for it
_READ_ORDERS_S = 0.3  # how often workers look what is asked about their pair
OTHER_CLASSES = ("lorry", "tram", "cyclist", "nobody", "dog", "fog")
_SELDOM = {"flush_rows": 2_000, "flush_age_s": 30.0}  # segments of the replay: where they are cut must not matter
KEPT = {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**63 - 1)}  # the film's time is not ours


@dataclass(frozen=True)
class Play:
    """What is played.

    `messages` at least, at most `rate` a second and `lead` more than there are rows; with `overwrites` the workers'
    `store` is one that replaces. Nothing new for `quiet_s` seconds at the end: then something is lost. With `operators`
    the faults may be operations, results are published, and `prepare` is called in each command before it runs.
    """

    seed: int
    messages: int
    faults: Sequence[ScheduledFault]
    rate: float
    lead: int = 3_000
    cameras: int = 24
    partitions: int = 8
    replication: int = 1
    session_timeout_ms: int = 2_000
    store: StoreName = "folder"
    overwrites: bool = False
    quiet_s: float = 120.0
    workers: int = SIZE
    operators: bool = False
    prepare: Callable[[], None] | None = None

    @property
    def when(self) -> Literal["early", "committed"]:
        """When results are published."""
        return "early" if self.seed % 2 else "committed"


@dataclass
class ChaosReport:
    """What was survived, and what was found."""

    play: Play
    verdict: ChaosVerdict
    toll: Counter[str]
    gave_up: list[str]
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        v, s = self.verdict, self.seconds
        lines = [
            f"seed {self.play.seed}: {v.messages} messages of {self.play.cameras} cameras in {self.play.partitions} "
            f"partitions, {v.acknowledged} acknowledged, {v.rows} rows; "
            + ", ".join(f"{name} {value:.0f} s" for name, value in s.items()),
            "survived: " + ", ".join(f"{count} {name}" for name, count in sorted(self.toll.items())),
            "found:    " + ", ".join(f"{count} {name}" for name, count in v.counts.items()),
            *(f"  fault: {fault}" for fault in v.faults),
            *(f"  a worker ended by itself: {words}" for words in self.gave_up),
        ]
        return "\n".join(lines)

    @property
    def is_clean(self) -> bool:
        """True if the judge found nothing, and no worker at work ended by itself."""
        return self.verdict.is_clean and not self.gave_up


def run(
    play: Play,
    broker: Broker,
    pair: PairFolder,
    folder: Path,
    brokers: Brokers | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> ChaosReport:
    """Play it, in an empty folder. `report` hears how far it is, now and then."""
    topic = Topic(broker, fresh_name("chaos"))
    for name in (topic.name, f"{topic.name}.dlq", f"{topic.name}.results"):
        create_topic(broker, name, play.partitions, KEPT, replication=play.replication)
    feed = Feed(broker, topic.name, Film(play.seed, cameras=play.cameras, partitions=play.partitions), rate=play.rate)
    seconds = dict[str, float]()
    with place(play.store, folder, play.seed) as stored:
        settings, output = _settings(play, topic, pair, stored, fresh_name("crew")), stored.output
        seats = () if broker.lacks(("static_membership",)) else SEATS
        operator = _operator(play, topic, settings, folder, stored) if play.operators else None
        with feed, Crew(_roles(play, settings, folder, stored), seats, size=play.workers) as crew:
            with _timed(seconds, "faults"):
                # Requests to an object store fail all the time, and all tries of one at times.
                away = set[str]() if play.store == "folder" else {"single requests"}
                _perform(play, feed, Stage(crew, stored.outage, brokers, operator, away), output, report)
            with _timed(seconds, "rest"):
                settled = operator is not None and _wait_for_pairs(crew, output)
                feed.finish()
                landed = feed.landed()
                _wait_for_the_rest(crew, output, sum(shot.rows for shot in landed.values()), play.quiet_s)
                crew.dismiss()
        crew.toll.update({f"requests {fault}": count for fault, count in stored.failed.items()})
        with _timed(seconds, "judge"):
            role = Role(_changed(settings, "sink", **_SELDOM), folder / "judge.log", stored.outage, stored.others)
            recovered = None if any(fault.kind is Kind.BROKER for fault in play.faults) else crew.recovered
            verdict = _verdict_of(play, feed, landed, role, output, folder)
            if not play.overwrites:
                count_dead_letters(verdict, broker, f"{topic.name}.dlq", landed, recovered)
            verdict.faults += crashes(folder)
            if operator is not None:
                crew.toll.update(_check_operators(verdict, operator, output, settled=settled))
                send_back(verdict, role, broker, topic.name, output)
                _unless_damaged(
                    verdict,
                    lambda: count_results(verdict, broker, f"{topic.name}.results", output, play.when, recovered),
                )
                _unless_damaged(
                    verdict, lambda: crew.toll.update({"lost segments bridged": mend(verdict, role, output)})
                )
                _unless_damaged(verdict, lambda: retire(verdict, role, output))
    return ChaosReport(play, verdict, crew.toll, crew.gave_up, seconds)


def _verdict_of(play: Play, feed: Feed, landed: Places, role: Role, output: Output, folder: Path) -> ChaosVerdict:
    """By the topic, by `adawise verify` and by a replay; the last two at the same time, each takes a processor."""
    verified = verify(role, output)
    verdict = assess(landed, feed.acknowledged, output)
    if not play.overwrites:
        pairs_of = role.settings.sink.root if play.operators else None
        _unless_damaged(verdict, lambda: compare_with_replay(verdict, role, output, folder, pairs_of=pairs_of))
    verdict.faults += verified()
    return verdict


def _unless_damaged(verdict: ChaosVerdict, compare: Callable[[], None]) -> None:
    """Compare what can be read: that something cannot is a fault, and no reason to end without a verdict."""
    try:
        compare()
    except ChainError as error:
        verdict.faults.append(str(error))


def _check_operators(verdict: ChaosVerdict, operator: Operator, output: Output, *, settled: bool) -> Counter[str]:
    """By how commands ended, by the orders that they gave, and by the pairs that partitions were served by."""
    orders = read_orders(output.store)
    verdict.faults += [fault for operation in operator.operations if (fault := operation.fault) is not None]
    verdict.faults += wrong_orders(operator.operations, orders)
    seen = Counter({"orders": len(orders.log)})

    def by_chains() -> None:
        plan = read_plan(output.store)
        verdict.faults.extend(wrong_switches(plan, orders, settled=settled))
        verdict.faults.extend(served_too_early(output.store, orders))
        seen["switches of partitions"] = sum(len(switches) - 1 for switches in plan.values())
        seen["switches back by a worker that had not looked yet"] = returns(plan, orders)

    _unless_damaged(verdict, by_chains)
    return seen


def _operator(play: Play, topic: Topic, settings: Settings, folder: Path, stored: StorePlace) -> Operator:
    """Whoever gives commands, with two more pairs to stage: other weights, and other classes."""
    role = Role(settings, folder / "operator.log", stored.outage, stored.workers, prepare=play.prepare)
    pairs = [write_pair(folder / "pair-1", seed=5), write_pair(folder / "pair-2", seed=6, classes=OTHER_CLASSES)]
    return Operator(role, [_settings(play, topic, pair, stored, settings.kafka.group) for pair in pairs], folder)


def _settings(play: Play, topic: Topic, pair: PairFolder, stored: StorePlace, group: str) -> Settings:
    changes: dict[str, dict[str, Any]] = {}
    if play.operators:
        changes = {"results": {"enabled": True, "when": play.when}, "pairs": {"look_s": _READ_ORDERS_S}}
    return settings_for(
        topic,
        pair,
        stored.root,
        group,
        kafka={
            "session_timeout_ms": play.session_timeout_ms,
            "max_poll_records": 500,
            "max_batch_bytes": MAX_BATCH_BYTES,
        },
        decode=asdict(LIMITS),
        limits={"streams": 12},  # of a partition: strangers make room for strangers
        batch={"max_age_s": MAX_AGE_S},
        **changes,
    )


def _roles(play: Play, settings: Settings, folder: Path, stored: StorePlace) -> Callable[[int, str | None], Role]:
    """Workers that cut their segments differently: an heir's must not happen to be its predecessor's."""

    def role(number: int, seat: str | None) -> Role:
        rng = random.Random(f"{play.seed} {number}")
        mine = _changed(settings, "sink", flush_rows=rng.choice((8, 24, 64, 200)), flush_age_s=rng.uniform(0.2, 1.5))
        mine = _changed(mine, "kafka", static_member=seat)
        if play.operators:
            mine = _changed(mine, "results", per=rng.choice(("image", "batch")))
            mine = _changed(mine, "kafka", max_poll_records=rng.choice((20, 500)))
            mine = _changed(mine, "decode", threads=rng.choice((1, 2)))
            mine = _changed(mine, "pairs", keep_s=rng.choice((0.0, 3_600.0)))
        return Role(mine, folder / f"worker-{number}.log", stored.outage, stored.workers, play.overwrites)

    return role


def _changed(settings: Settings, group: str, **values: object) -> Settings:
    return settings.model_copy(update={group: getattr(settings, group).model_copy(update=values)})


def _perform(play: Play, feed: Feed, stage: Stage, output: Output, report: Callable[[str], None]) -> None:
    """Until every fault was done and enough was sent."""
    waiting, under_way, look_at, fields = list(play.faults), dict[ScheduledFault, Strike](), 0.0, time.monotonic()
    while waiting or under_way or feed.sent < play.messages:
        stage.crew.listen(_TICK_S)
        ends = len(stage.crew.gave_up) + stage.crew.toll["starts that failed"]
        assert ends < _TOO_MANY, f"workers end by themselves, {ends} of them: {stage.crew.gave_up}"
        if (began := time.monotonic()) > look_at:
            feed.allow(output.rows + play.lead)
            look_at = began + max(_COUNT_S, _SELDOM_ENOUGH * (time.monotonic() - began))
        if time.monotonic() - fields > _REPORT_S:
            report(f"{feed.sent} messages sent, {output.rows} rows written, {len(waiting)} faults to come")
            fields = time.monotonic()
        busy = {fault.kind for fault in under_way} & (_ONE_AT_A_TIME | OF_PAIRS)
        busy |= OF_PAIRS if busy & OF_PAIRS else set()
        for fault in [f for f in waiting if f.at * play.messages <= feed.sent and f.kind not in busy][:1]:
            if len(under_way) < AT_ONCE:
                waiting.remove(fault)
                under_way[fault] = strike(fault, stage)
        for fault, done in list(under_way.items()):
            if next(done, StopIteration) is StopIteration:
                del under_way[fault]


def _wait_for_the_rest(crew: Crew, output: Output, rows: int, quiet_s: float) -> None:
    """Until all rows are there; or, if some never come, until nothing was written for a while."""
    for actor in crew.members:
        actor.send(signal.SIGCONT)  # an order may have come too late
    found, since = -1, time.monotonic()
    while (now := output.rows) < rows and time.monotonic() - since < quiet_s:
        if now != found:
            found, since = now, time.monotonic()
        crew.listen(_COUNT_S)


def _wait_for_pairs(crew: Crew, output: Output) -> bool:
    """Until each worker has the pair that is to serve; False if that takes too long, or the store has no answer."""
    give_up = time.monotonic() + 3 * PATIENCE_S
    for actor in crew.members:
        actor.send(signal.SIGCONT)
    while time.monotonic() < give_up:
        crew.listen(_COUNT_S)
        if all_have_it(output.store, [actor.pid for actor in crew.members]):
            return True
    return False


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began
