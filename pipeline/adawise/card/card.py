"""The card: what a labelled in-distribution sample says about a model pair, measured once and offline.

Per alpha of the grid it holds the temperature that fits the labels (lowest NLL), the reference entropy, the threshold
of `atc`, accuracy, NLL and ECE. It also says which objective would have served these images best. If a recorded stream
was given, it has the search's hyper-parameters; if labels came late, it has the bias of an objective that they showed,
and whether the label that a camera's scene corrects is the better one.
It carries the identity of the pair that it was made with, and is refused for any other.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adawise.adapt import objective as objectives
from adawise.adapt.names import LEAST_TAIL_SHARE
from adawise.adapt.objective import Objective, entropy
from adawise.adapt.surrogate import Surrogate
from adawise.card.calibration import (
    calibration_error,
    fit_temperature,
    fit_threshold,
    serving_ratio,
    temperature_interval,
)
from adawise.errors import CardError
from adawise.store.files import read_bytes

FORMAT = 5
BIASED = 6
"""The format of a card with a bias: a version that knows no bias must not serve by such a card as if it had none."""

_READ = (4, FORMAT, BIASED)  # the formats that this version reads
_SINCE_5 = ("shifted_temperature", "verdict", "fine_tuned_interval", "tells_ends_apart")
_PER_ALPHA = ("alphas", "temperature", "reference_entropy", "threshold", "accuracy", "nll", "ece_raw", "ece")
_MOST_CHARACTERS = 400  # characters of an error that a message quotes: a card may hold a million
_ROUNDING = 1e-9  # tolerance: a difference and the ends of its interval are computed in different ways
_BARRIER = 0.01  # accuracy: if it falls further below the worse endpoint, the path has a barrier


@dataclass(frozen=True)
class ObjectiveResult:
    """An objective's choice for all images of one labelled condition, and the accuracy of that choice.

    Attributes:
        condition: its name.
        images: the evidence: of n photographs under m corruptions each condition counts n / m. Cards of versions up to
            0.2.1 have n here.
        objective: its name.
        alpha: the alpha that it would choose.
        accuracy: accuracy at that alpha, in [0, 1], as all of these.
        best_accuracy: accuracy at the best alpha in hindsight.
        zero_shot: accuracy at alpha 0.
        fine_tuned: accuracy at alpha 1.
    """

    condition: str
    images: int
    objective: str
    alpha: float
    accuracy: float
    best_accuracy: float
    zero_shot: float
    fine_tuned: float


@dataclass(frozen=True)
class FittedSearch:
    """Hyper-parameters of `surrogate.Surrogate`, fitted to the curves of `objective` on `batches` recorded batches."""

    objective: str
    batches: int
    lengthscale: float
    signal_sd: float
    offset_sd: float
    persistence: float


@dataclass(frozen=True)
class LabelBias:
    """The bias of an objective that late labels showed, as `late_labels` estimates it.

    Attributes:
        objective: its name.
        nats: what is to be added to the objective, at each alpha of the grid.
        sd: posterior standard deviation of `nats`.
        images: the number of late labels.
        conditions: the number of conditions that they come from.
        evidence: by how much the log likelihood of the labels is higher with the bias than without.
        created_at: when it was estimated.
    """

    objective: str
    nats: tuple[float, ...]
    sd: tuple[float, ...]
    images: int
    conditions: int
    evidence: float
    created_at: str


@dataclass(frozen=True)
class FewThreshold:
    """The threshold of `atc` among `classes` classes, per alpha, on the entropy at the card's `temperature`, nats."""

    classes: int
    threshold: tuple[float, ...]


SCENE_PROOF = 1
"""The version of `SceneProof`; a section of another version counts as none."""


@dataclass(frozen=True)
class SceneProof:
    """A comparison of `scene_label` with `label` on late labels, and the decision whether it may be served.

    Attributes:
        settings: the digest of the scene's settings under which the rows were served.
        label: accuracy of `label`, in [0, 1], as the following.
        gain: accuracy of `scene_label` less that, with the lower and the upper end of its 95 % interval.
        worst: the camera or condition with the lowest gain; "" if none has enough labels of its own.
        worst_gain: its gain, as far as its labels set it off from the others.
        bound: the lowest `worst_gain` with which it may be served.
        images: the number of labelled images.
        batches: the number of batches that they are of.
        cameras: the number of cameras.
        proves: True if the whole interval is above 0 and `worst_gain` is not below `bound`.
        created_at: when it was made.
        version: `SCENE_PROOF`.
    """

    settings: str
    label: float
    gain: tuple[float, float, float]
    worst: str
    worst_gain: float
    bound: float
    images: int
    batches: int
    cameras: int
    proves: bool
    created_at: str
    version: int = SCENE_PROOF


@dataclass(frozen=True)
class GroupVerdict:
    """The accuracies of `PairVerdict` over `conditions` conditions of one kind, which share `images` images."""

    group: str
    conditions: int
    images: int
    zero_shot: float
    fine_tuned: float
    best_fixed: float
    adapted: float


@dataclass(frozen=True)
class PairVerdict:
    """A comparison, on streams of labelled conditions, of `warm` with `objective` and a fixed alpha.

    Accuracies are in [0, 1] and means over the conditions.

    Attributes:
        objective: the objective that `warm` minimised.
        zero_shot: accuracy at alpha 0.
        fine_tuned: accuracy at alpha 1.
        fixed_alpha: the best fixed alpha in hindsight.
        best_fixed: accuracy at `fixed_alpha`.
        adapted: accuracy of `warm`.
        gain: `adapted` less `best_fixed`, with the lower and the upper end of its 95 % interval.
        groups: the same accuracies by kind of condition.
        mixed_gain: the gain if every batch has images of all conditions; None if there is only one.
    """

    objective: str
    zero_shot: float
    fine_tuned: float
    fixed_alpha: float
    best_fixed: float
    adapted: float
    gain: tuple[float, float, float]
    groups: tuple[GroupVerdict, ...]
    mixed_gain: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Condition:
    """Labelled images under one condition: `logits(j)` `[N, C]` at alpha j, and class indices `labels` `[N]`."""

    name: str
    logits: Callable[[int], Tensor]
    labels: Tensor

    def part(self, rows: Tensor) -> Condition:
        """Return the condition with these rows of its images only."""
        return Condition(self.name, lambda j: self.logits(j)[rows], self.labels[rows])


@dataclass(frozen=True)
class Card:
    """The calibration of one pair. Tuples have one number per alpha of the grid, unless stated otherwise.

    Attributes:
        identity: the pair that the card belongs to: hashes of checkpoints, classes and the like.
        alphas: the grid.
        temperature: > 0, fitted to the labels at each alpha.
        reference_entropy: mean entropy of the sample at `temperature`, nats.
        threshold: threshold of `atc` on the entropy at `temperature`, nats.
        accuracy: in [0, 1].
        nll: negative log likelihood at `temperature`, nats.
        ece_raw: expected calibration error at temperature 1, in [0, 1].
        ece: the same at `temperature`.
        levels: the sample's mean of each objective, by its name; the drift report draws it as the normal level. An
            objective that is newer than the card has none.
        images: the number of images of the sample.
        created_at: when the card was made.
        judged: the objectives on labelled conditions; empty if none were given.
        search: fitted hyper-parameters; None if no recorded stream was given.
        heads: the hash of the file of text heads beside the card; None if there is none.
        format: the format of the file.
        shifted_temperature: temperatures under shift; empty if no shifted conditions were given. At alpha 0 it fits the
            sample and every shifted condition, each with the same weight. At alpha 1 it lets `calibrated_tsallis`
            choose best among them (`serving_ratio`), or fits them if they are of one kind or few. Between, it is the
            geometric interpolation.
        verdict: None if adapting was not compared with a fixed alpha.
        fine_tuned_interval: the 95 % interval of the temperature at alpha 1; None in cards of format 4.
        tells_ends_apart: True if `shifted_temperature` lets the better endpoint be chosen both where that is zero-shot
            and where it is fine-tuned.
        bias: None if no late labels spoke against an objective. Its nats are part of that objective's `levels`.
        tail_share: the cost of classifying an image again at another alpha, as a share of a whole forward, from .0001
            to 1; 1 if the two models share no layers (`clip/trunk.py`), and in cards of versions up to 0.2.
        scene: None if no late labels compared `scene_label` with `label`. It is no part of the `digest`, because it
            changes nothing that is learned; nor is the following.
        among_few: `threshold` among fewer classes, ascending in their number: the true one of an image and others that
            are drawn for it. Empty in cards of versions up to 0.3.
    """

    identity: Mapping[str, str]
    alphas: tuple[float, ...]
    temperature: tuple[float, ...]
    reference_entropy: tuple[float, ...]
    threshold: tuple[float, ...]
    accuracy: tuple[float, ...]
    nll: tuple[float, ...]
    ece_raw: tuple[float, ...]
    ece: tuple[float, ...]
    levels: Mapping[str, tuple[float, ...]]
    images: int
    created_at: str
    judged: tuple[ObjectiveResult, ...] = ()
    search: FittedSearch | None = None
    heads: str | None = None
    format: int = FORMAT
    shifted_temperature: tuple[float, ...] = ()
    verdict: PairVerdict | None = None
    fine_tuned_interval: tuple[float, float] | None = None
    tells_ends_apart: bool = False
    bias: LabelBias | None = None
    tail_share: float = 1.0
    scene: SceneProof | None = None
    among_few: tuple[FewThreshold, ...] = ()

    @property
    def best_alpha(self) -> float:
        """The alpha with the highest accuracy on the sample; the lowest of equals."""
        return self.alphas[int(np.argmax(self.accuracy))]

    @property
    def has_barrier(self) -> bool:
        """True if accuracy falls a point below the worse endpoint on the path: do not interpolate such a pair."""
        return min(self.accuracy) < min(self.accuracy[0], self.accuracy[-1]) - _BARRIER

    def objective(self, name: str) -> Objective:
        """Return the objective of that name with this card's references and bias; compare alphas by it only."""
        found = self._uncorrected(name)
        return found if self.bias is None or self.bias.objective != name else objectives.biased(found, self.bias.nats)

    def _uncorrected(self, name: str) -> Objective:
        if name in objectives.NO_CARD:
            return objectives.NO_CARD[name]
        match name:
            case "calibrated_tsallis":
                return objectives.calibrated_tsallis(self.shifted_temperature or self.temperature)
            case "calibrated_entropy":
                return objectives.calibrated_entropy(self.temperature)
            case "relative":
                return objectives.relative(self.temperature, self.reference_entropy)
            case "atc":
                return objectives.atc(self.temperature, self.threshold)
        raise ValueError(f"expected one of {', '.join(objectives.NAMES)}, got {name!r}")

    def corrected(self, bias: LabelBias) -> Card:
        """Return this card with a bias.

        It is added to the card's bias of the same objective, and takes the place of a bias of another objective. What
        labels said of the scene is left out: it was served at the alphas of this card.
        """
        levels, nats, before = dict(self.levels), bias.nats, self.bias
        if before is not None and before.objective == bias.objective:
            nats = _sum(before.nats, nats)
        elif before is not None and before.objective in levels:
            # the bias of another objective is given up, so its levels go back to what they were
            levels[before.objective] = _sum(levels[before.objective], [-value for value in before.nats])
        if bias.objective in levels:
            levels[bias.objective] = _sum(levels[bias.objective], bias.nats)
        return replace(self, bias=replace(bias, nats=nats), levels=levels, format=BIASED, scene=None)

    def thresholds_among(self, classes: int, of: int) -> tuple[float, ...] | None:
        """Return the thresholds of `atc` among `classes` of `of` classes, per alpha.

        They are interpolated over the logarithm of the number. None if the card does not know it for so few.
        """
        known = [*((few.classes, few.threshold) for few in self.among_few if few.classes < of), (of, self.threshold)]
        if not known[0][0] <= classes <= of:
            return None
        sizes = np.log([size for size, _ in known])
        columns = np.array([column for _, column in known])  # [S, G]
        return tuple(float(np.interp(math.log(classes), sizes, column)) for column in columns.T)

    def trusts(self, objective: str) -> bool:
        """Return True if the objective was fitted to conditions where fine-tuned weights are sure and wrong."""
        return objective == "calibrated_tsallis" and self.tells_ends_apart

    def surrogate(self, objective: str) -> Surrogate | None:
        """Return the surrogate with the hyper-parameters fitted for this objective; None if there are none."""
        found = self.search
        if found is None or found.objective != objective:
            return None
        return Surrogate(self.alphas, found.lengthscale, found.signal_sd, found.offset_sd, found.persistence)

    @property
    def digest(self) -> str:
        """The hash of the content without `scene` and `among_few`, 16 hex digits; states identify a card by it."""
        return hashlib.sha256(replace(self, scene=None, among_few=()).to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return the card as a file of its format, of which `digest` is a hash."""
        content = asdict(self)
        if self.bias is None:  # the bytes must stay those of versions that knew no bias
            del content["bias"]
        if self.tail_share == 1.0:  # as those of versions that knew no shared layers
            del content["tail_share"]
        if self.scene is None:  # as those of versions that served no scene_label; they read over it
            del content["scene"]
        if not self.among_few:
            del content["among_few"]
        if self.format < FORMAT:
            content = {name: value for name, value in content.items() if name not in _SINCE_5}
        return json.dumps(content, indent=1) + "\n"

    def check(self, identity: Mapping[str, str], alphas: tuple[float, ...], *, continues: Sequence[str] = ()) -> None:
        """Raise CardError if the card belongs to another pair or grid.

        Args:
            identity: the identity of the pair.
            alphas: the grid.
            continues: preprocessings that the pair's own one continues; a card with one of them is accepted.

        Raises:
            CardError: names the first part of the identity that differs.
        """
        for part in identity:
            if part == "config" and part not in self.identity:
                continue  # cards of versions before 0.3 do not have it
            if self.identity.get(part) not in (identity[part], *(continues if part == "preprocess" else ())):
                raise CardError(
                    f"the card belongs to another pair: its {part} is {self.identity.get(part)!r}, this pair's is "
                    f"{identity[part]!r}. Make a card for this pair: adawise card make --labelled FOLDER -o FILE"
                )
        if self.alphas != alphas:
            raise CardError(
                f"the card is for the alphas {list(self.alphas)}, expected {list(alphas)}. "
                "Make it again: adawise card make --labelled FOLDER -o FILE"
            )


def read_card(path: Path) -> Card:
    """Read a card from its file.

    Raises:
        CardError: no such file, not a card, another format, or values out of range.
    """
    remedy = "Make one: adawise card make --labelled FOLDER -o FILE"
    try:
        data: dict[str, Any] = json.loads(read_bytes(path))
        if data["format"] not in _READ:
            known, got = f"{_READ[0]} to {_READ[-1]}", reprlib.repr(data["format"])
            raise CardError(f"{path}: expected a card of format {known}, got {got}. {remedy}")
        if data["format"] < FORMAT:
            data |= {"shifted_temperature": (), "verdict": None, "fine_tuned_interval": None}
        data.setdefault("tells_ends_apart", False)
        data.setdefault("bias", None)
        data.setdefault("tail_share", 1.0)
        data.setdefault("scene", None)
        data.setdefault("among_few", ())
        values = {f.name: _frozen(data[f.name]) for f in fields(Card)}
        values["levels"] = {name: _frozen(levels) for name, levels in data["levels"].items()}
        values["judged"] = tuple(ObjectiveResult(**result) for result in data["judged"])
        values["search"] = FittedSearch(**data["search"]) if data["search"] is not None else None
        values["verdict"] = None if (given := data["verdict"]) is None else _verdict(given)
        values["bias"] = None if (bias := data["bias"]) is None else _bias(bias)
        values["scene"] = _scene(data["scene"])
        few = [(each["classes"], _frozen(each["threshold"])) for each in data["among_few"]]
        values["among_few"] = tuple(FewThreshold(*each) for each in few)
        card = Card(**values)
        _check_values(card)
    except OSError as error:
        raise CardError(f"{path}: the card cannot be read ({error.strerror}). {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CardError(f"{path}: not a card ({repr(error)[:_MOST_CHARACTERS]}). {remedy}") from error
    return card


def _check_values(card: Card) -> None:
    """Raise ValueError (TypeError for a wrong type) for values that `make_card` would not have written."""
    _expect("levels", f"those of {', '.join(objectives.NAMES)}", {*card.levels}, {*card.levels} <= {*objectives.NAMES})
    optional = (("shifted_temperature", card.shifted_temperature),) if card.shifted_temperature else ()
    for name, column in (*((name, getattr(card, name)) for name in _PER_ALPHA), *optional, *card.levels.items()):
        holds = isinstance(column, tuple) and len(column) == len(card.alphas) > 0 and _are_numbers(*column)
        _expect(name, f"{len(card.alphas)} finite numbers, one per alpha", column, holds)
    for temperatures in (card.temperature, card.shifted_temperature):
        _expect("temperature", "numbers above 0", temperatures, min(temperatures, default=1.0) > 0.0)
    _expect("images", "a number", card.images, _are_numbers(card.images))
    for name, text in {"created_at": card.created_at, "heads": card.heads or "", **card.identity}.items():
        _expect(name, "text", text, isinstance(text, str))
    for result in card.judged:
        accuracies = (result.zero_shot, result.fine_tuned, result.accuracy, result.best_accuracy)
        holds = isinstance(result.condition, str) and _are_numbers(result.images, result.alpha, *accuracies)
        holds = holds and result.objective in objectives.NAMES and min(accuracies) >= 0.0 and result.images > 0
        holds = holds and max(accuracies) == result.best_accuracy <= 1.0
        _expect("judged", "images, an objective and accuracies from 0 to 1", result, holds)
    if (given := card.verdict) is not None:
        accuracies = (given.zero_shot, given.fine_tuned, given.best_fixed, given.adapted)
        holds = _are_numbers(given.fixed_alpha, *accuracies) and given.objective in objectives.NAMES
        holds = holds and given.fixed_alpha in card.alphas and min(accuracies) >= 0.0 and max(accuracies) <= 1.0
        _expect("verdict", "an objective, an alpha of the grid and accuracies from 0 to 1", given, holds)
        gains = (
            {"gain": given.gain} if given.mixed_gain is None else {"gain": given.gain, "mixed_gain": given.mixed_gain}
        )
        for name, gain in gains.items():
            holds = isinstance(gain, tuple) and len(gain) == 3 and _are_numbers(*gain)
            holds = holds and gain[1] - _ROUNDING <= gain[0] <= gain[2] + _ROUNDING
            _expect(f"verdict.{name}", "a finite difference between its lower and upper end", gain, holds)
        for group in given.groups:
            accuracies = (group.zero_shot, group.fine_tuned, group.best_fixed, group.adapted)
            holds = isinstance(group.group, str) and _are_numbers(group.conditions, group.images, *accuracies)
            holds = holds and group.images >= 1 and min(accuracies) >= 0.0 and max(accuracies) <= 1.0
            _expect("verdict", "groups of images with accuracies from 0 to 1", group, holds)
    share = card.tail_share
    _expect("tail_share", "a share from 0.0001 to 1", share, _are_numbers(share) and LEAST_TAIL_SHARE <= share <= 1.0)
    holds = isinstance(card.tells_ends_apart, bool)
    _expect("tells_ends_apart", "true or false", card.tells_ends_apart, holds)
    if (interval := card.fine_tuned_interval) is not None:
        holds = isinstance(interval, tuple) and len(interval) == 2 and _are_numbers(*interval)
        _expect("fine_tuned_interval", "two numbers above 0", interval, holds and 0.0 < interval[0] <= interval[1])
    if (found := card.search) is not None:
        numbers = (found.lengthscale, found.signal_sd, found.offset_sd, found.persistence)
        holds = isinstance(found.objective, str) and _are_numbers(found.batches, *numbers) and min(numbers) > 0.0
        _expect("search", "numbers above 0, persistence below 1", found, holds and found.persistence < 1.0)

    if (bias := card.bias) is not None:
        per_alpha = [isinstance(column, tuple) and _are_numbers(*column) for column in (bias.nats, bias.sd)]
        holds = (
            all(per_alpha) and len(bias.nats) == len(bias.sd) == len(card.alphas) and bias.objective in objectives.NAMES
        )
        holds = holds and _are_numbers(bias.images, bias.conditions, bias.evidence) and isinstance(bias.created_at, str)
        holds = holds and min(bias.sd) >= 0.0 and card.format == BIASED
        _expect(
            "bias",
            f"an objective and {len(card.alphas)} finite numbers, one per alpha, in format {BIASED}",
            bias,
            holds,
        )
    sizes = [few.classes for few in card.among_few]
    holds = _are_counts(*sizes) and sorted({*sizes}) == sizes and min(sizes, default=2) >= 2
    thresholds = [few.threshold for few in card.among_few]
    holds = holds and all(isinstance(of, tuple) and _are_numbers(*of) for of in thresholds)
    holds = holds and all(len(of) == len(card.alphas) for of in thresholds)
    _expect("among_few", "ascending numbers of classes, with a threshold per alpha", card.among_few, holds)
    if (proof := card.scene) is not None:
        counts = (proof.images, proof.batches, proof.cameras)
        holds = isinstance(proof.gain, tuple) and len(proof.gain) == 3
        holds = holds and _are_numbers(*proof.gain, proof.label, proof.worst_gain, proof.bound) and _are_counts(*counts)
        holds = holds and isinstance(proof.proves, bool) and min(counts) >= 1 and 0.0 <= proof.label <= 1.0
        holds = holds and all(isinstance(text, str) for text in (proof.settings, proof.worst, proof.created_at))
        holds = holds and proof.gain[1] <= proof.gain[0] + _ROUNDING and proof.gain[0] <= proof.gain[2] + _ROUNDING
        # The decision is not believed without the figures that it follows from.
        decided = holds and proof.gain[1] > 0.0 and proof.worst_gain >= proof.bound
        _expect("scene", "figures from which its decision follows", proof, holds and proof.proves == decided)


def _are_counts(*values: object) -> bool:
    """Return True if all are whole numbers."""
    return _are_numbers(*values) and all(isinstance(value, int) for value in values)


def _are_numbers(*values: object) -> bool:
    """Return True if all are finite numbers that fit into a float; an integer may be larger than every float."""
    kinds = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return kinds and all(abs(value) <= sys.float_info.max for value in values)  # type: ignore[arg-type]


def _expect(name: str, expected: str, value: object, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {reprlib.repr(value)}")


def _verdict(given: Mapping[str, Any]) -> PairVerdict:
    gains = {name: _frozen(given[name]) for name in ("gain", "mixed_gain") if name in given}
    return PairVerdict(**{**given, **gains, "groups": tuple(GroupVerdict(**group) for group in given["groups"])})


def _sum(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _scene(given: Mapping[str, Any] | None) -> SceneProof | None:
    """Return the section, None if there is none of a version that this one knows."""
    if given is None or given["version"] != SCENE_PROOF:
        return None
    return SceneProof(**{name: _frozen(value) for name, value in given.items()})


def _bias(given: Mapping[str, Any]) -> LabelBias:
    return LabelBias(**{name: _frozen(value) for name, value in given.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def make_card(
    logits: Callable[[int], Tensor],
    labels: Tensor,
    shifted: Sequence[Condition] = (),
    *,
    alphas: tuple[float, ...],
    identity: Mapping[str, str],
    created_at: str,
    like: Card | None = None,
) -> Card:
    """Fit a card to a labelled sample of N images.

    Args:
        logits: `logits(j)` gives `[N, C]` at `alphas[j]`.
        labels: `[N]`, class indices.
        shifted: labelled conditions that the shifted temperatures are fitted to, together with the sample.
        alphas: the grid, from 0 to 1.
        identity: the identity of the pair.
        created_at: the time that the card states.
        like: a card of the same pair, which gives the shifted temperatures if `shifted` is empty.
    """
    rows = []
    for j in range(len(alphas)):
        z = logits(j).double()
        T = fit_temperature(z, labels)
        p = (z / T).softmax(dim=-1)
        values = entropy(z, T)
        accuracy = float((z.argmax(dim=-1) == labels).double().mean())
        rows.append(
            {
                "temperature": T,
                "reference_entropy": float(values.mean()),
                "threshold": fit_threshold(values, accuracy),
                "accuracy": accuracy,
                "nll": float(torch.nn.functional.cross_entropy(z / T, labels)),
                "ece_raw": calibration_error(z.softmax(dim=-1), labels),
                "ece": calibration_error(p, labels),
            }
        )
    columns: dict[str, Any] = {name: tuple(row[name] for row in rows) for name in rows[0]}
    if like is not None:
        columns |= {name: getattr(like, name) for name in ("shifted_temperature", "tells_ends_apart")}
    columns["fine_tuned_interval"] = temperature_interval(z, labels, T)  # z and T are those of the last alpha, 1
    if shifted:
        ends = [
            fit_temperature(logits(j).double(), labels, *((one.logits(j).double(), one.labels) for one in shifted))
            for j in (0, len(alphas) - 1)
        ]
        conditions = [(logits, labels), *((one.logits, one.labels) for one in shifted)]
        if (ratio := serving_ratio(conditions, alphas, ends[0])) is not None:
            ends[1] = ends[0] * ratio
        columns["tells_ends_apart"] = ratio is not None
        columns["shifted_temperature"] = tuple(ends[0] ** (1.0 - alpha) * ends[1] ** alpha for alpha in alphas)
    card = Card(identity=dict(identity), alphas=alphas, levels={}, images=len(labels), created_at=created_at, **columns)
    return replace(card, levels=_levels(card, logits))


FEW = (2, 3, 5, 10, 25, 50, 100, 200, 400)
"""Numbers of classes for which a card has thresholds."""

_DRAWN_AT_ONCE = 256  # images


def with_few(card: Card, logits: Callable[[int], Tensor], labels: Tensor) -> Card:
    """Return the card with thresholds of `atc` among fewer classes, as cameras with a shortlist have.

    A shortlist of a few classes has few images of the sample. So each image is put among its own class and others that
    are drawn for it, with a fixed seed: the threshold is one for so many classes, whichever they are.

    Args:
        card: the card of the sample.
        logits: `logits(j)` gives `[N, C]` at `card.alphas[j]`.
        labels: `[N]`, class indices.
    """
    C = logits(0).shape[-1]
    sizes = [size for size in FEW if size < C]
    if not sizes:
        return card
    columns = _columns(labels, C, sizes[-1])
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for j, T in enumerate(card.temperature):
        z = logits(j).double().gather(1, columns)  # [N, K]
        for size in sizes:
            few = z[:, :size]
            right = float((few[:, 0] >= few.amax(dim=-1)).double().mean())
            found[size].append(fit_threshold(entropy(few, T), right))
    return replace(card, among_few=tuple(FewThreshold(size, tuple(found[size])) for size in sizes))


def _columns(labels: Tensor, C: int, most: int) -> Tensor:
    """Return for each image its own class and then others in an order drawn for it, `[N, most]`, 2 <= most <= C."""
    random = torch.Generator().manual_seed(0)
    parts = []
    for start in range(0, len(labels), _DRAWN_AT_ONCE):
        own = labels[start : start + _DRAWN_AT_ONCE]
        keys = torch.rand(len(own), C, generator=random)
        keys[torch.arange(len(own)), own] = -1.0
        parts.append(keys.argsort(dim=-1)[:, :most])
    return torch.cat(parts)


def _levels(card: Card, logits: Callable[[int], Tensor]) -> dict[str, tuple[float, ...]]:
    """Return the sample's mean of each objective at each alpha."""
    means: dict[str, list[float]] = {name: [] for name in objectives.NAMES}
    for j in range(len(card.alphas)):
        z = logits(j)
        for name, values in means.items():
            values.append(float(card.objective(name)(z, j).mean()))
    return {name: tuple(values) for name, values in means.items()}
