"""The commands `adawise card fit` and `card correct`, which learn from a recording or from labels that came late."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.adapt.names import ObjectiveName
from adawise.cli.command import LABEL_WITHIN, LABELS, Command, all_but, optional
from adawise.settings.group import FilePath, Location
from adawise_lab.cli.card import IMAGES, OUTPUT, PAIR


class CardFitCommand(Command):
    """Fit the search to a recorded stream, and add the result to a card."""

    name = "card fit"
    groups = (*PAIR, "batch")
    examples = (("what a worker recorded", "card fit pair.card.json --recording recordings/yard"),)

    card: CliPositionalArg[FilePath] = Field(description="card to add to")
    recording: FilePath = Field(
        description="recording whose batches the search's hyper-parameters are fitted to",
        json_schema_extra={"metavar": "FOLDER"},
    )
    objective: Literal["auto", ObjectiveName] = Field(
        default="auto",
        description="objective whose curves are fitted, which must be the worker's; auto: as the card recommends",
    )
    batches: int = Field(
        default=384,
        ge=12,
        le=384,
        description="most recorded batches to fit to, 7 forwards each: runs of up to 48 batches of a "
        "stream, spread over the recording",
    )

    @override
    def call(self) -> int:
        """Fit, and print the card."""
        from adawise_lab.card.fit import FitRequest, fit
        from adawise_lab.card.show import print_card

        request = FitRequest(self.settings, self.card, self.recording, self.objective, self.batches)
        print_card(fit(request), str(self.card))
        return 0


class CardCorrectCommand(Command):
    """Correct model.card by labels that came late, as a new card to stage.

    The labels are those of a worker's output: at least 100 under five conditions. No worker uses the new card until it
    is staged and switched to. Unless --without-replay is given, the recording is replayed with both cards, to show what
    would have changed.

    Without --recording the labels compare scene_label with label instead, and the new card is the same one with the
    result, which scene.prior = served needs.
    """

    name = "card correct"
    groups = (
        *(*all_but("model", "on_change"), "search", "scene", "batch"),
        *(*all_but("decode", "threads"), "predict", "limits", "log"),
    )
    examples = (
        (
            "correct the card by labels that came late, as a new card to stage",
            "card correct runs/yard --recording recordings/yard -o pair.2.card.json",
        ),
        (
            "note in the card whether scene_label is better than label, so that it may be served",
            "card correct runs/yard -o pair.2.card.json",
        ),
    )

    root: CliPositionalArg[Location] = Field(
        description="output folder or s3://BUCKET/PREFIX of a worker that serves with model.card"
    )
    recording: Location | None = optional(
        "recording of that worker's messages; all of it is replayed with both cards, to show what would have changed; "
        "none: compare scene_label with label instead",
        metavar="FOLDER",
    )
    output: FilePath = OUTPUT
    labels: Location | None = LABELS
    label_within: float = LABEL_WITHIN
    images: int | None = IMAGES
    without_replay: CliToggleFlag[bool] = Field(
        default=False, description="do not replay the recording, which takes two passes over it"
    )

    @override
    def call(self) -> int:
        """Correct a card, and print what the labels say, what would have changed and how to stage it."""
        if self.recording is None:
            return self._compare_scene()
        from adawise.app.signals import INTERRUPTED
        from adawise_lab.card.late_labels import CorrectionRequest, correct, replayed
        from adawise_lab.card.make import write_card
        from adawise_lab.card.show import show_correction, show_replays, staging_lines

        request = CorrectionRequest(
            settings=self.settings,
            output=self.output,
            root=self.root,
            recording=self.recording,
            labels=self.labels,
            label_within=self.label_within,
            images=self.images,
        )
        found = correct(request)
        show_correction(found)  # first: the card may not be writable, and the evidence took minutes
        if found.card is None or found.embeddings is None:
            print("The labels do not contradict the card, so no new card was written.")
            return 0
        write_card(self.output, found.card, found.embeddings)
        print(f"Written: {self.output}. No worker uses it yet.")
        replays = None if self.without_replay else replayed(request, found.labels.rows)
        is_stopped = replays is None and not self.without_replay
        if replays is not None:
            show_replays(replays)
        elif is_stopped:
            print("Stopped before both replays were done: the effect of the card is not known.")
        is_set = self.settings.search.objective != "auto"
        print(staging_lines(self.root, self.output, found.objective if is_set else None))
        return INTERRUPTED if is_stopped else 0

    def _compare_scene(self) -> int:
        """Compare the labels of the scene with those of the model, and write the card with the result."""
        from adawise.errors import SettingsError
        from adawise_lab.card.late_labels import card_to_correct
        from adawise_lab.card.make import write_beside
        from adawise_lab.card.scene_proof import compare_scene
        from adawise_lab.card.show import show_scene

        if self.images is not None or self.without_replay:
            raise SettingsError("--images and --without-replay are about a recording: name it with --recording")
        card = card_to_correct(self.settings, self.output)
        within_us = round(self.label_within * 1e6)
        found = compare_scene(self.settings, card, self.root, file=self.labels, within_us=within_us)
        for note in found.notes:
            print(note)
        assert self.settings.model.card is not None  # it was read above
        write_beside(self.settings.model.card, self.output, replace(card, scene=found.proof))
        show_scene(found, self.output, smooths=self.settings.scene.smooths)
        return 0
