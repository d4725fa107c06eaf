"""The folder of a plan, read as the roots of its shards. Nothing heavy is loaded for that."""

from __future__ import annotations

from collections.abc import Iterable

from adawise.errors import SettingsError
from adawise.sink import claims, layout
from adawise.store.documents import Document, Plain, parse
from adawise.store.store import open_store
from adawise.text import some


class _Shards(Document):
    shards: list[Plain]


def expanded(roots: Iterable[str]) -> list[str]:
    """Return the roots, with the roots of all shards in place of a folder that holds the plan of a replay.

    Raises:
        SettingsError: a shard has not begun.
        ChainError: a plan is damaged.
        StoreUnavailable: a store does not answer.
    """
    found: list[str] = []
    for root in roots:
        store = open_store(root)
        data = store.get(layout.PLAN)
        if data is None:
            found.append(root)
            continue
        count = len(parse(_Shards, store, layout.PLAN, data).shards)
        shards = [layout.shard_root(root, number) for number in range(count)]
        lacking = [number for number, shard in enumerate(shards) if claims.read_sink_id(open_store(shard)) is None]
        if lacking:
            raise SettingsError(
                f"{root} holds the plan of {count} shards, and these have not begun: {some(lacking)}; replay them with "
                f"`adawise replay RECORDING --shard I -o {root}`"
            )
        found += shards
    return found
