"""Decoding of samples into pixels by several threads, two batches ahead, with random crops for training.

Of held-out images, the activations behind the layers that a run does not train are computed once, and read for every
epoch and alpha.
"""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from adawise.decode.codec import open_image
from adawise.decode.preprocess import Preprocess
from adawise.decode.rendition import AS_OPEN_CLIP
from adawise.errors import FatalError, ImagesUnusable, InvalidMessage
from adawise.labels.folders.samples import Samples

_STRETCH = 4 / 3  # of a crop's aspect ratio relative to the image's, at most, either way
_KEPT_BYTES = 512 * 2**20  # of held-out pixels: a larger set is decoded again each time
_AHEAD = 2  # batches

ACTIVATION_BYTES = 2**30
"""What the activations of a run's held-out images may take in memory, counted as float32."""
_THUMBNAIL = 112  # px
_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # Rec. 601, as in a grey JPEG

Pixels = tuple[Tensor, Tensor]
"""uint8 `[n, 3, S, S]` and class indices int64 `[n]`."""


class Images:
    """Decodes samples.

    Attributes:
        labels: the class index of each sample; -1 for labels that are not in `index`.
        skipped: the name of each image that could not be read so far, with the reason.

    Args:
        samples: the images to read.
        index: class index by class name.
        preprocess: the model's.
        max_pixels: pixels of an image, at most, by its header.
        threads: number of decoding threads.
    """

    def __init__(
        self, samples: Samples, index: dict[str, int], *, preprocess: Preprocess, max_pixels: int, threads: int
    ) -> None:
        self._samples, self._preprocess, self._max_pixels = samples, preprocess, max_pixels
        self.labels = [index.get(label, -1) for label in samples.labels]  # -1: left out
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.skipped = {samples.names[i]: why for i, why in samples.left_out.items()}

    def thumbnail(self, i: int) -> bytes | None:
        """Return image i as a small JPEG; None if it can no longer be read."""
        try:
            whole = open_image(self._samples.read(i), max_pixels=self._max_pixels)
            image = self._preprocess.rendition(whole, whole.size).convert("RGB")
        except Exception:  # noqa: BLE001  as `_decode`; a picture of the page is not worth a run
            return None
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        kept = io.BytesIO()
        image.save(kept, "JPEG", quality=80)
        return kept.getvalue()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def batches(
        self,
        rows: Iterable[Sequence[int]],
        crop: Callable[[int], RandomCrop] | None = None,
    ) -> Iterator[Pixels]:
        """Yield the images of each list of numbers, without those that cannot be read.

        Args:
            rows: lists of image numbers, one for each batch.
            crop: returns the crop of image i; None for no crops.

        Raises:
            SettingsError: no image of a batch can be read.
        """
        for batch, pixels in self._decoded(rows, crop):
            if pixels is None:
                raise self._unreadable(batch)
            yield pixels

    def readable(self, rows: Sequence[Sequence[int]]) -> Iterator[Pixels]:
        """Yield as `batches`, but skip a batch without readable images; raise SettingsError if no batch has any."""
        found = False
        for _, pixels in self._decoded(rows, None):
            if pixels is not None:
                found = True
                yield pixels
        if rows and not found:
            raise self._unreadable([i for batch in rows for i in batch])

    def _decoded(
        self, rows: Iterable[Sequence[int]], crop: Callable[[int], RandomCrop] | None
    ) -> Iterator[tuple[Sequence[int], Pixels | None]]:
        waiting: deque[tuple[Sequence[int], list[Future[Tensor | None]]]] = deque()
        for batch in rows:
            waiting.append((batch, [self._pool.submit(self._decode, i, crop(i) if crop else None) for i in batch]))
            if len(waiting) > _AHEAD:
                yield self._gather(*waiting.popleft())
        while waiting:
            yield self._gather(*waiting.popleft())

    def _gather(
        self, rows: Sequence[int], futures: Sequence[Future[Tensor | None]]
    ) -> tuple[Sequence[int], Pixels | None]:
        decoded = [(future.result(), self.labels[i]) for i, future in zip(rows, futures, strict=True)]
        pixels = [image for image, _ in decoded if image is not None]
        if not pixels:
            return rows, None
        return rows, (torch.stack(pixels), torch.tensor([label for image, label in decoded if image is not None]))

    def _unreadable(self, rows: Sequence[int]) -> ImagesUnusable:
        name = self._samples.names[rows[0]]
        return ImagesUnusable(
            f"{self._samples.where}: none of {len(rows)} images can be read, such as {name}: {self.skipped[name]}. "
            "Give JPEG, PNG, WebP or BMP images."
        )

    def _decode(self, i: int, crop: RandomCrop | None) -> Tensor | None:
        name = self._samples.names[i]
        try:
            image = open_image(self._samples.read(i), max_pixels=self._max_pixels)
            return crop(image, self._preprocess) if crop else self._preprocess(image)
        except (MemoryError, FatalError):
            raise
        except InvalidMessage as error:
            self.skipped[name] = error.detail
        except Exception as error:  # noqa: BLE001  Pillow promises no closed set for broken data: see `codec`
            self.skipped[name] = str(error) or type(error).__name__
        return None


class HeldOut:
    """The held-out images as batches, for any number of passes; the pixels are kept in memory if they are few."""

    def __init__(self, images: Images, rows: Sequence[int], batch_images: int) -> None:
        self._images, self.rows = images, rows
        self._batches = [rows[start : start + batch_images] for start in range(0, len(rows), batch_images)]
        self._kept: list[Pixels] | None = None

    def __iter__(self) -> Iterator[Pixels]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Pixels] = []
        size = 0
        for pixels, labels in self.once():
            size += pixels.nbytes
            if size <= _KEPT_BYTES:
                kept.append((pixels, labels))
            yield pixels, labels
        if size <= _KEPT_BYTES:
            self._kept = kept

    def once(self) -> Iterator[Pixels]:
        """Decode and yield the batches without keeping them."""
        return self._images.readable(self._batches)


class RandomCrop:
    """A random part of an image, preprocessed as if it were the whole image, and perhaps mirrored.

    A part has nearly the aspect ratio of the image, so that crops of a camera's frame (16:9) resemble the frame. It
    goes through the model's own preprocessing, so that the model is trained on what it will serve.

    Args:
        random: random numbers of this image in this epoch.
        least: smallest share of the area that is kept, in (0, 1].
        flip: probability of mirroring.
        jitter: largest change of brightness, contrast and saturation, as a share of each.
    """

    def __init__(self, random: np.random.Generator, *, least: float, flip: float, jitter: float = 0.0) -> None:
        self._random, self._least, self._flip, self._jitter = random, least, flip, jitter

    def __call__(self, image: Image.Image, preprocess: Preprocess) -> Tensor:
        """Return uint8 `[3, S, S]`. Raises what Pillow raises for broken data."""
        image.info.pop("transparency", None)  # `Preprocess` does the same
        image = preprocess.rendition(image, image.size).convert("RGB")
        pixels = replace(preprocess, rendition=AS_OPEN_CLIP)(image.crop(self._box(*image.size)))
        pixels = pixels.flip(2) if self._random.random() < self._flip else pixels
        return self._recoloured(pixels) if self._jitter else pixels

    def _recoloured(self, pixels: Tensor) -> Tensor:
        """Return `[3, S, S]` uint8 with brightness, contrast and saturation changed, each drawn independently."""
        brightness, contrast, saturation = self._random.uniform(1 - self._jitter, 1 + self._jitter, size=3)
        x = pixels.float().mul_(brightness)
        x = torch.lerp(x.mean(), x, contrast)
        grey = (x * _LUMA).sum(dim=0, keepdim=True)
        return torch.lerp(grey, x, saturation).round_().clamp_(0.0, 255.0).to(torch.uint8)

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Draw a crop, and return its left, top, right and bottom."""
        share = self._random.uniform(self._least, 1.0)
        most = min(math.log(_STRETCH), math.log(1.0 / share))  # a wider crop would not fit
        stretch = math.exp(self._random.uniform(-most, most))
        w = max(1, round(width * math.sqrt(share * stretch)))
        h = max(1, round(height * math.sqrt(share / stretch)))
        left, top = int(self._random.integers(width - w + 1)), int(self._random.integers(height - h + 1))
        return left, top, left + w, top + h


class HeldOutActivations:
    """The activations of held-out images behind the layers that are not trained, kept in CPU memory.

    The first pass computes and keeps them; later passes decode no image and run none of these layers.

    Args:
        held_out: the images.
        compute: maps pixels uint8 `[n, 3, S, S]` to activations `[n, ...]` on the CPU.
        tail: maps activations to the result of the image tower, with the weights of the moment.
    """

    def __init__(self, held_out: HeldOut, compute: Callable[[Tensor], Tensor], tail: nn.Module) -> None:
        self._held_out, self._compute, self.tail = held_out, compute, tail
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    @property
    def rows(self) -> Sequence[int]:
        """The numbers of the images."""
        return self._held_out.rows

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield activations `[n, ...]` and class indices int64 `[n]`, batch by batch."""
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        for pixels, labels in self._held_out.once():
            batch = self._compute(pixels), labels
            kept.append(batch)
            yield batch
        self._kept = kept
