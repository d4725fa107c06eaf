"""The adaptation state of one stream: small, serialisable, versioned, and a pure function of the stream's batches.

States outlive versions. A new field gets a default that means what held before the field existed, and an entry in
`_LATER` for its serialised form: a state without it gets that, and an older worker ignores it. A `Level` or a
`PairedNoise` may get new numbers in the same way; a list keeps its length. `FORMAT` rises only if an older worker would
misread a state, and older formats stay readable for ever. `state_key` explains keys.
"""

from __future__ import annotations

import base64
import json
import math
import re
import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from adawise.adapt.change import CELLS, ClassMix, Level
from adawise.adapt.conditions import KnownCondition, LearnedAppearance, Memory
from adawise.adapt.disagreement import Disagreement
from adawise.adapt.last_seen import UNREADABLE, LastSeen, damaged, last_seen_of, of_kind
from adawise.adapt.noise import PairedNoise
from adawise.adapt.prior import LARGEST, ClassPrior
from adawise.adapt.smoothing import LARGEST as LARGEST_SMOOTHING
from adawise.adapt.smoothing import STAYS, Smoothing
from adawise.adapt.state_key import current_key
from adawise.adapt.surrogate import KNOTS, Abridged, Array, Belief
from adawise.errors import ChainError
from adawise.records import STATISTICS

FORMAT = 2
_STATISTICS = len(STATISTICS)
_LATER: dict[str, Any] = {  # fields that early states lack: what held before there was the field
    "pinned_batches": 0,
    "hazard": 0.0,
    "drifting": None,
    "disagreement": [0.0, 0.0],
    "standardised": None,
    "mix": {"shares": "", "likeness": {}},
    "noise": {},
    "broken": [],
    "served_index": None,
    "looks": None,
    "conditions": None,
    "shortlist": "",
    "prior": None,
    "smoothing": None,
}
_MOST = 2.0**53  # every number of a state is smaller
_MOST_VARIANCE = 1e6  # nats^2
_ROUNDING = 1e-6  # tolerance for a covariance in single precision
_T = TypeVar("_T")


@dataclass(frozen=True)
class Observation:
    """One past trial, for strategies that keep data: batch number, alpha index, objective and its noise variance."""

    batch: int
    index: int
    value: float
    noise_variance: float


@dataclass(frozen=True)
class StreamState:
    """Everything that a search knows of a stream.

    Attributes:
        key: ties the state to the model pair and the search settings under which it was made.
        alpha_index: grid index of the alpha that the next batch starts from.
        batches: batches so far.
        quiet_batches: batches since alternatives were last probed.
        pinned_batches: batches in a row that were served at the fine-tuned end of the grid, or at the cap.
        hazard: probability that the condition jumps, learned by the stream.
        drifting: probability that the curve drifts, learned by the stream; None if it has learned nothing of it.
        disagreement: how often alpha and zero-shot predict different classes.
        standardised: the curve that `adapt/alarm.py` knows.
        level: level of the served objective.
        mix: mix of predicted classes.
        noise: noise of probes.
        broken: indices of alphas whose logits were not finite under this condition.
        belief: the posterior; None before the first batch that taught something.
        observations: past trials, for strategies that keep them.
        last_seen: when the stream was last seen; no search reads it.
        served_index: index of the alpha of the last batch, for its trace; None in older states.
        looks: the learned appearance; None before the first batch whose pixels were measured.
        memory: the conditions of the stream.
        shortlist: the digest of the stream's shortlist (`adapt/shortlist.py`); "" for all classes.
        prior: which classes the stream shows; None where no class prior is learned. No search reads it.
        smoothing: what the stream has shown last; None where nothing is smoothed, likewise.

    Example:
        >>> state = adawise.adapt_batch(pair, images[:8]).state
        >>> stored = state.to_bytes()
        >>> restored = adawise.StreamState.from_bytes(stored)
        >>> restored.batches, restored.to_bytes() == stored
        (1, True)
        >>> step = adawise.adapt_batch(pair, images[8:16], restored)
    """

    key: str
    alpha_index: int
    batches: int = 0
    quiet_batches: int = 0
    pinned_batches: int = 0
    hazard: float = 0.0
    drifting: float | None = None
    disagreement: Disagreement = field(default_factory=Disagreement)
    standardised: Abridged | None = None
    level: Level = field(default_factory=Level)
    mix: ClassMix = field(default_factory=ClassMix)
    noise: PairedNoise = field(default_factory=PairedNoise)
    broken: tuple[int, ...] = ()
    belief: Belief | None = None
    observations: tuple[Observation, ...] = ()
    last_seen: LastSeen | None = None
    served_index: int | None = None
    looks: LearnedAppearance | None = None
    memory: Memory = field(default_factory=Memory)
    shortlist: str = ""
    prior: ClassPrior | None = None
    smoothing: Smoothing | None = None

    @override
    def __repr__(self) -> str:
        """Return one line, because a belief alone is hundreds of numbers."""
        return f"<StreamState after {self.batches} batches, at alpha {self.alpha_index} of the grid: {self.key}>"

    def after_batch(self, alpha_index: int, *, broken: Collection[int] | None = None, **learned: Any) -> StreamState:
        """Return the state after one more batch, from which the next one starts at `alpha_index`.

        Every search ends here, whatever its batch was like, so that no way to end loses what another one keeps. The
        alpha to start from is never among the broken ones: a state with both once made a search return to it for ever.

        Args:
            alpha_index: grid index of the alpha that the next batch starts from.
            broken: grid indices whose logits were not finite; None keeps those of this state.
            learned: other fields with their new values; fields that are not named stay as they are.
        """
        kept = set(self.broken if broken is None else broken) - {alpha_index}
        return replace(self, alpha_index=alpha_index, batches=self.batches + 1, broken=tuple(sorted(kept)), **learned)

    @property
    def heard(self) -> LastSeen | None:
        """The former name of `last_seen`, for one release more."""
        warnings.warn("StreamState.heard is last_seen now", DeprecationWarning, stacklevel=2)
        return self.last_seen

    def is_finite(self) -> bool:
        """Return True if the numbers that the next search continues from are finite.

        These are hazard, noise, level, class mix and belief.
        """
        numbers = [self.hazard, self.noise.squares, self.noise.degrees]
        for level in (self.level, self.mix.likeness):
            numbers += level.mean, level.variance
        arrays = [np.asarray(numbers), np.asarray(self.mix.shares)]
        if self.belief is not None:
            arrays += self.belief.mean, self.belief.covariance
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def to_bytes(self) -> bytes:
        """Serialise the state; `from_bytes` restores it bit by bit."""
        parts: dict[str, Any] = {
            "format": FORMAT,
            "key": self.key,
            "alpha_index": self.alpha_index,
            "batches": self.batches,
            "quiet_batches": self.quiet_batches,
            "pinned_batches": self.pinned_batches,
            "capped_batches": 0,  # only 0.1.0 reads it, and takes a state without it for damaged
            "hazard": self.hazard,
            "level": asdict(self.level),
            "mix": {"shares": _encode(np.array(self.mix.shares)), "likeness": asdict(self.mix.likeness)},
            "noise": asdict(self.noise),
            "broken": list(self.broken),
            "belief": None if self.belief is None else _pack(self.belief),
            "observations": [[o.batch, o.index, o.value, o.noise_variance] for o in self.observations],
        }
        if self.last_seen is not None:
            parts["heard"] = [self.last_seen.last_ms, self.last_seen.clock_ms, self.last_seen.at_ms]
        if self.served_index is not None:
            parts["served_index"] = self.served_index
        if self.drifting is not None:
            parts["drifting"] = self.drifting
        if self.disagreement != Disagreement():
            parts["disagreement"] = [self.disagreement.images, self.disagreement.differing]
        if self.standardised is not None:
            parts["standardised"] = _pack_curve(self.standardised)
        if self.looks is not None:
            parts["looks"] = _pack_appearance(self.looks)
            parts["conditions"] = _pack_memory(self.memory)
        if self.shortlist:
            parts["shortlist"] = self.shortlist
        if self.prior is not None:
            parts["prior"] = _pack_prior(self.prior)
        if self.smoothing is not None:
            parts["smoothing"] = _pack_smoothing(self.smoothing)
        return json.dumps(parts, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamState:
        """Read a state; its key becomes the one that this version writes.

        Raises:
            ChainError: not a state, or one of a later format.
        """
        try:
            parts = {**_LATER, **json.loads(data)}
            if parts["format"] not in (1, FORMAT):
                raise ChainError(
                    f"adaptation state: expected format {FORMAT} or lower, got {parts['format']}. "
                    "Run the version that wrote the chain, or start a new sink.root."
                )
            if parts["format"] == 1:
                parts["level"] = dict(zip(("mean", "variance", "batches"), parts["level"], strict=True))
            state = cls(
                key=current_key(of_kind(str, parts["key"])),
                alpha_index=of_kind(int, parts["alpha_index"]),
                batches=of_kind(int, parts["batches"]),
                quiet_batches=of_kind(int, parts["quiet_batches"]),
                pinned_batches=of_kind(int, parts["pinned_batches"]),
                hazard=of_kind(float, parts["hazard"]),
                drifting=None if parts["drifting"] is None else of_kind(float, parts["drifting"]),
                disagreement=_disagreement(*parts["disagreement"]),
                standardised=None if parts["standardised"] is None else _unpack_curve(parts["standardised"]),
                level=_read(Level, parts["level"]),
                mix=ClassMix(tuple(_decode(parts["mix"]["shares"]).tolist()), _read(Level, parts["mix"]["likeness"])),
                noise=_read(PairedNoise, parts["noise"]),
                broken=tuple(of_kind(int, index) for index in parts["broken"]),
                belief=None if parts["belief"] is None else _unpack(parts["belief"]),
                observations=tuple(
                    Observation(of_kind(int, batch), of_kind(int, index), of_kind(float, value), of_kind(float, noise))
                    for batch, index, value, noise in parts["observations"]
                ),
                last_seen=last_seen_of(parts),
                served_index=None if parts["served_index"] is None else of_kind(int, parts["served_index"]),
                looks=None if parts["looks"] is None else _unpack_appearance(parts["looks"]),
                memory=Memory() if parts["conditions"] is None else _unpack_memory(parts["conditions"]),
                shortlist=of_kind(str, parts["shortlist"]),
                prior=None if parts["prior"] is None else _unpack_prior(*parts["prior"]),
                smoothing=None if parts["smoothing"] is None else _unpack_smoothing(*parts["smoothing"]),
            )
            _check(state)
            return state
        except UNREADABLE as error:
            raise damaged(error) from error


def _check(state: StreamState) -> None:
    """Raise ValueError for values that no search writes and that would make every later number nan."""
    points = 0 if state.belief is None else len(state.belief.mean) - 1
    # Without a belief the size of the grid is unknown, and places on it are not checked.
    places = [state.alpha_index, state.alpha_index if state.served_index is None else state.served_index]
    _expect("a place on the grid", not points or all(0 <= place < points for place in places))
    _expect("hazard", 0.0 <= state.hazard < 1.0 or not points)
    _expect("drifting", state.drifting is None or 0.0 <= state.drifting <= 1.0)
    _check_disagreement(state.disagreement)
    if state.standardised is not None:
        _check_curve(state.standardised, points)
    if (looks := state.looks) is not None:
        arrays = np.stack([looks.mean, looks.spread, looks.overall_mean, looks.overall_variance])
        _expect("looks", bool((np.abs(arrays) < _MOST).all() and (looks.spread > 0.0).all()))
        _expect("looks", bool((looks.overall_variance >= 0.0).all()) and 0.0 < looks.restless < 1.0)
        _expect("looks", 0 <= looks.batches < _MOST and 1 <= looks.overall_batches < _MOST)
    _expect("conditions", min(state.memory.number, state.memory.visits - 1, state.memory.condition_count - 1) >= 0)
    for known in state.memory.known:
        _check_curve(known.curve, points)
        _check_disagreement(known.disagreement)
        _expect(
            "conditions", bool(np.isfinite([known.level, *known.appearance]).all()) and 0 <= known.alpha_index < points
        )
        _expect(
            "conditions",
            min(known.number + 1, known.visits, known.batches) >= 1 and max(known.visits, known.batches) < _MOST,
        )
    _expect("conditions", state.memory.visits < _MOST)
    _expect("shortlist", re.fullmatch("(?:[0-9a-f]{12})?", state.shortlist) is not None)
    _expect("a class prior", state.prior is None or state.prior.is_sound())
    _expect("smoothing", state.smoothing is None or state.smoothing.is_sound())


def _check_disagreement(disagreement: Disagreement) -> None:
    _expect("disagreement", 0.0 <= disagreement.images < _MOST and 0.0 <= disagreement.differing < _MOST)


def _check_curve(curve: Abridged, points: int) -> None:
    """Raise ValueError unless the curve has the right number of alphas and a covariance, up to rounding."""
    knots = len(curve.mean)
    _expect("a curve of as many alphas as the belief has", knots == min(KNOTS, points))
    _expect("a curve", bool(np.isfinite(curve.mean).all() and (np.abs(curve.covariance) < _MOST_VARIANCE).all()))
    P = np.zeros((knots, knots))
    P[np.triu_indices(knots)] = P.T[np.triu_indices(knots)] = curve.covariance
    _expect("the covariance of a curve", bool(np.linalg.eigvalsh(P)[0] >= -_ROUNDING * np.trace(P)))


def _expect(what: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"expected {what}")


def largest_bytes(
    key: str,
    points: int,
    observations: int = 0,
    conditions: int = 0,
    *,
    shortlists: bool = False,
    prior: bool = False,
    smoothing: bool = False,
) -> int:
    """Return the size of the largest serialised state; in a footer, compressed, a state takes less.

    Args:
        key: the key of the state.
        points: alphas of the grid.
        observations: trials that the strategy keeps.
        conditions: conditions that the strategy keeps.
        shortlists: streams may have shortlists.
        prior: streams have a class prior.
        smoothing: their frames are smoothed.
    """
    number, whole = -1.2345678901234567e-100, 10**15  # the longest texts that numbers have
    level = Level(number, number, whole)
    state = StreamState(
        key,
        alpha_index=points,
        batches=whole,
        quiet_batches=whole,
        pinned_batches=whole,
        hazard=number,
        drifting=number,
        disagreement=Disagreement(number, number),
        standardised=_largest_curve(),
        level=level,
        mix=ClassMix((number,) * CELLS, level),
        noise=PairedNoise(number, number),
        broken=tuple(range(points)),
        belief=Belief(np.full(points, number), np.full((points, points), number)),
        observations=(Observation(whole, points, number, number),) * observations,
        last_seen=LastSeen(whole, whole, whole),
        served_index=points,
        looks=_learned_appearance(np.full((4, _STATISTICS), number), whole, whole, number),
        memory=Memory(whole, whole, whole, (_largest_condition(number, whole, points),) * conditions),
        shortlist="0" * 12 if shortlists else "",
        prior=ClassPrior("0" * 12, bytes(LARGEST), number, number) if prior else None,
        smoothing=LARGEST_SMOOTHING if smoothing else None,
    )
    return len(state.to_bytes())


def _largest_condition(number: float, whole: int, points: int) -> KnownCondition:
    curve = _largest_curve()
    appearance = np.zeros(_STATISTICS)
    return KnownCondition(
        *(whole, whole, whole, curve, appearance),
        batches=whole,
        level=number,
        alpha_index=points,
        disagreement=Disagreement(number, number),
    )


def _largest_curve() -> Abridged:
    return Abridged(np.zeros(KNOTS, dtype="f4"), np.zeros(KNOTS * (KNOTS + 1) // 2, dtype="f4"))


def _read(kind: type[_T], parts: Any) -> _T:
    """Return a dataclass of numbers; a missing one is its default, and each must have the type of that."""
    known = [f for f in fields(kind) if f.name in of_kind(dict, parts)]  # type: ignore[arg-type]
    return kind(**{f.name: of_kind(type(f.default), parts[f.name]) for f in known})


def _pack(belief: Belief) -> dict[str, str]:
    upper = belief.covariance[np.triu_indices(len(belief.mean))]
    return {"mean": _encode(belief.mean), "covariance": _encode(upper)}


def _unpack(parts: dict[str, str]) -> Belief:
    mean = _decode(parts["mean"])
    P = np.zeros((len(mean), len(mean)))
    upper = np.triu_indices(len(mean))
    P[upper] = P.T[upper] = _decode(parts["covariance"])
    return Belief(mean, P)


def _pack_appearance(learned: LearnedAppearance) -> list[Any]:
    arrays = (learned.mean, learned.spread, learned.overall_mean, learned.overall_variance)
    return [_encode(np.concatenate(arrays)), learned.batches, learned.overall_batches, learned.restless]


def _unpack_appearance(parts: list[Any]) -> LearnedAppearance:
    numbers, batches, overall_batches, restless = parts
    arrays = _decode(numbers).reshape(4, _STATISTICS)
    return _learned_appearance(arrays, of_kind(int, batches), of_kind(int, overall_batches), of_kind(float, restless))


def _learned_appearance(arrays: Array, batches: int, overall_batches: int, restless: float) -> LearnedAppearance:
    mean, spread, overall_mean, overall_variance = arrays
    return LearnedAppearance(mean, spread, overall_mean, overall_variance, batches, overall_batches, restless)


def _pack_memory(memory: Memory) -> list[Any]:
    return [
        memory.number,
        memory.visits,
        memory.condition_count,
        [_pack_condition(condition) for condition in memory.known],
    ]


def _pack_condition(k: KnownCondition) -> list[Any]:
    halves = [k.level, k.disagreement.images, k.disagreement.differing, *k.appearance, *k.curve.mean]
    numbers = np.array(halves, dtype="<f2").tobytes() + k.curve.covariance.astype("<f4").tobytes()
    return [k.number, k.visits, k.left, k.batches, k.alpha_index, base64.b85encode(numbers).decode()]


def _unpack_memory(parts: list[Any]) -> Memory:
    number, visits, condition_count, known = parts
    return Memory(
        of_kind(int, number),
        of_kind(int, visits),
        of_kind(int, condition_count),
        tuple(_unpack_condition(*k) for k in known),
    )


def _unpack_condition(number: Any, visits: Any, left: Any, batches: Any, alpha_index: Any, text: Any) -> KnownCondition:
    numbers = base64.b85decode(of_kind(str, text))
    # 2 (3 + 5 + K) bytes of halves and 4 K (K + 1) / 2 of the covariance, which is 2 (K + 1)^2 + 2 (3 + 5 - 1)
    knots = round(math.sqrt(max(0.0, len(numbers) / 2 - (2 + _STATISTICS))) - 1.0)
    first = 2 * (3 + _STATISTICS + knots)
    halves = np.frombuffer(numbers[:first], dtype="<f2").astype("f8")
    level, images, differing = halves[:3].tolist()
    return KnownCondition(
        number=of_kind(int, number),
        visits=of_kind(int, visits),
        left=of_kind(int, left),
        curve=_curve(np.concatenate([halves[3 + _STATISTICS :], np.frombuffer(numbers[first:], dtype="<f4")])),
        appearance=halves[3 : 3 + _STATISTICS],
        batches=of_kind(int, batches),
        level=level,
        alpha_index=of_kind(int, alpha_index),
        disagreement=Disagreement(images, differing),
    )


def _pack_prior(prior: ClassPrior) -> list[Any]:
    return [prior.classes, base64.b64encode(prior.kept).decode(), prior.rest, prior.confidence]


def _unpack_prior(classes: Any, kept: Any, rest: Any, confidence: Any) -> ClassPrior:
    data = base64.b64decode(of_kind(str, kept))
    return ClassPrior(of_kind(str, classes), data, of_kind(float, rest), of_kind(float, confidence))


def _pack_smoothing(smoothing: Smoothing) -> list[str]:
    kept = [base64.b64encode(some).decode() for some in (smoothing.last, smoothing.recent, smoothing.sketch)]
    return [smoothing.classes, *kept, _encode(np.array([smoothing.rest, *smoothing.evidence, *smoothing.alike]), "<f4")]


def _unpack_smoothing(classes: Any, last: Any, recent: Any, sketch: Any, numbers: Any) -> Smoothing:
    seen, near, compared = (base64.b64decode(of_kind(str, some)) for some in (last, recent, sketch))
    rest, *others = _decode(of_kind(str, numbers), "<f4").tolist()
    evidence, alike = tuple(others[: len(STAYS)]), tuple(others[len(STAYS) :])
    return Smoothing(of_kind(str, classes), seen, near, compared, rest, evidence, alike)


def _pack_curve(curve: Abridged) -> str:
    return _encode(np.concatenate([curve.mean, curve.covariance]), "<f4")


def _unpack_curve(text: str) -> Abridged:
    return _curve(_decode(text, "<f4"))


def _curve(numbers: Array) -> Abridged:
    knots = round(math.sqrt(2 * len(numbers) + 2.25) - 1.5)  # K numbers of the mean, K (K + 1) / 2 of the covariance
    if knots < 1 or len(numbers) != knots + knots * (knots + 1) // 2:
        raise ValueError(f"{len(numbers)} numbers are not a curve")
    return Abridged(*np.split(numbers.astype("f4"), [knots]))


def _disagreement(images: Any, differing: Any) -> Disagreement:
    return Disagreement(of_kind(float, images), of_kind(float, differing))


def _encode(array: npt.NDArray[np.floating], kind: str = "<f8") -> str:
    return base64.b64encode(array.astype(kind).tobytes()).decode()


def _decode(text: str, kind: str = "<f8") -> Array:
    return np.frombuffer(base64.b64decode(text), dtype=kind).astype(np.float64)
