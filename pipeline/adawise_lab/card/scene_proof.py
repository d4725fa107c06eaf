"""Is `scene_label` better than `label`? A comparison on labels that came late, and the decision to serve it or not.

Both labels of an image are in its row, so that neither the images nor the model are needed. Cameras and batches are
drawn whole (`labels/benefit/bootstrap.py`), because a scene is right or wrong for a whole camera at a time. The mean
gain may hide a camera for which `scene_label` is worse. Its own labels are few, so its gain is drawn towards the mean
of all as far as chance explains the difference (the estimator of DerSimonian and Laird, 1986, for the spread).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from adawise.adapt.shortlist import Shortlists
from adawise.app.parts import scene_digest, shortlists
from adawise.app.prompts import read_lines
from adawise.card.card import Card, SceneProof
from adawise.errors import SettingsError
from adawise.labels.arrays import Floats
from adawise.labels.benefit.bootstrap import Kinds, gain_over_cameras
from adawise.labels.benefit.helped import Interval
from adawise.labels.join import label
from adawise.output.read.rows import read_predictions, read_traces
from adawise.settings import Settings
from adawise.sink.segment import read_footer
from adawise.sink.served_by import ServedSettings, read_settings
from adawise.sink.walk import chains
from adawise.store.store import Store, open_store
from adawise_lab.card.late_labels import CONDITION

LEAST_LABELS, LEAST_BATCHES = 200, 40
"""The fewest labelled images, and batches that they are of, on which a decision is made."""

LEAST_OF_GROUP, LEAST_BATCHES_OF_GROUP = 50, 8
"""From so many labelled images and batches on, a camera or a condition is judged alone."""

BOUND = -0.01
"""The lowest gain of a camera or a condition, in accuracy, with which `scene_label` may be served."""


@dataclass(frozen=True, slots=True)
class BatchCount:
    """The labelled images of a batch: how many there are, and how many are right by `label` and by `scene_label`."""

    camera: str
    condition: str
    images: int
    label: int
    scene: int


@dataclass(frozen=True, slots=True)
class SceneComparison:
    """The proof, and notes on labels that were not used."""

    proof: SceneProof
    source: str
    notes: tuple[str, ...]


def compare_scene(
    settings: Settings, card: Card, root: str, *, file: str | None = None, within_us: int = 0
) -> SceneComparison:
    """Return what the labels of a root say of the scene of the settings, under this card.

    Args:
        settings: the settings of the workers.
        card: the card that they serve by.
        root: their output.
        file: a file of labels; None: those under the root, and those of the producer.
        within_us: how far a label's time may be from its frame's, microseconds.

    Raises:
        SettingsError: these settings have no scene, or too few labelled rows were served by them.
        ChainError, StoreUnavailable: the root cannot be read.
    """
    if not settings.scene.has_prior:
        raise SettingsError(
            "--recording is not given, and scene.prior is off: a recording is needed to correct the card, and to "
            "compare scene_label with label, workers that serve with scene.prior = beside"
        )
    assert settings.model.classes is not None  # the command line has checked it
    classes = read_lines(settings.model.classes, "model.classes", "class name")
    store = open_store(root)
    noted = read_settings(store)
    if not noted:
        raise SettingsError(
            f"{root} has no notes of the settings that served it, so that the card of its rows is not known: let "
            "workers of this version serve it first"
        )
    windows = _windows(store, noted, card.digest)
    if not windows:
        if any(each.settings.get("model.card") == card.digest for each in noted):
            raise SettingsError(
                f"{root}: the card {settings.model.card} served it, and so did others with the same pair; which rows "
                "were served by which is in the segments, and those of this card were deleted. Label images that "
                "are served from now on"
            )
        raise SettingsError(
            f"{root}: no worker has served it by the card {settings.model.card} ({card.digest}); name the card of the "
            "workers as model.card, or the root of a worker that has it"
        )
    counts, source, notes = _counted(settings, windows, root, classes, file, within_us)
    return SceneComparison(decide(counts, scene_digest(settings.scene), root, notes), source, notes)


def decide(counts: Sequence[BatchCount], settings: str, root: str, notes: Sequence[str] = ()) -> SceneProof:
    """Return the proof by the labelled images of batches.

    The interval of few cameras is widened by Student's t, because the percentiles of so few draws are too narrow.

    Args:
        counts: the labelled images of each batch.
        settings: the digest of the settings of the scene.
        root: as messages name it.
        notes: what did not count, for the message where too little is left.

    Raises:
        SettingsError: there are too few.
    """
    images, batches = sum(each.images for each in counts), len(counts)
    if images < LEAST_LABELS or batches < LEAST_BATCHES:
        because = f" ({'; '.join(notes)})" if notes else ""
        raise SettingsError(
            f"{root}: expected at least {LEAST_LABELS} labelled images of {LEAST_BATCHES} batches that were served "
            f"with scene_label, by this card and these settings of the scene; there are {images} of {batches}"
            f"{because}. Label more, an image or two of a batch, of all cameras"
        )
    cameras: dict[str, list[BatchCount]] = {}
    for each in counts:
        cameras.setdefault(each.camera, []).append(each)
    by_camera = [cameras[name] for name in sorted(cameras)]
    gain = _widened(gain_over_cameras([*map(_kinds, by_camera)], seed=0), by_camera)
    found = _worst([_groups(counts, "camera"), _groups(counts, "condition")])
    worst, worst_gain = found if found is not None else ("", gain.value)
    return SceneProof(
        settings=settings,
        label=sum(each.label for each in counts) / images,
        gain=(gain.value, gain.low, gain.high),
        worst=worst,
        worst_gain=worst_gain,
        bound=BOUND,
        images=images,
        batches=batches,
        cameras=len(cameras),
        proves=gain.low > 0.0 and worst_gain >= BOUND,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _widened(gain: Interval, cameras: Sequence[Sequence[BatchCount]]) -> Interval:
    """Return the interval, widened by Student's t; that of one camera is of its batches alone.

    The variance has two parts, each with degrees of freedom of its own: what cameras differ by, and what the batches of
    a camera differ by. Those of their sum are from Satterthwaite (1946, equation 17). So a few cameras that agree
    prove as much as their batches do.
    """
    if len(cameras) < 2:
        return gain
    images = sum(each.images for batches in cameras for each in batches)
    between = within = 0.0
    for batches in cameras:
        n = sum(each.images for each in batches)
        own = sum(each.scene - each.label for each in batches) / n
        residuals = [each.scene - each.label - own * each.images for each in batches]
        between += (n / images * (own - gain.value)) ** 2
        within += sum(each * each for each in residuals) / images**2
    of_cameras, of_batches = len(cameras) - 1, sum(map(len, cameras)) - len(cameras)
    if not between or not of_batches:
        return gain
    # Cameras that are drawn with replacement differ by too little, as a variance does that is divided by n.
    unbiased = between * len(cameras) / of_cameras
    freedom = (unbiased + within) ** 2 / (unbiased**2 / of_cameras + within**2 / of_batches)
    factor = sqrt((unbiased + within) / (between + within)) * float(stdtrit(freedom, 0.975) / ndtri(0.975))
    low, high = gain.value - factor * (gain.value - gain.low), gain.value + factor * (gain.high - gain.value)
    return replace(gain, low=max(-1.0, low), high=min(1.0, high))


def _kinds(counts: Sequence[BatchCount]) -> Kinds:
    rows = np.array([(each.images, each.label, each.scene) for each in counts], np.int64)
    kinds, times = np.unique(rows, axis=0, return_counts=True)
    return Kinds(kinds[:, 0], kinds[:, 1], kinds[:, 2], times.astype(np.int64))


def _groups(counts: Sequence[BatchCount], by: str) -> dict[str, Floats]:
    """Return images and gained images of each batch, `[B, 2]`, of each group with enough labels."""
    found: dict[str, list[tuple[int, int]]] = {}
    for each in counts:
        found.setdefault(getattr(each, by), []).append((each.images, each.scene - each.label))
    groups = {name: np.array(rows, np.float64) for name, rows in found.items()}
    return {
        name: rows
        for name, rows in groups.items()
        if rows[:, 0].sum() >= LEAST_OF_GROUP and len(rows) >= LEAST_BATCHES_OF_GROUP
    }


def _worst(kinds_of_groups: Sequence[Mapping[str, Floats]]) -> tuple[str, float] | None:
    """Return the group with the lowest gain, and that gain as far as chance does not explain it; None without groups.

    Cameras are compared with cameras, conditions with conditions.
    """
    found = [(gain, name) for groups in kinds_of_groups if groups for name, gain in shrunken(groups).items()]
    if not found:
        return None
    gain, name = min(found)
    return name, gain


def shrunken(groups: Mapping[str, Floats]) -> dict[str, float]:
    """Return each group's gain, drawn towards the mean of all as far as chance explains its distance from it.

    Args:
        groups: by name, images and gained images of each batch, `[B, 2]`.
    """
    gains, variances = np.empty(len(groups)), np.empty(len(groups))
    for g, rows in enumerate(groups.values()):
        n = rows[:, 0].sum()
        gains[g] = rows[:, 1].sum() / n
        residual = rows[:, 1] - gains[g] * rows[:, 0]
        # One image's worth is added: where by chance no image differs, the gain is not known exactly.
        variances[g] = (len(rows) / (len(rows) - 1) * (residual @ residual) + 1.0) / n**2
    weights = 1.0 / variances
    mean = float(weights @ gains / weights.sum())
    Q = float(weights @ (gains - mean) ** 2)
    spread = max(0.0, (Q - (len(gains) - 1)) / float(weights.sum() - (weights @ weights) / weights.sum() or 1.0))
    weights = 1.0 / (variances + spread)
    mean = float(weights @ gains / weights.sum())
    kept = spread / (spread + variances)
    return dict(zip(groups, (mean + kept * (gains - mean)).tolist(), strict=True))


class _ServedWithCard(NamedTuple):
    """Rows of this model were served by the card if they were predicted after `since` and not after `until`.

    They are of one partition. A value that is None does not limit.
    """

    model: str
    topic: str | None = None
    partition: int | None = None
    since: datetime | None = None
    until: datetime | None = None


def _windows(store: Store, noted: Sequence[ServedSettings], card: str) -> list[_ServedWithCard]:
    """Return which rows were served by the card.

    All rows of a model that had no other card; else those that were predicted between the segment before and one whose
    footer names settings with this card. So rows whose segments were deleted after a compaction do not count then.
    """
    is_ours = {
        (each.model_fingerprint, each.config_fingerprint): each.settings.get("model.card") == card for each in noted
    }
    ours = {model for (model, _), ours in is_ours.items() if ours}
    others = {model for (model, _), ours in is_ours.items() if not ours}
    found = [_ServedWithCard(model) for model in sorted(ours - others)]
    if not ours & others:
        return found
    for tp, keys in chains(store).items():
        before: tuple[str | None, datetime | None] = (None, None)
        for key in keys:
            if (data := store.get(key)) is None:  # it was deleted since it was listed
                continue
            footer = read_footer(data, key)
            previous, since = before
            until, model = datetime.fromisoformat(footer.created_at), footer.model_fingerprint
            before = key, until
            is_known = footer.previous in (None, previous)
            if not (is_known and model in others and is_ours.get((model, footer.config_fingerprint), False)):
                continue
            if found and (last := found[-1])[:3] == (model, tp.topic, tp.partition) and since == last.until:
                found[-1] = last._replace(until=until)
            else:
                found.append(_ServedWithCard(model, tp.topic, tp.partition, since, until))
    return found


_KEY = ("topic", "partition", "stream_id")
_ROWS = (
    *(*_KEY, "offset", "index", "captured_at", "kafka_timestamp", "time", "status", "batch_number", "true_label"),
    *("label", "top_labels", "zero_shot_label", "fine_tuned_label"),
    *("scene_label", "model_fingerprint", "predicted_at"),
)
_BATCHES = (*_KEY, "batch_number", "first_offset", "last_offset", "condition", "shortlist", "scene_smoothing")
_RENAMED = (
    "topic AS t, partition AS p, stream_id AS s, batch_number AS b, first_offset, last_offset, condition, shortlist, "
    "scene_smoothing IS NOT NULL AS smooths"
)

_WINDOW = "model VARCHAR, topic VARCHAR, partition INTEGER, since TIMESTAMPTZ, until TIMESTAMPTZ"

_BY_BATCH = f"""
SELECT coalesce(stream_id, 'no name') AS camera, {CONDITION} AS condition,
       any_value(stream_id) AS stream_id, any_value(shortlist) AS shortlist, any_value(smooths) AS smooths,
       count(*) FILTER (NOT is_ours) AS others, count(*) FILTER (is_ours AND scene_label IS NULL) AS without,
       count(*) FILTER (is_ours AND scene_label IS NOT NULL) AS images,
       count(*) FILTER (is_ours AND scene_label IS NOT NULL AND label = truth) AS label,
       count(*) FILTER (is_ours AND scene_label = truth) AS scene
FROM (
    SELECT *, EXISTS (
        SELECT 1 FROM windows AS of WHERE model = model_fingerprint
            AND (of.topic IS NULL OR of.topic = labelled.topic AND of.partition = labelled.partition)
            AND (since IS NULL OR predicted_at > since) AND (until IS NULL OR predicted_at <= until)
    ) AS is_ours FROM labelled
) JOIN batches ON topic = t AND partition = p AND stream_id IS NOT DISTINCT FROM s AND batch_number = b
    AND "offset" BETWEEN first_offset AND last_offset
GROUP BY topic, partition, stream_id, first_offset
ORDER BY topic, partition, stream_id, first_offset
"""


def _counted(
    settings: Settings,
    windows: Sequence[_ServedWithCard],
    root: str,
    classes: Sequence[str],
    file: str | None,
    within_us: int,
) -> tuple[list[BatchCount], str, tuple[str, ...]]:
    """Return the batches whose labelled images count, the source of the labels, and notes on what does not count."""
    import duckdb  # `late_labels` says what to install without it

    from adawise.output.read.duckdb_rows import translated

    listed, smooths = shortlists(settings.scene, classes), settings.scene.smooths
    with translated(root), closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        read_predictions(root, columns=_ROWS).relation(connection).create_view("predictions")
        read_traces(root, columns=_BATCHES).relation(connection).project(_RENAMED).create_view("batches")
        connection.execute(f"CREATE TABLE windows ({_WINDOW})")
        connection.executemany("INSERT INTO windows VALUES (?, ?, ?, ?, ?)", [list(window) for window in windows])
        found = label(connection, root, file=file, within_us=within_us, classes=classes)
        rows = connection.execute(_BY_BATCH).fetchall()
    counts, unused = (
        list[BatchCount](),
        dict.fromkeys(("another card", "no scene_label", "other settings of a scene"), 0),
    )
    for camera, condition, stream_id, shortlist, smoothed, others, without, images, right, scene in rows:
        unused["another card"] += others
        unused["no scene_label"] += without
        if (shortlist, smoothed) != (_digest(listed, stream_id), smooths):
            unused["other settings of a scene"] += images
        elif images:
            counts.append(BatchCount(camera, condition, images, right, scene))
    notes = [f"{number} labelled images were served with {what}, and do not count" for what, number in unused.items()]
    return counts, found.source, (*found.notes, *(note for note in notes if not note.startswith("0 ")))


def _digest(listed: Shortlists, stream_id: str) -> str | None:
    shortlist = listed.of(stream_id)
    return None if shortlist is None else shortlist.digest
