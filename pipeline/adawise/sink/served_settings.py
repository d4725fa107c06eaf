"""With which settings rows were served: what the fingerprints in the footers are hashes of, once for each pair of them.

Written before the first rows, and never again: what it says follows from the fingerprints in its name. A root of an
earlier version has none. No secret is among the settings that results depend on.
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
    """Of one document. `places` says where what `settings` name by a hash lay when it was first used.

    `method` says in words how alpha is chosen; "" in those that do not.
    """

    model_fingerprint: str
    config_fingerprint: str
    since: str  # ISO 8601
    settings: Mapping[str, Any]
    places: Mapping[str, str]
    method: str = ""


def note(store: Store, by: ServedBy, *, now: datetime) -> None:
    """Say what served from now on, unless it was said before, or nobody knows it. Raises StoreUnavailable."""
    key = layout.settings_key(by.model_fingerprint, by.config_fingerprint)
    if not by.settings or store.get(key) is not None:
        return
    said = {"layout": claims.LAYOUT, "since": now.isoformat(), "method": by.method}
    said |= {"settings": {**by.settings}, "places": {**by.places}}
    text = json.dumps(said, indent=1, ensure_ascii=False)  # a path may not be UTF-8
    with suppress(AlreadyExists):  # a colleague, with the same
        store.create(key, text.encode(errors="replace"))


def read_settings(store: Store) -> list[ServedSettings]:
    """All of a root, in the order in which they came. Raises ChainError for a damaged one, StoreUnavailable."""
    keys = [(key, prints) for key in store.list(layout.SETTINGS) if (prints := layout.parse_settings_key(key))]
    found = [_read(store, key, store.get(key) or b"", *prints) for key, prints in keys]
    return sorted(found, key=lambda each: each.since)


def read_method(store: Store, model_fingerprint: str, config_fingerprint: str) -> str | None:
    """How alpha was chosen by these; None where nobody said. Raises as `read_settings`."""
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
