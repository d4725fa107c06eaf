"""The options of `adawise card`, which makes a card, extends it, corrects it or shows it.

Heavy modules are imported by the call alone, so that help is quick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.adapt.names import ObjectiveName
from adawise.cli.command import LABEL_WITHIN, LABELS, Command, all_but, json_flag
from adawise.labels.folders import FORMS
from adawise.settings.group import FilePath, Location


class CardCommand(Command):
    """Calibrate a pair of models on labelled images like those it was fine-tuned on; or show a card.

    Give --labelled and --output to make a card, --fit-search and --output to add a fitted search to one, --from-labels
    with --recording and --output to correct model.card by labels that came late, or --show. The text heads are written
    beside the card, so that a worker starts faster.
    """

    name = "card"
    runs = "adawise_lab.cli.card.run:card"
    groups = (
        *all_but("model", "on_change"),
        *("search", "batch"),
        *all_but("decode", "threads"),
        *("predict", "limits", "log"),
    )
    examples = (
        ("make a card from a folder with a subfolder for each class", "card --labelled images/ -o pair.card.json"),
        (
            "also choose the objective, by images such as the cameras may see later",
            "card --labelled images/ --labelled-shifted fog/ -o pair.card.json",
        ),
        (
            "make a card with other class names for a fine-tuned pair, from its held-out images",
            "card --labelled images/ --held-out pair/finetune.json --model.classes other.txt -o pair/other.card.json",
        ),
        (
            "fit the search to a recorded stream, and add that to the card",
            "card --fit-search recordings/yard -o pair.card.json",
        ),
        (
            "correct the card by labels that came late, as a new card to stage",
            "card --from-labels runs/yard --recording recordings/yard -o pair.2.card.json",
        ),
        ("show temperature, accuracy and calibration error by alpha", "card --show pair.card.json"),
    )

    labelled: FilePath | None = Field(
        default=None,
        description=f"labelled images: {FORMS}",
        json_schema_extra={"metavar": "PATH"},
    )
    held_out: FilePath | None = Field(
        default=None,
        description="finetune.json of a run: use only the images of --labelled that the run held out, since it "
        "learned from the others",
        json_schema_extra={"metavar": "FILE"},
    )
    labelled_shifted: FilePath | None = Field(
        default=None,
        description="labelled images to judge the objectives by, or a folder of such places, one for each condition",
        json_schema_extra={"metavar": "PATH"},
    )
    output: FilePath | None = Field(
        default=None, validation_alias=AliasChoices("output", "o"), description="file to write the card to"
    )
    images: int | None = Field(default=None, ge=1, description="most images of a condition to use; none: all")
    fit_search: FilePath | None = Field(
        default=None,
        description="recording whose batches the search's hyper-parameters are fitted to",
        json_schema_extra={"metavar": "FOLDER"},
    )
    fit_objective: Literal["auto", ObjectiveName] = Field(
        default="auto",
        description="objective whose curves are fitted, which must be the worker's; auto: as the card recommends",
    )
    fit_batches: int = Field(
        default=384,
        ge=12,
        le=384,
        description="most recorded batches to fit to, 7 forwards each: runs of up to 48 batches of a "
        "stream, spread over the recording",
    )
    from_labels: Location | None = Field(
        default=None,
        description="output folder or s3://BUCKET/PREFIX of a worker, with whose labels (at least 100 "
        "under five conditions) model.card is corrected",
        json_schema_extra={"metavar": "ROOT"},
    )
    recording: Location | None = Field(
        default=None,
        description="with --from-labels: recording of that worker's messages; all of it is replayed "
        "with both cards, to show what would have changed",
        json_schema_extra={"metavar": "FOLDER"},
    )
    labels: Location | None = LABELS
    label_within: float = LABEL_WITHIN
    without_replay: CliToggleFlag[bool] = Field(
        default=False, description="with --from-labels: do not replay the recording, which takes two passes over it"
    )
    show: FilePath | None = Field(default=None, description="card to print, in place of making one")
    as_json: CliToggleFlag[bool] = json_flag("print the card as JSON (with --show)")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete; to show a card, the models need not be set."""
        if "show" in options:
            return frozenset({"log"})
        served = {"search", "predict", "limits"} if "from_labels" in options else set[str]()
        return frozenset({"model", "batch", "decode", "log", *served})

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a mistake if none of the four uses is chosen, one is incomplete, or two are mixed."""
        if "show" in options:
            for other in sorted(set(options) - {"show", "json", "config"}):
                yield other, "it has no effect with --show; leave one of them out"
            return
        if not {"labelled", "fit_search", "from_labels"} & set(options):
            yield "labelled", "expected labelled images; or --fit-search FOLDER, --from-labels ROOT, or --show FILE"
        if "from_labels" in options:
            for other in sorted(set(options) & {"labelled", "fit_search"}):
                yield other, "it has no effect with --from-labels; leave one of them out"
            if "recording" not in options:
                yield (
                    "recording",
                    ("expected the recording of the messages that the workers of --from-labels read; name its folder"),
                )
        if "output" not in options:
            yield "output", "expected a file to write the card to; or --show FILE to print a card"
        for option, needed in (
            ("labelled_shifted", "labelled"),
            ("held_out", "labelled"),
            ("images", "from_labels" if "from_labels" in options else "labelled"),
            ("recording", "from_labels"),
            ("labels", "from_labels"),
            ("label_within", "from_labels"),
            ("without_replay", "from_labels"),
            ("fit_objective", "fit_search"),
            ("fit_batches", "fit_search"),
            ("json", "show"),
        ):
            if option in options and needed not in options:
                yield option, f"it needs --{needed.replace('_', '-')}; leave it out"
