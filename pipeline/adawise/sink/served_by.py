"""The pair of models that serves a root, which another worker with another pair may change only by explicit request.

Claims are numbered from 0, and each is created once; the newest counts. What is compared are identities, hashes of what
determines the predictions, and not the fingerprint, which also covers versions of libraries and the number format: an
upgrade does not make another pair. A root of version 0.1.0 has no claim, and the first start afterwards makes it.

The settings with which rows were served are the values that the fingerprints in footers are hashes of. There is one
document for each pair of fingerprints. It is written before the first rows, and never again: its content
follows from the fingerprints in its name. A root of an earlier version has none. No secret is among the settings that
results depend on.

The number format in which workers run the model, unless a setting says otherwise, is claimed by the first one, so that
a fleet of different processors does not mix formats silently. A root of an earlier version has no claim: there the
format is read from the settings that its newest segments name.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from adawise.errors import ChainError, SettingsError
from adawise.ports import ServedBy
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.sink.files import segment_names
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import chains, footer_of
from adawise.store.answers import AlreadyExists
from adawise.store.documents import Document, Plain, Share, Text, parse, unreadable
from adawise.store.store import Store

OnChange = Literal["refuse", "reset", "keep"]
Identity = Mapping[str, str]

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""A number format by its name in the settings."""

_NAMES: Mapping[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

# A change of the other parts changes what streams begin anew with, and not the meaning of rows.
_REFUSED = ("theta_0", "theta_1", "config", "classes")


def check_pair(
    store: Store,
    ours: Identity,
    on_change: OnChange,
    *,
    ordered: Identity | None = None,
    used_config: Mapping[str, Any] | None = None,
) -> dict[str, tuple[str, str]]:
    """Return the parts of our identity that the root has otherwise: by name, before and now; {} for a new root.

    Args:
        store: the root.
        ours: hashes of what the pair holds.
        on_change: the setting for another pair.
        ordered: the identity of the same pair in an order that asks for it, which takes precedence over `on_change`. An
            order of an earlier version does not name the config.
        used_config: the values that our config is a hash of, so that a message can name the differences.

    Raises:
        SettingsError: another pair or class list, and `on_change` is "refuse"; or the same weights with another config,
            and it is not "keep".
        ChainError: a claim cannot be read.
    """
    _, known = _newest(store)
    changes = _changes(known, ours, used_config or {})
    is_config = changes.keys() == {"config"}
    if on_change == "keep" or (ordered is not None and (not is_config or "config" in ordered)):
        return changes
    if is_config:
        was, now = changes["config"]
        raise SettingsError(
            f"sink.root {store} was written with the same weights and another config: by its hash it was {was} and "
            f"is {now}. States of streams depend only on the weights, so they would be kept. Give the config that "
            "wrote it (open_clip_config.json; model.mean, std and quick_gelu), keep the states with "
            "--model.on-change keep, or give this one a separate --sink.root and --kafka.group."
        )
    if on_change == "refuse" and (refused := [name for name in _REFUSED if name in changes]):
        changed = ", ".join(f"model.{name} was {changes[name][0]} and is {changes[name][1]}" for name in refused)
        raise SettingsError(
            f"sink.root {store} was written with another pair: by hashes of their contents, {changed}. Give the pair "
            "that wrote it, give this one a separate --sink.root and --kafka.group, or set --model.on-change to "
            "reset (each stream starts anew) or keep (each keeps what it learned)."
        )
    return changes


def claim_pair(
    store: Store,
    ours: Identity,
    on_change: OnChange,
    *,
    ordered: Identity | None = None,
    used_config: Mapping[str, Any] | None = None,
) -> dict[str, tuple[str, str]]:
    """Claim the root for our pair, after the check of `check_pair`, and return its result.

    If our identity lacks the config, as in a document of an earlier version, the newest one that the root has claimed
    for these weights is used.
    """
    changes = check_pair(store, ours, on_change, ordered=ordered, used_config=used_config)
    number, known = _newest(store)
    if "config" not in ours and (claimed := next(_with_config(store, ours), None)):
        ours, used_config = {**ours, "config": claimed.identity["config"]}, claimed.used_config
    if changes or not ours.keys() <= known.identity.keys():  # the claim of an earlier version names fewer parts
        document = {"layout": claims.LAYOUT, "identity": dict(ours), "used_config": dict(used_config or {})}
        claims.claim(store, layout.model_key(number + 1), document)
        if _newest(store)[1].identity != ours:  # another worker was quicker
            return claim_pair(store, ours, on_change, ordered=ordered, used_config=used_config)
    return changes


def claimed_configs(store: Store, ours: Identity) -> set[str]:
    """Return the configs with which a root was claimed for these weights. Raises ChainError, StoreUnavailable."""
    return {claimed.identity["config"] for claimed in _with_config(store, ours)}


def config_in_words(config: str, used: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return a config by its hash, with the values that are not as in another one, where both are known."""
    names = sorted(name for name in used.keys() | other.keys() if used.get(name) != other.get(name))
    if not (used and other and names):
        return config
    values = (f"{name} {json.dumps(used[name]) if name in used else 'not set'}" for name in names)
    return f"{config} ({', '.join(values)})"


class _Model(Document):
    identity: dict[Text, Text]
    used_config: dict[Text, Plain] | None = None  # None in claims of earlier versions


def _with_config(store: Store, ours: Identity) -> Iterator[_Model]:
    """Yield the claims with the same weights that name a config, the newest first."""
    for key in reversed(store.list(layout.MODELS)):
        claimed = parse(_Model, store, key, store.get(key) or b"")
        same = all(claimed.identity.get(name) == ours.get(name) for name in ("theta_0", "theta_1"))
        if same and "config" in claimed.identity:
            yield claimed


def _changes(known: _Model, ours: Identity, used_config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    found = {
        name: (known.identity[name] or "none", value or "none")
        for name, value in ours.items()
        if name in known.identity and known.identity[name] != value
    }
    if "config" in found:
        was, now = found["config"]
        of_known = known.used_config or {}
        found["config"] = config_in_words(was, of_known, used_config), config_in_words(now, used_config, of_known)
    return found


def _newest(store: Store) -> tuple[int, _Model]:
    keys = store.list(layout.MODELS)
    if not keys:
        return -1, _Model(identity={})
    number = layout.parse_model_key(keys[-1])
    if number is None:
        raise unreadable(store, keys[-1])
    return number, parse(_Model, store, keys[-1], store.get(keys[-1]) or b"")


@dataclass(frozen=True, slots=True)
class ServedSettings:
    """The content of one document.

    `places` are the paths at which the files that `settings` name by a hash were when first used. `method` explains in
    words how alpha is chosen; "" in documents without it. `tail_share` is what an image costs at a second alpha, as a
    share of a forward; None in documents without it.
    """

    model_fingerprint: str
    config_fingerprint: str
    since: str  # ISO 8601
    settings: Mapping[str, Any]
    places: Mapping[str, str]
    method: str = ""
    tail_share: float | None = None


def note_settings(store: Store, by: ServedBy, *, now: datetime) -> None:
    """Record the settings that serve from now on, unless they are recorded or unknown. Raises StoreUnavailable."""
    key = layout.settings_key(by.model_fingerprint, by.config_fingerprint)
    if not by.settings or store.get(key) is not None:
        return
    document = {"layout": claims.LAYOUT, "since": now.isoformat(), "method": by.method, "tail_share": by.tail_share}
    document |= {"settings": {**by.settings}, "places": {**by.places}}
    text = json.dumps(document, indent=1, ensure_ascii=False)  # a path may not be UTF-8
    with suppress(AlreadyExists):  # another worker has created it, with the same content
        store.create(key, text.encode(errors="replace"))


def read_settings(store: Store) -> list[ServedSettings]:
    """Return all settings of a root, the oldest first. Raises ChainError for a damaged document; StoreUnavailable."""
    keys = [(key, prints) for key in store.list(layout.SETTINGS) if (prints := layout.parse_settings_key(key))]
    found = [_read(store, key, store.get(key) or b"", *prints) for key, prints in keys]
    return sorted(found, key=lambda each: each.since)


def read_noted(store: Store, model_fingerprint: str, config_fingerprint: str) -> ServedSettings | None:
    """Return the settings with these fingerprints; None if they were not recorded. Raises as `read_settings`."""
    key = layout.settings_key(model_fingerprint, config_fingerprint)
    data = store.get(key)
    return None if data is None else _read(store, key, data, model_fingerprint, config_fingerprint)


class _Settings(Document):
    since: Text
    settings: dict[Text, Plain]
    places: dict[Text, Text]
    method: Text = ""
    tail_share: Share | None = None


def _read(store: Store, key: str, data: bytes, model_fingerprint: str, config_fingerprint: str) -> ServedSettings:
    found = parse(_Settings, store, key, data)
    prints = model_fingerprint, config_fingerprint
    return ServedSettings(*prints, found.since, found.settings, found.places, found.method, found.tail_share)


class _Numerics(Document):
    precision: Precision


def claim_precision(store: Store, ours: Precision) -> Precision:
    """Return the claimed number format, which is `ours` if none was claimed before.

    Raises ChainError if the claim cannot be read.
    """
    claimed = claims.claim(store, layout.NUMERICS, {"layout": claims.LAYOUT, "precision": ours})
    return parse(_Numerics, store, layout.NUMERICS, claimed).precision


def read_precision(store: Store) -> Precision | None:
    """Return the claimed number format; None if there is no claim. Raises ChainError if the claim cannot be read."""
    data = store.get(layout.NUMERICS)
    return None if data is None else parse(_Numerics, store, layout.NUMERICS, data).precision


def newest_footers(store: Store) -> list[SegmentFooter]:
    """Return the footers of the newest segments of all partitions. Damaged segments are left out."""
    found = []
    for keys in chains(store).values():
        with suppress(ChainError):  # the recovery of the partition reports it
            found.append(footer_of(store, keys[-1]))
    return found


def footers_within(store: Store, parts: Mapping[TopicPartition, tuple[int, int]]) -> list[SegmentFooter]:
    """Return the footers of the last segments that begin within or before these parts [from, until) of partitions.

    Damaged segments are left out. Where all of these segments were removed, it is the first that is left.
    """
    found = []
    for tp, (begin, until) in parts.items():
        names = segment_names(store, tp) if begin < until else []
        last = bisect_left(names, until, key=lambda name: name.first) - 1
        with suppress(ChainError):
            found += [footer_of(store, layout.segment_key(tp, names[max(last, 0)]))] if names else []
    return found


def served_precision(store: Store, footers: Iterable[SegmentFooter]) -> Precision | None:
    """Return the number format in which these segments were served, by the newest one whose settings are recorded.

    None if those of no segment are: an earlier version wrote them. Damaged documents count as missing.
    """
    for footer in sorted(footers, key=lambda footer: footer.created_at, reverse=True):
        with suppress(ChainError):
            served = read_noted(store, footer.model_fingerprint, footer.config_fingerprint)
            if served is not None and (found := precision_of(served.settings)) is not None:
                return found
    return None


def precision_of(settings: Mapping[str, Any]) -> Precision | None:
    """Return the number format in the settings that a root records; None if they do not name it."""
    found = _NAMES.get(str(settings.get("model.precision")))
    is_tf32 = found == "fp32" and str(settings.get("model.device")).endswith(" tf32")
    return "tf32" if is_tf32 else found
