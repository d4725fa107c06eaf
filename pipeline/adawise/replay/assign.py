"""The division of cameras between shards: by cost, with partitions together as far as the balance allows. Pure.

The longest processing time first (Graham, 1969) gives the balance: its dearest shard costs at most 4/3 of the best
possible one. Since every reader of a partition reads all of it, divisions that keep partitions together are tried, too.
Of those whose dearest shard costs at most `SLACK` of that one, the one that reads the fewest bytes is chosen.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SLACK = 1.05


@dataclass(frozen=True, slots=True)
class Unit:
    """A camera of a partition, or with None its messages that name no camera: it is never divided, and costs >= 0."""

    partition: int
    camera: str | None
    cost: float


def assign(units: Sequence[Unit], shards: int, size_bytes: Mapping[int, int]) -> list[int]:
    """Return the shard of each unit; each shard has at least one.

    Args:
        units: all units, at least as many as shards.
        shards: their number.
        size_bytes: what each reader of a partition reads, by partition.
    """
    mean = sum(unit.cost for unit in units) / shards
    balanced = _longest_first(units, shards)
    limit = SLACK * max(loads(units, balanced, shards))
    found = [balanced]
    for fill in (limit, mean):
        together = _spread(units, _together(units, shards, fill, limit), shards)
        if max(loads(units, together, shards)) <= limit:
            found.append(together)
    return min(found, key=lambda chosen: sum(size_bytes[partition] for partition, _ in reads(units, chosen)))


def loads(units: Iterable[Unit], chosen: Iterable[int], shards: int) -> list[float]:
    """Return the cost of each shard."""
    found = [0.0] * shards
    for unit, shard in zip(units, chosen, strict=True):
        found[shard] += unit.cost
    return found


def reads(units: Iterable[Unit], chosen: Iterable[int]) -> set[tuple[int, int]]:
    """Return (partition, shard) for each shard that reads a partition."""
    return {(unit.partition, shard) for unit, shard in zip(units, chosen, strict=True)}


def _dearest_first(units: Sequence[Unit], places: Iterable[int]) -> list[int]:
    return sorted(places, key=lambda place: (-units[place].cost, units[place].partition, units[place].camera or ""))


def _longest_first(units: Sequence[Unit], shards: int) -> list[int]:
    found = [0] * len(units)
    heap = [(0.0, 0, shard) for shard in range(shards)]  # cost, units: those that cost nothing are divided as well
    for place in _dearest_first(units, range(len(units))):
        cost, count, shard = heapq.heappop(heap)
        found[place] = shard
        heapq.heappush(heap, (cost + units[place].cost, count + 1, shard))
    return found


def _together(units: Sequence[Unit], shards: int, fill: float, limit: float) -> list[int]:
    """Return a division in which a partition that fits into a shard is in one, and others are in as few as seems right.

    Args:
        units: all units.
        shards: their number.
        fill: the cost up to which a shard is filled from one partition.
        limit: the cost up to which a shard gets what is left then, if it reads that partition anyway.
    """
    found, cost_of = [0] * len(units), [0.0] * shards
    partitions: dict[int, list[int]] = {}
    for place in _dearest_first(units, range(len(units))):
        partitions.setdefault(units[place].partition, []).append(place)
    whole = {number: sum(units[place].cost for place in places) for number, places in partitions.items()}
    left: list[int] = []

    def give(places: Sequence[int], shard: int) -> None:
        for place in places:
            found[place] = shard
            cost_of[shard] += units[place].cost

    divided: list[list[int]] = []
    for number in sorted(partitions, key=lambda number: (-whole[number], number)):
        emptiest = cost_of.index(min(cost_of))
        if cost_of[emptiest] + whole[number] <= limit:
            give(partitions[number], emptiest)
        else:
            divided.append(partitions[number])
    readers: dict[int, set[int]] = {}
    for waiting in divided:
        while waiting:
            shard = cost_of.index(min(cost_of))
            fitting, others = _fitting(units, waiting, fill - cost_of[shard])
            if not fitting and not cost_of[shard]:
                fitting, others = waiting[:1], waiting[1:]
            if not fitting:
                left += waiting
                break
            give(fitting, shard)
            readers.setdefault(units[fitting[0]].partition, set()).add(shard)
            waiting = others
    for place in _dearest_first(units, left):
        known = readers.setdefault(units[place].partition, set())
        room = [shard for shard in sorted(known) if cost_of[shard] + units[place].cost <= limit]
        shard = min(room or range(shards), key=cost_of.__getitem__)
        give([place], shard)
        known.add(shard)
    return found


def _spread(units: Sequence[Unit], chosen: Sequence[int], shards: int) -> list[int]:
    """Return the division with units of the dearest shards moved to those that have none."""
    found, members = [*chosen], dict[int, list[int]]()
    for place in _dearest_first(units, range(len(units))):
        members.setdefault(found[place], []).append(place)

    def entry(shard: int) -> tuple[float, int]:
        return -sum(units[place].cost for place in members[shard]), shard

    heap = [entry(shard) for shard, places in members.items() if len(places) > 1]
    heapq.heapify(heap)
    for empty in sorted({*range(shards)} - members.keys()):
        _, shard = heapq.heappop(heap)
        first = units[members[shard][0]].partition
        # Another partition is moved as a whole, so that no more is read; or else half of the only one.
        moved = [place for place in members[shard] if units[place].partition != first] or members[shard][1::2]
        moved_places = {*moved}
        members[shard] = [place for place in members[shard] if place not in moved_places]
        members[empty] = moved
        for place in moved:
            found[place] = empty
        for each in (shard, empty):
            if len(members[each]) > 1:
                heapq.heappush(heap, entry(each))
    return found


def _fitting(units: Sequence[Unit], places: Sequence[int], room: float) -> tuple[list[int], list[int]]:
    """Return those that fit together into the room, the dearest first, and the others."""
    fitting: list[int] = []
    others: list[int] = []
    for place in places:
        fits = units[place].cost <= room
        (fitting if fits else others).append(place)
        room -= units[place].cost if fits else 0.0
    return fitting, others
