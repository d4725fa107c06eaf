"""The pairs of a replay: each partition is served by the pair that served it, from the offset that its chain records.

The head of a chain names them (`records.Switch`), so one segment a partition is enough. Images that were pending at a
switch are served after it. Earlier images whose batch is still open there were served before it, when the age of the
batch closed it; so the replay closes the batch at the switch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest

from typing_extensions import override

from adawise.errors import SettingsError
from adawise.ports import Head
from adawise.records import Switch, TopicPartition
from adawise.sink import layout, segment
from adawise.sink.files import read_bytes, segment_names
from adawise.sink.served_by import read_settings
from adawise.sink.walk import chains, footer_of
from adawise.store.store import Store
from adawise.worker.pairs import Pairs, PairTurn, Serving

Plan = Mapping[TopicPartition, Sequence[Switch]]
Ranges = Mapping[TopicPartition, tuple[int, int]]  # offsets [from, until)


def read_plan(store: Store) -> Plan:
    """Return the pairs that served each partition of a root, by its newest segment.

    Raises:
        ChainError, StoreUnavailable: by the root.
    """
    return {tp: footer_of(store, keys[-1]).switches for tp, keys in chains(store).items()}


def within(plan: Plan, ranges: Ranges, *, ends_streams: bool) -> Plan:
    """Return the switches whose pairs serve images of these parts.

    A switch behind a part counts if the streams end with the part and images that were pending at the switch lie in it:
    the next pair served them. Where streams do not end, these images wait for the rest of their batch, and are no row.
    """

    def serves(switch: Switch, first: int, until: int) -> bool:
        return switch.first < until or (ends_streams and any(first <= offset < until for offset in switch.pending))

    return {
        tp: tuple(switch for switch in plan.get(tp, ()) if serves(switch, first, until))
        for tp, (first, until) in ranges.items()
    }


def needed(plan: Plan, ranges: Ranges) -> dict[str, tuple[TopicPartition, Switch]]:
    """Return the pairs that [from, until) of these partitions need, by id, each with the place of its first use."""
    found: dict[str, tuple[TopicPartition, Switch]] = {}
    for tp, switch, _ in _turns(plan, ranges):
        found.setdefault(switch.pair, (tp, switch))
    return found


def _turns(plan: Plan, ranges: Ranges) -> Iterator[tuple[TopicPartition, Switch, tuple[int, int]]]:
    """Yield each turn of a plan `within` these parts, and the offsets [from, until) of the segments that it wrote."""
    for tp, (first, until) in sorted(ranges.items()):
        switches = plan.get(tp, ())
        for switch, following in zip_longest(switches, switches[1:]):
            ends = until if following is None else following.first
            if ends > first or following is None:
                begins = max(first, switch.first)
                yield tp, switch, (begins, max(begins + 1, min(until, ends)))  # one at least: the switch's own segment


def served_config(store: Store, plan: Plan, ranges: Ranges, pair: str) -> str:
    """Return the config with which a pair served these parts: chains name pairs by their ids, which leave it out.

    It is found by the fingerprints in footers and the settings that the root records for these.

    Raises:
        SettingsError: there were several, or the root does not record it.
        ChainError, StoreUnavailable: by the root.
    """
    noted = {each.model_fingerprint: str(each.settings.get("model.config", "")) for each in read_settings(store)}
    found = dict[str, str]()  # config: the first place that it served
    for tp, switch, (first, until) in _turns(plan, ranges):
        if switch.pair != pair:
            continue
        position, names = first, segment_names(store, tp)
        for name, following in zip_longest(names, names[1:]):
            if name.first >= until or (following is not None and following.first <= first):
                continue
            if name.first > position:
                found.setdefault("", f"{tp} from offset {position}")
            key = layout.segment_key(tp, name)
            footer = segment.read_footer(read_bytes(store, key), key)
            found.setdefault(noted.get(footer.model_fingerprint, ""), f"{tp} from offset {max(first, name.first)}")
            position = footer.next
        if position == first:
            found.setdefault("", f"{tp} from offset {first}")
    if "" in found:
        raise SettingsError(
            f"--pairs-of {store}: orders name pair {pair} with several configs, and the root does not say which one "
            f"served {found['']}: the segments were removed, or an earlier version wrote them. Replay this part "
            "without --pairs-of, with the pair that model.* names"
        )
    if len(found) > 1:
        where = "; ".join(f"{config} served {first}" for config, first in found.items())
        raise SettingsError(
            f"--pairs-of {store}: pair {pair} served with several configs, by their hashes: {where}. Replay these "
            "parts one after another (--from-time, --until, --state-of)"
        )
    return next(iter(found), "")


def check_at_hand(plan: Plan, ranges: Ranges, loaded: Collection[str], whose: str) -> None:
    """Raise SettingsError if a pair that these parts need is not `loaded`; `whose` is the root that it served."""
    missing = {pair: where for pair, where in needed(plan, ranges).items() if pair not in loaded}
    if missing:
        unavailable = "; ".join(
            f"pair {pair}, which served {tp} from offset {switch.first} on" for pair, (tp, switch) in missing.items()
        )
        raise SettingsError(
            f"--pairs-of {whose}: expected every pair that served it, but these are not available: {unavailable}. Name "
            "the pair by model.theta_0, theta_1, classes and card, or restore its files where `adawise pair list` "
            "says"
        )


class PlannedPairs(Pairs):
    """The pairs that a plan names.

    Args:
        plan: the pairs that serve each partition; a partition that it does not name is served by `otherwise`.
        loaded: the pairs by their ids.
        otherwise: serves what comes before the first pair of a plan, which an earlier version did not record.
        keeps: for `otherwise`, see `PairTurn`.
    """

    def __init__(self, plan: Plan, loaded: Mapping[str, Serving], otherwise: Serving, *, keeps: bool) -> None:
        super().__init__(otherwise, keeps=keeps)
        self._plan, self._loaded, self._otherwise, self._keeps = plan, loaded, otherwise, keeps
        self._next: dict[TopicPartition, int] = {}

    @override
    def at(self, tp: TopicPartition, head: Head) -> PairTurn:
        """Return the pair of all that is not served yet, or of the first part of it."""
        passed = 0
        for switch in self._switches(tp):
            if head.next_offset < switch.first or not all(map(switch.serves, head.pending)):
                break
            passed += 1
        return self._turn_after(tp, passed)

    @override
    def wanted(self, tp: TopicPartition, serving: Serving) -> PairTurn | None:
        """Return the next turn of the plan."""
        del serving
        following = self._next[tp]
        return self._turn_after(tp, following, peek=True) if following <= len(self._switches(tp)) else None

    def _turn_after(self, tp: TopicPartition, passed: int, *, peek: bool = False) -> PairTurn:
        """Return the turn after so many switches of the plan."""
        switches = self._switches(tp)
        if not peek:
            self._next[tp] = passed + 1
        until = switches[passed] if passed < len(switches) else None
        if passed == 0:
            return PairTurn(self._otherwise, self._keeps, until)
        return PairTurn(self._loaded[switches[passed - 1].pair], switches[passed - 1].keeps, until)

    def _switches(self, tp: TopicPartition) -> Sequence[Switch]:
        return self._plan.get(tp, ())

    @override
    def switched(self, tp: TopicPartition, turn: PairTurn, switch: Switch) -> None:
        del turn, switch
        self._next[tp] += 1

    @override
    def lost(self, tp: TopicPartition) -> None:
        self._next.pop(tp, None)

    @override
    def idle(self) -> bool:
        return any(serving.prepare() for serving in (self._otherwise, *self._loaded.values()))
