"""The doctor measures both number formats, and says where the rule for the processor is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from adawise.app.model import ModelPair
from adawise.app.precision import PrecisionChoice
from adawise.clip import classifier as clip_classifier
from adawise.clip import device as clip_device
from adawise.doctor import model as pair_module
from adawise.doctor.known import Known
from adawise.doctor.precision import number_format, verdict
from adawise.doctor.result import CheckResult
from adawise.settings import Settings
from adawise.sink.precision import claim_precision
from adawise.store.store import open_store
from tests.models import PairFolder

RATES = {"fp32": 72.04, "bf16": 51.3}
BOTH = "fp32 is the faster one here: 72 images/s, bf16 51.3; the rule for this processor chooses"


@pytest.mark.parametrize(
    ("rates", "chosen", "rule", "is_set", "expected"),
    [
        (RATES, "fp32", "fp32", False, ("ok", f"{BOTH} fp32, and a worker uses fp32 by the rule")),
        (RATES, "fp32", "bf16", True, ("ok", f"{BOTH} bf16, and a worker uses fp32 by model.precision")),
        (
            RATES,
            "bf16",
            "bf16",
            False,
            ("warn", f"{BOTH} bf16, and a worker uses bf16 by the rule. Set model.precision"),
        ),
        (RATES, "bf16", "fp32", False, ("warn", f"{BOTH} fp32, and a worker uses bf16 as this root is served. Set ")),
        ({"fp32": 109.0, "bf16": 100.0}, "bf16", "bf16", False, ("ok", "fp32 is the faster one here: 109 images/s")),
    ],
)
def test_a_format_that_is_slower_by_more_than_a_tenth_is_a_warning_that_names_the_setting(
    rates: dict[str, float], chosen: str, rule: str, is_set: bool, expected: tuple[str, str]
) -> None:
    answer = verdict(rates, chosen, rule, is_set=is_set)
    assert answer.status == expected[0]
    assert answer.detail.startswith(expected[1])
    if answer.status == "warn":
        assert "Set model.precision to fp32 for all workers of the group" in answer.detail


class Time:
    """Moves with each forward."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.of_forwards_s = {torch.float32: 0.1, torch.bfloat16: 0.2}
        self.forwards = {torch.float32: 0, torch.bfloat16: 0}

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """A forward takes .1 s in fp32 and .2 in bf16."""
    time, real = Time(), clip_classifier.forward_in

    def forward_in(pair: object, dtype: torch.dtype, where: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        forward = real(pair, dtype, where)  # type: ignore[arg-type]

        def timed(chunk: torch.Tensor) -> torch.Tensor:
            time.now_s += time.of_forwards_s[dtype]
            time.forwards[dtype] += 1
            return forward(chunk)

        return timed

    monkeypatch.setattr(clip_classifier, "forward_in", forward_in)
    return time


def loaded(pair: PairFolder, folder: Path, precision: str) -> Known:
    model = {"architecture": pair.theta_0, "theta_0": pair.theta_0, "theta_1": pair.theta_1, "classes": pair.classes}
    model |= {"device": "cpu", "precision": precision, "cache_mib": 0}
    known = Known(Settings.model_validate({"model": model, "sink": {"root": str(folder / "out")}}))
    assert pair_module.pair(known).status == "ok"
    return known


def test_both_formats_are_measured_in_turns_for_two_seconds_at_the_chunk_size(
    pair_folder: PairFolder, tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_device, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    claim_precision(open_store(str(tmp_path / "out")), "bf16")
    known = loaded(pair_folder, tmp_path, "auto")
    assert known.model is not None
    assert known.model.classifier.dtype == torch.bfloat16
    answer = number_format(known, time.clock)
    # turns of .3 s fill 2 s, of which the first does not count
    assert time.forwards == {torch.float32: 7, torch.bfloat16: 7}
    assert answer.status == "warn"
    assert answer.detail.startswith(
        "fp32 is the faster one here: 80 images/s, bf16 40; the rule for this processor chooses bf16, "
    )


@pytest.mark.parametrize(("of_bf16_s", "forwards"), [(1.5, 4), (4.0, 2), (60.0, 1)])
def test_the_measurement_of_a_large_tower_ends_within_the_time_of_the_part(
    pair_folder: PairFolder, tmp_path: Path, time: Time, of_bf16_s: float, forwards: int
) -> None:
    time.of_forwards_s = {torch.float32: 1.0, torch.bfloat16: of_bf16_s}
    answer = number_format(loaded(pair_folder, tmp_path, "fp32"), time.clock)
    assert time.forwards == {torch.float32: forwards, torch.bfloat16: forwards}
    assert answer.detail.startswith(f"fp32 is the faster one here: 8 images/s, bf16 {8 / of_bf16_s:.3g}; ")


def test_a_format_that_is_set_is_compared_too(pair_folder: PairFolder, tmp_path: Path, time: Time) -> None:
    assert number_format(loaded(pair_folder, tmp_path, "fp32"), time.clock).status == "ok"
    answer = number_format(loaded(pair_folder, tmp_path, "bf16"), time.clock)
    assert answer.status == "warn"
    assert "a worker uses bf16 by model.precision. Set model.precision to fp32" in answer.detail


def test_without_a_pair_or_on_a_card_nothing_is_measured() -> None:
    known = Known(Settings())
    assert number_format(known).status == "skip"
    card = SimpleNamespace(where=torch.device("cuda:0"))
    known.model = cast(ModelPair, SimpleNamespace(classifier=SimpleNamespace(device=card)))
    known.precision = cast(PrecisionChoice, SimpleNamespace(chosen="bf16"))
    assert number_format(known) == CheckResult("ok", "bf16; formats are compared on processors alone")
