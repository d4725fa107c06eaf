"""What goes wrong and when: faults at shares of the stream, as a function of a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice

from adawise.store.store import FAILPOINTS

POINTS = ("worker.rows_complete", *FAILPOINTS, "worker.segment_committed", "worker.offset_committed")
"""Every named point between complete rows and the committed offset, where the store is a folder."""

OF_FOLDERS = frozenset(
    ("segment.temp_written", "segment.linked", "segment.folder_synced", "traces.temp_written", "traces.renamed")
)
"""Those that a worker with another store does not come to."""

BEFORE_COMMIT = ("segment.encoded", "segment.encoded", "segment.temp_written", "worker.rows_complete")
"""Where a worker that stands still has a segment to write when it wakes."""


class Kind(StrEnum):
    """What can happen."""

    KILL = "kill"  # SIGKILL at any moment
    EXIT = "exit"  # SIGKILL at a named point
    ZOMBIE = "zombie"  # SIGSTOP before a commit, SIGCONT when another has the partition
    FREEZE = "freeze"  # the same at any moment
    RETURN = "return"  # SIGKILL of a static member that is back before its session ends
    RIVAL = "rival"  # SIGSTOP of a static member before a commit, another begins by its name; then SIGCONT
    JOIN = "join"  # one worker more
    LEAVE = "leave"  # SIGTERM
    OUTAGE = "outage"  # the store answers nobody, or its answers are lost
    BROKER = "broker"  # SIGKILL of one broker, and its return
    STAGE = "stage"  # `pair stage`
    SWITCH = "switch"  # `pair switch --anyway`
    ROLLBACK = "rollback"  # `pair rollback`
    ROLLBACKS = "rollbacks"  # two of them at the same moment
    COMPACT = "compact"
    RETAIN = "retain"  # with an age that nothing has: it must remove nothing
    REPAIR = "repair"  # without and with --yes
    LETTERS = "letters"  # `dlq list` and `dlq replay --all`
    SETTINGS = "settings"  # SIGTERM of a worker, another with other settings begins


OPERATIONS = frozenset(list(Kind)[list(Kind).index(Kind.STAGE) :])
"""What operators do; all other kinds are faults."""

OF_PAIRS = frozenset((Kind.STAGE, Kind.SWITCH, Kind.ROLLBACK, Kind.ROLLBACKS))
"""Operations of which each begins when the one before it has ended: it depends on what that came to."""

FAULTS = tuple(kind for kind in Kind if kind not in OPERATIONS)

# In which proportions: what races for a segment most of all.
_DECK = (
    Kind.ZOMBIE,
    Kind.KILL,
    Kind.EXIT,
    Kind.BROKER,
    Kind.ZOMBIE,
    Kind.JOIN,
    Kind.EXIT,
    Kind.OUTAGE,
    Kind.RIVAL,
    Kind.ZOMBIE,
    Kind.LEAVE,
    Kind.KILL,
    Kind.FREEZE,
    Kind.RETURN,
    Kind.EXIT,
)

# Each once, then pairs most of all: what they are asked for depends on what was asked before.
_OPERATIONS_DECK = (
    Kind.STAGE,
    Kind.SWITCH,
    Kind.ROLLBACKS,
    Kind.COMPACT,
    Kind.RETAIN,
    Kind.REPAIR,
    Kind.LETTERS,
    Kind.SETTINGS,
    Kind.ROLLBACK,
    Kind.STAGE,
    Kind.SWITCH,
    Kind.STAGE,
    Kind.SWITCH,
)

_STOPPED = {Kind.ZOMBIE, Kind.RIVAL}


@dataclass(frozen=True)
class ScheduledFault:
    """One fault: due when the share `at` of the stream was sent.

    `chance` in [0, 1) says who, and which variant; `lasts_s` how long the others have, in seconds; `point` where, if
    anywhere.
    """

    at: float
    kind: Kind
    chance: float
    lasts_s: float
    point: str


def schedule(seed: int, count: int, kinds: Sequence[Kind] = FAULTS, *, in_folder: bool = True) -> list[ScheduledFault]:
    """`count` faults of these kinds in the order in which they are due, none before 2 % or after 95 % of the stream.

    With kinds of `OPERATIONS` among them, half are of these, if there are others.
    """
    rng = random.Random(seed)
    decks = [[kind for kind in deck if kind in kinds] for deck in (_DECK, _OPERATIONS_DECK)]
    faults, operations = (cycle(deck) for deck in decks)
    if all(decks):
        chosen = [next(operations if number % 2 else faults) for number in range(count)]
    else:
        chosen = list(islice(faults if decks[0] else operations, count))
    rng.shuffle(chosen)
    without = frozenset() if in_folder else OF_FOLDERS
    exits = _in_turn([point for point in POINTS if point not in without], rng)
    stops = _in_turn([point for point in BEFORE_COMMIT if point not in without], rng)
    return [
        ScheduledFault(
            at=0.02 + 0.93 * (number + rng.random()) / count,
            kind=kind,
            chance=rng.random(),
            lasts_s=rng.uniform(0.0, 2.0),
            point=next(exits) if kind is Kind.EXIT else next(stops) if kind in _STOPPED else "",
        )
        for number, kind in enumerate(chosen)
    ]


def _in_turn(points: Sequence[str], rng: random.Random) -> cycle[str]:
    return cycle(rng.sample(points, len(points)))
