"""Service of each camera in an interval: the worker's own search on looked-up logits, batch by batch.

A camera's images come in the order of time, in the batches of a pace (`pace`). What a camera has learned ends with the
pair's turn, as it does at a switch of pairs; it goes on if `keeps`, as with `--state keep` there. Where a camera has a
shortlist, search, prediction and scene are among its classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from adawise.adapt import search
from adawise.adapt.objective import DEFAULT, Values
from adawise.adapt.rows import of_images
from adawise.adapt.search import Strategy
from adawise.adapt.shortlist import Shortlist, Shortlists, digest_of, narrowed
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration
from adawise.card.advice import AUTO, of_all_classes
from adawise.card.card import Card
from adawise.errors import SettingsError
from adawise_lab.chronological.pace import BatchPace
from adawise_lab.evaluate.bench import Bench, Quality, Replayed, joined, quality
from adawise_lab.evaluate.candidates import Candidate, objective_named, parse, resolved
from adawise_lab.evaluate.references import FINE_TUNED, MIDDLE, ZERO_SHOT
from adawise_lab.evaluate.run import correct
from adawise_lab.evaluate.tables import LogitTable

WARM = "warm"
NAMES = (ZERO_SHOT, MIDDLE, FINE_TUNED, WARM, AUTO)
"""What is compared: three fixed alphas, adapting, and what a worker does by the advice of each pair's card."""

Ids = npt.NDArray[np.int64]


class ServedWay(NamedTuple):
    """A way to serve: one of `NAMES`, as its label is or as `scene_label` corrects it."""

    name: str
    scene: bool = False

    @property
    def title(self) -> str:
        """The name, with + scene if it is of `scene_label`."""
        return f"{self.name} + scene" if self.scene else self.name


@dataclass(frozen=True, eq=False)
class ServedCell:
    """The predictions for the n images of one camera in one interval, and their quality.

    Attributes:
        camera: the camera's index.
        interval: the interval that was tested.
        labels: class indices `[n]`.
        by_alpha: whether each image is right at each fixed alpha, `[G, n]`; one row where there is no pair.
        answers: by way, in the order of time; of scene labels, the NLL is that of the corrected probabilities.
        forwards: images that passed the image tower over images, by name; plain CLIP is 1.
        tail_share: what an image costs at a second alpha, as a share of a forward.
        has_pair: False where theta_0 alone served, since no pair could be trained.
        batches: into which a pace has put the images; 0 where theta_0 alone served.
    """

    camera: int
    interval: int
    labels: Ids
    by_alpha: npt.NDArray[np.bool_]
    answers: Mapping[ServedWay, Quality]
    forwards: Mapping[str, float]
    tail_share: float = 1.0
    has_pair: bool = True
    batches: int = 0


@dataclass(frozen=True)
class Scene:
    """The corrections that run beside the label: none, the class prior, or smoothing too."""

    prior: bool = False
    smooths: bool = False


@dataclass(eq=False)
class ServedCameras:
    """Serves cameras with one pair after another, and keeps what each has learned.

    Args:
        candidates: of `candidates`.
        scene: what runs beside the label.
        keeps: what was learned with a pair is kept with the next one.
        pace: when batches end.
        shortlists: which classes each camera can show.
    """

    candidates: tuple[Candidate, ...]
    scene: Scene
    keeps: bool
    pace: BatchPace = field(default_factory=BatchPace)
    shortlists: Shortlists = field(default_factory=Shortlists)
    # By way and camera: the pair, the state, and when its last image was taken.
    _states: dict[tuple[str, str], tuple[str, StreamState, int]] = field(default_factory=dict)

    def serve(
        self,
        pair: str,
        table: LogitTable,
        card: Card,
        interval: int,
        cameras: Sequence[tuple[int, str, Ids]],
        at_us: Ids,
    ) -> list[ServedCell]:
        """Serve an interval with one pair.

        Args:
            pair: its name, which no other pair has.
            table: logits of the images.
            card: of the pair.
            interval: the number of the interval.
            cameras: index and name of each, and its rows in the table in the order of time.
            at_us: when the image of each row of the table was taken, microseconds since the epoch.

        Raises:
            SettingsError: a camera has a shortlist, and the objective compares with figures of all classes.
        """
        bench = Bench((table,), card.temperature, tail_share=card.tail_share)
        answers: list[dict[ServedWay, Quality]] = [{} for _ in cameras]
        forwards: list[dict[str, float]] = [{} for _ in cameras]
        values: dict[str, tuple[Values, ...]] = {}
        for candidate in resolved(self.candidates, card):
            objective = objective_named(candidate.objective, card)
            advised = all(candidate.objective != each.objective for each in self.candidates)
            if candidate.objective not in values:
                values[candidate.objective] = bench.values(objective)
            replayed = Replayed(bench.blocks, objective, values[candidate.objective])
            strategy = candidate.build(bench.alphas, replayed.objective, card)
            for place, (_, camera, rows) in enumerate(cameras):
                shortlist = self.shortlists.of(camera)
                if shortlist and candidate.strategy != "fixed":
                    _expect_among_lists(candidate.objective, card, by=pair if advised else "")
                served = _Stream(bench, replayed, strategy, self.scene, self.pace, shortlist)
                state, last_us = self._begin(candidate.label, camera, pair, strategy)
                state = served.run(state, last_us, rows, at_us[rows])
                self._states[candidate.label, camera] = pair, state, int(at_us[rows[-1]])
                answers[place] |= {ServedWay(candidate.label, scene): found for scene, found in served.answers()}
                forwards[place][candidate.label] = served.forwards / len(rows)
        return [
            ServedCell(
                c,
                interval,
                table.labels[rows],
                _by_alpha(bench, rows, self.shortlists.of(camera)),
                answers[place],
                forwards[place],
                card.tail_share,
                batches=sum(1 for _ in self.pace.batches(at_us[rows].tolist())),
            )
            for place, (c, camera, rows) in enumerate(cameras)
        ]

    def _begin(self, label: str, camera: str, pair: str, strategy: Strategy) -> tuple[StreamState, int | None]:
        """Return the state that a camera goes on from, as a worker does at a switch of pairs.

        With it comes the time of the last image that it knows, None if there was none.
        """
        before, state, last_us = self._states.get((label, camera), ("", None, None))
        initial = strategy.initial()
        if state is None or state.key != initial.key or not (self.keeps or before == pair):
            return initial, None
        return state, last_us


def _expect_among_lists(objective: str, card: Card, *, by: str) -> None:
    """Raise SettingsError for an objective that does not hold among a shortlist, as a worker does.

    `by` is the pair whose card chose it; "" for an objective that was set.
    """
    if why := of_all_classes(objective, card, "scene.shortlists"):
        raise SettingsError(
            f"the card of {by} recommends {objective} where search.objective is auto; {why}" if by else why
        )


def _by_alpha(bench: Bench, rows: Ids, shortlist: Shortlist | None) -> npt.NDArray[np.bool_]:
    """Return whether each of these images is right at each fixed alpha, `[G, n]`."""
    if shortlist is None:
        return bench.quality.correct[:, rows]
    labels, columns = torch.from_numpy(bench.labels[rows]), shortlist.columns
    at_each = [
        quality(z[torch.from_numpy(rows)].index_select(-1, columns), labels, torch.full((len(rows),), T), columns)
        for z, T in zip(bench.blocks[0], bench.temperatures, strict=True)
    ]
    return np.stack([each.correct for each in at_each])


def candidates(objective: str, alpha: float, exploration: Exploration) -> tuple[Candidate, ...]:
    """Return the candidates of `NAMES`, before a card says what `auto` means."""
    fixed = {ZERO_SHOT: 0.0, MIDDLE: 0.5, FINE_TUNED: 1.0}
    (one,) = parse("fixed", objective=DEFAULT, alpha=0.5, exploration=exploration)
    chosen = parse(f"{WARM},{AUTO}", objective=objective, alpha=alpha, exploration=exploration)
    return (*(replace(one, label=name, alpha=alpha) for name, alpha in fixed.items()), *chosen)


def unpaired(
    table: LogitTable, interval: int, cameras: Sequence[tuple[int, Ids, Shortlist | None]], scene: Scene
) -> list[ServedCell]:
    """Return what theta_0 alone serves, where there is no pair: without temperatures, and so without a scene.

    Args:
        table: logits of the images, of which those at alpha 0 count.
        interval: the number of the interval.
        cameras: index of each, its rows in the table, and its shortlist.
        scene: what runs beside the label elsewhere: here `scene_label` is the label.
    """
    found = []
    for camera, rows, shortlist in cameras:
        labels, columns = table.labels[rows], shortlist.columns if shortlist else None
        z = torch.from_numpy(table.logits[0][rows]).float()
        z = z if columns is None else z.index_select(-1, columns)
        answer = quality(z, torch.from_numpy(labels), torch.ones(len(rows)), columns)
        answers = {ServedWay(name): answer for name in NAMES} | {
            ServedWay(name, scene=True): answer for name in NAMES if scene.prior
        }
        forwards = dict.fromkeys(NAMES, 1.0)
        found.append(ServedCell(camera, interval, labels, answer.correct[None], answers, forwards, has_pair=False))
    return found


@dataclass(eq=False)
class _Stream:
    """One candidate on one camera's images of an interval."""

    bench: Bench
    replayed: Replayed
    strategy: Strategy
    scene: Scene
    pace: BatchPace
    shortlist: Shortlist | None
    forwards: float = 0.0
    _plain: list[Quality] = field(default_factory=list)
    _corrected: list[Quality] = field(default_factory=list)

    def run(self, state: StreamState, last_us: int | None, ids: Ids, at_us: Ids) -> StreamState:
        """Serve the images in batches, and return the state after them.

        Args:
            state: that of the camera before.
            last_us: when the last image was taken that it knows; None if there was none.
            ids: the images `[n]`.
            at_us: when each was taken, `[n]`.
        """
        bench, listed = self.bench, self.shortlist
        digest, columns = (listed.digest, listed.columns) if listed else (digest_of(bench.tables[0].class_names), None)
        for part in self.pace.batches(at_us.tolist()):
            batch, labels = ids[part], bench.labels[ids[part]]
            if last_us is not None and self.pace.starts_anew(last_us, int(at_us[part.start])):
                state = self.strategy.initial()
            last_us = int(at_us[part.stop - 1])
            self.replayed.turn_to(0)
            begun = narrowed(self.strategy.search(state, len(batch), bench.appearance(batch)), listed)
            (outcome,) = search.run([begun], of_images([torch.from_numpy(batch)], self.replayed.evaluate))
            T = torch.full((len(batch),), bench.temperatures[outcome.index])
            self._plain.append(quality(outcome.logits, torch.from_numpy(labels), T, columns))
            self.forwards += outcome.forward_equivalents * len(batch)
            known, state = (state.prior, state.smoothing), outcome.state
            if self.scene.prior:
                found = correct(
                    known, outcome, labels, bench.temperatures, digest, smooths=self.scene.smooths, shortlist=listed
                )
                state = replace(state, prior=found.prior, smoothing=found.smoothing)
                self._corrected.append(found.quality)
        return state

    def answers(self) -> Iterator[tuple[bool, Quality]]:
        """Yield what was served, and then `scene_label` if there is a scene."""
        yield False, joined(self._plain, np.concatenate)
        if self._corrected:
            yield True, joined(self._corrected, np.concatenate)
