"""Fleets of cameras over weeks whose happenings are known: what their workers would have written of each batch.

A camera has days, weekends, weather that lasts for days, scenes that last for hours, and rows that follow each other in
clusters: a world in which nothing happens is not white noise. Its alpha is what the default strategy serves (see
`simulate`). What happens is a script of a few lines (`KINDS`), and each says which measures it moves for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.signal import lfilter

from adawise.sink import claims, schemas
from adawise.store.store import LocalStore
from tests.drift.simulate import Path, served

Series = npt.NDArray[np.float64]
Shape = Literal["step", "ramp", "spike", "unrest", "cycle", "ended", "silence", "model"]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
BEGIN_US = 1_780_272_000_000_000  # 2026-06-01, a Monday
IMAGES = 32
CLASSES = ("car", "bus", "lorry", "bicycle", "person", "dog", "empty road", "tram")
PIXELS = ("luminance", "contrast", "gradient", "laplacian", "colourfulness")
_GRID = 360  # a day: what is latent is drawn every four minutes
_RATES = (3.2, 2.1, 1.6)  # images a minute, so that a batch takes ten to twenty minutes


@dataclass(frozen=True)
class Happening:
    """Something that happens to a camera between two times (equal for a step), and what it surely moves.

    `moves`: the measures of which one at least should tell it. `touches`: measures that may follow.
    """

    kind: str
    shape: Shape
    since_us: int
    until_us: int
    moves: tuple[str, ...]
    touches: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CameraWorld:
    """A camera: a row a batch in each column, and what is true of it."""

    name: str
    columns: Mapping[str, Any]
    counts: npt.NDArray[np.int64]  # [batches, CLASSES]
    labelled: npt.NDArray[np.int64]
    correct: npt.NDArray[np.int64]
    happenings: tuple[Happening, ...]
    days: float


@dataclass
class Latent:
    """What a camera is like at each of the times `[n]`; happenings change it before anything is drawn from it."""

    at_us: npt.NDArray[np.int64]
    optimum: Series
    severity: Series  # of the shift: costs accuracy and confidence
    activity: Series  # images, relative to its usual
    mix: Series  # [n, CLASSES], logarithms of weights
    pixels: dict[str, Series]
    confidence: Series  # added
    accuracy: Series  # added
    agreement: Series  # added
    rejects: Series  # share
    forwards: Series  # added
    models: Series  # 0 or 1
    happenings: list[Happening] = field(default_factory=list)

    def after(self, at_us: float) -> Series:
        """`[n]`: 0 before a time, and 1 from it on."""
        return (self.at_us >= at_us).astype(np.float64)

    def between(self, since_us: float, until_us: float) -> Series:
        """`[n]`: 1 within."""
        return self.after(since_us) - self.after(until_us)

    def rising(self, since_us: float, until_us: float) -> Series:
        """`[n]`: from 0 to 1 in between."""
        return np.clip((self.at_us - since_us) / (until_us - since_us), 0.0, 1.0)


def camera(
    seed: int, number: int, *, days: int = 30, kinds: Sequence[str] = (), labels: bool = False, searched: bool = True
) -> CameraWorld:
    """That camera of the world with that seed, with these happenings, each at a time of its own.

    Its alpha is what the strategy serves, or, to be there at once, the best one with noise that lasts.
    """
    rng = np.random.default_rng([seed, number])
    latent = _still(rng, days)
    for place, kind in enumerate(kinds):
        span = days * DAY_US / len(kinds)
        since_us = BEGIN_US + place * span
        KINDS[kind](latent, rng, since_us + 0.25 * span, since_us + 0.75 * span)
    return _observed(f"camera-{number:03d}", latent, rng, days, labels=labels, searched=searched)


def fleet(seed: int, *, cameras: int = 40, days: int = 30) -> list[CameraWorld]:
    """Of so many cameras, a quarter of which have nothing happen; the rest one thing or two. A third has labels."""
    return [camera(seed, number, days=days, **fields) for number, fields in enumerate(script(seed, cameras))]


def script(seed: int, cameras: int = 40) -> list[dict[str, Any]]:
    """What happens to each: every kind once in a fleet of 40, in an order of its own."""
    rng = np.random.default_rng([seed, 1_000_000])
    drawn = list(rng.permutation(list(KINDS)))
    drawn += list(rng.choice(list(KINDS), max(0, cameras - len(drawn))))
    received = []
    for number in range(cameras):
        kinds = () if number % 4 == 3 else tuple(str(drawn.pop()) for _ in range(1 + (number % 4 == 1)))
        received.append({"kinds": kinds, "labels": number % 3 == 0})
    return received


def _still(rng: np.random.Generator, days: int) -> Latent:
    """A camera to which nothing happens but days, nights, weekends, weather and scenes."""
    n = days * _GRID
    at_us = BEGIN_US + (np.arange(n) * (DAY_US / _GRID)).astype(np.int64)
    hour, day = (at_us % DAY_US) / HOUR_US, (at_us - BEGIN_US) // DAY_US
    sun = 1.0 / (1.0 + np.exp(-3.0 * (6.0 - np.abs(hour - rng.uniform(12.0, 14.0)))))
    weather = _lasting(rng, days + 1, 1.5)
    sky = np.interp(np.arange(n) / _GRID, np.arange(days + 1), weather)
    is_inside = rng.uniform() < 0.25
    depth = 0.1 if is_inside else rng.uniform(0.3, 1.0)

    def check(per_sun: float, per_sky: float, scene: float) -> Series:
        lit = per_sun * depth * sun * (1.0 + 0.15 * sky) + per_sky * depth * sky
        return rng.uniform(-2.0, -0.5) + lit + scene * _lasting(rng, n, rng.uniform(8, 30))

    pixels = {
        "luminance": check(1.5, 0.06, 0.05),
        "contrast": check(0.6, -0.06, 0.05),
        "gradient": check(0.3, 0.02, 0.04),
        "laplacian": check(-0.4, 0.01, 0.03),
        "colourfulness": check(0.8, 0.08, 0.05),
    }
    weekend = np.isin((day % 7), (5, 6)) * rng.choice([0.0, 0.0, -0.7])
    traffic = np.exp(-((hour - 8.0) ** 2) / 8.0) + np.exp(-((hour - 17.5) ** 2) / 10.0)
    counts_traffic = rng.uniform() < 0.6
    activity = np.exp(weekend + 0.2 * _lasting(rng, n, 15)) * (0.15 + traffic) if counts_traffic else np.ones(n)
    base = np.log(rng.dirichlet(np.full(len(CLASSES), 0.8)) + 0.01)
    tilt = rng.normal(size=len(CLASSES)) * rng.uniform(0.0, 0.8)
    mix = base + np.outer(sun, tilt) + np.outer(weekend, rng.normal(size=len(CLASSES)) * 0.5)
    mix += np.stack([0.35 * _lasting(rng, n, 30) + 0.1 * _lasting(rng, n, 360) for _ in CLASSES], axis=1)
    swing = rng.choice([0.0, rng.uniform(0.05, 0.3)])
    night = (1.0 - sun) * (1.0 + 0.12 * sky) * (0.0 if is_inside else 1.0)
    optimum = np.clip(rng.uniform(0.15, 0.85 - swing) + swing * night, 0.0, 1.0)
    severity = 0.15 * swing / 0.3 * night + 0.012 * _lasting(rng, n, 30) + 0.006 * sky
    return Latent(
        at_us, optimum, severity, activity, mix, pixels, np.zeros(n), np.zeros(n), np.zeros(n),
        rejects=np.full(n, rng.choice([0.0, 0.0, 0.001])) * np.exp(0.5 * _lasting(rng, n, 60)),
        forwards=np.zeros(n), models=np.zeros(n),
    )  # fmt: skip


def _lasting(rng: np.random.Generator, n: int, memory: float) -> Series:
    """`[n]`: of variance 1, each value kept for about so many."""
    keep = np.exp(-1.0 / memory)
    shocks = rng.normal(size=n) * np.sqrt(1.0 - keep**2)
    shocks[0] = rng.normal()
    found: Series = lfilter([1.0], [1.0, -keep], shocks)
    return found


def _observed(
    name: str, latent: Latent, rng: np.random.Generator, days: int, *, labels: bool, searched: bool
) -> CameraWorld:
    """What the worker writes: a batch is closed by its last image."""
    latent.activity /= latent.activity[latent.activity > 0].mean()
    images = np.cumsum(latent.activity * rng.choice(_RATES) * 1440 / _GRID)
    at = np.searchsorted(images, np.arange(IMAGES, images[-1], IMAGES))
    n = len(at)
    at_us = latent.at_us[at] + (rng.uniform(0, DAY_US / _GRID, n)).astype(np.int64)
    at_us = np.maximum.accumulate(at_us) + np.arange(n)
    optimum, severity = latent.optimum[at], latent.severity[at]
    depth = rng.uniform(0.15, 0.5)
    path = Path(at_us, optimum, ())
    alpha = served(path, rng) if searched else np.clip(optimum + 0.05 * _lasting(rng, n, 12), 0.0, 1.0)
    weights = np.exp(latent.mix[at])
    shares = weights / weights.sum(axis=1, keepdims=True)
    rows = 4 * rng.multinomial(IMAGES // 4, shares)  # neighbours show the same
    surely = rng.uniform(0.75, 0.92) + rng.normal(size=len(CLASSES)) * 0.06
    seen = rows @ surely / IMAGES
    accuracy = np.clip(seen - 0.05 - severity + latent.accuracy[at], 0.02, 0.99)
    confidence = seen - 0.6 * severity + latent.confidence[at] + rng.normal(size=n) * 0.03
    agree = np.clip(0.85 - 0.5 * severity + latent.agreement[at] + rng.normal(size=n) * 0.05, 0.02, 0.99)
    compared = rng.choice([0, 8, IMAGES], n, p=[0.8, 0.12, 0.08])
    many = rng.choice([0.0, 0.25, 0.5, 1.0], n, p=[0.7, 0.2, 0.07, 0.03])
    objective = 1.0 + severity + depth * (alpha - optimum) ** 2 + rng.normal(size=n) * 0.12 + 2.0 * (seen.mean() - seen)
    labelled = rng.binomial(IMAGES, 0.08, n) if labels else np.zeros(n, np.int64)
    columns: dict[str, Any] = {
        "captured_at": at_us,
        "images": np.full(n, IMAGES),
        "alpha": alpha,
        "objective": objective,
        "mean_confidence": np.clip(confidence, 0.02, 1.0),
        "compared": compared,
        "agreed": rng.binomial(compared, agree),
        "rejected": rng.poisson(IMAGES * latent.rejects[at]),
        "forward_equivalents": 1.0 + many + latent.forwards[at] * rng.uniform(0.5, 1.5, n),
        "model_fingerprint": np.where(latent.models[at] > 0, "fedcba9876543210", "0123456789abcdef"),
    }
    for kind in PIXELS:
        columns[f"{kind}_mean"] = latent.pixels[kind][at] + rng.normal(size=n) * 0.03
    passing_by(columns, rng)
    return CameraWorld(
        name, columns, rows, labelled, rng.binomial(labelled, accuracy), tuple(latent.happenings), float(days)
    )


def passing_by(columns: dict[str, Any], rng: np.random.Generator) -> None:
    """A van before the lens, a flash, a damaged image: for a batch or two, now and then, of every second camera."""
    n = len(columns["images"])
    if rng.uniform() < 0.5:
        return
    for start in np.flatnonzero(rng.uniform(size=n) < 0.008):
        part = slice(start, start + int(rng.integers(1, 3)))
        columns["luminance_mean"][part] += _sized(rng, 0.5, 1.5)
        columns["contrast_mean"][part] -= rng.uniform(0.3, 1.0)
        columns["gradient_mean"][part] -= rng.uniform(0.3, 1.0)
        columns["mean_confidence"][part] = np.maximum(columns["mean_confidence"][part] - rng.uniform(0.1, 0.4), 0.02)
        columns["objective"][part] += rng.uniform(0.1, 0.6)
        columns["rejected"][part] += rng.poisson(0.5)


# -- what may happen: each changes the latent camera at a time between two, and says so

Script = Callable[[Latent, np.random.Generator, float, float], None]


def _a_time(rng: np.random.Generator, since_us: float, until_us: float) -> int:
    return int(rng.uniform(since_us, until_us))


def _sized(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high) * rng.choice([-1.0, 1.0]))


def _script_row(
    latent: Latent, kind: str, shape: Shape, since: float, until: float, moves: str, touches: str = ""
) -> None:
    latent.happenings.append(
        Happening(kind, shape, int(since), int(until), tuple(moves.split()), tuple(touches.split()))
    )


def _alpha_moved(latent: Latent, rng: np.random.Generator, weight: Series, least: float = 0.12) -> None:
    low, high = latent.optimum.min(), latent.optimum.max()
    size = rng.uniform(least, max(least + 0.1, 0.9 - (high - low)))
    latent.optimum += size * weight * (1.0 if low + high < 1.0 else -1.0)
    np.clip(latent.optimum, 0.0, 1.0, out=latent.optimum)


def alpha_step(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """The best alpha is another one."""
    at = _a_time(rng, since, until)
    _alpha_moved(latent, rng, latent.after(at))
    _script_row(latent, "alpha step", "step", at, at, "alpha", "objective forwards")


def alpha_ramp(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """It goes there within days."""
    at = _a_time(rng, since, until)
    end = at + rng.uniform(3, 6) * DAY_US
    _alpha_moved(latent, rng, latent.rising(at, end), 0.35)
    _script_row(latent, "alpha ramp", "ramp", at, end, "alpha", "objective forwards")


def fog(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """For a day nothing is to be seen well."""
    at = _a_time(rng, since, until)
    end = at + rng.uniform(12, 30) * HOUR_US
    weight = latent.between(at, end)
    _alpha_moved(latent, rng, weight, 0.35)
    latent.severity += weight * rng.uniform(0.2, 0.4)
    latent.pixels["contrast"] -= weight * rng.uniform(0.5, 1.0)
    latent.pixels["gradient"] -= weight * rng.uniform(0.3, 0.6)
    touches = "objective agreement forwards accuracy mix"
    _script_row(latent, "fog", "spike", at, end, "alpha confidence contrast sharpness", touches)


def confidence_step(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """The pictures are such as neither model knows: no alpha is better, and it costs accuracy."""
    at, size = _a_time(rng, since, until), rng.uniform(0.06, 0.4)
    latent.severity += size / 0.6 * latent.after(at)
    _script_row(latent, "confidence step", "step", at, at, "confidence", "objective agreement accuracy")


def confidence_ramp(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """The same within a week."""
    at = _a_time(rng, since, until)
    end = at + rng.uniform(4, 8) * DAY_US
    latent.severity += rng.uniform(0.15, 0.5) * latent.rising(at, end)
    _script_row(latent, "confidence ramp", "ramp", at, end, "confidence", "objective agreement accuracy")


def silent_mistakes(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Both models are sure of what is wrong: labels alone tell."""
    at = _a_time(rng, since, until)
    latent.accuracy -= rng.uniform(0.12, 0.5) * latent.after(at)
    _script_row(latent, "silent mistakes", "step", at, at, "accuracy")


def mix_step(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Another thing is in front of the camera."""
    at, who = _a_time(rng, since, until), int(rng.integers(len(CLASSES)))
    share = np.exp(latent.mix[:, who]) / np.exp(latent.mix).sum(axis=1)
    wanted = np.clip(share.mean() + rng.uniform(0.15, 0.5), 0.0, 0.95)
    lift = np.log(wanted / (1 - wanted)) - np.log(share.mean() / (1 - share.mean()))
    latent.mix[:, who] += lift * latent.after(at)
    _script_row(latent, "mix step", "step", at, at, "mix", "confidence objective accuracy")


def rejects_step(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """A camera that sends damaged images from then on."""
    at = _a_time(rng, since, until)
    latent.rejects += rng.uniform(0.02, 0.3) * latent.after(at)
    _script_row(latent, "rejects step", "step", at, at, "rejects", "rate")


def rejects_spike(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Damaged images for a few hours."""
    at = _a_time(rng, since, until)
    end = at + rng.uniform(3, 10) * HOUR_US
    latent.rejects += rng.uniform(0.15, 0.5) * latent.between(at, end)
    _script_row(latent, "rejects spike", "spike", at, end, "rejects", "rate")


def rate_step(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Half of the images, or twice as many."""
    at, size = _a_time(rng, since, until), _sized(rng, 0.35, 1.2)
    latent.activity *= np.exp(size * latent.after(at))
    _script_row(latent, "rate step", "step", at, at, "rate")


def silence(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Nothing for a day or two."""
    at = _a_time(rng, since, until)
    end = at + rng.uniform(24, 60) * HOUR_US
    latent.activity *= 1.0 - latent.between(at, end)
    _script_row(latent, "silence", "silence", at, end, "rate")


def ended(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Nothing any more."""
    at = _a_time(rng, since, until)
    latent.activity *= 1.0 - latent.after(at)
    latent.happenings[:] = [each for each in latent.happenings if each.until_us < at]
    _script_row(latent, "ended", "ended", at, at, "rate")


def exposure(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Somebody set the camera's exposure."""
    at = _a_time(rng, since, until)
    latent.pixels["luminance"] += _sized(rng, 0.3, 1.0) * latent.after(at)
    _script_row(latent, "exposure", "step", at, at, "brightness")


def dirt(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """A lens that becomes dirty within a week."""
    at = _a_time(rng, since, until)
    end = at + rng.uniform(4, 8) * DAY_US
    weight = latent.rising(at, end)
    latent.pixels["contrast"] -= rng.uniform(0.25, 1.0) * weight
    latent.pixels["gradient"] -= rng.uniform(0.2, 0.8) * weight
    _script_row(latent, "dirt", "ramp", at, end, "contrast sharpness", "noise")


def sensor_noise(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """A sensor that fails."""
    at = _a_time(rng, since, until)
    latent.pixels["laplacian"] += rng.uniform(0.15, 0.8) * latent.after(at)
    _script_row(latent, "sensor noise", "step", at, at, "noise")


def grey(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Infrared by mistake."""
    at = _a_time(rng, since, until)
    latent.pixels["colourfulness"] -= rng.uniform(0.3, 1.5) * latent.after(at)
    _script_row(latent, "grey", "step", at, at, "colour")


def disagreement(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """One of the two models does not know what comes."""
    at = _a_time(rng, since, until)
    latent.agreement -= rng.uniform(0.12, 0.5) * latent.after(at)
    _script_row(latent, "disagreement", "step", at, at, "agreement")


def busy_search(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """A search that finds no rest."""
    at = _a_time(rng, since, until)
    latent.forwards += rng.uniform(0.2, 1.0) * latent.after(at)
    _script_row(latent, "busy search", "step", at, at, "forwards")


def dark_nights(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """The lamp is broken: from then on nights need another alpha than days."""
    at = _a_time(rng, since, until)
    _nights(latent, rng, latent.after(at))
    _script_row(
        latent,
        "dark nights",
        "cycle",
        at,
        at,
        "alpha confidence brightness",
        _OF_NIGHTS,
    )


def lamp_mended(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """The other way round."""
    at = _a_time(rng, since, until)
    _nights(latent, rng, 1.0 - latent.after(at))
    _script_row(
        latent,
        "lamp mended",
        "cycle",
        at,
        at,
        "alpha confidence brightness",
        _OF_NIGHTS,
    )


_OF_NIGHTS = "objective agreement accuracy forwards mix"


def _nights(latent: Latent, rng: np.random.Generator, weight: Series) -> None:
    hour = (latent.at_us % DAY_US) / HOUR_US
    night = 1.0 / (1.0 + np.exp(3.0 * (6.0 - np.abs(hour - 13.0))))
    _alpha_moved(latent, rng, weight * night, 0.35)
    latent.severity += rng.uniform(0.15, 0.3) * weight * night
    latent.pixels["luminance"] -= rng.uniform(0.8, 1.5) * weight * night


def unrest(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Alpha goes to and fro every few hours."""
    at = _a_time(rng, since, until)
    hours = rng.uniform(6, 10)
    turns = ((latent.at_us - at) // int(hours * HOUR_US)) % 2
    _alpha_moved(latent, rng, turns * latent.after(at), 0.35)
    _script_row(latent, "unrest", "unrest", at, int(latent.at_us[-1]), "alpha", "objective forwards")


def new_pair(latent: Latent, rng: np.random.Generator, since: float, until: float) -> None:
    """Another pair serves, and alpha stays."""
    at = _a_time(rng, since, until)
    latent.models += latent.after(at)
    _script_row(latent, "new pair", "model", at, at, "model")


KINDS: Mapping[str, Script] = {
    script.__name__: script
    for script in (
        alpha_step, alpha_ramp, fog, confidence_step, confidence_ramp, silent_mistakes, mix_step, rejects_step,
        rejects_spike, rate_step, silence, ended, exposure, dirt, sensor_noise, grey, disagreement, busy_search,
        dark_nights, lamp_mended, unrest, new_pair,
    )
}  # fmt: skip


# -- as tables


def as_tables(connection: duckdb.DuckDBPyConnection, worlds: Sequence[CameraWorld]) -> bool:
    """Make `traces` and the other tables that the analysis asks, and `labelled` if a camera has labels."""
    connection.execute("SET TimeZone = 'UTC'")
    for name, rows in (("traces", traces(worlds)), ("predictions", schemas.PREDICTIONS.empty_table())):
        connection.register("made", rows)
        connection.execute(f"CREATE TABLE {name} AS SELECT *, captured_at AS time FROM made")
        connection.unregister("made")
    connection.execute("CREATE TABLE levels (alpha DOUBLE, reference DOUBLE)")
    connection.register("made", _labelled(worlds))
    connection.execute("CREATE TABLE labelled AS SELECT *, captured_at AS time FROM made")
    return any(world.labelled.any() for world in worlds)


def _labelled(worlds: Sequence[CameraWorld]) -> pa.Table:
    """A row a labelled image, `label` and `truth` the same where it was right."""
    names: list[str] = []
    times, correct = [np.empty(0, np.int64)], [np.empty(0, bool)]
    for world in worlds:
        names += [world.name] * int(world.labelled.sum())
        times.append(np.repeat(world.columns["captured_at"], world.labelled))
        place = np.arange(int(world.labelled.sum())) - np.repeat(
            np.cumsum(world.labelled) - world.labelled, world.labelled
        )
        correct.append(place < np.repeat(world.correct, world.labelled))
    truth = np.where(np.concatenate(correct), "car", "bus")
    at = pa.array(np.concatenate(times), pa.timestamp("us", tz="UTC"))
    return pa.table({"stream_id": names, "captured_at": at, "label": ["car"] * len(names), "truth": truth})


def traces(worlds: Sequence[CameraWorld]) -> pa.Table:
    """The rows of `traces` of these cameras."""
    parts = []
    for place, world in enumerate(worlds):
        n = len(world.counts)
        known: dict[str, Any] = {
            "topic": ["frames"] * n,
            "partition": np.full(n, place),
            "first_offset": IMAGES * np.arange(n),
            "last_offset": IMAGES * np.arange(n) + IMAGES - 1,
            "stream_id": [world.name] * n,
            "batch_number": np.arange(n),
            "trials": [[]] * n,
            "trigger": ["none"] * n,
            "posterior_mean": np.zeros(n),
            "posterior_sd": np.full(n, 0.2),
            "audit_regret": np.full(n, np.nan),
            "milliseconds": [{}] * n,
            "class_counts": _maps(world.counts),
            **world.columns,
        }
        parts.append(pa.table([_array(known, column, n) for column in schemas.TRACES], schema=schemas.TRACES))
    return pa.concat_tables(parts)


def with_conditions(world: CameraWorld, condition: npt.NDArray[np.int64]) -> CameraWorld:
    """As a worker writes it: all batches of a visit say whether the stream was there before."""
    began = np.maximum.accumulate(np.where(np.diff(condition, prepend=-1) != 0, np.arange(len(condition)), 0))
    returned = np.array([condition[n] in condition[:first] for n, first in enumerate(began)])
    fields = {"condition": condition, "returned": returned, "alarm": condition == 1}
    return replace(world, columns={**world.columns, **fields})


def write(root: FilePath, worlds: Sequence[CameraWorld], until_us: int | None = None) -> FilePath:
    """As a root: a file of traces for each camera, up to a time; it has no rows, and no footers of a chain."""
    claims.sink_id(LocalStore(root), created_at="2026-06-01T00:00:00+00:00")
    rows = traces(worlds)
    for place in range(len(worlds)):
        of_it = rows.filter(pa.compute.equal(rows["partition"], place))
        if until_us is not None:
            of_it = of_it.filter(pa.compute.less(of_it["captured_at"].cast(pa.int64()), until_us))
        for dataset, table in (("traces", of_it), ("predictions", schemas.PREDICTIONS.empty_table())):
            folder = root / dataset / "topic-frames" / f"partition-{place:05d}"
            folder.mkdir(parents=True)
            pq.write_table(table, folder / f"{0:020d}.parquet")
    return root


def _maps(counts: npt.NDArray[np.int64]) -> pa.Array:
    row, kind = np.nonzero(counts)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(counts)))])
    keys = pa.array(np.array(CLASSES, dtype=object)[kind], pa.string())
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, pa.array(counts[row, kind], pa.int32()))


def _array(known: Mapping[str, Any], column: pa.Field, n: int) -> pa.Array:
    if column.name not in known:
        return pa.nulls(n, column.type) if column.nullable else pa.array([""] * n, column.type)
    values = known[column.name]
    if isinstance(values, pa.Array):
        return values.cast(column.type)
    kind = pa.int64() if pa.types.is_timestamp(column.type) else column.type
    return pa.array(values, kind).cast(column.type)
