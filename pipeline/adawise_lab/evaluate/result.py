"""The result of an evaluation: one row for each strategy or reference, kind and order of streams.

It also has facts about the domains. `as_json` is the object that `adawise evaluate --json` prints.

On disk it is `result.json`, and `paths.parquet` has what was served for each batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adawise.console import finite
from adawise.errors import SettingsError
from adawise_lab.evaluate.camera import ALL
from adawise_lab.evaluate.lists import NONE

FORMAT = 1
Interval = tuple[float, float]
RESULT, PATHS = "result.json", "paths.parquet"
PATH_SCHEMA = pa.schema(
    [
        pa.field("strategy", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("stream", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("order", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("domain", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("alpha", pa.float64()),  # null in files of 0.1.0 for strategies that mixed outputs
        pa.field("forward_equivalents", pa.float64(), nullable=False),
        pa.field("trigger", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("reset", pa.dictionary(pa.int32(), pa.string())),
        pa.field("best_alpha", pa.float64()),
        pa.field("forward_cost", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Difference:
    """The accuracy of a row minus that of another on the same images, with its 95 % interval."""

    difference: float
    ci: Interval


@dataclass(frozen=True)
class GroupRow:
    """Accuracy over the domains of one group, equally weighted, and minus each reference on the same images."""

    accuracy: float
    fe: float
    forward_cost: float
    versus: Mapping[str, float]


@dataclass(frozen=True)
class OracleShare:
    """The gain of a strategy over `base` (`warm` without pixels), as a `share` of the gain of knowing the condition.

    `worth` is what knowing the condition gains over `base`. All are in mean accuracy by the domains' curves (see the
    module `told`). `share` and `ci` are None if `worth` is not significantly above 0.
    """

    base: str
    worth: Difference
    share: float | None
    ci: Interval | None


@dataclass(frozen=True)
class RareRecall:
    """The recall of the rare classes of what cameras show: of the served label, of `scene_label`, and the difference.

    It is the mean over domains, equally weighted.
    """

    served: float
    scene: float
    over_served: Difference


@dataclass(frozen=True)
class SceneFigures:
    """The figures of `scene_label`, which a class prior corrects beside the served label of the same images.

    Attributes:
        accuracy: mean over domains, equally weighted, as are `ece`, `nll` and `flicker`.
        over_served: accuracy minus that of the served label.
        gate: mean over batches of how far the class prior corrects, from 0 to 1.
        worst_domain_gap: accuracy minus that of the served label, on the domain where it is lowest.
        domains: accuracy by domain.
        rare: where cameras show rare classes (`--shows rare`); None too if no image of them came.
        smoothing: mean over batches of how far neighbouring frames correct; None without `scene.smoothing`.
        ece: expected calibration error of `scene_confidence`.
        nll: that of the label by the corrected probabilities, nats.
        flicker: of `scene_label`, as that of a row.
    """

    accuracy: float
    over_served: Difference
    ece: float
    gate: float
    worst_domain_gap: float
    worst_domain: str
    domains: Mapping[str, float]
    rare: RareRecall | None = None
    smoothing: float | None = None
    nll: float = math.nan
    flicker: float = math.nan


@dataclass(frozen=True)
class ListFigures:
    """The figures of a shortlist: a row with it in search and prediction, against the same search among all classes.

    Attributes:
        predicted: accuracy if the shortlist is for the prediction alone, at the alphas of a search among all classes.
        without: accuracy without a shortlist.
        over_predicted: accuracy of the row minus `predicted`.
        over_without: accuracy of the row minus `without`.
        fe: forward-equivalents of the search among all classes.
        names: mean number of classes that a prediction was among.
    """

    predicted: float
    without: float
    over_predicted: Difference
    over_without: Difference
    fe: float
    names: float


@dataclass(frozen=True)
class Row:
    """One strategy (or reference) on one kind and order of streams, all seeds together.

    Attributes:
        strategy: its name.
        reference: whether it is a reference.
        accuracy: mean over domains, equally weighted, as are `ece` and `nll`; `accuracy_ci` is its 95 % interval.
        fe: forward-equivalents: images evaluated over images served.
        forward_cost: whole forwards per image: layers that both models share count once, all others for each
            evaluation.
        ece_pooled: calibration error over all images as one domain.
        worst_domain_gap: accuracy minus that of the better of zero-shot and fine-tuned, on the domain where it is
            lowest.
        versus: differences to each reference, by name.
        domains: accuracy by domain.
        pinned: share of batches at alpha 0 or 1.
        lag_batches: lag behind the best alpha of each mixture; on `smooth` streams only, as is `path_error`.
        path_error: mean distance in alpha to the best alpha of each mixture.
        triggers: number of batches by trigger; `resets` likewise by reset.
        price: the price of a row of `warm`, where prices are compared (`--curve`).
        over_set: accuracy minus that of the row at the price that is set; that row itself has None.
        way: by oracle that knows the condition, how far the row gets towards it; on streams whose conditions return.
        scene: of a strategy, where a class prior ran beside it.
        flicker: share of the images with the label of the image before them whose prediction is another one, in
            [0, 1]; mean over domains, nan where no two images of one label followed one another, or for a choice by
            half of the images.
        listed: of a strategy, where cameras have shortlists.
    """

    strategy: str
    reference: bool
    stream: str
    order: str
    accuracy: float
    accuracy_ci: Interval
    fe: float
    forward_cost: float
    ece: float
    ece_pooled: float
    nll: float
    worst_domain_gap: float
    worst_domain: str
    versus: Mapping[str, Difference]
    groups: Mapping[str, GroupRow]
    domains: Mapping[str, float]
    batches: int
    images: int
    seeds: int
    alpha: float | None = None  # mean over batches
    pinned: float | None = None
    lag_batches: float | None = None
    path_error: float | None = None
    triggers: Mapping[str, int] = field(default_factory=dict)
    resets: Mapping[str, int] = field(default_factory=dict)
    price: float | None = None
    over_set: Difference | None = None
    way: Mapping[str, OracleShare] = field(default_factory=dict)
    scene: SceneFigures | None = None
    flicker: float = math.nan
    listed: ListFigures | None = None

    @property
    def is_other_price(self) -> bool:
        """True for a row that is only another point of the price curve, not a strategy that the user named."""
        return self.price is not None and self.over_set is not None


@dataclass(frozen=True)
class DomainFacts:
    """The facts of one domain: accuracy at every fixed alpha, the best of them, and what each objective would choose.

    `split_half` is the accuracy at the alpha that is best on the other half of the images. `choices` maps an objective
    to (alpha, accuracy) at its lowest mean over all images.
    """

    group: str
    images: int
    classes: int
    accuracy: tuple[float, ...]
    best_alpha: float
    best_accuracy: float
    split_half: float
    choices: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class PathRow:
    """One batch of one run: what was served and why. `domain` is "" if a batch mixes several.

    `best_alpha` is the best alpha of the batch's mixture, on a `smooth` stream.
    """

    strategy: str
    stream: str
    order: str
    seed: int
    number: int  # number of the stream, for kinds with several streams
    batch: int
    domain: str
    alpha: float
    forward_equivalents: float
    forward_cost: float
    trigger: str
    reset: str | None
    best_alpha: float | None = None


@dataclass(frozen=True)
class Result:
    """The whole result. `best_fixed` is (alpha, accuracy) in hindsight, over the domains as they are.

    `tail_share` is what an image costs at a second alpha, as a share of a forward. `shows` is what cameras show, and
    `lists` says which shortlists they have: the rows are with them, the domains and best fixed alphas of here without.
    """

    alphas: tuple[float, ...]
    rows: tuple[Row, ...]
    domains: Mapping[str, DomainFacts]
    best_fixed: tuple[float, float]
    oracle: float
    split_half_oracle: float
    calibration: str  # where the temperatures come from
    seeds: int
    batch: int
    tail_share: float
    paths: tuple[PathRow, ...]
    shows: str = ALL
    lists: str = NONE

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object, without the paths, which are as long as the streams.

        `shows` is in it unless it is "all", `shortlists` unless there are none, and `scene` and `listed` are in the
        rows that have them.
        """
        shows = {} if self.shows == ALL else {"shows": self.shows}
        lists = {} if self.lists == NONE else {"shortlists": self.lists}
        rows = [asdict(row) for row in self.rows]
        optional = {"scene", "listed"}
        return {
            "format": FORMAT,
            **shows,
            **lists,
            "rows": [
                {name: value for name, value in row.items() if value is not None or name not in optional}
                for row in rows
            ],
            "best_fixed": {"alpha": self.best_fixed[0], "accuracy": self.best_fixed[1]},
            "oracle": self.oracle,
            "split_half_oracle": self.split_half_oracle,
            "domains": {name: asdict(facts) for name, facts in self.domains.items()},
            "alphas": self.alphas,
            "calibration": self.calibration,
            "seeds": self.seeds,
            "batch": self.batch,
            "tail_share": self.tail_share,
        }


def write_result(folder: Path, result: Result) -> None:
    """Write both files.

    Raises:
        SettingsError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(finite(result.as_json()), indent=1, allow_nan=False)
        (folder / RESULT).write_text(text + "\n", encoding="utf-8")
        pq.write_table(path_table(result), folder / PATHS)
    except OSError as error:
        raise SettingsError(
            f"-o {folder}: the result cannot be written ({error.strerror or error}). Name a folder that can be written."
        ) from error


def path_table(result: Result) -> pa.Table:
    """Return the alpha paths as a table."""
    columns: dict[str, list[Any]] = {f.name: [] for f in fields(PathRow)}
    for row in result.paths:
        for name, column in columns.items():
            column.append(getattr(row, name))
    return pa.table(columns, schema=PATH_SCHEMA)
