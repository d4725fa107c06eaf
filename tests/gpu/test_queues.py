"""Without a card: `clip.cuda` on queues that run late (`rehearsal`). A wait that is missing gives wrong numbers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping

import pytest
import structlog
import torch
from torch import Tensor

from adawise.adapt.interpolate import interpolate as merge
from adawise.clip.classifier import PairClassifier
from adawise.clip.cuda import Cuda, _Slot
from adawise.clip.load import CheckpointPair
from adawise.errors import DeviceError
from tests.clip.test_trunk import BATCHES, requests, sharing, whole
from tests.gpu.rehearsal import CARD, HiddenWait, Rehearsal
from tests.models import CLASSES, TEMPLATES, bank_bytes, classifier, random_images

SEEDS = range(3)  # of the order of things that may come in any
MANY = range(12)  # until a mistake is seen
IMAGES = random_images(40)
ROUNDS: list[dict[int, list[Tensor]]] = [
    {0: [IMAGES[:5], IMAGES[5:16]], 7: [IMAGES[16:17]], 20: [IMAGES[17:40]]},
    {3: [IMAGES[2:9]], 7: [IMAGES[:13]], 9: [IMAGES[30:31], IMAGES[8:9]], 12: [IMAGES[20:29]]},
    {0: [IMAGES[9:18]], 3: [IMAGES[:1]]},
]


def on(
    pair: CheckpointPair, rehearsal: Rehearsal, *, copies: int = 2, graphs: bool = True, kind: type[Cuda] = Cuda
) -> PairClassifier:
    return PairClassifier(
        pair,
        classes=CLASSES,
        templates=TEMPLATES,
        chunk_rows=4,
        dtype=torch.float32,
        device=kind(CARD, tf32=False, graphs=graphs, cuda=rehearsal),
        bank_bytes=copies * bank_bytes(pair, torch.float32),
        head="text",
    )


@pytest.fixture(scope="module")
def expected(pair: CheckpointPair) -> list[Mapping[int, Tensor]]:
    plain = classifier(pair, chunk_rows=4)
    return [plain.evaluate(requested) for requested in ROUNDS]


def are_equal(found: Mapping[int, Tensor], wanted: Mapping[int, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[j], wanted[j]) for j in wanted)


def runs(subject: PairClassifier, rehearsal: Rehearsal) -> Iterator[Mapping[int, Tensor]]:
    for requested in ROUNDS:
        with rehearsal:
            found = subject.evaluate(requested)
        yield found


@pytest.mark.parametrize(("copies", "graphs"), [(2, True), (2, False), (21, True)])
@pytest.mark.parametrize("seed", SEEDS)
def test_logits_are_the_processors_own_bit_by_bit_whatever_comes_first(
    pair: CheckpointPair, expected: list[Mapping[int, Tensor]], seed: int, copies: int, graphs: bool
) -> None:
    rehearsal = Rehearsal(seed)
    with rehearsal:
        subject = on(pair, rehearsal, copies=copies, graphs=graphs)
    for found, wanted in zip(runs(subject, rehearsal), expected, strict=True):
        assert are_equal(found, wanted)
    assert rehearsal.captures == (min(copies, 6) if graphs else 0)  # a copy that is merged over keeps its graph


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.cases("models", every=3)
def test_a_tower_that_is_cut_gives_the_bits_of_the_whole_one_and_waits_once_a_step(
    pair: CheckpointPair, seed: int, graphs: bool
) -> None:
    shared = sharing(pair)
    wanted = [whole(shared, torch.float32).open(BATCHES).evaluate(step) for step in requests(seed)]
    rehearsal = Rehearsal(seed)
    with rehearsal:
        subject = on(shared, rehearsal, graphs=graphs)
        assert subject.bank.trunk is not None
    for _ in range(2):  # the second round replays what the first has captured
        with rehearsal:
            opened = subject.open(BATCHES)
        for step, expected in zip(requests(seed), wanted, strict=True):
            before = rehearsal.waits
            with rehearsal:
                found = opened.evaluate(step)
            assert are_equal(found, expected)
            assert rehearsal.waits == before + 1
    with rehearsal:
        assert torch.equal(subject.logits(3, IMAGES), whole(shared, torch.float32).logits(3, IMAGES))


def test_the_compute_queue_is_waited_for_once_a_round(pair: CheckpointPair) -> None:
    rehearsal = Rehearsal(0)
    with rehearsal:
        subject = on(pair, rehearsal)
    waits = [rehearsal.waits]
    for _ in runs(subject, rehearsal):
        waits.append(rehearsal.waits)
    assert waits == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", SEEDS)
def test_images_may_change_as_soon_as_they_are_staged(pair: CheckpointPair, seed: int) -> None:
    rehearsal = Rehearsal(seed)
    with rehearsal:
        device = Cuda(CARD, tf32=False, graphs=True, cuda=rehearsal)
        images = IMAGES[:4].clone()
        chunk = device.stage([images], 4)
        images.zero_()
        fetched = device.fetch([chunk.flatten(1)])
    assert torch.equal(fetched, IMAGES[:4].flatten(1))


# -- planted mistakes: each must be seen in some order of things


class WithoutUploadWait(Cuda):
    """The compute queue does not wait for the upload, nor the host before it fills the buffer again."""

    def _slot(self, shape: tuple[int, ...]) -> _Slot:
        slot = super()._slot(shape)
        slot.uploaded.deaf = True
        return slot


class WithoutConsumed(Cuda):
    """The upload does not wait for who reads the chunk before."""

    def _slot(self, shape: tuple[int, ...]) -> _Slot:
        slot = super()._slot(shape)
        slot.consumed.deaf = True
        return slot


class WithoutFetchWait(Cuda):
    """The host does not wait for the logits."""

    def fetch(self, parts: object) -> Tensor:
        self._fetched.deaf = True
        return super().fetch(parts)  # type: ignore[arg-type]


class MergesBeside(Cuda):
    """Graphs run in a queue of their own, which merges and heads know nothing of."""

    def _captured(self, forward: Callable[[Tensor], Tensor], chunk: Tensor) -> Callable[[Tensor], Tensor]:
        replay, beside = super()._captured(forward, chunk), self._cuda.Stream()

        def replay_beside(chunk: Tensor) -> Tensor:
            with self._cuda.stream(beside):
                return replay(chunk)

        return replay_beside


@pytest.mark.parametrize("mistake", [WithoutUploadWait, WithoutConsumed, WithoutFetchWait, MergesBeside])
def test_a_wait_that_is_missing_is_seen(
    pair: CheckpointPair, expected: list[Mapping[int, Tensor]], mistake: type[Cuda]
) -> None:
    def goes_wrong(seed: int) -> bool:
        rehearsal = Rehearsal(seed)
        with rehearsal:
            subject = on(pair, rehearsal, kind=mistake)
        return any(not are_equal(f, w) for f, w in zip(runs(subject, rehearsal), expected, strict=True))

    assert any(goes_wrong(seed) for seed in MANY)


def test_a_value_that_is_asked_for_in_the_middle_is_seen(pair: CheckpointPair) -> None:
    rehearsal = Rehearsal(0)
    with rehearsal, pytest.raises(HiddenWait):
        float(torch.zeros(1, device=CARD).sum())


# -- what goes wrong on a card


@pytest.mark.parametrize("memory", [1, 3])
def test_memory_that_runs_out_makes_the_bank_smaller_and_changes_nothing_else(
    pair: CheckpointPair, expected: list[Mapping[int, Tensor]], memory: int
) -> None:
    elements = bank_bytes(pair, torch.float32) // 4
    rehearsal = Rehearsal(memory)
    with rehearsal:
        subject = on(pair, rehearsal, copies=21)
    rehearsal.memory(copies=memory, elements=elements)
    with structlog.testing.capture_logs() as logs:
        for found, wanted in zip(runs(subject, rehearsal), expected, strict=True):
            assert are_equal(found, wanted)
    received = [line for line in logs if line["event"] == "bank_shrunk"]
    assert received
    assert received[-1]["copies"] == subject.bank.capacity <= memory
    assert "model.bank_mib" in received[-1]["remedy"]
    assert rehearsal.freed == len(received)


def test_a_card_without_memory_for_one_copy_is_told_with_a_remedy(pair: CheckpointPair) -> None:
    rehearsal = Rehearsal(0)
    with rehearsal:
        subject = on(pair, rehearsal)
    rehearsal.memory(copies=0, elements=bank_bytes(pair, torch.float32) // 4)
    with rehearsal, pytest.raises(DeviceError, match=r"too little free memory .* lower model\.chunk_rows"):
        subject.evaluate(ROUNDS[0])


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors ...",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_memory_that_the_driver_or_a_library_lacks_is_memory_too(pair: CheckpointPair, words: str) -> None:
    rehearsal = Rehearsal(0)
    with rehearsal:
        subject = on(pair, rehearsal, copies=21)
        subject.evaluate(ROUNDS[0])
        rehearsal.fault = RuntimeError(words)
        with structlog.testing.capture_logs() as logs, pytest.raises(DeviceError, match="too little free memory"):
            subject.evaluate(ROUNDS[1])
    assert [line["copies"] for line in logs if line["event"] == "bank_shrunk"][-1] == 1


def test_memory_that_runs_out_in_a_merge_costs_that_copy_alone(
    pair: CheckpointPair, expected: list[Mapping[int, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal, merges = Rehearsal(0), list[Tensor]()

    def interpolate(*ends: Tensor, out: Tensor) -> Tensor:
        merges.append(out)
        if len(merges) == 3:  # the first that is over another copy
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 MiB.")
        return merge(*ends, out=out)  # type: ignore[arg-type]

    monkeypatch.setattr("adawise.clip.bank.interpolate", interpolate)
    with rehearsal:
        subject = on(pair, rehearsal, copies=2)
        found = subject.evaluate(ROUNDS[0])
    assert are_equal(found, expected[0])
    assert subject.bank.capacity == 1


def test_a_graph_keeps_what_it_reads(pair: CheckpointPair) -> None:
    """It knows addresses alone: another classifier that shares the bank may outlive the one that captured."""
    rehearsal = Rehearsal(0)
    with rehearsal:
        first = on(pair, rehearsal)
        wanted = first.evaluate(ROUNDS[2])
        mean = weakref.ref(first._mean)
        second = PairClassifier(
            pair,
            classes=CLASSES,
            templates=TEMPLATES,
            chunk_rows=4,
            dtype=torch.float32,
            device=first.device,
            bank_bytes=0,
            head="text",
            bank=first.bank,
        )
        del first
        gc.collect()
        assert mean() is not None
        assert are_equal(second.evaluate(ROUNDS[2]), wanted)


def test_a_lost_card_is_told_with_where_and_what_to_do(pair: CheckpointPair) -> None:
    rehearsal = Rehearsal(0)
    with rehearsal:
        subject = on(pair, rehearsal)
        rehearsal.fault = torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might ...")
        with pytest.raises(
            DeviceError, match=r"^cpu:0 failed: CUDA error: unspecified launch failure\. Nothing is lost"
        ):
            subject.evaluate(ROUNDS[0])


def test_an_error_that_is_not_the_cards_stays_what_it_is(pair: CheckpointPair) -> None:
    rehearsal = Rehearsal(0)
    with rehearsal:
        subject = on(pair, rehearsal)
        with pytest.raises(RuntimeError, match="must match the size") as caught:
            subject.evaluate({0: [torch.zeros(2, 3, 8, 8, dtype=torch.uint8)], 1: [IMAGES[:1]]})
    assert not isinstance(caught.value, DeviceError)


def test_a_tower_that_cannot_be_captured_runs_without_graphs_and_the_log_says_so(
    pair: CheckpointPair, expected: list[Mapping[int, Tensor]]
) -> None:
    rehearsal = Rehearsal(0, refuses_capture=True)
    with rehearsal:
        subject = on(pair, rehearsal)
    with structlog.testing.capture_logs() as logs:
        for found, wanted in zip(runs(subject, rehearsal), expected, strict=True):
            assert are_equal(found, wanted)
    (received,) = [line for line in logs if line["event"] == "graph_refused"]
    assert received["error"] == "CUDA error: operation not permitted when stream is capturing"
