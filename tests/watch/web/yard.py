"""Rows made by hand for the live page: as many cameras as asked for, of every state, one of them with hostile names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random

from adawise.app.http import rows_port
from adawise.settings import HttpSettings
from adawise.watch.details import HintPlaces
from adawise.watch.row import STEP_S, STEPS, CameraRow, CameraState, CameraView, ConditionRow, LiveView

NOW_S = 1_790_812_800.0
HOSTILE = "</script><img src=x onerror=alert(1)>\u202ereversed${alert(2)}"
CLASSES = ("car", "pedestrian", "truck", "bicycle", "bus", "road works", "empty street")
TROUBLE = {
    3: (CameraState.FAILING, "its rows have waited 4 min to be written"),
    7: (CameraState.REJECTED, "212 of 900 images rejected in 5 min: bad_arrow"),
    11: (CameraState.SILENT, "no image for 6 min"),
    12: (CameraState.SILENT, "no image for 2.1 h"),
    20: (CameraState.CHANGED, "alpha went from 0.22 to 0.61"),
    23: (CameraState.CHANGED, "its images changed suddenly, and adaptation started anew"),
}


@dataclass
class Yard:
    """A `Provider` whose rows a test changes."""

    rows: list[CameraRow]
    now_s: float = NOW_S
    facts: tuple[tuple[str, str], ...] = (
        ("state", "ready"),
        ("images/s", "512.4"),
        ("forwards per image (FE)", "1.12"),
        ("lag", "0"),
    )
    notices: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    views: int = 0

    def view(self) -> LiveView:
        self.views += 1
        return LiveView("street by host:1234", self.now_s, list(self.rows), self.facts, tuple(self.notices))

    def camera(self, key: str) -> CameraView | None:
        row = next((row for row in self.rows if row.key == key), None)
        return None if row is None else a_view(row, self.now_s)

    def picture(self, key: str) -> bytes | None:
        return self.pictures.get(key)

    def change(self, number: int, **fields: object) -> None:
        self.rows[number] = replace(self.rows[number], **fields)  # type: ignore[arg-type]


def a_row(number: int, name: str | None = None) -> CameraRow:
    """A camera with a path of its own; a few numbers are in trouble."""
    rng = Random(number)
    state, why = TROUBLE.get(number % 200, (CameraState.OK, ""))
    at, level = [], rng.random()
    for step in range(STEPS):
        if rng.random() < 0.04:
            level = rng.random()
        aim = level + 0.04 * math.sin(step / 9 + number)
        at.append(round(min(1.0, max(0.0, aim)), 3))
    alphas = tuple(at[: STEPS - 70] if state == CameraState.SILENT else at)
    shares = sorted((rng.random() ** 2 for _ in range(4)), reverse=True)
    classes = rng.sample(CLASSES, 4)
    return CameraRow(
        stream_id=name if name is not None else f"gate-{number:04d}",
        partition=f"street/{number % 12}",
        state=state,
        why=why,
        alpha=alphas[-1],
        condition=number % 17,
        returns=number % 5 * number % 23,
        first_step=int(NOW_S // STEP_S) - STEPS + 1,
        alphas=alphas,
        classes=tuple((label, share / sum(shares)) for label, share in zip(classes, shares, strict=True)),
        images_per_s=0.0 if state == CameraState.SILENT else round(1 + 6 * rng.random(), 2),
        images=rng.randrange(1_000, 90_000),
        rejected=212 if state == CameraState.REJECTED else 0,
        forward_equivalents=round(1 + 1.4 * rng.random() ** 4, 2),
        agreement=round(0.6 + 0.39 * rng.random(), 2),
        confidence=0.8,
        lag=4_812 if state == CameraState.FAILING else rng.randrange(3),
        last_seen_s=NOW_S - (400 if state == CameraState.SILENT else 5 * rng.random()),
    )


def a_view(row: CameraRow, now_s: float = NOW_S) -> CameraView:
    """The page of a camera, with texts of its row in all of its parts."""
    name = row.stream_id
    return CameraView(
        title="street by host:1234",
        now_s=now_s,
        row=row,
        facts=[
            ("Last minutes", [("images/s", f"{row.images_per_s:.1f}"), ("entropy", "0.42 nats")]),
            (f"Partition {row.partition}", [("lag", str(row.lag)), ("model (fingerprint)", name)]),
        ],
        conditions=[
            ConditionRow(row.condition or 0, row.alpha, now_s - 4.0, row.returns, True),
            ConditionRow(99, 0.25, now_s - 7_200.0, 1, False),
            ConditionRow(98, 0.75, None, 0, False),
        ],
        conditions_seen=100,
        hints=HintPlaces("runs/street", "street").hints(name, rejected=row.rejected),
    )


def a_yard(count: int) -> Yard:
    """So many cameras."""
    return Yard([a_row(number) for number in range(count)])


@contextmanager
def shown(yard: Yard, **settings: object) -> Iterator[str]:
    """The page of a yard, on a real port."""
    with rows_port(HttpSettings.model_validate({"port": 0, **settings}), yard) as url:
        yield url
