"""Loops that the worker is compared with: the image tower alone, what a user writes, and the method taken literally.

All three run open_clip's own modules. Read `PlainLoop` for zero-shot, and `NaiveLoop` for AdaWiSE as its abstract
describes it, without any of the program's shortcuts.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from adawise.adapt.names import GRID
from adawise.adapt.search import Strategy
from adawise.clip.device import Device
from adawise.clip.load import OpenClipModel

_ROWS = (8, 16, 32, 64, 128, 256)  # images of a forward that are tried
_FORMATS = {
    "cpu": {"fp32": torch.float32, "bf16": torch.bfloat16},
    "cuda": {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16},
}


class BareTower:
    """open_clip's image tower, with the batch and the number format that are the fastest here.

    Args:
        model: the zero-shot checkpoint.
        device: where it runs.
        size: pixels of a side.
        seconds: how long trials of formats and batches may take; one is always made.
    """

    def __init__(self, model: OpenClipModel, device: Device, *, size: int, seconds: float) -> None:
        self._where = device.where
        self._chunk = torch.randn(_ROWS[-1], 3, size, size)
        ends_at, rates = time.perf_counter() + seconds, dict[tuple[str, int], float]()
        formats = [name for name in _FORMATS[self._where.type] if name != "bf16" or device.has_bfloat16]
        towers = dict[str, Any]()
        for self.precision in formats:
            if towers and time.perf_counter() > ends_at:
                break
            self._tower = towers[self.precision] = deepcopy(model.model.visual).to(self._where, self.dtype)
            self.rows = _ROWS[0]
            self.rate()  # kernels are chosen
            for self.rows in _ROWS:
                # A batch that takes a tenth of the time shows no more than a smaller one.
                expected_s = self.rows / rates.get((self.precision, self.rows // 2), float("inf"))
                if (self.precision, _ROWS[0]) in rates and (
                    time.perf_counter() > ends_at or expected_s > seconds / 10.0
                ):
                    break
                try:
                    rates[self.precision, self.rows] = self.rate()
                except torch.OutOfMemoryError:
                    if not rates:
                        raise
                    break
        self.precision, self.rows = max(rates, key=lambda key: rates[key])
        self._tower = towers[self.precision]
        self.fastest = rates[self.precision, self.rows]
        self.float32_rate = max(rate for (precision, _), rate in rates.items() if precision == "fp32")

    @property
    def dtype(self) -> torch.dtype:
        """The number format."""
        return _FORMATS[self._where.type][self.precision]

    def rate(self, seconds: float = 0.0) -> float:
        """Return the images a second of forwards for this long, one at least."""
        chunk = self._chunk[: self.rows].to(self._where, self.dtype)
        began_s, images = time.perf_counter(), 0
        with torch.inference_mode():
            while not images or time.perf_counter() - began_s < seconds:
                self._tower(chunk)
                _wait(self._where)
                images += len(chunk)
        return images / max(time.perf_counter() - began_s, 1e-9)


class PlainLoop:
    """The loop that a user writes: Pillow, open_clip's preprocessing, batches, zero-shot alone.

    Args:
        model: the zero-shot checkpoint.
        prompts: the prompts of each class.
        where: the device.
        dtype: the number format of the image tower.
    """

    def __init__(
        self, model: OpenClipModel, prompts: Sequence[Sequence[str]], where: torch.device, dtype: torch.dtype
    ) -> None:
        self._transform, self._where, self._dtype = model.transform, where, dtype
        self._tower = deepcopy(model.model.visual).to(where, dtype)
        with torch.inference_mode():
            self._head = head(model.model, model.tokenizer, prompts).to(where)

    def classify(self, values: Sequence[bytes]) -> list[int]:
        """Return the class of each encoded image of a batch."""
        with torch.inference_mode():
            images = _pixels(self._transform, values).to(self._where, self._dtype)
            features = _features(self._tower(images))
            probabilities = (100.0 * features @ self._head).softmax(dim=-1)  # [N, C]
            return [int(index) for index in probabilities.argmax(dim=-1)]


class NaiveLoop:
    """AdaWiSE from the abstract: each batch is searched from scratch, and each trial merges whole state dicts.

    The head is encoded again at each trial, unless both text towers are equal.

    Args:
        zero: the zero-shot checkpoint.
        one: the weights of the fine-tuned one.
        prompts: the prompts of each class.
        where: the device.
        search: a strategy that uses nothing of earlier batches if each begins at its first state.
        shared_head: both text towers are equal.
    """

    def __init__(
        self,
        zero: OpenClipModel,
        one: Mapping[str, Tensor],
        prompts: Sequence[Sequence[str]],
        where: torch.device,
        *,
        search: Strategy,
        shared_head: bool,
    ) -> None:
        self._transform, self._tokenizer, self._prompts, self._where = zero.transform, zero.tokenizer, prompts, where
        self._merged = deepcopy(zero.model).to(where)
        self._zero = {name: tensor.to(where) for name, tensor in zero.model.state_dict().items()}
        self._one = {name: tensor.to(where) for name, tensor in one.items()}
        self._search = search
        self._head: Tensor | None = None
        with torch.inference_mode():
            if shared_head:
                self._head = head(self._merged, self._tokenizer, prompts)

    def classify(self, values: Sequence[bytes]) -> list[int]:
        """Return the class of each encoded image of a batch, at the alpha that its search serves."""
        images = _pixels(self._transform, values).to(self._where)
        search = self._search.search(self._search.initial(), len(values))
        trials = next(search)
        while True:
            logits = [self._logits(GRID[trial.index], images) for trial in trials]
            try:
                trials = search.send(logits)
            except StopIteration as done:
                return [int(index) for index in done.value.logits.argmax(dim=-1)]

    def _logits(self, alpha: float, images: Tensor) -> Tensor:
        """Return the logits `[N, C]` of merged weights."""
        with torch.inference_mode():
            merged = {
                name: torch.lerp(tensor, self._one[name], alpha) if tensor.is_floating_point() else tensor
                for name, tensor in self._zero.items()
            }
            self._merged.load_state_dict(merged)
            columns = self._head
            if columns is None:
                columns = head(self._merged, self._tokenizer, self._prompts)
            scale = self._merged.logit_scale.exp()
            logits: Tensor = scale * _features(self._merged.visual(images)) @ columns
            return logits.float().cpu()


def head(model: Any, tokenizer: Callable[[Sequence[str]], Tensor], prompts: Sequence[Sequence[str]]) -> Tensor:
    """Return the class embeddings `[D, C]`, unit columns: the mean of each class's prompts, as open_clip's examples."""
    where = next(model.parameters()).device
    columns = []
    for texts in prompts:
        features = normalize(model.encode_text(tokenizer(texts).to(where)).float(), dim=-1)
        columns.append(normalize(features.mean(dim=0), dim=0))
    return torch.stack(columns, dim=1)


def _pixels(transform: Callable[[Image.Image], Tensor], values: Sequence[bytes]) -> Tensor:
    """Return the images `[N, 3, S, S]`, as open_clip's examples read them."""
    return torch.stack([transform(Image.open(io.BytesIO(value)).convert("RGB")) for value in values])


def _features(output: Any) -> Tensor:
    """Return unit features `[N, D]` of a tower's output, float32; CoCa's tower also returns tokens."""
    features: Tensor = output[0] if isinstance(output, tuple) else output
    return normalize(features.float(), dim=-1)


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
