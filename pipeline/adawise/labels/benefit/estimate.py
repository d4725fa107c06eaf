"""Did adapting alpha help? What was served against what fixed alphas would have served, on labelled images.

The answers of another alpha are known where a replay served it (`--against`: every image), or else, of the two
endpoints, for the images on which the worker asked them: those on which it chose alpha anew, and those that this alpha
served, where nothing can differ. Each arm is compared with what was served on the images of which its answer is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from adawise.labels.arrays import concatenated, equal_runs
from adawise.labels.benefit import queries
from adawise.labels.benefit.bootstrap import Kinds, intervals
from adawise.labels.benefit.helped import BEST, FINE_TUNED, SCENE, SERVED, ZERO_SHOT, Arm, Confusion, Estimate, Helped
from adawise.labels.join import Labels

if TYPE_CHECKING:  # imports torch
    from adawise.card.card import Card

ENOUGH = 50
"""Labelled images from which a camera is judged alone."""

_FEW_BATCHES = 30
_CLASSES = 12  # of a table of confusions, `other` among them
_ROWS = "the rows"
_NAMES = {0.0: ZERO_SHOT, 1.0: FINE_TUNED}


@dataclass(frozen=True, slots=True)
class OtherRun:
    """Another output of the same images, and its rows as the connection reads them."""

    root: str
    rows: Callable[[duckdb.DuckDBPyConnection], duckdb.DuckDBPyRelation]


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """An arm, as far as some images are concerned. `gaps` are right less confidence, by bin of confidence."""

    kinds: Kinds
    gaps: Mapping[int, tuple[int, float]]
    same: int  # images that were served at this alpha
    lowest: float
    highest: float

    @property
    def alpha(self) -> float:
        """Nan if it is not one and the same."""
        return self.lowest if self.lowest == self.highest else float("nan")


def estimate_benefit(
    connection: duckdb.DuckDBPyConnection,
    labels: Labels,
    runs: Sequence[OtherRun],
    card: Card | None,
    among: Among | None = None,
) -> Helped:
    """Return whether adapting alpha helped, by the table `predictions` and the labels that `label` joined to it.

    Args:
        connection: with `predictions`; it gets the view `answers`, and `run_0` and so on.
        labels: as `adawise.labels.join` found them.
        runs: outputs of replays of the same images.
        card: the pair's, for the estimates.
        among: which images were served among a shortlist, for the estimates; None: none of them.
    """
    found, accepted = estimates(connection, card, among)
    notes = [*labels.notes, *_without_figures(connection, accepted)] if card is not None else list(labels.notes)
    by_arm: dict[int, dict[str, _Side]] = {}
    tables: dict[int, Confusion] = {}
    if labels.labelled:
        by_arm = _measured(connection, runs)
        tables = _confusions(connection)
        notes += _missing(by_arm, runs)
    known = _Known(runs, by_arm)
    arms = known.arms({arm: _whole(sides) for arm, sides in by_arm.items()})
    cameras = sorted(name for name, side in by_arm.get(0, {}).items() if side.kinds.total >= ENOUGH)
    by_camera = {
        name: known.arms({arm: sides[name] for arm, sides in by_arm.items() if name in sides}) for name in cameras
    }
    return Helped(
        labelled=labels.labelled,
        accepted=accepted,
        labels_from=labels.source,
        arms=arms,
        by_camera=by_camera,
        confusion={name: tables[arm] for arm, name in known.names.items()},
        estimates=found,
        notes=(*notes, *_cautions(arms, by_arm, known)),
    )


def _measured(connection: duckdb.DuckDBPyConnection, runs: Sequence[OtherRun]) -> dict[int, dict[str, _Side]]:
    """Return what was right by arm (served, the two endpoints, the runs, the class prior) and camera."""
    for number, run in enumerate(runs):
        run.rows(connection).filter("label IS NOT NULL").create_view(f"run_{number}")
    arms = [queries.SERVED, *queries.ENDPOINTS, *(queries.of_run(number) for number in range(len(runs))), queries.SCENE]
    connection.execute(queries.create_answers(arms, len(runs)))
    kinds = _by_arm(connection.execute(queries.KINDS).fetchnumpy())
    bins = _by_arm(connection.execute(queries.CONFIDENCES).fetchnumpy())
    return {
        arm: {name: _side(columns, bins[arm][name]) for name, columns in cameras.items()}
        for arm, cameras in kinds.items()
    }


def _by_arm(columns: Mapping[str, Any]) -> dict[int, dict[str, dict[str, Any]]]:
    """Return columns of rows that are ordered by arm and camera, by these."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    keys = list(zip(columns["arm"].tolist(), columns["stream_id"].tolist(), strict=True))
    for start, end in equal_runs(keys):
        arm, name = keys[start]
        found.setdefault(int(arm), {})[str(name)] = {key: column[start:end] for key, column in columns.items()}
    return found


def _side(kinds: Mapping[str, Any], bins: Mapping[str, Any]) -> _Side:
    numbers = np.ma.filled(bins["bin"], -1)  # -1: no confidence is known
    gaps = np.ma.filled(bins["gap"], np.nan)
    return _Side(
        Kinds(*(np.asarray(kinds[name], np.int64) for name in Kinds.__slots__)),
        {int(n): (int(i), float(g)) for n, i, g in zip(numbers, bins["images"], gaps, strict=True)},
        int(bins["same"].sum()),
        float(bins["lowest"].min()),
        float(bins["highest"].max()),
    )


def _whole(cameras: Mapping[str, _Side]) -> _Side:
    sides = list(cameras.values())
    gaps: dict[int, tuple[int, float]] = {}
    for side in sides:
        for number, (images, gap) in side.gaps.items():
            before = gaps.get(number, (0, 0.0))
            gaps[number] = (before[0] + images, before[1] + gap)
    return _Side(
        concatenated([side.kinds for side in sides]),
        gaps,
        sum(side.same for side in sides),
        min(side.lowest for side in sides),
        max(side.highest for side in sides),
    )


class _Known:
    """The arms: their names, which of them count, and their accuracies on some images."""

    def __init__(self, runs: Sequence[OtherRun], by_arm: Mapping[int, Mapping[str, _Side]]) -> None:
        first = 1 + len(queries.ENDPOINTS)
        self._scene = first + len(runs)
        self._sources = {0: _ROWS, 1: _ROWS, 2: _ROWS, **{first + n: run.root for n, run in enumerate(runs)}}
        self._sources[self._scene] = _ROWS
        alphas = {arm: _whole(by_arm[arm]).alpha for arm in by_arm}
        self.fixed = [arm for arm in by_arm if arm >= first and not np.isnan(alphas[arm])]
        self.names: dict[int, str] = {}
        for arm in by_arm:
            replaced = arm in (1, 2) and any(alphas[run] == arm - 1.0 for run in self.fixed)
            if not replaced:  # a run knows the answers of all images
                self.names[arm] = self._name(arm, alphas[arm])

    def _name(self, arm: int, alpha: float) -> str:
        if arm == 0:
            return SERVED
        if arm == self._scene:
            return SCENE
        if np.isnan(alpha):
            return f"run {self._sources[arm]}"
        name = _NAMES.get(alpha, f"alpha {alpha:g}")
        return name if name not in self.names.values() else f"{name} ({self._sources[arm]})"

    def arms(self, sides: Mapping[int, _Side]) -> tuple[Arm, ...]:
        """Return what was served first, then the arms by alpha, then the best of the fixed ones."""
        arms = {arm: self._arm(arm, sides[arm]) for arm in self.names if arm in sides}
        fixed = [arms[arm] for arm in self.fixed if arm in arms]
        ordered = sorted(arms, key=lambda arm: (arm != 0, np.isnan(arms[arm].alpha), arms[arm].alpha))
        return (*(arms[arm] for arm in ordered), *self._best(fixed))

    def _arm(self, arm: int, side: _Side) -> Arm:
        accuracy, gain = intervals(side.kinds, seed=0)
        known = {number: gap for number, gap in side.gaps.items() if number >= 0}
        images = sum(count for count, _ in known.values())
        return Arm(
            name=self.names[arm],
            alpha=float("nan") if arm == 0 else side.alpha,
            images=side.kinds.total,
            accuracy=accuracy,
            ece=sum(abs(gap) for _, gap in known.values()) / images if images else float("nan"),
            gain=None if arm == 0 else gain,
            source=self._sources[arm],
        )

    def _best(self, fixed: Sequence[Arm]) -> list[Arm]:
        """Return the best in hindsight: it is chosen on the labels that it is judged by."""
        if len(fixed) < 2:
            return []
        best = min(fixed, key=lambda arm: (arm.gain.value if arm.gain else 0.0, arm.alpha))
        return [replace(best, name=BEST, source=f"{best.source}, the best of {len(fixed)} by these labels")]


def _missing(by_arm: Mapping[int, Mapping[str, _Side]], runs: Sequence[OtherRun]) -> list[str]:
    """Return for how many labelled images other runs have no answers."""
    labelled = _whole(by_arm[0]).kinds.total
    notes = []
    for arm, run in enumerate(runs, start=1 + len(queries.ENDPOINTS)):
        images = _whole(by_arm[arm]).kinds.total if arm in by_arm else 0
        if images < labelled:
            msg = f"{run.root}: it has predictions for {images} of {labelled} labelled images"
            notes.append(f"{msg}; replay all of them to compare on all")
    return notes


def _cautions(arms: Sequence[Arm], by_arm: Mapping[int, Mapping[str, _Side]], known: _Known) -> list[str]:
    """Return what the reader has to know before believing the numbers."""
    if not arms:
        return []
    notes = []
    for arm in (arm for arm in (1, 2) if arm in known.names):
        side = _whole(by_arm[arm])
        notes.append(
            f"{known.names[arm]} is compared on {side.kinds.total} images, those on which it was evaluated: "
            f"{side.same} that it served itself, where nothing differs, and the explored ones, which are not a "
            f"fair sample; a replay with --search fixed --search.alpha {arm - 1}, named by --against, has all"
        )
    if len(known.fixed) < 2:
        notes.append("the best fixed alpha is not known: name replays at two or more fixed alphas with --against")
    else:
        notes.append(f"{BEST} was chosen with the labels that judge it, which favours it")
    notes.append(
        "intervals hold for hours like these: consecutive batches share their weather, so those of accuracies are "
        "too narrow for another day; those of differences much less so"
    )
    batches = _whole(by_arm[0]).kinds.batches
    if batches < _FEW_BATCHES:
        notes.append(
            f"the labelled images are of only {batches} batches: the intervals are rough, and probably too narrow"
        )
    return notes


def _confusions(connection: duckdb.DuckDBPyConnection) -> dict[int, Confusion]:
    """Return which classes are taken for which, by arm; by the view `answers`."""
    counts: dict[int, dict[tuple[str, str], int]] = {}
    for arm, truth, answer, images in connection.execute(queries.CONFUSIONS).fetchall():
        counts.setdefault(arm, {})[truth, answer] = images
    return {arm: _confusion(cells) for arm, cells in counts.items()}


def _confusion(cells: Mapping[tuple[str, str], int]) -> Confusion:
    often: dict[str, int] = {}
    for (truth, answer), images in cells.items():
        often[truth] = often.get(truth, 0) + images
        often.setdefault(answer, 0)
    classes = sorted(often, key=lambda name: (-often[name], name))
    if len(classes) > _CLASSES:
        classes = [*classes[: _CLASSES - 1], "other"]
    place = {name: number for number, name in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), np.int64)
    for (truth, answer), images in cells.items():
        table[place.get(truth, len(classes) - 1), place.get(answer, len(classes) - 1)] += images
    return Confusion(tuple(classes), tuple(tuple(int(count) for count in row) for row in table))


@dataclass(frozen=True, slots=True)
class Among:
    """The images that were served among a shortlist, whose entropies and mistakes are those among few classes.

    Attributes:
        batches: their batches, as SQL with the columns of `queries.NO_BATCHES`.
        sizes: the number of classes of shortlists, by digest, as far as it is known.
        classes: the number of all classes.
    """

    batches: str
    sizes: Mapping[str, int]
    classes: int


_NOWHERE = Among(queries.NO_BATCHES, {}, 0)


def estimates(
    connection: duckdb.DuckDBPyConnection, card: Card | None, among: Among | None = None
) -> tuple[tuple[Estimate, ...], int]:
    """Return accuracies without labels, by the table `predictions`, and how many accepted images it has.

    Each says how it was made, and which way it is known to be wrong. Images that were served among a shortlist are
    counted where the card knows a threshold for so many classes, and only there.

    Args:
        connection: with the table `predictions`; it gets the view `accepted` and the table `thresholds`.
        card: the pair's; without it there are no estimates.
        among: which images were served among a shortlist; None: none of them.
    """
    among = among or _NOWHERE
    connection.execute(queries.create_accepted(among.batches))
    accepted = int(connection.execute(queries.ACCEPTED).fetchall()[0][0])
    if card is None or not accepted:
        return (), accepted
    by_alpha = connection.execute(queries.SERVED_AT).fetchall()
    return (*_thresholded(connection, card, among), *_as_on_the_card(by_alpha, card)), accepted


def _without_figures(connection: duckdb.DuckDBPyConnection, accepted: int) -> list[str]:
    """Return a note on the images of shortlists for which the card has no figures, if there are any."""
    images = connection.execute(queries.WITHOUT_FIGURES).fetchall()[0][0] if accepted else 0
    if not images:
        return []
    return [
        f"{images} of {accepted} images were served among a shortlist and are in no estimate, because thresholds for "
        "all classes do not hold there: give the scene.shortlists and model.classes of the workers, and a card with "
        "thresholds for fewer (adawise card make writes them), or label some of these images"
    ]


def _thresholded(connection: duckdb.DuckDBPyConnection, card: Card, among: Among) -> list[Estimate]:
    """Return the average thresholded confidence of what was served at the card's temperature."""
    connection.execute("CREATE OR REPLACE TEMP TABLE thresholds (shortlist VARCHAR, alpha DOUBLE, threshold DOUBLE)")
    columns: dict[str | None, Sequence[float]] = {None: card.threshold}
    for digest, classes in among.sizes.items():
        if (column := card.thresholds_among(classes, among.classes)) is not None:
            columns[digest] = column
    rows = [[digest, *pair] for digest, column in columns.items() for pair in zip(card.alphas, column, strict=True)]
    connection.executemany("INSERT INTO thresholds VALUES (?, ?, ?)", rows)
    below, images, listed = connection.execute(queries.BELOW).fetchall()[0]
    if not images or below is None:
        return []
    how = (
        "share of images whose entropy is below the card's threshold (ATC, arXiv 2201.04234); correct if the "
        "workers served with this card and the shift is mild, otherwise probably too high"
    )
    if listed:
        how += (
            f"; of {listed} images with a shortlist it is a threshold for as many classes, which are drawn: too high "
            "where those of the list are more alike"
        )
    return [Estimate("ATC", below, how)]


def _as_on_the_card(by_alpha: list[tuple[float, int]], card: Card) -> list[Estimate]:
    accuracy = dict(zip(card.alphas, card.accuracy, strict=True))
    served = [(accuracy[alpha], images) for alpha, images in by_alpha if alpha in accuracy]
    images = sum(count for _, count in served)
    if not images:
        return []
    how = f"accuracy of the card's {card.images} labelled images at the served alphas: as if nothing had shifted"
    return [Estimate("as on the card", sum(value * count for value, count in served) / images, how)]
