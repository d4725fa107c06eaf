"""Checks of the class names and prompts, and of the pair of models with its card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

from adawise.doctor.known import Known
from adawise.doctor.result import CheckResult, ok, warn, warn_if_any
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
    from adawise.app.alerts import alert_rules
    from adawise.app.model import CARD_LEFT_OUT, adaptation, card_left_out, card_note, identity_of, load_model
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
        if beside := card_left_out(settings.model):
            yield f"{CARD_LEFT_OUT} = {json.dumps(str(beside))}"
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
