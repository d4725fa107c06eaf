"""The adaptation state of one stream: small, serialisable, versioned; a pure function of what the stream brought."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from pipeline.adapt.surrogate import Array, Belief
from pipeline.errors import ChainError

FORMAT = 1
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

    `key` ties the state to the model pair and the search settings that it was made under. `level_mean` and
    `level_variance` are running moments of the served objective (nats) over `level_count` batches at this alpha.
    """

    key: str
    alpha_index: int
    batches: int = 0
    quiet_batches: int = 0  # since alternatives were last tried
    level_mean: float = 0.0
    level_variance: float = 0.0
    level_count: int = 0
    belief: Belief | None = None
    observations: tuple[Observation, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` gives it back bit by bit."""
        fields = {
            "format": FORMAT,
            "key": self.key,
            "alpha_index": self.alpha_index,
            "batches": self.batches,
            "quiet_batches": self.quiet_batches,
            "level": [self.level_mean, self.level_variance, self.level_count],
            "belief": None if self.belief is None else _pack(self.belief),
            "observations": [[o.batch, o.index, o.value, o.noise_variance] for o in self.observations],
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamState:
        """Read a state back.

        Raises:
            ChainError: not a state, or one of another format.
        """
        try:
            fields = json.loads(data)
            if fields["format"] != FORMAT:
                raise ChainError(
                    f"adaptation state: expected format {FORMAT}, got {fields['format']}. "
                    "Run the version that wrote the chain, or start a new sink.root."
                )
            mean, variance, count = fields["level"]
            return cls(
                key=_of(str, fields["key"]),
                alpha_index=_of(int, fields["alpha_index"]),
                batches=_of(int, fields["batches"]),
                quiet_batches=_of(int, fields["quiet_batches"]),
                level_mean=_of(float, mean),
                level_variance=_of(float, variance),
                level_count=_of(int, count),
                belief=None if fields["belief"] is None else _unpack(fields["belief"]),
                observations=tuple(
                    Observation(_of(int, batch), _of(int, index), _of(float, value), _of(float, noise))
                    for batch, index, value, noise in fields["observations"]
                ),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ChainError(
                f"adaptation state: not readable ({error!r}). The segment is damaged: restore it from a copy."
            ) from error

    def with_level(self, value: float, *, memory: float = 0.9) -> StreamState:
        """The state after the served objective was `value`: moments with that memory, plain means at first."""
        count = self.level_count + 1
        weight = max(1.0 / count, 1.0 - memory)
        delta = value - self.level_mean
        mean = self.level_mean + weight * delta
        variance = (1.0 - weight) * (self.level_variance + weight * delta**2)
        return replace(self, level_mean=mean, level_variance=variance, level_count=count)


def _of(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value


def _pack(belief: Belief) -> dict[str, str]:
    upper = belief.covariance[np.triu_indices(len(belief.mean))]
    return {"mean": _encode(belief.mean), "covariance": _encode(upper)}


def _unpack(fields: dict[str, str]) -> Belief:
    mean = _decode(fields["mean"])
    P = np.zeros((len(mean), len(mean)))
    upper = np.triu_indices(len(mean))
    P[upper] = P.T[upper] = _decode(fields["covariance"])
    return Belief(mean, P)


def _encode(array: Array) -> str:
    return base64.b64encode(array.astype("<f8").tobytes()).decode()


def _decode(text: str) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype="<f8").astype(np.float64)
