"""Settings and the orders of a root -> the pair that a worker begins with, and how it changes to another one."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import structlog
import torch
from pydantic import ValidationError

from adawise.app.machine import available_memory_bytes, resident_bytes
from adawise.app.model import (
    CARD_LEFT_OUT,
    ModelPair,
    adaptation,
    card_left_out,
    identity_of,
    load_model,
    method_in_words,
    open_device,
    open_pair,
    served_by,
    use_cores,
    warn_of_scene,
)
from adawise.app.parts import alert_rules
from adawise.app.prompts import prompt_templates, read_lines
from adawise.decode.preprocess import Preprocess
from adawise.errors import AdawiseError, DeviceError, OrderTaken, PairTooLarge, SettingsError, StoreFull
from adawise.pairs.live import LivePairs, LoadedPair
from adawise.pairs.orders import REPORT_S, Orders, PairDocument, check_described, give_order, key_of, read_orders
from adawise.pairs.planned import PlannedPairs, Ranges, check_at_hand, needed, read_plan, served_config, within
from adawise.pairs.reports import PairsReport
from adawise.records import PairKey
from adawise.settings import ModelSettings, Settings
from adawise.settings.tree import PREPROCESSING
from adawise.sink import claims, layout
from adawise.sink.served_by import claimed_configs, config_in_words
from adawise.store.store import Store, open_store
from adawise.worker.pairs import Serving

_LOCAL = "local-dir:"
_WITH_THE_PAIR = {"search": {"forget_after_s"}, "predict": set[str]()}  # groups, with the names that are left out
_TIMES = 5  # memory of a pair, in float32 sizes of a checkpoint: two models, both towers flat, two merged copies
_TIMES_ON_A_CARD = 3

_log = structlog.get_logger("pairs")


def me() -> str:
    """Return the name of this process in orders and reports."""
    return f"{socket.gethostname()}:{os.getpid()}"


def document_of(settings: Settings, model: ModelPair, templates: tuple[str, ...]) -> PairDocument:
    """Return the document of the pair that the settings name, with which any worker can load it."""
    named = settings.model
    assert named.theta_0 is not None  # the command line has checked these
    assert named.theta_1 is not None
    kept = {
        group: getattr(settings, group).model_dump(mode="json", exclude=without)
        for group, without in _WITH_THE_PAIR.items()
    }
    if prepared := _prepared(named):  # an earlier version does not know this group
        kept["model"] = prepared
    identity = identity_of(model)
    config = identity.pop("config")
    return PairDocument(
        identity=identity,
        architecture=_place(named.architecture),
        theta_0=_place(named.theta_0),
        theta_1=_place(named.theta_1),
        head=named.head,
        classes=model.classes,
        templates=templates,
        card=None if named.card is None else str(named.card.resolve()),
        settings=kept,
        method=method_in_words(settings.search, model),
        config=config,
        used_config=model.checkpoints.used_config,
        tail_share=model.checkpoints.tail_share,
    )


def checked_document(settings: Settings) -> PairDocument:
    """Load the pair of the settings, check it as a start does, and return its document. Raises the errors of both."""
    model = load_model(settings.model, settings.decode)
    adaptation(settings, model)
    alert_rules(settings.alerts, model.classes)
    warn_of_scene(settings, model)
    return document_of(settings, model, prompt_templates(settings.model))


def _prepared(model: ModelSettings) -> dict[str, Any]:
    return model.model_dump(mode="json", include=set(PREPROCESSING), exclude_none=True)


def _place(name: str) -> str:
    """Return an absolute path for a path, so that it holds in every working folder; a tag is returned unchanged."""
    prefix = _LOCAL if name.startswith(_LOCAL) else ""
    path = Path(name.removeprefix(prefix))
    return f"{prefix}{path.resolve()}" if path.exists() else name


def settings_with(settings: Settings, document: PairDocument) -> Settings:
    """Return this worker's settings for the pair of a document. Raises SettingsError if it has unknown settings."""
    model = settings.model.model_copy(
        update={
            "architecture": document.architecture,
            "theta_0": document.theta_0,
            "theta_1": document.theta_1,
            "head": document.head,
            "card": None if document.card is None else Path(document.card),
        }
    )
    if "model" in document.settings:
        model = model.model_copy(update=dict.fromkeys(PREPROCESSING))
    changed: dict[str, Any] = {"model": model}
    for group, values in document.settings.items():
        ours = model if group == "model" and set(values) <= set(PREPROCESSING) else getattr(settings, group, None)
        if ours is not model and (ours is None or group not in _WITH_THE_PAIR):
            raise _unknown(group)
        try:
            changed[group] = type(ours).model_validate({**ours.model_dump(), **values})
        except ValidationError as error:
            raise _unknown(f"{group}.{error.errors()[0]['loc'][0]}") from error
    return settings.model_copy(update=changed)


def _unknown(name: str) -> SettingsError:
    return SettingsError(
        f"a document in {layout.PAIRS} sets {name} to a value that this version does not know: a later version "
        "wrote it; upgrade this worker"
    )


def names_pair(settings: Settings, document: PairDocument) -> bool:
    """Return True if the settings name the paths of the pair of a document; files may have been replaced since."""
    model = settings.model
    if model.theta_0 is None or model.theta_1 is None or model.classes is None:
        return False
    card = None if model.card is None else str(model.card.resolve())
    ours = _place(model.architecture), _place(model.theta_0), _place(model.theta_1), model.head, card
    theirs = document.architecture, document.theta_0, document.theta_1, document.head, document.card
    classes = read_lines(model.classes, "model.classes", "class name"), prompt_templates(model)
    same = ours == theirs and _prepared(model) == document.settings.get("model", {})
    return same and classes == (document.classes, document.templates)


@dataclass(frozen=True)
class Start:
    """The pair with which a worker begins, with its settings, and why the pair that is ordered could not be loaded."""

    settings: Settings
    model: ModelPair
    document: PairDocument
    failed: Mapping[int, str]  # reason by number


def starting_pair(settings: Settings, orders: Orders) -> Start:
    """Return the pair that the worker begins with.

    It is the ordered pair if the settings name one that came before it; else the pair of the settings. It is the pair
    of the settings, too, if `model.on_change` is set and no command has asked for another. Raises the errors of
    loading.
    """
    use_cores(settings.model.threads)
    if orders.log:
        target = orders.serving
        known = any(names_pair(settings, document) for document in orders.pairs.values())
        if known and not names_pair(settings, target) and not _may_bring(settings, orders):
            try:
                own = settings_with(settings, target)
                model = open_pair(own.model, own.decode, target.classes, target.templates, offline=True)
                _expect(target, model)
            except AdawiseError as error:
                _log.error("pair_failed", pair=orders.serves, id=target.id, error=str(error))
                return _of_settings(settings, {orders.serves: str(error)})
            _log.info(
                "pair_taken",
                pair=orders.serves,
                id=target.id,
                note="it has served this root since a switch, but the settings name an earlier pair: update "
                "them when convenient",
            )
            config, used = model.checkpoints.config, model.checkpoints.used_config
            return Start(own, model, replace(target, config=config, used_config=used), {})
    return _of_settings(settings, {})


def _may_bring(settings: Settings, orders: Orders) -> bool:
    return settings.model.on_change != "refuse" and orders.is_of_a_start


def _of_settings(settings: Settings, failed: Mapping[int, str]) -> Start:
    assert settings.model.classes is not None  # the command line has checked it
    classes = read_lines(settings.model.classes, "model.classes", "class name")
    templates = prompt_templates(settings.model)
    model = open_pair(settings.model, settings.decode, classes, templates)
    if (card := card_left_out(settings, model)) is not None:
        _log.warning("card_left_out", card=str(card), note=CARD_LEFT_OUT)
    return Start(settings, model, document_of(settings, model, templates), failed)


def _expect(document: PairDocument, model: ModelPair) -> None:
    found, expected = key_of(identity_of(model)), document.key
    if found.matches(expected):
        return
    if found.id != expected.id:
        raise SettingsError(
            f"{document.theta_1} and its other files are not those that were staged: by their contents they are "
            f"pair {found.id}, expected {expected.id}. Restore the files, or stage these"
        )
    ours, theirs = model.checkpoints.used_config, document.used_config
    raise SettingsError(
        f"{document.theta_1} has the staged weights but another config: by its hash it is "
        f"{config_in_words(found.config, ours, theirs)}, expected "
        f"{config_in_words(expected.config, theirs, ours)}. Restore open_clip_config.json and model.mean, std and "
        "quick_gelu"
    )


def _brings_another(store: Store, start: Start, orders: Orders) -> bool:
    """Return True if a worker that begins so asks all workers of the root to serve its pair in place of another."""
    pair, serving = start.document.key, orders.serving
    if start.failed:
        return False
    if pair.matches(serving.key):  # if the order does not name its config, others may serve with another one
        return not serving.config and not claimed_configs(store, serving.identity) <= {pair.config}
    return orders.number_of(pair) is None or _may_bring(start.settings, orders)


def check_start(store: Store, start: Start, orders: Orders) -> None:
    """Raise SettingsError if a worker would bring a pair that others of the root could not load by its document.

    Call it before the root takes the pair (`served_by.claim_pair`). Raises ChainError and StoreUnavailable, too.
    """
    if orders.log and _brings_another(store, start, orders):
        check_described(store, start.document)


def begin_orders(store: Store, start: Start) -> Orders:
    """Return the orders of a root, which may get one now: the first, or one for another pair that this worker brings.

    A pair whose config differs from the one in its document counts as another. In a root without orders, a pair that
    cannot be described is served without one. Call it once the root has taken the pair. Raises as `check_start`.
    """
    orders = read_orders(store)
    if orders.log and not _brings_another(store, start, orders):
        return orders
    keeps = start.settings.model.on_change == "keep"
    try:
        return give_order(store, orders, "begin", pair=start.document, by=me(), keeps=keeps)
    except OrderTaken:
        return begin_orders(store, start)
    except SettingsError as error:
        if orders.log:  # other workers would go on with another pair
            raise
        _log.error("pair_not_described", id=start.document.id, error=str(error))
        return orders


def live_pairs(
    settings: Settings,
    start: Start,
    store: Store,
    orders: Orders,
    name: str,
    illness: Callable[[], Mapping[str, Any]] = dict,
) -> LivePairs:
    """Return the pairs that follow the orders of the root.

    `name` is this start of a worker; `illness` returns the other troubles that it reports.
    """
    again_s = max(REPORT_S, settings.pairs.look_s)  # readers of reports conclude from it when a worker is gone

    def report(current: PairsReport, trouble: Mapping[str, Any]) -> None:
        pairs = current.model_dump(by_alias=True)
        document = {"layout": claims.LAYOUT, "worker": me(), "again_s": again_s, **pairs, **trouble}
        text = json.dumps(document, ensure_ascii=False)  # an error may name a path that is not UTF-8
        with suppress(StoreFull):  # the log reports it, and a reader sees what space there is
            store.put(layout.worker_key(name), text.encode(errors="replace"))

    return LivePairs(
        serving_of(settings, start.model),
        orders,
        keeps=settings.model.on_change == "keep",
        read_orders=lambda known: read_orders(store, known),
        load=partial(load_beside, settings, preprocess=start.model.checkpoints.preprocess),
        report=report,
        leave=partial(store.delete, layout.worker_key(name)),
        illness=illness,
        failed=start.failed,
        every_s=settings.pairs.look_s,
        keep_s=settings.pairs.keep_s,
        shadow_share=settings.pairs.shadow_share,
    )


def serving_of(settings: Settings, model: ModelPair) -> Serving:
    """Return the pair as the loop uses it. Raises SettingsError as `adaptation` does."""
    method, by = adaptation(settings, model), served_by(settings, model, key_of(identity_of(model)).id)
    return Serving(method, by, partial(model.classifier.prepare, method.strategy.reach))


def planned_pairs(
    settings: Settings, model: ModelPair, root: str, ranges: Ranges, *, ends_streams: bool
) -> tuple[PlannedPairs, str]:
    """Return the pairs that served these parts of a root's chains, beside the settings' pair, and where they served.

    With `ends_streams` the end of a part is the end of its streams. Later switches of the root do not count: it may
    grow while a replay of a part of it is stopped.

    Raises:
        SettingsError: one of them cannot be loaded, or the config with which it served is unknown; the message names
            it, and from which offset it is needed.
        ChainError, StoreUnavailable: by the root.
    """
    store = open_store(root)
    recorded, orders = read_plan(store), read_orders(store)
    if not recorded:
        raise SettingsError(f"--pairs-of {root}: there are no segments of a worker; name the root of sink.root")
    plan = within(recorded, ranges, ends_streams=ends_streams)
    ours = serving_of(settings, model)
    loaded = dict[str, Serving]()
    for pair in needed(plan, ranges):
        described = [document.config for document in orders.pairs.values() if document.id == pair]
        configs = {*described, *([ours.by.config] if ours.pair == pair else [])} - {""}
        config = served_config(store, plan, ranges, pair) if len(configs) > 1 else ""
        number = orders.number_of(PairKey(pair, config))
        if ours.key.matches(PairKey(pair, config)):
            loaded[pair] = ours
        elif number is not None:
            document = orders.pairs[number]
            document = replace(document, config=config or document.config)
            try:
                loaded[pair] = load_beside(settings, document, preprocess=model.checkpoints.preprocess).serving
            except AdawiseError as error:
                _log.warning("pair_failed", pair=number, id=pair, error=str(error))
    check_at_hand(plan, ranges, loaded, root)
    where = {str(tp): [(switch.first, switch.pair) for switch in switches] for tp, switches in sorted(plan.items())}
    return PlannedPairs(plan, loaded, ours, keeps=settings.model.on_change == "keep"), str(where)


def load_beside(settings: Settings, document: PairDocument, *, preprocess: Preprocess) -> LoadedPair:
    """Load the pair of a document beside the running one, ready to serve: checked, warmed up, its heads encoded.

    The rules of a start hold. Raises the errors of loading, and SettingsError: there is no memory for the pair, or its
    pictures are prepared otherwise than the running pair's, which are decoded already.
    """
    own = settings_with(settings, document)
    bank_mib = _room(own, document)
    before = resident_bytes()
    own = own.model_copy(update={"model": own.model.model_copy(update={"bank_mib": bank_mib})})
    model = open_pair(own.model, own.decode, document.classes, document.templates, offline=True)
    if model.checkpoints.preprocess != preprocess:
        raise SettingsError(
            f"it preprocesses images as {model.checkpoints.preprocess.id}, the serving pair as {preprocess.id}, "
            "and the worker holds images prepared so: restart the workers with the new pair and --model.on-change "
            "reset or keep"
        )
    _expect(document, model)
    alert_rules(own.alerts, document.classes)
    serving = serving_of(own, model)
    warn_of_scene(own, model)
    model.classifier.warm_up(serving.adaptation.strategy.reach[0])
    while serving.prepare():
        pass
    return LoadedPair(serving, memory_bytes=max(0, resident_bytes() - before))


def _room(settings: Settings, document: PairDocument) -> int:
    """Return the MiB for merged copies of a pair that is loaded beside another one. Raises PairTooLarge."""
    one = max(map(checkpoint_bytes, (document.theta_0, document.theta_1)))
    available, needed = available_memory_bytes(), _TIMES * one
    if available is not None and available < needed:
        raise PairTooLarge(
            f"the pair takes {needed / 2**20:.0f} MiB beside the serving one, but {available / 2**20:.0f} MiB of "
            "memory are available: give the worker more, or restart it with the new pair"
        )
    opened = open_device(settings.model)
    device = opened.where
    if device.type == "cuda":
        try:
            opened.free()  # memory that torch keeps of a freed pair does not count as free
            free, _ = torch.cuda.mem_get_info(device)
        except RuntimeError as error:
            raise DeviceError(f"{device} does not report its memory: {error}") from error
        if free < _TIMES_ON_A_CARD * one:
            raise PairTooLarge(
                f"the pair takes {_TIMES_ON_A_CARD * one / 2**20:.0f} MiB of {device} beside the serving one, but "
                f"{free / 2**20:.0f} MiB are free: lower model.bank_mib, or restart with the new pair"
            )
        available, needed = free, _TIMES_ON_A_CARD * one
    left_mib = settings.model.bank_mib if available is None else (available - needed) // 2 // 2**20
    return min(settings.model.bank_mib, left_mib)


def checkpoint_bytes(name: str) -> int:
    """Return the float32 bytes of a checkpoint's weights, by its file; 0 for a tag, whose size is not known yet."""
    path = Path(name.removeprefix(_LOCAL))
    try:
        if path.is_dir():
            return max((_weights_bytes(file) for file in path.iterdir() if file.suffix in _WEIGHTS), default=0)
        return _weights_bytes(path) if path.is_file() else 0
    except OSError:  # loading it reports the error
        return 0


_WEIGHTS = {".safetensors", ".pt", ".pth", ".bin"}


def _weights_bytes(path: Path) -> int:
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, size)))
            return sum(4 * prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):  # damaged: loading it reports the error
            return size
