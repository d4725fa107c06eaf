"""The search's hyper-parameters, fitted to the batches of a recorded stream as the worker would cut them.

A recording may be long, and a forward is expensive. So all batches are cut without decoding a pixel, and only those
that are fitted, spread over the recording, are decoded and classified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog
import torch
from torch import Tensor

from adawise.adapt.objective import Values
from adawise.app.model import ModelPair, check_card, load_model
from adawise.app.parts import open_decoder
from adawise.card.advice import AUTO, chosen
from adawise.card.card import Card, FittedSearch, read_card
from adawise.console import progress
from adawise.errors import SettingsError
from adawise.recording.source import RecordingSource
from adawise.records import ImageBatch, Message, RowId, TopicPartition
from adawise.settings import Settings
from adawise.worker.batching import BatchPolicy, Gatherer
from adawise_lab.card.make import replace_card
from adawise_lab.labelled import logits_at

_POLL_RECORDS = 64  # messages a poll
_ALPHAS = 7  # alphas of the grid: enough for the shape of a curve, with a third of the forwards
_LEAST_IMAGES = 2  # the sampling variance of a single image is not known

_log = structlog.get_logger("card")

Rows = tuple[RowId, ...]  # the images of a batch


@dataclass(frozen=True, slots=True)
class FitRequest:
    """A request to fit the search to recorded batches, and to add the result to a card.

    Args:
        settings: the pair, how images are decoded, and how batches are cut.
        card: the file of the card, which is replaced.
        recording: the recording.
        objective: the objective whose curves are fitted; `auto`: the one that the card recommends.
        batches: the most batches.
    """

    settings: Settings
    card: Path
    recording: Path
    objective: str = AUTO
    batches: int = 384


def fit(request: FitRequest) -> Card:
    """Fit the surrogate to curves of the card's objective on recorded batches, and write it into the card.

    Raises:
        CardError: there is no card, or it belongs to another pair.
        SourceError: there is no recording, or it is damaged.
        SettingsError: no stream in it is long enough.
    """
    settings, card = request.settings, read_card(request.card)
    model = load_model(settings.model, settings.decode, with_card=False)
    check_card(card, model.checkpoints, model.classifier)
    fitted = replace(card, search=_fitted(request, model, card), scene=None)  # served by another search
    replace_card(request.card, fitted)
    return fitted


def _fitted(request: FitRequest, model: ModelPair, card: Card) -> FittedSearch:
    from adawise_lab.card.fit_search import LEAST_BATCHES, Curve, fit_search, windows

    settings, name = request.settings, chosen(request.objective, card)
    objective = card.objective(name)
    indices = sorted({round(x) for x in np.linspace(0, len(card.alphas) - 1, _ALPHAS)})
    try:
        streams = _cut(settings, request.recording)
        runs = [streams[s][batches] for s, batches in windows([len(stream) for stream in streams], request.batches)]
        _log.info("search_fit_begun", batches=sum(map(len, runs)), of=sum(map(len, streams)), objective=name)

        def values(images: Tensor) -> Values:
            found = logits_at(model.classifier, [images], ((j, 0) for j in indices))
            return np.stack([objective(logits, j) for j, _, logits in found])  # [A, n]

        curves = [[Curve.of(v) for v in run] for run in _values(settings, model, request.recording, runs, values)]
        # A run may have lost batches that could not be decoded. All are cut to the shortest that can still be fitted.
        enough = min((len(run) for run in curves if len(run) >= LEAST_BATCHES), default=0)
        found = fit_search([run[:enough] for run in curves], [card.alphas[j] for j in indices])
    except ValueError as error:
        raise SettingsError(f"--recording {request.recording}: {error}") from error
    return FittedSearch(
        objective=name,
        batches=enough * sum(len(run) >= enough for run in curves),
        lengthscale=found.lengthscale,
        signal_sd=found.signal_sd,
        offset_sd=found.offset_sd,
        persistence=found.persistence,
    )


def _cut(settings: Settings, recording: Path) -> list[list[Rows]]:
    """Return the batches of each stream, in order, as the ids of their images; without those too small to fit."""
    streams: dict[tuple[TopicPartition, str], list[Rows]] = {}
    # Cutting needs no pixels.
    nothing = torch.empty(0, dtype=torch.uint8)
    for tp, batch in recorded_batches(settings, recording, lambda _: nothing):
        if len(batch) >= _LEAST_IMAGES:
            streams.setdefault((tp, batch.stream_id), []).append(tuple(frame.row_id for frame in batch.frames))
    return list(streams.values())


def _values(
    settings: Settings,
    model: ModelPair,
    recording: Path,
    runs: Sequence[Sequence[Rows]],
    values: Callable[[Tensor], Values],
) -> list[list[Values]]:
    """Return `values` of the images of each batch, run by run.

    Batches are left out that lose too many images in decoding, or have values that are not finite.
    """
    places = {row: (r, b) for r, run in enumerate(runs) for b, rows in enumerate(run) for row in rows}
    messages = {(row.topic, row.partition, row.offset) for row in places}
    left = {(r, b): len(rows) for r, run in enumerate(runs) for b, rows in enumerate(run)}
    images: dict[tuple[int, int], list[Tensor]] = {place: [] for place in left}
    found: dict[tuple[int, int], Values] = {}
    decode = open_decoder(settings.decode, model.checkpoints.preprocess)
    with progress("evaluated", total=len(left), unit="recorded batches") as bar:
        for message in _messages(recording):
            if (message.topic, message.partition, message.offset) not in messages:
                continue
            for frame in decode(message).frames:
                place = places.get(frame.row_id)
                if place is None:
                    continue
                left[place] -= 1
                if frame.image is not None:
                    images[place].append(frame.image)
                if left[place] == 0:
                    pixels = images.pop(place)
                    if len(pixels) >= _LEAST_IMAGES:
                        found[place] = values(torch.stack(pixels))
                    bar.advance()
    return [
        [found[r, b] for b in range(len(run)) if (r, b) in found and np.isfinite(found[r, b]).all()]
        for r, run in enumerate(runs)
    ]


def recorded_batches(
    settings: Settings, recording: Path, preprocess: Callable[..., Tensor]
) -> Iterator[tuple[TopicPartition, ImageBatch]]:
    """Yield the batches of a recording in its order, cut by the settings as the worker cuts them.

    Raises:
        SourceError: there is no recording, or it is damaged.
    """
    decode = open_decoder(settings.decode, preprocess)
    policy = BatchPolicy(images=settings.batch.images, max_age_s=settings.batch.max_age_s)
    gatherers: dict[TopicPartition, Gatherer] = {}
    for message in _messages(recording):
        tp = message.topic_partition
        if tp not in gatherers:
            gatherers[tp] = Gatherer(policy)
        for batch in gatherers[tp].add(decode(message), 0.0):
            yield tp, batch
    for tp, gatherer in gatherers.items():
        for batch in gatherer.close_all():
            yield tp, batch


def _messages(recording: Path) -> Iterator[Message]:
    """Yield every message of a recording in the order of timestamps, without offsets whose message is missing."""
    source = RecordingSource(str(recording), order="timestamp", seed=0, max_poll_records=_POLL_RECORDS)
    try:
        while not source.exhausted:
            poll = source.poll(0.0)
            for tp in poll.assigned:
                source.seek(tp, source.log.origin(tp))
            source.resume(poll.assigned)
            yield from (message for message in poll.messages if message.missing is None)
    finally:
        source.close()
