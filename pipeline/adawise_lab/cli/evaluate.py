"""The command `adawise evaluate`, which compares strategies on labelled images. Its call imports what is heavy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command, all_but, json_flag, optional
from adawise.labels.folders import FORMS
from adawise.settings.group import FilePath, Text
from adawise.settings.requirements import OWN_CLASSES
from adawise_lab.chronological.intervals import EXPECTED, parse_intervals

if TYPE_CHECKING:
    from adawise_lab.chronological.pace import BatchPace


def _named(default: object, description: str, metavar: str) -> Any:
    return Field(default=default, description=description, json_schema_extra={"metavar": metavar})


_OF_PROTOCOL = ("intervals", "train", "state", "pace")
_NOT_OF_PROTOCOL = (
    *("logits", "corrupt", "limit", "domains", "groups", "calibrate", "strategies", "curve"),
    *("streams", "orders", "shows", "shortlists", "smooth", "seeds", "processes"),
)


def _intervals(text: str) -> str:
    parse_intervals(text)
    return text


class EvaluateCommand(Command):
    """Compare strategies on labelled images: does adapting alpha help here, when, and at what cost?

    Every strategy sees the same streams, on logits that are computed once. Accuracies are means over domains of equal
    weight; differences to zero-shot, fine-tuned, alpha .5 and the best fixed alpha in hindsight have 95 % intervals. A
    STRATEGY is a name, optionally with options and an objective: warm:budget=3,every=16@calibrated_entropy.

    With --protocol chronological, time decides: models are trained as `adawise finetune` trains them, on what cameras
    saw up to an interval, and serve the next one. Trainings are kept in --cache; the same command goes on with them.
    """

    name = "evaluate"
    groups = (
        *all_but("model", "on_change"),
        *all_but("search", "strategy"),
        "batch",
        *all_but("decode", "threads"),
        "scene",
        *all_but("finetune", "rehearsal", "tensorboard", "mlflow"),
        "log",
    )
    examples = (
        (
            "compare on photographs, unchanged and in bad weather",
            "evaluate --images yard/,street.parquet --corrupt fog:2,snow:3,motion_blur:3",
        ),
        ("compare on a folder of tables", "evaluate --logits tables/ --calibrate val_mix"),
        ("compare two variants, and print JSON", "evaluate --logits tables/ --strategies warm,warm:every=16 --json"),
        (
            "find the best search.price",
            "evaluate --logits tables/ --strategies warm,grid,scratch --curve -o runs/price",
        ),
        (
            "what a class prior brings to cameras that show five classes",
            "evaluate --logits tables/ --calibrate val_mix --shows few5 --scene.prior beside",
        ),
        (
            "what shortlists bring to cameras that show ten classes, with three names too many",
            "evaluate --logits tables/ --shows few10 --shortlists exact+3",
        ),
        (
            "compare on a slow change between two domains",
            "evaluate --logits tables/ --streams smooth --smooth known:new",
        ),
        (
            "train on each month's images and those before, and serve the next month",
            "evaluate --protocol chronological --images recordings/site --intervals 30d -o runs/site",
        ),
    )

    logits: FilePath | None = optional("folder of tables of logits, DOMAIN.npz each", metavar="FOLDER")
    images: Text | None = optional(
        f"labelled images to make tables from, places separated by commas; each is {FORMS}; "
        "without model.classes, the class names are those that a file declares, or the labels",
        metavar="PLACES",
    )
    corrupt: Text | None = optional(
        "corruptions of the images, a domain each, such as fog:2,snow (severity 1 to 5; none: 3), or all",
        metavar="KINDS",
    )
    limit: int | None = Field(default=None, ge=1, description="most images of each place; none: all")
    cache: FilePath = _named(
        Path("runs/tables"), "folder that caches tables made from images, and trainings of --protocol", "FOLDER"
    )
    domains: Text | None = optional(
        "domains to judge, separated by commas; none: all tables except val*, or all domains of the images",
        metavar="NAMES",
    )
    group: Text | None = optional(
        "groups of domain kinds, by the names' parts before _; none: each kind",
        "groups",
        metavar="NAME=A+B,...",
    )
    calibrate: Text | None = optional("table to fit temperatures on; none: those of model.card, or 1", metavar="NAME")
    strategies: Text | None = optional(
        "strategies to compare, separated by commas; auto: as a worker with this card; "
        "none: every strategy but botorch, and auto if the card advises a fixed alpha",
        metavar="STRATEGY,...",
    )
    curve: CliToggleFlag[bool] = Field(
        default=False,
        description="also run warm at seven prices from .2 to .002, for a curve of accuracy against forwards",
    )
    streams: Text = _named(
        "short,long,stationary",
        "kinds of stream: short, long, stationary, cycle, jumps, mixed, smooth, returning, "
        "calendar; and exposure, brightness, odd, pan, on which alpha should not move",
        "KINDS",
    )
    orders: Text = _named(
        "iid,runs", "orders of a domain's images: iid, or runs of one class as cameras send them", "ORDERS"
    )
    shows: Text = _named(
        "all",
        "what cameras show: all, every class as the images come; few5, five classes, or another number, equally "
        "frequent; zipf, every class, of frequencies 1, 1/2, 1/3; changing, five classes, and five others after every "
        "192 images; rare, four common classes and two of 4 % each",
        "CLASSES",
    )
    shortlists: Text = _named(
        "none",
        "shortlists that cameras have in search and prediction, compared with lists for the prediction alone and with "
        "none; exact: the classes that a camera shows; exact+5: these and five others; exact-1: all of them but one",
        "NAMES",
    )
    smooth: Text | None = optional(
        "domains between which a smooth stream moves and returns, such as a+b:c", metavar="FROM:TO"
    )
    protocol: Literal["chronological"] | None = optional(
        "chronological: cut the time of one labelled recording (--images) into intervals; for each one, train on the "
        "images up to it, and serve those of the next one; compare zero-shot, fine-tuned, alpha .5 and adapting",
        expected="chronological",
    )
    intervals: Annotated[Text, AfterValidator(_intervals)] | None = optional(
        "intervals of --protocol: their number, each equally long, or the length of one",
        metavar="NUMBER|LENGTH",
        expected=EXPECTED,
    )
    train: Literal["all", "camera"] = Field(
        default="all",
        description="what a model of --protocol is trained on; all: the images of all cameras, one model for each "
        "interval, as workers serve one pair; camera: those of the one camera that it serves, a model for each camera "
        "and interval, as StreamTrap does",
    )
    state: Literal["reset", "keep"] = Field(
        default="reset",
        description="what cameras of --protocol do with their adaptation state when the next model serves; reset: "
        "start anew, as by default with `adawise pair switch`; keep: keep what they learned",
    )
    pace: Literal["backlog", "live"] = Field(
        default="backlog",
        description="how images of --protocol become batches; backlog: 16 each, as where messages were sent together; "
        "live: by the images' own times, which batch.max_age_s and search.forget_after_s divide",
    )
    seeds: int = Field(default=5, ge=1, le=1000, description="streams of each kind and order")
    processes: int | None = Field(
        default=None, ge=1, le=1024, description="parallel processes; none: one for each core"
    )
    output: FilePath | None = optional(
        "folder for page.html, result.json and paths.parquet", "output", "o", metavar="FOLDER"
    )
    as_json: CliToggleFlag[bool] = json_flag("print the result as JSON")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete: tables need no models, and images may bring their class names.

        Whether an objective needs a card is checked once the strategies are known. A protocol trains its own theta_1.
        """
        if "protocol" in options:
            return frozenset({"finetune", "decode", "log"})
        return frozenset({"model", OWN_CLASSES, "decode", "log"} if "images" in options else {"log"})

    @classmethod
    @override
    def without_effect(cls, options: Mapping[str, Any]) -> Sequence[str]:
        """Return the settings that the streams of this evaluation do not have.

        Nothing is trained without a protocol, which makes its own pairs and cards; it alone has cameras with names, and
        times that divide their images if its pace is live.
        """
        of_pace = () if options.get("pace") == "live" else ("batch", "search.forget_after_s")
        of_pair = ("model.theta_1", "model.card") if "protocol" in options else ("finetune", "scene.shortlists")
        return *of_pair, *of_pace

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a mistake if there is nothing to read, or an option or a kind of stream lacks what it needs."""
        if "protocol" in options:
            yield from _of_protocol(options)
            return
        for name in _OF_PROTOCOL:
            if name in options:
                yield name, "it needs --protocol chronological; leave it out"
        if "logits" not in options and "images" not in options:
            yield "logits", "expected a folder of tables; name it, or labelled images with --images"
        if "logits" in options and "images" in options:
            yield "images", "tables are read or made, not both: leave --images or --logits out"
        for name in ("corrupt", "limit", "cache"):
            if name in options and "images" not in options:
                yield name, "it needs --images; leave it out"
        if "smooth" in str(options.get("streams", "")).split(",") and "smooth" not in options:
            yield "smooth", "smooth streams need two groups of domains; name them, such as --smooth a+b:c"

    @override
    def call(self) -> int:
        """Compare strategies, and print tables or JSON."""
        return self._compare() if self.protocol is None else self._run_protocol()

    def _compare(self) -> int:
        from adawise.console import paper, print_json
        from adawise_lab.evaluate.evaluate import EvaluateRequest, evaluate
        from adawise_lab.evaluate.show import show
        from adawise_lab.evaluate.tables import TableSources

        source: Path | TableSources | None = self.logits
        if self.images is not None:
            places = tuple(Path(place.strip()).expanduser() for place in self.images.split(","))
            source = TableSources(places, self.corrupt, self.cache, self.limit)
        assert source is not None  # `problems` has checked it
        same = {field.name for field in fields(EvaluateRequest)} - {"source", "command"}
        given = {name: getattr(self, name) for name in same}
        result = evaluate(EvaluateRequest(source=source, command=self.written_out(), **given))
        if self.as_json:
            print_json(result.as_json())
        else:
            show(result, paper())
        return 0

    def _run_protocol(self) -> int:
        """Run the protocol. Return 0, or 130 if it was stopped before its end."""
        from adawise.app.signals import INTERRUPTED
        from adawise.console import paper, print_json
        from adawise_lab.chronological.chronological import ChronologicalRequest, run_protocol
        from adawise_lab.chronological.report import show
        from adawise_lab.chronological.trained import TrainingStopped

        assert self.images is not None  # `problems` has checked both
        assert self.intervals is not None
        request = ChronologicalRequest(
            settings=self.settings,
            recording=Path(self.images).expanduser(),
            cut=parse_intervals(self.intervals),
            train=self.train,
            keeps=self.state == "keep",
            pace=self._pace(),
            cache=self.cache,
            output=self.output,
            command=self.written_out(),
        )
        try:
            result = run_protocol(request)
        except TrainingStopped:
            print("the same `adawise evaluate` goes on with this training; it needs no --resume", file=sys.stderr)
            return INTERRUPTED
        if self.as_json:
            print_json(result.as_json())
        else:
            show(result, paper())
        return 0

    def _pace(self) -> BatchPace:
        """Return when the batches of a protocol end."""
        from adawise.worker.batching import BatchPolicy
        from adawise_lab.chronological.pace import BatchPace

        if self.pace == "backlog":
            return BatchPace()
        batch = self.settings.batch
        return BatchPace("live", BatchPolicy(batch.images, batch.max_age_s), self.settings.search.forget_after_s)


def _of_protocol(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a mistake for each option that a protocol lacks, and for each that it does not have."""
    if "images" not in options:
        yield "images", "expected a labelled recording, whose time --protocol cuts; name it"
    elif "," in str(options["images"]):
        yield "images", "expected one recording with --protocol; name one"
    if "intervals" not in options:
        yield "intervals", f"expected {EXPECTED}; add it"
    for name in _NOT_OF_PROTOCOL:
        if name in options:
            yield name, "it has no effect with --protocol; leave it out"
