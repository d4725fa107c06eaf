"""What a card must do, on a card; where there is none, the same tests run on its rehearsal, so that they are right."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from torch import Tensor

from adawise.__main__ import program
from adawise.adapt.objective import NO_CARD
from adawise.adapt.state import StreamState
from adawise.adapt.strategies import strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.app import model
from adawise.clip.classifier import GRID, PairClassifier
from adawise.clip.cuda import Cuda
from adawise.clip.load import CheckpointPair, load_checkpoints
from adawise.records import ImageBatch
from adawise.worker.adaptation import Adaptation, Adapted
from tests.deadlines import scaled
from tests.dying import exit_code
from tests.frames import a_frame
from tests.gpu.conftest import Machine
from tests.gpu.rehearsal import CARD, Rehearsal
from tests.models import PairFolder, classifier, random_images

IMAGES = random_images(40)
ENDS_AND_BETWEEN = (0, 7, 20)
# Mean distance of logits from the processor's in float32, in units of their spread over images and classes. A rounding
# of inputs to 8 (bf16) or 11 bits (fp16, tf32) passes three layers; sums in float32 differ by their order alone.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "pipeline/adawise/demo/pair"
FOLLOWING = ROOT / "tests/fixtures/root_0_1_0/following"  # a recording of four cameras


def logits(subject: PairClassifier, machine: Machine, index: int, images: Tensor) -> Tensor:
    with machine.running():
        return subject.logits(index, images)


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().mean() / wanted.std())


def test_logits_are_the_processors_within_the_bound_of_the_number_format(
    pair: CheckpointPair, machine: Machine
) -> None:
    exact = classifier(pair, chunk_rows=8)
    for dtype in machine.dtypes:
        subject = machine.classifier(pair, dtype=dtype)
        for index in ENDS_AND_BETWEEN:
            found = logits(subject, machine, index, IMAGES)
            assert distance(found, exact.logits(index, IMAGES)) <= BOUNDS[dtype], (dtype, index)


def test_tf32_is_used_if_asked_for_and_only_then(pair: CheckpointPair, card: torch.device) -> None:
    machine, exact = Machine(card, None), classifier(pair, chunk_rows=8).logits(7, IMAGES)
    plain = logits(machine.classifier(pair), machine, 7, IMAGES)
    rounded = logits(machine.classifier(pair, device=machine.device(tf32=True)), machine, 7, IMAGES)
    assert distance(rounded, exact) <= BOUNDS[torch.float16]
    if torch.cuda.get_device_properties(card).major >= 8:  # older cards have no TF32
        assert distance(plain, exact) < distance(rounded, exact)


def test_an_images_logits_are_the_same_bits_whoever_shares_its_chunk(pair: CheckpointPair, machine: Machine) -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in machine.dtypes:
        subject = machine.classifier(pair, dtype=dtype)
        with machine.running():
            subject.warm_up()  # proves it at the ends, and refuses what does not hold it
        together = logits(subject, machine, 7, IMAGES)
        for n in (1, 9, 23):
            order = torch.randperm(len(IMAGES), generator=generator)[:n]
            assert torch.equal(logits(subject, machine, 7, IMAGES[order]), together[order]), (dtype, n)
        for place in (0, 3, 7):
            others = random_images(8, seed=place + 1)
            others[place] = IMAGES[5]
            assert torch.equal(logits(subject, machine, 7, others)[place], together[5]), (dtype, place)


def test_a_graph_sees_what_is_merged_under_it_and_is_the_forward_that_it_was_captured_from(
    pair: CheckpointPair, machine: Machine
) -> None:
    for dtype in machine.dtypes:
        worn = machine.classifier(pair, dtype=dtype, copies=2)
        for index in (3, 9, 20, 0, 9, 3):
            fresh = machine.classifier(pair, dtype=dtype, device=machine.device(graphs=False))
            assert torch.equal(logits(worn, machine, index, IMAGES[:5]), logits(fresh, machine, index, IMAGES[:5])), (
                dtype,
                index,
            )
        assert worn.bank.merges >= 5
        assert worn.bank.capacity == 2


def test_many_merges_in_a_small_bank_take_no_more_memory(pair: CheckpointPair, card: torch.device) -> None:
    machine = Machine(card, None)
    subject = machine.classifier(pair, copies=2)
    used = []
    for _ in range(3):
        for index in range(21):
            subject.logits(index, IMAGES)
        used.append(torch.cuda.memory_allocated(card))
    assert used[0] == used[1] == used[2]


def test_a_card_whose_memory_is_taken_gets_a_smaller_bank_and_the_log_says_so(card: torch.device) -> None:
    pair = load_checkpoints(
        None, f"local-dir:{DEMO}/theta_0", f"local-dir:{DEMO}/theta_1"
    )  # 3.4 MB a copy, 72 MB for all
    machine, size = Machine(card, None), pair.preprocess.size
    images = torch.randint(0, 256, (9, 3, size, size), dtype=torch.uint8)
    expected = [machine.classifier(pair).logits(j, images) for j in range(21)]
    subject = machine.classifier(pair)
    subject.logits(0, images)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved(card) + 48 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(card).total_memory, card)
    try:
        with structlog.testing.capture_logs() as logs:
            found = [subject.logits(j, images) for j in range(21)]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert "bank_shrunk" in [line["event"] for line in logs]
    assert subject.bank.capacity < 21


def a_batch(stream: str, first: int, images: Tensor) -> ImageBatch:
    frames = tuple(a_frame(first + i, stream) for i in range(len(images)))
    return ImageBatch(stream, frames, images)


def adapted(
    subject: PairClassifier, machine: Machine, streams: dict[str, list[ImageBatch]], rounds: list[list[str]]
) -> dict[str, list[Adapted]]:
    """Every stream's batches in order; `rounds` says which streams share a round."""
    warm = strategy(
        "warm",
        alphas=GRID,
        objective=NO_CARD["tsallis"],
        context="",
        alpha=0.5,
        exploration=Exploration(price=0.001, every=2),
    )
    adaptation = Adaptation(warm, subject, (1.0,) * 21, 3)
    states: dict[str, StreamState] = dict.fromkeys(streams, warm.initial())
    results: dict[str, list[Adapted]] = {name: [] for name in streams}
    for names in rounds:
        batches = [streams[name][len(results[name])] for name in names]
        with machine.running():
            for name, one in zip(names, adaptation.run(batches, [states[n] for n in names]), strict=True):
                results[name].append(one)
                states[name] = one.state
    return results


def test_a_replay_on_the_same_card_is_equal_however_cameras_share_its_rounds(
    pair: CheckpointPair, machine: Machine
) -> None:
    names = ["a", "b", "c"]
    streams = {
        name: [a_batch(name, 16 * k, random_images(16, seed=10 * s + k)) for k in range(4)]
        for s, name in enumerate(names)
    }
    dtype = machine.dtypes[-1]
    live = adapted(machine.classifier(pair, dtype=dtype, copies=3), machine, streams, [names] * 4)
    alone = [[name] for name in reversed(names) for _ in range(4)]
    again = adapted(machine.classifier(pair, dtype=dtype), machine, streams, alone)
    for name in names:
        for one, other in zip(live[name], again[name], strict=True):
            assert one.state.to_bytes() == other.state.to_bytes()
            np.testing.assert_array_equal(one.predictions.top_probability, other.predictions.top_probability)
            assert one.trace.trials == other.trace.trials
    assert len({one.trace.alpha for name in names for one in live[name]}) > 1  # they did look around


def test_nothing_waits_within_a_round_but_the_fetch(
    pair: CheckpointPair, card: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Machine(card, None).classifier(pair)
    requested = {j: [IMAGES[:16], IMAGES[20:28]] for j in ENDS_AND_BETWEEN}
    expected = subject.evaluate(requested)  # merges, heads and graphs are made at first use
    fetch = Cuda.fetch

    def allowed(self: Cuda, parts: list[Tensor]) -> Tensor:
        torch.cuda.set_sync_debug_mode("default")
        return fetch(self, parts)

    monkeypatch.setattr(Cuda, "fetch", allowed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = subject.evaluate(requested)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(found[j], expected[j]) for j in requested)


def lose_the_card(kind: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Be the program, in a forked process, on a card that fails after eight rounds; `log` gets its errors."""
    os.environ.update(environment)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    rehearsal = Rehearsal(0) if kind == "rehearsed" else None
    rounds, fetch = 0, Cuda.fetch

    def failing(self: Cuda, parts: Sequence[Tensor]) -> Tensor:
        nonlocal rounds
        rounds += 1
        if rounds > 8:
            if rehearsal:
                rehearsal.fault = torch.AcceleratorError("CUDA error: device-side assert triggered")
            else:
                torch.zeros(2, device=self.where)[torch.tensor([9], device=self.where)]  # asserts there, for good
        return fetch(self, parts)

    Cuda.fetch = failing  # type: ignore[method-assign]
    if rehearsal:
        model.open_device = lambda _: Cuda(CARD, tf32=False, graphs=True, cuda=rehearsal)  # type: ignore[assignment]
    with rehearsal or contextlib.nullcontext():
        sys.argv = ["adawise", *arguments]
        program()


def test_a_lost_card_ends_the_worker_with_a_reason_and_exit_code_1(machine: Machine, tmp_path: Path) -> None:
    environment = {
        "ADAWISE_MODEL__THETA_0": f"local-dir:{DEMO}/theta_0",
        "ADAWISE_MODEL__THETA_1": f"local-dir:{DEMO}/theta_1",
        "ADAWISE_MODEL__CLASSES": f"{DEMO}/classes.txt",
        "ADAWISE_MODEL__DEVICE": str(machine.where).removesuffix(":0"),
        "ADAWISE_MODEL__PRECISION": "fp32",
        "ADAWISE_BATCH__IMAGES": "4",
    }
    kind = "card" if machine.rehearsal is None else "rehearsed"
    arguments = ["replay", str(FOLLOWING), "-o", str(tmp_path / "again")]
    code = exit_code(lose_the_card, kind, arguments, environment, str(tmp_path / "log"))
    output = (tmp_path / "log").read_text()
    assert code == 1, output
    last = output.rstrip().splitlines()[-1]
    assert " failed: CUDA error: device-side assert triggered. Nothing is lost" in last
    assert "nvidia-smi" in last
    assert "Traceback" not in output


def test_two_workers_run_on_two_cards(pair_folder: PairFolder, card: torch.device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"one card here ({torch.cuda.get_device_name(card)}), two are needed")
    program = (
        "import sys, torch\n"
        "from adawise.clip.load import load_checkpoints\n"
        "from tests.gpu.conftest import Machine\n"
        "from tests.models import random_images\n"
        "pair = load_checkpoints(None, *sys.argv[2:])\n"
        "subject = Machine(torch.device(sys.argv[1]), None).classifier(pair, dtype=torch.float32)\n"
        "subject.warm_up()\n"
        "print(subject.logits(7, random_images(40)).double().sum().item(), torch.cuda.current_device())\n"
        "assert torch.cuda.memory_allocated(1 - torch.cuda.current_device()) == 0\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, f"cuda:{number}", pair_folder.theta_0, pair_folder.theta_1],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    output = [process.communicate(timeout=scaled(200.0))[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert [words[1] for words in output] == ["0", "1"]
    if len({torch.cuda.get_device_name(number) for number in (0, 1)}) == 1:
        assert output[0][0] == output[1][0]
