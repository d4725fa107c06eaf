"""The work of `adawise card --from-labels`: correct a card by late labels, and show what that would have changed.

The pair that serves is not touched. The corrected card is a new file; `adawise pair stage` stages it like any other.
"""

from __future__ import annotations

import io
import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import structlog

from adawise.adapt.objective import ERRORS_A_NAT
from adawise.adapt.surrogate import Array
from adawise.app.decoder import open_decoder
from adawise.app.labelled import logits_of
from adawise.app.model import ModelPair, load_model, meant
from adawise.app.prompts import read_lines
from adawise.app.signals import INTERRUPTED
from adawise.card.card import Card, LabelBias, read_card
from adawise.cli.replay.options import ReplayCommand
from adawise.cli.replay.run import replay
from adawise.console import progress
from adawise.errors import SettingsError
from adawise.labels.conditions import LabelledRow, LabelledRows, labelled_rows
from adawise.labels.folders.recording import recorded_rows
from adawise.output.read.rows import read_traces
from adawise.recording.source import RecordedLog
from adawise.settings import Settings
from adawise.sink.files import segment_keys
from adawise.sink.walk import footer_of
from adawise.store.store import open_store
from adawise_lab.card.bias import (
    LEAST_BATCHES,
    LEAST_CONDITIONS,
    LEAST_LABELS,
    BiasModel,
    CommonBias,
    LabelledCondition,
)
from adawise_lab.card.correction import show_correction, show_replays
from adawise_lab.card.pixels import read_pixels
from adawise_lab.card.write import write_card

_SHOWN = 5  # reasons or conditions that are named
_LABEL_MORE = (
    "label more, an image or two of a batch, in many batches of the conditions that come often; `adawise drift` "
    "shows them"
)

_log = structlog.get_logger("card")


@dataclass(frozen=True, slots=True)
class Correction:
    """A request to correct the card of the settings by late labels.

    Args:
        settings: the settings of the workers.
        output: the file to write the corrected card to.
        root: the output whose labelled rows correct it.
        recording: the recording of what these workers read.
        labels: a file of labels; None for those under the root and those that the producer sent.
        label_within: seconds that a label's time may be away from its frame's.
        images: the most images of a condition; None for all.
        without_replay: do not replay the recording with both cards.
    """

    settings: Settings
    output: Path
    root: str
    recording: str
    labels: str | None = None
    label_within: float = 0.0
    images: int | None = None
    without_replay: bool = False


def correct(asked: Correction) -> int:
    """Estimate the bias of the objective from late labels; if they show one, write a corrected card and propose it.

    Unless --without-replay was given, the recording is replayed with both cards, and their differences are printed.

    Returns:
        0, or 130 if it was stopped during the replays. The card is written by then.

    Raises:
        SettingsError: there are too few labels, the recording is of another topic, or a bias would change nothing.
        CardError: there is no card, or it belongs to another pair.
        SourceError, ChainError, StoreUnavailable: the recording or the root cannot be read.
    """
    settings, output, root, recording = asked.settings, asked.output, asked.root, asked.recording
    card = _card_of(settings, output)
    _check_topic(root, recording)
    found = _labelled(asked)
    model = load_model(settings.model, settings.decode)
    chosen = meant(settings.search, model)
    if chosen.strategy == "fixed":
        raise SettingsError(
            f"--from-labels {root}: these settings serve a fixed alpha of {chosen.alpha:g}, which no objective "
            "changes. Set search.strategy to warm, or keep the card"
        )
    conditions = _evaluated(asked, model, card, chosen.objective, found)
    bias_model = BiasModel(card.alphas, ERRORS_A_NAT[chosen.objective])
    bias = bias_model.estimate(conditions)
    show_correction(chosen.objective, card.alphas, bias, bias_model.cross_fitted(conditions), found.source)
    if not bias.is_clear:
        print("The labels do not contradict the card, so no new card was written.")
        return 0
    corrected = card.corrected(_of_card(bias, chosen.objective, conditions))
    write_card(output, corrected, model.classifier.embeddings())
    print(f"Written: {output}. No worker uses it yet.")
    del model
    of_objective = "" if settings.search.objective == "auto" else f" --search.objective {chosen.objective}"
    stopped = False if asked.without_replay else _propose(asked, found.rows)
    print(
        f"To serve with it:\n  adawise pair stage {shlex.quote(root)} --model.card "
        f"{shlex.quote(str(output))}{of_objective}\n  adawise pair list {shlex.quote(root)}\n  adawise pair switch "
        f"{shlex.quote(root)}"
    )
    return INTERRUPTED if stopped else 0


def _card_of(settings: Settings, output: Path) -> Card:
    named = settings.model.card
    if named is None:
        raise SettingsError(
            "model.card: expected the card that the workers use, which labels correct. Name it, or make one: "
            "adawise card --labelled FOLDER -o FILE"
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
        raise SettingsError(f"--from-labels {root}: there is no output of a worker; name the folder of sink.root")
    footer = footer_of(store, keys[-1][1])
    ours, theirs = log.identity(log.topic), (footer.topic, footer.topic_id)
    if footer.topic != log.topic or (footer.topic_id and ours.topic_id and footer.topic_id != ours.topic_id):
        raise SettingsError(
            f"--recording {recording}: it is of topic {log.topic!r} (id {ours.topic_id or 'unknown'}), but {root} "
            f"is of topic {theirs[0]!r} (id {theirs[1] or 'unknown'}). Name the recording of the messages that "
            "these workers read"
        )


def _labelled(asked: Correction) -> LabelledRows:
    """Return the labelled rows of the root. Print how many belong to conditions with too few labels.

    Raises:
        SettingsError: there are too few labels.
    """
    assert asked.settings.model.classes is not None  # the command line has checked it
    classes = read_lines(asked.settings.model.classes, "model.classes", "class name")
    found = labelled_rows(asked.root, classes, file=asked.labels, within_us=round(asked.label_within * 1e6))
    for note in found.notes:
        print(note)
    enough = _enough(found.rows, asked.root, "have a label")
    if few := len(found.rows) - sum(map(len, enough.values())):
        print(f"{few} labels are of conditions with labels in fewer than {LEAST_BATCHES} batches, and were left out")
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
            f"--from-labels {root}: expected at least {LEAST_LABELS} labelled images, under at least "
            f"{LEAST_CONDITIONS} conditions with labels in {LEAST_BATCHES} batches each; {len(rows)} {what}, and "
            f"of {len(batches)} conditions {len(found)} have labels in that many batches "
            f"({'; '.join(largest) or 'none'}). With fewer, a correction does more harm than good: {remedy}"
        )
    return found


def _evaluated(
    asked: Correction, model: ModelPair, card: Card, objective: str, found: LabelledRows
) -> list[LabelledCondition]:
    """Return, by condition, the objective and the errors at every alpha of the recorded images that can be read."""
    root, recording, names = asked.root, asked.recording, model.classes
    truths = {row.row_id: row.truth for row in found.rows}
    samples = recorded_rows(recording, truths, names, lambda made: open_decoder(asked.settings.decode, made))
    if samples.left_out:
        reasons = dict(Counter(samples.left_out.values()).most_common(_SHOWN))
        _log.warning("images_left_out", images=samples.where, left_out=len(samples.left_out), of_them=reasons)
    by_name = {str(row.row_id): row for row in found.rows}
    readable = f"of them can be read in {recording}"
    usable = [by_name[samples.names[i]] for i in samples.usable]
    numbers = {name: i for i, name in enumerate(samples.names)}
    wanted = {name: _spread(rows, asked.images) for name, rows in _enough(usable, root, readable).items()}
    if asked.images is not None:
        bounded = f"are left by --images {asked.images}"
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


def _propose(asked: Correction, rows: Sequence[LabelledRow]) -> bool:
    """Replay the recording with the old card and with the new one, and print how they differ.

    Returns:
        True if it was stopped before both replays ended.
    """
    from adawise.labels.compare.compare import compare

    settings, recording = asked.settings, asked.recording
    with tempfile.TemporaryDirectory(prefix="adawise-card-") as folder:
        labels = Path(folder) / "labels.csv"
        lines = [f"{row.row_id},{_quoted(row.truth)}" for row in rows]
        labels.write_text("\n".join(["row_id,label", *lines, ""]), encoding="utf-8")
        roots = [str(Path(folder) / name) for name in ("before", "after")]
        for root, card in zip(roots, (settings.model.card, asked.output), strict=True):
            served = settings.model_copy(update={"model": settings.model.model_copy(update={"card": card})})
            command = ReplayCommand(settings=served, recording=recording, output=root, skip_forgotten=True)
            with redirect_stdout(io.StringIO()):  # the replays' summaries are not for the user
                code = replay(command)
            if code:
                print("Stopped before both replays were done: the effect of the card is not known.")
                return True
        difference = compare(*roots, labels=str(labels))
        show_replays(difference, (_mean_alpha(roots[0]), _mean_alpha(roots[1])))
    return False


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _mean_alpha(root: str) -> float:
    """Return the mean alpha over all images that an output served."""
    table = read_traces(root, columns=["alpha", "images"]).table()
    alphas, images = (table[name].to_numpy() for name in ("alpha", "images"))
    return float(alphas @ images / images.sum())
