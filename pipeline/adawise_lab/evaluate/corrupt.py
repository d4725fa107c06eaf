"""Corruptions of images: the families of ImageNet-C (Hendrycks and Dietterich, 2019).

The fifteen kinds and most severities are those of the benchmark, on primitives of scikit-image. Some things differ on
purpose. Lengths are given for its 224 px and scale with the picture, so that a severity means the same to a model of 70
px and to one of 336. Frost is drawn, as the benchmark's photographs of it come without a licence. Where the benchmark's
own steps do not grow (fog, frost, glass blur, snow), ours do. So figures on these images cannot be compared with
published ones.

The image is corrupted as the model would see it, after resize and crop, as in the benchmark.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from adawise.errors import SettingsError

Pixels = npt.NDArray[np.uint8]

SEVERITIES = range(1, 6)
USUAL_SEVERITY = 3

KINDS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic", "pixelate", "jpeg"),
)
"""The names of the functions in `corruptions`."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """A kind of `KINDS` at a severity of `SEVERITIES`. Its text, such as `fog2`, ends the name of a domain."""

    kind: str
    severity: int

    @override
    def __str__(self) -> str:
        return f"{self.kind}{self.severity}"


def parse(text: str) -> tuple[Corruption, ...]:
    """Parse `fog:2,motion_blur` into corruptions in that order.

    `all` or `all:4` is every kind; the default severity is 3.

    Raises:
        SettingsError: there is no such kind or severity, one is named twice, or scikit-image is not installed.
    """
    if find_spec("skimage") is None:
        raise SettingsError("--corrupt needs scikit-image: install the extra, pip install 'adawise[report]'")
    found: list[Corruption] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind, _, number = item.partition(":")
        severity = int(number) if number.isascii() and number.isdecimal() and len(number) == 1 else 0
        severity = USUAL_SEVERITY if ":" not in item else severity
        if (kind not in KINDS and kind != "all") or severity not in SEVERITIES:
            raise SettingsError(
                f"--corrupt: expected KIND or KIND:SEVERITY with a severity from 1 to 5, got {item!r}. "
                f"Name one of {', '.join(KINDS)}, or all."
            )
        found += [Corruption(name, severity) for name in (KINDS if kind == "all" else (kind,))]
    twice = sorted({str(corruption) for corruption in found if found.count(corruption) > 1})
    if twice or not found:
        raise SettingsError(
            f"--corrupt: expected corruptions, each once, got {f'{twice[0]} twice' if twice else repr(text)}. "
            "Name them as in fog:2,motion_blur:3, or leave --corrupt out."
        )
    return tuple(found)


def corrupt(image: Pixels, corruption: Corruption, seed: int) -> Pixels:
    """Corrupt uint8 `[3, S, S]`; the result has the same shape and dtype, and depends on the arguments alone."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
    key = hashlib.sha256(f"{seed} {corruption.kind} {corruption.severity}".encode() + digest).digest()
    rng = np.random.default_rng(np.frombuffer(key, dtype=np.uint32))
    # The module is imported when it is needed: scikit-image is an extra, and its import takes a second.
    function = getattr(import_module("adawise_lab.evaluate.corruptions"), corruption.kind)
    x = function(image.transpose(1, 2, 0) / 255.0, corruption.severity, rng)
    return np.ascontiguousarray(np.rint(np.clip(x, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(2, 0, 1))
