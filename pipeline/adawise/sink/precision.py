"""The number format in which the workers of a root run the model, unless a setting says otherwise.

The first worker claims it, so that a fleet of different processors does not mix formats silently. A root of an earlier
version has no claim. Its format is read from the settings that its newest segments name (`served_by`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal

from adawise.errors import ChainError
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.sink.files import segment_names
from adawise.sink.segment import SegmentFooter
from adawise.sink.served_by import read_noted
from adawise.sink.walk import chains, footer_of
from adawise.store.documents import Document, parse
from adawise.store.store import Store

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""A number format by its name in the settings."""

_NAMES: Mapping[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


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
