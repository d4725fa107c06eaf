"""A card corrected by late labels, and what the corrected card would have changed.

The pair that serves is not touched. The corrected card is a new file; `adawise pair stage` stages it like any other.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
from torch import Tensor

from adawise.adapt.objective import ERRORS_A_NAT
from adawise.adapt.surrogate import Array
from adawise.app.model import ModelPair, load_model, meant
from adawise.app.parts import open_decoder
from adawise.app.prompts import read_lines
from adawise.app.signals import stop_signals
from adawise.card.card import Card, LabelBias, read_card
from adawise.console import progress
from adawise.errors import SettingsError
from adawise.labels.compare.result import RunDifference
from adawise.labels.folders.recording import recorded_rows
from adawise.output.read.rows import read_predictions, read_traces
from adawise.recording.source import RecordedLog
from adawise.records import RowId
from adawise.replay.replay import ReplayRequest, replay
from adawise.settings import SceneSettings, Settings
from adawise.sink.files import segment_keys
from adawise.sink.walk import footer_of
from adawise.store.store import open_store
from adawise_lab.card.bias import (
    LEAST_BATCHES,
    LEAST_CONDITIONS,
    LEAST_LABELS,
    BiasModel,
    Choice,
    CommonBias,
    LabelledCondition,
)
from adawise_lab.card.make import read_pixels
from adawise_lab.labelled import logits_of

_SHOWN = 5  # reasons or conditions that are named
_LABEL_MORE = (
    "label more, an image or two of a batch, in many batches of the conditions that come often; `adawise drift` "
    "shows them"
)

_log = structlog.get_logger("card")


@dataclass(frozen=True, slots=True)
class CorrectionRequest:
    """A request to correct the card of the settings by late labels.

    Args:
        settings: the settings of the workers.
        output: the file to write the corrected card to.
        root: the output whose labelled rows correct it.
        recording: the recording of what these workers read.
        labels: a file of labels; None for those under the root and those that the producer sent.
        label_within: seconds that a label's time may be away from its frame's.
        images: the most images of a condition; None for all.
    """

    settings: Settings
    output: Path
    root: str
    recording: str
    labels: str | None = None
    label_within: float = 0.0
    images: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """The evidence of late labels against a card.

    Attributes:
        objective: the objective that the workers adapt by.
        alphas: the grid.
        bias: its bias, which all conditions have in common.
        choices: what it chooses for each condition, without and with the bias by the other conditions' labels.
        labels: the labelled rows.
        card: the corrected card, which is not written yet; None if the labels do not contradict the old one.
        embeddings: the class embeddings to write beside it, float32 `[H, D, C]`; None without a card.
    """

    objective: str
    alphas: tuple[float, ...]
    bias: CommonBias
    choices: tuple[Choice, ...]
    labels: LabelledRows
    card: Card | None
    embeddings: Tensor | None


def correct(request: CorrectionRequest, *, note: Callable[[str], object] = print) -> Correction:
    """Estimate the bias of the objective from late labels, and correct the card if they show one.

    `note` is called with what is said of labels that are not used.

    Raises:
        SettingsError: there are too few labels, the recording is of another topic, or a bias would change nothing.
        CardError: there is no card, or it belongs to another pair.
        SourceError, ChainError, StoreUnavailable: the recording or the root cannot be read.
    """
    settings, root = request.settings, request.root
    if settings.scene.shortlists:
        raise SettingsError(
            f"{root}: a correction is learned with all classes, and would not hold within scene.shortlists, so that no "
            "worker would serve by the corrected card; take the shortlists out, or keep the card"
        )
    card = card_to_correct(settings, request.output)
    _check_topic(root, request.recording)
    found = _labelled(request, note)
    model = load_model(settings.model, settings.decode)
    chosen = meant(settings.search, model)
    if chosen.strategy == "fixed":
        raise SettingsError(
            f"{root}: these settings serve a fixed alpha of {chosen.alpha:g}, which no objective "
            "changes. Set search.strategy to warm, or keep the card"
        )
    conditions = _evaluated(request, model, card, chosen.objective, found)
    bias_model = BiasModel(card.alphas, ERRORS_A_NAT[chosen.objective])
    bias, corrected, embeddings = bias_model.estimate(conditions), None, None
    if bias.is_clear:
        corrected = card.corrected(_of_card(bias, chosen.objective, conditions))
        embeddings = model.classifier.embeddings()
    choices = bias_model.cross_fitted(conditions)
    return Correction(chosen.objective, card.alphas, bias, choices, found, corrected, embeddings)


def card_to_correct(settings: Settings, output: Path) -> Card:
    """Return the card of the settings. Raises SettingsError: there is none, or `output` is no other file."""
    named = settings.model.card
    if named is None:
        raise SettingsError(
            "model.card: expected the card that the workers use, which labels correct. Name it, or make one: "
            "adawise card make --labelled FOLDER -o FILE"
        )
    card = read_card(named)
    if output.is_dir():
        raise SettingsError(f"-o {output}: expected a file to write the card to, but it is a folder. Name a file in it")
    if output.resolve() == named.resolve() or (output.exists() and output.samefile(named)):
        raise SettingsError(
            f"-o {output} is model.card, which workers and stream states use; the corrected card is a different "
            "one: name a new file"
        )
    return card


def _check_topic(root: str, recording: str) -> None:
    """Raise SettingsError unless the recording is of the topic that the root's workers read."""
    log, store = RecordedLog(recording, "skip"), open_store(root)
    keys = segment_keys(store)
    if not keys:
        raise SettingsError(f"{root}: there is no output of a worker; name the folder of sink.root")
    footer = footer_of(store, keys[-1][1])
    ours, theirs = log.identity(log.topic), (footer.topic, footer.topic_id)
    if footer.topic != log.topic or (footer.topic_id and ours.topic_id and footer.topic_id != ours.topic_id):
        raise SettingsError(
            f"--recording {recording}: it is of topic {log.topic!r} (id {ours.topic_id or 'unknown'}), but {root} "
            f"is of topic {theirs[0]!r} (id {theirs[1] or 'unknown'}). Name the recording of the messages that "
            "these workers read"
        )


def _labelled(request: CorrectionRequest, note: Callable[[str], object]) -> LabelledRows:
    """Return the labelled rows of the root. Note how many belong to conditions with too few labels.

    Raises:
        SettingsError: there are too few labels.
    """
    assert request.settings.model.classes is not None  # the command line has checked it
    classes = read_lines(request.settings.model.classes, "model.classes", "class name")
    found = labelled_rows(request.root, classes, file=request.labels, within_us=round(request.label_within * 1e6))
    for each in found.notes:
        note(each)
    enough = _enough(found.rows, request.root, "have a label")
    if few := len(found.rows) - sum(map(len, enough.values())):
        note(f"{few} labels are of conditions with labels in fewer than {LEAST_BATCHES} batches, and were left out")
    return found


def _enough(
    rows: Sequence[LabelledRow], root: str, what: str, remedy: str = _LABEL_MORE
) -> dict[str, list[LabelledRow]]:
    """Return the rows of the conditions that have labels in `LEAST_BATCHES` batches or more, by condition.

    Args:
        rows: labelled rows.
        root: the root, for the message.
        what: what the rows have in common, for the message.
        remedy: what to do, for the message.

    Raises:
        SettingsError: fewer than `LEAST_LABELS` rows or `LEAST_CONDITIONS` conditions are left.
    """
    by_condition: dict[str, list[LabelledRow]] = {}
    for row in rows:
        by_condition.setdefault(row.condition, []).append(row)
    batches = {name: len({row.batch for row in of}) for name, of in by_condition.items()}
    found = {name: of for name, of in by_condition.items() if batches[name] >= LEAST_BATCHES}
    if sum(map(len, found.values())) < LEAST_LABELS or len(found) < LEAST_CONDITIONS:
        counts = Counter(batches).most_common(_SHOWN)
        largest = [f"{name}: {len(by_condition[name])} labels in {n} batches" for name, n in counts]
        raise SettingsError(
            f"{root}: expected at least {LEAST_LABELS} labelled images, under at least "
            f"{LEAST_CONDITIONS} conditions with labels in {LEAST_BATCHES} batches each; {len(rows)} {what}, and "
            f"of {len(batches)} conditions {len(found)} have labels in that many batches "
            f"({'; '.join(largest) or 'none'}). With fewer, a correction does more harm than good: {remedy}"
        )
    return found


def _evaluated(
    request: CorrectionRequest, model: ModelPair, card: Card, objective: str, found: LabelledRows
) -> list[LabelledCondition]:
    """Return, by condition, the objective and the errors at every alpha of the recorded images that can be read."""
    root, recording, names = request.root, request.recording, model.classes
    truths = {row.row_id: row.truth for row in found.rows}
    samples = recorded_rows(recording, truths, names, lambda made: open_decoder(request.settings.decode, made))
    if samples.left_out:
        reasons = dict(Counter(samples.left_out.values()).most_common(_SHOWN))
        _log.warning("images_left_out", images=samples.where, left_out=len(samples.left_out), of_them=reasons)
    by_name = {str(row.row_id): row for row in found.rows}
    readable = f"of them can be read in {recording}"
    usable = [by_name[samples.names[i]] for i in samples.usable]
    numbers = {name: i for i, name in enumerate(samples.names)}
    wanted = {name: _spread(rows, request.images) for name, rows in _enough(usable, root, readable).items()}
    if request.images is not None:
        bounded = f"are left by --images {request.images}"
        _enough([row for rows in wanted.values() for row in rows], root, bounded, "raise --images, or leave it out")
    index, value = {name: i for i, name in enumerate(names)}, card.objective(objective)
    made, read = list[LabelledCondition](), list[LabelledRow]()
    with progress("evaluated", total=sum(map(len, wanted.values())) * len(card.alphas)) as bar:
        for name, rows in wanted.items():
            values, wrong, kept = list[Array](), list[Array](), list[LabelledRow]()
            for pixels, these in read_pixels(model, samples, [numbers[str(row.row_id)] for row in rows]):
                truth = [index[samples.labels[i]] for i in these]
                logits, labels = logits_of(model.classifier, [(pixels, truth)], bar)
                found_values = np.stack([value(z, j) for j, z in enumerate(logits)], axis=1)
                finite = np.isfinite(found_values.sum(axis=1))  # an image with a value that is not finite is left out
                values.append(found_values[finite])
                wrongs = np.stack([(z.argmax(dim=-1) != labels).double().numpy() for z in logits], axis=1)
                wrong.append(wrongs[finite])
                kept += [
                    by_name[samples.names[i]] for i, is_finite in zip(these, finite.tolist(), strict=True) if is_finite
                ]
            if kept:
                batches = np.array([row.batch for row in kept])
                made.append(LabelledCondition(name, np.concatenate(values), np.concatenate(wrong), batches))
                read += kept
    enough = _enough(read, root, readable)
    return [one for one in made if one.name in enough]


def _spread(rows: Sequence[LabelledRow], limit: int | None) -> list[LabelledRow]:
    """Return at most `limit` rows, spread evenly over all of them."""
    if limit is None or limit >= len(rows):
        return list(rows)
    return [rows[i * len(rows) // limit] for i in range(limit)]


def _of_card(bias: CommonBias, objective: str, conditions: Sequence[LabelledCondition]) -> LabelBias:
    return LabelBias(
        objective=objective,
        nats=tuple(bias.nats.tolist()),
        sd=tuple(bias.sd.tolist()),
        images=sum(map(len, conditions)),
        conditions=len(conditions),
        evidence=bias.evidence,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@dataclass(frozen=True, slots=True)
class Replays:
    """The difference between replays with the old and with the new card, and the mean alpha of each."""

    difference: RunDifference
    mean_alphas: tuple[float, float]


def replayed(correction: CorrectionRequest, rows: Sequence[LabelledRow]) -> Replays | None:
    """Replay the recording with the old card and with the new one; return None if it was stopped before both ended."""
    from adawise.labels.compare.compare import compare

    recording = correction.recording
    # A corrected card has no proof of its scene, and rows are the same whether that is served or beside.
    settings = correction.settings.model_copy(update={"scene": SceneSettings()})
    with tempfile.TemporaryDirectory(prefix="adawise-card-") as folder:
        labels = Path(folder) / "labels.csv"
        lines = [f"{row.row_id},{_quoted(row.truth)}" for row in rows]
        labels.write_text("\n".join(["row_id,label", *lines, ""]), encoding="utf-8")
        roots = [str(Path(folder) / name) for name in ("before", "after")]
        for root, card in zip(roots, (settings.model.card, correction.output), strict=True):
            served = settings.model_copy(update={"model": settings.model.model_copy(update={"card": card})})
            request = ReplayRequest(settings=served, recording=recording, output=root, skip_forgotten=True)
            with stop_signals() as stop:
                if replay(request, stop=stop, shown=partial(progress, "replayed", unit="messages")).stopped:
                    return None
        difference = compare(*roots, labels=str(labels))
        return Replays(difference, (_mean_alpha(roots[0]), _mean_alpha(roots[1])))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _mean_alpha(root: str) -> float:
    """Return the mean alpha over all images that an output served."""
    table = read_traces(root, columns=["alpha", "images"]).table()
    alphas, images = (table[name].to_numpy() for name in ("alpha", "images"))
    return float(alphas @ images / images.sum())


try:
    import duckdb
except ImportError as error:
    raise SettingsError(
        "labels that came late need the package duckdb; install it with: pip install 'adawise[report]'"
    ) from error

_KEY = ("topic", "partition", "stream_id")
_ROWS = (
    *(*_KEY, "offset", "index", "captured_at", "kafka_timestamp", "time", "status", "batch_number", "true_label"),
    *("label", "top_labels", "zero_shot_label", "fine_tuned_label"),
)
_BATCHES = (*_KEY, "batch_number", "first_offset", "last_offset", "condition")
_RENAMED = "topic AS t, partition AS p, stream_id AS s, batch_number AS b, first_offset, last_offset, condition"

CONDITION = """coalesce(stream_id, 'no name') || ', ' || coalesce(
    'condition ' || any_value(condition), any_value(make_timestamp(epoch_us(time))::DATE)::VARCHAR, 'no time'
)"""
"""The name of the condition of grouped rows, as SQL: a camera with its condition, or with the day where it has none."""

_BY_CONDITION = f"""
SELECT topic, partition, "offset", "index", any_value(truth), {CONDITION} AS name,
       coalesce(any_value(first_offset), any_value(batch_number))
FROM labelled LEFT JOIN batches ON labelled.topic = t AND labelled.partition = p AND labelled.stream_id = s
     AND labelled.batch_number = b AND "offset" BETWEEN first_offset AND last_offset
GROUP BY topic, partition, "offset", "index", stream_id
ORDER BY topic, partition, "offset", "index"
"""


class LabelledRow(NamedTuple):
    """A row of a known class, the name of its condition, and its batch, by the batch's first offset.

    For a batch without a trace, the batch's number in its stream takes the place of the first offset.
    """

    row_id: RowId
    truth: str
    condition: str
    batch: int


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The rows in the order of their messages, the source of their labels, and notes on labels that were not used."""

    rows: tuple[LabelledRow, ...]
    source: str
    notes: tuple[str, ...]


def labelled_rows(root: str, classes: Collection[str], *, file: str | None = None, within_us: int = 0) -> LabelledRows:
    """Return the accepted rows under a root that have a label, as `label` joins them.

    Raises:
        SettingsError: no worker wrote there, or as `label`.
        ChainError, StoreUnavailable: as `label`.
    """
    from adawise.labels.join import label  # imported here, after the check for DuckDB above
    from adawise.output.read.duckdb_rows import translated

    with translated(root), closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        read_predictions(root, columns=_ROWS).relation(connection).create_view("predictions")
        read_traces(root, columns=_BATCHES).relation(connection).project(_RENAMED).create_view("batches")
        found = label(connection, root, file=file, within_us=within_us, classes=classes)
        rows = tuple(
            LabelledRow(RowId(*place), truth, condition, batch)
            for *place, truth, condition, batch in connection.execute(_BY_CONDITION).fetchall()
        )
    return LabelledRows(rows, found.source, found.notes)
