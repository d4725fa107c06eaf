"""One round of adaptation: one batch from each of many streams is adapted, predicted and traced together.

The code is pure, except that it reads clocks to fill the timings of the trace.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from adawise.adapt import search
from adawise.adapt.conditions import Appearance
from adawise.adapt.predict import predict
from adawise.adapt.prior import continued as prior_continued
from adawise.adapt.search import Outcome, Search, Strategy, forward_cost
from adawise.adapt.shortlist import RESET, Shortlist, Shortlists, continued, narrowed, off_list
from adawise.adapt.smoothing import Corrected, corrected
from adawise.adapt.smoothing import continued as smoothing_continued
from adawise.adapt.state import StreamState
from adawise.ports import Classifier
from adawise.records import STATISTICS, BatchTrace, Frame, ImageBatch, Predictions, Selection


@dataclass(frozen=True, slots=True)
class Adapted:
    """The results of one batch. `error` is the exception of a failed search, None if it did not fail (`Outcome`)."""

    predictions: Predictions
    trace: BatchTrace
    state: StreamState
    error: Exception | None = None


@dataclass(frozen=True)
class Adaptation:
    """The adaptation method as the worker uses it.

    Attributes:
        strategy: how alpha is searched.
        classifier: the model pair.
        temperatures: one per alpha of the classifier's grid, applied to the served predictions: the card's, or all 1.
        top_k: how many classes of each image are served.
        shortlists: which classes each stream can show.
        prior_of: digest of the classifier's classes, if a class prior corrects each stream's predictions; else None.
        smooths: neighbouring frames correct them too, beside a class prior.
    """

    strategy: Strategy
    classifier: Classifier
    temperatures: tuple[float, ...]
    top_k: int
    shortlists: Shortlists = field(default_factory=Shortlists)
    prior_of: str | None = None
    smooths: bool = False

    def run(self, batches: Sequence[ImageBatch], states: Sequence[StreamState]) -> list[Adapted]:
        """Choose an alpha for each batch from its stream's state, and predict with it.

        A search that raises affects its own batch only: that batch is served at the alpha at which streams start.

        Args:
            batches: at most one batch per stream.
            states: the state of each batch's stream, in the same order.

        Returns:
            The results, in the order of the batches.
        """
        started = time.perf_counter()
        forward_s = 0.0

        opened = self.classifier.open([batch.images for batch in batches])

        def evaluate(requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
            nonlocal forward_s
            before = time.perf_counter()
            logits = opened.evaluate(requested)
            forward_s += time.perf_counter() - before
            return logits

        statistics = [moments(batch.frames) for batch in batches]
        shortlists = [self.shortlists.of(batch.stream_id) for batch in batches]
        begun = [
            continued(state, shortlist, self.strategy) for state, shortlist in zip(states, shortlists, strict=True)
        ]
        searches = [
            narrowed(self.strategy.search(state, len(batch), _appearance(batch_statistics, len(batch))), shortlist)
            for (state, _), batch, batch_statistics, shortlist in zip(
                begun, batches, statistics, shortlists, strict=True
            )
        ]
        restarts = [
            partial(self._restart, state, len(batch), shortlist)
            for (state, _), batch, shortlist in zip(begun, batches, shortlists, strict=True)
        ]
        outcomes = [
            replace(outcome, reset=RESET)
            if was_reset
            else outcome  # batches count from 0 again, whatever else it found
            for outcome, (_, was_reset) in zip(search.run(searches, evaluate, restarts), begun, strict=True)
        ]
        results = [self._predict(outcome, shortlist) for outcome, shortlist in zip(outcomes, shortlists, strict=True)]
        lacking = [self._off_list(outcome, shortlist) for outcome, shortlist in zip(outcomes, shortlists, strict=True)]
        scenes = [
            self._scene(state, outcome, predictions, shortlist)
            for (state, _), outcome, predictions, shortlist in zip(begun, outcomes, results, shortlists, strict=True)
        ]
        now_us = time.time_ns() // 1_000
        search_s = time.perf_counter() - started - forward_s
        images = sum(len(batch) for batch in batches)
        passed = sum(trial.images for outcome in outcomes for trial in outcome.trials)
        adapted = []
        # The measured seconds are shared out: forwards by images evaluated, the search by images served.
        for batch, (state, _), outcome, predictions, scene, batch_statistics, shortlist, off in zip(
            batches, begun, outcomes, results, scenes, statistics, shortlists, lacking, strict=True
        ):
            forwards = sum(trial.images for trial in outcome.trials)
            milliseconds = {
                "forward": 1e3 * forward_s * forwards / passed,
                "search": 1e3 * search_s * len(batch) / images,
            }
            # A search that gave up its state, or was restarted, has a new one without a shortlist and a scene.
            served = replace(
                outcome.state,
                served_index=outcome.index,
                shortlist=shortlist.digest if shortlist else "",
                prior=scene.prior if scene else None,
                smoothing=scene.smoothing if scene else None,
            )
            outcome = replace(outcome, state=served)
            trace = self._trace(batch, state, outcome, milliseconds, now_us, batch_statistics, off)
            if scene is not None:
                predictions = scene.predictions
                trace = replace(trace, scene_gate=scene.gate, scene_smoothing=scene.weight)
            adapted.append(Adapted(predictions, trace, served, outcome.error))
        return adapted

    def _scene(
        self, state: StreamState, outcome: Outcome, predictions: Predictions, shortlist: Shortlist | None
    ) -> Corrected | None:
        """Return what a stream's scene makes of a batch; None without a class prior."""
        if self.prior_of is None:
            return None
        digest, columns = (shortlist.digest, shortlist.columns) if shortlist else (self.prior_of, None)
        C = outcome.logits.shape[-1]
        smoothing = smoothing_continued(state.smoothing, digest, C) if self.smooths else None
        known = prior_continued(state.prior, digest, C)
        return corrected(known, smoothing, predictions, outcome.logits, self.temperatures[outcome.index], columns)

    def _restart(self, state: StreamState, images: int, shortlist: Shortlist | None) -> Search:
        return narrowed(self.strategy.restart(state, images), shortlist)

    def _predict(self, outcome: Outcome, shortlist: Shortlist | None) -> Predictions:
        return predict(
            outcome.logits,
            outcome.evaluated,
            index=outcome.index,
            temperatures=self.temperatures,
            top_k=self.top_k,
            columns=shortlist.columns if shortlist else None,
        )

    def _off_list(self, outcome: Outcome, shortlist: Shortlist | None) -> Mapping[int, int] | None:
        if shortlist is None or outcome.among_all is None:
            return None
        return off_list(outcome.among_all, shortlist, self.temperatures[outcome.index])

    def _trace(
        self,
        batch: ImageBatch,
        before: StreamState,
        outcome: Outcome,
        milliseconds: dict[str, float],
        now_us: int,
        batch_statistics: dict[str, float],
        off: Mapping[int, int] | None,
    ) -> BatchTrace:
        first, last = batch.frames[0], batch.frames[-1]
        alphas, memory, has_appearance = self.classifier.alphas, outcome.state.memory, outcome.state.looks is not None
        served_before = before.alpha_index if before.served_index is None else before.served_index
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
            previous_alpha=alphas[served_before] if before.batches else None,
            trials=outcome.trials,
            objective=outcome.objective,
            posterior_mean=outcome.posterior_mean,
            posterior_sd=outcome.posterior_sd,
            audit_regret=outcome.regret,
            trigger=outcome.trigger,
            reset=outcome.reset,
            forward_equivalents=outcome.forward_equivalents,
            milliseconds=milliseconds,
            predicted_at_us=now_us,
            statistics=batch_statistics,
            condition=memory.number if has_appearance else None,
            returned=memory.visits > 1 if has_appearance else None,
            alarm=outcome.alarm,
            forward_cost=forward_cost(outcome.forward_equivalents, self.classifier.tail_share),
            shortlist=outcome.state.shortlist or None,
            off_list=off,
        )


def _appearance(batch_statistics: Mapping[str, float], images: int) -> Appearance | None:
    """Return the moments of a batch in the form that a search takes; None if the batch has no statistics."""
    if not batch_statistics:
        return None
    mean, variance = ([batch_statistics[f"{name}_{moment}"] for name in STATISTICS] for moment in ("mean", "variance"))
    return Appearance.of(mean, variance, images)


def moments(frames: Sequence[Frame]) -> dict[str, float]:
    """Return the mean and variance of each appearance statistic over these images, by column name.

    The result is empty if an image has no statistics. The variance is the population variance of these images, so it is
    0 for a single one. Sums are exact, so that the order of the images does not matter.
    """
    known = [frame.statistics.tolist() for frame in frames if frame.statistics is not None]
    if len(known) < len(frames):
        return {}
    found = {}
    for name, values in zip(STATISTICS, zip(*known, strict=True), strict=True):
        mean = math.fsum(values) / len(values)
        found[f"{name}_mean"] = mean
        found[f"{name}_variance"] = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return found
