"""The settings with which rows were served: the values that the fingerprints in footers are hashes of.

There is one document for each pair of fingerprints. It is written before the first rows, and never again: its content
follows from the fingerprints in its name. A root of an earlier version has none. No secret is among the settings that
results depend on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adawise.ports import ServedBy
from adawise.sink import claims, layout
from adawise.store.documents import Document, Plain, Text, parse
from adawise.store.store import AlreadyExists, Store


@dataclass(frozen=True, slots=True)
class ServedSettings:
    """The content of one document.

    `places` are the paths at which the files that `settings` name by a hash were when first used. `method` explains in
    words how alpha is chosen; "" in documents without it.
    """

    model_fingerprint: str
    config_fingerprint: str
    since: str  # ISO 8601
    settings: Mapping[str, Any]
    places: Mapping[str, str]
    method: str = ""


def note(store: Store, by: ServedBy, *, now: datetime) -> None:
    """Record the settings that serve from now on, unless they are recorded or unknown. Raises StoreUnavailable."""
    key = layout.settings_key(by.model_fingerprint, by.config_fingerprint)
    if not by.settings or store.get(key) is not None:
        return
    said = {"layout": claims.LAYOUT, "since": now.isoformat(), "method": by.method}
    said |= {"settings": {**by.settings}, "places": {**by.places}}
    text = json.dumps(said, indent=1, ensure_ascii=False)  # a path may not be UTF-8
    with suppress(AlreadyExists):  # another worker has created it, with the same content
        store.create(key, text.encode(errors="replace"))


def read_settings(store: Store) -> list[ServedSettings]:
    """Return all settings of a root, the oldest first. Raises ChainError for a damaged document; StoreUnavailable."""
    keys = [(key, prints) for key in store.list(layout.SETTINGS) if (prints := layout.parse_settings_key(key))]
    found = [_read(store, key, store.get(key) or b"", *prints) for key, prints in keys]
    return sorted(found, key=lambda each: each.since)


def read_method(store: Store, model_fingerprint: str, config_fingerprint: str) -> str | None:
    """Return how alpha was chosen with these fingerprints; None if it was not recorded. Raises as `read_settings`."""
    key = layout.settings_key(model_fingerprint, config_fingerprint)
    data = store.get(key)
    return None if data is None else _read(store, key, data, model_fingerprint, config_fingerprint).method or None


class _Settings(Document):
    since: Text
    settings: dict[Text, Plain]
    places: dict[Text, Text]
    method: Text = ""


def _read(store: Store, key: str, data: bytes, model_fingerprint: str, config_fingerprint: str) -> ServedSettings:
    found = parse(_Settings, store, key, data)
    prints = model_fingerprint, config_fingerprint
    return ServedSettings(*prints, found.since, found.settings, found.places, found.method)
