"""Settings -> the search's hyper-parameters from a recorded stream: its batches, as the worker would cut them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from pipeline.adapt.card import Card, FittedSearch
from pipeline.adapt.verdict import chosen
from pipeline.console import progress
from pipeline.decode import Decoder
from pipeline.errors import SettingsError
from pipeline.gather import BatchPolicy, Gatherer
from pipeline.records import ImageBatch, TopicPartition
from pipeline.settings import Settings
from pipeline.source.recording import RecordingSource
from pipeline.wiring.model import Model

_POLL_RECORDS = 64
_ALPHAS = 7  # of the grid: enough for the shape of a curve, a third of the forwards
_LEAST_IMAGES = 2  # of one image alone the sampling variance is not known

_log = structlog.get_logger("card")


@dataclass(frozen=True)
class Fit:
    """What the search is fitted to: curves of `objective` (or `auto`) on the first `batches` batches of a recording."""

    recording: Path
    objective: str
    batches: int


def fit_recorded(settings: Settings, model: Model, card: Card, fit: Fit) -> FittedSearch:
    """Fit the surrogate to recorded batches, with what the card knows for the objective.

    Raises:
        SourceError: there is no recording, or it is damaged.
        SettingsError: no stream in it is long enough.
    """
    from pipeline.adapt.fit_search import Curve, fit_search  # with BoTorch: two seconds that only this needs

    name = chosen(fit.objective, card)
    objective = card.objective(name)
    indices = sorted({round(x) for x in np.linspace(0, len(card.alphas) - 1, _ALPHAS)})
    streams: dict[tuple[TopicPartition, str], list[Curve]] = {}
    with progress("evaluated", total=fit.batches, unit="recorded batches") as bar:
        for number, (tp, batch) in enumerate(recorded_batches(settings, model, fit.recording)):
            if number == fit.batches:
                break
            bar.advance()
            if len(batch) < _LEAST_IMAGES:
                continue
            values = np.stack([objective(model.classifier.logits(j, batch.images), j) for j in indices])  # [A, n]
            if np.isfinite(values).all():
                streams.setdefault((tp, batch.stream_id), []).append(Curve.of(values))
    used = sum(len(stream) for stream in streams.values())
    _log.info("search_fitting", batches=used, streams=len(streams), objective=name)
    try:
        found = fit_search(list(streams.values()), [card.alphas[j] for j in indices])
    except ValueError as error:
        raise SettingsError(f"--fit-search {fit.recording}: {error}") from error
    return FittedSearch(
        objective=name,
        batches=used,
        lengthscale=found.lengthscale,
        signal_sd=found.signal_sd,
        offset_sd=found.offset_sd,
        persistence=found.persistence,
    )


def recorded_batches(settings: Settings, model: Model, recording: Path) -> Iterator[tuple[TopicPartition, ImageBatch]]:
    """The batches of a recording in its order, cut by the settings as the worker cuts them.

    Raises:
        SourceError: there is no recording, or it is damaged.
    """
    decode = Decoder(
        model.pair.preprocess,
        max_message_bytes=settings.decode.max_message_bytes,
        max_rows=settings.decode.max_rows,
        max_pixels=settings.decode.max_pixels,
    )
    policy = BatchPolicy(images=settings.batch.images, max_age_s=settings.batch.max_age_s)
    source = RecordingSource(str(recording), order="timestamp", seed=0, max_poll_records=_POLL_RECORDS)
    gatherers: dict[TopicPartition, Gatherer] = {}
    try:
        while not source.exhausted:
            poll = source.poll(0.0)
            for tp in poll.assigned:
                source.seek(tp, source.origin(tp))
                gatherers[tp] = Gatherer(policy)
            source.resume(poll.assigned)
            for message in poll.messages:
                for batch in gatherers[message.topic_partition].add(decode(message), 0.0):
                    yield message.topic_partition, batch
        for tp, gatherer in gatherers.items():
            for batch in gatherer.close_all():
                yield tp, batch
    finally:
        source.close()
