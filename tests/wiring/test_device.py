"""Which device, number format and forward shape the settings choose."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pipeline.clip.device import Plain
from pipeline.errors import SettingsError
from pipeline.settings import ModelSettings, Settings
from pipeline.wiring import model as module
from pipeline.wiring.finetuning import _training_format
from pipeline.wiring.model import choose_device, number_format, open_device

CPU, CARD = torch.device("cpu"), torch.device("cuda:0")


def card(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    """A machine with one card of that compute capability."""
    properties = SimpleNamespace(major=major, minor=5, multi_processor_count=40, total_memory=15 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize(("major", "chosen"), [(7, torch.float16), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_a_card_without_instructions_for_bfloat16_gets_float16(
    monkeypatch: pytest.MonkeyPatch, major: int, chosen: torch.dtype
) -> None:
    card(monkeypatch, major)
    assert number_format(ModelSettings(), CARD) == chosen
    assert _training_format(Settings(), CARD) == (torch.bfloat16 if major > 7 else torch.float32)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("tf32", torch.float32), ("fp16", torch.float16)]
)
def test_a_number_format_that_is_set_is_taken(precision: str, dtype: torch.dtype) -> None:
    assert number_format(ModelSettings.model_validate({"precision": precision}), CARD) == dtype


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_what_only_a_card_has_is_refused_on_a_processor_and_for_training(precision: str) -> None:
    settings = Settings.model_validate({"model": {"precision": precision}})
    with pytest.raises(SettingsError, match=f"{precision}, which is for GPUs, .* Set model.precision to auto"):
        number_format(settings.model, CPU)
    with pytest.raises(SettingsError, match=f"{precision}: a model is fine-tuned in bf16 or fp32"):
        _training_format(settings, CARD)


def test_cuda_is_the_first_card_and_one_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, 9)
    assert choose_device("auto") == choose_device("cuda") == CARD
    with pytest.raises(SettingsError, match=r"model\.device is cuda:1, and torch sees 1 CUDA devices"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU


def test_settings_reach_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, "Cuda", lambda where, **rest: asked.append((where, rest)))
    for settings in ({}, {"precision": "tf32", "cuda_graphs": False}):
        open_device(ModelSettings.model_validate(settings), CARD)
    assert asked == [(CARD, {"tf32": False, "graphs": True}), (CARD, {"tf32": True, "graphs": False})]
    assert isinstance(open_device(ModelSettings(), CPU), Plain)
