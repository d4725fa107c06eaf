"""The number format of a worker, a replay or the doctor, where the setting is `auto`: what the root was served in.

A rule by the device (`clip.device.Device.auto_format`) decides for a new root alone. So neither a later version with
another rule, nor a worker on another processor, changes the numerics of a root in service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
import torch

from adawise.app.model import number_format, open_device
from adawise.clip.device import Device
from adawise.errors import ChainError, PrecisionTaken, SettingsError
from adawise.records import TopicPartition
from adawise.settings import ModelSettings
from adawise.sink.segment import SegmentFooter
from adawise.sink.served_by import (
    Precision,
    claim_precision,
    footers_within,
    newest_footers,
    read_precision,
    served_precision,
)
from adawise.store.store import Store

_NAMES: dict[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_log = structlog.get_logger("model")


@dataclass(frozen=True, slots=True)
class RootPrecision:
    """The number format that a root keeps.

    Attributes:
        root: the root, for messages.
        precision: the format by its claim, or else by its newest segments; None if neither names it.
        is_begun: there are segments, so that the format must not change.
        damage: why the claim cannot be read; "" if it can, or if there is none.
    """

    root: str
    precision: Precision | None = None
    is_begun: bool = False
    damage: str = ""


def precision_of_root(store: Store) -> RootPrecision:
    """Return the number format that the workers of a root follow. Raises StoreUnavailable.

    A claim that is damaged or cannot be opened is no reason to stop: the newest segments say the same.
    """
    damage = ""
    try:
        if (claimed := read_precision(store)) is not None:
            return RootPrecision(str(store), claimed, is_begun=True)
    except (ChainError, SettingsError) as error:
        damage = str(error)
    footers = newest_footers(store)
    return RootPrecision(str(store), served_precision(store, footers), bool(footers), damage)


def precision_of_segments(root: str, store: Store, footers: Sequence[SegmentFooter]) -> RootPrecision:
    """Return the number format in which these segments of a root were served. Raises StoreUnavailable."""
    return RootPrecision(root, served_precision(store, footers), bool(footers))


def precision_of_parts(root: str, store: Store, parts: Mapping[TopicPartition, tuple[int, int]]) -> RootPrecision:
    """Return the number format in which these parts [from, until) of partitions were served, at their ends.

    Only if their segments do not name it, the root's claim decides, which a setting may have overruled. Raises
    StoreUnavailable.
    """
    found = precision_of_segments(root, store, footers_within(store, parts))
    if found.precision is not None or not found.is_begun:
        return found
    try:
        return replace(found, precision=read_precision(store))
    except (ChainError, SettingsError):
        return found


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """The number format that is used, and why.

    Attributes:
        chosen: the format.
        rule: the format that `auto` means on this device for a new root.
        model: the settings of the model with the format in place of `auto`.
        event: the name of the line in the log; "" if there is nothing to say.
        note: the explanation; "" likewise.
        is_warning: the line is a warning.
    """

    chosen: Precision
    rule: Precision
    model: ModelSettings
    event: str = ""
    note: str = ""
    is_warning: bool = False

    def log(self, root: str) -> None:
        """Log the line, if there is something to say."""
        chosen, rule, note = self.chosen, self.rule, self.note
        match self.event:
            case "precision_followed" if self.is_warning:
                _log.warning("precision_followed", precision=chosen, rule=rule, root=root, note=note)
            case "precision_followed":
                _log.info("precision_followed", precision=chosen, rule=rule, root=root, note=note)
            case "precision_set":
                _log.info("precision_set", precision=chosen, rule=rule, root=root, note=note)
            case "precision_not_followed":
                _log.warning("precision_not_followed", precision=chosen, rule=rule, root=root, note=note)


def choose_precision(model: ModelSettings, kept: RootPrecision) -> PrecisionChoice:
    """Return the number format for a root that keeps `kept`: the setting's, or with `auto` the root's, or the rule's.

    Raises:
        SettingsError: the device does not have the format that is set.
        DeviceError: it does not answer.
    """
    device = open_device(model)
    rule = _NAMES[device.auto_format]
    root, served = kept.root, kept.precision
    if model.precision != "auto":
        number_format(model, device)
        if served in (None, model.precision):
            return PrecisionChoice(model.precision, rule, model)
        note = f"{root} is served in {served}, and model.precision is set: rows of this process differ by rounding"
        return PrecisionChoice(model.precision, rule, model, "precision_set", note)
    if served is None and kept.is_begun:
        return _with(
            model, device, _earlier(device), f"an earlier version served {root}, and would have chosen it here"
        )
    if served is None:
        return _with(model, device, rule, "")
    if device.where.type == "cpu" and served == "tf32":
        served = "fp32"  # the format of its tensors
    if device.where.type == "cpu" and served == "fp16":
        note = (
            f"{root} is served in fp16, which needs a GPU: on {device} it is {rule}, and rows differ by rounding. For "
            "one format in all workers, set model.precision to bf16 or fp32 for all of them"
        )
        return PrecisionChoice(rule, rule, model, "precision_not_followed", note, is_warning=True)
    slow = ""
    if served == "bf16" and not device.has_bfloat16:
        slow = f", which {device} emulates: correct, and slow"
    elif served == "fp32" and device.where.type == "cuda":
        slow = f", which takes {device} several times as long as {rule}"
    return _with(model, device, served, f"{root} is served in {served}{slow}", is_warning=bool(slow))


def _with(
    model: ModelSettings, device: Device, chosen: Precision, why: str, *, is_warning: bool = False
) -> PrecisionChoice:
    rule = _NAMES[device.auto_format]
    chosen_model = model.model_copy(update={"precision": chosen})
    if chosen == rule:
        return PrecisionChoice(chosen, rule, chosen_model)
    measured = "`adawise doctor` measures both; " if device.where.type == "cpu" else ""
    note = f"{why}; a new root would get {rule} on this machine. {measured}model.precision sets one of them"
    return PrecisionChoice(chosen, rule, chosen_model, "precision_followed", note, is_warning)


def _earlier(device: Device) -> Precision:
    """Return what `auto` meant up to 0.2.1: bf16 wherever there are instructions for it."""
    return "bf16" if device.has_bfloat16 else _NAMES[device.auto_format]


def claim_root_precision(store: Store, kept: RootPrecision, choice: PrecisionChoice, *, is_auto: bool) -> None:
    """Record in a root the number format that its workers follow, unless it is recorded.

    It is the one in which the root was served, or else the one of this worker, by rule or by setting; in a root whose
    format is not known, a setting records nothing. A damaged claim stays as it is.
    The root is read again, because `kept` is of the time before the pair was loaded. Call it after the first forwards:
    a format in which this machine computes numbers that are not finite must not become that of all workers.

    Raises:
        PrecisionTaken: the root has another format since then, which this worker is to follow.
    """
    now = precision_of_root(store)
    if now.damage:
        return
    if not is_auto and now.is_begun and now.precision is None:
        return  # an earlier version served it: a claim by one worker's setting would be final for those with `auto`
    ours = kept.precision or choice.chosen
    if is_auto and now.precision is None and now.is_begun and not kept.is_begun:
        raise PrecisionTaken(f"{store}: expected to begin it in {ours}, but an earlier version has begun it {_AGAIN}")
    claimed = claim_precision(store, now.precision or ours)
    if claimed == ours:
        return
    if is_auto:
        raise PrecisionTaken(
            f"{store}: expected to begin it in {ours}, but another worker has begun it in {claimed} {_AGAIN}"
        )
    choose_precision(choice.model, replace(now, precision=claimed)).log(now.root)


_AGAIN = "meanwhile, or its disk was mounted; the pair is loaded again in that format"


def log_damage(kept: RootPrecision) -> None:
    """Log a warning if the root's claim of its number format cannot be read."""
    if kept.damage:
        served = "its newest segments decide" if kept.is_begun else "the rule for this processor decides"
        _log.warning(
            "precision_not_read",
            error=kept.damage,
            note=f"{served}; restore the document, or remove it, and the next worker that starts writes it again",
        )


def first_known(candidates: Iterable[RootPrecision]) -> RootPrecision:
    """Return the first that names a number format; else the first whose root is begun; else one of no root."""
    found = RootPrecision("")
    for each in candidates:
        if each.precision is not None:
            return each
        found = each if each.is_begun and not found.is_begun else found
    return found
