"""The number format that the setting `auto` means on a processor."""

from __future__ import annotations

import pytest
import torch

from adawise.clip import device
from adawise.clip.device import Plain, processor_format

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("vendor", "has", "chosen"),
    [
        ("GenuineIntel", {"avx512_bf16", "amx_bf16"}, BF16),  # Sapphire Rapids
        ("GenuineIntel", {"avx512_bf16"}, FP32),  # Cooper Lake, and a virtual machine that hides AMX
        ("GenuineIntel", {"amx_bf16"}, BF16),
        ("GenuineIntel", set(), FP32),
        ("AuthenticAMD", {"avx512_bf16"}, BF16),  # Zen 4
        ("AuthenticAMD", set(), FP32),
        ("", {"avx512_bf16"}, BF16),  # a vendor that the system does not report counts as before
        ("HygonGenuine", {"avx512_bf16"}, BF16),
        ("", set(), FP32),
    ],
)
def test_the_format_of_a_processor_follows_from_its_vendor_and_its_instructions(
    vendor: str, has: set[str], chosen: torch.dtype
) -> None:
    assert processor_format(vendor, has) == chosen


@pytest.mark.parametrize(
    ("vendor", "has", "chosen", "has_bfloat16"),
    [
        ("AuthenticAMD", {"avx512_bf16": True, "amx_bf16": False, "avx2": True}, BF16, True),
        ("GenuineIntel", {"avx512_bf16": True, "amx_bf16": False, "avx2": True}, FP32, True),
        ("GenuineIntel", {"avx512_bf16": True, "amx_bf16": True}, BF16, True),
        ("AuthenticAMD", {"avx2": True}, FP32, False),
    ],
)
def test_a_processor_is_asked_for_what_it_is(
    monkeypatch: pytest.MonkeyPatch, vendor: str, has: dict[str, bool], chosen: torch.dtype, has_bfloat16: bool
) -> None:
    monkeypatch.setattr(device, "vendor", lambda: vendor)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)  # torch 2.10 lacks it
    plain = Plain(torch.device("cpu"))
    assert (plain.auto_format, plain.has_bfloat16) == (chosen, has_bfloat16)


def test_without_a_report_of_instructions_the_format_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert Plain(torch.device("cpu")).auto_format == FP32
