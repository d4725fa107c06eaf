"""Which pair of models serves a root: what a colleague with another one may not change without saying so.

Claims, numbered from 0, each created once; the newest counts. Compared are identities, hashes of what the predictions
mean, and not the fingerprint, which has versions of libraries and the number format in it: an upgrade is no other pair.
A root of version 0.1.0 has no claim, and the first start afterwards makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from adawise.errors import SettingsError
from adawise.sink import claims, layout
from adawise.store.documents import Document, Text, parse, unreadable
from adawise.store.store import Store

OnChange = Literal["refuse", "reset", "keep"]
Identity = Mapping[str, str]

# The rest changes what streams begin anew with, and not what rows mean.
_REFUSED = ("theta_0", "theta_1", "config", "classes")


def check_pair(store: Store, ours: Identity, on_change: OnChange) -> dict[str, tuple[str, str]]:
    """What of our identity the root knows otherwise: by name, what it was and what it is; {} for a new root.

    Raises:
        SettingsError: another pair or class list, and `on_change` is "refuse"; or the same weights with another config,
            and it is not "keep".
        ChainError: a claim cannot be read.
    """
    changes = _changes(_newest(store)[1], ours)
    if on_change != "keep" and changes.keys() == {"config"}:
        was, now = changes["config"]
        raise SettingsError(
            f"sink.root {store} was written with the same weights and another config: by its hash it was {was} and is "
            f"{now}. States of streams are tied to the weights, so they would go on. Give the config that wrote it "
            "(open_clip_config.json; model.mean, std and quick_gelu), let streams go on by --model.on-change keep, or "
            "give this one a --sink.root and a --kafka.group of its own."
        )
    if on_change == "refuse" and (refused := [name for name in _REFUSED if name in changes]):
        told = ", ".join(f"model.{name} was {changes[name][0]} and is {changes[name][1]}" for name in refused)
        raise SettingsError(
            f"sink.root {store} was written with another pair: by hashes of what they hold, {told}. Give the pair that "
            "wrote it, give this one a --sink.root and a --kafka.group of its own, or say what streams are to do with "
            "what they learned by --model.on-change: reset (each begins anew) or keep (each goes on from where it is)."
        )
    return changes


def claim_pair(store: Store, ours: Identity, on_change: OnChange) -> dict[str, tuple[str, str]]:
    """As `check_pair`; from now on ours is the pair of the root.

    Where ours does not say its config, as a document of an earlier version, it is the one that the root knows of it.
    """
    changes = check_pair(store, ours, on_change)
    number, known = _newest(store)
    if "config" not in ours:
        ours = {**ours, **_known_config(store, ours)}
    if changes or not ours.keys() <= known.keys():  # an earlier version names less
        claims.claim(store, layout.model_key(number + 1), {"layout": claims.LAYOUT, "identity": dict(ours)})
        if _newest(store)[1] != ours:  # another was quicker
            return claim_pair(store, ours, on_change)
    return changes


def _known_config(store: Store, ours: Identity) -> Identity:
    """Return the config of the newest claim with the same weights that names one; {} if none does."""
    for key in reversed(store.list(layout.MODELS)):
        claimed = parse(_Model, store, key, store.get(key) or b"").identity
        if "config" in claimed and all(claimed.get(name) == ours.get(name) for name in ("theta_0", "theta_1")):
            return {"config": claimed["config"]}
    return {}


def _changes(known: Identity, ours: Identity) -> dict[str, tuple[str, str]]:
    names = [name for name in ours if name in known and known[name] != ours[name]]
    return {name: (known[name] or "none", ours[name] or "none") for name in names}


class _Model(Document):
    identity: dict[Text, Text]


def _newest(store: Store) -> tuple[int, Identity]:
    keys = store.list(layout.MODELS)
    if not keys:
        return -1, {}
    number = layout.parse_model_key(keys[-1])
    if number is None:
        raise unreadable(store, keys[-1])
    return number, parse(_Model, store, keys[-1], store.get(keys[-1]) or b"").identity
