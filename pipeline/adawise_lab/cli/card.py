"""The commands `adawise card make` and `card show`. Heavy modules are imported by the calls alone."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command, all_but, json_flag, optional
from adawise.labels.folders import FORMS
from adawise.settings.group import FilePath

PAIR = (*all_but("model", "card", "on_change"), *all_but("decode", "threads"), "log")
OUTPUT: Any = Field(validation_alias=AliasChoices("output", "o"), description="file to write the card to")
IMAGES: Any = Field(default=None, ge=1, description="most images of a condition to use; none: all")


class CardMakeCommand(Command):
    """Calibrate a pair of models on labelled images like those it was fine-tuned on.

    The text heads are written beside the card, so that a worker starts faster.
    """

    name = "card make"
    groups = PAIR
    examples = (
        ("make a card from a folder with a subfolder for each class", "card make --labelled images/ -o pair.card.json"),
        (
            "also choose the objective, by images such as the cameras may see later",
            "card make --labelled images/ --labelled-shifted fog/ -o pair.card.json",
        ),
        (
            "make a card with other class names for a fine-tuned pair, from its held-out images",
            "card make --labelled images/ --held-out pair/finetune.json --model.classes other.txt "
            "-o pair/other.card.json",
        ),
    )

    labelled: FilePath = Field(description=f"labelled images: {FORMS}", json_schema_extra={"metavar": "PATH"})
    output: FilePath = OUTPUT
    held_out: FilePath | None = optional(
        "finetune.json of a run: use only the images of --labelled that the run held out, since it "
        "learned from the others",
        metavar="FILE",
    )
    labelled_shifted: FilePath | None = optional(
        "labelled images to judge the objectives by, or a folder of such places, one for each condition", metavar="PATH"
    )
    images: int | None = IMAGES

    @override
    def call(self) -> int:
        """Make a card, and print it."""
        from adawise_lab.card.make import CardRequest, make
        from adawise_lab.card.show import print_made

        request = CardRequest(
            settings=self.settings,
            labelled=self.labelled,
            output=self.output,
            held_out=self.held_out,
            shifted=self.labelled_shifted,
            images=self.images,
        )
        print_made(make(request), str(self.output))
        return 0


class CardShowCommand(Command):
    """Print a card: temperature, accuracy and calibration error by alpha, and what it advises."""

    name = "card show"
    examples = (("as tables", "card show pair.card.json"), ("for a program", "card show pair.card.json --json"))

    card: CliPositionalArg[FilePath] = Field(description="card to print")
    as_json: CliToggleFlag[bool] = json_flag("print the card as JSON")

    @override
    def call(self) -> int:
        """Print a card, as JSON or as tables."""
        from adawise.card.card import read_card

        card = read_card(self.card)
        if self.as_json:
            print(card.to_json(), end="")
        else:
            from adawise_lab.card.show import print_card

            print_card(card, str(self.card))
        return 0
