"""The labelled images of every command that asks for them, and the logits of a pair on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog
import torch

from adawise.adapt.rows import all_rows
from adawise.app.parts import open_decoder
from adawise.clip.classifier import PairClassifier
from adawise.console import Progress
from adawise.errors import SettingsError
from adawise.labels.folders.read import read_samples
from adawise.labels.folders.samples import Samples
from adawise.ports import Classifier
from adawise.settings import DecodeSettings

_SHOWN = 5  # reasons, or files, that are named

_log = structlog.get_logger("labelled")


def open_samples(
    settings: DecodeSettings,
    path: Path,
    flag: str,
    classes: tuple[str, ...] | None,
    *,
    own_classes: bool = False,
    listed: bool = True,
) -> Samples:
    """Read samples as `read_samples` does; log unlabelled images, files that are no images, and classes without images.

    Raises:
        SettingsError, SourceError: there are no labelled images.
    """
    decoder = partial(open_decoder, settings)
    samples = read_samples(path, flag, classes, decoder, own_classes=own_classes, listed=listed)
    if samples.unlabelled:
        _log.info("images_not_labelled", images=str(path), count=samples.unlabelled)
    if samples.empty:
        _log.warning("folders_left_empty", images=str(path), count=len(samples.empty), first=samples.empty[:5])
    if samples.passed_over:
        log_skipped(str(path), samples.passed_over)
    return samples


def log_skipped(place: str, skipped: Mapping[str, str]) -> None:
    """Log the files of a place that are not used: the number for each reason, and the first names."""
    why = dict(Counter(skipped.values()).most_common(_SHOWN))
    _log.warning("files_skipped", images=place, count=len(skipped), of_them=why, first=list(skipped)[:_SHOWN])


def logits_at(
    classifier: Classifier, batches: Sequence[torch.Tensor], wanted: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield the logits of batches at many alphas: an alpha's index, a batch's number, and `[n, C]`, as wanted.

    Layers that both models share are computed once for each image. Alpha by alpha, the weights are merged once for all
    batches.

    Args:
        classifier: the pair.
        batches: images uint8 `[n, 3, S, S]` each, few enough that their activations fit into memory.
        wanted: indices of alphas and numbers of batches, taken one by one.
    """
    opened, every = classifier.open(batches), all_rows(batches)
    for index, number in wanted:
        yield index, number, opened.evaluate({index: [every[number]]})[index]


def logits_of(
    classifier: PairClassifier,
    batches: Iterable[tuple[torch.Tensor, Sequence[int] | torch.Tensor]],
    bar: Progress,
    *,
    step: int = 1,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return logits `[N, C]` at each alpha, and labels `[N]`, of batches of pixels with their labels.

    The logits are computed at every `step`th alpha and the last one, and interpolated linearly between these.

    Raises:
        SettingsError: some are not finite.
    """
    last = len(classifier.alphas) - 1
    parts: dict[int, list[torch.Tensor]] = {j: [] for j in (*range(0, last, step), last)}
    labels: list[torch.Tensor] = []
    for pixels, targets in batches:
        labels.append(torch.as_tensor(targets))
        for j, _, logits in logits_at(classifier, [pixels], ((j, 0) for j in parts)):
            parts[j].append(logits)
            bar.advance(len(targets))
    made = {j: torch.cat(part) for j, part in parts.items()}
    for j, logits in made.items():
        if broken := int((~logits.isfinite()).any(dim=1).sum()):
            raise SettingsError(
                f"at alpha {classifier.alphas[j]:g} the model's logits of {broken} of {len(logits)} images are not "
                "finite. Set model.precision to bf16 or fp32 if it is fp16; else the weights are damaged: give "
                "others."
            )
    between = [(j // step * step, min(j // step * step + step, last), j % step) for j in range(last + 1)]
    return [
        torch.lerp(made[low], made[high], at / (high - low)) if at and j != last else made[j]
        for j, (low, high, at) in enumerate(between)
    ], torch.cat(labels)
