"""The results of a staged pair, summed over the traces that its shadow left."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from adawise.errors import ChainError
from adawise.output.read.rows import arrow_errors
from adawise.sink import layout
from adawise.sink.walk import chains
from adawise.store.store import Store

_COLUMNS = (
    *("stream_id", "images", "objective", "forward_equivalents"),
    *("shadow_pair", "shadow_agreement", "shadow_objective", "shadow_forward_equivalents"),
)
_BACK = 50  # files of a partition without the pair, after which older ones are not read


@dataclass(slots=True)
class ShadowSums:
    """The sums over batches that both pairs have classified; means per image, but for `batches` and `images`.

    `difference` is the objective of the staged pair less that of the serving one, nats, where both are finite.
    """

    batches: int = 0
    images: int = 0
    _agreed: float = 0.0
    _difference: float = 0.0
    _compared: int = 0
    _forwards: float = 0.0
    _served_forwards: float = 0.0
    streams: dict[str, tuple[float, int]] = field(default_factory=dict)  # images that agree, images
    damaged: list[str] = field(default_factory=list)  # files that were left out, and why

    def add(self, row: dict[str, object]) -> None:
        """Add one batch, a row of the traces."""
        images, agreement = int(str(row["images"])), float(str(row["shadow_agreement"]))
        self.batches, self.images = self.batches + 1, self.images + images
        self._agreed += images * agreement
        self._forwards += images * float(str(row["shadow_forward_equivalents"]))
        self._served_forwards += images * float(str(row["forward_equivalents"]))
        difference = float(str(row["shadow_objective"])) - float(str(row["objective"]))
        if math.isfinite(difference):
            self._difference, self._compared = self._difference + images * difference, self._compared + images
        agreed, seen = self.streams.get(str(row["stream_id"]), (0.0, 0))
        self.streams[str(row["stream_id"])] = agreed + images * agreement, seen + images

    @property
    def agreement(self) -> float:
        """The share of images with the same label."""
        return self._agreed / self.images if self.images else math.nan

    @property
    def difference(self) -> float:
        """The mean difference of objectives, see the class."""
        return self._difference / self._compared if self._compared else math.nan

    @property
    def forward_equivalents(self) -> tuple[float, float]:
        """The forward equivalents of the staged pair, and of the serving one on the same batches."""
        if not self.images:
            return math.nan, math.nan
        return self._forwards / self.images, self._served_forwards / self.images

    def worst(self, most: int) -> list[tuple[str, float, int]]:
        """Return (camera, agreement, images) of the `most` cameras that agree least."""
        found = [(name, agreed / seen, seen) for name, (agreed, seen) in self.streams.items()]
        return sorted(found, key=lambda each: (each[1], each[0]))[:most]


def sum_shadow(store: Store, pair: str) -> ShadowSums:
    """Return the sums of a pair's shadow over the traces of a root, read from the newest file back.

    Files that cannot be read are left out (`ShadowSums.damaged`). Raises StoreUnavailable.
    """
    sums = ShadowSums()
    for keys in chains(store).values():
        without = 0
        for key in reversed(keys):
            try:
                found = _rows(store, layout.traces_key(key), pair)
                for row in found:
                    sums.add(row)
            except (ChainError, ValueError) as error:
                sums.damaged.append(str(error))
                continue
            without = 0 if found else without + 1
            if without > _BACK:
                break
    return sums


def _rows(store: Store, key: str, pair: str) -> list[dict[str, object]]:
    file = store.open(key)
    if file is None:  # traces of the newest segment, written in a moment
        return []
    with arrow_errors(f"{store}: {key}"), file:
        opened = pq.ParquetFile(file)
        if not set(_COLUMNS) <= set(opened.schema_arrow.names):  # of an earlier version
            return []
        rows: list[dict[str, object]] = opened.read(columns=list(_COLUMNS)).to_pylist()
    return [row for row in rows if row["shadow_pair"] == pair]
