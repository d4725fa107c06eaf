"""The command `adawise finetune`, which makes theta_1. Heavy modules are imported by the call alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command, all_but, json_flag, optional
from adawise.labels.folders import FORMS
from adawise.settings.group import FilePath


class FinetuneCommand(Command):
    """Train the fine-tuned model theta_1 from theta_0 on labelled images, and make the card of the pair.

    Without model.classes, the labels are the class names. Ctrl-C or SIGTERM ends it; --resume continues it.
    """

    name = "finetune"
    groups = (*all_but("model", "theta_1", "card", "on_change"), "finetune", "decode", "log")
    examples = (
        (
            "make a pair from a zero-shot model and a folder",
            "finetune --labelled images/ -o runs/yard --model.theta-0 laion2b_s34b_b79k",
        ),
        ("continue after Ctrl-C, a crash or a power cut", "finetune --labelled images/ -o runs/yard --resume"),
        (
            "train only the image tower, judged on other images",
            "finetune --labelled train.parquet --validation held.parquet -o runs/ce --finetune.loss cross_entropy",
        ),
        (
            "find how many blocks to train",
            "finetune --labelled images/ -o runs/blocks --compare-blocks",
        ),
    )

    labelled: FilePath = Field(description=f"labelled images: {FORMS}", json_schema_extra={"metavar": "PATH"})
    output: FilePath = Field(
        validation_alias=AliasChoices("output", "o"),
        description="folder for theta_1, card and record of the run",
        json_schema_extra={"metavar": "FOLDER"},
    )
    validation: FilePath | None = optional(
        "images to judge each epoch on, as for --labelled; none: a held-out share of each class", metavar="PATH"
    )
    resume: CliToggleFlag[bool] = Field(default=False, description="continue the run in --output")
    overwrite: CliToggleFlag[bool] = Field(
        default=False, description="start anew in --output, and replace its contents"
    )
    compare_blocks: CliToggleFlag[bool] = Field(
        default=False,
        description="train all layers, and the last 8, 6, 4 and 2 blocks, each in a folder of its own in --output, and "
        "compare the pairs",
    )
    as_json: CliToggleFlag[bool] = json_flag("print the record of the run as JSON, or the comparison")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete: of the pair, only theta_0 must be set."""
        return frozenset({"finetune", "decode", "log"})

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a mistake if both --resume and --overwrite are given."""
        if "resume" in options and "overwrite" in options:
            yield "resume", "it has no effect with --overwrite; leave one of them out"

    @override
    def call(self) -> int:
        """Make theta_1 and its card, and print the record of the run.

        Returns:
            0, or 130 if it was stopped before its end.

        Raises:
            TrainingError: the pair that was made must not serve, or none of a comparison.
        """
        from adawise.app.signals import INTERRUPTED
        from adawise_lab.finetune.finetune import FinetuneRequest, finetune
        from adawise_lab.finetune.report import show_record

        request = FinetuneRequest(
            settings=self.settings,
            labelled=self.labelled,
            output=self.output,
            validation=self.validation,
            resume=self.resume,
            overwrite=self.overwrite,
            command=self.written_out(),
        )
        if self.compare_blocks:
            from adawise_lab.finetune.compare import compare_blocks
            from adawise_lab.finetune.comparison import show_comparison

            comparison = compare_blocks(request)
            if comparison is None:
                return INTERRUPTED
            show_comparison(comparison, self.settings.model, as_json=self.as_json)
            if comparison.error is not None:
                raise comparison.error
            return 0
        made = finetune(request)
        if made is None:
            return INTERRUPTED
        held_out = self.validation or self.labelled
        show_record(made.record, self.settings.model, held_out, made.folder, as_json=self.as_json)
        if made.rejected is not None:
            raise made.rejected
        return 0
