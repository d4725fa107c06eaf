"""One round: a batch of each of many streams is adapted, predicted and traced together. Pure but for the stopwatch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.adapt import search
from pipeline.adapt.search import Outcome, Strategy
from pipeline.adapt.state import StreamState
from pipeline.ports import Classifier
from pipeline.predict import predict
from pipeline.records import BatchTrace, ImageBatch, Predictions


@dataclass(frozen=True, slots=True)
class Adapted:
    """What became of one batch."""

    predictions: Predictions
    trace: BatchTrace
    state: StreamState


@dataclass(frozen=True)
class Adaptation:
    """The method as the worker uses it.

    `temperatures` are per alpha of the classifier's grid, for what is served: the card's, or all 1.
    """

    strategy: Strategy
    classifier: Classifier
    temperatures: tuple[float, ...]
    top_k: int

    def run(self, batches: Sequence[ImageBatch], states: Sequence[StreamState]) -> list[Adapted]:
        """Choose an alpha for each batch from its stream's state, and predict with it; at most one batch a stream."""
        started = time.perf_counter()
        searches = [self.strategy.search(s, len(b)) for s, b in zip(states, batches, strict=True)]
        outcomes = search.run(searches, [batch.images for batch in batches], self.classifier.logits)
        milliseconds = 1e3 * (time.perf_counter() - started)
        images = sum(len(batch) for batch in batches)
        return [
            Adapted(
                predict(
                    outcome.logits,
                    outcome.evaluated,
                    index=outcome.index,
                    temperatures=self.temperatures,
                    top_k=self.top_k,
                ),
                self._trace(
                    batch, state, outcome, {"round": milliseconds, "share": milliseconds * len(batch) / images}
                ),
                outcome.state,
            )
            for batch, state, outcome in zip(batches, states, outcomes, strict=True)
        ]

    def _trace(
        self, batch: ImageBatch, before: StreamState, outcome: Outcome, milliseconds: dict[str, float]
    ) -> BatchTrace:
        first, last = batch.frames[0], batch.frames[-1]
        alphas = self.classifier.alphas
        return BatchTrace(
            topic=first.row_id.topic,
            partition=first.row_id.partition,
            first_offset=first.row_id.offset,
            last_offset=last.row_id.offset,
            stream_id=batch.stream_id,
            batch_number=before.batches,
            captured_at_us=last.captured_at_us,
            kafka_timestamp_ms=last.kafka_timestamp_ms,
            images=len(batch),
            alpha=alphas[outcome.index],
            previous_alpha=alphas[before.alpha_index] if before.batches else None,
            trials=outcome.trials,
            objective=outcome.objective,
            posterior_mean=outcome.posterior_mean,
            posterior_sd=outcome.posterior_sd,
            trigger=outcome.trigger,
            reset=outcome.reset,
            forward_equivalents=outcome.forward_equivalents,
            milliseconds=milliseconds,
        )
