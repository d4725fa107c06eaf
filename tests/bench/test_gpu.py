"""The bench of a card runs on a processor and on the rehearsal of a card: every section is there, with figures."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adawise.clip.cuda import Cuda
from adawise.clip.device import Device, Forward, Plain
from adawise.clip.load import CheckpointPair
from tests.gpu.rehearsal import CARD, Rehearsal
from tools.bench import gpu
from tools.bench.gpu import GpuBench, Page, Sizes, busy, file_name, limit, report
from tools.bench.host import Case, WorkerPass
from tools.bench.place import Place, why_no_card

LITTLE = Sizes(
    chunk_rows=(8, 16),
    cameras=(2, 3),
    batches=4,
    rounds_s=0.1,
    frame=(160, 120),
    decode_s=0.01,
    ready=(192, 4),
    decoded=(96, 4),
)
SECTIONS = (
    "tiny: the bare tower",
    "tiny: the classifier",
    "tiny: rows of a chunk",
    "Decoding",
    "tiny: the worker, from memory",
)


class Rehearsed(Place):
    """The card's own code, on queues that the processor plays."""

    rehearsal = Rehearsal(0)

    def open(self, precision: str, *, graphs: bool = True) -> Device:
        return Cuda(CARD, tf32=precision == "tf32", graphs=graphs, cuda=self.rehearsal)

    def wait(self) -> None:
        self.rehearsal.run_until(lambda: not any(stream.items for stream in self.rehearsal._streams))


@pytest.fixture(scope="module", params=["processor", "rehearsed"])
def page(pair: CheckpointPair, request: pytest.FixtureRequest) -> Page:
    if request.param == "processor":
        return report(Place(torch.device("cpu"), case_s=0.01), {"tiny": lambda: pair}, LITTLE)
    with Rehearsed.rehearsal:
        return report(Rehearsed(CARD, case_s=0.01), {"tiny": lambda: pair}, LITTLE)


@pytest.mark.check("tools")
def test_every_section_is_measured(page: Page) -> None:
    assert page.failed == []
    assert [line.removeprefix("## ") for line in page.text if line.startswith("## ")] == list(SECTIONS)


@pytest.mark.check("tools")
@pytest.mark.parametrize("section", SECTIONS)
def test_every_figure_of_a_section_is_finite_and_positive(page: Page, section: str) -> None:
    after = "\n".join(page.text).split(f"## {section}\n")[1]
    rows = [line for line in after.split("\n## ")[0].splitlines() if line.startswith("| ")]
    cells = [cell.strip() for row in rows[2:] for cell in row.strip("|").split("|")]
    assert rows
    assert not {"-", ""} & set(cells)
    figures = [float(n.replace(",", "")) for cell in cells for n in re.findall(r"\d[\d,]*\.?\d*(?:e-?\d+)?", cell)]
    assert len(figures) >= len(rows) - 2
    assert max(figures) > 0
    assert "nan" not in after
    assert "inf" not in after
    assert all(math.isfinite(figure) and figure >= 0 for figure in figures)


@pytest.mark.check("tools")
def test_a_section_that_fails_says_so_and_the_next_one_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page()
    page.section("first", lambda: [f"{1 / 0}"])
    page.section("second", lambda: ["measured"])
    assert page.failed == ["first"]
    assert page.text == ["## first", "**Failed**: ZeroDivisionError: division by zero", "## second", "measured"]
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.check("tools")
def test_without_a_card_nothing_is_measured_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def no_driver() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check\nmore")

    monkeypatch.setattr(torch.cuda, "init", no_driver)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert gpu.main(tmp_path) == 1
    found = "torch says: Found no NVIDIA driver on your system. Please check."
    assert capsys.readouterr().out == f"No card, so nothing was measured: {found}\n"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(torch.version, "cuda", None)
    assert why_no_card() == f"this torch ({torch.__version__}) is built without CUDA."
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert why_no_card() == "torch sees 0 CUDA devices."


@pytest.mark.check("tools")
def test_the_page_has_the_cards_name() -> None:
    assert file_name("NVIDIA H100 80GB HBM3") == "gpu-nvidia-h100-80gb-hbm3.md"


@pytest.mark.check("tools")
def test_the_limit_is_the_stage_that_is_busy_most_of_the_time() -> None:
    passed = WorkerPass(rate=1000.0, all_ms=0.5, main_ms=4.0, chunks_ms=1.0, forward_equivalents=1.1, rows=1.2)
    shares = busy(passed, Case(16, 8), rows_per_s=1500.0)
    assert shares["device"] == pytest.approx(1.2 * 1000 / 1500)
    assert shares["main thread"] == pytest.approx(0.004 * 1000 / 16)
    assert limit(shares) == "the limit is the device, busy for 80 % of the time."
    assert limit({"device": 0.2, "main thread": 0.6}).startswith("no stage is busy for 70 % of the time")


def test_a_tower_that_cannot_be_captured_is_told_and_the_others_are_measured(
    pair: CheckpointPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Plain.capture

    def capture(self: Plain, forward: Forward, chunk: Tensor) -> Forward:
        if len(chunk) == 16:
            raise torch.OutOfMemoryError("out of memory\nmore")
        return right(self, forward, chunk)

    monkeypatch.setattr(Plain, "capture", capture)
    bench = GpuBench(Place(torch.device("cpu"), case_s=0.01), LITTLE, lambda: pair, [])
    text = "\n".join(bench.bare_tower())
    assert "- fp32, captured, after 1 sizes: out of memory\n" in text
    assert bench.rates.keys() == {8}
