"""The results of a staged pair, summed over the traces that its shadow left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adawise.errors import ChainError
from adawise.output.read.rows import arrow_errors
from adawise.sink import layout, schemas
from adawise.sink.walk import chains
from adawise.store.parquet import open_parquet
from adawise.store.store import Store

_COLUMNS = [
    *("stream_id", "images", "objective", "forward_equivalents"),
    *("shadow_pair", "shadow_agreement", "shadow_objective", "shadow_forward_equivalents"),
]
_BACK = 50  # files of a partition without the pair, after which older ones are not read


@dataclass(frozen=True, slots=True)
class ShadowSums:
    """The sums over the batches that both pairs have classified; nan without any.

    Attributes:
        batches: number of batches.
        images: number of images.
        agreement: share of images with the same label.
        difference: mean objective of the staged pair less that of the serving one, nats, where both are finite.
        forward_equivalents: mean per image of the staged pair, and of the serving one on the same batches.
        streams: (camera, share of images that agree, images), the lowest agreement first.
        damaged: files that were left out, and why.
    """

    batches: int = 0
    images: int = 0
    agreement: float = np.nan
    difference: float = np.nan
    forward_equivalents: tuple[float, float] = (np.nan, np.nan)
    streams: tuple[tuple[str, float, int], ...] = ()
    damaged: tuple[str, ...] = ()


def sum_shadow(store: Store, pair: str) -> ShadowSums:
    """Return the sums of a pair's shadow over the traces of a root, read from the newest file back.

    Files that cannot be read are left out (`ShadowSums.damaged`). Raises StoreUnavailable.
    """
    tables, damaged = list[pa.Table](), list[str]()
    for keys in chains(store).values():
        without = 0
        for key in reversed(keys):
            try:
                found = _rows(store, layout.traces_key(key), pair)
            except (ChainError, ValueError) as error:
                damaged.append(str(error))
                continue
            if found is not None and len(found):
                tables.append(found)
                without = 0
            elif (without := without + 1) > _BACK:
                break
    if not tables:
        return ShadowSums(damaged=tuple(damaged))
    rows = pa.concat_tables(tables)
    value = {name: rows[name].to_numpy() for name in _COLUMNS}
    images, agreed = value["images"], value["images"] * value["shadow_agreement"]

    def mean(values: Any) -> float:
        known = np.isfinite(values)
        return float(np.average(values[known], weights=images[known])) if known.any() else np.nan

    names, stream = np.unique(value["stream_id"], return_inverse=True)
    images_of, agree = np.bincount(stream, images), np.bincount(stream, agreed)
    streams = zip(names.tolist(), (agree / images_of).tolist(), images_of.astype(int).tolist(), strict=True)
    return ShadowSums(
        batches=len(rows),
        images=int(images.sum()),
        agreement=mean(value["shadow_agreement"]),
        difference=mean(value["shadow_objective"] - value["objective"]),
        forward_equivalents=(mean(value["shadow_forward_equivalents"]), mean(value["forward_equivalents"])),
        streams=tuple(sorted(streams, key=lambda each: (each[1], each[0]))),
        damaged=tuple(damaged),
    )


def _rows(store: Store, key: str, pair: str) -> pa.Table | None:
    file = store.open(key)
    if file is None:  # traces of the newest segment, written in a moment
        return None
    with arrow_errors(f"{store}: {key}"), file:
        opened = open_parquet(file)
        if not set(_COLUMNS) <= set(opened.schema_arrow.names):  # of an earlier version
            return None
        for name in _COLUMNS:
            found, expected = opened.schema_arrow.field(name).type, schemas.TRACES.field(name).type
            if not found.equals(expected):
                raise pa.ArrowInvalid(f"column {name} has {found}, expected {expected}")
        rows = opened.read(columns=_COLUMNS)
        rows.validate(full=True)  # text that is not UTF-8
    return rows.filter(pc.equal(rows["shadow_pair"], pair))
