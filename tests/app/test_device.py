"""Which device, number format and forward shape the settings choose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import structlog
import torch

from adawise.app import model as module
from adawise.app.model import choose_device, number_format, open_device
from adawise.clip.cuda import Cuda
from adawise.clip.device import Device, Plain
from adawise.errors import DeviceError, SettingsError
from adawise.settings import ModelSettings, Settings
from adawise_lab.finetune.training import _training_format
from tests.gpu.rehearsal import CARD as REHEARSED
from tests.gpu.rehearsal import Rehearsal

CPU, CARD = torch.device("cpu"), torch.device("cuda:0")


def card(auto_format: torch.dtype = torch.bfloat16) -> Device:
    """What the settings ask of a card."""
    return cast(Device, SimpleNamespace(where=CARD, auto_format=auto_format))


def rehearsed(properties: SimpleNamespace | Exception) -> Cuda:
    rehearsal = Rehearsal(0)
    rehearsal.properties = properties
    return Cuda(REHEARSED, tf32=False, graphs=True, cuda=rehearsal)


@pytest.mark.parametrize(("major", "chosen"), [(7, torch.float16), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_a_card_without_instructions_for_bfloat16_gets_float16(major: int, chosen: torch.dtype) -> None:
    found = rehearsed(SimpleNamespace(name="a card", major=major, minor=5))
    assert found.has_bfloat16 == (chosen == torch.bfloat16)
    device = card(found.auto_format)
    assert number_format(ModelSettings(), device) == chosen
    assert _training_format(Settings(), device) == (torch.bfloat16 if major > 7 else torch.float32)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("tf32", torch.float32), ("fp16", torch.float16)]
)
def test_a_number_format_that_is_set_is_taken(precision: str, dtype: torch.dtype) -> None:
    assert number_format(ModelSettings.model_validate({"precision": precision}), card()) == dtype


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_what_only_a_card_has_is_refused_on_a_processor_and_for_training(precision: str) -> None:
    settings = Settings.model_validate({"model": {"precision": precision}})
    with pytest.raises(SettingsError, match=f"{precision}, which needs a GPU, .* Set model.precision to auto"):
        number_format(settings.model, Plain(CPU))
    with pytest.raises(SettingsError, match=f"{precision}: a model is fine-tuned in bf16 or fp32"):
        _training_format(settings, card())


def test_cuda_is_the_first_card_and_one_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == choose_device("cuda") == CARD
    with pytest.raises(SettingsError, match=r"model\.device is cuda:1, but torch sees 1 CUDA devices"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with structlog.testing.capture_logs() as logs:
        assert choose_device("auto") == CPU
    assert [line["event"] for line in logs] == ["card_not_used"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with structlog.testing.capture_logs() as logs:
        assert choose_device("auto") == CPU
    assert logs == []


def test_settings_reach_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []
    monkeypatch.setattr(module, "choose_device", torch.device)
    monkeypatch.setattr(module, "Cuda", lambda where, **rest: requests.append((where, rest)))
    for settings in ({}, {"precision": "tf32", "cuda_graphs": False}):
        open_device(ModelSettings.model_validate({"device": "cuda:0", **settings}))
    assert requests == [(CARD, {"tf32": False, "graphs": True}), (CARD, {"tf32": True, "graphs": False})]
    assert isinstance(open_device(ModelSettings(device="cpu")), Plain)


def test_a_card_that_does_not_start_is_told_in_a_sentence() -> None:
    with pytest.raises(DeviceError, match=r"cannot be used: Found no NVIDIA driver .* model\.device=cpu needs neither"):
        rehearsed(RuntimeError("Found no NVIDIA driver on your system. Please check ..."))
