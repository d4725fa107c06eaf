"""The folder of a plan, read as the roots of its shards. Nothing heavy is loaded for that."""

from __future__ import annotations

from collections.abc import Iterable

from adawise.errors import SettingsError
from adawise.sink import claims, layout
from adawise.sink.files import segment_keys
from adawise.store.documents import Document, Plain, parse, unreadable
from adawise.store.store import Store, open_store
from adawise.text import some


class _Shards(Document):
    shards: list[Plain]


def expanded(roots: Iterable[str]) -> list[str]:
    """Return the roots, with the roots of all shards in place of a folder that holds the plan of a replay.

    Raises:
        SettingsError: a shard has not begun, or a folder with a plan holds an output of its own, too.
        ChainError: a plan is damaged.
        StoreUnavailable: a store does not answer.
    """
    found: list[str] = []
    for root in roots:
        store = open_store(root)
        data = store.get(layout.PLAN)
        found += [root] if data is None else _shards(root, store, data)
    return found


def _shards(root: str, store: Store, plan: bytes) -> list[str]:
    count = len(parse(_Shards, store, layout.PLAN, plan).shards)
    if not count:
        raise unreadable(store, layout.PLAN)
    if store.get(layout.OWNER) is not None or _is_begun(store):  # read as its shards, it would never be verified
        raise SettingsError(
            f"{root} holds an output of its own beside the plan of {count} shards, but shards write to folders of "
            f"their own; move {layout.PLAN} away to read this output, or the output away to read the shards"
        )
    shards = [layout.shard_root(root, number) for number in range(count)]
    if lacking := [number for number, shard in enumerate(shards) if not _is_begun(open_store(shard))]:
        raise SettingsError(
            f"{root} holds the plan of {count} shards, and these have not begun: {some(lacking)}; replay them with "
            f"`adawise replay RECORDING --shard I -o {root}`"
        )
    return shards


def _is_begun(store: Store) -> bool:
    """Return True if a root has its id, or has lost it and has segments: `verify` names what was lost."""
    return claims.read_sink_id(store) is not None or bool(segment_keys(store))
