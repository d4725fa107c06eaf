"""In which number format a worker runs the model: the setting's, the root's, or that of the rule for its processor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from weakref import ReferenceType, ref

import pytest
import torch
from structlog.testing import capture_logs

from adawise.app import precision as module
from adawise.app import worker as build
from adawise.app.http import WorkerPort
from adawise.app.pairs import starting_pair
from adawise.app.precision import (
    RootPrecision,
    choose_precision,
    claim_root_precision,
    precision_of_parts,
    precision_of_root,
)
from adawise.app.worker import start_worker
from adawise.clip import device as clip_device
from adawise.clip.classifier import PairClassifier
from adawise.errors import PrecisionTaken, SettingsError
from adawise.records import TopicPartition
from adawise.settings import ModelSettings, Settings
from adawise.sink import layout
from adawise.sink.chain import SegmentChain
from adawise.store.store import Store, open_store
from adawise.worker.events import Observers
from tests.fakes import FakeSource
from tests.models import PairFolder
from tests.sink.building import DictStore

FIXTURES = Path(__file__).parents[1] / "fixtures"
BF16, FP32 = torch.bfloat16, torch.float32

Processor = Literal["amd", "intel", "old"]


def runs_on(monkeypatch: pytest.MonkeyPatch, processor: Processor) -> None:
    """Let torch and the system report another processor."""
    monkeypatch.setattr(clip_device, "vendor", lambda: {"amd": "AuthenticAMD"}.get(processor, "GenuineIntel"))
    has = {"avx512_bf16": processor != "old", "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)


def begun(precision: Any = None, damage: str = "") -> RootPrecision:
    return RootPrecision("root", precision, is_begun=True, damage=damage)


NEW = RootPrecision("root")


@pytest.mark.parametrize(
    ("processor", "setting", "kept", "chosen", "event"),
    [
        ("amd", "auto", NEW, "bf16", ""),
        ("intel", "auto", NEW, "fp32", ""),
        ("old", "auto", NEW, "fp32", ""),
        ("intel", "auto", begun("bf16"), "bf16", "precision_followed"),
        ("amd", "auto", begun("fp32"), "fp32", "precision_followed"),
        ("amd", "auto", begun("bf16"), "bf16", ""),
        ("amd", "auto", begun("tf32"), "fp32", "precision_followed"),
        ("old", "auto", begun("tf32"), "fp32", ""),
        ("old", "auto", begun("fp16"), "fp32", "precision_not_followed"),
        ("intel", "auto", begun(), "bf16", "precision_followed"),  # as the earlier version chose
        ("old", "auto", begun(), "fp32", ""),
        ("amd", "fp32", begun("bf16"), "fp32", "precision_set"),
        ("intel", "bf16", begun("bf16"), "bf16", ""),
        ("intel", "bf16", begun(), "bf16", ""),
        ("amd", "fp32", NEW, "fp32", ""),
    ],
)
def test_auto_follows_the_root_and_a_setting_wins(
    monkeypatch: pytest.MonkeyPatch, processor: Processor, setting: Any, kept: RootPrecision, chosen: str, event: str
) -> None:
    runs_on(monkeypatch, processor)
    choice = choose_precision(ModelSettings(device="cpu", precision=setting), kept)
    assert (choice.chosen, choice.event) == (chosen, event)
    assert choice.model.precision in {chosen, "auto"}
    assert choice.rule == ("bf16" if processor == "amd" else "fp32")
    with capture_logs() as lines:
        choice.log(kept.root)
    assert [(line["event"], line["precision"]) for line in lines] == ([(event, chosen)] if event else [])


def test_a_format_that_a_processor_only_emulates_is_followed_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    runs_on(monkeypatch, "old")
    choice = choose_precision(ModelSettings(device="cpu"), begun("bf16"))
    assert (choice.chosen, choice.is_warning) == ("bf16", True)
    assert "root is served in bf16, which cpu emulates: correct, and slow; a new root would get fp32" in choice.note


def test_a_card_follows_a_root_that_processors_began_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(where=torch.device("cuda:0"), auto_format=BF16, has_bfloat16=True)
    monkeypatch.setattr(module, "open_device", lambda _: card)
    choice = choose_precision(ModelSettings(), begun("fp32"))
    assert (choice.chosen, choice.rule, choice.is_warning) == ("fp32", "bf16", True)
    assert choose_precision(ModelSettings(), begun("tf32")).chosen == "tf32"
    assert choose_precision(ModelSettings(), begun("fp16")).event == "precision_followed"
    assert "adawise doctor" not in choice.note, "it measures on processors alone"
    assert choose_precision(ModelSettings(), NEW).chosen == "bf16"


def test_a_root_of_an_earlier_version_keeps_its_format_and_gets_the_claim(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = shutil.copytree(FIXTURES / "version_0_2_1" / "root", tmp_path / "root")
    runs_on(monkeypatch, "amd")
    assert precision_of_root(open_store(str(root))) == RootPrecision(str(root), "fp32", is_begun=True)
    (settings,) = (root / "_settings").iterdir()
    settings.write_text(settings.read_text().replace('"float32"', '"bfloat16"'))
    runs_on(monkeypatch, "intel")
    kept = precision_of_root(store := open_store(str(root)))
    choice = choose_precision(ModelSettings(device="cpu"), kept)
    assert (kept.precision, choice.chosen, choice.rule) == ("bf16", "bf16", "fp32")
    for setting in ("auto", "fp32"):  # a setting changes what this worker does, and not what others follow
        other = choose_precision(ModelSettings.model_validate({"device": "cpu", "precision": setting}), kept)
        claim_root_precision(store, kept, other, is_auto=setting == "auto")
        assert json.loads((root / layout.NUMERICS).read_text())["precision"] == "bf16"
    assert precision_of_root(store).precision == "bf16"


@pytest.mark.parametrize("root", ["version_0_2_0/root", "root_0_1_0/root"])
def test_a_root_that_names_no_format_is_served_as_the_earlier_version_would(
    monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    runs_on(monkeypatch, "intel")
    kept = precision_of_root(open_store(str(FIXTURES / root)))
    assert (kept.precision, kept.is_begun) == (None, True)
    assert choose_precision(ModelSettings(device="cpu"), kept).chosen == "bf16"


def test_a_damaged_claim_is_named_and_the_newest_segments_decide(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = shutil.copytree(FIXTURES / "version_0_2_1" / "root", tmp_path / "root")
    (root / layout.NUMERICS).write_text("{")
    runs_on(monkeypatch, "amd")
    kept = precision_of_root(store := open_store(str(root)))
    choice = choose_precision(ModelSettings(device="cpu"), kept)
    assert (kept.precision, choice.chosen) == ("fp32", "fp32")
    with capture_logs() as lines:
        module.log_damage(kept)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("precision_not_read", "warning")
    assert "_numerics.json: expected a claim" in line["error"]
    claim_root_precision(store, kept, choice, is_auto=True)
    assert (root / layout.NUMERICS).read_text() == "{"
    (root / layout.NUMERICS).unlink()
    (root / layout.NUMERICS).mkdir()
    kept = precision_of_root(store)
    assert (kept.precision, kept.is_begun) == ("fp32", True)
    assert "_numerics.json: expected a" in kept.damage
    claim_root_precision(store, kept, choice, is_auto=True)
    shutil.rmtree(root / "_settings")
    footer = precision_of_parts("root", store, {TopicPartition("frames", 0): (0, 9)})
    assert footer == RootPrecision("root", None, is_begun=True)


def test_of_two_first_workers_the_slower_one_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    store, made = DictStore(), []
    for processor in ("amd", "intel"):
        runs_on(monkeypatch, processor)
        kept = precision_of_root(DictStore())  # both found nothing
        made.append((kept, choose_precision(ModelSettings(device="cpu"), kept)))
    claim_root_precision(store, *made[0], is_auto=True)
    with pytest.raises(PrecisionTaken, match=r"expected to begin it in fp32, but another worker has begun it in bf16"):
        claim_root_precision(store, *made[1], is_auto=True)
    assert precision_of_root(store).precision == "bf16"


def test_a_worker_that_is_set_to_another_format_than_the_root_got_meanwhile_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs_on(monkeypatch, "intel")
    store = DictStore()
    store.objects[layout.NUMERICS] = b'{"precision": "bf16"}'
    with capture_logs() as lines:
        for setting in ("fp32", "bf16"):
            choice = choose_precision(ModelSettings.model_validate({"device": "cpu", "precision": setting}), NEW)
            claim_root_precision(store, NEW, choice, is_auto=False)
    assert [(line["event"], line["precision"]) for line in lines] == [("precision_set", "fp32")]


def test_a_setting_is_recorded_in_a_new_root_alone_and_never_decides_for_a_root_of_an_unknown_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs_on(monkeypatch, "intel")
    choice = choose_precision(ModelSettings.model_validate({"device": "cpu", "precision": "bf16"}), NEW)
    store = DictStore()
    claim_root_precision(store, NEW, choice, is_auto=False)
    assert precision_of_root(store).precision == "bf16"
    old = RootPrecision("root", None, is_begun=True)
    monkeypatch.setattr(module, "precision_of_root", lambda _: old)
    store = DictStore()
    claim_root_precision(store, old, choice, is_auto=False)
    assert layout.NUMERICS not in store.objects
    claim_root_precision(store, old, choice, is_auto=True)
    assert layout.NUMERICS in store.objects


@pytest.mark.parametrize(
    ("fixture", "processor", "expected", "claimed"),
    [("version_0_2_0", "intel", BF16, "bf16"), ("version_0_2_1", "amd", FP32, "fp32")],
)
def test_a_root_that_comes_while_the_pair_is_loaded_keeps_its_format(
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    fixture: str,
    processor: Processor,
    expected: torch.dtype,
    claimed: str,
) -> None:
    runs_on(monkeypatch, processor)
    real, root = starting_pair, Path(settings.sink.root)

    def mounted(*args: Any) -> Any:
        if not root.exists():
            shutil.copytree(FIXTURES / fixture / "root", root, ignore=shutil.ignore_patterns("_models", "_sink*"))
        return real(*args)

    monkeypatch.setattr(build, "starting_pair", mounted)
    monkeypatch.setattr(SegmentChain, "check", lambda _: None)  # the root is of another topic
    assert started(monkeypatch, settings) == (expected, ["precision_taken", "precision_followed"])
    assert precision_of_root(open_store(settings.sink.root)).precision == claimed


class GroupSource(FakeSource):
    """With what `start_worker` asks of a group."""

    is_member, partitions = False, 1

    def committed_for_root(self) -> Mapping[TopicPartition, tuple[int, str]]:
        return {}


def started(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> tuple[torch.dtype, list[str]]:
    """Start a worker; return the number format of its pair, and what it logged of that."""
    source = GroupSource()
    source.committed = source.committed_for_root  # type: ignore[assignment]  # the group's, and not the fake's own
    monkeypatch.setattr(build, "kafka_source", lambda *_, **__: source)
    with capture_logs() as lines:
        _, model = start_worker(settings, WorkerPort(Observers()), Observers(), lambda: False)
    return model.classifier.dtype, [e for line in lines if (e := line["event"]).startswith("precision_")]


@pytest.fixture
def settings(pair_folder: PairFolder, tmp_path: Path) -> Settings:
    model = {"theta_0": pair_folder.theta_0, "theta_1": pair_folder.theta_1, "classes": pair_folder.classes}
    model |= {"architecture": pair_folder.theta_0, "device": "cpu", "threads": 1, "cache_mib": 0}
    kafka = {"topic": "frames", "group": "g", "dead_letters": False}
    return Settings.model_validate({"model": model, "kafka": kafka, "sink": {"root": str(tmp_path / "root")}})


def test_workers_of_a_mixed_fleet_serve_in_the_format_of_the_first(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    runs_on(monkeypatch, "amd")
    assert started(monkeypatch, settings) == (BF16, [])
    runs_on(monkeypatch, "intel")
    assert started(monkeypatch, settings) == (BF16, ["precision_followed"])
    explicit = settings.model_copy(update={"model": settings.model.model_copy(update={"precision": "fp32"})})
    assert started(monkeypatch, explicit) == (FP32, ["precision_set"])
    assert precision_of_root(open_store(settings.sink.root)).precision == "bf16"


def test_a_worker_that_lost_the_race_of_the_first_start_loads_its_pair_again(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    runs_on(monkeypatch, "intel")
    real = precision_of_root

    def outrun(store: Store) -> RootPrecision:
        found = real(store)
        if store.get(layout.NUMERICS) is None:
            store.create(layout.NUMERICS, b'{"precision": "bf16"}')
        return found

    load, loaded, alive = starting_pair, list[ReferenceType[PairClassifier]](), list[int]()

    def counted(*args: Any) -> Any:
        alive.append(sum(pair() is not None for pair in loaded))
        start = load(*args)
        loaded.append(ref(start.model.classifier))
        return start

    monkeypatch.setattr(build, "precision_of_root", outrun)
    monkeypatch.setattr(build, "starting_pair", counted)
    assert started(monkeypatch, settings) == (BF16, ["precision_taken", "precision_followed"])
    assert alive == [0, 0], "the memory of the first pair is free before the second one is loaded"


def test_a_worker_that_cannot_serve_in_its_format_leaves_the_choice_to_others(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    def fail(*_: object) -> None:
        raise SettingsError("alpha 0 gives logits that are not finite")

    with monkeypatch.context() as patched:
        patched.setattr(PairClassifier, "warm_up", fail)
        with pytest.raises(SettingsError, match="not finite"):
            started(patched, settings)
    store = open_store(settings.sink.root)
    assert (store.get(layout.OWNER) is not None, store.get(layout.NUMERICS)) == (True, None)
    runs_on(monkeypatch, "amd")
    assert started(monkeypatch, settings) == (BF16, [])


def test_a_worker_starts_although_the_claim_is_damaged(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    runs_on(monkeypatch, "intel")
    open_store(settings.sink.root).create(layout.NUMERICS, b"\xff")
    assert started(monkeypatch, settings) == (FP32, ["precision_not_read"])
