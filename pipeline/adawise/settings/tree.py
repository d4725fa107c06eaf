"""The groups of settings for the model, the search and the output, among others, and the tree of all groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, JsonValue
from typing_extensions import override

from adawise.adapt.names import ObjectiveName, StrategyName
from adawise.settings.alerts import AlertsSettings
from adawise.settings.finetuning import FinetuneSettings
from adawise.settings.group import KAFKA_NAME_EXPECTED, FilePath, Group, KafkaName, Location, Text
from adawise.settings.http import HttpSettings
from adawise.settings.kafka import KafkaSettings
from adawise.settings.recording import DAYS_SCHEMA, Days, RecordSettings
from adawise.settings.scene import SceneSettings

BETWEEN_GROUPS = frozenset({"decode", "kafka", "limits", "results", "alerts", "scene"})
"""The groups that `Settings.problems` compares."""

REPLAY_GROUPS = (
    "model",
    "search",
    "scene",
    "batch",
    "decode",
    "predict",
    "sink",
    "alerts",
    "limits",
    "log",
    "results",
)
"""The groups that a replay of a recording reads."""

OBJECT_STORES = ("s3", "gs", "az")
ROOT_EXPECTED = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
PREPROCESSING = ("mean", "std", "resize_mode", "interpolation", "quick_gelu")
CHANNELS_SCHEMA: dict[str, JsonValue] = {
    "expected": "three numbers from 0 to 1, of red, green and blue: 0.5,0.5,0.5",
    "metavar": "R,G,B",
}
CHECKPOINT_EXPECTED = "a file, local-dir:FOLDER or the name of a pretrained tag"


def _device(value: str) -> str:
    kind, _, number = value.partition(":")
    if value not in {"auto", "cpu", "cuda"} and not (kind == "cuda" and number.isascii() and number.isdecimal()):
        raise ValueError("there is no such device")
    return value


def _root(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in OBJECT_STORES:
        raise ValueError(f"{scheme}:// is not supported")
    if separator and not rest.partition("/")[0]:
        raise ValueError("the container is missing" if scheme == "az" else "the bucket is missing")
    return value


def _levels(value: str) -> str:
    low, _, high = value.partition("-")
    if value != "own" and not (
        all(level.isascii() and level.isdecimal() for level in (low, high)) and int(low) < int(high) <= 65_535
    ):
        raise ValueError("the first level must be below the second one, which is at most 65535")
    return value


def _channels(value: Any) -> Any:
    """Rewrite `[0.5, 0.5, 0.5]` as `0.5,0.5,0.5`, the form that file, flags and environment have in common."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return value.strip("[]() ") if isinstance(value, str) else value


def numbers(channels: str) -> tuple[float, float, float]:
    """Return the numbers of red, green and blue.

    Raises:
        ValueError: these are not three numbers.
    """
    try:
        red, green, blue = map(float, channels.split(","))
    except ValueError:
        raise ValueError from None
    return red, green, blue


def _mean(value: str) -> str:
    channels = numbers(value)
    if max(channels) > 1:
        raise ValueError("pixels are in [0, 1] here: divide levels by 255")
    if not all(0 <= number <= 1 for number in channels):
        raise ValueError
    return value


def _std(value: str) -> str:
    if 0 in numbers(_mean(value)):
        raise ValueError("a deviation of 0 would be a divisor")
    return value


class ModelSettings(Group):
    """The settings `[model]`: the two models and the classes that they distinguish."""

    architecture: Text = Field(
        default="ViT-B-32",
        description="model architecture",
        json_schema_extra={"expected": "a name that open_clip knows, or local-dir:FOLDER"},
    )
    theta_0: Location | None = Field(
        default=None,
        description="zero-shot checkpoint (alpha 0)",
        json_schema_extra={"expected": CHECKPOINT_EXPECTED, "metavar": "FILE"},
    )
    theta_1: Location | None = Field(
        default=None,
        description="fine-tuned checkpoint (alpha 1)",
        json_schema_extra={"expected": CHECKPOINT_EXPECTED, "metavar": "FILE"},
    )
    mean: Annotated[str, BeforeValidator(_channels), AfterValidator(_mean)] | None = Field(
        default=None,
        description="mean of the pixels that both models were trained on; none, as for the four below: as in the "
        "config beside the checkpoint, or as open_clip's weights of the architecture "
        "(docs/guide/checkpoints.md)",
        json_schema_extra=CHANNELS_SCHEMA,
    )
    std: Annotated[str, BeforeValidator(_channels), AfterValidator(_std)] | None = Field(
        default=None, description="standard deviation of these pixels", json_schema_extra=CHANNELS_SCHEMA
    )
    resize_mode: Literal["shortest", "squash", "longest"] | None = Field(
        default=None,
        description="how images become square; shortest: fit the short side and crop the middle; squash: fit both "
        "sides; longest: fit the long side and fill the rest",
    )
    interpolation: Literal["bicubic", "bilinear"] | None = Field(default=None, description="filter of the resize")
    quick_gelu: bool | None = Field(
        default=None, description="whether both models have QuickGELU, as OpenAI's weights do, in place of GELU"
    )
    classes: FilePath | None = Field(default=None, description="text file with one class name a line")
    templates: FilePath | None = Field(
        default=None, description="text file with one prompt a line, {} for the class; none: a small built-in set"
    )
    card: FilePath | None = Field(default=None, description="calibration of this pair, made by `adawise card make`")
    on_change: Literal["refuse", "reset", "keep"] = Field(
        default="refuse",
        description="what a worker does if another pair or class list has written the root; refuse: do not start; "
        "reset: each stream starts anew; keep: each stream keeps what it learned with the other one "
        "(also after a new card)",
    )
    cache: FilePath | None = Field(
        default=None,
        description="folder that caches the text heads of each pair and machine, so that only the first start "
        "encodes them; none: adawise/heads in the user's cache folder (XDG_CACHE_HOME, ~/.cache)",
        json_schema_extra={"metavar": "FOLDER"},
    )
    cache_mib: int = Field(default=512, ge=0, le=2**20, description="MiB that model.cache may hold; 0: no cache")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        default="auto",
        description="number format of the forwards; auto: that in which the root is served, and for a new root the "
        "fastest by a rule (docs/guide/operate.md); tf32, fp16: GPU only",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto",
        description="device of the forwards; auto: CUDA if available",
        json_schema_extra={"expected": "auto, cpu, cuda or cuda:NUMBER", "metavar": "DEVICE"},
    )
    chunk_rows: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        default="auto",
        description="images of every forward, one fixed shape with padding; auto: 8 on a CPU, 8 to 64 on a GPU by "
        "its size and the model's",
    )
    cuda_graphs: bool = Field(
        default=True, description="launch a GPU's forward as one CUDA graph, captured at first use"
    )
    bank_mib: int = Field(default=4096, ge=0, le=2**20, description="MiB of memory for merged copies of the weights")
    head: Literal["text", "interpolate"] = Field(
        default="text", description="text head at alpha: encode the prompts at alpha, or interpolate the two heads"
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="CPU threads of a forward; none: torch decides"
    )

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The options of `PREPROCESSING` that are set; `mean` and `std` as numbers."""
        named = {key: value for key in PREPROCESSING if (value := getattr(self, key)) is not None}
        return {key: numbers(value) if key in {"mean", "std"} else value for key, value in named.items()}


class SearchSettings(Group):
    """The settings `[search]`: how alpha is chosen for each batch.

    Example:
        >>> search = adawise.SearchSettings(strategy="grid", objective="entropy")
        >>> step = adawise.adapt_batch(pair, images[:8], search=search)
        >>> len(step.trials) == len(pair.classifier.alphas)
        True
        >>> step.alpha == min(step.trials, key=lambda trial: trial.objective).alpha
        True
    """

    strategy: Literal["auto", StrategyName] = Field(
        default="auto",
        description="warm: a warm-started surrogate; botorch: BoTorch on the last batches; scratch: each batch "
        "from scratch; grid: every alpha; fixed: always the same; auto: warm, unless model.card found "
        "a fixed alpha to serve better",
    )
    objective: Literal["auto", ObjectiveName] = Field(
        default="auto",
        description="objective to minimise; auto: as model.card recommends, tsallis without a card; all but "
        "tsallis and entropy need the card",
    )
    alpha: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="first alpha of a stream, and the only one of strategy fixed; strategy auto uses the card's "
        "instead",
    )
    price: float = Field(
        default=0.03,
        ge=0,
        le=100,
        description="expected gain, in nats, above which other alphas are tried on a whole batch; a "
        "higher price spends fewer forwards",
    )
    budget: int = Field(
        default=5, ge=1, le=101, description="most forwards of a batch (botorch, scratch: alphas evaluated)"
    )
    explore_images: int = Field(
        default=8,
        ge=1,
        le=256,
        description="least images of a batch on which another alpha is tried; fewer than model.chunk_rows cost as much",
    )
    explore_every: int = Field(
        default=8, ge=1, le=1_000_000, description="batches after which a quiet stream is explored at any price"
    )
    min_images: int = Field(
        default=8, ge=1, le=256, description="least images of a batch for adaptation; a smaller batch is only predicted"
    )
    conditions: int = Field(
        default=16,
        ge=0,
        le=64,
        description="conditions that warm remembers of a stream besides the current one, to serve one that returns "
        "as before; 0: none",
    )
    forget_after_s: float = Field(
        default=604_800.0,
        ge=60,
        le=1e9,
        description="seconds of silence, by the messages' timestamps, after which a stream starts anew",
    )


class BatchSettings(Group):
    """The settings `[batch]`: how single images of a stream are gathered. A message with a batch stays one batch."""

    images: int = Field(default=16, ge=1, le=256, description="images of a full batch")
    max_age_s: float = Field(
        default=2.0, gt=0, le=3600, description="seconds after which a batch that is not full is closed"
    )


class DecodeSettings(Group):
    """The settings `[decode]`: how messages become images, and which are rejected."""

    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None,
        description="images decoded at the same time, and one more if it is quick; none: one for each core of this "
        "process",
    )
    max_message_bytes: ByteSize = Field(
        default=ByteSize(8 * 2**20), ge=1024, le=2**30, description="most bytes of a message; a larger one is rejected"
    )
    max_rows: int = Field(default=256, ge=1, le=65_536, description="most images of a batch message")
    max_pixels: int = Field(
        default=34_000_000,
        ge=1,
        le=2**31 - 1,
        description="most pixels (width x height) of an image; 34 million are 8K, and take up to a second to decode",
    )
    orientation: Literal["ignore", "apply"] = Field(
        default="ignore",
        description="orientation in EXIF; ignore: as open_clip does; apply: rotate images",
    )
    grey16_range: Annotated[str, AfterValidator(_levels)] = Field(
        default="own",
        description="levels of 16-bit grey that become black and white; own: those of each image, without the "
        "outermost thousandth of its pixels; two levels keep absolute values, such as temperatures",
        json_schema_extra={"expected": "own, or LOW-HIGH: two levels from 0 to 65535", "metavar": "LOW-HIGH"},
    )
    reduced: bool = Field(
        default=False,
        description="decode JPEG at 1/2, 1/4 or 1/8 of its size if at least twice the model's input is left: "
        "faster, with slightly different pixels",
    )


class SinkSettings(Group):
    """The settings `[sink]`: where predictions are written."""

    root: Annotated[Location, AfterValidator(_root)] = Field(
        default="runs/output",
        description="folder of predictions and traces",
        json_schema_extra={"expected": ROOT_EXPECTED, "metavar": "FOLDER"},
    )
    flush_rows: int = Field(default=4096, ge=1, le=10_000_000, description="rows after which a segment is written")
    flush_age_s: float = Field(
        default=10.0, gt=0, le=86_400, description="seconds after which a segment with fewer rows is written"
    )
    keep: Days | None = Field(
        default=None,
        description="remove output that was committed longer ago, in whole files, a day or more, as `adawise "
        "retain` does; none: never",
        json_schema_extra=DAYS_SCHEMA,
    )
    begin_anew: bool = Field(
        default=False,
        description="for one start: write to this root although the group has written to another, or to one that "
        "is gone; the topic is served from kafka.origin on",
    )


class LimitsSettings(Group):
    """The settings `[limits]`: bounds on memory, and on the streams whose states each segment has to hold."""

    inflight_mib: int = Field(
        default=512,
        ge=16,
        le=2**20,
        description="MiB of messages and decoded images in memory; above, polling pauses. Three quarters are for "
        "messages that wait for their batch: if the messages of batch.max_age_s from all cameras do "
        "not fit, batches are closed early",
    )
    streams: int = Field(
        default=10_000,
        ge=8,
        le=1_000_000,
        description="most streams of a partition with adaptation state; beyond that, those last seen longest ago "
        "start anew",
    )


class PredictSettings(Group):
    """The settings `[predict]`: what is written for an image."""

    top_k: int = Field(default=5, ge=1, le=1000, description="best labels that are stored for an image")


class LogSettings(Group):
    """The settings `[log]`: what the program logs on the error output."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level that is logged"
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="json: one JSON object a line; console: lines for people; auto: console on a terminal, else json",
    )


class PairsSettings(Group):
    """The settings `[pairs]`: how a worker changes to a new pair without a restart."""

    look_s: float = Field(
        default=10.0,
        ge=0.1,
        le=3600,
        description="seconds between two checks of the root for orders about pairs; each is one listing",
    )
    keep_s: float = Field(
        default=3600.0,
        ge=0,
        le=1e9,
        description="seconds for which the former pair stays in memory, so that a rollback is immediate",
    )
    shadow_share: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of time that the shadow of a staged pair may take from serving while images wait; it "
        "takes more when the worker is idle",
    )


RESULTS_SUFFIX = ".results"


class ResultsSettings(Group):
    """The settings `[results]`: the result of each image is published on a Kafka topic."""

    enabled: bool = Field(default=False, description="publish the result of each image on a Kafka topic too")
    topic: KafkaName | None = Field(
        default=None,
        description=f"results topic; none: the topic's name with {RESULTS_SUFFIX}",
        json_schema_extra={"expected": KAFKA_NAME_EXPECTED},
    )
    when: Literal["early", "committed"] = Field(
        default="early",
        description="early: publish as soon as a batch is served, and perhaps again by another worker; committed: "
        "publish only durable rows, up to sink.flush_age_s later; alerts are always about durable rows",
    )
    per: Literal["image", "batch"] = Field(default="image", description="one message for an image, or one for a batch")
    form: Literal["json", "arrow"] = Field(
        default="json",
        description="format of the messages; arrow (an IPC stream with a row for each image) needs per = batch",
    )
    days: int = Field(
        default=7, ge=1, le=36_500, description="days for which the topic keeps messages, if it is created here"
    )

    def topic_of(self, images: str) -> str:
        """Return the topic of results for the topic `images`."""
        return self.topic or f"{images}{RESULTS_SUFFIX}"

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield a mistake for Arrow messages with a single image each. See `Group`."""
        if self.form == "arrow" and self.per == "image":
            yield "form", "arrow needs batches; set results.per to batch, or form to json"


class Settings(Group):
    """The tree of all settings; each value is checked."""

    kafka: KafkaSettings = Field(default=KafkaSettings(), description="source of the images")
    model: ModelSettings = Field(default=ModelSettings(), description="the two models and their classes")
    pairs: PairsSettings = Field(default=PairsSettings(), description="a new pair without a restart")
    search: SearchSettings = Field(default=SearchSettings(), description="how alpha is chosen for each batch")
    scene: SceneSettings = Field(default=SceneSettings(), description="what cameras can show")
    batch: BatchSettings = Field(default=BatchSettings(), description="how single images are gathered into batches")
    decode: DecodeSettings = Field(default=DecodeSettings(), description="how messages become images")
    sink: SinkSettings = Field(default=SinkSettings(), description="output of predictions and traces")
    record: RecordSettings = Field(
        default=RecordSettings(), description="recording of the messages that the worker reads"
    )
    results: ResultsSettings = Field(default=ResultsSettings(), description="results published on a Kafka topic")
    alerts: AlertsSettings = Field(
        default=AlertsSettings(), description="alerts about cameras, published on the results topic"
    )
    limits: LimitsSettings = Field(default=LimitsSettings(), description="limits of memory and streams")
    predict: PredictSettings = Field(default=PredictSettings(), description="columns that are written for an image")
    http: HttpSettings = Field(default=HttpSettings(), description="one port for probes, metrics and the live page")
    finetune: FinetuneSettings = Field(default=FinetuneSettings(), description="fine-tuning of theta_1 from theta_0")
    log: LogSettings = Field(default=LogSettings(), description="logging")

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the mistakes between groups. See `Group`.

        The bounds on memory and on unpacked batches must have room for the largest message. Alerts need results. The
        topic of results must be neither the topic that is read nor that of dead letters.
        """
        needed_mib = -(-2 * self.decode.max_message_bytes // 2**20)
        if self.limits.inflight_mib < needed_mib:
            yield (
                "limits.inflight_mib",
                f"it must be at least {needed_mib}, twice decode.max_message_bytes ({self.decode.max_message_bytes})",
            )
        if self.kafka.max_batch_bytes < self.decode.max_message_bytes:
            yield (
                "kafka.max_batch_bytes",
                f"it must be at least decode.max_message_bytes ({self.decode.max_message_bytes}), for one message",
            )
        if self.alerts.rules and not self.results.enabled:
            yield "alerts.rules", "results.enabled is false, so alerts would not be published; set it to true"
        by_scene = [rule.name for rule in self.alerts.rules if rule.by == "scene_label"]
        if by_scene and not self.scene.has_prior:
            yield (
                "alerts.rules",
                f"the rule {by_scene[0]} goes by scene_label, which scene.prior = off does not make; set it to beside",
            )
        if self.results.enabled:
            yield from (
                ("results.topic", problem) for problem in self._problems_of(self.results.topic_of(self.kafka.topic))
            )

    def _problems_of(self, topic: str) -> Iterator[str]:
        if topic == self.kafka.topic:
            yield "it is kafka.topic, whose messages are read as images; name another"
        if self.kafka.dead_letters and topic == self.kafka.dead_letters_to:
            yield "it is the dead-letter topic, from which messages are sent back; name another"
        if len(topic) > 249:
            yield "the topic's name with its suffix has more than 249 characters; set it yourself"
