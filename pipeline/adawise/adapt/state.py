"""The adaptation state of one stream: small, serialisable, versioned; a pure function of what the stream brought.

States outlive versions. A new field gets a default that means what was before it, and its serialised form a line in
`_LATER`: a state without it takes that, and an older worker passes over it. The numbers of a `Level` or a `PairedNoise`
may become more likewise; a list keeps its length. `FORMAT` rises only if an older worker would read something wrong,
and the formats before it are read for good. Keys are a matter of `state_key`.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from adawise.adapt.change import CELLS, ClassMix, Level
from adawise.adapt.conditions import KnownCondition, Looks, Memory
from adawise.adapt.heard import UNREADABLE, Heard, damaged, heard_of, of_kind
from adawise.adapt.noise import PairedNoise
from adawise.adapt.state_key import current_key
from adawise.adapt.surrogate import KNOTS, Abridged, Array, Belief
from adawise.errors import ChainError
from adawise.records import STATISTICS

FORMAT = 2
_STATISTICS = len(STATISTICS)
_LATER: dict[str, Any] = {  # what states did not have from the first, as it was before
    "pinned_batches": 0,
    "capped_batches": 0,
    "hazard": 0.0,
    "mix": {"shares": "", "likeness": {}},
    "noise": {},
    "broken": [],
    "served_index": None,
    "looks": None,
    "memory": None,
}
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
    """All that a search knows of a stream.

    `key` ties the state to the model pair and the search settings that it was made under.
    """

    key: str
    alpha_index: int
    batches: int = 0
    quiet_batches: int = 0  # since alternatives were last tried
    pinned_batches: int = 0  # served in a row at the fine-tuned end of the grid
    capped_batches: int = 0  # still to go without that end, because the models disagreed too much there
    hazard: float = 0.0  # how probable a jump of the condition is, learned by the stream
    level: Level = field(default_factory=Level)
    mix: ClassMix = field(default_factory=ClassMix)
    noise: PairedNoise = field(default_factory=PairedNoise)
    broken: tuple[int, ...] = ()  # alphas that gave what is not finite, under this condition
    belief: Belief | None = None
    observations: tuple[Observation, ...] = ()
    heard: Heard | None = None  # no search reads it
    served_index: int | None = None  # of the alpha of the last batch, for its trace; None in states of before
    looks: Looks | None = None  # None before the first batch whose pixels were measured
    memory: Memory = field(default_factory=Memory)

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` gives it back bit by bit."""
        parts: dict[str, Any] = {
            "format": FORMAT,
            "key": self.key,
            "alpha_index": self.alpha_index,
            "batches": self.batches,
            "quiet_batches": self.quiet_batches,
            "pinned_batches": self.pinned_batches,
            "capped_batches": self.capped_batches,
            "hazard": self.hazard,
            "level": asdict(self.level),
            "mix": {"shares": _encode(np.array(self.mix.shares)), "likeness": asdict(self.mix.likeness)},
            "noise": asdict(self.noise),
            "broken": list(self.broken),
            "belief": None if self.belief is None else _pack(self.belief),
            "observations": [[o.batch, o.index, o.value, o.noise_variance] for o in self.observations],
        }
        if self.heard is not None:
            parts["heard"] = [self.heard.last_ms, self.heard.clock_ms, self.heard.at_ms]
        if self.served_index is not None:
            parts["served_index"] = self.served_index
        if self.looks is not None:
            parts["looks"] = _pack_looks(self.looks)
            parts["memory"] = _pack_memory(self.memory)
        return json.dumps(parts, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamState:
        """Read a state back, its key as this version writes it.

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
            return cls(
                key=current_key(of_kind(str, parts["key"])),
                alpha_index=of_kind(int, parts["alpha_index"]),
                batches=of_kind(int, parts["batches"]),
                quiet_batches=of_kind(int, parts["quiet_batches"]),
                pinned_batches=of_kind(int, parts["pinned_batches"]),
                capped_batches=of_kind(int, parts["capped_batches"]),
                hazard=of_kind(float, parts["hazard"]),
                level=_read(Level, parts["level"]),
                mix=ClassMix(tuple(_decode(parts["mix"]["shares"]).tolist()), _read(Level, parts["mix"]["likeness"])),
                noise=_read(PairedNoise, parts["noise"]),
                broken=tuple(of_kind(int, index) for index in parts["broken"]),
                belief=None if parts["belief"] is None else _unpack(parts["belief"]),
                observations=tuple(
                    Observation(of_kind(int, batch), of_kind(int, index), of_kind(float, value), of_kind(float, noise))
                    for batch, index, value, noise in parts["observations"]
                ),
                heard=heard_of(parts),
                served_index=None if parts["served_index"] is None else of_kind(int, parts["served_index"]),
                looks=None if parts["looks"] is None else _unpack_looks(parts["looks"]),
                memory=Memory() if parts["memory"] is None else _unpack_memory(parts["memory"]),
            )
        except UNREADABLE as error:
            raise damaged(error) from error


def largest_bytes(key: str, points: int, observations: int = 0, conditions: int = 0) -> int:
    """Of the serialised state of a stream that has all that one can have: more than it takes in a footer, compressed.

    `points` of the grid; `observations` and `conditions` that the strategy keeps.
    """
    number, whole = -1.2345678901234567e-100, 10**15  # as long as they come
    level = Level(number, number, whole)
    state = StreamState(
        key,
        alpha_index=points,
        batches=whole,
        quiet_batches=whole,
        pinned_batches=whole,
        capped_batches=whole,
        hazard=number,
        level=level,
        mix=ClassMix((number,) * CELLS, level),
        noise=PairedNoise(number, number),
        broken=tuple(range(points)),
        belief=Belief(np.full(points, number), np.full((points, points), number)),
        observations=(Observation(whole, points, number, number),) * observations,
        heard=Heard(whole, whole, whole),
        served_index=points,
        looks=_looks(np.full((4, _STATISTICS), number), whole, whole, number),
        memory=Memory(whole, whole, whole, (_largest_condition(number, whole, points),) * conditions),
    )
    return len(state.to_bytes())


def _largest_condition(number: float, whole: int, points: int) -> KnownCondition:
    curve = Abridged(np.zeros(KNOTS, dtype="f4"), np.zeros(KNOTS * (KNOTS + 1) // 2, dtype="f4"))
    look = np.zeros(_STATISTICS, dtype="f4")
    return KnownCondition(whole, whole, whole, curve, look, batches=whole, level=number, alpha_index=points)


def _read(kind: type[_T], parts: Any) -> _T:
    """A dataclass of numbers, each of the type of its default, which is what a missing one is."""
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


def _pack_looks(looks: Looks) -> list[Any]:
    arrays = (looks.mean, looks.spread, looks.overall_mean, looks.overall_variance)
    return [_encode(np.concatenate(arrays)), looks.batches, looks.overall_batches, looks.restless]


def _unpack_looks(parts: list[Any]) -> Looks:
    numbers, batches, overall_batches, restless = parts
    arrays = _decode(numbers).reshape(4, _STATISTICS)
    return _looks(arrays, of_kind(int, batches), of_kind(int, overall_batches), of_kind(float, restless))


def _looks(arrays: Array, batches: int, overall_batches: int, restless: float) -> Looks:
    mean, spread, overall_mean, overall_variance = arrays
    return Looks(mean, spread, overall_mean, overall_variance, batches, overall_batches, restless)


def _pack_memory(memory: Memory) -> list[Any]:
    known = [
        [
            *(k.number, k.visits, k.left, k.batches, k.alpha_index, k.level),
            _encode(np.concatenate([k.look, k.curve.mean, k.curve.covariance]), "<f4"),
        ]
        for k in memory.known
    ]
    return [memory.number, memory.visits, memory.seen, known]


def _unpack_memory(parts: list[Any]) -> Memory:
    number, visits, seen, known = parts
    return Memory(
        of_kind(int, number), of_kind(int, visits), of_kind(int, seen), tuple(_unpack_condition(*k) for k in known)
    )


def _unpack_condition(
    number: Any, visits: Any, left: Any, batches: Any, alpha_index: Any, level: Any, arrays: Any
) -> KnownCondition:
    numbers = _decode(arrays, "<f4")
    knots = round(math.sqrt(2 * (len(numbers) - _STATISTICS) + 2.25) - 1.5)  # K + K (K + 1) / 2 are of the curve
    look, mean, covariance = np.split(numbers.astype("f4"), [_STATISTICS, _STATISTICS + knots])
    if knots < 1 or len(covariance) != knots * (knots + 1) // 2:
        raise ValueError(f"{len(numbers)} numbers are no condition")
    return KnownCondition(
        number=of_kind(int, number),
        visits=of_kind(int, visits),
        left=of_kind(int, left),
        curve=Abridged(mean, covariance),
        look=look,
        batches=of_kind(int, batches),
        level=of_kind(float, level),
        alpha_index=of_kind(int, alpha_index),
    )


def _encode(array: npt.NDArray[np.floating], kind: str = "<f8") -> str:
    return base64.b64encode(array.astype(kind).tobytes()).decode()


def _decode(text: str, kind: str = "<f8") -> Array:
    return np.frombuffer(base64.b64decode(text), dtype=kind).astype(np.float64)
