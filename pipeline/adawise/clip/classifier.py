"""The pair as a classifier: logits of images at any alpha of the grid, with every forward in one fixed shape."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from adawise.adapt.names import GRID
from adawise.adapt.rows import of_images
from adawise.clip.bank import Bank, MergedCopy
from adawise.clip.device import Device, Forward, chunks, numerics
from adawise.clip.heads import HeadCache
from adawise.clip.load import CheckpointPair
from adawise.clip.prompts import ENCODER, Encoding, Prompts
from adawise.clip.skeleton import Skeleton, without_tensors
from adawise.clip.trunk import Trunk, memory_order
from adawise.errors import DeviceMemoryError, SettingsError
from adawise.records import Rows, Selection

_log = structlog.get_logger("model")

T = TypeVar("T")

_ACTIVATION_BYTES = 2**30  # of a round; 32 chunks of 8 images of a ViT-L/14 in bfloat16 take an eighth of it


class PairClassifier:
    """An implementation of `ports.Classifier` over a model pair.

    Every forward has the shape `[chunk_rows, 3, S, S]`, padded. So an image's logits are the same bits whatever images
    share its chunk. That makes a replay exact although cameras interleave differently.

    Where both checkpoints have equal first layers (`clip/trunk.py`), the activations behind these are computed once for
    each image of a round, and each alpha costs the rest of the tower.

    Args:
        pair: the checked pair.
        classes: C class names, in the order of the logits.
        templates: prompts with `{}` for the class name.
        alphas: the grid, ascending from 0 to 1.
        chunk_rows: images of a forward, >= 1.
        dtype: the tower's weights and activations; features, heads and logits are float32.
        device: where the towers run.
        bank_bytes: memory for merged copies.
        head: `text` encodes the prompts at each alpha; `interpolate` takes the line between the two heads, renormalised
            (an interpolated head is shorter in the middle, which would heat the softmax there).
        bank: a bank of the same pair to be shared, in place of a new one of `bank_bytes`.

    Raises:
        DeviceError: the device failed, or has no memory for the two weight sets.
    """

    def __init__(
        self,
        pair: CheckpointPair,
        *,
        classes: Sequence[str],
        templates: Sequence[str],
        alphas: Sequence[float] = GRID,
        chunk_rows: int,
        dtype: torch.dtype,
        device: Device,
        bank_bytes: int,
        head: str,
        bank: Bank | None = None,
    ) -> None:
        self._pair, self._classes, self._templates = pair, tuple(classes), tuple(templates)
        self._alphas, self.device, self.dtype = tuple(alphas), device, dtype
        self.chunk_rows, self._head_mode = chunk_rows, head
        zero, one = pair.log_scales
        self._scales = [_scale((1.0 - a) * zero + a * one) for a in alphas]
        self._shared_head = pair.text_is_shared
        self._heads: dict[int, Tensor] = {}
        self._encoded: dict[float, Tensor] = {}  # alpha -> head [D, C] on the device, from the text tower
        self._encoding: dict[float, Encoding] = {}  # heads that idle time has begun
        self._cache: HeadCache | None = None
        self._embeddings_id = f" {ENCODER}"
        self.images = self.rows = 0  # passed through the tower, or its tail; rows include padding
        self._trunk: Forward | None = None  # what the device captured of the trunk
        self._fitting_images = sys.maxsize  # of a round whose activations fit into the device's memory
        try:
            with device.guarded():
                self._mean, self._std = _per_channel(pair.mean, device.where), _per_channel(pair.std, device.where)
                self.bank = bank or Bank(
                    pair.tower,
                    pair.theta_0,
                    pair.theta_1,
                    alphas=alphas,
                    dtype=dtype,
                    device=device.where,
                    budget_bytes=bank_bytes,
                    trunk=pair.trunk if isinstance(pair.trunk, Trunk) else None,
                )
        except torch.OutOfMemoryError as error:
            raise self._too_large() from error
        if device.where == torch.device("cpu"):
            pair.share_memory(*self.bank.ends)

    @property
    def alphas(self) -> tuple[float, ...]:
        """See `ports.Classifier`."""
        return self._alphas

    @property
    def tail_share(self) -> float:
        """See `ports.Classifier`."""
        return self._pair.tail_share

    @property
    def identity(self) -> dict[str, str]:
        """The identity that ties a card to the pair: weights, config, classes, prompts, preprocessing and head.

        Number format, device and chunk size are not part of it.
        """
        return {
            "theta_0": self._pair.hashes[0],
            "theta_1": self._pair.hashes[1],
            "classes": digest("\n".join(self._classes)),
            "templates": digest("\n".join(self._templates)),
            "preprocess": self._pair.preprocess.id,
            "head": "shared" if self._shared_head else self._head_mode,
            "config": self._pair.config,
        }

    @property
    def lineage(self) -> dict[str, str]:
        """`identity` with the oldest preprocessing that this one continues; states and roots are tied to it."""
        return {**self.identity, "preprocess": self._pair.preprocess.oldest}

    @property
    def fingerprint(self) -> str:
        """16 hex digits; equal fingerprints on equal hardware mean logits that are equal bit for bit."""
        of = self.numerics
        numbers = f"{self.dtype} {of['device']} {of['chunk_rows']} {self._alphas} torch {of['torch']}"
        return digest(f"{sorted(self.identity.items())} {numbers} {of['decoder']}{self._embeddings_id}")

    @property
    def numerics(self) -> dict[str, str]:
        """The parts of the fingerprint that decide the bits of logits, beside `identity`."""
        return {
            "precision": str(self.dtype).removeprefix("torch."),
            "device": self.device.numerics,
            "chunk_rows": str(self.chunk_rows),
            "heads": self._embeddings_id.strip(),
            "torch": str(torch.__version__),
            "decoder": self._pair.preprocess.build,
        }

    @property
    def class_count(self) -> int:
        """C."""
        return len(self._classes)

    @property
    def encoded_alphas(self) -> tuple[float, ...]:
        """The H alphas at which the text tower encodes the prompts: one if both towers are equal, both ends, or all."""
        if self._shared_head:
            return (0.0,)
        return (0.0, 1.0) if self._head_mode == "interpolate" else self._alphas

    def embeddings(self) -> Tensor:
        """Return the class embeddings of the text tower, float32 `[H, D, C]`, unit columns.

        Many classes take minutes.

        Raises:
            DeviceError: as of `evaluate`.
        """
        return self._fitting(lambda: torch.stack([self._encode(alpha) for alpha in self.encoded_alphas]).cpu())

    def use_embeddings(self, embeddings: Tensor, digest: str) -> None:
        """Use these class embeddings instead of encoding the prompts.

        `digest` becomes part of the fingerprint: they may come from another machine, whose text tower rounds
        differently.
        """
        with self.device.guarded():
            self._encoded = dict(zip(self.encoded_alphas, embeddings.to(self.device.where), strict=True))
        self._embeddings_id = f" embeddings {digest}"
        self._heads.clear()

    def use_cache(self, folder: Path, limit_bytes: int) -> None:
        """Load the heads in `folder` that are bit for bit those of this classifier, and store new ones there.

        A head that is missing or damaged is encoded when it is needed.
        """
        parts = {
            "weights": self._pair.hashes,
            "config": self._pair.config,
            "tokens": self._prompts.digest,
            "encoder": ENCODER,
            "device": self.device.numerics,
            "machine": numerics(),
        }
        key = "\n".join(f"{name} {value}" for name, value in parts.items())
        self._cache = HeadCache(folder, key=key, classes=self.class_count, limit_bytes=limit_bytes)
        found = self._cache.read([alpha for alpha in self.encoded_alphas if alpha not in self._encoded])
        with self.device.guarded():
            self._encoded |= {alpha: head.to(self.device.where) for alpha, head in found.items()}

    def prepare(self, likely: Sequence[int]) -> bool:
        """Encode a part of the prompts of the first missing head; return False if no head is missing.

        A part takes a fraction of a second, and changes no result. `likely` are indices of alphas, the likeliest first.

        Raises:
            DeviceError: as of `evaluate`.
        """
        wanted = dict.fromkeys(alpha for index in likely for alpha in self._ends_of(index))
        missing = [alpha for alpha in wanted if alpha not in self._encoded]
        if not missing:
            return False
        self._fitting(lambda: self._encode_part(missing[0]))
        if all(alpha in self._encoded for alpha in missing):
            _log.info("heads_encoded", heads=len(self._encoded))
        return True

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        """Return the logits at one alpha, float32 `[N, C]`.

        Arguments and errors are those of `evaluate`: uint8 images `[n, 3, S, S]`, N in all.
        """
        return self.evaluate({alpha_index: images})[alpha_index]

    def open(self, batches: Sequence[Tensor]) -> PairRound:
        """See `ports.Classifier`."""
        return PairRound(self, batches)

    def evaluate(self, requested: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        """Return the logits of other images at each alpha, float32 `[N, C]` in CPU memory, by the alpha's index.

        If the bank does not fit into the device's memory, it is halved with a warning.

        Args:
            requested: by an alpha's index in `alphas`, one or more tensors of uint8 `[n, 3, S, S]`, N >= 1
                images in all.

        Raises:
            DeviceError: the device failed, or lacks memory even for one merged copy and one chunk.
        """
        logits = self._fitting(lambda: self._evaluate(requested)).clone()
        parts = torch.split(logits, [sum(map(len, images)) for images in requested.values()])
        return dict(zip(requested, parts, strict=True))

    def _fitting(self, compute: Callable[[], T]) -> T:
        """Return the result of `compute`, repeated with a smaller bank while the device's memory runs out."""
        while True:
            copies = self.bank.capacity
            try:
                with self.device.guarded():
                    return compute()
            except torch.OutOfMemoryError as error:
                lacking = str(error).splitlines()[0]
            # Outside of the handler, because the error keeps the tensors of its frames alive.
            if self.bank.capacity == copies and not self.bank.shrink():
                raise self._too_large()
            with self.device.guarded():
                self.device.free()
            _log.warning(
                "bank_shrunk",
                copies=self.bank.capacity,
                error=lacking,
                remedy="the device has no memory left: copies are merged again more often, which costs time "
                "and changes no result; lower model.bank_mib, or give the worker a separate device",
            )

    def _evaluate(self, requested: Mapping[int, Sequence[Tensor]], head_of: int | None = None) -> Tensor:
        """Return the logits `[N, C]` of everything requested, one alpha after the other, on the CPU.

        With `head_of`, all alphas use the head of that one.
        """
        parts = []
        for index, images in requested.items():
            head, copy = self._head(index if head_of is None else head_of), self.bank.copy(index)
            with torch.inference_mode():
                for n, views in chunks(images, self.chunk_rows):
                    chunk = self.device.stage(views, self.chunk_rows)
                    activations = chunk if self.bank.trunk is None else self._activations(self.bank.trunk, chunk)
                    parts.append(self._logits(copy, head, activations, n))
        with torch.inference_mode():
            return self.device.fetch(parts)

    @property
    def kept_images(self) -> int:
        """The most images of a round whose activations are kept; 0 if the tower is not cut."""
        each = self.bank.activation_bytes
        return min(_ACTIVATION_BYTES // each, self._fitting_images) if each else 0

    def keep_fewer_activations(self, images: int, copies: int) -> None:
        """Keep no activations of rounds of so many images or more from now on: the device had no memory for them.

        `copies` is the capacity of the bank before it gave up copies for them, which it has again.
        """
        self._fitting_images, self.bank.capacity = min(self._fitting_images, images - 1), copies
        _log.warning(
            "activations_not_kept",
            images=images,
            remedy="the device has no memory for the activations of a round of so many images beside one merged copy: "
            "each probe in such a round runs the whole tower, which costs time and changes no result; lower "
            "model.chunk_rows, or give the worker a separate device",
        )

    def activations(self, batches: Sequence[Tensor]) -> Tensor:
        """Return the activations `[N, ...]` behind the trunk of all images, uint8 `[n, 3, S, S]` a tensor.

        Raises:
            DeviceError: as of `evaluate`.
        """
        trunk = self.bank.trunk
        assert trunk is not None, "without a trunk there are no activations to keep"
        return self._fitting(lambda: self._all_activations(trunk, batches))

    def evaluate_rows(self, activations: Tensor, rows: Mapping[int, Rows]) -> dict[int, Tensor]:
        """Return the logits of rows of `activations` at each alpha; as `evaluate` otherwise."""
        logits = self._fitting(lambda: self._evaluate_rows(activations, rows)).clone()
        return dict(zip(rows, torch.split(logits, [len(each) for each in rows.values()]), strict=True))

    def _evaluate_rows(self, activations: Tensor, requested: Mapping[int, Rows]) -> Tensor:
        """Return the logits `[N, C]` of these rows, one alpha after the other, on the CPU."""
        parts, size = [], self.chunk_rows
        # The last row of an alpha is repeated until its last chunk is full.
        padded = [np.pad(rows, (0, -len(rows) % size), mode="edge") for rows in requested.values()]
        chosen = self.device.upload(torch.from_numpy(np.concatenate(padded)))
        order = memory_order(activations)
        packed, back = activations.permute(order), np.argsort(order).tolist()
        start = 0
        for index, rows in requested.items():
            head, copy = self._head(index), self.bank.copy(index)
            with torch.inference_mode():
                for left in range(len(rows), 0, -size):
                    chunk = packed.index_select(0, chosen[start : start + size]).permute(back)
                    parts.append(self._logits(copy, head, chunk, min(left, size)))
                    start += size
        with torch.inference_mode():
            return self.device.fetch(parts)

    def _all_activations(self, trunk: nn.Module, batches: Sequence[Tensor]) -> Tensor:
        """Return the activations `[N, ...]` of all images, which lie in memory as those of a chunk."""
        found: Tensor | None = None
        start, images = 0, sum(map(len, batches))
        with torch.inference_mode():
            for n, views in chunks(batches, self.chunk_rows):
                part = self._activations(trunk, self.device.stage(views, self.chunk_rows))
                if found is None:
                    _, *order = memory_order(part)
                    packed = part.new_empty(images, *(part.shape[d] for d in order))
                    found = packed.permute(0, *(1 + np.argsort(order)).tolist())
                found[start : start + n] = part[:n]
                start += n
        assert found is not None, "expected one image or more"
        return found

    def _activations(self, trunk: nn.Module, chunk: Tensor) -> Tensor:
        """Return the activations `[rows, ...]` behind the trunk, valid until the next captured forward."""
        if self._trunk is None:
            before = partial(_prepared, trunk, self._mean, self._std, self.dtype)
            self._trunk = self.device.capture(before, chunk)
        return self._trunk(chunk)

    def _logits(self, copy: MergedCopy, head: Tensor, chunk: Tensor, n: int) -> Tensor:
        """Return the logits of the first n of the images, or of the activations, in a chunk."""
        if copy.forward is None:
            tower: Callable[[Tensor], Any] = copy.tower
            if self.bank.trunk is None:
                tower = partial(_prepared, tower, self._mean, self._std, self.dtype)
            copy.forward = self.device.capture(partial(_features, tower), chunk)
        self.images, self.rows = self.images + n, self.rows + self.chunk_rows
        return _head_logits(copy.forward(chunk), head, n)

    def warm_up(self, first: int = 0) -> None:
        """Run both endpoints' towers, so that the first batch does not pay for allocation and the choice of kernels.

        They use the head of the alpha at index `first`, the only head that a start waits for.

        Raises:
            SettingsError: on this machine an image's logits depend on its place in the chunk, as some sizes do with
                some matrix libraries (measured: MKL, float32, 2 threads, 5 to 7 and 9 to 11 rows); or they are not
                finite in this number format.
            DeviceError: as of `evaluate`.
        """
        shape = (self.chunk_rows, 3, self._pair.preprocess.size, self._pair.preprocess.size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        here = f"on this machine ({self.device}, {self.dtype})"
        for index in (0, len(self._alphas) - 1):

            def logits(images: Tensor, index: int = index) -> Tensor:
                return self._fitting(lambda: self._evaluate({index: (images,)}, first))

            whole = logits(images)
            if not bool(torch.isfinite(whole).all()):
                raise SettingsError(
                    f"model.precision: {here} alpha {self._alphas[index]:g} gives logits that are not finite. "
                    "Set model.precision to fp32, or to bf16 where the device has it."
                )
            for moved in (1, self.chunk_rows // 2):
                if not torch.equal(whole, logits(images.roll(moved, 0)).roll(-moved, 0)):
                    raise SettingsError(
                        f"model.chunk_rows is {self.chunk_rows}: {here} an image's logits depend on its position "
                        "in the chunk, and a replay would not be exact. Set model.chunk_rows to a multiple of 8, "
                        "or to 1."
                    )

    def _too_large(self) -> DeviceMemoryError:
        return DeviceMemoryError(
            f"{self.device} has too little free memory for the two weight sets, one merged copy and a chunk of "
            f"{self.chunk_rows} images. Free some (nvidia-smi shows the processes), lower model.chunk_rows, or use "
            "a smaller model, another device or model.device=cpu."
        )

    def _head(self, index: int) -> Tensor:
        """Return the head `[C, D]` with the logit scale, interpolated in log space, folded in."""
        if index not in self._heads:
            self._heads[index] = (self._class_embeddings(index) * self._scales[index]).T.contiguous()
        return self._heads[index]

    def _class_embeddings(self, index: int) -> Tensor:
        """Return the class embeddings `[D, C]` at an alpha, with unit columns."""
        first, *others = (self._encode(alpha) for alpha in self._ends_of(index))
        if not others:
            return first
        return torch.nn.functional.normalize(torch.lerp(first, others[0], self._alphas[index]), dim=0)

    def _ends_of(self, index: int) -> tuple[float, ...]:
        """Return the alphas whose heads make the one at `index`."""
        if self._shared_head or self._head_mode == "interpolate":
            return self.encoded_alphas
        return (self._alphas[index],)

    @cached_property
    def _prompts(self) -> Prompts:
        return self._pair.prompts(self._classes, self._templates)

    def _encode(self, alpha: float) -> Tensor:
        while alpha not in self._encoded:
            self._encode_part(alpha)
        return self._encoded[alpha]

    def _encode_part(self, alpha: float) -> None:
        """Encode the next part of the prompts at `alpha`; after the last one the head is stored."""
        encoding = self._encoding.pop(alpha, None) or self._prompts.encode(alpha, self.device.where)
        try:
            next(encoding)
        except StopIteration as done:
            self._encoded[alpha] = done.value
            if self._cache is not None:
                self._cache.write(alpha, done.value)
        else:
            self._encoding[alpha] = encoding


class PairRound:
    """An implementation of `ports.Round`.

    With a trunk, the activations behind it are computed once, when they are first needed, and kept as long as the
    round. They take N times the activations of an image; the worker bounds N by the chunks that a round gathers. Where
    they would take more than 1 GiB, or the device has no memory for them beside one merged copy, nothing is kept, and
    each request runs the trunk again, with the same bits.

    Args:
        classifier: the classifier.
        batches: a tensor uint8 `[n, 3, S, S]` for each batch, N >= 1 images in all.
    """

    def __init__(self, classifier: PairClassifier, batches: Sequence[Tensor]) -> None:
        self._classifier, self._batches = classifier, batches
        *self._starts, self._images = np.cumsum([0, *map(len, batches)]).tolist()
        self._keeps = self._images <= classifier.kept_images
        self._activations: Tensor | None = None

    def evaluate(self, requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
        """See `ports.Round`. Raises DeviceError as `PairClassifier.evaluate`."""
        if self._keeps:
            copies = self._classifier.bank.capacity
            with suppress(DeviceMemoryError):
                return self._evaluate_kept(requested)
            self._keeps, self._activations = False, None
            self._classifier.keep_fewer_activations(self._images, copies)
        return of_images(self._batches, self._classifier.evaluate)(requested)

    def _evaluate_kept(self, requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
        if self._activations is None:
            self._activations = self._classifier.activations(self._batches)
        rows = {
            index: np.concatenate([self._starts[batch] + chosen for batch, chosen in selections])
            for index, selections in requested.items()
        }
        return self._classifier.evaluate_rows(self._activations, rows)


def forward_in(pair: CheckpointPair, dtype: torch.dtype, where: torch.device) -> Forward:
    """Return the forward of theta_0's whole image tower in a number format, as a classifier runs it, but for the head.

    It has a copy of the weights of its own. The doctor times it.
    """
    buffers = dict(pair.tower.named_buffers(remove_duplicate=False))
    skeleton = Skeleton(without_tensors(pair.tower), pair.theta_0, buffers)
    tower = skeleton.over(skeleton.layout.flatten(pair.theta_0, where).to(dtype))
    mean, std = _per_channel(pair.mean, where), _per_channel(pair.std, where)
    return partial(_features, partial(_prepared, tower, mean, std, dtype))


def _scale(log_scale: float) -> float:
    return float(torch.tensor(log_scale).exp())


def _per_channel(values: Sequence[float], where: torch.device) -> Tensor:
    return torch.tensor(values, device=where).view(1, 3, 1, 1)


def _prepared(part: Callable[[Tensor], T], mean: Tensor, std: Tensor, dtype: torch.dtype, chunk: Tensor) -> T:
    """Return what a tower or a trunk makes of uint8 images `[rows, 3, S, S]`."""
    return part(chunk.float().div_(255.0).sub_(mean).div_(std).to(dtype))


def _features(tower: Callable[[Tensor], Any], chunk: Tensor) -> Tensor:
    """Return the tower's features, float32 `[rows, D]`."""
    output = tower(chunk)
    features: Tensor = output[0] if isinstance(output, tuple) else output  # CoCa also returns tokens
    return features.float()


def _head_logits(features: Tensor, head: Tensor, n: int) -> Tensor:
    """Return the logits `[n, C]` of the first n rows, float32: cosines times the scale.

    On a GPU all rows are multiplied at once: the kernel, and so its rounding, follows from the shape. On a CPU each row
    is multiplied alone: within one product, the library's blocking decides by the row's place how its sums are rounded.
    The alignment of a row's memory matters too; the result of `normalize` is aligned.

    Args:
        features: `[rows, D]`.
        head: `[C, D]`.
        n: rows that are not padding.
    """
    if features.device.type != "cpu":
        return torch.nn.functional.linear(torch.nn.functional.normalize(features, dim=-1), head)[:n]
    return torch.stack([head.mv(torch.nn.functional.normalize(row, dim=0)) for row in features[:n]])


def digest(text: str) -> str:
    """Return the first 16 hex digits of the text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
