"""Checks of the class names and prompts, of the pair of models with its card, and of its number format."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING

from adawise.doctor.known import CheckResult, Known, ok, skip, warn, warn_if_any
from adawise.errors import SettingsError, StoreUnavailable
from adawise.text import counted, some

_LONG_CLASS = 60  # characters


def words(known: Known) -> CheckResult:
    """Check the class names and prompts as the text tower will read them."""
    from adawise.app.prompts import prompt_templates, read_lines

    settings = known.settings.model
    assert settings.classes is not None  # the part is skipped where it is not set
    classes = read_lines(settings.classes, "model.classes", "class name")
    templates = prompt_templates(settings)
    if len(classes) < 2:
        raise SettingsError(
            f"model.classes: {settings.classes} has one class, {classes[0]!r}, which every image would get; add "
            "other classes"
        )

    def warnings() -> Iterator[str]:
        where = f"model.classes: {settings.classes}"
        folded: dict[str, list[str]] = {}
        for name in classes:
            folded.setdefault(" ".join(name.casefold().replace("_", " ").split()), []).append(name)
        if same := [names for names in folded.values() if len(names) > 1]:
            yield f"{where}: {' and '.join(map(repr, same[0]))} read the same to the model: keep one of them"
        if coded := [name for name in classes if "_" in name or name.isdecimal()]:
            yield (
                f"{where}: {_quoted(coded)} are not words: the text tower reads them as written in a prompt, such as "
                f"{templates[0].replace('{}', coded[0])!r}. Write what a person would say"
            )
        if long := [name for name in classes if len(name) > _LONG_CLASS]:
            yield f"{where}: {_quoted(long)} are too long for a prompt and are cut off. Shorten them"

    return warn_if_any(
        warnings(), f"{counted(len(classes), 'class', 'classes')}, {counted(len(templates), 'prompt')} each"
    )


def pair(known: Known) -> CheckResult:
    """Check that the checkpoints load and are a pair, the card is theirs, and the root was written with them.

    Also check that the labels of alerts are classes.
    """
    from adawise.app.model import (
        CARD_LEFT_OUT,
        adaptation,
        card_left_out,
        card_note,
        identity_of,
        load_model,
        prior_note,
        shortlist_note,
    )
    from adawise.app.parts import alert_rules
    from adawise.app.precision import RootPrecision, choose_precision, precision_of_root
    from adawise.app.worker import describe, what_becomes_of_streams
    from adawise.pairs.orders import key_of, read_orders
    from adawise.sink.served_by import check_pair
    from adawise.store.store import open_store

    settings = known.settings
    store = open_store(settings.sink.root)
    kept = RootPrecision(str(store))
    with suppress(StoreUnavailable, SettingsError):  # the check of the output folder reports it
        kept = precision_of_root(store)
    precision = choose_precision(settings.model, kept)
    model = load_model(precision.model, settings.decode)
    adaptation(settings, model)
    alert_rules(settings.alerts, model.classes)
    known.model, known.precision = model, precision
    identity = identity_of(model)
    orders = read_orders(store)
    number = orders.number_of(key_of(identity))
    ordered = None if number is None else orders.pairs[number].whole_identity
    config = model.checkpoints.used_config
    changes = check_pair(store, identity, settings.model.on_change, ordered=ordered, used_config=config)
    # An order that asks for this pair accounts for the changes; orders of earlier versions do not name the config.
    if ordered is not None and ("config" in ordered or changes.keys() != {"config"}):
        changes = {}
    facts = describe(settings, model)
    zero, one = model.checkpoints.hashes
    card = f"card {facts['card']}" if model.card else "no card, temperature 1"

    def warnings() -> Iterator[str]:
        if kept.damage:
            yield f"{kept.damage}, or remove it: the next worker that starts writes it again"
        if precision.is_warning:
            yield precision.note
        if model.card and (note := card_note(model.card, model.checkpoints)):
            yield f"model.card {settings.model.card}: {note.text}"
        if beside := card_left_out(settings, model):
            yield f"{CARD_LEFT_OUT} = {json.dumps(str(beside), ensure_ascii=False)}"
        if of_prior := prior_note(settings, model):
            yield f"scene.prior: {of_prior}"
        if of_shortlists := shortlist_note(settings, model):
            yield f"scene.shortlists: {of_shortlists}"
        if ordered and not key_of(identity).matches(orders.serving.key):
            method = orders.serving.method and f", {orders.serving.method}"
            yield (
                f"pair {orders.serves} serves {settings.sink.root} since a switch{method}: workers use it from its "
                "document, not the pair that is set here: update model.* (`adawise pair list`)"
            )
        if changes:
            becomes = what_becomes_of_streams(settings.model.on_change)
            yield f"{', '.join(changes)} differ from those that {settings.sink.root} was written with: {becomes}"

    found = (
        f"{facts['classes']} classes on {facts['device']} in {facts['precision']}, {facts['bank']}, {card}, "
        f"{facts['method']}; {facts['shared_layers']}; weights {zero} and {one}"
    )
    if precision.event == "precision_set":
        found += f"; {precision.note}"
    noted = list(warnings())
    return warn("; ".join([found, *noted])) if noted else ok(found)


def preprocessing(known: Known) -> CheckResult:
    """Say how pictures are prepared, which GELU the pair has, and where both are known from."""
    assert known.model is not None  # this part comes after `pair`
    pair = known.model.checkpoints
    facts = f"{pair.preprocess.size} px; {pair.preparation}"
    return warn(f"{facts}; {pair.preparation.advice}") if pair.preparation.guessed else ok(facts)


def _quoted(names: list[str]) -> str:
    return some([*map(repr, names)])


if TYPE_CHECKING:
    from adawise.clip.load import CheckpointPair

_SECONDS = 2.0
_LEAST_TURNS, _MOST_SECONDS = 3, 10.0  # a large tower takes longer than `_SECONDS`; no turn begins after these
_TOLERATED = 1.10  # the shared cores of two measurements differ by as much


def number_format(known: Known, clock: Callable[[], float] = time.perf_counter) -> CheckResult:
    """Measure fp32 and bf16, and compare the faster one with the format that a worker uses here.

    Args:
        known: the pair, and the format in which it was loaded.
        clock: returns seconds.
    """
    if known.model is None or known.precision is None:
        return skip("needs the pair")
    classifier, choice = known.model.classifier, known.precision
    if classifier.device.where.type != "cpu":
        return ok(f"{choice.chosen}; formats are compared on processors alone")
    rates = images_per_second(known.model.checkpoints, classifier.chunk_rows, clock)
    return verdict(rates, choice.chosen, choice.rule, is_set=known.settings.model.precision != "auto")


def verdict(rates: Mapping[str, float], chosen: str, rule: str, *, is_set: bool) -> CheckResult:
    """Return the result for measured rates.

    Args:
        rates: images a second by number format.
        chosen: the format that a worker uses here.
        rule: the format of `auto` on this processor for a new root.
        is_set: `chosen` is a setting, and not what the root or the rule says.
    """
    fastest, *others = sorted(rates, key=lambda name: -rates[name])
    source = "by model.precision" if is_set else "by the rule" if chosen == rule else "as this root is served"
    found = (
        f"{fastest} is the faster one here: {rates[fastest]:.3g} images/s, "
        f"{', '.join(f'{name} {rates[name]:.3g}' for name in others)}; the rule for this processor chooses {rule}, "
        f"and a worker uses {chosen} {source}"
    )
    if rates[fastest] <= _TOLERATED * rates[chosen]:
        return ok(found)
    return warn(
        f"{found}. Set model.precision to {fastest} for all workers of the group: it changes probabilities by rounding"
    )


def images_per_second(pair: CheckpointPair, chunk_rows: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the images a second of the pair's tower in both formats, measured in turns for about two seconds.

    A forward has `chunk_rows` images, as a worker's. The median counts, because other work may come between. The first
    forwards, which choose kernels, count only if there is no time for others: in bfloat16, a large tower takes a minute
    on a processor that emulates it.
    """
    import torch

    from adawise.clip.classifier import forward_in

    formats = {"fp32": torch.float32, "bf16": torch.bfloat16}
    where, size = torch.device("cpu"), pair.preprocess.size
    chunk = torch.zeros(chunk_rows, 3, size, size, dtype=torch.uint8)
    with torch.inference_mode():
        forwards = {name: forward_in(pair, dtype, where) for name, dtype in formats.items()}

        def turn() -> dict[str, float]:
            times_s = {}
            for name, forward in forwards.items():
                began_s = clock()
                forward(chunk)
                times_s[name] = clock() - began_s
            return times_s

        began_s, turns = clock(), list[dict[str, float]]()
        first = turn()
        while (passed_s := clock() - began_s) < _SECONDS or (len(turns) < _LEAST_TURNS and passed_s < _MOST_SECONDS):
            turns.append(turn())
    seconds = {name: median(times_s[name] for times_s in turns or [first]) for name in formats}
    return {name: len(chunk) / max(seconds[name], 1e-9) for name in formats}
