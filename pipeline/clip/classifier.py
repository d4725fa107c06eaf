"""The pair as a classifier: logits of images at any alpha of the grid, every forward in one fixed shape."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pipeline.adapt.interpolate import Layout
from pipeline.clip.bank import Bank
from pipeline.clip.load import ModelPair
from pipeline.errors import SettingsError

GRID = tuple(j / 20 for j in range(21))


class PairClassifier:
    """Implements `ports.Classifier` over a model pair.

    Every forward has the shape `[chunk_rows, 3, S, S]`, padded: an image's logits are the same bits whoever shares its
    chunk, which is what makes a replay exact although cameras interleave differently.

    Args:
        pair: the checked pair.
        classes: C class names, in the order of the logits.
        templates: prompts with `{}` for the class name.
        alphas: the grid, ascending from 0 to 1.
        chunk_rows: images a forward, >= 1.
        dtype: the tower's weights and activations; features, heads and logits are float32.
        device: where the tower runs.
        bank_bytes: memory for merged copies.
        head: `text` encodes the prompts at each alpha; `interpolate` takes the line between the two heads, renormalised
            (an interpolated head is shorter in the middle, which would heat the softmax there).
    """

    def __init__(
        self,
        pair: ModelPair,
        *,
        classes: Sequence[str],
        templates: Sequence[str],
        alphas: Sequence[float] = GRID,
        chunk_rows: int,
        dtype: torch.dtype,
        device: torch.device,
        bank_bytes: int,
        head: str,
    ) -> None:
        self._pair, self._classes, self._templates = pair, tuple(classes), tuple(templates)
        self._alphas, self.device, self.dtype = tuple(alphas), device, dtype
        self.chunk_rows, self._head_mode = chunk_rows, head
        self._mean = torch.tensor(pair.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(pair.std, device=device).view(1, 3, 1, 1)
        self._shared_head = pair.text_is_shared
        self._heads: dict[int, Tensor] = {}
        self._encoded: dict[float, Tensor] = {}  # alpha -> [D, C], what the text tower said
        self._embeddings_id = ""
        self.bank = Bank(
            pair.tower,
            pair.theta_0,
            pair.theta_1,
            alphas=alphas,
            dtype=dtype,
            device=device,
            budget_bytes=bank_bytes,
        )
        self.forward_seconds = 0.0
        self.images = 0

    @property
    def alphas(self) -> tuple[float, ...]:
        """See `ports.Classifier`."""
        return self._alphas

    @property
    def identity(self) -> dict[str, str]:
        """What a card belongs to: weights, classes, prompts, preprocessing and head; not dtype, device or chunk."""
        return {
            "theta_0": self._pair.hashes[0],
            "theta_1": self._pair.hashes[1],
            "classes": _digest("\n".join(self._classes)),
            "templates": _digest("\n".join(self._templates)),
            "preprocess": self._pair.preprocess.id,
            "head": "shared" if self._shared_head else self._head_mode,
        }

    @property
    def fingerprint(self) -> str:
        """Two equal fingerprints on equal hardware give equal logits, bit for bit: 16 hex digits."""
        numerics = f"{self.dtype} {self.device.type} {self.chunk_rows} {self._alphas} torch {torch.__version__}"
        return _digest(f"{sorted(self.identity.items())} {numerics}{self._embeddings_id}")

    @property
    def class_count(self) -> int:
        """C."""
        return len(self._classes)

    @property
    def encoded_alphas(self) -> tuple[float, ...]:
        """The H alphas at which the text tower encodes the prompts: one if the towers share it, both ends, or all."""
        if self._shared_head:
            return (0.0,)
        return (0.0, 1.0) if self._head_mode == "interpolate" else self._alphas

    def embeddings(self) -> Tensor:
        """What the text tower says: class embeddings, float32 `[H, D, C]`, unit columns. Minutes for many classes."""
        return torch.stack([self._encode(alpha) for alpha in self.encoded_alphas])

    def use_embeddings(self, embeddings: Tensor, digest: str) -> None:
        """Take these in place of encoding the prompts. `digest` becomes part of the fingerprint: they may come from
        another machine, whose text tower rounds otherwise.
        """
        self._encoded = dict(zip(self.encoded_alphas, embeddings, strict=True))
        self._embeddings_id = f" embeddings {digest}"
        self._heads.clear()

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        """See `ports.Classifier`: uint8 `[n, 3, S, S]`, N images in all -> float32 `[N, C]`."""
        started = time.perf_counter()
        with torch.inference_mode():
            tower, head = self.bank.tower(alpha_index), self._head(alpha_index)
            parts = [self._forward(tower, head, n, chunk) for n, chunk in _chunks(images, self.chunk_rows)]
            logits = torch.cat(parts).cpu()
        self.forward_seconds += time.perf_counter() - started
        self.images += len(logits)
        return logits.clone()

    def warm_up(self) -> None:
        """Run both endpoints, so that the first batch does not pay for allocation and kernel choice.

        Raises:
            SettingsError: on this machine an image's logits depend on its place in the chunk. Some sizes do that to
                some matrix libraries (measured: MKL, float32, 2 threads, 5 to 7 and 9 to 11 rows).
        """
        shape = (self.chunk_rows, 3, self._pair.preprocess.size, self._pair.preprocess.size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        for index in (0, len(self._alphas) - 1):
            if not torch.equal(self.logits(index, images), self.logits(index, images.flip(0)).flip(0)):
                raise SettingsError(
                    f"model.chunk_rows is {self.chunk_rows}: on this machine ({self.device.type}, {self.dtype}) an "
                    "image's logits then depend on its place in the chunk, and a replay would not be exact. "
                    "Set model.chunk_rows to a multiple of 8, or to 1."
                )

    def _forward(self, tower: torch.nn.Module, head: Tensor, n: int, chunk: Tensor) -> Tensor:
        """Logits of the first n rows of a chunk."""
        x = chunk.to(self.device, non_blocking=True).float().div_(255.0)
        x = x.sub_(self._mean).div_(self._std).to(self.dtype)  # [chunk_rows, 3, S, S]
        features = tower(x)
        features = features[0] if isinstance(features, tuple) else features  # CoCa also returns tokens
        return _head_logits(features[:n].float(), head)

    def _head(self, index: int) -> Tensor:
        """`[C, D]` with the logit scale, interpolated in log space, folded in."""
        if index not in self._heads:
            a = self._alphas[index]
            zero, one = self._pair.log_scales
            scale = torch.tensor((1.0 - a) * zero + a * one).exp()
            self._heads[index] = (self._class_embeddings(index) * scale).T.contiguous().to(self.device)
        return self._heads[index]

    def _class_embeddings(self, index: int) -> Tensor:
        if self._shared_head:
            return self._encode(0.0)
        if self._head_mode == "text":
            return self._encode(self._alphas[index])
        line = torch.lerp(self._encode(0.0), self._encode(1.0), self._alphas[index])
        return torch.nn.functional.normalize(line, dim=0)

    def _encode(self, alpha: float) -> Tensor:
        if alpha not in self._encoded:
            self._encoded[alpha] = self._pair.head(alpha, self._classes, self._templates)
        return self._encoded[alpha]


def _chunks(images: Sequence[Tensor], rows: int) -> Iterator[tuple[int, Tensor]]:
    """The images in chunks of that many rows, each with how many of them are filled; the rest are zeros."""
    left = sum(len(part) for part in images)
    chunk, filled = torch.zeros(rows, *images[0].shape[1:], dtype=torch.uint8), 0
    for part in images:
        while len(part):
            n = min(rows - filled, len(part))
            chunk[filled : filled + n] = part[:n]
            part, filled, left = part[n:], filled + n, left - n
            if filled == rows or left == 0:
                yield filled, chunk
                chunk, filled = torch.zeros_like(chunk), 0


def _head_logits(features: Tensor, head: Tensor) -> Tensor:
    """`[n, D]`, `[C, D]` -> `[n, C]`, float32: cosines times the scale.

    On a processor row by row: in one product, the place of a row (by the library's blocking) decides how its sums are
    rounded. So does the alignment of a row's memory; what `normalize` returns is aligned.
    """
    if features.device.type != "cpu":
        return torch.nn.functional.linear(torch.nn.functional.normalize(features, dim=-1), head)
    return torch.stack([head.mv(torch.nn.functional.normalize(row, dim=0)) for row in features])


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has instructions for it, else float32.

    Pure bfloat16 is twice as fast on a processor with avx512_bf16 or AMX, and slower than float32 on others. Asked,
    not timed: a busy moment at the start must not change the numbers, or a replay would differ.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def bank_bytes_for(pair: ModelPair, dtype: torch.dtype) -> int:
    """Bytes of one merged copy of the pair's image tower."""
    return Layout.of(pair.theta_0).numel * dtype.itemsize
